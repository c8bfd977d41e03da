"""``glas3d cohort … group``: what is asked of groups."""

import pandas as pd
import pytest

from glas3d.study.derivatives import read_records
from glas3d.study.group.participants import read_participants, score_matrix
from glas3d.study.running.plan import load_search
from tests.study import folders, studies
from tests.study.made_up import Study

QUICK = ("--n-perm", 49, "--n-boot", 20)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    place = studies.bids(tmp_path_factory.mktemp("in") / "data", 12, sites=2)
    table = folders.people(12, sites=2)
    table["group"] = ["AD", "MCI", "NC"] * 4
    table["MMSE"] = [20.0, 25, 29, 22, 24, 30, 19, 27, 28, 23, 26, 27]
    folders.write_people(place, table)
    return place


@pytest.fixture(scope="module")
def runs(tmp_path_factory, few):
    """Two runs of other models."""
    place = tmp_path_factory.mktemp("runs")
    path = studies.atlas(place / "atlas", few)
    made = [Study(place / f"seed{seed}", path, load_search(str(path))) for seed in (1, 2)]
    for seed, study in enumerate(made):
        for i in range(12):
            study.add(f"sub-{i + 1:02d}", seed=20 * seed + i, model=f"models {seed}", p=0.6)
    return made


def test_all_that_may_be_asked(go, source, runs, tmp_path):
    change = tmp_path / "change.tsv"
    people = pd.read_csv(source / "participants.tsv", sep="\t")
    members = list(read_participants(read_records(runs[1].out), people, "AD", "NC"))
    score_matrix(members).reset_index().to_csv(change, sep="\t", index=False)
    status, said, notes = go(
        *("cohort", source, runs[0].out, "group", *QUICK, "--all-pairs", "--voxelwise", "--tfce"),
        *("--correlate", "MMSE", "age", "--correlation", "spearman", "--volume-change", change),
        *("--other-run", runs[1].out, "--site", "site"),
    )
    assert (status, notes) == (0, "")
    for what in (
        "AD against MCI",
        "AD against NC",
        "MCI against NC",
        "MMSE in AD",
        "age in NC",
        "volume change in MCI",
    ):
        assert f"{what}: " in said
    assert said.count(" of 8 at p <= 0.05 corrected; the smallest p is ") == 12
    assert said.count(" against ") == 6
    assert "MCI against NC, voxels: " in said
    assert said.endswith("AD 4, MCI 4, NC 4 participants\n")
    place = runs[0].out / "group"
    assert len(list(place.glob("group-*_seg-few_desc-voxels_stat-*_statmap.nii.gz"))) == 12
    assert len(list(place.glob("group-*_seg-few_desc-runpairs_stability.tsv"))) == 3


def test_they_may_lie_in_a_file(go, source, runs, tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(
        f'n_perm = 49\nn_boot = 0\n[group]\nall-pairs = true\ncorrelate = ["MMSE"]\nother_run = ["{runs[1].out}"]\n'
    )
    status, said, notes = go("cohort", source, runs[0].out, "group", "--config", path)
    assert (status, notes) == (0, "")
    assert "MMSE in MCI: " in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tfce",), "tfce is for a voxelwise comparison"),
        (("--voxelwise", "--voxel-mask", "missing.nii.gz"), "missing.nii.gz"),
        (("--correlate", "iq"), "need a column iq"),
        (("--correlate", "site"), "must hold numbers, site of sub-01 is 's0'"),
        (("--correlation", "kendall"), "kendall"),
        (("--volume-change", "missing.tsv"), "no such file: missing.tsv"),
        (("--other-run", "nowhere"), "no results of participants in nowhere"),
        (("--top", "0"), "top must be a percentage"),
    ],
)
def test_every_refusal_is_one_line(go, source, runs, arguments, message):
    before = sorted(runs[1].out.rglob("*"))
    status, said, notes = go("cohort", source, runs[1].out, "group", *QUICK, *arguments)
    assert (status, said) == (2, "")
    assert notes.startswith("error: ")
    assert message in notes
    assert notes.count("\n") == 1
    assert sorted(runs[1].out.rglob("*")) == before
