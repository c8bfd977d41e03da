"""The steps of ``benchmarks/gpu.sh``: what one GPU does with glas3d. Without a GPU they run too, for a check.

``python -m benchmarks.gpu machine | figures FILE | profile | study | page FILE`` prints what it measured; ``figures``
writes JSON too, after every part, so that a time limit loses no figure, and ``page`` puts that into ``gpu.md``.
"""

from __future__ import annotations

import argparse
import cProfile
import importlib.metadata
import io
import json
import os
import platform
import pstats
import statistics
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.methods import BATCHES_TO_COME, TARGET
from benchmarks.report import KINDS, insert, verdict
from benchmarks.roofline import Layer, layers, least_seconds
from benchmarks.suite import against_engines, against_rivals, over_forward_passes
from benchmarks.timing import Entry, engine_clock
from benchmarks.workloads import DEVICE, Workload, workloads
from glas3d import GLAS, GlasError, Predictor

_PACKAGES = ("torch", "triton", "numpy", "scipy", "monai", "captum", "nibabel", "nilearn")
_ENGINES = ("eager", "channels_last", "cudagraphs", "autocast") if DEVICE == "cuda" else ("eager", "channels_last")
_BATCHES = (2, 4, 8, 16, 32, 64)
_REPEATS = 7
_ROUNDS = 5
# A batch that no GPU holds: its activations in the paper's network take 160 GB.
_TOO_LARGE = 4096
_PARTICIPANTS = 40
_LINES = 15
_PAGE = Path(__file__).parent / "gpu.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("step", choices=("machine", "figures", "profile", "study", "page"))
    parser.add_argument("file", nargs="?", type=Path, help="of figures and page: the JSON file")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does every step run?")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # other packages warn while they are imported
    if options.step in ("figures", "page") and options.file is None:
        parser.error(f"{options.step} needs a file")
    if options.step == "machine":
        print(json.dumps(machine(), indent=1))
    elif options.step == "figures":
        with engine_clock(options.quick):
            sys.exit(figures(options.file, options.quick))
    elif options.step == "profile":
        with engine_clock(options.quick):
            profile(options.quick)
    elif options.step == "study":
        with engine_clock(options.quick):
            study(options.quick)
    else:
        written = insert(_PAGE.read_text(encoding="utf-8"), page(json.loads(options.file.read_text(encoding="utf-8"))))
        _PAGE.write_text(written, encoding="utf-8")


def machine() -> dict[str, Any]:
    """Return the GPU, the computer and the versions."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    card = "none"
    if DEVICE == "cuda":
        properties = torch.cuda.get_device_properties(0)
        card = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "gpu": card,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if DEVICE == "cuda" else None,
        "system": f"{platform.system()} {platform.machine()}, {cores} cores, Python {platform.python_version()}",
        "versions": versions,
    }


def seconds_of(call: Entry, repeats: int = _REPEATS, times: int = 1) -> float:
    """Return the median seconds of a call on the device, by CUDA's events where there are any."""
    call()
    measured = []
    for _ in range(repeats):
        if DEVICE == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            for _ in range(times):
                call()
            end.record()
            torch.cuda.synchronize()
            measured.append(start.elapsed_time(end) / 1e3 / times)
        else:
            begin = time.perf_counter()
            for _ in range(times):
                call()
            measured.append((time.perf_counter() - begin) / times)
    return statistics.median(measured)


def ceilings(quick: bool) -> dict[str, float]:
    """Return the bytes a second of a large copy, and the operations a second of a large matrix product by precision."""
    length, side = (2**22, 256) if quick else (2**29, 8192)
    source, target = torch.rand(length, device=DEVICE), torch.empty(length, device=DEVICE)
    rates = {"bytes": 8 * length / seconds_of(lambda: target.copy_(source))}
    left, right = torch.rand(2, side, side, device=DEVICE) - 0.5
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        for name, tf32 in (("float32", False), ("tf32", True)):
            torch.backends.cuda.matmul.allow_tf32 = tf32
            rates[name] = 2 * side**3 / seconds_of(lambda: left @ right)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    left, right = left.bfloat16(), right.bfloat16()
    rates["bfloat16"] = 2 * side**3 / seconds_of(lambda: left @ right)
    return rates


