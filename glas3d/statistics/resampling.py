"""Shuffles, p-values and intervals that assume no distribution."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from glas3d.errors import GlasError

# Two orders of the same sum differ by this much, and must count as the same statistic: with few participants the
# observed arrangement comes up often, and half of its copies would else seem less extreme than itself.
_SAME = 1e-9

TAIL = 0.025  # 95 % intervals


def shuffles(blocks: np.ndarray, n_perm: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Orders of ``len(blocks)`` things that move within their block only."""
    members = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    for _ in range(n_perm):
        order = np.arange(len(blocks))
        for rows in members:
            order[rows] = rng.permutation(rows)
        yield order


def p_values(observed: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Two-sided p-values ``(1 + #{null >= |observed|}) / (1 + n_perm)``.

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


def reached(observed: np.ndarray, permuted: np.ndarray) -> np.ndarray:
    """Whether each permuted statistic is at least as large as the observed one, either side."""
    return np.asarray(np.abs(permuted) >= np.abs(observed) * (1 - _SAME))


def interval(
    statistic: Callable[..., np.ndarray], samples: Sequence[Sequence[np.ndarray]], n_boot: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile bootstrap interval.

    Parameters
    ----------
    statistic
        Of all arrays, in order, to ``(p,)``.
    samples
        Groups that are drawn from separately; the arrays of a group share their rows, and their draws.

    Returns
    -------
    Lower and upper ends, ``(p,)`` each; resamples without a value do not count, NaN where none has one.
    """
    found = []
    for _ in range(n_boot):
        drawn: list[np.ndarray] = []
        for arrays in samples:
            rows = rng.integers(len(arrays[0]), size=len(arrays[0]))
            drawn += [one[rows] for one in arrays]
        found.append(statistic(*drawn))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN columns
        low, high = np.nanquantile(np.stack(found), [TAIL, 1 - TAIL], axis=0)
    return low, high


def check_counts(n_perm: int, n_boot: int) -> None:
    """Refuse numbers of permutations and resamples that say nothing."""
    if n_perm < 19:
        raise GlasError(f"n_perm must be at least 19, for a p-value to be 0.05, got {n_perm}")
    if n_boot < 0:
        raise GlasError(f"n_boot must be 0 (no interval) or more, got {n_boot}")
