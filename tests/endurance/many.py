"""Thousands of tiny participants: what memory, files and time they take."""

import json
import os
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass

import psutil

from glas3d.study import explain_cohort, read_cohort
from glas3d.study.running.forecast import estimate_cohort
from tests.study import folders, studies
from tests.study.running.command_process import workers_of
from tests.time_limit import OutOfTime, time_limit

SETTINGS = {"search": (2, 1, 2), "assume_space": "MNI", "engine": "eager"}
MIB = 2**20
LONGEST = 600.0  # seconds without a further participant after which a study counts as one that hangs
# Prints the seconds and the highest memory, in bytes, of the group level.
GROUP_LEVEL = """
import json, resource, sys, time, warnings
from glas3d.study import read_cohort, summarise_groups

warnings.simplefilter("ignore")
start = time.monotonic()
cohort = read_cohort(sys.argv[1])
summarise_groups(sys.argv[2], cohort.everyone, case="AD", control="NC", n_perm=199, n_boot=50, overwrite=True)
peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": time.monotonic() - start, "peak": peak}))
"""


@dataclass(frozen=True)
class Sample:
    """What the processes of a study hold: the client, which has Dask's scheduler, and its workers.

    Attributes
    ----------
    done
        Participants that were explained.
    memory
        Resident memory of each process in bytes, by its number.
    files
        Open files and sockets of each.
    seconds
        Since the participant level began.
    """

    done: int
    memory: dict
    files: dict
    seconds: float

    @classmethod
    def now(cls, done, start):
        processes = [psutil.Process(), *workers_of(os.getpid())]
        return cls(
            done,
            {each.pid: each.memory_info().rss for each in processes},
            {each.pid: each.num_fds() for each in processes},
            time.monotonic() - start,
        )


@dataclass(frozen=True)
class Endurance:
    """The participant level of many tiny participants on two workers.

    Attributes
    ----------
    explained, kept
        Participants that were explained in this run, and in an earlier one that was stopped.
    first, last
        What the processes held after the first ones and after the last one.
    hangs
        1 if no participant was finished for `LONGEST`, else 0.
    """

    explained: int
    kept: int
    first: Sample
    last: Sample
    hangs: int = 0

    @property
    def same_processes(self):
        return self.first.memory.keys() == self.last.memory.keys()

    @property
    def growth(self):
        """The memory at the end over that after the first ones, of the client and of the workers.

        A worker that starts slowly may not have explained anything by then: all are compared with the largest of them.
        """
        workers = [memory for pid, memory in self.first.memory.items() if pid != os.getpid()]
        before = {pid: memory if pid == os.getpid() else max(workers) for pid, memory in self.first.memory.items()}
        return [self.last.memory[pid] / before[pid] for pid in before if pid in self.last.memory]

    @property
    def more_files(self):
        """How many more files and sockets each process has open at the end."""
        return [self.last.files[pid] - self.first.files[pid] for pid in self.first.files if pid in self.last.files]

    def measured(self):
        """Return the figures in words."""
        client, *workers = self.growth
        client_memory = self.last.memory[os.getpid()] // MIB
        return (
            f"memory after the last over that after participant {self.first.done}: client with scheduler {client:.3f} "
            f"({client_memory} MiB), workers {' and '.join(f'{each:.3f}' for each in workers)}; "
            f"open files {' and '.join(f'{each:+d}' for each in self.more_files)}"
        )


def inputs(folder, n):
    """Return the folder of ``n`` tiny scans and that of a model, which are made where they do not exist."""
    data, model = folder / f"data-{n}", folder / "model"
    if not (data / "participants.tsv").is_file() or len(list(data.glob("sub-*"))) < n:
        folders.derivative(data, folders.people(n))
    return data, model if model.is_dir() else studies.bundle(model, 1)


def explain_many(folder, n, *, after=50, seconds=float("inf")):
    """Explain ``n`` tiny participants by two workers; an earlier run that was stopped is resumed.

    Parameters
    ----------
    folder
        For the scans, the model and the study.
    n
        How many participants.
    after
        Participants after which memory is measured first.
    seconds
        After which the run is stopped, as if it had been killed.
    """
    data, model = inputs(folder, n)
    samples, start, end = [], time.monotonic(), time.monotonic() + seconds

    def look(done, total):
        begin_anew()
        if done in (min(after, total // 2), total) or (samples and time.monotonic() > end):
            samples.append(Sample.now(done, start))
        if time.monotonic() > end:
            raise TimeoutError

    explained, kept, hangs, out = 0, 0, 0, folder / f"study-{n}"
    with warnings.catch_warnings(), time_limit(LONGEST) as begin_anew:
        warnings.simplefilter("ignore")
        try:
            result = explain_cohort(read_cohort(data), out, model, **SETTINGS, n_workers=2, progress=look)
            explained, kept = result.count("explained"), result.count("kept")
        except (TimeoutError, OutOfTime) as stopped:
            hangs = isinstance(stopped, OutOfTime)
            samples = samples or [Sample.now(0, start)]
            explained = samples[-1].done
    return Endurance(explained, kept, samples[0], samples[-1], int(hangs))


def soak(folder, n, seconds):
    """Return the row of the record for a soak of ``n`` participants."""
    run = explain_many(folder, n, seconds=seconds)
    return _row("soak", run, n, f"{run.explained + run.kept:,} participants on two workers", run.measured())


def scale(folder, n, seconds):
    """Return the row of the record for a study of ``n`` participants: its estimate, both levels, and its files."""
    data, model = inputs(folder, n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimate = estimate_cohort(read_cohort(data), folder / "none", model, **SETTINGS)
    run = explain_many(folder, n, after=n // 20, seconds=seconds)
    took = 2 * (run.last.seconds - run.first.seconds) / max(1, run.last.done - run.first.done)  # of one worker
    done = run.explained + run.kept
    words = [f"{done:,} participants through the participant level on two workers"]
    measured = [run.measured(), f"--dry-run {estimate.seconds / n / took:.2f} of the time that a participant took"]
    if done == n:
        command = [sys.executable, "-c", GROUP_LEVEL, data, folder / f"study-{n}"]
        group = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        words.append("and the group level")
        measured.append(f"group level {group['seconds']:.0f} s, {group['peak'] // MIB} MiB")
    names = [len(children) for _, *both in os.walk(folder / f"study-{n}") for children in both]
    n_folders, n_files = sum(names[::2]), sum(names[1::2])
    measured.append(f"{n_files:,} files in {n_folders:,} folders")
    return _row("scale", run, n, " ".join(words), "; ".join(measured))


def _row(suite, run, n, tried, measured):
    return {
        "suite": suite,
        "tried": tried,
        "hangs": run.hangs,
        "crashes": 0 if run.same_processes else len(run.first.memory.keys() - run.last.memory.keys()),
        "lost": run.last.done - run.explained - run.kept,
        "measured": measured,
    }
