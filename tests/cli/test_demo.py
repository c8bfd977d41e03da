"""The demo's way with the tiny model of the tests; `tests.test_shipped_model` runs it with the shipped one."""

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
from tests.validator import validate

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::glas3d.errors.GlasWarning")]


@pytest.fixture(autouse=True)
def tiny(bundle, monkeypatch):
    monkeypatch.setattr(glas3d.cli.demo, "MODEL", str(bundle))


@pytest.fixture(scope="module")
def made(bundle, tmp_path_factory):
    """A demo of three participants, and its progress."""
    ticks = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(glas3d.cli.demo, "MODEL", str(bundle))
        out = tmp_path_factory.mktemp("out") / "demo"
        return out, run_demo(out, participants=3, seed=8, tick=lambda *t: ticks.append(t)), ticks


def files(place):
    return {p.relative_to(place): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def test_the_files_of_the_contract(made):
    out, result, _ = made
    stem = "group-AD_seg-AAL"
    ends = ("regions.tsv", "regions.json", "regions.png", "stat-saliency_statmap.nii.gz", "stat-saliency_statmap.json")
    assert {p.name for p in (out / "group").iterdir()} == {f"{stem}_{end}" for end in ends}
    assert result.figure == out / "group" / f"{stem}_regions.png"
    assert sorted(p.name for p in out.glob("sub-*")) == ["sub-0001", "sub-0003"]  # the AD ones
    for person in out.glob("sub-*"):
        assert len(list((person / "anat").glob("*_stat-*_statmap.nii.gz"))) == 3
        assert len(list((person / "anat").glob("*_seg-AAL_regions.tsv"))) == 1
    assert len(pd.read_csv(out / "simulated" / "participants.tsv", sep="\t")) == 3
    assert [p.name for p in out.parent.iterdir()] == ["demo"]


def test_the_group_is_the_sum_of_its_participants(made):
    out, result, _ = made
    scores = [pd.read_csv(p, sep="\t")["score"].to_numpy() for p in out.glob("sub-*/anat/*_regions.tsv")]
    total = sum((s - np.nanmin(s)) / (np.nanmax(s) - np.nanmin(s)) for s in scores)
    table = pd.read_csv(out / "group" / "group-AD_seg-AAL_regions.tsv", sep="\t")
    assert table.columns.tolist() == COLUMNS
    assert len(table) == 116
    np.testing.assert_allclose(table["score"], (total - np.nanmin(total)) / np.ptp(total[~np.isnan(total)]), rtol=1e-9)
    assert result.table["name"].tolist() == table["name"].tolist()
    first = set(table.loc[table["rank"] <= 8, "name"])
    assert result.found == len(first & set(PLANTED))
    img = nib.load(out / "group" / "group-AD_seg-AAL_stat-saliency_statmap.nii.gz")
    assert img.shape == (48, 56, 48)
    assert np.asarray(img.dataobj).max() == 1
    sidecar = json.loads((out / "group" / "group-AD_seg-AAL_stat-saliency_statmap.json").read_text())
    assert len(sidecar["Participants"]) == 2


def test_progress_reaches_its_end(made):
    ticks = made[2]
    done = [t[0] for t in ticks]
    assert done == sorted(done)
    assert ticks[-1] == (8, 8)  # three simulated, two explained, each answered
    assert "of 2 AD participants AD and" in made[1].summary
    assert "of 1 controls NC; it learnt simulated disease." in made[1].summary


def test_it_is_a_valid_bids_derivative(made):
    assert validate(made[0])[0] == []


def test_a_demo_replaces_an_earlier_one_but_only_when_it_is_complete(made, monkeypatch):
    out = made[0]
    before = files(out)

    def failing(*args, **kwargs):
        raise RuntimeError("no figure")

    with monkeypatch.context() as patch:
        patch.setattr(glas3d.cli.demo, "best_regions_figure", failing)
        with pytest.raises(RuntimeError, match="no figure"):
            run_demo(out, participants=2, seed=9)
    assert files(out) == before
    assert [p.name for p in out.parent.iterdir()] == ["demo"]
    run_demo(out, participants=2, seed=9)
    after = files(out)
    assert [p.name for p in out.glob("sub-*")] == ["sub-0001"]
    assert not {p for p in after if "sub-0003" in str(p)}
    assert [p.name for p in out.parent.iterdir()] == ["demo"]
    run_demo(out, participants=2, seed=9)
    assert files(out) == after  # bit for bit


@pytest.mark.parametrize("content", ["{", "[]", '{"Name": "My study"}'])
def test_another_study_is_not_replaced(tmp_path, content):
    (tmp_path / "dataset_description.json").write_text(content)
    with pytest.raises(GlasError, match="must be new or empty"):
        run_demo(tmp_path)
    assert (tmp_path / "dataset_description.json").read_text() == content
