"""Repeatability: a case by hand, SciPy's correlations, and maps that know nothing of the participant."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from glas3d.evaluate.metrics import repeatability
from tests.core.cases import refused


@pytest.mark.parametrize(("method", "correlate"), [("pearson", pearsonr), ("spearman", spearmanr)])
def test_it_agrees_with_plain_loops(method, correlate):
    rng = np.random.default_rng(0)
    owners = ["a", "b", "a", "c", "b", "b"]  # c has one scan, which counts as another participant's alone
    own = {name: rng.normal(size=20) for name in "abc"}
    values = np.array([own[name] + 0.8 * rng.normal(size=20) for name in owners])
    found = repeatability(values, owners, method=method)
    r = np.array([[correlate(x, y).statistic for y in values] for x in values])
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    assert found.within == pytest.approx(np.mean([r[p] for p in pairs if owners[p[0]] == owners[p[1]]]))
    assert found.between == pytest.approx(np.mean([r[p] for p in pairs if owners[p[0]] != owners[p[1]]]))
    nearest = [max((j for j in range(6) if j != i), key=lambda j, i=i: r[i, j]) for i in range(6)]
    expected = np.mean([owners[i] == owners[nearest[i]] for i in range(6) if owners[i] != "c"])
    assert found.identified == pytest.approx(expected)
    assert found.chance == pytest.approx((2 * 1 / 5 + 3 * 2 / 5) / 5)
    assert (found.n_scans, found.n_participants) == (6, 3)


def test_maps_of_their_own_and_maps_of_nobody():
    rng = np.random.default_rng(1)
    owners = np.repeat(np.arange(40), 2)
    own = rng.normal(size=(40, 100))[owners]
    noise = rng.normal(size=(80, 100))
    known = repeatability(own + 0.1 * noise, owners)
    assert known.identified == 1
    assert known.within > 0.95 > 0.1 > abs(known.between)
    nobody = repeatability(noise, owners)
    assert nobody.identified < 0.15
    assert nobody.chance == pytest.approx(1 / 79)
    assert nobody.within == pytest.approx(nobody.between, abs=0.05)


def test_scans_that_tie_share():
    values = [[1, 2, 3], [1, 2, 3], [1, 2, 3], [3, 1, 2]]
    assert repeatability(values, ["a", "a", "b", "b"]).identified == pytest.approx((0.5 + 0.5 + 0 + 1 / 3) / 4)


@pytest.mark.parametrize(
    ("values", "participants", "match"),
    [
        (np.ones((3, 4)), ["a", "b"], r"with one participant a scan, got \(3, 4\), \(2,\)"),
        (np.eye(3), ["a", "b", "c"], "needs two participants, and two scans of one of them, got 3 scans of 3"),
        (np.eye(3), ["a", "a", "a"], "needs two participants, and two scans of one of them, got 3 scans of 1"),
        ([[1, 2], [1, 1], [2, 1]], ["a", "a", "b"], "those of scan 1 are all the same"),
        ([[1, np.inf], [1, 1], [2, 1]], ["a", "a", "b"], "values must hold finite numbers"),
    ],
)
def test_what_is_refused(values, participants, match):
    with refused(match):
        repeatability(values, participants)
