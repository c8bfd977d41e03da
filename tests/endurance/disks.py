"""Disks that are full at each write of a command: it must say so, keep what was there, and go on when there is room."""

import contextlib
import io
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from glas3d import cli
from glas3d.output import DESCRIPTION, HASHES, REPORT, read_sealed
from tests.endurance.faults import Faults
from tests.study import folders, studies
from tests.time_limit import OutOfTime, time_limit

LONGEST = 600.0  # seconds after which a command counts as one that hangs
AMPLE = {"size": 2**30, "files": 10**6}  # bytes, and files
FULL = "No space left on device"
_DESCRIBES = (REPORT, DESCRIPTION, ".bidsignore")


@dataclass(frozen=True)
class Command:
    """A command that writes to a disk.

    Attributes
    ----------
    name
        Such as ``"explain"``.
    arguments
        Makes the arguments from the folder of its results.
    earlier
        Makes the arguments of the commands whose results are there before.
    whole
        Pattern of the folders that are complete or absent where it fails; empty: nothing at all is written then.
    """

    name: str
    arguments: Callable[[Path], tuple]
    earlier: Callable[[Path], list] = lambda out: []
    whole: str = ""


class OnFullDisks(Faults):
    """Faults on full disks, of which ``tried`` counts those by command."""

    suite = "disks"

    def in_words(self):
        """Return how many disks were full, for which commands."""
        parts = ", ".join(f"{n} {name}" for name, n in sorted(self.tried.items()))
        return f"{self.n} full disks ({parts})"