def evaluations(
    workload: Workload, engines: tuple[str, ...], batches: tuple[int, ...], limits: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """Yield the time of a model evaluation by each engine at each batch size, over its floor."""
    net = workload.build()
    own = Predictor(net, "softmax", device=DEVICE)
    for engine in engines:
        for size in batches:
            batch = workload.volume.unsqueeze(0).repeat(size, *[1] * workload.volume.ndim)
            if DEVICE == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                held = torch.cuda.memory_allocated()
            try:
                counted: list[Layer] = layers(net, batch)
                predict = own.with_engine(engine, BATCHES_TO_COME)
                start = time.perf_counter()
                predict(batch)
                building = time.perf_counter() - start
                seconds = seconds_of(lambda p=predict, b=batch: p(b), times=3) / size  # type: ignore[misc]
            except (GlasError, RuntimeError) as error:
                yield {"net": workload.title, "engine": engine, "batch": size, "failed": str(error)[:300]}
                continue
            floor = least_seconds(counted, limits["float32"], limits["bytes"]) / size
            yield {
                "net": workload.title,
                "engine": engine,
                "batch": size,
                "ms": 1e3 * seconds,
                "floor_ms": 1e3 * floor,
                "over_floor": seconds / floor,
                "first_call_s": building,
                "peak_mib": (torch.cuda.max_memory_allocated() - held) / 2**20 if DEVICE == "cuda" else None,
            }


def kernel_choices(workload: Workload, size: int) -> dict[str, float]:
    """Return the milliseconds of an evaluation with the kernels that glas3d allows cuDNN, and with others."""
    net = workload.build()
    batch = workload.volume.unsqueeze(0).repeat(size, *[1] * workload.volume.ndim)
    milliseconds = {}
    for name, flags in {
        "exact, repeatable: as glas3d": {"benchmark": False, "deterministic": True, "allow_tf32": False},
        "exact, repeatable, chosen by time": {"benchmark": True, "deterministic": True, "allow_tf32": False},
        "exact, chosen by time": {"benchmark": True, "deterministic": False, "allow_tf32": False},
        "TF32: as torch": {"benchmark": False, "deterministic": False, "allow_tf32": True},
        "TF32, chosen by time": {"benchmark": True, "deterministic": False, "allow_tf32": True},
    }.items():
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, **flags):
            milliseconds[name] = 1e3 * seconds_of(lambda: net(batch), times=3) / size
    return milliseconds


