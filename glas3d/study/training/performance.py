"""Measure how well a classifier of two groups does on scans it never saw."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from glas3d.errors import GlasError

METRICS = ("balanced_accuracy", "accuracy", "auc", "sensitivity", "specificity", "ece", "brier")


def measure(is_case: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Compute each of `METRICS`; NaN for those that need a group without scans.

    Parameters
    ----------
    is_case
        ``(n,)`` bool: whether the participant of each scan is a case.
    probability
        ``(n,)`` probability of being a case, from 0 to 1; above 0.5 the prediction is a case.

    Raises
    ------
    GlasError
        No scans, arrays of different lengths, or probabilities outside 0 to 1.

    Examples
    --------
    >>> metrics = measure(np.array([True, True, False, False]), np.array([0.9, 0.4, 0.2, 0.4]))
    >>> metrics["sensitivity"], metrics["specificity"], metrics["auc"], round(metrics["brier"], 4)
    (0.5, 1.0, 0.875, 0.1425)
    """
    from sklearn.metrics import roc_auc_score

    truth, p = np.asarray(is_case, dtype=bool), np.asarray(probability, dtype=float)
    if truth.ndim != 1 or truth.shape != p.shape or not len(p):
        raise GlasError(f"each scan needs a group and a probability, got arrays of {truth.shape} and {p.shape}")
    if not ((p >= 0) & (p <= 1)).all():
        raise GlasError("probabilities must be from 0 to 1")
    correct = (p > 0.5) == truth
    sensitivity, specificity = (float(correct[of].mean()) if of.any() else math.nan for of in (truth, ~truth))
    both_groups = truth.any() and not truth.all()
    return {
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "accuracy": float(correct.mean()),
        "auc": float(roc_auc_score(truth, p)) if both_groups else math.nan,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ece": calibration_error(truth, p),
        "brier": float(np.mean((p - truth) ** 2)),
    }


def calibration_error(is_case: np.ndarray, probability: np.ndarray, bins: int = 10) -> float:
    """Return the expected calibration error.

    That is the mean difference between the probability of a case and the frequency of cases, over bins of equal width,
    weighted by their scans.

    Parameters
    ----------
    is_case, probability
        See `measure`.
    bins
        Number of bins from 0 to 1.

    Examples
    --------
    >>> calibration_error(np.array([True, False, True, True]), np.array([0.5, 0.5, 0.9, 0.9]))
    0.05
    """
    bin_of = np.minimum((probability * bins).astype(int), bins - 1)
    differences = np.bincount(bin_of, weights=probability - is_case, minlength=bins)
    return float(np.round(np.abs(differences).sum() / len(is_case), 12))


def summarise(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each metric over the folds with its 95 % confidence interval.

    Folds share most of their training scans, which makes the usual interval too narrow. The variance is therefore
    multiplied by ``1/k + test/train``, as Nadeau & Bengio (2003, 10.1023/A:1024068626366) propose. The interval is
    limited to 0 to 1.

    Parameters
    ----------
    metrics
        One row for each fold, with the columns ``n_train n_test`` and `METRICS`. Missing values are left out.

    Returns
    -------
    One row for each metric: ``metric mean low high n``.
    """
    from scipy.stats import t as student

    ratio = float((metrics["n_test"] / metrics["n_train"]).mean())
    rows = []
    for name in METRICS:
        values = metrics[name].dropna().to_numpy(dtype=float)
        k = len(values)
        mean = float(values.mean()) if k else math.nan
        low = high = math.nan
        if k > 1:
            half = float(student.ppf(0.975, k - 1)) * math.sqrt(float(values.var(ddof=1)) * (1 / k + ratio))
            low, high = max(mean - half, 0.0), min(mean + half, 1.0)
        rows.append({"metric": name, "mean": mean, "low": low, "high": high, "n": k})
    return pd.DataFrame(rows)
