"""Peak memory of an explanation against one forward pass of a batch, each in a process of its own.

``python -m benchmarks.memory '<job>'`` is such a process: it prints the resident memory in MiB once net and volume are
loaded, and the highest resident memory since.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.checks import observe
from benchmarks.methods import Glas
from benchmarks.rows import Row, row
from benchmarks.timing import Spread
from benchmarks.workloads import DEVICE, Workload, everyday, paper, workloads
from glas3d import GLAS, Grid, Predictor
from glas3d.core.search import Segments

_ROOT = Path(__file__).parent.parent
# The system's free memory becomes steady with the first of them.
_FORWARD_PASSES = 12
_MORE_REPEATS = 3


def resident(*, peak: bool) -> float:
    """Return the memory of this process in MiB, now or at most since `forget`; on CUDA that of the device.

    Linux reports it for this program alone; what ``getrusage`` reports there begins with the memory that the parent
    had when it started this process.
    """
    if DEVICE == "cuda":
        return (torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()) / 2**20
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        return int(lines["VmHWM" if peak else "VmRSS"].split()[0]) / 1024
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest / (2**20 if sys.platform == "darwin" else 2**10)


def forget() -> None:
    """Let the peak begin at what is resident now, if the system can do so."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


@dataclass(frozen=True, kw_only=True)
class Job:
    """The work of one process.

    Attributes
    ----------
    workload
        Index into `workloads`; -1: `everyday`.
    batch
        Run forward passes of one batch of this size; 0: explain.
    classes, targets
        Outputs of the paper's net (0: the workload's own net), and how many of them are explained.
    cells
        Cells of a grid along each axis; 0: the workload's regions.
    data
        File with the volume and the labels, so that making them adds no peak.
    """

    quick: bool
    threads: int
    workload: int
    data: str
    batch: int = 0
    classes: int = 0
    targets: int = 1
    cells: int = 0


def child(job: Job) -> dict[str, float]:
    """Do a job and return the memory before and the peak."""
    torch.set_num_threads(job.threads)
    workload = everyday(job.quick) if job.workload < 0 else workloads(job.quick)[job.workload]
    net = paper(workload.shape, job.classes).to(DEVICE) if job.classes else workload.build()
    predict = Predictor(net, "softmax", device=DEVICE)
    light, shadow = workload.sigmas
    with np.load(job.data) as data:
        volume = torch.from_numpy(data["volume"]).to(DEVICE)
        search: Any = Grid(job.cells) if job.cells else Segments(data["labels"], data["index"], data["points"])
    target = 1 if job.targets == 1 else list(range(job.targets))
    forget()
    before = resident(peak=False)
    if job.batch:
        batch = volume.unsqueeze(0).repeat(job.batch, *[1] * volume.ndim)
        for _ in range(_FORWARD_PASSES):
            result = predict(batch)
    else:
        result = GLAS(predict, sigma_light=light, sigma_shadow=shadow, engine="eager").explain(volume, target, search)
    peak = resident(peak=True)
    assert result is not None
    return {"before": before, "peak": peak}


def _peak_above_start(job: Job) -> float:
    """Return the highest memory of a job above the memory before it began, MiB."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", json.dumps(job.__dict__)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a memory job failed: {job}\n{done.stderr}")
    printed = json.loads(done.stdout.splitlines()[-1])
    # never 0, because the system counts in pages
    return max(float(printed["peak"] - printed["before"]), 0.004)


def _compare(jobs: dict[str, Job], repeats: int) -> dict[str, list[float]]:
    """Return the MiB of every job, one value for each round."""
    rounds = [{name: _peak_above_start(job) for name, job in jobs.items()} for _ in range(repeats)]
    return {name: [r[name] for r in rounds] for name in jobs}


def _ratio(above: list[float], below: list[float]) -> Spread:
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])


def _saved(workload: Workload, folder: str) -> str:
    path = str(Path(folder) / "data.npz")
    segments = workload.segments
    np.savez(
        path, volume=workload.volume.cpu().numpy(), labels=segments.labels, index=segments.index, points=segments.points
    )  # fmt: skip
    return path


def memory_rows(quick: bool, repeats: int, log: Callable[[str], None], net: str = "") -> Iterator[Row]:
    """Yield the rows of memory, only of nets whose name and shape contain ``net``."""
    threads = torch.get_num_threads()
    for number, workload in enumerate(workloads(quick)):
        chosen = number == 0 if quick else workload.shape != everyday(quick).shape
        if not chosen or net not in workload.title:
            continue
        log(f"memory of {workload.name} {workload.shape}")
        with tempfile.TemporaryDirectory() as folder:
            common = {"quick": quick, "threads": threads, "workload": number, "data": _saved(workload, folder)}
            size = observe(Glas(workload), workload.build()).largest
            took = _compare({"forward pass": Job(batch=size, **common), "explain": Job(**common)}, repeats)
        megabytes = workload.volume.numel() * 4 / 2**20
        more = (np.median(took["explain"]) - np.median(took["forward pass"])) / megabytes
        yield row(
            "memory", workload, "glas3d GLAS.explain", "one forward pass of its batch", "lower",
            _ratio(took["explain"], took["forward pass"]), float(np.median(took["explain"])), unit="MiB",
            work=f"batch of {size}; {more:+.1f} volumes of {megabytes:.1f} MiB more than the forward pass",
        )  # fmt: skip

    workload = everyday(quick)
    if net not in workload.title:
        return
    few, some, many, classes = (2, 2, 4, 20) if quick else (3, 5, 17, 200)
    regions = f"{len(workload.segments.index)} regions"
    log("memory of points, classes and targets")
    with tempfile.TemporaryDirectory() as folder:
        common = {"quick": quick, "threads": threads, "workload": -1, "data": _saved(workload, folder)}
        points = {"few": Job(cells=few, **common), "many": Job(cells=many, **common)}
        outputs = {
            "two": Job(classes=2, **common),
            "one": Job(classes=classes, **common),
            "painted": Job(classes=classes, targets=classes, **common),
            "one spread": Job(classes=classes, cells=some, **common),
            "spread": Job(classes=classes, targets=classes, cells=some, **common),
        }
        # memory varies by a network's activation, depending on where the system puts it: cheap jobs are repeated more
        took = _compare(points, repeats) | _compare(outputs, repeats if quick else _MORE_REPEATS * repeats)
    # these maps are results, which the caller gets
    maps = (classes - 1) * workload.volume[0].numel() * 4 / 2**20
    for above, below, what, against, less, work in (
        ("many", "few", f"{many**3} points", f"{few**3} points", 0.0, "grids, map of Eq. 3 included"),
        ("one", "two", f"a network of {classes} classes", "a network of 2 classes", 0.0, f"{regions}, 1 target"),
        ("painted", "one", f"{classes} targets", "1 target", maps, f"{regions}, painted"),
        ("spread", "one spread", f"{classes} targets", "1 target", maps, f"{some**3} points, maps of Eq. 3"),
    ):
        without_maps = [mib - less for mib in took[above]]
        if less:
            work += f"; without the {less:.1f} MiB of {classes - 1} more maps"
        yield row(
            "memory", workload, what, against, "flat", _ratio(without_maps, took[below]),
            float(np.median(without_maps)), unit="MiB", work=work,
        )  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(child(Job(**json.loads(sys.argv[1])))))