def too_large(workload: Workload) -> dict[str, Any]:
    """Explain with a batch that does not fit, and return what became of it and how far the scores differ."""
    predict = Predictor(workload.build(), "softmax", device=DEVICE)
    light, shadow = workload.sigmas
    glas = GLAS(predict, sigma_light=light, sigma_shadow=shadow, engine="eager")
    points = np.repeat(workload.segments.points, 1 + _TOO_LARGE // len(workload.segments.points), axis=0)
    explained = glas.explain(workload.volume, TARGET, points[: _TOO_LARGE // 2])
    tried = glas.replace(batch_size=_TOO_LARGE).explain(workload.volume, TARGET, points[: _TOO_LARGE // 2])
    scores = [np.asarray(e.score) for e in (explained, tried)]  # type: ignore[union-attr]
    return {
        "given": _TOO_LARGE,
        "used": tried.settings["batch_size"],  # type: ignore[union-attr]
        "default": explained.settings["batch_size"],  # type: ignore[union-attr]
        "largest_difference": float(np.abs(scores[0] - scores[1]).max()),
    }


def figures(file: Path, quick: bool) -> int:
    """Measure every part, most important first, and write the results after each; return the exit status."""
    start = time.perf_counter()
    results: dict[str, Any] = {"machine": machine(), "quick": quick, "evaluations": [], "rows": [], "failed": []}
    # all regions, because a GPU makes few of them so fast that only the fixed cost of a call would be seen
    nets = workloads(quick) if quick else [replace(w, regions=116) for w in workloads(quick)]
    paper, *monai = [w for w in nets if w.mm is not None and (quick or w.shape in ((91, 109, 91), (96, 96, 96)))]
    engines = tuple(e for e in ("cudagraphs", "channels_last") if e in _ENGINES)
    few = replace(paper, regions=min(24, paper.regions))
    rounds = 1 if quick else _ROUNDS
    monai = monai[: 1 if quick else None]

    def save(part: str, measure: Callable[[], object]) -> None:
        try:
            measure()
        except Exception:  # one part that fails must not hide the others
            results["failed"].append(f"{part}: {traceback.format_exc()}")
        print(f"[{time.perf_counter() - start:6.1f} s] {part}", flush=True)
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    def rows(made: Iterator[Any]) -> None:
        results["rows"] += [asdict(row) for row in made]

    def sweep(workload: Workload, names: tuple[str, ...]) -> None:
        for row in evaluations(workload, names, _BATCHES[: 2 if quick else None], results["ceilings"]):
            results["evaluations"].append(row)
            print(json.dumps(row), flush=True)

    def kernels(workload: Workload) -> None:
        results["kernels"] = kernel_choices(workload, _BATCHES[1 if quick else 3])
        print(results["kernels"], flush=True)

    save("ceilings", lambda: results.update(ceilings=ceilings(quick)))
    print(results.get("ceilings"), flush=True)
    save(f"evaluations, {paper.title}", lambda: sweep(paper, _ENGINES))
    of = replace(paper, engines=engines)
    save(f"engines, {paper.title}", lambda: rows(against_engines(of, rounds, print)))
    save(f"overhead, {paper.title}", lambda: rows(over_forward_passes(of, rounds)))
    save("batch too large", lambda: results.update(too_large=too_large(few) if not quick else {}))
    save(f"kernels, {paper.title}", lambda: kernels(paper))
    save(f"rivals, {paper.title}", lambda: rows(against_rivals(of, rounds)))
    for workload in monai:
        of = replace(workload, engines=engines)
        save(f"evaluations, {workload.title}", lambda w=workload: sweep(w, _ENGINES))  # type: ignore[misc]
        save(f"engines, {workload.title}", lambda w=of: rows(against_engines(w, rounds, print)))  # type: ignore[misc]
        save(f"overhead, {workload.title}", lambda w=of: rows(over_forward_passes(w, rounds)))  # type: ignore[misc]
    if DEVICE == "cuda":  # last, because each batch size is compiled for a minute
        save(f"evaluations by compile, {paper.title}", lambda: sweep(paper, ("compile",)))
    if results["failed"]:
        print("\n".join(results["failed"]))
    return 1 if results["failed"] else 0


def profile(quick: bool) -> None:
    """Print where the time of one explanation goes, on the device and in Python."""
    workload = workloads(quick)[0]
    light, shadow = workload.sigmas
    predict = Predictor(workload.build(), "softmax", device=DEVICE)
    for engine in ("eager", "auto"):
        glas = GLAS(predict, sigma_light=light, sigma_shadow=shadow, engine=engine)

        def explain(glas: GLAS = glas) -> None:
            glas.explain(workload.volume, TARGET, workload.segments)
            if DEVICE == "cuda":
                torch.cuda.synchronize()

        explain()
        explain()
        activities = [torch.profiler.ProfilerActivity.CPU]
        if DEVICE == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profiled:
            explain()
        by = "self_cuda_time_total" if DEVICE == "cuda" else "self_cpu_time_total"
        start = time.perf_counter()
        explain()
        seconds = time.perf_counter() - start
        averages = profiled.key_averages()
        print(f"{workload.title}, engine {engine}, one explanation: {1e3 * seconds:.1f} ms")
        if DEVICE == "cuda":
            busy = sum(e.self_device_time_total for e in averages if e.device_type == torch.autograd.DeviceType.CUDA)
            print(f"the GPU computed for {busy / 1e3:.1f} ms of them")
        print(averages.table(sort_by=by, row_limit=_LINES, max_name_column_width=80))
        _print_profile(explain)


def study(quick: bool) -> None:
    """Simulate participants, explain them as a study by the shipped model, and print participants an hour."""
    from glas3d.simulate import Simulation, write_dataset
    from glas3d.study import Selection, explain_cohort, read_cohort

    n, search = (2, (2,)) if quick else (_PARTICIPANTS, "AAL")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        start = time.perf_counter()
        write_dataset(data, Simulation(participants=n))
        print(f"simulated {n} participants in {time.perf_counter() - start:.1f} s", flush=True)

        cohort = read_cohort(data, Selection())

        def explain(out: str) -> None:
            explain_cohort(
                cohort, Path(folder) / out, "adnc-simulated", target="AD", everyone=True, device=DEVICE, search=search
            )

        start = time.perf_counter()
        explain("first")
        first = time.perf_counter() - start
        _print_profile(lambda: explain("profiled"))
        start = time.perf_counter()
        explain("second")
        seconds = time.perf_counter() - start
        print(
            f"{n} participants in {seconds:.1f} s: {n / seconds * 3600:.0f} an hour, on {machine()['gpu']} "
            f"({first:.1f} s in a process that has done nothing yet)"
        )


def _print_profile(call: Callable[[], object]) -> None:
    """Print which functions of Python a call spends its time in."""
    profiler = cProfile.Profile()
    profiler.runcall(call)
    for order in ("tottime", "cumulative"):
        text = io.StringIO()
        pstats.Stats(profiler, stream=text).sort_stats(order).print_stats(2 * _LINES)
        print(text.getvalue())


def page(results: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    about, limits = results["machine"], results["ceilings"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items() if number != "none")
    lines = [
        f"{about['gpu']}; CUDA {about['cuda']}, cuDNN {about['cudnn']}; {about['system']}; {versions}.",
        "",
        f"Ceilings: a copy moves {limits['bytes'] / 1e12:.2f} TB/s; a matrix product of 8192 x 8192 runs at "
        + ", ".join(f"{limits[name] / 1e12:.0f} TFLOP/s in {name}" for name in ("float32", "tf32", "bfloat16"))
        + ".",
        "",
        "### An evaluation by each engine and batch size, over its floor",
        "",
        "| net | engine | batch | ms an input | floor, ms | over the floor | peak, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for f in results["evaluations"]:
        cells = [f["net"], f["engine"], str(f["batch"])]
        if "failed" in f:
            cells += [f["failed"].splitlines()[0][:80], "", "", ""]
        else:
            peak = "" if f["peak_mib"] is None else f"{f['peak_mib']:.0f}"
            cells += [f"{f['ms']:.4f}", f"{f['floor_ms']:.4f}", f"{f['over_floor']:.2f}", peak]
        lines.append(f"| {' | '.join(cells)} |")
    if results.get("kernels"):
        lines += ["", "### Which kernels of cuDNN", "", "| kernels | ms an input |", "|---|---|"]
        lines += [f"| {name} | {milliseconds:.4f} |" for name, milliseconds in results["kernels"].items()]
    if results.get("study"):
        lines += ["", f"A study of {results['study']}."]
    if results.get("too_large"):
        tried = results["too_large"]
        lines += [
            "",
            f"A batch of {tried['given']} inputs does not fit: it was halved to {tried['used']} (the default is "
            f"{tried['default']}), and no score differs by more than {tried['largest_difference']:.1e}.",
        ]
    for kind, title in KINDS.items():
        rows = [row for row in results["rows"] if row["kind"] == kind]
        if rows:
            lines += ["", f"### {title}", "", "| net | what | against | ratio | min to max | | itself | work |"]
            lines.append("|---|---|---|---|---|---|---|---|")
            lines += [
                f"| {r['net']} {r['shape']} | {r['what']} | {r['against']} | {r['ratio']:.3f} | {r['low']:.3f} to "
                f"{r['high']:.3f} | {verdict(r)} | {r['value']:.4g} {r['unit']} | {r['work']} |"
                for r in rows
            ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
