"""A small study, read and trained once."""

import shutil

import pytest

from glas3d.study.bids import read_cohort
from tests.study.folders import derivative, people
from tests.study.trained import trained


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    return derivative(tmp_path_factory.mktemp("in") / "data", people(12))


@pytest.fixture(scope="session")
def cohort(source):
    return read_cohort(source)


@pytest.fixture(scope="session")
def made(cohort, tmp_path_factory):
    return trained(cohort, tmp_path_factory.mktemp("out") / "models")


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made.place, tmp_path / "copy")