class Disk:
    """A file system in memory whose room and number of files are limited; only root may mount one."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self):
        subprocess.run(["mount", "-t", "tmpfs", "-o", self._options(), "none", self.folder], check=True)
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "--lazy", self.folder], check=True)

    def used(self):
        """Return the bytes and the files in use."""
        state = os.statvfs(self.folder)
        return state.f_frsize * (state.f_blocks - state.f_bfree), state.f_files - state.f_ffree

    @contextlib.contextmanager
    def watched(self):
        """Yield a list that becomes the highest bytes and files in use during the block, scratch files included."""
        peak, ended = [0, 0], threading.Event()

        def look():
            while not ended.wait(0.0005):
                peak[:] = map(max, peak, self.used())

        watching = threading.Thread(target=look)
        watching.start()
        try:
            yield peak
        finally:
            ended.set()
            watching.join()
            peak[:] = map(max, peak, self.used())

    def limit(self, **limits):
        """Let it have so much room (``size``, bytes) and so many ``files``. Default: plenty of both."""
        options = f"remount,{self._options(**limits)}"
        subprocess.run(["mount", "-o", options, self.folder], check=True)

    @staticmethod
    def _options(**limits):
        size, files = (AMPLE | limits).values()
        return f"size={size},nr_inodes={files}"


def can_be_mounted(folder):
    """Return whether a disk can be made here."""
    try:
        with Disk(folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def commands(folder):
    """Return the commands that are tried, on tiny scans and models."""
    data, people = studies.bids(folder / "data", 4), folders.derivative(folder / "training", folders.people(8))
    models = studies.folds(folder / "folds", studies.cohort(data))
    scans = sorted(data.rglob("*_T1w.nii.gz"))
    grid = ("--assume-space", "MNI", "--grid", 2, "--engine", "eager")

    def explain(out, scan=scans[0]):
        return ("explain", scan, "--model", models / "fold-1", "--target", "AD", *grid, "--out", out)

    def participants(out, *more):
        return ("cohort", data, out, "participant", "--models", models, *grid, *more)

    def group(out, permutations=49):
        return ("cohort", data, out, "group", "--n-perm", permutations, "--n-boot", 20, "--overwrite")

    def train(out):
        sizes = ("--folds", 2, "--resolution", 16, "--epochs", 1, "--no-pretrain", "--assume-space", "MNI")
        return ("train", people, out, *sizes, "--factory", "tests.study.folders:small_net")

    def explained(out):
        return [participants(out), group(out)]

    return [
        Command("explain", explain, lambda out: [explain(out, scans[1])]),
        Command(
            "participant level",
            participants,
            lambda out: [participants(out, "--participant-label", "01")],
            "sub-*/anat",
        ),
        Command("group level", group, lambda out: [participants(out), group(out, 99)]),
        Command("training", train, whole="fold-*"),
        Command(
            "report", lambda out: ("report", out), lambda out: [explain(out, scans[1]), ("report", out), explain(out)]
        ),
        Command("figures", lambda out: ("figure", out, "--kind", "bars"), lambda out: [explain(out)]),
        Command("viewers", lambda out: ("export", out), lambda out: [explain(out)]),
        Command(
            "methods",
            lambda out: ("compare", *explain(out)[1:-4], "--methods", "glas", "random", "--out", out),
            lambda out: [explain(out)],
        ),
        Command("simulation", lambda out: ("simulate", out / "made", "--participants", 2, "--resolution", 16)),
    ]


def run(arguments):
    """Run a command in this process; return its status and what it wrote."""
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        status = cli.run([str(each) for each in arguments])
    return status, output.getvalue() + errors.getvalue()


def done(arguments):
    """Run a command that must succeed."""
    status, written = run(arguments)
    assert status == 0, written


def fill_disks(folder, n, *, names=(), seconds=float("inf"), report=lambda faults: None):
    """Run each command on ``n`` disks that are full at another of its writes, and again when there is room.

    One half of the disks has too little room, from none to almost enough; the other may hold too few files.

    Parameters
    ----------
    folder
        For the scans, the models and the disk.
    n
        How many disks for each command, at most.
    names
        Of the commands that are tried. Default: all.
    seconds
        After which no further command begins.
    report
        Called after each command.

    Returns
    -------
    The `OnFullDisks`.
    """
    faults, end = OnFullDisks(), time.monotonic() + seconds
    for command in commands(folder):
        if (names and command.name not in names) or time.monotonic() >= end:
            continue
        with Disk(folder / "disk") as disk:
            _fill(command, disk, folder / f"before {command.name}", n, faults)
        report(faults)
    return faults


def _fill(command, disk, kept, n, faults):
    """Fill the disk at each of some writes of a command."""
    out = disk.folder / "out"
    for arguments in command.earlier(out):
        done(arguments)
    if out.exists():
        shutil.copytree(out, kept)
    before, listed_before, used = _content(out), _listed(out), disk.used()
    with disk.watched() as needed:
        done(command.arguments(out))
    expected, listed_expected = _content(out), _listed(out)
    rooms, numbers = (
        np.unique(np.linspace(low, max(low, high - 1), n // 2).round().astype(int)).tolist()
        for low, high in zip(used, needed, strict=True)
    )
    for limit in [{"size": max(4096, room)} for room in rooms] + [{"files": number} for number in numbers]:
        shutil.rmtree(out, ignore_errors=True)
        if kept.exists():
            shutil.copytree(kept, out)
        where = f"{command.name}, {limit}"
        disk.limit(**limit)
        try:
            with time_limit(LONGEST):
                status, written = run(command.arguments(out))
        except OutOfTime as hang:
            faults.tried[command.name] += 1
            faults.hangs.append(f"{where}: {hang}")
            disk.limit()
            continue
        left, listed = _content(out), _listed(out)
        disk.limit()
        if status == 0 and FULL not in written:
            if left != expected:
                faults.other_bits.append(
                    f"{where}: done, but not as it should be: {sorted(left.items() ^ expected.items())}"
                )
            continue
        faults.tried[command.name] += 1
        if "Traceback" in written or "unexpected" in written or FULL not in written:
            faults.crashes.append(f"{where}: status {status}, {written[-1500:]}")
        changed = [name for name in before if left.get(name) not in (before[name], expected.get(name))]
        if listed_before.items() <= listed.items() <= listed_expected.items():  # the list of what was completed
            changed = [name for name in changed if name != HASHES]
        if changed:
            faults.lost.append(f"{where}: {changed}")
        if partly := _half_written(command, left, before, expected):
            faults.other_bits.append(f"{where}: status {status}, {partly}")
        status, written = run(command.arguments(out))
        faults.resumed += 1
        if status or (again := _content(out)) != expected:
            missing = sorted(expected.items() ^ again.items()) if status == 0 else written[-1500:]
            faults.lost.append(f"{where}, with room again: status {status}, {missing}")


def _listed(out):
    """Return what the list of a study's results holds, with the hashes; nothing where there is no whole list."""
    return (read_sealed(out / HASHES) or {"Files": {}})["Files"]


def _half_written(command, left, before, expected):
    """Return the files that a command left of what it did not complete: a folder of results, or all that it writes.

    What describes a folder as a whole is written after the results, and is missing where there is no room for it.
    """
    left, expected = ({k: v for k, v in each.items() if k not in _DESCRIBES} for each in (left, expected))
    if left == expected:
        return []
    new = {name for name in left if left[name] != before.get(name)}
    for part in {"/".join(name.split("/")[: command.whole.count("/") + 1]) for name in new} if command.whole else ():
        if fnmatch(part, command.whole) and _below(left, part) == _below(expected, part):
            new -= _below(left, part).keys()
    return sorted(name for name in new if not command.whole or "/" in name or name.startswith("."))


def _below(content, folder):
    return {name: digest for name, digest in content.items() if name.startswith(f"{folder}/")}


def _content(out):
    """Return the content of a folder, but for the scans that training keeps to read them faster."""
    content = studies.content(out) if out.exists() else {}
    return {name: digest for name, digest in content.items() if not name.startswith(".cache")}
