"""Small studies: one read and trained once, one whose models are made up."""

import shutil

import pytest

from glas3d.study.bids import read_cohort
from tests.study import folders, studies
from tests.study.trained import trained


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    return folders.derivative(tmp_path_factory.mktemp("in") / "data", folders.people(12))


@pytest.fixture(scope="session")
def cohort(source):
    return read_cohort(source)


@pytest.fixture(scope="session")
def made(cohort, tmp_path_factory):
    return trained(cohort, tmp_path_factory.mktemp("out") / "models")


@pytest.fixture(scope="session")
def six(tmp_path_factory):
    """Six participants to be explained by `models`."""
    return studies.bids(tmp_path_factory.mktemp("in") / "six")


@pytest.fixture(scope="session")
def people(six):
    return studies.cohort(six)


@pytest.fixture(scope="session")
def models(people, tmp_path_factory):
    return studies.folds(tmp_path_factory.mktemp("models") / "folds", people)


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made.place, tmp_path / "copy")
