"""The engine of a study: it is resolved once, recorded and kept."""

import json
import shutil

import pytest

from glas3d import GlasError, Grid
from glas3d.study.running import plan
from glas3d.study.running.runner import explain_cohort
from tests.study import studies
from tests.study.studies import SEARCH, content

ASSUMED = {"search": SEARCH, "assume_space": "MNI"}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Return a cohort of two participants."""
    return studies.cohort(studies.bids(tmp_path_factory.mktemp("in") / "data", n=2))


def used_engines(out):
    """Return the engines that the sidecars record."""
    return {json.loads(path.read_text())["Settings"]["engine"] for path in out.rglob("sub-*/**/*_statmap.json")}


def test_the_engine_that_auto_chooses_is_kept_by_later_runs(people, models, tmp_path, monkeypatch):
    calls = []

    def fastest(model, device, threads, shape, batches, loading):
        calls.append((device, threads, shape, batches))
        return "channels_last"

    monkeypatch.setattr(plan, "fastest_engine", fastest)
    complete, stopped = tmp_path / "complete", tmp_path / "stopped"
    explain_cohort(people, complete, models, **ASSUMED, batch_size=2)
    ((_, threads, shape, batches),) = calls
    assert (threads, shape[0], len(shape)) == (1, 2, 4)
    assert batches > 0
    assert json.loads((complete / "study.json").read_text())["Engine"] == "channels_last"
    assert used_engines(complete) == {"channels_last"}

    shutil.copytree(complete, stopped)
    shutil.rmtree(stopped / "sub-01")
    monkeypatch.setattr(plan, "fastest_engine", lambda *arguments: pytest.fail("the engine is chosen already"))
    result = explain_cohort(people, stopped, models, **ASSUMED)
    assert (result.count("explained"), result.count("kept")) == (1, 1)
    assert content(stopped) == content(complete)
    with pytest.raises(GlasError, match="was started with the engine channels_last, got eager"):
        explain_cohort(people, stopped, models, **ASSUMED, engine="eager")


@pytest.mark.parametrize(
    ("settings", "evaluations"),
    [({}, 2 * 8 + 2), ({"preset": "paper"}, 2 * 8 + 2), ({"fusion": "shadow"}, 8 + 1), ({"fusion": "light"}, 8 + 1)],
)
def test_an_engine_must_be_worth_the_evaluations_of_the_ends_that_are_scored(
    settings, evaluations, people, models, tmp_path, monkeypatch
):
    def stop(model, device, threads, shape, batches, loading):
        raise GlasError(f"{batches} batches")

    monkeypatch.setattr(plan, "fastest_engine", stop)
    folds = len(list(models.glob("fold-*")))
    with pytest.raises(GlasError, match=f"^{2 * evaluations // folds} batches$"):
        explain_cohort(people, tmp_path / "out", models, **ASSUMED | {"search": Grid(2)}, batch_size=1, **settings)


def test_engines_are_compared_on_a_batch_of_the_study_s_shape(people, models, tmp_path):
    bundle = str(models / "fold-1")
    assert plan.fastest_engine(bundle, "cpu", 1, (2, *studies.GRID.shape), 3, {}) == "eager"


def test_an_unavailable_engine_is_refused_before_anything_is_written(people, models, tmp_path):
    for engine, message in (("fast", "engine must be one of auto, eager"), ("cudagraphs", "runs on cuda")):
        with pytest.raises(GlasError, match=message):
            explain_cohort(people, tmp_path / "out", models, **ASSUMED, device="cpu", engine=engine)
    assert not (tmp_path / "out").exists()
