"""Measure how well a classifier of two groups does on scans it never saw."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from glas3d.errors import GlasError

_SHARE, _P = "share, 0 to 1", "p-value, 0 to 1"
COLUMNS: dict[str, tuple[str, str]] = {
    "fold": ("Number of the fold", "index"),
    "n_train": ("Scans that trained the model", "count"),
    "n_validation": ("Scans that decided when training stopped", "count"),
    "n_test": ("Scans that the model never saw, on which it is measured", "count"),
    "balanced_accuracy": ("Mean of sensitivity and specificity", _SHARE),
    "accuracy": ("Share of the scans whose group is predicted", _SHARE),
    "auc": ("Area under the ROC curve", _SHARE),
    "sensitivity": ("Share of the cases' scans that are predicted to be cases", _SHARE),
    "specificity": ("Share of the controls' scans that are predicted to be controls", _SHARE),
    "ece": ("Expected calibration error: mean difference of probability and frequency", "probability"),
    "brier": ("Mean squared difference of the probability of a case and the truth", "squared probability"),
    "metric": ("Name of the metric, see metrics.json", ""),
    "value": (
        "The metric of the out-of-fold predictions, one a participant",
        "that of the metric, 0 to 1",
    ),
    "mean": ("Mean of the metric over the folds", "that of the metric, 0 to 1"),
    "low": ("Lower end of the 95 % interval", "that of the metric, 0 to 1"),
    "high": ("Upper end of the 95 % interval", "that of the metric, 0 to 1"),
    "n": ("Number of participants, or of folds in a mean", "count"),
    "participant_id": ("Identifier of the participant", ""),
    "session": ("Session of the scan; n/a where there are none", ""),
    "group": ("Group of the participant", ""),
    "predicted": ("Group that the model predicts, where the probability of a case is above 0.5: the case", ""),
    "stage": ("Stage of training: the autoencoder, the classifier, or its validation", ""),
    "epoch": ("Number of the epoch, from 1", "index"),
    "loss": (
        "Mean loss of the epoch: squared error of the autoencoder, else cross-entropy",
        "squared intensity, or nats",
    ),
}
"""Description and units of the columns of all tables of training, but for ``p``."""
OF_A_CASE: dict[str, tuple[str, str]] = {
    "p": ("Probability of being a case, by the model that never saw the participant", "probability")
}
POOLED: dict[str, tuple[str, str]] = {
    "metric": (
        "Name of the metric, see metrics.json; calibration_rms: root-mean-square difference of probability and "
        "frequency, less what sampling alone adds",
        "",
    ),
    "p": ("Probability of a value at least as high by chance", _P),
}
"""What columns mean in the table of all participants together."""

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
    bin_of = _bin_of(probability, bins)
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


def pooled_performance(is_case: np.ndarray, probability: np.ndarray) -> pd.DataFrame:
    """Measure the out-of-fold predictions of all folds together, with 95 % intervals, and compare them with chance.

    Sensitivity, specificity and accuracy have exact binomial intervals (Clopper & Pearson 1934), so that 0 of 10 is
    followed by 0 to 0.31 and not by 0 to 0. The area under the ROC curve has DeLong's interval on the logit scale.
    ``p`` is the probability of a value at least as high by chance: of the accuracy against the share of the larger
    group (binomial), of the AUC by the rank sum (Mann & Whitney). ``ece`` is that of
    `measure`; ``calibration_rms`` is without the bias that it has in small samples (see `debiased_calibration_error`).

    Parameters
    ----------
    is_case, probability
        See `measure`; one scan a participant, for participants to count once.

    Returns
    -------
    One row a metric: ``metric value low high p n``; NaN where a metric has no interval or test.

    Raises
    ------
    GlasError
        See `measure`.
    """
    from scipy.stats import binomtest, mannwhitneyu

    values = measure(is_case, probability)
    truth, p = np.asarray(is_case, dtype=bool), np.asarray(probability, dtype=float)
    correct = (p > 0.5) == truth
    measured = {name: (value, math.nan, math.nan, math.nan, len(truth)) for name, value in values.items()}
    for name, of in (("sensitivity", truth), ("specificity", ~truth), ("accuracy", np.ones(len(truth), dtype=bool))):
        low = high = chance = math.nan
        if of.any():
            result = binomtest(int(correct[of].sum()), int(of.sum()))
            low, high = result.proportion_ci(0.95, "exact")
        if name == "accuracy":
            larger = max(float(truth.mean()), 1 - float(truth.mean()))
            chance = float(binomtest(int(correct.sum()), len(truth), larger, "greater").pvalue)
        measured[name] = (values[name], low, high, chance, int(of.sum()))
    if truth.any() and not truth.all():
        low, high = _auc_interval(p[truth], p[~truth])
        chance = float(mannwhitneyu(p[truth], p[~truth], alternative="greater").pvalue)
        measured["auc"] = (values["auc"], low, high, chance, len(truth))
    without_bias = debiased_calibration_error(truth, p)
    measured["calibration_rms"] = (without_bias, math.nan, math.nan, math.nan, len(truth))
    rows = [(name, *row) for name, row in measured.items()]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "p", "n"])


def debiased_calibration_error(is_case: np.ndarray, probability: np.ndarray, bins: int = 10) -> float:
    """Return the root-mean-square calibration error without the part that sampling alone adds.

    In each bin, the squared difference of mean probability and frequency is reduced by the variance of the frequency,
    ``f (1 - f) / (n - 1)``. Bins with one scan tell nothing and are left out; a negative sum counts as 0.

    Parameters
    ----------
    is_case, probability
        See `measure`.
    bins
        Number of bins from 0 to 1.

    Examples
    --------
    >>> p = np.repeat([0.25, 0.75], 50)
    >>> is_case = np.concatenate([np.arange(50) < 40, np.arange(50) < 40])
    >>> round(debiased_calibration_error(is_case, p), 2)
    0.39
    """
    truth, p = np.asarray(is_case, dtype=float), np.asarray(probability, dtype=float)
    bin_of = _bin_of(p, bins)
    counts = np.bincount(bin_of, minlength=bins)
    kept = counts > 1
    if not kept.any():
        return math.nan
    n = counts[kept]
    frequency, mean = (np.bincount(bin_of, weights=each, minlength=bins)[kept] / n for each in (truth, p))
    squares = (mean - frequency) ** 2 - frequency * (1 - frequency) / (n - 1)
    return math.sqrt(max(0.0, float((n * squares).sum() / n.sum())))


def _bin_of(probability: np.ndarray, bins: int) -> np.ndarray:
    """Return the number of each probability's bin, of bins of equal width from 0 to 1; 1 lies in the last."""
    numbers: np.ndarray = np.minimum((probability * bins).astype(int), bins - 1)
    return numbers


