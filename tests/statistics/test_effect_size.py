import numpy as np
import pytest
from scipy import stats

from glas3d.statistics.effect_size import cohen_d, cohen_d_interval, hedges_g


def test_d_is_the_difference_over_the_pooled_spread():
    flat = cohen_d(np.array([[1.0, 2], [1, 4]]), np.array([[1.0, 2], [1, 2]]))
    np.testing.assert_allclose(flat, [np.nan, 1 / np.sqrt(2 / 2)])


@pytest.mark.parametrize(("n", "m"), [(2, 2), (5, 5), (3, 11)])
def test_g_has_no_bias(n, m):
    rng = np.random.default_rng(0)
    case, control = rng.normal(0.8, 2.0, size=(n, 200_000)), rng.normal(0, 2.0, size=(m, 200_000))
    g, d = hedges_g(case, control), cohen_d(case, control)
    error = 4 * g.std() / np.sqrt(g.size)
    assert abs(g.mean() - 0.4) < error
    assert abs(d.mean() - 0.4) > error


@pytest.mark.parametrize("n", [3, 5, 12])
def test_the_interval_covers_at_every_size(n):
    rng = np.random.default_rng(1)
    case, control = rng.normal(1.0, size=(n, 4000)), rng.normal(0, size=(n + 1, 4000))
    low, high = cohen_d_interval(cohen_d(case, control), n, n + 1)
    covered = int(((low <= 1.0) & (high >= 1.0)).sum())
    assert stats.binom.ppf(0.001, 4000, 0.95) <= covered <= stats.binom.ppf(0.999, 4000, 0.95)


def test_the_interval_of_the_mirrored_difference_is_mirrored():
    d = np.array([0.3, -0.3, 0.0, np.nan])
    low, high = cohen_d_interval(d, 4, 9)
    np.testing.assert_allclose(low[1], -high[0])
    np.testing.assert_allclose(high[1], -low[0])
    np.testing.assert_allclose(low[2], -high[2])
    assert np.isnan([low[3], high[3]]).all()
