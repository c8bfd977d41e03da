"""Commands in processes of their own, killed with SIGKILL: one of their workers, the command, or all of them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[3]
_COMMAND = "from glas3d.cli import main; main()"
# no test of time: only so that what hangs is told
LONG = 300


class Run:
    """``glas3d ARGUMENTS``, started in a session of its own.

    Its output is let go, and its errors are kept in memory once it has ended.
    """

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def alive(self):
        return self.process.poll() is None

    def workers(self):
        """Processes it has spawned to work for it."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [one for one in found if "spawn_main" in _line(one)]

    def changes(self, folder):
        """Whether something came into a folder, or went, while the run lived."""
        before, until = _names(folder), time.monotonic() + LONG
        while self.alive() and _names(folder) == before:
            assert time.monotonic() < until, "nothing happens any more"
            time.sleep(0.005)
        return self.alive()

    def finish(self):
        """Let it end, well."""
        _, said = self.process.communicate(timeout=LONG)
        assert self.process.returncode == 0, said

    def kill_worker(self, rng):
        """One of the workers there are at this moment, if any."""
        workers = self.workers()
        if workers:
            _kill(workers[rng.integers(len(workers))].pid)
        return bool(workers)

    def kill_client(self):
        """The command alone; what it has started must go away by itself."""
        orphans = psutil.Process(self.process.pid).children(recursive=True)
        _kill(self.process.pid)
        self._reap()
        until = time.monotonic() + LONG
        while left := [one for one in orphans if _lives(one)]:
            assert time.monotonic() < until, f"orphans stay: {[_line(one) for one in left]}"
            time.sleep(0.02)

    def kill_all(self):
        """The command and whatever it has started, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self._reap()

    def _reap(self):
        self.process.stderr.close()  # an orphan may still hold the other end
        self.process.wait()


def _names(folder):
    """What is there, finished or not."""
    return {(place, name) for place, *there in os.walk(folder) for names in there for name in names}


def _kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _line(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _lives(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
