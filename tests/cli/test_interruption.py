"""Ctrl-C and SIGTERM: one line that says what was kept, and the exit status 130 or 143; processes of their own."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from glas3d.cli.interruption import Interruption, exits_are_noticed, signals_end_the_command
from tests.study import folders

# seconds after which a process that hangs fails the test
LONG = 120
# what a command may write before it is interrupted
EXPECTED = ("note: ", "progress: ", "Dashboard: ")
CODE = """
import sys
from glas3d.cli import main
if __name__ == "__main__":
    main()
"""


class Command:
    """The process of ``glas3d ARGUMENTS`` in a group of its own, as a terminal starts it."""

    def __init__(self, script, *arguments, ignoring=()):
        def before():
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell ignores it for what it runs in the background
            for number in ignoring:
                signal.signal(number, signal.SIG_IGN)

        script.write_text(CODE)
        self.process = subprocess.Popen(
            [sys.executable, script, *map(str, arguments)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,
        )

    def wait_for(self, happened):
        """Wait until something has happened, while the command runs."""
        until = time.monotonic() + LONG
        while not happened():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)

    def end(self, number, *, whole_group):
        """Send a signal and return the exit status and what was written."""
        (os.killpg if whole_group else os.kill)(self.process.pid, number)
        output, errors = self.process.communicate(timeout=LONG)
        written = [line for line in (output + errors).splitlines() if not line.startswith(EXPECTED)]
        return self.process.returncode, written


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a command, which is killed at the end of the test if it still runs."""
    started = []

    def run(*arguments, **settings):
        started.append(Command(tmp_path / "command.py", *arguments, **settings))
        return started[-1]

    yield run
    for command in started:
        if command.process.poll() is None:
            os.killpg(command.process.pid, signal.SIGKILL)
            command.process.communicate()


