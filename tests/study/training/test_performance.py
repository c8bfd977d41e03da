import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics

from glas3d import GlasError
from glas3d.study.training.performance import (
    METRICS,
    calibration_error,
    chance_warning,
    debiased_calibration_error,
    measure,
    pooled_performance,
    summarise,
)


def predictions(n=60, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.3
    return truth, np.clip(0.35 * truth + rng.uniform(0, 0.65, n), 0, 1)


def test_metrics_are_those_of_scikit_learn():
    is_case, p = predictions()
    values, called = measure(is_case, p), p > 0.5
    assert tuple(values) == METRICS
    assert values["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(is_case, called))
    assert values["accuracy"] == pytest.approx(metrics.accuracy_score(is_case, called))
    assert values["auc"] == pytest.approx(metrics.roc_auc_score(is_case, p))
    assert values["sensitivity"] == pytest.approx(metrics.recall_score(is_case, called))
    assert values["specificity"] == pytest.approx(metrics.recall_score(is_case, called, pos_label=False))
    assert values["brier"] == pytest.approx(metrics.brier_score_loss(is_case, p))
    assert 0.2 < values["sensitivity"] < values["specificity"] < 0.95


def test_one_group_alone():
    values = measure(np.array([True, True]), np.array([0.9, 0.2]))
    assert values["sensitivity"] == values["accuracy"] == 0.5
    assert np.isnan([values["specificity"], values["auc"], values["balanced_accuracy"]]).all()


def test_calibration():
    p = np.repeat([0.15, 0.85], 100)
    right = np.r_[np.arange(100) < 15, np.arange(100) < 85]
    assert calibration_error(right, p) == pytest.approx(0)
    assert calibration_error(np.r_[np.arange(100) < 45, np.arange(100) < 85], p) == pytest.approx(0.15)
    assert calibration_error(np.array([True, False]), np.array([1.0, 0.0])) == 0
    assert calibration_error(np.array([False, True]), np.array([1.0, 0.0])) == 1


@pytest.mark.parametrize(("truth", "p"), [([], []), ([True], [0.5, 0.5]), ([True], [1.5]), ([True], [np.nan])], ids=str)
def test_impossible_predictions_are_refused(truth, p):
    with pytest.raises(GlasError, match="probabilit"):
        measure(np.array(truth, dtype=bool), np.array(p))


def folds(values, n_train=80, n_test=20):
    return pd.DataFrame({"n_train": n_train, "n_test": n_test} | dict.fromkeys(METRICS, values))


def test_the_interval_is_that_of_nadeau_and_bengio():
    values = [0.6, 0.7, 0.65, 0.8, 0.75]
    row = summarise(folds(values)).set_index("metric").loc["auc"]
    half = 2.7764451 * np.sqrt(np.var(values, ddof=1) * (1 / 5 + 20 / 80))
    assert row["mean"] == pytest.approx(0.7)
    assert row["low"] == pytest.approx(0.7 - half)
    assert row["high"] == pytest.approx(0.7 + half)
    assert row["n"] == 5


def test_the_interval_is_limited_and_missing_values_are_left_out():
    row = summarise(folds([0.0, 1.0, np.nan])).iloc[0]
    assert (row["low"], row["mean"], row["high"], row["n"]) == (0, 0.5, 1, 2)
    row = summarise(folds([0.3, np.nan])).iloc[0]
    assert row["mean"] == 0.3
    assert np.isnan([row["low"], row["high"]]).all()
    row = summarise(folds([np.nan, np.nan])).iloc[0]
    assert np.isnan([row["mean"], row["low"], row["high"]]).all()


def test_no_correct_case_leaves_an_interval():
    truth = np.repeat([True, False], 10)
    table = pooled_performance(truth, np.full(20, 0.2)).set_index("metric")
    assert table.loc["sensitivity", ["value", "low", "high"]].tolist() == pytest.approx([0, 0, 0.3085], abs=1e-4)
    assert table.loc["specificity", ["value", "low", "high"]].tolist() == pytest.approx([1, 0.6915, 1], abs=1e-4)
    assert table.loc["accuracy", "p"] == pytest.approx(0.588, abs=1e-3)


def test_a_metric_is_the_same_in_every_table():
    rng, truth = np.random.default_rng(1), np.repeat([True, False], [7, 9])
    p = rng.uniform(size=16)
    table = pooled_performance(truth, p).set_index("metric")["value"]
    assert table.loc[list(METRICS)].to_dict() == measure(truth, p)
    assert table["calibration_rms"] == debiased_calibration_error(truth, p) != table["ece"]


def test_the_interval_of_the_auc_covers():
    """Of 400 samples with a known AUC, 95 % and sampling error."""
    true = float(stats.norm.cdf(1 / np.sqrt(2)))
    covered = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        truth = np.repeat([True, False], [15, 25])
        p = stats.norm.cdf(rng.normal(size=40) + truth)
        row = pooled_performance(truth, p).set_index("metric").loc["auc"]
        covered += row["low"] <= true <= row["high"]
    assert stats.binom.ppf(0.001, 400, 0.95) - 8 <= covered


def test_calibration_without_bias():
    rng = np.random.default_rng(2)
    plain, corrected = [], []
    for _ in range(200):
        p = rng.uniform(size=60)
        truth = rng.uniform(size=60) < p
        plain.append(calibration_error(truth, p))
        corrected.append(debiased_calibration_error(truth, p))
    assert np.mean(plain) > 0.09
    assert np.mean(corrected) < 0.06
    assert np.isnan(debiased_calibration_error(np.array([True]), np.array([0.5])))


def test_models_at_chance_are_named():
    rng, truth = np.random.default_rng(0), np.repeat([True, False], 20)
    message = chance_warning(pooled_performance(truth, rng.uniform(size=40)))
    assert message.startswith(
        "the models are not better than chance on scans they never saw: AUC of all participants together 0."
    )
    assert chance_warning(pooled_performance(truth, np.where(truth, 0.8, 0.3) + rng.uniform(0, 0.1, 40))) is None
    assert chance_warning(pooled_performance(truth[:20], rng.uniform(size=20))) is None
