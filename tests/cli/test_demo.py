"""``glas3d demo`` with the tiny model of the tests; `tests.test_shipped_model` runs it with the shipped model."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

import glas3d.cli.demo
from glas3d import GlasError
from glas3d.cli.demo import run_demo
from glas3d.explain import COLUMNS
from glas3d.simulate import PLANTED
from tests.test_sidecars import check_maps, check_tables
from tests.validator import validate

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::glas3d.errors.GlasWarning")]


@pytest.fixture(autouse=True)
def tiny_model(bundle, monkeypatch):
    """Run the demo with the tiny model."""
    monkeypatch.setattr(glas3d.cli.demo, "MODEL", str(bundle))


@pytest.fixture(scope="module")
def demo(bundle, tmp_path_factory):
    """Return the folder, the result and the progress of a demo of three participants."""
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glas3d.cli.demo, "MODEL", str(bundle))
        out = tmp_path_factory.mktemp("out") / "demo"
        return out, run_demo(out, participants=3, seed=8, progress=lambda *step: steps.append(step)), steps


def files(folder):
    """Return the bytes of every file by its path in the folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_demo_writes_the_files_of_the_contract(demo):
    out, result, _ = demo
    stem = "group-AD_seg-AAL"
    truth = ("desc-truth_regions.tsv", "desc-truth_regions.json")
    ends = (
        *truth,
        "regions.tsv",
        "regions.json",
        "regions.png",
        "stat-saliency_statmap.nii.gz",
        "stat-saliency_statmap.json",
    )
    assert {p.name for p in (out / "group").iterdir()} == {f"{stem}_{end}" for end in ends}
    assert result.figure == out / "group" / f"{stem}_regions.png"
    assert sorted(p.name for p in out.glob("sub-*")) == ["sub-0001", "sub-0003"]  # the AD ones
    for participant in out.glob("sub-*"):
        assert len(list((participant / "anat").glob("*_stat-*_statmap.nii.gz"))) == 4
        assert len(list((participant / "anat").glob("*_seg-AAL_regions.tsv"))) == 1
    assert len(pd.read_csv(out / "simulated" / "participants.tsv", sep="\t")) == 3
    assert [p.name for p in out.parent.iterdir()] == ["demo"]


def test_the_group_is_the_sum_of_its_participants(demo):
    out, result, _ = demo
    scores = [pd.read_csv(p, sep="\t")["score"].to_numpy() for p in out.glob("sub-*/anat/*_regions.tsv")]
    total = sum((s - np.nanmin(s)) / (np.nanmax(s) - np.nanmin(s)) for s in scores)
    table = pd.read_csv(out / "group" / "group-AD_seg-AAL_regions.tsv", sep="\t")
    assert table.columns.tolist() == [*COLUMNS, "evidence", "density"]
    assert len(table) == 116
    np.testing.assert_allclose(table["score"], (total - np.nanmin(total)) / np.ptp(total[~np.isnan(total)]), rtol=1e-9)
    assert result.table["name"].tolist() == table["name"].tolist()
    highest = set(table.loc[table["rank"] <= 8, "name"])
    assert result.n_planted_first == len(highest & set(PLANTED))
    img = nib.load(out / "group" / "group-AD_seg-AAL_stat-saliency_statmap.nii.gz")
    assert img.shape == (48, 56, 48)
    assert np.asarray(img.dataobj).max() == 1
    sidecar = json.loads((out / "group" / "group-AD_seg-AAL_stat-saliency_statmap.json").read_text())
    assert len(sidecar["Participants"]) == 2


def test_progress_reaches_its_end(demo):
    steps = demo[2]
    done = [step[0] for step in steps]
    assert done == sorted(done)
    assert steps[-1] == (10, 10)  # three simulated, three evaluated, two explained, and their twins evaluated
    assert "of 2 AD participants AD and" in demo[1].summary
    assert "of 1 controls NC; it learnt simulated disease." in demo[1].summary


def test_the_folder_is_a_valid_bids_derivative(demo):
    assert validate(demo[0])[0] == []


def test_its_tables_and_maps_are_described(demo):
    check_tables(demo[0], 4)
    check_maps(demo[0], 5)


def test_the_command_writes_the_same_bytes_and_marks_planted_regions(demo, run_command, tmp_path):
    status, output, _ = run_command("demo", "--out", tmp_path / "demo", "--participants", 3, "--seed", 8)
    assert status == 0
    assert "of 2 AD participants AD and" in output
    assert f"of the {len(PLANTED)} planted regions are among the first 8." in output
    marked = [line for line in output.splitlines() if line.rstrip().endswith("yes")]
    assert all(any(name in line for name in PLANTED) for line in marked)
    assert files(tmp_path / "demo") == files(demo[0])


def test_only_a_complete_demo_replaces_an_earlier_demo(demo, monkeypatch):
    out = demo[0]
    before = files(out)

    def failing(*args, **kwargs):
        raise RuntimeError("no figure")

    with monkeypatch.context() as patch:
        patch.setattr(glas3d.cli.demo, "regions_figure", failing)
        with pytest.raises(RuntimeError, match="no figure"):
            run_demo(out, participants=2, seed=9)
    assert files(out) == before
    assert [p.name for p in out.parent.iterdir()] == ["demo"]
    run_demo(out, participants=2, seed=9)
    after = files(out)
    assert [p.name for p in out.glob("sub-*")] == ["sub-0001"]
    assert not {p for p in after if "sub-0003" in str(p)}
    assert [p.name for p in out.parent.iterdir()] == ["demo"]


@pytest.mark.parametrize("content", ["{", "[]", '{"Name": "My study"}'])
def test_another_study_is_not_replaced(tmp_path, content):
    (tmp_path / "dataset_description.json").write_text(content)
    with pytest.raises(GlasError, match="must be new or empty"):
        run_demo(tmp_path)
    assert (tmp_path / "dataset_description.json").read_text() == content
