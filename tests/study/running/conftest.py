"""The models of a study, and functions that read the results of one participant."""

import json

import pandas as pd
import pytest

from tests.study import studies


@pytest.fixture(scope="module")
def models(people, tmp_path_factory):
    """Return the folder of two folds of models of the study."""
    return studies.folds(tmp_path_factory.mktemp("models") / "folds", people)


@pytest.fixture(scope="session")
def read_regions():
    """Return a function that reads the table of a participant; ``ending`` is needed where there are several."""

    def read(out, participant, ending="", index="name"):
        (path,) = (out / participant).rglob(f"*{ending}_regions.tsv")
        return pd.read_csv(path, sep="\t", index_col=index)

    return read


@pytest.fixture(scope="session")
def read_sidecar():
    """Return a function that reads the sidecar of a participant's saliency map."""

    def read(out, participant):
        (path,) = (out / participant).rglob("*_stat-saliency_statmap.json")
        return json.loads(path.read_text())

    return read
