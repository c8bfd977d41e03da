"""Relabelling with retraining of a small study."""

import json

import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError, Grid
from glas3d.statistics.relabelling import group_statistics, relabellings
from glas3d.study import explain_cohort, relabel_cohort, relabelling, train_folds
from glas3d.study.derivatives import read_records
from glas3d.study.group.participants import read_participants, score_matrix
from tests.study.training.trained import ONE

TRAINING = {"folds": 2, "resolution": None, "recipe": ONE, "validation": 0, "assume_space": "MNI"}
EXPLAINING = {"search": Grid((2, 1, 2)), "assume_space": "MNI", "engine": "eager"}
pytestmark = pytest.mark.filterwarnings("ignore::glas3d.errors.GlasWarning")  # models at chance
STATISTICS = "group-ADvsNC_desc-relabelled_statistics"


@pytest.fixture
def cheap(monkeypatch):
    """Make training and explaining of labels cheap: scores follow the labels that trained; count the calls."""
    calls = []

    def once(cohort, labels, people, out, *_, quiet):
        calls.append(labels)
        scores = np.random.default_rng(7).normal(size=(len(labels), 4)) + 0.5 * (labels == "AD")[:, None]
        table = group_statistics(scores, labels, "AD", "NC")
        table.insert(0, "index", [1, 2, 3, 4])
        return table

    monkeypatch.setattr(relabelling, "_relabelled_once", once)
    return calls


@pytest.mark.slow
def test_a_relabelling_trains_and_explains_as_the_study_does(cohort, tmp_path, monkeypatch):
    """The first table is that of the study itself, the second that of a study with those labels; others are copies."""
    people = cohort.table.sort_values("participant_id", ignore_index=True)
    every = list(relabellings(people, "AD", "NC", n_perm=19, seed=3))
    once, made = relabelling._relabelled_once, []

    def only_those_compared(cohort, labels, *given, **options):
        if any(np.array_equal(labels, every[number]) for number in (0, 4)):
            made.append(once(cohort, labels, *given, **options))
        return made[-1]

    monkeypatch.setattr(relabelling, "_relabelled_once", only_those_compared)
    result = relabel_cohort(
        cohort, tmp_path / "out", n_perm=19, training=TRAINING, explaining=EXPLAINING, normalise="none", seed=3
    )
    assert len(made) == 2
    for number in (0, 4):
        label_of = dict(zip(people["participant_id"], every[number], strict=True))
        table = cohort.table.assign(group=cohort.table["participant_id"].map(label_of))
        labelled = relabelling.replace(cohort, everyone=table)
        train_folds(labelled, tmp_path / f"models{number}", **TRAINING)
        explain_cohort(labelled, tmp_path / f"results{number}", tmp_path / f"models{number}", **EXPLAINING)
        records = read_records(tmp_path / f"results{number}")
        values = score_matrix(list(read_participants(records, table, "AD", "NC")), "none")
        expected = group_statistics(values, every[number], "AD", "NC")
        found = pd.read_csv(tmp_path / "out" / f"relabelling-{number:04d}_regions.tsv", sep="\t")
        np.testing.assert_allclose(found["t"], expected["t"], rtol=1e-4)
    assert result["p_fwe"].between(1 / 20, 1).all()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{STATISTICS}.json",
        f"{STATISTICS}.tsv",
        *(f"relabelling-{number:04d}_regions.{end}" for number in range(20) for end in ("json", "tsv")),
        "relabelling.json",
    ]


def test_the_result_has_a_sidecar_and_more_relabellings_may_follow(cohort, cheap, tmp_path):
    steps = []
    first = relabel_cohort(cohort, tmp_path / "out", n_perm=19, progress=lambda *step: steps.append(step))
    assert steps == [(i, 20) for i in range(1, 21)]
    assert cheap[0].tolist() == cohort.table.sort_values("participant_id")["group"].tolist()
    more = relabel_cohort(cohort, tmp_path / "out", n_perm=29)
    assert len(cheap) == 30
    np.testing.assert_allclose(more["t"], first["t"])
    assert more.columns.tolist() == [
        *("index", "name", "n_case", "n_control", "mean_case", "mean_control", "difference", "t"),
        *("p_uncorrected", "p_fdr", "p_fwe", "neglog10p_fwe"),
    ]
    described = json.loads((tmp_path / "out" / "relabelling-0004_regions.json").read_text())
    assert described["Description"] == "AD against NC by permuted labels, relabelling 4"
    for column in ("mean_case", "mean_control", "difference"):
        assert described[column]["Units"] == "share of the sum of the participant's scores"
        assert "of AD" in described["mean_case"]["Description"]
    assert all(described[column]["Description"] != column for column in more.columns[:8])
    written = pd.read_csv(tmp_path / "out" / f"{STATISTICS}.tsv", sep="\t", dtype={"name": str})
    pd.testing.assert_frame_equal(written, more, check_dtype=False)
    sidecar = json.loads((tmp_path / "out" / f"{STATISTICS}.json").read_text())
    assert sidecar["Permutations"] == 29
    assert sidecar["NullHypothesis"].startswith("the labels are independent of the scans")
    assert sidecar["Exchangeable"] == "the labels of the participants"
    assert "permutations" not in sidecar["p_fwe"]["Description"]


def test_a_run_that_was_stopped_resumes(cohort, cheap, tmp_path, monkeypatch):
    whole = relabel_cohort(cohort, tmp_path / "whole", n_perm=19)
    cheap.clear()

    def stop(done, total):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relabel_cohort(cohort, tmp_path / "out", n_perm=19, progress=stop)
    resumed = relabel_cohort(cohort, tmp_path / "out", n_perm=19)
    assert len(cheap) == 20
    pd.testing.assert_frame_equal(resumed, whole)


def test_folders_of_other_settings_are_refused(cohort, cheap, tmp_path):
    relabel_cohort(cohort, tmp_path / "out", n_perm=19, training={"folds": 2})
    with pytest.raises(GlasError, match=r"relabellings of other settings \(Training\)"):
        relabel_cohort(cohort, tmp_path / "out", n_perm=19, training={"folds": 3})
    with pytest.raises(GlasError, match=r"relabellings of other settings \(Normalise, Seed\)"):
        relabel_cohort(cohort, tmp_path / "out", n_perm=19, training={"folds": 2}, normalise="clr", seed=1)
    relabel_cohort(cohort, tmp_path / "out", n_perm=19, training={"folds": 2, "n_workers": 2})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis").write_text("years of work")
    with pytest.raises(GlasError, match="has other content"):
        relabel_cohort(cohort, tmp_path / "other", n_perm=19)
    with pytest.raises(GlasError, match="at least 19"):
        relabel_cohort(cohort, tmp_path / "new", n_perm=5)
    with pytest.raises(TypeError, match=r"explain_cohort\(\) got an unexpected keyword argument 'atlas'"):
        relabel_cohort(cohort, tmp_path / "new", n_perm=19, explaining={"atlas": "AAL"})
    with pytest.raises(GlasError, match="folds must be"):
        relabel_cohort(cohort, tmp_path / "new", n_perm=19, training={"folds": 1})
    assert not (tmp_path / "new").exists()
