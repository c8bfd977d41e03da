"""Permutations, p-values and bootstrap intervals, which assume no distribution."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np

# Two orders of the same sum differ by this much, and must count as the same statistic: with few participants the
# observed arrangement comes up often, and half of its copies would else seem less extreme than itself.
_SAME = 1e-9

TAIL = 0.025  # 95 % intervals


def shuffles(blocks: np.ndarray, n_perm: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Generate random orders of rows in which each row stays within its block.

    Parameters
    ----------
    blocks
        ``(n,)``, the block of each row.
    n_perm
        Number of orders.
    rng
        Source of random numbers.

    Yields
    ------
    ``(n,)`` int, the row that comes to each position.
    """
    rows_of_blocks = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    for _ in range(n_perm):
        order = np.arange(len(blocks))
        for rows in rows_of_blocks:
            order[rows] = rng.permutation(rows)
        yield order


def p_values(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return two-sided p-values ``(1 + #{null >= |observed|}) / (1 + n_perm)``.

    Parameters
    ----------
    observed
        ``(p,)`` statistics; NaN stays NaN.
    null
        ``(n_perm,)`` largest ``|statistic|`` of each permutation, for family-wise p-values.

    Examples
    --------
    >>> p_values(np.array([3.0, -1.0, np.nan]), np.array([0.5, 1.0, 2.0]))
    array([0.25, 0.75,  nan])
    """
    ordered = np.sort(null)
    size = np.abs(observed)
    below = np.searchsorted(ordered, size * (1 - _SAME), side="left")
    p = (1 + len(ordered) - below) / (1 + len(ordered))
    return np.where(np.isnan(size), np.nan, p)


def as_extreme(observed: np.ndarray, permuted: np.ndarray) -> np.ndarray:
    """Return whether each permuted statistic is at least as far from 0 as the observed one."""
    return np.asarray(np.abs(permuted) >= np.abs(observed) * (1 - _SAME))


def false_discovery(p: np.ndarray) -> np.ndarray:
    """Return p-values adjusted for the false discovery rate (Benjamini & Hochberg 1995); NaN stays NaN.

    Examples
    --------
    >>> false_discovery(np.array([0.01, 0.5, 0.02, np.nan])).round(3)
    array([0.03, 0.5 , 0.03,   nan])
    """
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(-p[known], kind="stable")]
    factors = len(order) / np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.minimum.accumulate(p[order] * factors), 1.0)
    return adjusted


def bootstrap_interval(
    statistic: Callable[..., np.ndarray], samples: Sequence[Sequence[np.ndarray]], n_boot: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % percentile bootstrap interval of a statistic.

    Parameters
    ----------
    statistic
        A function of all arrays, in order, that returns ``(p,)``.
    samples
        Groups that are resampled separately; the arrays of a group share their rows, and their resamples.
    n_boot
        Number of resamples.
    rng
        Source of random numbers.

    Returns
    -------
    Lower and upper ends, ``(p,)`` each; resamples without a value do not count, NaN where none has one.
    """
    resampled = []
    for _ in range(n_boot):
        drawn: list[np.ndarray] = []
        for arrays in samples:
            rows = rng.integers(len(arrays[0]), size=len(arrays[0]))
            drawn += [array[rows] for array in arrays]
        resampled.append(statistic(*drawn))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN columns
        low, high = np.nanquantile(np.stack(resampled), [TAIL, 1 - TAIL], axis=0)
    return low, high
