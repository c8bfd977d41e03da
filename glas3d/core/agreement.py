"""Whether two evaluations of one input agree, measured by the effects that an explanation reports."""

from __future__ import annotations

import numpy as np

# Two evaluations of one input may differ by this share of the effects that are reported (drops, lights).
_SHARE_OF_EFFECT = 0.01
# What rounding in float32 may change: as a share of a column's largest output, and of that of all columns.
_ROUNDING, _ROUNDING_OF_LARGEST = 2e-5, 2e-7
# However large the effects are, two evaluations may not differ by more.
_MOST = 1e-4


def allowed_difference(outputs: np.ndarray, most: float = _MOST, share: float = _SHARE_OF_EFFECT) -> np.ndarray:
    """Return by how much two evaluations of one input may differ, for each column.

    That is a share of the largest effect, or what rounding changes if that is more, and never more than ``most``
    (relative to outputs beyond 1).

    Parameters
    ----------
    outputs
        ``(n, k)`` float64, the outputs for inputs that differ as much as those of the explanation do.
    most
        The largest difference allowed.
    share
        The share of the largest effect that is allowed.

    Returns
    -------
    ``(k,)`` float64.

    Examples
    --------
    >>> allowed_difference(np.array([[0.5, 2e-5], [0.9, 1e-5]])).tolist()
    [0.0001, 1.8e-07]
    """
    size, effect = np.abs(outputs).max(axis=0), np.ptp(outputs, axis=0)
    rounding = np.maximum(_ROUNDING * size, _ROUNDING_OF_LARGEST * size.max())
    allowed: np.ndarray = np.minimum(np.maximum(share * effect, rounding), most * np.maximum(1.0, size))
    return allowed


def differ(output: np.ndarray, expected: np.ndarray, allowed: np.ndarray) -> bool:
    """Return whether two evaluations differ by more than is allowed in any column; NaN differs."""
    return output.shape != expected.shape or not bool((np.abs(output - expected) <= allowed).all())
