"""Standardised differences of two groups, and their interval."""

from __future__ import annotations

import numpy as np

from glas3d.statistics.resampling import TAIL


def cohen_d(case: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Return Cohen's d, the difference of means over the pooled standard deviation.

    Parameters
    ----------
    case, control
        ``(n, p)`` and ``(m, p)``.

    Returns
    -------
    ``(p,)``, NaN where nothing varies within the groups.

    Examples
    --------
    >>> cohen_d(np.array([[3.0], [5.0]]), np.array([[1.0], [3.0]])).round(3)
    array([1.414])
    """
    squares = sum(((values - values.mean(axis=0)) ** 2).sum(axis=0) for values in (case, control))
    pooled = np.sqrt(np.asarray(squares) / (len(case) + len(control) - 2))
    difference = case.mean(axis=0) - control.mean(axis=0)
    return np.asarray(np.divide(difference, pooled, out=np.full(len(difference), np.nan), where=pooled > 0))


def hedges_g(case: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Return Hedges' g, Cohen's d times the exact factor that removes its bias in small groups (Hedges 1981).

    Parameters
    ----------
    case, control
        ``(n, p)`` and ``(m, p)``.

    Examples
    --------
    >>> hedges_g(np.array([[3.0], [5.0]]), np.array([[1.0], [3.0]])).round(3)
    array([0.798])
    """
    from scipy.special import gammaln

    dof = len(case) + len(control) - 2
    if dof < 2:
        return np.full(case.shape[1], np.nan)
    factor = np.exp(gammaln(dof / 2) - gammaln((dof - 1) / 2)) / np.sqrt(dof / 2)
    return np.asarray(cohen_d(case, control) * factor)


def cohen_d_interval(d: np.ndarray, n_case: int, n_control: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % interval of the standardised difference, ``(p,)`` each end, by the noncentral t.

    It covers exactly, at every size, where values are normal with the same spread in both groups. A percentile
    bootstrap of d covers 86 % at five a group.

    Parameters
    ----------
    d
        ``(p,)`` Cohen's d; NaN stays NaN.
    n_case, n_control
        Sizes of the groups.

    Examples
    --------
    >>> [end.round(2).tolist() for end in cohen_d_interval(np.array([0.0, 1.0]), 10, 10)]
    [[-0.88, 0.05], [0.88, 1.92]]
    """
    from scipy.special import nctdtrinc

    scale = np.sqrt(1 / n_case + 1 / n_control)
    t, dof = np.abs(d) / scale, n_case + n_control - 2
    near, far = (nctdtrinc(dof, 1 - TAIL, t), nctdtrinc(dof, TAIL, t))
    low, high = near * scale, far * scale
    return np.where(d < 0, -high, low), np.where(d < 0, -low, high)
