"""``--dry-run``: the scans that would be explained and what it would take; nothing is written, and real runs agree."""

import json
import re
import shutil
import time
import types

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
from tests.core.cases import is_trial
from tests.study import folders, studies

SEARCH = (2, 3, 2)
ASSUMED = {"search": SEARCH, "assume_space": "MNI"}


class CountingModel:
    """A model that counts its inputs, also those that fill up the last batch, but not the trial before the start."""

    def __init__(self):
        self.inputs = 0

    def __call__(self, batch):
        self.inputs += 0 if is_trial() else len(batch)
        p = torch.sigmoid(batch.mean(dim=(1, 2, 3, 4)) / 500)
        return torch.stack([1 - p, p], dim=1)


@pytest.mark.filterwarnings("ignore:the consensus has backgrounds that cannot show evidence")
@pytest.mark.parametrize(
    ("settings", "evaluations"),
    [
        ({}, 26),
        ({"scales": (0.5, 1.0, 2.0)}, 78),
        ({"versus": 0}, 26),
        ({"background": [0.0, "blur"]}, 52),
        ({"recursive": {"max_iterations": 3}}, 78),
        ({"recursive": True}, 260),
    ],
    ids=str,
)
def test_the_number_of_evaluations_is_estimated_from_a_few(tmp_path, settings, evaluations):
    path = folders.save(tmp_path / "scan.nii.gz", folders.brain())
    model = CountingModel()
    predict = Predictor(model, "none", device="cpu")

    def explain(progress=False):
        options = {"batch_size": 2, "assume_space": "MNI"} | settings
        return explain_img(path, predict, 1, Grid(SEARCH), progress=progress, **options)

    cost = estimate_cost(explain, settings.get("recursive", False))
    assert (cost.evaluations, cost.batch_size) == (evaluations, 2)
    assert model.inputs <= 8
    assert cost.seconds_per_evaluation > 0
    assert cost.memory is None or 1e7 < cost.memory < 1e12
    model.inputs = 0
    explain()
    fillers = evaluations // 26 + 1 if "recursive" not in settings else evaluations
    assert model.inputs - fillers <= evaluations  # a recursion may take fewer
    assert model.inputs >= evaluations or "recursive" in settings


def test_a_single_batch_is_timed(tmp_path):
    path = folders.save(tmp_path / "scan.nii.gz", folders.brain())
    predict = Predictor(CountingModel(), "none", device="cpu")
    cost = estimate_cost(
        lambda progress: explain_img(path, predict, 1, Grid(1), batch_size=8, assume_space="MNI", progress=progress)
    )
    assert (cost.evaluations, cost.batch_size) == (4, 4)
    assert np.isfinite(cost.seconds_per_evaluation)
    assert cost.seconds_per_evaluation > 0


@pytest.fixture
def dry_run(run_command, models, tmp_path):
    """Return a function that runs a dry run of the participant level, which must write nothing."""

    def run(folder, *more):
        before = studies.content(tmp_path)
        options = ("--models", models, "--grid", *SEARCH, "--assume-space", "MNI", "--dry-run")
        status, output, errors = run_command("cohort", folder, tmp_path / "out", "participant", *options, *more)
        assert studies.content(tmp_path) == before
        return status, output, errors

    return run


def test_a_dry_run_of_a_cohort_counts_unfinished_scans(dry_run, bids_dir, models, tmp_path):
    status, output, errors = dry_run(bids_dir)
    assert (status, errors) == (0, "")
    rest = "other groups: none; left out: 0; in all: 6, of 6 participants in the table\n"
    assert output.startswith(f"Scans to explain: AD 3, NC 3; finished: 0; {rest}")
    assert re.search(r"A scan: 26 model evaluations in batches of \d+, [0-9.e-]+ s each, about ", output)
    assert "All of them: 156 model evaluations, about " in output
    assert output.endswith("Nothing was written.\n")
    explain_cohort(studies.cohort(bids_dir, participant_label=("01", "02", "04")), tmp_path / "out", models, **ASSUMED)
    assert dry_run(bids_dir)[1].startswith(f"Scans to explain: AD 2, NC 1; finished: 3; {rest}")
    explain_cohort(studies.cohort(bids_dir), tmp_path / "out", models, **ASSUMED)
    assert len(read_records(tmp_path / "out")) == 6
    assert dry_run(bids_dir)[1] == f"Scans to explain: none; finished: 6; {rest}Nothing was written.\n"
    assert "finished: 0" in dry_run(bids_dir, "--recursive", "--overwrite")[1]


def test_scans_that_are_left_out_are_listed_with_the_reason(dry_run, bids_dir, tmp_path):
    folder = shutil.copytree(bids_dir, tmp_path / "data")
    shutil.rmtree(folder / "sub-02")
    mask = "{participant_id}/anat/mask.nii.gz"
    for number in (1, 3, 4, 5):
        folders.save(folder / f"sub-0{number}" / "anat" / "mask.nii.gz", np.ones(folders.SHAPE, np.float32))
    status, output, errors = dry_run(folder, "--brain-mask", mask, "--on-error", "skip")
    assert (status, errors) == (0, "")
    assert output.startswith(
        "Scans to explain: AD 3, NC 1; finished: 0; other groups: none; left out: 2; in all: 6, of 6 "
    )
    assert "left out: sub-06: the --brain-mask of a participant must be one file, sub-06/anat/mask.nii.gz" in output
    assert "left out: sub-02: missing\n" in output
    assert "end the work" not in output
    assert "They end the work, unless --on-error skip is given." in dry_run(folder, "--brain-mask", mask)[1]


