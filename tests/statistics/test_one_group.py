from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from glas3d import GlasError, GlasWarning
from glas3d.statistics.one_group import laterality_test, mean_test, relative_density_test
from tests.statistics.people import within


def scores(n=9, seed=0):
    """Return positive scores of two pairs and one region without a side."""
    names = ["Amygdala_L", "Amygdala_R", "Vermis_3", "Putamen_R", "Putamen_L"]
    return pd.DataFrame(np.random.default_rng(seed).uniform(0.1, 1, (n, 5)), columns=names)


def test_t_and_interval_are_the_textbooks_and_p_that_of_all_flips():
    values = np.random.default_rng(1).normal(0.4, 1, (8, 3))
    table = mean_test(values, n_perm=4000)
    expected = stats.ttest_1samp(values, 0)
    np.testing.assert_allclose(table["t"], expected.statistic)
    interval = expected.confidence_interval(0.95)
    np.testing.assert_allclose(table[["low", "high"]], np.column_stack([interval.low, interval.high]))
    every = np.abs([stats.ttest_1samp(np.array(s)[:, None] * values, 0).statistic for s in product([-1, 1], repeat=8)])
    observed = np.abs(expected.statistic) * (1 - 1e-9)
    assert within(table["p_uncorrected"], (every >= observed).mean(axis=0), 4000)
    assert within(table["p_fwe"], (every.max(axis=1)[:, None] >= observed).mean(axis=0), 4000)


def test_few_participants_are_warned_of_and_a_single_one_has_a_mean_only():
    with pytest.warns(GlasWarning, match="the signs of 5 participants can be flipped in 16 ways"):
        table = mean_test(np.full((5, 1), 3.0) + np.arange(5)[:, None] / 100, n_perm=999)
    assert table["p_fwe"].item() >= 1 / 16
    one = mean_test(np.array([[2.0, np.nan]]))
    assert one["mean"].tolist()[0] == 2
    assert one[["low", "t", "p_fwe"]].isna().all(axis=None)


def test_laterality_is_each_participants_and_then_the_mean():
    values = scores()
    table = laterality_test(values, n_perm=99).set_index("name")
    left, right = values["Putamen_L"], values["Putamen_R"]
    index = (left - right) / (left + right)
    assert table.index.tolist() == ["Amygdala", "Putamen"]
    assert table.loc["Putamen", "laterality"] == pytest.approx(index.mean())
    assert table.loc["Putamen", "t"] == pytest.approx(stats.ttest_1samp(index, 0).statistic)
    assert table.loc["Putamen", ["left", "right"]].tolist() == pytest.approx([left.mean(), right.mean()])
    scaled = laterality_test(values.mul(np.arange(1, 10) ** 3, axis=0), n_perm=99).set_index("name")
    np.testing.assert_allclose(scaled[["laterality", "low", "p_fwe"]], table[["laterality", "low", "p_fwe"]])


def test_a_small_difference_between_the_sides_stays_small():
    """Min-max over the regions would make the smaller of the two sides 0, and the laterality 1."""
    values = pd.DataFrame({"a_L": np.linspace(0.99, 1.01, 8), "a_R": np.linspace(1.05, 1.09, 8), "b": 2.0})
    assert laterality_test(values, n_perm=99)["laterality"].item() == pytest.approx(-0.034, abs=0.004)


def test_signed_scores_and_no_scores_have_a_laterality():
    values = pd.DataFrame({"a_L": [-0.5, 0.0, 1.0, 1, 1, 1], "a_R": [0.5, 0.0, 1.0, 0, 0, 0]})
    assert laterality_test(values, n_perm=19)["laterality"].item() == pytest.approx((-1 + 0 + 0 + 3) / 6)
    with pytest.raises(GlasError, match="there is no such pair"):
        laterality_test(values.drop(columns="a_L"))


def test_density_is_the_geometric_mean_over_participants():
    values, voxels = scores(), np.array([10, 20, 30, 40, 100])
    table = relative_density_test(values, voxels, n_perm=99)
    density = values.div(values.sum(axis=1), axis=0) / (voxels / voxels.sum())
    np.testing.assert_allclose(table["relative_density"], stats.gmean(density))
    np.testing.assert_allclose(table["volume_share"], voxels / 200)
    np.testing.assert_allclose(table["t"], stats.ttest_1samp(np.log(density), 0).statistic)
    assert ((table["low"] < table["relative_density"]) & (table["relative_density"] < table["high"])).all()
    zero = values.assign(Vermis_3=0.0)
    assert 0 < relative_density_test(zero, voxels, n_perm=19)["relative_density"][2] < 1e-4


def test_even_saliency_has_no_relative_density():
    """In proportion to volume, with noise: the corrected test finds 5 % of 100, and sampling error."""
    found = 0
    for seed in range(100):
        rng, voxels = np.random.default_rng(seed), np.array([5, 20, 40, 80])
        values = pd.DataFrame(voxels * rng.lognormal(0, 0.4, (10, 4)), columns=list("abcd"))
        found += relative_density_test(values, voxels, n_perm=99, seed=seed)["p_fwe"].min() <= 0.05
    assert found <= stats.binom.ppf(0.999, 100, 0.05) + 5  # shares of one sum are not quite centred


@pytest.mark.filterwarnings("ignore:the signs of")
def test_of_signed_evidence_laterality_is_a_difference():
    values = pd.DataFrame({"a_L": [1.0, -2.0, 3.0], "a_R": [-1.0, 2.0, 0.5]})
    table = laterality_test(values, signed=True, n_perm=19)
    assert table["laterality"].tolist() == pytest.approx([(2 - 4 + 2.5) / 3])


@pytest.mark.filterwarnings("ignore:the signs of")
def test_evidence_against_the_class_has_no_share():
    values = pd.DataFrame({"a": [1.0, 3.0], "b": [-5.0, -1.0], "c": [1.0, 1.0]})
    table = relative_density_test(values, np.array([1, 1, 1]), n_perm=19)
    assert table["saliency_share"].tolist() == pytest.approx([(0.5 + 0.75) / 2, 0, (0.5 + 0.25) / 2], abs=1e-5)
