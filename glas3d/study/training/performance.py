"""How well a classifier of two groups does on scans it never saw."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from glas3d.errors import GlasError

METRICS = ("balanced_accuracy", "accuracy", "auc", "sensitivity", "specificity", "ece", "brier")


def measure(truth: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Every one of `METRICS`; NaN where a group is absent that it needs.

    Parameters
    ----------
    truth
        ``(n,)`` bool: who is a case.
    probability
        ``(n,)`` of being one; a case is called above 0.5.

    Raises
    ------
    GlasError
        Nobody, other lengths, or probabilities outside 0 to 1.

    Examples
    --------
    >>> found = measure(np.array([True, True, False, False]), np.array([0.9, 0.4, 0.2, 0.4]))
    >>> found["sensitivity"], found["specificity"], found["auc"], round(found["brier"], 4)
    (0.5, 1.0, 0.875, 0.1425)
    """
    from sklearn.metrics import roc_auc_score

    truth, p = np.asarray(truth, dtype=bool), np.asarray(probability, dtype=float)
    if truth.ndim != 1 or truth.shape != p.shape or not len(p):
        raise GlasError(f"a truth and a probability a scan are needed, got {truth.shape} and {p.shape}")
    if not ((p >= 0) & (p <= 1)).all():
        raise GlasError("probabilities must be from 0 to 1")
    right = (p > 0.5) == truth
    sensitivity, specificity = (float(right[who].mean()) if who.any() else math.nan for who in (truth, ~truth))
    both = truth.any() and not truth.all()
    return {
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "accuracy": float(right.mean()),
        "auc": float(roc_auc_score(truth, p)) if both else math.nan,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ece": calibration_error(truth, p),
        "brier": float(np.mean((p - truth) ** 2)),
    }


def calibration_error(truth: np.ndarray, probability: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error: mean gap between probability of a case and frequency of cases, over equal bins.

    Examples
    --------
    >>> calibration_error(np.array([True, False, True, True]), np.array([0.5, 0.5, 0.9, 0.9]))
    0.05
    """
    which = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = np.bincount(which, weights=probability - truth, minlength=bins)
    return float(np.round(np.abs(gaps).sum() / len(truth), 12))


def summarise(folds: pd.DataFrame) -> pd.DataFrame:
    """Mean over folds with a 95 % interval, one row a metric: ``metric mean low high n``.

    Folds share most of their training scans, so the plain interval is too narrow; the variance is multiplied as
    Nadeau & Bengio (2003, 10.1023/A:1024068626366) propose, by ``1/k + test/train``. The interval ends at 0 and 1.

    Parameters
    ----------
    folds
        A row a fold: ``n_train n_test`` and `METRICS`. Folds without a value are left out.
    """
    from scipy.stats import t as student

    ratio = float((folds["n_test"] / folds["n_train"]).mean())
    rows = []
    for name in METRICS:
        values = folds[name].dropna().to_numpy(dtype=float)
        k = len(values)
        mean = float(values.mean()) if k else math.nan
        half = math.nan
        if k > 1:
            half = float(student.ppf(0.975, k - 1)) * math.sqrt(float(values.var(ddof=1)) * (1 / k + ratio))
        rows.append({"metric": name, "mean": mean, "low": max(mean - half, 0.0), "high": min(mean + half, 1.0), "n": k})
        if math.isnan(half):
            rows[-1] |= {"low": math.nan, "high": math.nan}
    return pd.DataFrame(rows)
