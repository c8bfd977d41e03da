"""Comparison of three groups, two by two, and the sidecars of all files."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError, GlasWarning
from glas3d.explain import ranked
from glas3d.imaging.space import VoxelGrid
from glas3d.statistics.folds import compare_within_folds
from glas3d.statistics.omnibus import compare_all
from glas3d.statistics.two_groups import compare
from glas3d.study.derivatives import read_records
from glas3d.study.group import group_sums
from glas3d.study.group.comparison import group_pairs
from glas3d.study.group.group_map import GroupMap
from glas3d.study.group.level import summarise_groups
from glas3d.study.group.participants import read_participants, score_matrix
from glas3d.study.group.voxel_map import VoxelMap
from tests.study.made_up import AFFINE, FEW, SHAPE, Study, filled, read
from tests.study.studies import data

THREE = pd.DataFrame(
    {
        "participant_id": [f"sub-{i:02d}" for i in range(1, 13)],
        "group": ["AD", "MCI", "NC"] * 4,
        "age": [70.0, 71, 65, 66, 80, 82, 59, 77, 64, 69, 73, 75],
        "MMSE": [20.0, 25, 29, 22, 24, 30, 19, 27, 28, 23, 26, 27],
    }
)
# AD's raised amygdala lowers the shares of the other regions, which is warned of.
pytestmark = pytest.mark.filterwarnings(
    "ignore:shares of saliency", "ignore:tests within 2 folds of groups so small", "ignore:with 3 participants against"
)
PAIRS = [("AD", "MCI"), ("AD", "NC"), ("MCI", "NC")]


def fill(study, n_folds=1):
    for i, row in enumerate(THREE.to_dict("records")):
        bright = {"AD": 1.2, "MCI": 0.6, "NC": 0.0}[row["group"]]
        scores = {"Hippocampus_R": 1.5, "Amygdala_L": bright + 0.02 * i}
        study.add(row["participant_id"], seed=i, fold=i % n_folds + 1, p=0.1 + 0.07 * i, scores=scores)
    return study


@pytest.fixture
def three(study):
    return fill(study)


def test_every_two_groups_are_compared(three):
    result = summarise_groups(three.out, THREE, **FEW, all_pairs=True, covariates=["age"], seed=2)
    participants = list(read_participants(read_records(three.out), THREE, "AD", "NC"))
    values = score_matrix(participants, "share")
    for case, control in PAIRS:
        expected = compare(values, THREE, case, control, covariates=["age"], n_perm=49, n_boot=20, seed=2)
        table = read(result.folder, f"group-{case}vs{control}_seg-few_statistics.tsv")
        np.testing.assert_allclose(table["p_fwe_pairs"], np.minimum(3 * table["p_fwe"], 1))
        assert list(table).index("p_fwe_pairs") == list(table).index("p_fwe") + 1
        same = table.drop(columns=["index", "p_fwe_pairs"])
        pd.testing.assert_frame_equal(same, expected, check_dtype=False)
        assert table.loc[table["t"].idxmax(), "name"] == "Amygdala_L"
        sidecar = json.loads((result.folder / f"group-{case}vs{control}_seg-few_statistics.json").read_text())
        assert (sidecar["Case"], sidecar["Control"], sidecar["Pairs"]) == (case, control, 3)
        assert "Bonferroni" in sidecar["p_fwe_pairs"]["Description"]
    assert list(result.tests) == [" against ".join(pair) for pair in PAIRS]
    pd.testing.assert_frame_equal(result.statistics, result.tests["AD against NC"])
    assert len(list(result.folder.glob("*strata*.tsv"))) == 2
    assert json.loads((result.folder / "provenance.json").read_text())["AllPairs"] is True


def test_three_groups_are_tested_together_and_then_two_by_two(three):
    result = summarise_groups(three.out, THREE, **FEW, omnibus=True, covariates=["age"], seed=2)
    values = score_matrix(list(read_participants(read_records(three.out), THREE, "AD", "NC")), "share")
    expected = compare_all(values, THREE, ["AD", "MCI", "NC"], covariates=["age"], n_perm=49, seed=2)
    table = read(result.folder, "group-ADvsMCIvsNC_seg-few_statistics.tsv")
    pd.testing.assert_frame_equal(table.drop(columns="index"), expected, check_dtype=False)
    assert table.loc[table["f"].idxmax(), "name"] == "Amygdala_L"
    assert list(result.tests) == ["AD against MCI against NC", *[" against ".join(pair) for pair in PAIRS]]
    for case, control in PAIRS:
        pair = read(result.folder, f"group-{case}vs{control}_seg-few_statistics.tsv")
        np.testing.assert_allclose(pair["p_fwe_pairs"], np.minimum(3 * pair["p_fwe"], 1))
    sidecar = json.loads((result.folder / "group-ADvsMCIvsNC_seg-few_statistics.json").read_text())
    assert sidecar["Groups"] == ["AD", "MCI", "NC"]
    assert sidecar["Statistic"].startswith("Welch's F, with covariates G of Winkler")
    assert sidecar["NullHypothesis"].startswith("the adjusted means of all groups are equal")
    assert sidecar["NullDistribution"].startswith("signs of the residuals within the groups flipped")
    assert sidecar["Exchangeable"] == "the signs or the residuals of a group"
    assert sidecar["DegreesOfFreedomOfGroups"] == 2
    assert sidecar["DegreesOfFreedom"] == [expected["dof"].min(), expected["dof"].max()]
    assert sidecar["mean_MCI"]["Description"] == "mean of the normalised scores of MCI"
    labels = three.atlas.on(VoxelGrid(SHAPE, AFFINE))
    volume = data(result.folder / "group-ADvsMCIvsNC_seg-few_stat-F_statmap.nii.gz")
    np.testing.assert_allclose(volume[labels == table["index"][2]], table["f"][2], rtol=1e-5)


def test_an_omnibus_test_of_two_groups_is_refused_before_any_work(study, eight):
    filled(study, eight)
    with pytest.raises(GlasError, match=r"omnibus test .* needs at least 3 groups .*, got AD and NC"):
        summarise_groups(study.out, eight, **FEW, omnibus=True)
    assert not (study.out / "group").exists()


def test_by_default_only_case_and_control_are_compared(three):
    result = summarise_groups(three.out, THREE, **FEW)
    assert list(result.tests) == ["AD against NC"]
    assert "p_fwe_pairs" not in result.statistics
    assert sorted(path.name.split("_")[0] for path in result.folder.glob("*_statistics.tsv")) == ["group-ADvsNC"]
    assert set(result.groups) == {"AD", "MCI", "NC"}


def test_a_group_of_one_is_left_out_of_the_pairs(three):
    few = THREE.drop([1, 4, 7])
    with pytest.warns(GlasWarning) as caught:
        result = summarise_groups(three.out, few, **FEW, all_pairs=True)
    assert "at least 2 participants with results a group, got MCI 1" in " ".join(str(each.message) for each in caught)
    assert list(result.tests) == ["AD against NC"]
    assert result.groups["MCI"] == 1


def test_the_case_comes_first_and_the_control_last():
    assert group_pairs({"b", "a", "c"}, "c", "b") == [("c", "a"), ("c", "b"), ("a", "b")]
    assert group_pairs(["NC", "AD"], "AD", "NC") == [("AD", "NC")]


def test_groups_whose_files_would_have_the_same_names_are_refused(three):
    with pytest.raises(GlasError, match="tell their files apart, got A-D, AD, NC"):
        summarise_groups(three.out, THREE.replace("MCI", "A-D"), **FEW)


@pytest.mark.parametrize("grid", [False, True], ids=["atlas", "grid"])
def test_every_file_has_a_sidecar(tmp_path, atlas_path, atlas, grid):
    """With all options: the sidecar describes the file, how everyone was explained, and its sources."""
    study, other = (fill(Study(tmp_path / name, atlas_path, atlas, grid=grid), 2) for name in ("one", "two"))
    names = [f"point-{i}" for i in range(1, 5)] if grid else atlas.table["name"].tolist()
    change = pd.DataFrame(np.random.default_rng(0).normal(size=(12, len(names))), columns=names)
    change.insert(0, "participant_id", THREE["participant_id"])
    change.to_csv(tmp_path / "change.tsv", sep="\t", index=False)
    more = {} if grid else {"volume_change": tmp_path / "change.tsv"}
    folder = summarise_groups(
        study.out,
        THREE,
        **FEW | {"n_perm": 19},
        all_pairs=True,
        voxelwise=True,
        correlate=["MMSE"],
        other_run=[other.out],
        k=2,
        **more,
    ).folder
    files = sorted(path.name for path in folder.iterdir() if path.suffix != ".json")
    assert len(files) > 40
    for name in files:
        sidecar = json.loads((folder / f"{name.removesuffix('.nii.gz').removesuffix('.tsv')}.json").read_text())
        assert sidecar["GeneratedBy"][0]["Name"] == "glas3d"
        assert sidecar.get("Description") or sidecar["Statistic"]
        assert sidecar["Settings"] == {"sigma_light": 20.0}
        assert sidecar["Model"] == {"name": "2 folds"}
        assert "Sources" in sidecar or "Participants" in sidecar
    alone = {path.stem for path in folder.glob("*.json")} - {name.split(".")[0] for name in files}
    assert alone == {"provenance"}
    assert str(tmp_path) not in "".join(path.read_text() for path in folder.glob("*.json") if path.stem != "provenance")


def test_a_table_is_ranked_once(three, monkeypatch):
    tables = []
    monkeypatch.setattr(group_sums, "ranked", lambda table, fusion: tables.append(table) or ranked(table, fusion))
    result = summarise_groups(three.out, THREE, **FEW)
    assert len(tables) == 3
    result.tables["AD"]["score"] = 0.0  # the caller's own
    assert read(result.folder, "group-AD_seg-few_regions.tsv")["score"].max() == 1


@pytest.mark.parametrize("grid", [False, True], ids=["atlas", "grid"])
def test_a_table_is_of_the_participants_added_so_far(tmp_path, atlas_path, atlas, grid):
    """A table that was read in between is not kept."""
    study = fill(Study(tmp_path / "study", atlas_path, atlas, grid=grid))
    participants = list(read_participants(read_records(study.out), THREE, "AD", "NC"))[:2]

    def add(group_map, participant):
        group_map.add(*participant.sessions())
        return group_map.table()

    one, other = (VoxelMap("AD") if grid else GroupMap("AD", atlas) for _ in range(2))
    tables = [add(one, participant) for participant in participants]
    assert not tables[0].equals(tables[1])
    other.add(*participants[0].sessions())
    pd.testing.assert_frame_equal(add(other, participants[1]), tables[1])


def test_shares_that_rise_and_fall_are_pointed_out_and_log_ratios_tell_them_apart(three):
    with pytest.warns(GlasWarning, match=r"higher in Amygdala_L and lower in Hippocampus_R: .*--normalise clr"):
        shares = summarise_groups(three.out, THREE, **FEW).statistics.set_index("name")
    ratios = summarise_groups(three.out, THREE, **FEW, normalise="clr")
    table = ratios.statistics.set_index("name")
    assert shares.loc["Hippocampus_R", "difference"] < 0
    assert table.loc["Amygdala_L", "difference"] > 0
    assert table.loc["Hippocampus_R", "p_fwe"] > 0.05 >= shares.loc["Hippocampus_R", "p_fwe"]
    sidecar = json.loads((ratios.folder / "group-ADvsNC_seg-few_statistics.json").read_text())
    assert sidecar["Floor"] == "1e-06 of each participant's highest score"


@pytest.mark.parametrize("null", ["sign-flip", "bootstrap-t", "permutation"])
def test_the_sidecar_states_what_is_tested(three, null):
    folder = summarise_groups(three.out, THREE, **FEW, null=null).folder
    sidecar = json.loads((folder / "group-ADvsNC_seg-few_statistics.json").read_text())
    same = null == "permutation"
    assert sidecar["Null"] == null
    assert ("distribution" in sidecar["NullHypothesis"].split(";")[0]) == same
    assert sidecar["Statistic"].startswith("Student's" if same else "Welch's")
    assert "Freedman" in sidecar["NullDistribution"] if same else "residuals" in sidecar["NullDistribution"]
    assert sidecar["Exchangeable"]
    assert "Satterthwaite" in sidecar["dof"]["Description"]


def test_maps_of_several_folds_are_compared_within_them(study):
    """Twenty-four participants in two folds: six of each group in a fold."""
    table = pd.DataFrame({"participant_id": [f"sub-{i:02d}" for i in range(1, 25)], "group": ["AD", "NC"] * 12})
    fold = [i // 2 % 2 + 1 for i in range(24)]
    for i, row in enumerate(table.to_dict("records")):
        study.add(row["participant_id"], seed=i, fold=fold[i], boost=row["group"] == "AD")
    result = summarise_groups(study.out, table, **FEW | {"n_perm": 199}, voxelwise=True)
    participants = list(read_participants(read_records(study.out), table, "AD", "NC"))
    expected = compare_within_folds(score_matrix(participants, "share"), table, "AD", "NC", fold, n_perm=199)
    pd.testing.assert_frame_equal(result.statistics.drop(columns="index"), expected)
    assert set(result.statistics["n_folds"]) == {2}
    assert result.statistics["p_fwe"].min() == 2 / 200
    assert result.voxels["AD against NC"].n_voxels > 0
    sidecar = json.loads((result.folder / "group-ADvsNC_seg-few_statistics.json").read_text())
    assert "within each fold" in sidecar["Exchangeable"]


def test_folds_too_small_give_no_p_value(study):
    table = pd.DataFrame({"participant_id": [f"sub-{i}" for i in range(1, 7)], "group": ["AD", "NC"] * 3})
    for i, row in enumerate(table.to_dict("records")):
        study.add(row["participant_id"], seed=i, fold=i // 2 + 1)
    with pytest.warns(GlasWarning, match="folds without a test"):
        result = summarise_groups(study.out, table, **FEW, voxelwise=True)
    assert result.statistics["p_fwe"].isna().all()
    assert np.isnan(result.voxels["AD against NC"].p)


def test_participants_without_a_covariate_are_left_out_where_wanted(three):
    gaps = THREE.assign(age=THREE["age"].where(THREE["participant_id"] != "sub-04"))
    with pytest.raises(GlasError, match="every participant needs a value of age, these have none: sub-04"):
        summarise_groups(three.out, gaps, **FEW, covariates=["age"])
    assert not (three.out / "group").exists()
    with pytest.warns(GlasWarning, match="without age, and left out of the tests: sub-04$"):
        result = summarise_groups(three.out, gaps, **FEW, covariates=["age"], on_missing="skip")
    assert set(result.statistics["n_case"]) == {3}
    assert result.groups["AD"] == 4


@pytest.mark.parametrize("column", ["iq", "group"])
def test_columns_that_cannot_be_correlated_are_refused_before_maps_are_made(three, column, monkeypatch):
    monkeypatch.setattr(GroupMap, "add", lambda *_: pytest.fail("work was spent"))
    with pytest.raises(GlasError, match="need a column iq" if column == "iq" else "must hold numbers, group of sub-01"):
        summarise_groups(three.out, THREE, **FEW, correlate=[column])


def test_the_predicted_class_is_that_of_the_highest_output(study, eight):
    """Of three classes AD may be predicted below 0.5, and MCI is neither of the two groups."""
    outputs = {
        "sub-01": (0.45, 0.30, 0.25),  # of AD, NC, MCI
        "sub-03": (0.45, 0.10, 0.45001),
        "sub-05": (0.40, 0.35, 0.25),
        "sub-07": (0.10, 0.60, 0.30),
        "sub-02": (0.45, 0.35, 0.20),
        "sub-04": (0.30, 0.45, 0.25),
        "sub-06": (0.05, 0.15, 0.80),
        "sub-08": (0.49, 0.51, 0.0),
    }
    for i, (name, values) in enumerate(sorted(outputs.items())):
        study.add(name, seed=i, p=values[0], outputs=dict(zip(("AD", "NC", "MCI"), values, strict=True)))
    folder = summarise_groups(study.out, eight, **FEW).folder
    table = read(folder, "group-ADvsNC_seg-few_desc-strata_predictions.tsv").set_index("participant_id")
    assert table["predicted"].to_dict() == {
        **{"sub-01": "AD", "sub-03": "MCI", "sub-05": "AD", "sub-07": "NC"},
        **{"sub-02": "AD", "sub-04": "NC", "sub-06": "MCI", "sub-08": "NC"},
    }
    assert table["stratum"].to_dict() == {
        **{"sub-01": "tp", "sub-03": "fn", "sub-05": "tp", "sub-07": "fn"},
        **{"sub-02": "fp", "sub-04": "tn", "sub-06": "tn", "sub-08": "tn"},
    }
    means = read(folder, "group-ADvsNC_seg-few_desc-strata_regions.tsv")
    assert means.groupby("stratum")["n"].first().to_dict() == {"fn": 2, "fp": 1, "tn": 3, "tp": 2}


def test_strata_of_a_class_of_neither_group_are_said_to_be_missing(three):
    with pytest.warns(GlasWarning, match="the models explain AD, which is neither MCI nor NC"):
        folder = summarise_groups(three.out, THREE, **FEW | {"case": "MCI"}).folder
    assert not list(folder.glob("*strata*"))


def smallest(folder, pair="ADvsNC"):
    sidecar = json.loads((folder / f"group-{pair}_seg-few_statistics.json").read_text())
    table = read(folder, f"group-{pair}_seg-few_statistics.tsv")
    assert table["p_fwe"].isna().all() if sidecar["SmallestP"] is None else table["p_fwe"].min() >= sidecar["SmallestP"]
    return sidecar["SmallestP"]


@pytest.mark.filterwarnings("ignore:with groups of")
def test_sidecars_state_the_smallest_p_value_that_groups_of_this_size_can_give(three, tmp_path, atlas_path, atlas):
    table = THREE.assign(site=["a", "a", "b", "b"] * 3)
    options = FEW | {"n_perm": 999}
    assert smallest(summarise_groups(three.out, table, **options).folder) == 2 / 70
    of_sites = summarise_groups(three.out, table, **options, site="site", null="permutation").folder
    assert smallest(of_sites) == 2 / (math.comb(4, 2) * math.comb(4, 2))
    together = summarise_groups(three.out, table, **options, omnibus=True).folder
    assert smallest(together, "ADvsMCIvsNC") == 1 / 1000
    few = table[~table["participant_id"].isin(["sub-01", "sub-03"])]
    with pytest.warns(GlasWarning, match="no group"):
        assert smallest(summarise_groups(three.out, few, **options).folder) == 0.25
    folds = fill(Study(tmp_path / "folds", atlas_path, atlas), 2)
    assert smallest(summarise_groups(folds.out, table, **options).folder) == 1.0  # two a group and fold
    many = fill(Study(tmp_path / "many", atlas_path, atlas), 4)
    with pytest.warns(GlasWarning, match="folds without a test"):
        assert smallest(summarise_groups(many.out, table, **options).folder) is None
