import numpy as np
import pandas as pd
import pytest
from scipy import stats

from glas3d import GlasError, GlasWarning
from glas3d.statistics.folds import compare_all_within_folds, compare_within_folds
from glas3d.statistics.omnibus import compare_all
from glas3d.statistics.two_groups import compare
from tests.statistics.people import people, saliency

FOLDS = np.array([1, 2] * 10)


def test_the_smallest_p_value_counts_for_every_fold():
    table = people(10, 10)
    values = saliency(table, p=5, effect=2)
    result = compare_within_folds(values, table, "AD", "NC", FOLDS, n_perm=199, n_boot=0, seed=3)
    own = [
        compare(values[k == FOLDS], table[k == FOLDS], "AD", "NC", n_perm=199, n_boot=0, seed=3 + k - 1) for k in (1, 2)
    ]
    for column in ("p_uncorrected", "p_fwe"):
        np.testing.assert_allclose(
            result[column], np.minimum(1, 2 * np.minimum(own[0][column].to_numpy(), own[1][column].to_numpy()))
        )
    np.testing.assert_allclose(result["neglog10p_fwe"], -np.log10(result["p_fwe"]))
    np.testing.assert_allclose(result["p_fdr"], stats.false_discovery_control(result["p_uncorrected"]))
    assert set(result["n_folds"]) == {2}
    pooled = compare(values, table, "AD", "NC", n_perm=199, n_boot=0)
    pd.testing.assert_frame_equal(result[["t", "difference", "hedges_g"]], pooled[["t", "difference", "hedges_g"]])


def test_three_groups_are_tested_within_folds():
    table = people(10, 14).assign(group=np.repeat(["AD", "MCI", "NC"], 8))
    folds, groups = np.array([1, 2] * 12), ["AD", "MCI", "NC"]
    values = saliency(table, p=5, effect=4)
    result = compare_all_within_folds(values, table, groups, folds, n_perm=199, seed=3)
    own = [
        compare_all(values[k == folds], table[k == folds], groups, n_perm=199, seed=3 + k - 1)["p_fwe"] for k in (1, 2)
    ]
    np.testing.assert_allclose(result["p_fwe"], np.minimum(1, 2 * np.minimum(own[0].to_numpy(), own[1].to_numpy())))
    assert result["p_fwe"][0] <= 0.05
    np.testing.assert_allclose(result["f"], compare_all(values, table, groups, n_perm=19)["f"])
    assert list(result).index("n_folds") == list(result).index("p_uncorrected") - 1


def evidence(rng, n_folds):
    """Return signed evidence of participants without any difference, each by a ridge that the others trained."""
    scans, label = rng.normal(size=(60, 10)), np.repeat([1.0, -1.0], 30)
    fold = np.tile(np.arange(n_folds), 60 // n_folds)
    values = np.empty_like(scans)
    for k in range(n_folds):
        x = scans[fold != k] - scans[fold != k].mean(axis=0)
        y = label[fold != k] - label[fold != k].mean()
        weights = np.linalg.solve(x.T @ x + 5 * np.eye(10), x.T @ y)
        values[fold == k] = (scans[fold == k] - scans[fold != k].mean(axis=0)) * weights
    return values, fold


def test_maps_out_of_fold_are_exchangeable_within_a_fold_only():
    table, pooled, within = people(30, 30), 0, 0
    for seed in range(60):
        values, fold = evidence(np.random.default_rng(seed), 6)
        options = {"n_perm": 199, "n_boot": 0, "seed": seed, "null": "permutation"}
        pooled += compare(values, table, "AD", "NC", **options)["p_fwe"].min() <= 0.05
        within += compare_within_folds(values, table, "AD", "NC", fold, **options)["p_fwe"].min() <= 0.05
    assert within <= stats.binom.ppf(0.999, 60, 0.05) < pooled


def test_folds_too_small_to_test_are_named():
    table = people(6, 6)
    folds = np.array([1, 1, 1, 1, 1, 2] * 2)
    with pytest.warns(GlasWarning, match=r"folds without a test.*2 \(a comparison needs at least 2"):
        result = compare_within_folds(saliency(table), table, "AD", "NC", folds, n_perm=99, n_boot=0)
    assert set(result["n_folds"]) == {1}
    with pytest.warns(GlasWarning) as caught:
        result = compare_within_folds(saliency(table), table, "AD", "NC", [*range(6)] * 2, n_perm=99, n_boot=0)
    message = str(caught[0].message)
    assert "folds without a test" in message
    assert "0, 1, 2, 3, 4, 5 (a comparison needs" in message
    assert message.count("a comparison needs") == 1  # a reason is stated once
    assert result["p_fwe"].isna().all()
    assert set(result["n_folds"]) == {0}


def test_many_small_folds_that_can_find_nothing_are_warned_of():
    table = people(12, 12)
    with pytest.warns(
        GlasWarning, match=r"within 4 folds of groups so small give no corrected p-value below 1, so"
    ) as caught:
        result = compare_within_folds(
            saliency(table, effect=99), table, "AD", "NC", [1, 2, 3, 4] * 6, n_perm=999, n_boot=0
        )
    assert (result["p_fwe"] == 1).all()
    assert str(caught[-1].message).endswith(": fewer folds, or an independent sample, have larger groups")
    table = people(4, 4)
    with pytest.warns(GlasWarning, match="within 2 folds .* 0.05: an independent sample has larger groups"):
        compare_within_folds(saliency(table), table, "AD", "NC", [1, 2] * 4, n_perm=99, n_boot=0)


def test_every_participant_needs_a_fold():
    table = people(6, 6)
    with pytest.raises(GlasError, match=r"a fold a participant is needed, got \(3,\) for 12 participants"):
        compare_within_folds(saliency(table), table, "AD", "NC", [1, 2, 3])
