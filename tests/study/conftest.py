"""Small studies: one read and trained once, one whose models are made up."""

import shutil

import pandas as pd
import pytest

from glas3d.study import read_cohort
from glas3d.study.running.plan import load_search
from tests.study import folders, studies
from tests.study.made_up import Study
from tests.study.training.trained import trained


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
    return shutil.copytree(made.folder, tmp_path / "copy")


@pytest.fixture(scope="session")
def atlas_path(few, tmp_path_factory):
    return studies.atlas(tmp_path_factory.mktemp("atlas"), few)


@pytest.fixture(scope="session")
def atlas(atlas_path):
    return load_search(str(atlas_path))


@pytest.fixture
def study(tmp_path, atlas_path, atlas):
    return Study(tmp_path / "study", atlas_path, atlas)


@pytest.fixture
def eight():
    """Four of AD, four of NC."""
    return pd.DataFrame(
        {
            "participant_id": [f"sub-0{i}" for i in range(1, 9)],
            "group": ["AD", "NC"] * 4,
            "age": [70.0, 71, 65, 66, 80, 82, 59, 77],
        }
    )
