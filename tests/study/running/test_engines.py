"""A study settles on an engine once, and keeps it."""

import json
import shutil

import pytest

from glas3d import GlasError
from glas3d.study.running import plan
from glas3d.study.running.runner import explain_cohort
from tests.study import studies
from tests.study.studies import SEARCH, content

ASSUMED = {"search": SEARCH, "assume_space": "MNI"}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return studies.cohort(studies.bids(tmp_path_factory.mktemp("in") / "data", n=2))


@pytest.fixture(scope="module")
def models(people, tmp_path_factory):
    return studies.folds(tmp_path_factory.mktemp("models") / "folds", people)


def used(out):
    return {json.loads(path.read_text())["Settings"]["engine"] for path in out.rglob("sub-*/**/*_statmap.json")}


def test_what_auto_settles_on_is_kept_whatever_the_clock_says_later(people, models, tmp_path, monkeypatch):
    asked = []

    def fastest(model, device, threads, shape, batches):
        asked.append((device, threads, shape, batches))
        return "channels_last"

    monkeypatch.setattr(plan, "fastest_engine", fastest)
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    explain_cohort(people, whole, models, **ASSUMED, batch_size=2)
    ((_, threads, shape, batches),) = asked
    assert (threads, shape[0], len(shape)) == (1, 2, 4)
    assert batches > 0
    assert json.loads((whole / "study.json").read_text())["Engine"] == "channels_last"
    assert used(whole) == {"channels_last"}

    shutil.copytree(whole, halted)
    shutil.rmtree(halted / "sub-01")
    monkeypatch.setattr(plan, "fastest_engine", lambda *given: pytest.fail("it is settled"))
    result = explain_cohort(people, halted, models, **ASSUMED)
    assert (result.count("explained"), result.count("kept")) == (1, 1)
    assert content(halted) == content(whole)
    with pytest.raises(GlasError, match="was started with the engine channels_last, got eager"):
        explain_cohort(people, halted, models, **ASSUMED, engine="eager")


def test_auto_asks_a_batch_of_the_study_s_shape(people, models, tmp_path):
    bundle = str(models / "fold-1")
    assert plan.fastest_engine(bundle, "cpu", 1, (2, *studies.GRID.shape), 3) == "eager"


def test_an_engine_that_is_not_there_is_refused_before_anything_is_written(people, models, tmp_path):
    for engine, said in (("fast", "engine must be one of auto, eager"), ("cudagraphs", "runs on cuda")):
        with pytest.raises(GlasError, match=said):
            explain_cohort(people, tmp_path / "out", models, **ASSUMED, device="cpu", engine=engine)
    assert not (tmp_path / "out").exists()
