from itertools import permutations

import numpy as np
import pytest

from glas3d import GlasError
from glas3d.statistics.choices import check_counts
from glas3d.statistics.resampling import as_extreme, bootstrap_interval, p_values, shuffles


def test_shuffles_stay_in_their_block_and_reach_every_order():
    blocks = np.array([1, 0, 1, 0, 1])
    seen = {tuple(order) for order in shuffles(blocks, 400, np.random.default_rng(0))}
    expected = set()
    for each in permutations([0, 2, 4]):
        for two in permutations([1, 3]):
            expected.add((each[0], two[0], each[1], two[1], each[2]))
    assert seen == expected


def test_all_orders_are_equally_likely():
    counts: dict[tuple[int, ...], int] = {}
    for order in shuffles(np.zeros(4), 4800, np.random.default_rng(1)):
        counts[tuple(order)] = counts.get(tuple(order), 0) + 1
    assert len(counts) == 24
    assert sum((n - 200) ** 2 / 200 for n in counts.values()) < 50  # chi squared, 23 degrees: p = 0.001


def test_p_values_count_permutations_as_extreme_as_the_observed():
    null = np.array([1.0, 2.0, 2.0, 3.0])
    table = p_values(np.array([0.5, 1.0, -2.0, 2.5, 3.0, 4.0, np.inf, np.nan]), null)
    np.testing.assert_allclose(table, [1, 1, 4 / 5, 2 / 5, 2 / 5, 1 / 5, 1 / 5, np.nan])
    rounded = null * (1 - 1e-13)
    np.testing.assert_allclose(p_values(np.array([3.0]), rounded), [2 / 5])
    assert as_extreme(np.array([3.0, -3.0, 3.0]), np.array([-3.0 * (1 - 1e-13), 3.1, 2.9])).tolist() == [
        True,
        True,
        False,
    ]


def test_groups_are_resampled_separately_and_a_groups_arrays_together():
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(50, 2)), rng.normal(size=(30, 2))
    pairs = []

    def statistic(a, same, b):
        assert (a == same).all()
        assert a.shape == (50, 2)
        assert b.shape == (30, 2)
        pairs.append((a.mean(), b.mean()))
        return a.mean(axis=0) - b.mean(axis=0)

    low, high = bootstrap_interval(statistic, [[one, one], [two]], 2000, np.random.default_rng(1))
    error = np.sqrt(one.var(axis=0) / 50 + two.var(axis=0) / 30)
    difference = one.mean(axis=0) - two.mean(axis=0)
    np.testing.assert_allclose(low, difference - 1.96 * error, atol=0.06)
    np.testing.assert_allclose(high, difference + 1.96 * error, atol=0.06)
    assert abs(np.corrcoef(np.array(pairs).T)[0, 1]) < 0.1


def test_resamples_without_a_value_do_not_count():
    answers = iter([np.array([1.0, np.nan]), np.array([np.nan, np.nan]), np.array([2.0, np.nan])])
    low, high = bootstrap_interval(lambda a: next(answers), [[np.zeros(3)]], 3, np.random.default_rng(0))
    np.testing.assert_allclose(low, [1.025, np.nan])
    np.testing.assert_allclose(high, [1.975, np.nan])


def test_too_few_permutations_and_negative_resamples_are_refused():
    check_counts(19, 0)
    for counts in ((18, 0), (19, -1)):
        with pytest.raises(GlasError, match="must be"):
            check_counts(*counts)
