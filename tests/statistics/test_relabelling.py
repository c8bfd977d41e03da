"""Test of out-of-fold maps by relabelling with retraining."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from glas3d import GlasError, GlasWarning
from glas3d.statistics.relabelling import compare_relabelled, relabellings
from glas3d.statistics.two_groups import compare
from tests.statistics.people import people


def ridge(scans, n_folds):
    """Return a function of labels: signed evidence of each participant by a ridge that the other folds trained."""

    def evidence(labels):
        truth = np.where(labels == "AD", 1.0, -1.0)
        fold = np.empty(len(labels), dtype=int)
        for group in ("AD", "NC"):
            rows = np.flatnonzero(labels == group)
            fold[rows] = np.arange(len(rows)) % n_folds
        values = np.empty_like(scans)
        for k in range(n_folds):
            train = fold != k
            x = scans[train] - scans[train].mean(axis=0)
            y = truth[train] - truth[train].mean()
            weights = np.linalg.solve(x.T @ x + 5 * np.eye(x.shape[1]), x.T @ y)
            values[~train] = (scans[~train] - scans[train].mean(axis=0)) * weights
        return values

    return evidence


def test_p_values_agree_with_all_relabellings():
    """By a loop over the 70 ways to give four of eight the label of a case."""
    table, scans = people(4, 4), np.random.default_rng(2).normal(size=(8, 3))
    scans[:4, 0] += 2
    evidence = ridge(scans, 2)

    def t(labels):
        values = evidence(labels)
        return stats.ttest_ind(values[labels == "AD"], values[labels == "NC"], equal_var=False).statistic

    labels = table["group"].to_numpy()
    every = np.abs([t(np.where(np.isin(range(8), chosen), "AD", "NC")) for chosen in combinations(range(8), 4)])
    result = compare_relabelled(evidence, table, "AD", "NC", n_perm=1500)
    np.testing.assert_allclose(result["t"], t(labels), rtol=1e-9)
    observed = np.abs(t(labels)) * (1 - 1e-9)
    for column, exact in (
        ("p_uncorrected", (every >= observed).mean(axis=0)),
        ("p_fwe", (every.max(axis=1)[:, None] >= observed).mean(axis=0)),
    ):
        error = 4.5 * np.sqrt(exact * (1 - exact) / 1500) + 1 / 1500
        assert (np.abs(result[column] - np.maximum(exact, 2 / 70)) <= error).all()


def test_labels_are_permuted_within_sites_and_the_true_ones_come_first():
    table = people(10, 10, sites=list("ab") * 10)
    first, *others = relabellings(table, "AD", "NC", site="site", n_perm=30, seed=4)
    assert first.tolist() == table["group"].tolist()
    for labels in others:
        for site in "ab":
            assert (labels[table["site"] == site] == "AD").sum() == 5
    assert len({"".join(labels) for labels in others}) == 30
    again = list(relabellings(table, "AD", "NC", site="site", n_perm=30, seed=4))
    assert all((a == b).all() for a, b in zip(others, again[1:], strict=True))


def test_maps_out_of_fold_reject_seldom_where_pooled_tests_reject_often():
    table, pooled, relabelled = people(20, 20), 0, 0
    for seed in range(40):
        evidence = ridge(np.random.default_rng(seed).normal(size=(40, 8)), 10)
        values = evidence(table["group"].to_numpy())
        options = {"n_perm": 99, "n_boot": 0, "seed": seed, "null": "permutation"}
        pooled += compare(values, table, "AD", "NC", **options)["p_fwe"].min() <= 0.05
        relabelled += compare_relabelled(evidence, table, "AD", "NC", n_perm=19, seed=seed)["p_fwe"].min() <= 0.05
    assert relabelled <= stats.binom.ppf(0.999, 40, 0.05) < pooled


def test_a_true_difference_is_found_with_all_participants():
    table, scans = people(20, 20), np.random.default_rng(0).normal(size=(40, 6))
    scans[:20, 2] += 3
    result = compare_relabelled(ridge(scans, 10), table, "AD", "NC", n_perm=59)
    assert result.loc[result["p_fwe"] <= 0.05, "name"].tolist() == ["3"]
    assert result.loc[2, "neglog10p_fwe"] == pytest.approx(-np.log10(1 / 60))


def test_evidence_is_called_once_for_each_labelling_and_a_flat_region_has_no_test():
    table, calls = people(6, 6), []

    def evidence(labels):
        calls.append(labels)
        values = np.random.default_rng(len(calls)).normal(size=(12, 2))
        values[:, 1] = 0
        return pd.DataFrame(values, columns=["a", "b"])

    result = compare_relabelled(evidence, table, "AD", "NC", n_perm=19)
    assert len(calls) == 20
    assert result["name"].tolist() == ["a", "b"]
    assert result["p_fwe"].isna().tolist() == [False, True]


def test_what_cannot_be_relabelled_is_refused_before_training():
    def evidence(_):
        raise AssertionError

    table = people(6, 6)
    with pytest.raises(GlasError, match=r"at least 19, for a p-value to be 0\.05, got 18"):
        compare_relabelled(evidence, table, "AD", "NC", n_perm=18)
    three = table.assign(group=["AD"] * 5 + ["NC"] * 5 + ["MCI"] * 2)
    with pytest.raises(GlasError, match="labels are permuted between AD and NC, 2 participants have another"):
        compare_relabelled(evidence, three, "AD", "NC", n_perm=19)
    with pytest.warns(GlasWarning, match="no p-value can be below 0.1 "), pytest.raises(AssertionError):
        compare_relabelled(evidence, people(3, 3), "AD", "NC", n_perm=19)