def chance_warning(pooled: pd.DataFrame) -> str | None:
    """Return the sentence about models that are no better than chance; None where they are better.

    Parameters
    ----------
    pooled
        The table of `pooled_performance`.
    """
    row = pooled.set_index("metric").loc["auc"]
    if not row["low"] <= 0.5:
        return None
    return (
        f"the models are not better than chance on scans they never saw: AUC of all participants together "
        f"{row['value']:z.2f}, 95 % interval {row['low']:z.2f} to {row['high']:z.2f}; what they show of the disease "
        "means nothing"
    )


def _auc_interval(case: np.ndarray, control: np.ndarray) -> tuple[float, float]:
    """Return DeLong's 95 % interval of the AUC, on the logit scale; at 0 or 1 that of the rule of three."""
    wins = (case[:, None] > control).astype(float) + 0.5 * (case[:, None] == control)
    auc, n_case, n_control = float(wins.mean()), len(case), len(control)
    if min(n_case, n_control) < 2:
        return 0.0, 1.0
    variance = float(wins.mean(axis=1).var(ddof=1) / n_case + wins.mean(axis=0).var(ddof=1) / n_control)
    if auc in (0.0, 1.0) or variance == 0:
        reach = min(1.0, 3 / min(n_case, n_control))
        return max(0.0, auc - reach), min(1.0, auc + reach)
    middle, half = math.log(auc / (1 - auc)), 1.959964 * math.sqrt(variance) / (auc * (1 - auc))
    low, high = (1 / (1 + math.exp(-(middle + sign * half))) for sign in (-1, 1))
    return low, high
