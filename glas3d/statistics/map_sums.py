"""Mean, variance and overlap of maps that come one at a time, in memory that does not grow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from glas3d.core.saliency import minmax
from glas3d.errors import GlasError


def combination(total: np.ndarray, *, signed: bool = False) -> np.ndarray:
    """Return a sum of maps, min-max normalised (the paper, IV.E); NaN stays.

    Parameters
    ----------
    total
        The sum, of any shape.
    signed
        Whether the maps are of signed evidence: it is divided by its largest absolute value, so that 0 stays 0.

    Examples
    --------
    >>> combination(np.array([-1.0, 0.0, 4.0])), combination(np.array([-1.0, 0.0, 4.0]), signed=True)
    (array([0. , 0.2, 1. ]), array([-0.25,  0.  ,  1.  ]))
    """
    combined = total.copy()
    known = np.isfinite(combined)
    if signed:
        largest = np.abs(combined[known]).max(initial=0.0)
        return combined / largest if largest > 0 else combined
    if known.any():
        combined[known] = minmax(combined[known])
    return combined


class MapSums:
    """Sums over the maps of a group.

    Three numbers a voxel are kept: the mean, the squares about it (Welford's, so that maps far from 0 lose no
    digits) and how many maps had the voxel in their top. The order of the maps does not matter beyond rounding.

    Parameters
    ----------
    shape
        Shape of every map: that of a volume, or ``(regions,)``.
    top
        A voxel is in a map's top when fewer than ``top`` % of its voxels are higher, and not all are alike.
    weights
        Number of voxels each value stands for, of the maps' shape, for ``top``: 1 and 0 for a mask, the sizes of
        regions for regions. Default: 1 each.
    lacking
        Whether maps may lack values: sums are then over the maps that have one. Default: where one map has none the
        sums have none.

    Raises
    ------
    GlasError
        ``top`` is not above 0 and at most 100, or the weights have another shape.

    Examples
    --------
    >>> sums = MapSums((3,), top=40)
    >>> sums.add(np.array([0.0, 1.0, 3.0]))
    >>> sums.add(np.array([2.0, 1.0, 0.0]))
    >>> sums.mean, sums.variance, sums.overlap
    (array([1. , 1. , 1.5]), array([2. , 0. , 4.5]), array([0.5, 1. , 0.5]))
    """

    def __init__(
        self, shape: Sequence[int], top: float = 5.0, weights: np.ndarray | None = None, *, lacking: bool = False
    ) -> None:
        if not 0 < top <= 100:
            raise GlasError(f"top must be a percentage above 0 and at most 100, got {top}")
        if weights is not None and weights.shape != tuple(shape):
            raise GlasError(f"weights must have the maps' shape {tuple(shape)}, got {weights.shape}")
        self.shape, self.top, self.weights, self.lacking = tuple(shape), top, weights, lacking
        self._n = 0
        self._counts = np.zeros(self.shape, dtype=np.int64)
        self._mean, self._squares = np.zeros(self.shape), np.zeros(self.shape)
        self._in_top = np.zeros(self.shape, dtype=np.int32)

    def __len__(self) -> int:
        return self._n

    def add(self, values: np.ndarray) -> None:
        """Add one map; where it is NaN the sums become NaN, unless maps may lack values.

        Raises
        ------
        GlasError
            The map has another shape.
        """
        if values.shape != self.shape:
            raise GlasError(f"maps of a group must share a shape: {values.shape} came, those before are {self.shape}")
        values = np.asarray(values, dtype=np.float64)
        self._n += 1
        added = np.isfinite(values) if self.lacking else np.ones(self.shape, dtype=bool)
        self._counts += added
        deviation = np.where(added, values - self._mean, 0)
        self._mean += deviation / np.maximum(self._counts, 1)
        self._squares += deviation * np.where(added, values - self._mean, 0)
        self._in_top += self._top_voxels(values)

    @property
    def counts(self) -> np.ndarray:
        """Number of maps over which each sum is."""
        return self._counts.copy()

    @property
    def mean(self) -> np.ndarray:
        """Mean over the maps; NaN before the first."""
        return np.where(self._counts > 0, self._mean, np.nan)

    @property
    def variance(self) -> np.ndarray:
        """Sample variance over the maps (n - 1); NaN before the second."""
        return np.where(self._counts > 1, self._squares / np.maximum(self._counts - 1, 1), np.nan)

    @property
    def overlap(self) -> np.ndarray:
        """Share of the maps that have the voxel in their top; NaN where a map has no value."""
        return np.where(np.isnan(self.mean), np.nan, self._in_top / np.maximum(self._counts, 1))

    def combined(self, *, signed: bool = False) -> np.ndarray:
        """Return the maps' linear combination, normalised as `combination` does."""
        return combination(self.mean, signed=signed)

    def _top_voxels(self, values: np.ndarray) -> np.ndarray:
        """Return which voxels are in one map's top."""
        known = np.asarray(np.isfinite(values))
        if self.weights is not None:
            known &= self.weights > 0
        finite = values[known]
        if not finite.size:
            return known
        if self.weights is None:
            position = self._limit_position(finite.size)
            lowest, limit = finite.min(), np.partition(finite, position)[position]
        else:
            order = np.argsort(finite)
            voxels = np.cumsum(self.weights[known][order])
            position = int(np.searchsorted(voxels, self._limit_position(int(voxels[-1])), side="right"))
            lowest, limit = finite[order[0]], finite[order[position]]
        return np.asarray(known & (values >= limit) & (values > lowest))

    def _limit_position(self, voxels: int) -> int:
        """Return the position, from the lowest, of the lowest voxel that has less than ``top`` % above it."""
        return voxels - max(1, math.ceil(self.top * voxels / 100 - 1e-9))
