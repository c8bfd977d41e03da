"""A command in a process of its own: a worker, the command itself, or all of its processes can be killed."""

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
# seconds after which a process that hangs fails the test
LONG = 300


class CommandProcess:
    """The process of ``glas3d ARGUMENTS``, in a session of its own; standard output is not kept."""

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
        """Return whether the command is still running."""
        return self.process.poll() is None

    def workers(self):
        """Return the worker processes that the command has started."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return [child for child in children if "spawn_main" in _command_line(child)]

    def changes(self, folder):
        """Wait until a file appears in a folder or vanishes, and return whether the command is still running."""
        before, until = _names(folder), time.monotonic() + LONG
        while self.alive() and _names(folder) == before:
            assert time.monotonic() < until, "no file has changed"
            time.sleep(0.005)
        return self.alive()

    def finish(self):
        """Wait until the command ends, which must be with status 0."""
        _, errors = self.process.communicate(timeout=LONG)
        assert self.process.returncode == 0, errors

    def kill_worker(self, rng):
        """Kill one of the present workers, and return whether there was one."""
        workers = self.workers()
        if workers:
            _kill(workers[rng.integers(len(workers))].pid)
        return bool(workers)

    def kill_client(self):
        """Kill the command alone; the processes that it has started must end by themselves."""
        orphans = psutil.Process(self.process.pid).children(recursive=True)
        _kill(self.process.pid)
        self._reap()
        until = time.monotonic() + LONG
        while left := [orphan for orphan in orphans if _is_running(orphan)]:
            assert time.monotonic() < until, f"orphans stay: {[_command_line(orphan) for orphan in left]}"
            time.sleep(0.02)

    def kill_all(self):
        """Kill the command and all processes that it has started, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self._reap()

    def _reap(self):
        self.process.stderr.close()  # an orphan may still hold the other end
        self.process.wait()


def _names(folder):
    """Return every file and folder, finished or not."""
    return {(parent, name) for parent, *children in os.walk(folder) for names in children for name in names}


def _kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _command_line(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _is_running(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
