"""Comparison of three groups, two by two, and the sidecars of all files."""

import json

import numpy as np
import pandas as pd
import pytest

from glas3d import GlasError, GlasWarning
from glas3d.explain import ranked
from glas3d.statistics.two_groups import compare
from glas3d.study.derivatives import read_records
from glas3d.study.group import group_sums
from glas3d.study.group.comparison import group_pairs
from glas3d.study.group.group_map import GroupMap
from glas3d.study.group.level import summarise_groups
from glas3d.study.group.participants import read_participants, score_matrix
from glas3d.study.group.voxel_map import VoxelMap
from tests.study.made_up import FEW, Study, read

THREE = pd.DataFrame(
    {
        "participant_id": [f"sub-{i:02d}" for i in range(1, 13)],
        "group": ["AD", "MCI", "NC"] * 4,
        "age": [70.0, 71, 65, 66, 80, 82, 59, 77, 64, 69, 73, 75],
        "MMSE": [20.0, 25, 29, 22, 24, 30, 19, 27, 28, 23, 26, 27],
    }
)
PAIRS = [("AD", "MCI"), ("AD", "NC"), ("MCI", "NC")]


def fill(study):
    for i, row in enumerate(THREE.to_dict("records")):
        bright = {"AD": 1.2, "MCI": 0.6, "NC": 0.0}[row["group"]]
        scores = {"Hippocampus_R": 1.5, "Amygdala_L": bright + 0.02 * i}
        study.add(row["participant_id"], seed=i, fold=i % 2 + 1, p=0.1 + 0.07 * i, scores=scores)
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
    study, other = (fill(Study(tmp_path / name, atlas_path, atlas, grid=grid)) for name in ("one", "two"))
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
    monkeypatch.setattr(group_sums, "ranked", lambda table: tables.append(table) or ranked(table))
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
