"""Surrogates: random maps that are as smooth and as symmetric as a given map, and have its values.

Two smooth maps, or two symmetric ones, look alike by chance far more often than permuted voxels would. A surrogate
keeps what makes them so (Burt et al. 2020, doi:10.1016/j.neuroimage.2020.117038): the map's variogram is fitted, and
random fields of the fitted covariance get the map's own values by rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.fft import fftn, irfftn, next_fast_len, rfftn
from scipy.special import ndtri

from glas3d.errors import GlasError

_FITTED = 0.25  # quantile of the pairs' distances up to which variograms are fitted (Burt et al. 2020)
_LENGTHS = 40  # candidates, from a third of a voxel to the size of the map
_SHAPES = (0.75, 1.0, 1.5, 2.0)  # exponents of the covariance, all valid in three dimensions up to 2
_NUGGETS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9)
_DEGREE = 40  # of the Hermite expansion
_LEAST = 0.02  # correlation below which voxels count as unrelated
_FEWEST = 10  # voxels


@dataclass(frozen=True, eq=False, repr=False)
class SpatialSurrogates:
    """Random maps with the values, the smoothness and the symmetry of a map.

    A surrogate is a Gaussian field whose values are replaced, rank by rank, by those of the map. The field's
    correlation at a distance of ``h`` mm is ``(1 - nugget) exp(-(h / length) ** shape)``. The share ``symmetry`` of its
    variance is a field that is reflected at the middle of the first axis, as brains are alike on both sides.

    Attributes
    ----------
    values
        ``(n,)`` float64, the values of the map in its voxels, ascending.
    inside
        ``(x, y, z)`` booleans, the voxels of the map, in the least box that holds them and their reflections.
    spacing
        Size of a voxel in mm, along each axis.
    length
        Distance in mm at which the correlation has fallen to 37 %, apart from the nugget.
    shape
        Exponent of the covariance, from 0.75 to 2, the smoothest.
    nugget
        Share of the variance that a voxel shares with no other, from 0 to 1.
    symmetry
        Share of the variance that both sides share, from 0 to 1.
    """

    values: np.ndarray
    inside: np.ndarray
    spacing: tuple[float, ...]
    length: float
    shape: float
    nugget: float
    symmetry: float

    @classmethod
    def fit(
        cls, volume: np.ndarray, inside: np.ndarray, spacing: Sequence[float], *, symmetric: bool = True
    ) -> SpatialSurrogates:
        """Fit the smoothness and the symmetry of a map.

        The variogram of the map over all pairs of voxels, up to the 25th percentile of their distances, is compared
        with that of surrogates. The map's values need not be Gaussian: how much the correlation of a Gaussian field
        changes when it gets them follows from their Hermite expansion (Chiles & Delfiner 2012, Geostatistics, 6.4).

        Parameters
        ----------
        volume
            ``(x, y, z)``, the map.
        inside
            ``(x, y, z)`` booleans, the voxels that count.
        spacing
            Size of a voxel in mm, along each axis.
        symmetric
            Whether the two sides of the first axis are compared. Default: yes.

        Raises
        ------
        GlasError
            The shapes do not fit, there are fewer than 10 voxels, or all have the same value.
        """
        inside = np.asarray(inside, dtype=bool)
        if inside.ndim != 3 or inside.shape != volume.shape or len(spacing) != 3:
            raise GlasError(
                f"surrogates need a map (x, y, z), a mask of its shape and three voxel sizes, got {volume.shape}, "
                f"{inside.shape} and {len(spacing)}"
            )
        box = _box(inside)
        volume, inside = volume[box], inside[box]
        values = np.asarray(volume, dtype=np.float64)[inside]
        if len(values) < _FEWEST or np.ptp(values) == 0:
            raise GlasError(f"surrogates need a map of at least {_FEWEST} voxels that differ, got {len(values)} voxels")
        standard = np.zeros(inside.shape)
        standard[inside] = (values - values.mean()) / values.std()
        ordered = np.sort(standard[inside])
        weights = _hermite(ordered)
        pairs = _variogram(standard, inside, spacing)
        length, shape, nugget = _fitted(pairs, weights, min(spacing))
        made = cls(np.sort(values), inside, tuple(map(float, spacing)), length, shape, nugget, 0.0)
        symmetry = made._symmetry(standard, pairs, weights) if symmetric else 0.0
        return cls(made.values, inside, made.spacing, length, shape, nugget, symmetry)

    def __repr__(self) -> str:
        fitted = f"length {self.length:.3g} mm, shape {self.shape:g}, nugget {self.nugget:g}"
        return f"SpatialSurrogates({len(self.values)} voxels: {fitted}, symmetry {self.symmetry:z.2f})"

    def correlation(self, distance: np.ndarray) -> np.ndarray:
        """Return the correlation of the Gaussian field at distances in mm, without its symmetric part."""
        return _correlation(np.asarray(distance, dtype=np.float64), self.length, self.shape, self.nugget)

    def draws(self, n: int, seed: int = 0) -> Iterator[np.ndarray]:
        """Generate surrogates, ``(voxels,)`` float64 each, in the order of ``inside``.

        Parameters
        ----------
        n
            How many.
        seed
            Seed of the random numbers.
        """
        rng = np.random.default_rng(seed)
        for field in self._fields(n, rng):
            surrogate = np.empty_like(self.values)
            surrogate[np.argsort(field[self.inside], kind="stable")] = self.values
            yield surrogate

    def _fields(self, n: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Generate Gaussian fields by circulant embedding (Dietrich & Newsam 1997), ``(x, y, z)`` float32 each."""
        counts = self.inside.shape
        far = self.length * np.log(1 / _LEAST) ** (1 / self.shape)
        padding = [min(k, int(np.ceil(far / width))) for k, width in zip(counts, self.spacing, strict=True)]
        box = [next_fast_len(k + more) for k, more in zip(counts, padding, strict=True)]
        wrapped = [np.minimum(np.arange(k), k - np.arange(k)) * w for k, w in zip(box, self.spacing, strict=True)]
        spectrum = fftn(self.correlation(_norm(wrapped))).real.clip(min=0)  # the box is finite: some are just below 0
        scale = np.sqrt(spectrum / spectrum.sum()).astype(np.float32)
        part, half = tuple(slice(k) for k in counts), counts[0] // 2
        for _ in range(n):
            noise = rng.standard_normal((2, *box), dtype=np.float32)
            both = fftn(scale * (noise[0] + 1j * noise[1]))[part]
            mirrored = both.imag.copy()
            mirrored[:half] = mirrored[::-1][:half]
            yield np.sqrt(1 - self.symmetry) * both.real + np.sqrt(self.symmetry) * mirrored

    def _symmetry(self, standard: np.ndarray, pairs: _Pairs, weights: np.ndarray) -> float:
        """Return the share of the variance by which voxels are as unlike their reflections as those of the map are."""
        both = self.inside & self.inside[::-1]
        both[self.inside.shape[0] // 2 :] = False  # each pair once, and no voxel with itself
        if not both.any():
            return 0.0
        observed = float(((standard - standard[::-1])[both] ** 2).mean() / 2)
        apart = (self.inside.shape[0] - 1 - 2 * np.argwhere(both)[:, 0]) * self.spacing[0]
        distances, counts = np.unique(apart, return_counts=True)
        shares = np.linspace(0, 1, 101)[:, None]
        unlike = 1 - _value_correlation(shares + (1 - shares) * self.correlation(distances), weights)
        usual = pairs.mean(1 - _value_correlation(self.correlation(pairs.distance), weights))
        expected = unlike @ counts / counts.sum() / usual
        return float(shares[np.argmin(np.abs(expected - observed)), 0])


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs of voxels by their distance; ordered pairs, those of a voxel with itself first.

    Attributes
    ----------
    distance
        ``(b,)`` mean distance in mm.
    count
        ``(b,)`` number of pairs.
    variogram
        ``(b,)`` half the mean squared difference of the map, whose variance is 1.
    """

    distance: np.ndarray
    count: np.ndarray
    variogram: np.ndarray

    def mean(self, of_bins: np.ndarray) -> np.ndarray:
        """Return the mean over all pairs of what is known for each distance, ``(..., b)``."""
        return np.asarray(of_bins @ self.count / self.count.sum())


def _variogram(standard: np.ndarray, inside: np.ndarray, spacing: Sequence[float]) -> _Pairs:
    """Return the variogram of a standardised map over all pairs of voxels, by Fourier transforms (Marcotte 1996)."""
    box = [next_fast_len(2 * k, real=True) for k in inside.shape]
    mask, map_, square = (rfftn(each, box) for each in (inside.astype(np.float64), standard, standard**2))
    count = np.rint(irfftn(mask * mask.conj(), box))
    unlike = irfftn(square * mask.conj() - map_ * map_.conj(), box)
    lags = [np.minimum(np.arange(k), k - np.arange(k)) * w for k, w in zip(box, spacing, strict=True)]
    distance = _norm(lags)
    bins = np.rint(distance / max(spacing)).astype(int).ravel()
    bins = np.where(distance.ravel() > 0, np.maximum(bins, 1), 0)
    totals = np.bincount(bins, count.ravel())
    known = totals > 0
    sums = (np.bincount(bins, weights.ravel())[known] for weights in (distance * count, unlike))
    means = [each / totals[known] for each in sums]
    return _Pairs(means[0], totals[known], means[1])


def _box(inside: np.ndarray) -> tuple[slice, ...]:
    """Return the least box that holds the voxels of a mask, and their reflections at the middle of the first axis."""
    both = inside | inside[::-1]
    used = [np.flatnonzero(both.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(int(each[0]), int(each[-1]) + 1) if len(each) else slice(0) for each in used)


def _norm(axes: Sequence[np.ndarray]) -> np.ndarray:
    """Return the length of every vector of a grid by its components along each axis."""
    return np.asarray(np.sqrt(sum(each**2 for each in np.ix_(*axes))))


def _correlation(distance: np.ndarray, length: float, shape: float, nugget: float) -> np.ndarray:
    return np.asarray(np.where(distance > 0, (1 - nugget) * np.exp(-((distance / length) ** shape)), 1.0))


def _hermite(ordered: np.ndarray) -> np.ndarray:
    """Return the share of the variance of each degree of the function from Gaussian to these values, ``(degrees,)``."""
    normal = ndtri((np.arange(len(ordered)) + 0.5) / len(ordered))
    before, polynomial = np.zeros_like(normal), np.ones_like(normal)
    weights = np.zeros(_DEGREE + 2)
    for k in range(_DEGREE):
        before, polynomial = polynomial, (normal * polynomial - np.sqrt(k) * before) / np.sqrt(k + 1)
        weights[k + 1] = (ordered * polynomial).mean() ** 2
    weights[-1] = max(1 - weights.sum(), 0.0)
    return np.asarray(weights / weights.sum())


def _value_correlation(correlation: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the correlation of the values that replace those of a Gaussian field with this correlation."""
    return np.asarray(np.polynomial.polynomial.polyval(correlation, weights))


def _fitted(pairs: _Pairs, weights: np.ndarray, smallest: float) -> tuple[float, float, float]:
    """Return length, shape and nugget of the surrogates whose variogram is nearest to that of the map."""
    reached = np.cumsum(pairs.count) / pairs.count.sum() <= _FITTED
    reached[: min(4, len(reached))] = True
    reached[0] = False
    lengths = np.geomspace(smallest / 3, pairs.distance[-1], _LENGTHS)
    candidates = list(product(lengths, _SHAPES, _NUGGETS))
    correlations = np.stack([_correlation(pairs.distance, *each) for each in candidates])
    unlike = 1 - _value_correlation(correlations, weights)
    # The variance within a map that is smooth over its whole size is below that of the field; this is 1 in both.
    expected = unlike / pairs.mean(unlike)[:, None]
    misfit = ((expected - pairs.variogram)[:, reached] ** 2).sum(axis=1)
    length, shape, nugget = candidates[int(misfit.argmin())]
    return float(length), float(shape), float(nugget)
