"""Commands run in this process, and the scan, atlas and study that they are given."""

import nibabel as nib
import pytest

from glas3d import cli
from glas3d.cli import terminal
from tests import bundles
from tests.study import studies


@pytest.fixture(autouse=True)
def _no_lines_of_progress(monkeypatch):
    """Keep a busy machine from adding lines of progress to what commands write."""
    monkeypatch.setattr(terminal, "FIRST_LINE", 1e6)


@pytest.fixture
def run_command(capsys):
    """Return a function that runs a command and returns its exit status, standard output and standard error."""

    def run(*arguments):
        status = cli.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def error_line(run_command):
    """Return a function that runs a command that must be refused, and returns its only line, the error."""

    def run(*arguments):
        status, output, errors = run_command(*arguments)
        assert (status, output) == (2, ""), errors
        assert errors.count("\n") == 1, errors
        assert errors.startswith("error: ")
        assert "Traceback" not in errors
        return errors.rstrip("\n")

    return run


@pytest.fixture(scope="session")
def scan(tmp_path_factory):
    """Return the path of the template as a participant's scan, on 6 mm voxels."""
    path = tmp_path_factory.mktemp("scans") / "sub-07_T1w.nii.gz"
    nib.save(bundles.t1(6), path)
    return path


@pytest.fixture(scope="session")
def few_path(few, tmp_path_factory):
    """Return the path of an atlas of eight regions: a label image, with its table next to it."""
    return studies.atlas(tmp_path_factory.mktemp("atlas"), few)


@pytest.fixture(scope="module")
def bids_dir(tmp_path_factory):
    """Return the folder of a study of six participants; a module may have a study of its own."""
    return studies.bids(tmp_path_factory.mktemp("study") / "data")


@pytest.fixture(scope="module")
def models(bids_dir, tmp_path_factory):
    """Return the folder of two folds of models of the study."""
    return studies.folds(tmp_path_factory.mktemp("models") / "folds", studies.cohort(bids_dir))
