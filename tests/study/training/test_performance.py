import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from glas3d import GlasError
from glas3d.study.training.performance import METRICS, calibration_error, measure, summarise


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
