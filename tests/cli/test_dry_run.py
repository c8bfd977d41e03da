"""``--dry-run``: who would be explained and what it would take; nothing is written, and the real run agrees."""

import re
import shutil

import numpy as np
import pytest
import torch

from glas3d import Grid, Predictor
from glas3d.errors import GlasWarning
from glas3d.explain import explain_img
from glas3d.explain.cost import estimate_cost
from glas3d.study.derivatives import read_records
from glas3d.study.running.forecast import estimate_cohort
from glas3d.study.running.runner import explain_cohort
from tests.study import folders, studies

SEARCH = (2, 3, 2)
ASSUMED = {"search": SEARCH, "assume_space": "MNI"}


class Counted:
    """Counts the inputs a model is asked about, fillers of the last batch among them."""

    def __init__(self):
        self.asked = 0

    def __call__(self, batch):
        self.asked += len(batch)
        p = torch.sigmoid(batch.mean(dim=(1, 2, 3, 4)) / 500)
        return torch.stack([1 - p, p], dim=1)


@pytest.mark.parametrize(
    ("settings", "forwards"),
    [
        ({}, 25),
        ({"scales": (0.5, 1.0, 2.0)}, 75),
        ({"versus": 0}, 25),
        ({"background": [0.0, "blur"]}, 50),
        ({"recursive": {"max_iterations": 3}}, 75),
        ({"recursive": True}, 250),
    ],
    ids=str,
)
def test_forwards_are_foretold_and_few_are_asked(tmp_path, settings, forwards):
    path = folders.save(tmp_path / "scan.nii.gz", folders.brain())
    model = Counted()
    predict = Predictor(model, "none", device="cpu")

    def ask(tick=False):
        given = {"batch_size": 2, "assume_space": "MNI"} | settings
        return explain_img(path, predict, 1, Grid(SEARCH), progress=tick, **given)

    found = estimate_cost(ask, settings.get("recursive", False))
    assert (found.evaluations, found.batch_size) == (forwards, 2)
    assert model.asked <= 8
    assert found.seconds > 0
    assert found.memory is None or 1e7 < found.memory < 1e12
    model.asked = 0
    ask()
    spare = forwards // 25 + 1 if "recursive" not in settings else forwards
    assert model.asked - spare <= forwards  # of a recursion the most there can be
    assert model.asked >= forwards or "recursive" in settings


def test_one_batch_is_all_there_is(tmp_path):
    path = folders.save(tmp_path / "scan.nii.gz", folders.brain())
    predict = Predictor(Counted(), "none", device="cpu")
    found = estimate_cost(
        lambda tick: explain_img(path, predict, 1, Grid(1), batch_size=8, assume_space="MNI", progress=tick)
    )
    assert (found.evaluations, found.batch_size) == (3, 3)
    assert np.isfinite(found.seconds)
    assert found.seconds > 0


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return studies.bids(tmp_path_factory.mktemp("in") / "data")


@pytest.fixture(scope="module")
def models(source, tmp_path_factory):
    return studies.folds(tmp_path_factory.mktemp("models") / "folds", studies.cohort(source))


@pytest.fixture
def dry(go, models, tmp_path):
    """What is said, with nothing left behind."""

    def command(place, *more):
        before = studies.content(tmp_path)
        given = ("--models", models, "--grid", *SEARCH, "--assume-space", "MNI", "--dry-run")
        status, said, notes = go("cohort", place, tmp_path / "out", "participant", *given, *more)
        assert studies.content(tmp_path) == before
        return status, said, notes

    return command


def test_a_cohort(dry, source, models, tmp_path):
    status, said, notes = dry(source)
    assert (status, notes) == (0, "")
    assert said.splitlines()[0] == "Scans to explain: AD 3, NC 3; finished: 0; left out: 0"
    assert re.search(r"A scan: 25 model evaluations in batches of \d+, [0-9.e-]+ s each, about ", said)
    assert "All of them: 150 model evaluations, about " in said
    assert said.endswith("Nothing was written.\n")
    explain_cohort(studies.cohort(source, participant_label=("01", "02", "04")), tmp_path / "out", models, **ASSUMED)
    assert dry(source)[1].startswith("Scans to explain: AD 2, NC 1; finished: 3; left out: 0\n")
    explain_cohort(studies.cohort(source), tmp_path / "out", models, **ASSUMED)
    assert len(read_records(tmp_path / "out")) == 6
    assert dry(source)[1] == "Scans to explain: none; finished: 6; left out: 0\nNothing was written.\n"
    assert "finished: 0" in dry(source, "--recursive")[1]


def test_who_is_left_out_and_why(dry, source, tmp_path):
    place = shutil.copytree(source, tmp_path / "data")
    shutil.rmtree(place / "sub-02")
    mask = "{participant_id}/anat/mask.nii.gz"
    for number in (1, 3, 4, 5):
        folders.save(place / f"sub-0{number}" / "anat" / "mask.nii.gz", np.ones(folders.SHAPE, np.float32))
    status, said, notes = dry(place, "--brain-mask", mask, "--on-error", "skip")
    assert (status, notes) == (0, "")
    assert said.startswith("Scans to explain: AD 3, NC 1; finished: 0; left out: 2\n")
    assert "left out: sub-06: the brain_mask of a participant must be one file, sub-06/anat/mask.nii.gz" in said
    assert "left out: sub-02: missing\n" in said
    assert "end the work" not in said
    assert "They end the work, unless --on-error skip is given." in dry(place, "--brain-mask", mask)[1]


def test_strangers_are_asked_about_by_every_model(models, tmp_path):
    table = folders.people(2).assign(participant_id=["sub-51", "sub-52"])
    place = folders.derivative(tmp_path / "new", table)
    for name in table["participant_id"]:
        folders.save(folders.scan(place, name), folders.brain("AD", int(name[-2:])))
    found = estimate_cohort(studies.cohort(place), tmp_path / "out", models, **ASSUMED)
    assert (found.scan.evaluations, found.evaluations) == (25, 2 * 2 * 25)
    assert found.seconds == pytest.approx(100 * found.scan.seconds)


def test_what_is_refused_is_refused_dry_too(dry, source):
    status, said, notes = dry(source, "--target", "MCI")
    assert (status, said) == (2, "")
    assert notes.startswith("error: ")


def test_one_scan(go, bundle, tmp_path):
    from tests import bundles

    path = tmp_path / "sub-01_T1w.nii"
    bundles.t1().to_filename(path)
    given = ("explain", path, "--model", bundle, "--target", "AD", "--grid", 2, "--out", tmp_path / "out")
    status, said, notes = go(*given, "--dry-run")
    assert (status, notes) == (0, "")
    assert re.match(r"A scan: 17 model evaluations in batches of \d+, .* s each, about ", said)
    assert said.endswith("Nothing was written.\n")
    assert not (tmp_path / "out").exists()


def test_a_model_that_says_nothing_is_warned_of(models, source, tmp_path):
    one = shutil.copytree(models / "fold-1", tmp_path / "model")
    (one / "configs" / "manifest.json").unlink()
    with pytest.warns(GlasWarning, match="nothing says whom the model"):
        estimate_cohort(studies.cohort(source), tmp_path / "out", one, **ASSUMED)
