"""Slopes of saliency over sessions."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from glas3d import GlasError
from glas3d.statistics.slopes import session_slopes
from glas3d.statistics.two_groups import compare
from tests.statistics.people import people

IDS = [f"sub-{i:02d}" for i in range(1, 21) for _ in range(2 + i % 3)]


def sessions(seed=0, p=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(len(IDS), p)), rng.uniform(0, 5, len(IDS))


def test_a_line_has_its_slope():
    _, times = sessions()
    own = dict(zip(dict.fromkeys(IDS), np.linspace(-2, 3, 20), strict=True))
    values = np.array([[7.0 - own[i] * t, own[i] * t, 1.0] for i, t in zip(IDS, times, strict=True)])
    found = session_slopes(pd.DataFrame(values, columns=list("abc")), IDS, times)
    assert found.index.tolist() == list(own)
    expected = np.array(list(own.values()))
    np.testing.assert_allclose(found, np.column_stack([-expected, expected, 0 * expected]), atol=1e-12)


def test_slopes_are_those_of_least_squares_whatever_the_origin_of_time():
    values, times = sessions()
    found = session_slopes(values, IDS, times)
    for participant in found.index:
        rows = np.array(IDS) == participant
        line = [stats.linregress(times[rows], values[rows, i]).slope for i in range(3)]
        np.testing.assert_allclose(found.loc[participant], line)
    np.testing.assert_allclose(session_slopes(values, IDS, 2010 + times), found, atol=1e-8)
    np.testing.assert_allclose(session_slopes(values, IDS, 12 * times), found / 12)
    order = np.random.default_rng(1).permutation(len(IDS))
    moved = session_slopes(values[order], np.array(IDS)[order], times[order])
    pd.testing.assert_frame_equal(moved.loc[found.index], found)


def rejections(make, repeats=150):
    """Return in how many of the data sets the slopes of two groups differ."""
    count = 0
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        table = people(8, 12)
        ids = np.repeat(table["participant_id"], rng.integers(2, 6, 20))
        times = rng.uniform(0, 4, len(ids))
        values = rng.normal(size=(len(ids), 6)) + 3 * rng.normal(size=(20, 6))[pd.factorize(ids)[0]]
        own = rng.normal(size=(20, 6))
        if make:
            own[:8] += 2.0
        values += times[:, None] * own[pd.factorize(ids)[0]]
        found = session_slopes(values, ids, times)
        count += compare(found, table, "AD", "NC", n_perm=99, n_boot=0, seed=seed)["p_fwe"].min() <= 0.05
    return count


def test_sessions_of_different_numbers_reject_seldom_and_true_differences_often():
    """Participants differ in their means and slopes, which many sessions of a participant must not count as more."""
    assert rejections(0) <= stats.binom.ppf(0.999, 150, 0.06)
    assert rejections(1) > 75


@pytest.mark.parametrize(
    ("ids", "times", "message"),
    [
        (["a", "a", "b"], [0, 1, 1], "two sessions at different times, b has none"),
        (["a", "a", "b", "b"], [0, 1, 2, 2], "two sessions at different times, b has none"),
        (["a", "a"], [0, np.nan], "every session needs a time, these participants have one without: a"),
        (["a", "a"], [0, 1, 2], r"got \(2,\) and \(3,\) for 2 rows"),
    ],
)
def test_participants_without_a_slope_are_refused(ids, times, message):
    with pytest.raises(GlasError, match=message):
        session_slopes(np.zeros((len(ids), 2)), ids, times)
