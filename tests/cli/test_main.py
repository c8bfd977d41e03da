"""The command line as a whole: help, version, exit status, and errors on one line."""

import subprocess
import sys

import pytest

from glas3d import GlasError, __version__, cli

COMMANDS = [[], ["explain"], ["simulate"], ["demo"], ["fetch"], ["fetch", "oasis"], ["atlas"], ["atlas", "show"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_fits_80_columns(run_command, command):
    status, output, errors = run_command(*command, "--help")
    assert (status, errors) == (0, "")
    assert output.startswith("Usage: glas3d")
    assert max(len(line) for line in output.splitlines()) <= 80


def test_the_version_is_written(run_command):
    assert run_command("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("problem", "status", "message"),
    [
        (GlasError("one\nthing"), 2, "error: one thing"),
        (
            PermissionError(13, "Permission denied", "/data/a.nii"),
            2,
            "error: cannot use /data/a.nii: Permission denied: give a folder that you may write to",
        ),
        (KeyboardInterrupt(), 130, "error: interrupted; nothing was written"),
        (RuntimeError("deep\ninside"), 1, "error: unexpected RuntimeError: deep (set GLAS3D_TRACEBACK=1 to see where)"),
        (GeneratorExit(), 2, "error: the model, or code that it runs, ended the program by raising GeneratorExit"),
        (AssertionError(), 1, "error: unexpected AssertionError: (set GLAS3D_TRACEBACK=1 to see where)"),
    ],
    ids=repr,
)
def test_every_exception_ends_in_one_line(run_command, scan, bundle, tmp_path, monkeypatch, problem, status, message):
    def failing(*args, **kwargs):
        raise problem

    monkeypatch.setattr("glas3d.explain.scan.resolve_scan", failing)
    command = ["explain", scan, "--model", bundle, "--target", "AD", "--out", tmp_path / "out"]
    assert run_command(*command) == (status, "", f"{message}\n")
    assert not (tmp_path / "out").exists()
    if isinstance(problem, RuntimeError):
        monkeypatch.setenv("GLAS3D_TRACEBACK", "1")
        with pytest.raises(RuntimeError):
            cli.run([str(argument) for argument in command])


# Commands in a process of their own


def run_code(code, *arguments, **settings):
    """Run Python code in a new process."""
    return subprocess.run([sys.executable, *settings.pop("flags", ()), "-c", code, *map(str, arguments)], **settings)


MAIN = "from glas3d.cli import main; main()"


def test_help_imports_nothing_heavy():
    completed = run_code(MAIN, "--help", flags=["-X", "importtime"], capture_output=True, text=True)
    assert completed.returncode == 0
    assert "explain" in completed.stdout
    imported = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in completed.stderr.splitlines() if "|" in line}
    assert {"glas3d", "cyclopts"} <= imported
    heavy = {"torch", "numpy", "scipy", "pandas", "nibabel", "nilearn", "monai", "matplotlib", "safetensors", "sklearn"}
    assert imported & heavy == set()


def test_the_package_is_imported_lazily():
    code = "import glas3d, sys; dir(glas3d); print(sorted({'torch', 'numpy', 'nibabel', 'pandas'} & set(sys.modules)))"
    assert run_code(code, capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize(("arguments", "status"), [(["explain"], 2), (["--version"], 0)], ids=["bad", "good"])
def test_a_process_ends_with_the_exit_status(arguments, status):
    completed = run_code(MAIN, *arguments, capture_output=True, text=True)
    assert completed.returncode == status
    assert completed.stderr.startswith("error: ") is (status == 2)
    assert completed.stderr.count("\n") == (status == 2)
    assert (completed.stdout == "") is (status == 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "start"), [("atlas show AAL", "index\tname"), ("explain --help", "Usage: glas3d explain")]
)
def test_output_that_is_not_read_to_its_end_is_no_error(command, start):
    code = f"{sys.executable} -c '{MAIN}' {command} | head -n 1; echo ${{PIPESTATUS[0]}}"
    completed = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert completed.stdout.splitlines()[0].startswith(start)
    assert (completed.stdout.splitlines()[1], completed.stderr) == ("0", "")


def test_the_package_is_run_as_the_command_is():
    command = [sys.executable, "-m", "glas3d"]
    completed = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert completed.stdout.startswith("Usage: glas3d COMMAND")
    completed = subprocess.run([*command, "explain"], capture_output=True, text=True)
    assert (completed.returncode, completed.stdout) == (2, "")
    assert completed.stderr.startswith("error: missing: SCAN")
