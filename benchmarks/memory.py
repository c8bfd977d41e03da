"""Peak memory of an explanation against one forward of a batch, each in a process of its own.

`python -m benchmarks.memory '<job>'` is such a process: it prints the resident memory in MiB once net and volume are
there, and the highest it has been since.
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

from benchmarks.contest import Spread
from benchmarks.methods import Ours
from benchmarks.rows import Row, row
from benchmarks.subjects import DEVICE, Subject, everyday, paper, subjects
from benchmarks.witness import watch
from glas3d import GLAS, Grid, Predictor
from glas3d.core.search import Segments

_ROOT = Path(__file__).parent.parent
# The system's pieces of free memory settle with the first of them.
_FORWARDS = 12
_OFTEN = 3


def resident(*, peak: bool) -> float:
    """Memory of this process in MiB, now or at most since `forget`; on CUDA the device's.

    Linux says it of this program alone; what `getrusage` says there begins with the memory of the parent at the time
    it started this process.
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
    """Let the peak begin at what is resident now, where the system can."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one process does.

    Attributes
    ----------
    subject
        Which of `subjects`; -1: `everyday`.
    batch
        Forward one batch of so many, again and again; 0: explain.
    classes, targets
        Outputs of the paper's net, and how many of them are explained; 0: the subject's own net, target 1.
    cells
        Of a grid; 0: the subject's regions.
    data
        File with the volume and the labels, so that making them leaves no peak.
    """

    quick: bool
    threads: int
    subject: int
    data: str
    batch: int = 0
    classes: int = 0
    targets: int = 1
    cells: int = 0


def child(job: Job) -> dict[str, float]:
    """Do a job, and what it took."""
    torch.set_num_threads(job.threads)
    subject = everyday(job.quick) if job.subject < 0 else subjects(job.quick)[job.subject]
    net = paper(subject.shape, job.classes).to(DEVICE) if job.classes else subject.build()
    predict = Predictor(net, "softmax", device=DEVICE)
    light, shadow = subject.sigmas
    with np.load(job.data) as data:
        volume = torch.from_numpy(data["volume"]).to(DEVICE)
        search: Any = Grid(job.cells) if job.cells else Segments(data["labels"], data["index"], data["points"])
    target = 1 if job.targets == 1 else list(range(job.targets))
    forget()
    before = resident(peak=False)
    if job.batch:
        batch = volume.unsqueeze(0).repeat(job.batch, *[1] * volume.ndim)
        for _ in range(_FORWARDS):
            answer = predict(batch)
    else:
        answer = GLAS(predict, sigma_light=light, sigma_shadow=shadow, engine="eager").explain(volume, target, search)
    peak = resident(peak=True)
    assert answer is not None
    return {"before": before, "peak": peak}


def _took(job: Job) -> float:
    """Highest memory of a job above what was there before it began, MiB."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", json.dumps(job.__dict__)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a memory job failed: {job}\n{done.stderr}")
    told = json.loads(done.stdout.splitlines()[-1])
    # never 0: the system counts in pages
    return max(float(told["peak"] - told["before"]), 0.004)


def _compare(jobs: dict[str, Job], repeats: int) -> dict[str, list[float]]:
    """MiB of every job, one a round."""
    rounds = [{name: _took(job) for name, job in jobs.items()} for _ in range(repeats)]
    return {name: [r[name] for r in rounds] for name in jobs}


def _ratio(above: list[float], below: list[float]) -> Spread:
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])


def _saved(subject: Subject, folder: str) -> str:
    path = str(Path(folder) / "data.npz")
    segments = subject.segments
    np.savez(
        path, volume=subject.volume.cpu().numpy(), labels=segments.labels, index=segments.index, points=segments.points
    )  # fmt: skip
    return path


def remembered(quick: bool, repeats: int, say: Callable[[str], None], net: str = "") -> Iterator[Row]:
    """The rows of memory, of those nets alone whose name and shape hold ``net``."""
    threads = torch.get_num_threads()
    for number, subject in enumerate(subjects(quick)):
        chosen = number == 0 if quick else subject.shape != everyday(quick).shape
        if not chosen or net not in subject.title:
            continue
        say(f"memory of {subject.name} {subject.shape}")
        with tempfile.TemporaryDirectory() as folder:
            common = {"quick": quick, "threads": threads, "subject": number, "data": _saved(subject, folder)}
            size = watch(Ours(subject), subject.build()).largest
            took = _compare({"forward": Job(batch=size, **common), "explain": Job(**common)}, repeats)
        megabytes = subject.volume.numel() * 4 / 2**20
        more = (np.median(took["explain"]) - np.median(took["forward"])) / megabytes
        yield row(
            "memory", subject, "glas3d GLAS.explain", "one forward of its batch", "lower",
            _ratio(took["explain"], took["forward"]), float(np.median(took["explain"])), unit="MiB",
            work=f"batch of {size}; {more:+.1f} volumes of {megabytes:.1f} MiB beside the forward",
        )  # fmt: skip

    subject = everyday(quick)
    if net not in subject.title:
        return
    few, some, many, classes = (2, 2, 4, 20) if quick else (3, 5, 17, 200)
    regions = f"{len(subject.segments.index)} regions"
    say("memory of points, classes and targets")
    with tempfile.TemporaryDirectory() as folder:
        common = {"quick": quick, "threads": threads, "subject": -1, "data": _saved(subject, folder)}
        points = {"few": Job(cells=few, **common), "many": Job(cells=many, **common)}
        outputs = {
            "two": Job(classes=2, **common),
            "one": Job(classes=classes, **common),
            "painted": Job(classes=classes, targets=classes, **common),
            "one spread": Job(classes=classes, cells=some, **common),
            "spread": Job(classes=classes, targets=classes, cells=some, **common),
        }
        # an activation more or less, by where the system puts them: cheap jobs are done more often
        took = _compare(points, repeats) | _compare(outputs, _OFTEN * repeats)
    # asked for, and given to the caller
    maps = (classes - 1) * subject.volume[0].numel() * 4 / 2**20
    for above, below, what, against, less, work in (
        ("many", "few", f"{many**3} points", f"{few**3} points", 0.0, "grids, map of Eq. 3 included"),
        ("one", "two", f"a network of {classes} classes", "a network of 2 classes", 0.0, f"{regions}, 1 target"),
        ("painted", "one", f"{classes} targets", "1 target", maps, f"{regions}, painted"),
        ("spread", "one spread", f"{classes} targets", "1 target", maps, f"{some**3} points, maps of Eq. 3"),
    ):
        beside = [mib - less for mib in took[above]]
        if less:
            work += f"; beside the {less:.1f} MiB of {classes - 1} maps more"
        yield row(
            "memory", subject, what, against, "flat", _ratio(beside, took[below]), float(np.median(beside)),
            unit="MiB", work=work,
        )  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(child(Job(**json.loads(sys.argv[1])))))
