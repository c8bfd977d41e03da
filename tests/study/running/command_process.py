"""A command in a process of its own: a worker, the command itself, or all of its processes can be sent a signal."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import psutil

from glas3d import cli

ROOT = Path(__file__).parents[3]
_COMMAND = "from glas3d.cli import main; main()"
# seconds after which a process that hangs fails the test
LONG = 300


class Hang(AssertionError):
    """A process that does not end, or that does nothing any more."""


class CommandProcess:
    """The process of ``glas3d ARGUMENTS``, in a session of its own; standard output is not kept."""

    def __init__(self, *arguments):
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed at the end of the process)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            preexec_fn=_heed_interrupts,
        )

    def alive(self):
        """Return whether the command is still running."""
        return self.process.poll() is None

    def workers(self):
        """Return the worker processes that the command has started."""
        return workers_of(self.process.pid)

    def changes(self, folder):
        """Wait until a file appears in a folder or vanishes, and return whether the command is still running."""
        before, until = _names(folder), time.monotonic() + LONG
        while self.alive() and _names(folder) == before:
            if time.monotonic() > until:
                raise self._hang("no file has changed")
            time.sleep(0.005)
        return self.alive()

    def finish(self):
        """Wait until the command ends, which must be with status 0."""
        status, errors = self.end()
        assert status == 0, errors

    def end(self):
        """Wait until the command ends, and return its exit status and what it wrote to standard error."""
        try:
            status = self.process.wait(timeout=LONG)
        except subprocess.TimeoutExpired:
            raise self._hang("the command does not end") from None
        if not self._errors.closed:
            self._errors.seek(0)
            self._written = self._errors.read()
            self._errors.close()
        return status, self._written

    def signal_worker(self, rng, number=signal.SIGKILL):
        """Send a signal to one of the present workers, and return whether there was one."""
        workers = self.workers()
        if workers:
            _send(workers[rng.integers(len(workers))].pid, number)
        return bool(workers)

    def signal_command(self, number=signal.SIGKILL):
        """Send a signal to the command alone; the processes that it has started must end by themselves.

        Returns
        -------
        The exit status, and what the command wrote to standard error.
        """
        orphans = psutil.Process(self.process.pid).children(recursive=True) if self.alive() else []
        _send(self.process.pid, number)
        ended = self.end()
        until = time.monotonic() + LONG
        while left := [orphan for orphan in orphans if _is_running(orphan)]:
            if time.monotonic() > until:
                raise self._hang(f"orphans stay: {[_command_line(orphan) for orphan in left]}")
            time.sleep(0.02)
        return ended

    def signal_all(self, number=signal.SIGKILL):
        """Send a signal to the command and all processes that it has started, at once; see `signal_command`."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        return self.end()

    def _hang(self, message):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return Hang(message)


class ForkedCommand(CommandProcess):
    """The same as a copy of this process, which starts at once where this one has imported what the command needs.

    This process must have no other threads: a copy has none of them, and waits for ever for what they hold.
    """

    def __init__(self, *arguments):
        assert psutil.Process().num_threads() == 1
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed at the end of the process)
        self.process = _Fork(lambda: _be_command(arguments, self._errors.fileno()))


class _Fork:
    """A copy of this process that calls a function, with what is used of ``subprocess.Popen``."""

    def __init__(self, function):
        self.returncode = None
        self.pid = os.fork()
        if not self.pid:
            try:
                function()
            finally:
                os._exit(70)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout=float("inf")):
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("glas3d", timeout)
            time.sleep(0.005)
        return self.returncode


def _be_command(arguments, errors):
    """Run ``glas3d ARGUMENTS`` in a session of its own, and end with its exit status."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(errors, 2)
    sys.argv = ["glas3d", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as end:
        os._exit(end.code)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()


def workers_of(pid):
    """Return the worker processes that a process has started."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [child for child in children if "spawn_main" in _command_line(child)]


def _heed_interrupts():
    """Let the process be interrupted; what a shell starts in the background ignores Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _names(folder):
    """Return every file and folder, finished or not."""
    return {(parent, name) for parent, *children in os.walk(folder) for names in children for name in names}


def _send(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


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