class _FreedWithSignal:
    """An object that is freed at the moment when a signal comes."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


@pytest.fixture
def heeded():
    """Both signals are heeded, also where tests run in the background of a shell, which ignores SIGINT."""
    numbers = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_an_object_is_freed_is_not_lost(number):
    before = sys.unraisablehook, signal.getsignal(number)
    with pytest.raises(Interruption) as interruption, signals_end_the_command():
        _FreedWithSignal(number)
        time.sleep(LONG)
    assert interruption.value.number == number
    assert (sys.unraisablehook, signal.getsignal(number)) == before


def test_other_problems_while_an_object_is_freed_are_reported_as_before(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(unraisable.exc_type))

    class Broken:
        def __del__(self):
            raise ValueError

    with signals_end_the_command():
        Broken()
    assert reported == [ValueError]


SIGNALS = {
    "Ctrl-C": (signal.SIGINT, True, "interrupted", 130),
    "kill": (signal.SIGTERM, False, "terminated", 143),
    "end of a job": (signal.SIGTERM, True, "terminated", 143),
}


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.parametrize(("number", "whole_group", "word", "status"), SIGNALS.values(), ids=SIGNALS)
def test_an_interrupted_study_says_what_it_kept(
    start, bids_dir, models, tmp_path, number, whole_group, word, status, n_workers
):
    out = tmp_path / "study"
    options = ("--models", models, "--assume-space", "MNI", "--grid", 12, "--engine", "eager", "--n-workers", n_workers)
    command = start("cohort", bids_dir, out, "participant", *options)
    command.wait_for(lambda: list(out.glob("sub-*/anat/*_record.json")))
    code, written = command.end(number, whole_group=whole_group)
    kept = len(list(out.glob("sub-*/anat/*_record.json")))
    plural = "" if kept == 1 else "s"
    resume = f"the results of {kept} scan{plural} are kept in {out}: the same command resumes with the others"
    assert (code, written) == (status, [f"error: {word}; {resume}"])
    assert [path.name for path in out.iterdir() if path.name.startswith(".unfinished")] == []


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.parametrize(("number", "whole_group", "word", "status"), SIGNALS.values(), ids=SIGNALS)
def test_interrupted_training_says_what_it_kept(start, tmp_path, number, whole_group, word, status, n_workers):
    data, out = folders.derivative(tmp_path / "data", folders.people(12)), tmp_path / "models"
    options = ("--resolution", 16, "--no-pretrain", "--assume-space", "MNI", "--epochs", 100_000, "--patience", 10**6)
    command = start("train", data, out, "--folds", 2, *options, "--n-workers", n_workers)
    command.wait_for(lambda: list(out.glob(".fold-1-*")))
    code, written = command.end(number, whole_group=whole_group)
    kept = f"0 finished folds and the scans that were read are kept in {out}"
    assert (code, written) == (status, [f"error: {word}; {kept}: the same command resumes with the others"])
    left = {path.name for path in out.iterdir()}
    assert {name for name in left if n_workers == 1 or not name.startswith(".fold-")} == {
        ".cache"
    }  # removed at the next start


@pytest.mark.slow
@pytest.mark.parametrize(("number", "whole_group", "word", "status"), SIGNALS.values(), ids=SIGNALS)
@pytest.mark.parametrize("command", ["simulate", "demo", "explain"])
def test_other_interrupted_commands_write_nothing(
    start, scan, bundle, tmp_path, command, number, whole_group, word, status
):
    out = tmp_path / "out"
    arguments = {
        "simulate": (out, "--participants", 500),
        "demo": ("--out", out, "--participants", 100),
        "explain": (scan, "--model", bundle, "--target", "AD", "--grid", 24, "--out", out),
    }[command]
    running = start(command, *arguments)
    if command == "explain":
        running.wait_for(lambda: _cpu_seconds(running.process.pid) > 2)
    else:
        running.wait_for(lambda: list(tmp_path.glob(".out-*/**/sub-*")))
    code, written = running.end(number, whole_group=whole_group)
    assert (code, written) == (status, [f"error: {word}; nothing was written"])
    assert [path.name for path in tmp_path.iterdir() if path.name != "command.py"] == []


@pytest.mark.slow
def test_a_signal_that_is_ignored_stays_ignored(start, tmp_path):
    """As in a background job of a shell."""
    command = start("simulate", tmp_path / "out", "--participants", 3, "--resolution", 16, ignoring=[signal.SIGINT])
    command.wait_for(lambda: _cpu_seconds(command.process.pid) > 0.3)
    assert command.end(signal.SIGINT, whole_group=True)[0] == 0


def _cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = re.sub(r"^.*\) ", "", file.read()).split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def test_the_end_of_a_process_is_an_exception():
    with exits_are_noticed():
        with pytest.raises(SystemExit) as end:
            os._exit(0)
        child = os.fork()
        if child == 0:
            os._exit(7)  # a process of its own ends as it wants to
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert end.value.code == 0
    assert os._exit.__module__ == "posix"


LEAVING = """
import os, threading, torch
from glas3d import Predictor

class Net(torch.nn.Module):
    def forward(self, batch):
        os._exit(0)

def in_thread(batch):
    thread = threading.Thread(target=os._exit, args=(0,))
    thread.start()
    thread.join()

def model(): return Predictor(Net().eval(), "softmax", device="cpu")
def thread(): return Predictor(in_thread, "softmax", device="cpu")
"""


@pytest.mark.parametrize("factory", ["model", "thread"])
def test_a_model_that_ends_the_process_is_an_error(scan, tmp_path, factory):
    (tmp_path / "leaving.py").write_text(LEAVING)
    script = tmp_path / "command.py"
    words = ["explain", scan, "--model", f"leaving:{factory}", "--target", "1", "--grid", "2", "--quiet"]
    command = Command(script, *words, "--assume-space", "MNI", "--out", tmp_path / "out")
    output, errors = command.process.communicate(timeout=LONG)
    assert (command.process.returncode, output) == (2, "")
    ((line),) = errors.splitlines()
    assert line.startswith("error: ")
    assert "SystemExit: 0 (leaving.py, line 7" in line or "ended the program with exit status 0" in line
    assert not (tmp_path / "out").exists()
