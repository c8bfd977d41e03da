"""What the shipped model promises, and what the demo shows with it."""

import json
import re

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from glas3d import load_model
from glas3d.cli.demo import run_demo
from glas3d.imaging.space import mni_grid
from glas3d.resources import folder
from glas3d.simulate import GROUPS, PLANTED, Simulation, simulate_participants


@pytest.fixture(scope="module")
def bundle_folder():
    return folder("models", "adnc-simulated")


def test_the_shipped_model_loads(bundle_folder):
    predict = load_model("adnc-simulated", device="cpu")
    assert predict.classes == GROUPS == ("NC", "AD")
    info = predict.info
    assert (info.name, info.channels) == ("adnc-simulated", 1)
    assert info.grid.same_as(mni_grid(4))
    assert info.reference.shape == (1, 48, 56, 48)
    assert dict(info.preset) == {}  # it is explained by the default of scans
    volume = torch.as_tensor(next(simulate_participants(Simulation(participants=1, seed=31))).volume)[None]
    p = predict.fit(volume)(volume[None])
    assert p.shape == (1, 2)
    assert p.sum() == pytest.approx(1)
    pickles = (".pt", ".pth", ".pkl", ".ckpt", ".bin")
    assert not [path for path in bundle_folder.rglob("*") if path.suffix in pickles]


def test_the_model_card_says_that_the_disease_is_simulated(bundle_folder):
    card = " ".join((bundle_folder / "docs" / "README.md").read_text().lower().split())
    assert "it learnt simulated disease" in card
    assert re.search(r"(no|not a) medical device", card)
    metadata = json.loads((bundle_folder / "configs" / "metadata.json").read_text())
    assert "simulated" in metadata["description"].lower()
    assert "learnt simulated disease" in load_model("adnc-simulated").info.caution


def card_table(bundle_folder, column):
    """The rows of the model card's table that has a column, as dictionaries of cells."""
    lines = (bundle_folder / "docs" / "README.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| seed") and column in line)
    columns = [c.strip() for c in lines[start].strip("|").split("|")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(columns, (c.strip() for c in line.strip("|").split("|")), strict=True)))
    assert len({row["seed"] for row in rows}) == len(rows) >= 3
    return rows


def test_the_model_card_holds_the_accuracy_of_each_seed(bundle_folder):
    rows = [{name: float(cell) for name, cell in row.items()} for row in card_table(bundle_folder, "balanced accuracy")]
    assert all(0.90 <= row["balanced accuracy"] <= 1 for row in rows)
    for row in rows:
        assert row["balanced accuracy"] == pytest.approx((row["sensitivity"] + row["specificity"]) / 2, abs=2e-3)
        assert max(row["AD beyond 0.999"], row["NC beyond 0.999"]) < 0.1
    unseen = re.search(r"(\d+) participants no network has seen", (bundle_folder / "docs" / "README.md").read_text())
    assert int(unseen[1]) >= 100


def test_the_model_card_holds_the_true_effect_of_each_region(bundle_folder):
    for row in card_table(bundle_folder, "smallest / largest"):
        effects = [float(row[name]) for name in PLANTED]
        assert float(row["smallest / largest"]) == pytest.approx(min(effects) / max(effects), abs=0.01)
        assert min(effects) >= max(effects) / 20


@pytest.fixture(scope="module")
def unseen():
    """Groups, and P(AD) by the shipped model, of participants that no cohort of the training holds."""
    predict, groups, probabilities = load_model("adnc-simulated", device="cpu"), [], []
    for participant in simulate_participants(Simulation(participants=100, seed=987654)):
        volume = torch.as_tensor(participant.volume)[None]
        groups.append(participant.group)
        probabilities.append(float(predict.fit(volume)(volume[None])[0, 1]))
    return np.array(groups), np.array(probabilities)


@pytest.mark.slow
def test_the_accuracy_holds_on_new_participants(unseen):
    groups, p = unseen
    assert np.mean([(p[groups == "AD"] > 0.5).mean(), (p[groups == "NC"] <= 0.5).mean()]) >= 0.88


@pytest.mark.slow
def test_few_outputs_are_saturated(unseen):
    groups, p = unseen
    for group in GROUPS:
        assert (np.maximum(p, 1 - p)[groups == group] > 0.999).mean() < 0.1


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo with its own settings, as ``make demo`` runs it."""
    out = tmp_path_factory.mktemp("out") / "glas3d-demo"
    return out, run_demo(out)


@pytest.mark.slow
def test_the_demo_ranks_planted_regions_first(demo):
    _, result = demo
    first = result.table.sort_values("rank").head(8)["name"]
    assert result.n_planted_first == len(set(first) & set(PLANTED))
    assert result.n_planted_first >= 4, first.tolist()
    both = result.table.merge(result.truth, on="index", suffixes=("", "_true"))
    assert np.corrcoef(both["score"], both["effect"])[0, 1] > 0.9  # what is planted and hardly used ranks low


@pytest.mark.slow
def test_the_demo_writes_participants_and_group(demo):
    out, result = demo
    people = pd.read_csv(out / "simulated" / "participants.tsv", sep="\t")
    cases = people.loc[people["group"] == "AD", "participant_id"].tolist()
    assert len(cases) >= 12
    assert sorted(p.name for p in out.glob("sub-*")) == cases
    for name in cases:
        assert len(list((out / name / "anat").glob(f"{name}_*_seg-AAL_stat-saliency_statmap.nii.gz"))) == 1
        (table,) = (out / name / "anat").glob(f"{name}_*_seg-AAL_regions.tsv")
        assert pd.read_csv(table, sep="\t")["drop"].nunique() >= 100  # log-odds also differ where P is 1 in float32
    table = pd.read_csv(out / "group" / "group-AD_seg-AAL_regions.tsv", sep="\t")
    assert len(table) == 116
    assert sorted(table["rank"]) == list(range(1, 117))
    values = np.asarray(nib.load(out / "group" / "group-AD_seg-AAL_stat-saliency_statmap.nii.gz").dataobj)
    assert values.max() == 1  # evidence, whose zero is kept
    assert values.min() >= -1
    assert result.figure.parent == out / "group"
    assert plt.imread(result.figure).shape[1] > 1000
    assert plt.get_fignums() == []


@pytest.mark.slow
def test_a_second_demo_replaces_the_first(demo):
    """Last in this file, because it replaces what the tests above read."""
    out, _ = demo
    run_demo(out, participants=2)
    assert [p.name for p in out.glob("sub-*")] == ["sub-0001"]
    assert len(pd.read_csv(out / "simulated" / "participants.tsv", sep="\t")) == 2
    assert [p.name for p in out.parent.iterdir()] == [out.name]
