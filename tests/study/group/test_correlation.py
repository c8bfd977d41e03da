"""Correlation of groups' saliency with columns and volume changes, and stability over runs."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from glas3d import GlasError, GlasWarning
from glas3d.statistics.correlation import change_correlation, correlate
from glas3d.study.derivatives import read_records, start_study
from glas3d.study.group.correlation import read_volume_change
from glas3d.study.group.level import summarise_groups
from glas3d.study.group.participants import read_participants, score_matrix
from tests.study.folders import people as everyone
from tests.study.made_up import FEW, Study, filled, read

SIXTEEN = everyone(16, sites=2).assign(
    MMSE=[float(20 + i % 7 + i % 2) for i in range(16)], sex=["F", "F", "M", "M"] * 4
)


@pytest.fixture
def sixteen(study):
    """Eight of AD, eight of NC; in AD the left amygdala is the brighter, the lower MMSE is."""
    for i, row in enumerate(SIXTEEN.to_dict("records")):
        scores = {"Hippocampus_L": 0.0, "Hippocampus_R": 1.5}  # the same least and most for everyone
        if row["group"] == "AD":
            scores["Amygdala_L"] = (30 - row["MMSE"]) / 10
        study.add(row["participant_id"], seed=i, scores=scores, p=0.4)
    return study


def values(study, group, normalise="minmax"):
    participants = [
        each for each in read_participants(read_records(study.out), SIXTEEN, "AD", "NC") if each.group == group
    ]
    return score_matrix(participants, normalise)


def changes(study):
    """Return volume changes of both groups; the left putamen shrinks where it is salient."""
    rng = np.random.default_rng(4)
    every = pd.concat([values(study, "AD"), values(study, "NC")])
    table = pd.DataFrame(rng.normal(-1, 0.2, every.shape), every.index, every.columns)
    table["Putamen_L"] = -every["Putamen_L"] + rng.normal(0, 0.01, len(every))
    return table.sort_index()


@pytest.mark.parametrize(
    ("method", "normalise"), [("pearson", "minmax"), ("spearman", "minmax"), ("pearson", "share"), ("pearson", "none")]
)
def test_a_column_is_correlated_group_by_group(sixteen, method, normalise):
    scale = {"normalise": normalise} if normalise != "share" else {}
    result = summarise_groups(
        sixteen.out, SIXTEEN, **FEW, correlate=["MMSE"], correlation=method, covariates=["age"], site="site", **scale
    )
    for group in ("AD", "NC"):
        rows = SIXTEEN[SIXTEEN["group"] == group].reset_index(drop=True)
        options = {"participants": rows, "covariates": ["age"], "site": "site", "method": method}
        expected = correlate(values(sixteen, group, normalise), rows["MMSE"], n_perm=49, n_boot=20, **options)
        table = read(result.folder, f"group-{group}_seg-few_desc-MMSE_correlation.tsv")
        pd.testing.assert_frame_equal(table.drop(columns="index"), expected, check_dtype=False)
        assert table["index"].tolist() == sixteen.atlas.table["index"].tolist()
        pd.testing.assert_frame_equal(result.tests[f"MMSE in {group}"].drop(columns="index"), expected)
    highest = result.tests["MMSE in AD"].sort_values("r").iloc[0]
    assert highest["name"] == "Amygdala_L"
    assert highest["p_uncorrected"] <= 0.1 or normalise == "share"
    sidecar = json.loads((result.folder / "group-AD_seg-few_desc-MMSE_correlation.json").read_text())
    assert (sidecar["N"], sidecar["Method"], sidecar["Covariates"], sidecar["Site"]) == (8, method, ["age"], "site")
    assert sidecar["Normalise"] == normalise
    assert "corrected for all regions" in sidecar["p_fwe"]["Description"]
    assert sidecar["DegreesOfFreedom"] == 8 - 2 - 1 - 1  # age, and one of two sites
    assert sidecar["Exchangeable"] == "the participants within site"


def test_participants_without_a_value_are_left_out_with_a_warning(sixteen):
    table = SIXTEEN.copy()
    table.loc[[0, 3], "MMSE"] = np.nan
    with pytest.warns(GlasWarning, match="without MMSE, and left out of its correlation: sub-0[14]$"):
        folder = summarise_groups(sixteen.out, table, **FEW, correlate=["MMSE"]).folder
    assert read(folder, "group-AD_seg-few_desc-MMSE_correlation.tsv")["n"].tolist() == [7] * 8


def test_a_group_without_values_does_not_stop_the_other(sixteen):
    table = SIXTEEN.assign(stage=SIXTEEN["MMSE"].where(SIXTEEN["group"] == "AD", 0))
    with pytest.warns(GlasWarning, match="no correlation with stage in NC: .* stage is 0"):
        folder = summarise_groups(sixteen.out, table, **FEW, correlate=["stage"], covariates=["sex"]).folder
    assert len(list(folder.glob("*_desc-stage_correlation.tsv"))) == 1
    women = table.assign(sex=np.where(table["group"] == "AD", "F", table["sex"]))
    with pytest.warns(GlasWarning, match="no correlation with stage in NC"):
        folder = summarise_groups(sixteen.out, women, **FEW, correlate=["stage"], covariates=["sex"]).folder
    assert json.loads((folder / "group-AD_seg-few_desc-stage_correlation.json").read_text())["Covariates"] == []


@pytest.mark.parametrize("long", [False, True], ids=["wide", "long"])
def test_saliency_is_correlated_with_each_regions_volume_change(sixteen, tmp_path, long):
    change = changes(sixteen)
    path = tmp_path / "change.tsv"
    table = change.rename(index=lambda name: name.removeprefix("sub-"))  # ids without sub-, as some tables have
    table = table.melt(ignore_index=False, var_name="name", value_name="change") if long else table
    table.reset_index().to_csv(path, sep="\t", index=False)
    result = summarise_groups(sixteen.out, SIXTEEN, **FEW, volume_change=path, covariates=["age"], normalise="minmax")
    for group in ("AD", "NC"):
        rows = SIXTEEN[SIXTEEN["group"] == group].reset_index(drop=True)
        own = change.loc[rows["participant_id"]]
        expected = correlate(values(sixteen, group), own, participants=rows, covariates=["age"], n_perm=49, n_boot=20)
        tested = read(result.folder, f"group-{group}_seg-few_desc-volumechange_correlation.tsv")
        pd.testing.assert_frame_equal(tested.drop(columns="index"), expected, check_dtype=False)
        assert tested.loc[tested["r"].abs().idxmax(), "name"] == "Putamen_L"
        assert tested.loc[tested["name"] == "Putamen_L", "r"].item() < -0.95
        each = change_correlation(values(sixteen, group), own, n_perm=49, n_boot=20)
        by_participant = read(result.folder, f"group-{group}_seg-few_desc-volumechange_participants.tsv")
        np.testing.assert_allclose(by_participant["r"], each.participants["r"])
        sidecar = json.loads((result.folder / f"group-{group}_seg-few_desc-volumechange_participants.json").read_text())
        assert (sidecar["Mean"], sidecar["P"]) == (each.mean, each.p)
        assert (sidecar["Exchangeable"], sidecar["Method"]) == ("the regions", "pearson")


def test_missing_regions_and_participants_of_a_change_table_give_warnings(sixteen, tmp_path):
    change = changes(sixteen).drop(columns="Precuneus_R").drop("sub-05").assign(age=70.0)
    change.reset_index().to_csv(tmp_path / "change.tsv", sep="\t", index=False)
    with pytest.warns(GlasWarning) as caught:
        folder = summarise_groups(
            sixteen.out, SIXTEEN, **FEW, volume_change=tmp_path / "change.tsv", normalise="minmax"
        ).folder
    messages = " ".join(str(each.message) for each in caught)
    assert "has columns that are no region of the atlas, and are not used: age" in messages
    assert "without volume change, and left out of its correlation: sub-05" in messages
    table = read(folder, "group-AD_seg-few_desc-volumechange_correlation.tsv").set_index("name")
    assert table["n"].tolist() == [7] * 8
    assert sorted(table.index[table["r"].isna()]) == ["Hippocampus_L", "Hippocampus_R", "Precuneus_R"]


def test_three_regions_are_too_few_for_a_correlation_over_regions(sixteen, tmp_path):
    change = changes(sixteen)[["Putamen_L", "Putamen_R", "Precuneus_L"]]
    change.reset_index().to_csv(tmp_path / "change.tsv", sep="\t", index=False)
    with pytest.warns(GlasWarning, match="over the regions of each of (AD|NC): .* needs at least 4, got 3"):
        result = summarise_groups(sixteen.out, SIXTEEN, **FEW, volume_change=tmp_path / "change.tsv")
    assert result.tests["volume change in AD"]["r"].notna().sum() == 3
    assert not list(result.folder.glob("*_desc-volumechange_participants.*"))


TABLES = {
    "none": (None, "no such file"),
    "participant": ("who\tPutamen_L\n1\t2\n", "need a column participant_id, .* has who, Putamen_L"),
    "region": ("participant_id\tputamen\n1\t2\n", "has no region such as Hippocampus_L"),
    "number": ("participant_id\tPutamen_L\n1\tsmall\n", "Putamen_L of sub-1 is 'small' in"),
    "twice": ("participant_id\tPutamen_L\n1\t2\nsub-1\t3\n", "every participant needs one row, sub-1 has two"),
    "twice long": (
        "participant_id\tname\tchange\n1\tPutamen_L\t2\n1\tPutamen_L\t3\n",
        "must have one row, sub-1 Putamen_L has two",
    ),
    "binary": (b"\xff\xfe\x00\x81", "must be tab-separated text"),
}


@pytest.mark.parametrize(("text", "message"), TABLES.values(), ids=TABLES)
def test_tables_that_hold_no_volume_changes_are_refused(tmp_path, text, message):
    path = tmp_path / "change.tsv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(GlasError, match=message):
        read_volume_change(path, ["Hippocampus_L", "Putamen_L"])


REFUSED = {
    "column": ({"correlate": ["iq"]}, "participants need a column iq"),
    "text": ({"correlate": ["sex"]}, "must hold numbers, sex of sub-01 is 'F'"),
    "labels": ({"correlate": ["MM-SE", "MMSE"]}, "tell their files apart, got MM-SE, MMSE"),
    "constant": ({"correlate": ["one"]}, "nothing can be correlated with one in any group: .* one is 1"),
    "empty": ({"correlate": ["none"]}, "nothing can be correlated with none in any group: no participant has a value"),
    "method": ({"correlation": "kendall"}, "method must be"),
}


@pytest.mark.filterwarnings("ignore:no correlation:glas3d.errors.GlasWarning")
@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_correlated_is_refused(sixteen, options, message):
    with pytest.raises(GlasError, match=message):
        summarise_groups(sixteen.out, SIXTEEN.assign(one=1.0, none=np.nan), **FEW, **options)
    assert not (sixteen.out / "group").exists()


def test_volume_changes_need_an_atlas(tmp_path, atlas_path, atlas, eight):
    study = Study(tmp_path / "study", atlas_path, atlas, grid=True)
    filled(study, eight)
    with pytest.raises(GlasError, match="must be explained with an atlas, not on a grid"):
        summarise_groups(study.out, eight, **FEW, volume_change="x.tsv")
    assert len(summarise_groups(study.out, eight, **FEW, correlate=["age"]).tests["age in AD"]) == 4


# Other runs.


@pytest.fixture
def runs(tmp_path, atlas_path, atlas, eight):
    """Three runs with different models, each in a folder called out."""
    made = [Study(tmp_path / f"seed{i}" / "out", atlas_path, atlas) for i in (1, 2, 3)]
    for i, study in enumerate(made):
        for j, row in enumerate(eight.to_dict("records")):
            study.add(row["participant_id"], seed=100 * i + j, boost=0.5, model=f"models {i}", p=0.4)
    return made


def test_stability_over_runs_compares_mean_scores(runs, eight):
    folder = summarise_groups(runs[0].out, eight, **FEW, k=3, other_run=[each.out for each in runs[1:]]).folder
    for group in ("AD", "NC"):
        names = eight.loc[eight["group"] == group, "participant_id"]
        means = []
        for study in runs:
            participants = read_participants(read_records(study.out), eight, "AD", "NC")
            means.append(score_matrix(list(participants)).loc[names].mean().to_numpy())
        pairs = read(folder, f"group-{group}_seg-few_desc-runpairs_stability.tsv")
        assert pairs[["first", "second"]].to_numpy().tolist() == [
            [f"seed{i}/out", f"seed{j}/out"] for i, j in ((1, 2), (1, 3), (2, 3))
        ]
        for row, (i, j) in zip(pairs.to_dict("records"), ((0, 1), (0, 2), (1, 2)), strict=True):
            tops = [set(np.argsort(-means[each])[:3]) for each in (i, j)]
            assert row["spearman"] == pytest.approx(stats.spearmanr(means[i], means[j])[0])
            assert row["jaccard"] == pytest.approx(len(tops[0] & tops[1]) / len(tops[0] | tops[1]))
        summary = read(folder, f"group-{group}_seg-few_desc-runs_stability.tsv")
        assert summary["mean"].tolist() == pytest.approx([pairs["spearman"].mean(), pairs["jaccard"].mean()])
    sidecar = json.loads((folder / "group-AD_seg-few_desc-runs_stability.json").read_text())
    assert (sidecar["N"], sidecar["K"], sidecar["Runs"]) == (4, 3, ["seed1/out", "seed2/out", "seed3/out"])


def test_stability_over_runs_uses_participants_of_all_runs(runs, eight):
    shutil.rmtree(runs[1].out / "sub-03")
    with pytest.warns(GlasWarning) as caught:
        folder = summarise_groups(runs[0].out, eight, **FEW, k=3, other_run=[runs[1].out]).folder
    assert "left out of the stability over runs: sub-03" in str(caught[-1].message)
    kept = ["sub-01", "sub-05", "sub-07"]
    means = [
        score_matrix(
            list(read_participants(read_records(each.out), eight[eight["participant_id"] != "sub-03"], "AD", "NC"))
        )
        for each in (runs[1],)
    ] + [score_matrix(list(read_participants(read_records(runs[0].out), eight, "AD", "NC")))]
    expected = stats.spearmanr(*(each.loc[kept].mean() for each in means))[0]
    pairs = read(folder, "group-AD_seg-few_desc-runpairs_stability.tsv")
    assert pairs["spearman"][0] == pytest.approx(expected)


def test_runs_that_cannot_be_compared_are_refused(runs, eight, tmp_path, atlas_path, atlas):
    with pytest.raises(GlasError, match=r"must be other folders, .*out is given twice"):
        summarise_groups(runs[0].out, eight, **FEW, other_run=[runs[1].out, runs[1].out])
    with pytest.raises(GlasError, match="run the participant level first"):
        summarise_groups(runs[0].out, eight, **FEW, other_run=[tmp_path])
    other = Study(tmp_path / "other", atlas_path, atlas)
    for name in eight["participant_id"]:
        other.add(name, sigma_light=30.0, model="models 7")
    message = "alike but for their models, sub-01 of other and sub-01 differ in Settings sigma_light"
    with pytest.raises(GlasError, match=message):
        summarise_groups(runs[0].out, eight, **FEW, other_run=[other.out])
    strangers = Study(tmp_path / "strangers", atlas_path, atlas)
    strangers.add("sub-99")
    more = pd.concat([eight, pd.DataFrame({"participant_id": ["sub-99"], "group": ["AD"], "age": [70.0]})])
    with pytest.raises(GlasError, match="to be compared, out, strangers share none"), pytest.warns():
        summarise_groups(runs[0].out, more, **FEW, other_run=[strangers.out])
    start_study(tmp_path / "empty", "empty", {"Search": "few"})
    with pytest.raises(GlasError, match="run the participant level first"):
        summarise_groups(runs[0].out, eight, **FEW, other_run=[tmp_path / "empty"])
