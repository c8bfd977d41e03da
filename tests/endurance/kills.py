"""Signals at random moments to a study's processes: what is resumed must equal an undisturbed run, bit for bit."""

import io
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np

from glas3d import cli
from tests.endurance.faults import Faults
from tests.study import folders, studies
from tests.study.running.command_process import CommandProcess, ForkedCommand, Hang

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
VICTIMS = ("worker", "command", "all")
# How a command may end that was sent a signal: by it, with the status that stands for it, or because it was done.
EXPECTED = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130, 143, 0}


@dataclass(frozen=True)
class Job:
    """A command that is disturbed.

    Attributes
    ----------
    name
        What is disturbed, such as ``"participant level"``.
    arguments
        Makes the arguments of the command from the folder of its results.
    start
        Starts it: a process of its own, or a copy of this process where the command itself is one process.
    whole
        Pattern of the folders in it that are complete or absent at any moment.
    start_from
        Folder of results that the command begins with; None: it begins with none.
    """

    name: str
    arguments: Callable[[Path], tuple]
    start: type[CommandProcess]
    whole: str
    start_from: Path | None = None

    def prepare(self, out):
        if self.start_from is not None:
            shutil.copytree(self.start_from, out)


@dataclass
class AfterSignals(Faults):
    """Faults after signals, of which ``tried`` counts those sent by job, victim and signal."""

    suite = "kills"

    def by(self, position):
        """Return how many were sent, by the job (0), the victim (1) or the signal (2)."""
        counts = Counter()
        for key, n in self.tried.items():
            counts[key[position]] += n
        return counts

    def in_words(self):
        """Return how many signals were sent, to what and which."""
        parts = [", ".join(f"{n} {name}" for name, n in sorted(self.by(i).items())) for i in (0, 1, 2)]
        return f"{self.n} signals ({'; '.join(parts)})"


def jobs(folder, participants):
    """Return the commands of a study of tiny scans that are disturbed in turn."""
    data = studies.bids(folder / "data", participants)
    models = studies.folds(folder / "folds", studies.cohort(data))
    people = folders.derivative(folder / "training", folders.people(12))
    grid = ("--assume-space", "MNI", "--grid", 4, "--engine", "eager")
    training = ("--folds", 3, "--resolution", 16, "--epochs", 4, "--no-pretrain", "--assume-space", "MNI")
    factory = ("--factory", "tests.study.folders:small_net")
    start = {1: ForkedCommand, 2: CommandProcess}

    def explain(n_workers):
        options = ("--models", models, *grid, "--n-workers", n_workers)
        arguments = lambda out: ("cohort", data, out, "participant", *options)  # noqa: E731
        return Job("participant level", arguments, start[n_workers], "sub-*/anat")

    def train(n_workers):
        options = (*training, *factory, "--n-workers", n_workers)
        return Job("training", lambda out: ("train", people, out, *options), start[n_workers], "fold-*")

    def summarise():
        options = ("--n-perm", 199, "--n-boot", 50)
        participants_done = undisturbed(folder, "participant level")
        arguments = lambda out: ("cohort", data, out, "group", *options)  # noqa: E731
        return Job("group level", arguments, ForkedCommand, "group", participants_done)

    alone = explain(1), train(1), summarise()
    return *alone, explain(2), *alone, train(2)


def undisturbed(folder, name):
    """Return the folder of a job's results that no signal disturbed."""
    return folder / f"undisturbed {name}"


def send_signals(folder, n, *, each=10, participants=20, seed=5, seconds=float("inf"), report=lambda faults: None):
    """Send signals to one study after another until ``n`` were sent, and resume each until it is complete.

    Parameters
    ----------
    folder
        For the scans, the models and the studies.
    n
        How many signals.
    each
        How many of them to one study.
    participants
        How many the study has.
    seed
        Of the random moments, victims and signals.
    seconds
        After which no further study begins.
    report
        Called after each study.

    Returns
    -------
    The `AfterSignals`.
    """
    rng, faults, end = np.random.default_rng(seed), AfterSignals(), time.monotonic() + seconds
    expected = {}
    for number, job in enumerate(cycle(jobs(folder, participants))):
        if faults.n >= n or time.monotonic() >= end:
            return faults
        if job.name not in expected:
            job.prepare(whole := undisturbed(folder, job.name))
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as errors:
                status = cli.run([str(each) for each in job.arguments(whole)])  # imports what copies will need
            assert status == 0, errors.getvalue()
            expected[job.name] = studies.content(whole)
        _disturb(job, folder / f"disturbed-{number}", rng, faults, min(n, faults.n + each), expected[job.name])
        report(faults)


def _disturb(job, out, rng, faults, most, expected):
    """Send signals to one study until it ends by itself or there were enough, and compare its results."""
    job.prepare(out)
    try:
        while True:
            run, sent = job.start(*job.arguments(out)), faults.by(1)["worker"]
            is_stopped = _is_stopped(run, job, out, rng, faults, most)
            if not is_stopped and not (faults.by(1)["worker"] > sent and _gave_up(run)):
                break
            faults.resumed += 1
            faults.other_bits += [f"{job.name}: {part} is half written" for part in _half_written(job, out, expected)]
        status, errors = run.end()
    except Hang as hang:
        faults.hangs.append(f"{job.name} in {out}: {hang}")
        return
    if status != 0 or "Traceback" in errors:
        faults.crashes.append(f"{job.name} in {out}: status {status}, {errors[-2000:]}")
    content = studies.content(out)
    if content == expected:
        shutil.rmtree(out)
    elif missing := set(expected) - set(content):
        faults.lost.append(f"{job.name} in {out}: {sorted(missing)}")
    else:
        faults.other_bits.append(f"{job.name} in {out}")


def _gave_up(run):
    """Return whether a command whose worker was sent a signal ended with a sentence on it, as training does."""
    status, errors = run.end()
    return status == 2 and "its worker died" in errors and "Traceback" not in errors


def _half_written(job, out, expected):
    """Return the folders of finished results that are not as they will be."""
    parts = {part.relative_to(out).as_posix(): studies.content(part) for part in out.glob(job.whole)}
    whole = {
        name: {path[len(name) + 1 :]: digest for path, digest in expected.items() if path.startswith(f"{name}/")}
        for name in parts
    }
    return [name for name in parts if parts[name] != whole[name]]


def _is_stopped(run, job, out, rng, faults, most):
    """Send signals to workers, then to the command or all processes; return whether it ended before it was done."""
    while faults.n < most and run.alive():
        run.changes(out)
        time.sleep(rng.exponential(0.3))
        if not run.alive():
            return False
        victim, number = VICTIMS[rng.integers(3)], SIGNALS[rng.integers(3)]
        if victim == "worker" and run.signal_worker(rng, number):
            faults.tried[job.name, victim, number.name] += 1
            continue
        victim = "all" if victim == "all" else "command"
        send = run.signal_command if victim == "command" else run.signal_all
        status, errors = send(number)
        faults.tried[job.name, victim, number.name] += 1
        if status not in EXPECTED or "Traceback" in errors:
            faults.crashes.append(f"{job.name}, {number.name} to {victim}: status {status}, {errors[-2000:]}")
        return status != 0
    return False
