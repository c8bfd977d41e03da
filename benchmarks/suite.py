"""The timed rows: engines and their overhead, rivals, and time against points, voxels, sigma and targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from benchmarks.checks import ObservedInputs, check_reaction, observe
from benchmarks.equal_truth import equal_truth_rows
from benchmarks.methods import BATCHES_TO_COME, RIVALS, Glas, Method, bare_forward_passes, resolve_auto
from benchmarks.recomputing import recomputing_rows
from benchmarks.roofline import roofline_rows
from benchmarks.rows import Log, Row, row
from benchmarks.timing import Entry, time_in_rounds
from benchmarks.whole_maps import whole_map_rows
from benchmarks.workloads import DEVICE, Workload, brain, everyday, paper, workloads
from glas3d import GLAS, GlasError, Grid, Predictor
from glas3d.core.explanation import Explanation
from glas3d.core.score import Target
from glas3d.core.search import Search

# Regions of the rows without rivals.
_FEW = 24

Explain = Callable[[], "Explanation | tuple[Explanation, ...]"]


def against_rivals(workload: Workload, repeats: int) -> Iterator[Row]:
    """Yield every rival, stock and tuned, against GLAS by ``auto`` and by the network itself, interleaved."""
    net = workload.build()
    glas = {
        "auto": Glas(workload, engine="auto"),
        "eager": Glas(replace(workload, regions=min(_FEW, workload.regions))),
    }
    seen = observe(glas["eager"], net, keep=True)
    chosen = resolve_auto(net, seen.batches[-1])
    stock = [rival(workload) for rival in RIVALS]
    tuned = [rival(workload, batch=seen.largest) for rival in RIVALS]
    seen_of = {method: observe(method, net) for method in (*stock, *tuned)}
    inputs = {"auto": observe(replace(glas["auto"], engine="eager"), net).inputs, "eager": seen.inputs}
    for method in (*stock, *tuned, glas["eager"]):
        check_reaction(method)
    named: dict[str, Method] = {f"{m.name}, stock": m for m in stock} | {f"{m.name}, tuned": m for m in tuned}
    entries: dict[str, Entry] = {name: method.bind(net) for name, method in glas.items()}
    entries |= {name: m.bind(net) if m.batch is None else m.tuned(net) for name, m in named.items()}
    entries["auto"]()
    times = time_in_rounds(entries, repeats)

    for engine, own in glas.items():
        against = f"glas3d GLAS by {chosen} ({engine})" if engine == "auto" else "glas3d GLAS by eager"
        by = "" if engine == "auto" else ", GLAS by eager"
        for name, method in named.items():
            ratio = times.ratio(name, engine, seen_of[method].inputs, inputs[engine])
            value = times.of(name, seen_of[method].inputs).median * 1e3
            work = f"{seen_of[method].inputs} inputs in batches of up to {seen_of[method].largest}"
            yield row(f"per evaluation{by}", workload, name, against, "higher", ratio, value, work=work)
        for name, method in named.items():
            ratio = times.ratio(name, engine, method.n_parts, own.n_parts)
            value, unit = times.of(name, method.n_parts).median * 1e3, "ms a region"
            work = f"{method.n_parts} regions or windows, {seen_of[method].inputs} inputs"
            yield row(f"per region{by}", workload, name, against, "higher", ratio, value, unit=unit, work=work)


def against_engines(workload: Workload, repeats: int, log: Log) -> Iterator[Row]:
    """Yield every engine against the network itself, and ``auto`` against the fastest, in one interleaved run."""
    net = workload.build()
    seen = observe(Glas(workload), net, keep=True)
    chosen = resolve_auto(net, seen.batches[-1])
    entries: dict[str, Entry] = {}
    for engine in ("eager", *workload.engines, "auto"):
        entries[engine] = Glas(workload, engine=engine).bind(net)
        try:
            entries[engine]()
        except GlasError as error:  # a library that is not installed, a network that it cannot run
            log(str(error))
            del entries[engine]
    times = time_in_rounds(entries, repeats)
    work = _work(workload, seen)
    engines = [name for name in entries if name != "auto"]
    for engine in engines:
        if engine != "eager":
            value = times.of(engine, seen.inputs).median * 1e3
            yield row("engines", workload, engine, "eager", "higher", times.ratio("eager", engine), value, work=work)
    fastest = min(engines, key=lambda name: times.of(name).median)
    value = times.of("auto", seen.inputs).median * 1e3
    yield row(
        "auto", workload, f"auto, which chose {chosen}", f"{fastest}, the fastest", "flat",
        times.ratio("auto", fastest), value, work=work,
    )  # fmt: skip


def over_forward_passes(workload: Workload, repeats: int) -> Iterator[Row]:
    """Yield the whole explanation, by the network itself and by what ``auto`` chooses, over bare forward passes."""
    net = workload.build()
    seen = observe(Glas(workload), net, keep=True)
    engines = dict.fromkeys(("eager", resolve_auto(net, seen.batches[-1])))
    entries: dict[str, Entry] = {}
    needed = seen.batches[-math.ceil(Glas(workload).evaluations / seen.largest) :]  # a trial of the model comes first
    again = needed[-1:] * len(needed)
    for engine in engines:
        predict = Predictor(net, "softmax", device=DEVICE).with_engine(engine, BATCHES_TO_COME)
        entries[engine] = Glas(workload, engine=engine).bind(net)
        entries[f"batches by {engine}"] = bare_forward_passes(predict, needed)
        entries[f"again by {engine}"] = bare_forward_passes(predict, again)
    for warm in entries.values():
        warm()
    times = time_in_rounds(entries, repeats)
    for engine in engines:
        for floor, against in (
            ("batches", "the same forward passes, batches made beforehand"),
            ("again", "as many forward passes of one batch"),
        ):
            ratio = times.ratio(engine, f"{floor} by {engine}")
            value = times.of(engine, seen.inputs).median * 1e3
            what, work = f"GLAS.explain by {engine}", _work(workload, seen)
            yield row("overhead", workload, what, against, "lower", ratio, value, work=work)


def _work(workload: Workload, seen: ObservedInputs) -> str:
    return f"{Glas(workload).n_parts} regions, {seen.inputs} inputs in batches of {seen.largest}"


def _evaluations(result: Explanation | tuple[Explanation, ...]) -> int:
    """Return how many inputs an explanation evaluates, the padding of its last batch included."""
    settings = (result[0] if isinstance(result, tuple) else result).settings
    batch = settings["batch_size"]
    return math.ceil(settings["evaluations"] / batch) * batch


def _flat(
    kind: str, entries: dict[str, tuple[Workload, Explain, str]], base: str, repeats: int, *, voxels: bool = False
) -> Iterator[Row]:
    """Yield the rows of one interleaved run: every entry's time for each evaluation (and voxel) over the base's."""
    evaluations = {name: _evaluations(call()) for name, (_, call, _) in entries.items()}
    times = time_in_rounds({name: call for name, (_, call, _) in entries.items()}, repeats)
    units = {name: n * (math.prod(entries[name][0].shape) if voxels else 1) for name, n in evaluations.items()}
    for name, (workload, _, work) in entries.items():
        if name != base:
            ratio = times.ratio(name, base, units[name], units[base])
            value = times.of(name, evaluations[name]).median * 1e3
            per = "voxel" if voxels else "evaluation"
            yield row(
                kind, workload, name, f"{base} (per {per})", "flat", ratio, value,
                work=f"{work}; {times.of(base, evaluations[base]).median * 1e3:.4g} ms an evaluation at {base}",
            )  # fmt: skip


def _explain(
    predict: Predictor,
    workload: Workload,
    search: Search,
    sigmas: tuple[float, float],
    target: Target | list[Target] = 1,
) -> Explain:
    glas = GLAS(predict, sigma_light=sigmas[0], sigma_shadow=sigmas[1], engine="eager")
    return lambda: glas.explain(workload.volume, target, search)


def against_points(workload: Workload, cells: tuple[int, ...], repeats: int) -> Iterator[Row]:
    """Yield the time of grids of more and more points."""
    predict = Predictor(workload.build(), "softmax", device=DEVICE)
    entries = {
        f"{k ** len(workload.shape)} points": (
            workload, _explain(predict, workload, Grid(k), workload.sigmas),
            f"grid of {k} cells an axis, map of Eq. 3 included",
        )
        for k in cells
    }  # fmt: skip
    yield from _flat("points", entries, next(iter(entries)), repeats)


def against_voxels(ladder: list[Workload], repeats: int) -> Iterator[Row]:
    """Yield the time of larger and larger volumes, with fewer regions each, so that none takes much longer."""
    entries = {}
    for workload in ladder:
        predict = Predictor(workload.build(), "softmax", device=DEVICE)
        call = _explain(predict, workload, workload.segments, workload.sigmas)
        entries[workload.size] = (workload, call, f"{len(workload.segments.index)} regions")
    yield from _flat("voxels", entries, next(iter(entries)), repeats, voxels=True)


def against_sigma(workload: Workload, sigmas: tuple[float, ...], base: float, repeats: int) -> Iterator[Row]:
    """Yield the time of smaller and larger masks."""
    predict = Predictor(workload.build(), "softmax", device=DEVICE)
    work = f"{len(workload.segments.index)} regions, both sigmas in voxels"
    entries = {f"sigma {s:g}": (workload, _explain(predict, workload, workload.segments, (s, s)), work) for s in sigmas}
    yield from _flat("sigma", entries, f"sigma {base:g}", repeats)


def against_targets(workload: Workload, cells: int, classes: int, repeats: int) -> Iterator[Row]:
    """Yield the time of all classes over that of one, from the same evaluations: painted regions, and maps of Eq. 3."""
    predict = Predictor(paper(workload.shape, classes), "softmax", device=DEVICE)
    all_classes: list[Target] = list(range(classes))
    searches: tuple[tuple[Search, str], ...] = (
        (workload.segments, f"{len(workload.segments.index)} regions, painted"),
        (Grid(cells), f"{cells ** len(workload.shape)} points of a grid, maps of Eq. 3"),
    )
    for search, work in searches:
        one = _explain(predict, workload, search, workload.sigmas)
        every = _explain(predict, workload, search, workload.sigmas, all_classes)
        entries = {"1 target": (workload, one, work), f"{classes} targets": (workload, every, work)}
        yield from _flat("targets", entries, "1 target", repeats)


def timed_rows(quick: bool, repeats: int, log: Log, wanted: Callable[[str], bool], net: str = "") -> Iterator[Row]:
    """Yield every row except those of memory.

    Parameters
    ----------
    wanted
        Says of a part's name whether it is measured.
    net
        Of engines, overhead and rivals, only nets whose name and shape contain this text.
    """
    for workload in workloads(quick):
        if net not in workload.title:
            continue
        if wanted("engines"):
            log(f"{workload.name} {workload.shape}: engines")
            yield from against_engines(workload, repeats, log)
        if wanted("overhead"):
            log(f"{workload.name} {workload.shape}: overhead")
            yield from over_forward_passes(workload, repeats)
        if wanted("rivals"):
            log(f"{workload.name} {workload.shape}: rivals")
            yield from against_rivals(workload, repeats)
    if wanted("maps"):
        log("whole maps of a photograph")
        yield from whole_map_rows(quick, repeats)
    if wanted("truth"):
        log("seconds to a map that follows the model")
        yield from equal_truth_rows(quick, repeats)
    if wanted("recomputed"):
        yield from recomputing_rows(quick, repeats, log)
    if wanted("roofline"):
        yield from roofline_rows(quick, repeats, log)
    if wanted("sizes"):
        yield from _sizes(quick, repeats, log)


def _sizes(quick: bool, repeats: int, log: Log) -> Iterator[Row]:
    one = everyday(quick)
    two = brain((91, 109, 91), 2.0, (2, 3, 4), 12)
    log("points")
    yield from against_points(one, (2, 3) if quick else (3, 5, 8), repeats)
    log("voxels")
    if quick:
        ladder = [one, brain((24, 32, 24), 9.0, (2, 2, 1), 4)]
    else:
        ladder = [one, two, brain((181, 217, 181), 1.0, (2, 3, 4), 3)]
    yield from against_voxels(ladder, repeats)
    log("sigma")
    for workload in [one] if quick else [one, two]:
        yield from against_sigma(workload, (1.0, 10.0) if quick else (1.0, 3.0, 10.0, 30.0), 10.0, repeats)
    log("targets")
    yield from against_targets(one, 2 if quick else 5, 20 if quick else 200, repeats)
