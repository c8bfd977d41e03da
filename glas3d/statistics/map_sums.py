"""Mean, variance and overlap of maps that come one at a time, in memory that does not grow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from glas3d.core.saliency import minmax
from glas3d.errors import GlasError


class MapSums:
    """Sums over the maps of a group.

    Three numbers a voxel are kept: the mean, the squares about it (Welford's, so that maps far from 0 lose no
    digits) and how many maps had the voxel in their top. Two of them can be merged, so that workers can share
    a group; the order does not matter beyond rounding.

    Parameters
    ----------
    shape
        Of every map: volumes, or regions.
    top
        A voxel is in a map's top when fewer than ``top`` % of its voxels are higher, and not all are alike.
    weights
        Voxels each value stands for, for ``top``: 1 and 0 for a mask, numbers of voxels for regions. None: 1 each.

    Raises
    ------
    GlasError
        ``top`` not above 0 and at most 100, or weights of another shape.

    Examples
    --------
    >>> sums = MapSums((3,), top=40)
    >>> sums.add(np.array([0.0, 1.0, 3.0]))
    >>> sums.add(np.array([2.0, 1.0, 0.0]))
    >>> sums.mean, sums.variance, sums.overlap
    (array([1. , 1. , 1.5]), array([2. , 0. , 4.5]), array([0.5, 1. , 0.5]))
    """

    def __init__(self, shape: Sequence[int], top: float = 5.0, weights: np.ndarray | None = None) -> None:
        if not 0 < top <= 100:
            raise GlasError(f"top must be a percentage above 0 and at most 100, got {top}")
        if weights is not None and weights.shape != tuple(shape):
            raise GlasError(f"weights must have the maps' shape {tuple(shape)}, got {weights.shape}")
        self.shape, self.top, self.weights = tuple(shape), top, weights
        self._n = 0
        self._mean, self._squares = np.zeros(self.shape), np.zeros(self.shape)
        self._in_top = np.zeros(self.shape, dtype=np.int32)

    def __len__(self) -> int:
        return self._n

    def add(self, values: np.ndarray) -> None:
        """Add one map; where it is NaN the sums become NaN.

        Raises
        ------
        GlasError
            Another shape.
        """
        if values.shape != self.shape:
            raise GlasError(f"maps of a group must share a shape: {values.shape} came, those before are {self.shape}")
        values = np.asarray(values, dtype=np.float64)
        self._n += 1
        away = values - self._mean
        self._mean += away / self._n
        self._squares += away * (values - self._mean)
        self._in_top += self._tops(values)

    def merge(self, other: MapSums) -> MapSums:
        """The sums over both groups' maps; neither is changed.

        Raises
        ------
        GlasError
            Another shape, top or weights.
        """
        alike = self.weights is other.weights or (
            self.weights is not None and other.weights is not None and np.array_equal(self.weights, other.weights)
        )
        if self.shape != other.shape or self.top != other.top or not alike:
            raise GlasError(
                f"sums must be of one shape, top and weights to be merged, got {self.shape} and {other.shape}, "
                f"{self.top:g} % and {other.top:g} %"
            )
        both = MapSums(self.shape, self.top, self.weights)
        both._n = self._n + other._n
        share = other._n / max(both._n, 1)
        away = other._mean - self._mean
        both._mean = self._mean + away * share
        both._squares = self._squares + other._squares + away**2 * (self._n * share)
        both._in_top = self._in_top + other._in_top
        return both

    @property
    def mean(self) -> np.ndarray:
        """Mean over the maps; NaN before the first."""
        return self._mean.copy() if self._n else np.full(self.shape, np.nan)

    @property
    def variance(self) -> np.ndarray:
        """Sample variance (n - 1); NaN before the second map."""
        return np.asarray(self._squares / (self._n - 1)) if self._n > 1 else np.full(self.shape, np.nan)

    @property
    def overlap(self) -> np.ndarray:
        """Share of the maps that have the voxel in their top; NaN where a map has no value."""
        share = self._in_top / self._n if self._n else np.full(self.shape, np.nan)
        return np.where(np.isnan(self._mean), np.nan, share)

    def combined(self) -> np.ndarray:
        """The maps' linear combination, min-max normalised (the paper, IV.E)."""
        total = self.mean
        known = np.isfinite(total)
        if known.any():
            total[known] = minmax(total[known])
        return np.asarray(total)

    def _tops(self, values: np.ndarray) -> np.ndarray:
        known = np.asarray(np.isfinite(values))
        if self.weights is not None:
            known &= self.weights > 0
        found = values[known]
        if not found.size:
            return known
        if self.weights is None:
            low, place = found.min(), self._place(found.size)
            limit = np.partition(found, place)[place]
        else:
            order = np.argsort(found)
            voxels = np.cumsum(self.weights[known][order])
            low = found[order[0]]
            limit = found[order[np.searchsorted(voxels, self._place(int(voxels[-1])), side="right")]]
        return np.asarray(known & (values >= limit) & (values > low))

    def _place(self, voxels: int) -> int:
        """Position, counted from the lowest, of the last voxel that has less than ``top`` % above it."""
        return voxels - max(1, math.ceil(self.top * voxels / 100 - 1e-9))


def two_sample_t(case: MapSums, control: MapSums) -> tuple[np.ndarray, int]:
    """Student's t of two groups from their sums, without covariates.

    Parameters
    ----------
    case, control
        Sums of the same shape.

    Returns
    -------
    t of ``case - control`` with pooled variance, NaN where nothing varies, and its degrees of freedom.

    Raises
    ------
    GlasError
        Other shapes, or a group of fewer than two maps.
    """
    if case.shape != control.shape:
        raise GlasError(f"two groups must share a shape to be compared, got {case.shape} and {control.shape}")
    if min(len(case), len(control)) < 2:
        raise GlasError(f"a t map needs at least 2 maps a group, got {len(case)} and {len(control)}")
    dof = len(case) + len(control) - 2
    pooled = ((len(case) - 1) * case.variance + (len(control) - 1) * control.variance) / dof
    error = np.sqrt(pooled * (1 / len(case) + 1 / len(control)))
    difference = case.mean - control.mean
    return np.divide(difference, error, out=np.full(case.shape, np.nan), where=error > 0), dof