def test_participants_of_another_data_set_are_explained_by_every_model(models, tmp_path):
    table = folders.people(2).assign(participant_id=["sub-51", "sub-52"])
    folder = folders.derivative(tmp_path / "new", table)
    for name in table["participant_id"]:
        folders.save(folders.scan(folder, name), folders.brain("AD", int(name[-2:])))
    estimate = estimate_cohort(studies.cohort(folder), tmp_path / "out", models, **ASSUMED)
    assert (estimate.scan.evaluations, estimate.evaluations) == (26, 2 * 2 * 26)
    assert estimate.seconds == 2 * estimate.seconds_per_scan


def test_the_time_of_short_scans_has_what_takes_time_besides_evaluations(bids_dir, models, tmp_path, monkeypatch):
    """By the clock of this process, which other processes do not slow; long scans are not explained to time them."""
    clock = types.SimpleNamespace(perf_counter=time.process_time)
    monkeypatch.setattr("glas3d.study.running.forecast.time", clock)
    monkeypatch.setattr("glas3d.explain.cost.time", clock)
    cohort, ticks = studies.cohort(bids_dir), []
    estimate = estimate_cohort(cohort, tmp_path / "out", models, **ASSUMED)
    explain_cohort(cohort, tmp_path / "out", models, **ASSUMED, progress=lambda *_: ticks.append(time.process_time()))
    took = np.median(np.diff(ticks))
    assert 0.5 * took < estimate.seconds / 6 < 2 * took
    monkeypatch.setattr("glas3d.study.running.forecast._SHORT", 0.0)
    long = estimate_cohort(cohort, tmp_path / "other", models, **ASSUMED)
    assert long.seconds_per_scan is None
    assert long.seconds == pytest.approx(156 * long.scan.seconds_per_evaluation)
    assert long.seconds < 0.5 * estimate.seconds


def test_a_dry_run_refuses_the_same_options(dry_run, bids_dir):
    status, output, errors = dry_run(bids_dir, "--target", "MCI")
    assert (status, output) == (2, "")
    assert errors.startswith("error: ")


def test_a_dry_run_of_one_scan(run_command, bundle, tmp_path):
    from tests import bundles

    path = tmp_path / "sub-01_T1w.nii"
    bundles.t1().to_filename(path)
    command = ("explain", path, "--model", bundle, "--target", "AD", "--grid", 2, "--out", tmp_path / "out")
    status, output, errors = run_command(*command, "--dry-run")
    assert (status, errors) == (0, "")
    assert re.match(r"A scan: 18 model evaluations in batches of \d+, .* s each, about ", output)
    assert output.endswith("Nothing was written.\n")
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_record_of_its_training_is_warned_of(models, bids_dir, tmp_path):
    model = shutil.copytree(models / "fold-1", tmp_path / "model")
    (model / "configs" / "manifest.json").unlink()
    with pytest.warns(GlasWarning, match="training participants of the model .* are not recorded"):
        estimate_cohort(studies.cohort(bids_dir), tmp_path / "out", model, **ASSUMED)


def test_another_spelling_of_a_group_is_counted_and_pointed_out(dry_run, run_command, bids_dir, models, tmp_path):
    folder = shutil.copytree(bids_dir, tmp_path / "data")
    folders.write_people(folder, folders.people(6).assign(group=["AD", "NC", "ad", "NC", "AD", "MCI"]))
    rest = "other groups: MCI 1, ad 1; left out: 0; in all: 6, of 6 participants in the table"
    similar = "group 'ad' (1 participant) is neither AD nor NC, is it another spelling of AD?"
    status, output, _ = dry_run(folder)
    assert status == 0
    assert output.splitlines()[:2] == [f"Scans to explain: AD 2, NC 2; finished: 0; {rest}", f"note: {similar}"]
    content = json.loads(dry_run(folder, "--json")[1])
    assert content["similar_groups"] == [similar]
    assert content["accounting"]["other_groups"] == {"MCI": 1, "ad": 1}
    options = ("--models", models, "--grid", *SEARCH, "--assume-space", "MNI")
    status, output, errors = run_command("cohort", folder, tmp_path / "out", "participant", *options)
    assert (status, errors) == (0, f"note: {similar}\n")
    assert output.splitlines()[1] == f"Scans explained: AD 2, NC 2; finished: 0; {rest}"
    output = run_command("cohort", folder, tmp_path / "out", "participant", *options, "--json")[1]
    expected = {"explained": {}, "finished": 4, "other_groups": {"MCI": 1, "ad": 1}, "left_out": 0, "total": 6}
    assert json.loads(output)["accounting"].items() >= expected.items()
