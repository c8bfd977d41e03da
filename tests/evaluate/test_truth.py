"""Methods against true effects: hand-made tables, and a linear model whose ablation is the truth itself."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import pearsonr
from torch import nn

from glas3d import Atlas, GlasError, Predictor, explain_img
from glas3d.evaluate import Truth, attribute, follow_truth, method_values, true_effects
from glas3d.evaluate.metrics import effect_correlation
from glas3d.simulate import Simulation, scan_img, simulate_participant

# two small regions own no voxel of the coarse grid
pytestmark = pytest.mark.filterwarnings("ignore:2 regions of AAL are too small:glas3d.errors.GlasWarning")

SIMULATION = Simulation(seed=4, resolution=8, regions=("Putamen_R", "Hippocampus_L", "Precuneus_L", "Temporal_Mid_R"))
SHAPE = SIMULATION.grid.shape


class Linear(nn.Module):
    """One logit, linear in the scan."""

    def __init__(self):
        super().__init__()
        # smooth weights, of both signs: a coarse voxel holds tissue of several regions
        x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
        self.weight = nn.Parameter(torch.as_tensor(1e-4 * (x + 2 * y - z - 0.7), dtype=torch.float32))

    def forward(self, batch):
        return (batch * self.weight).sum(dim=(1, 2, 3, 4))[:, None]


@pytest.fixture(scope="module")
def predict():
    return Predictor(Linear(), "sigmoid", classes=("NC", "AD"), device="cpu")


def test_ablation_towards_the_healed_twin_is_the_truth_of_a_linear_model(predict):
    healed = scan_img(SIMULATION, simulate_participant(SIMULATION, 0, ()).volume)
    methods = {
        "towards the twin": {"method": "feature_ablation", "background": healed},
        "towards darkness": {"method": "feature_ablation", "background": 0.0},
        "at random": {"method": "random"},
    }
    seen = []
    truth = follow_truth(predict, SIMULATION, [0], methods, progress=lambda done, total: seen.append((done, total)))
    found = truth.by_participant().set_index("method")
    assert found.loc["towards the twin", "r"] > 0.97
    assert found.loc["towards darkness", "r"] < 0.9
    assert abs(found.loc["at random", "r"]) < 0.4
    assert found["evaluations"].tolist() == [115, 115, 0]  # 114 regions own a voxel
    assert (found["seconds"] > 0).all()
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    effects = true_effects(predict, SIMULATION, 0)
    table = attribute(
        scan_img(SIMULATION, simulate_participant(SIMULATION, 0).volume),
        predict,
        "AD",
        "feature_ablation",
        background=0.0,
    ).table
    expected = effect_correlation(table, effects)
    assert found.loc["towards darkness", "r"] == pytest.approx(expected.pearson, abs=1e-9)
    assert found.loc["towards darkness", "spearman"] == pytest.approx(expected.spearman, abs=1e-9)


def tables(scores, effects, densities=None):
    """Return a truth of one method, with one row of scores and of effects for each participant."""
    values, true = [], []
    for number, (score, effect) in enumerate(zip(scores, effects, strict=True)):
        index = np.arange(1, len(score) + 1)
        density = score if densities is None else densities[number]
        costs = {"method": "a", "participant": number, "evaluations": 3, "seconds": 0.5}
        values.append(pd.DataFrame({"index": index, "score": score, "density": density}).assign(**costs))
        planted = (np.asarray(effects[0]) != 0).astype(int)
        names = [f"region {i}" for i in index]
        of_one = {"index": index, "name": names, "planted": planted, "effect": effect, "participant": number}
        true.append(pd.DataFrame(of_one))
    return Truth(pd.concat(values, ignore_index=True), pd.concat(true, ignore_index=True))


def test_in_the_group_every_participant_counts_the_same():
    scores = [[0.0, 1.0, 2.0, 4.0], [300.0, 0.0, 100.0, -400.0]]
    effects = [[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 0.0, 5.0]]
    truth = tables(scores, effects, densities=[[0.0, 3.0, 2.0, 1.0], [0.0, 30.0, 20.0, 10.0]])
    (group,) = truth.by_group().to_dict("records")
    mean = np.mean([np.array(each) / np.abs(each).max() for each in scores], axis=0)
    np.testing.assert_allclose(mean, [0.375, 0.125, 0.375, 0.0])
    assert group["r"] == pytest.approx(pearsonr(mean, [0.0, 1.0, 1.0, 4.0]).statistic)
    # planted are the last three: found at ranks 1 or 2 (a tie with the first), 3 and 4
    assert group["ap"] == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3)
    assert group["ap_density"] == 1.0
    by_participant = truth.by_participant()
    assert by_participant["r"].tolist() == pytest.approx(
        [pearsonr(s, e).statistic for s, e in zip(scores, effects, strict=True)]
    )
    assert np.isnan(by_participant["spearman"][1])  # two regions have an effect


def test_used_regions_have_a_twentieth_of_the_largest_effect():
    """Planted regions that the model hardly uses, and others that it does not, are no part of what must rank high."""
    truth = tables([[0.0] * 5], [[0.0, 10.0, 0.5, 0.4, -3.0]], densities=[[3.0, 5.0, 4.0, 1.0, 2.0]])
    (group,) = truth.by_group().to_dict("records")
    assert group["ap_used"] == 1.0
    assert group["ap_density"] == pytest.approx((1 + 1 + 3 / 4 + 4 / 5) / 4)
    (group,) = tables([[0.0, 1.0]], [[0.0, -1.0]]).by_group().to_dict("records")
    assert np.isnan(group["ap_used"])  # the model uses none of them for its class


def test_values_that_are_all_the_same_follow_nothing():
    truth = tables([[1.0, 1.0, 1.0]], [[0.0, 2.0, 1.0]])
    assert truth.by_participant()["r"].tolist() == [0.0]
    assert truth.by_group()["r"].tolist() == [0.0]
    assert "1 method of 1 participant: a" in repr(truth)


def test_lesions_have_an_effect_but_no_value_of_a_region():
    truth = tables([[1.0, 2.0, 4.0]], [[0.0, 2.0, 5.0]])
    lesions = pd.DataFrame({"index": [0], "name": ["lesions"], "planted": [1], "effect": [9.0], "participant": [0]})
    both = Truth(truth.values, pd.concat([truth.effects, lesions], ignore_index=True))
    pd.testing.assert_frame_equal(both.by_participant(), truth.by_participant())
    pd.testing.assert_frame_equal(both.by_group(), truth.by_group())


def test_a_control_is_refused(predict):
    with pytest.raises(GlasError, match="those of participants with disease"):
        follow_truth(predict, SIMULATION, [1], {"a": {"method": "random"}}).by_participant()


def test_density_is_the_value_for_one_voxel(predict):
    volume = simulate_participant(SIMULATION, 0).volume
    segments = Atlas.load("AAL").segments(SIMULATION.grid)
    keywords = {"kernel": "segment", "sigma_light": 6.0, "sigma_shadow": 9.0, "unit": "mm", "fusion": "mean"}
    both = {"link": "logit", "background": 0.0}
    evidence = method_values(predict, SIMULATION, volume, {"method": "glas"} | keywords | both)
    explained = explain_img(scan_img(SIMULATION, volume), predict, "AD", **keywords, **both).table
    np.testing.assert_allclose(evidence["density"], explained["density"], rtol=1e-6, equal_nan=True)
    assert not np.allclose(evidence["density"] * explained["n_voxels"], evidence["score"], equal_nan=True)
    ablation = method_values(predict, SIMULATION, volume, {"method": "feature_ablation"}).set_index("index")
    np.testing.assert_allclose(ablation.loc[segments.index, "density"] * segments.n_voxels, ablation["score"].dropna())
    gradient = method_values(predict, SIMULATION, volume, {"method": "gradient"})
    np.testing.assert_array_equal(gradient["density"], gradient["score"])
