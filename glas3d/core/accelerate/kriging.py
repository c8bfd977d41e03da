"""Estimate a smooth function at all points from its values at some (Gaussian-process regression, kriging)."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch

# Correlation lengths tried, in mean distances of neighbouring points; the likeliest one is taken.
_LENGTHS = (0.7, 1.0, 1.5, 2.0, 3.0, 4.5)
_NUGGET = 1e-6  # added to correlations: close points stay independent enough to invert in spite of rounding


class Kriging:
    """A smooth function whose values are known at some points, estimated at all.

    The covariance is Matern's of smoothness 5/2, of the likeliest of some correlation lengths. With ``K = L L^T`` over
    the known points, one factor ``L`` extended to all points gives the estimate and its variance.

    Parameters
    ----------
    points
        ``(m, ndim)`` coordinates, in mean distances of neighbouring points.
    known
        ``(q,)`` indices of the points at which values are known.
    values
        ``(q,)`` the values there.

    Attributes
    ----------
    estimate
        ``(m,)`` expected value at every point.
    length
        The likeliest correlation length.
    """

    def __init__(self, points: np.ndarray, known: np.ndarray, values: np.ndarray) -> None:
        self._points = points
        centred = values - values.mean()
        known_points = points[known]
        distance = _distances(known_points, known_points)
        best = math.inf
        for length in _LENGTHS:
            factor = np.linalg.cholesky(_matern(distance / length) + _NUGGET * np.eye(len(known)))
            white = _solve(factor, centred[:, None])[:, 0]
            variance = max(float((white**2).mean()), float(np.finfo(np.float64).tiny))
            # minus the log likelihood, with the variance that makes it largest
            cost = 0.5 * len(known) * math.log(variance) + float(np.log(np.diagonal(factor)).sum())
            if cost < best:
                best, self.length, self._variance = cost, length, variance
                lower, weights = factor, white
        self._rows = _solve(lower, self._covariance(known_points))
        self._size = len(known)
        self.estimate = values.mean() + weights @ self._rows
        # share of the variance that the known values leave at each point
        self._unexplained = np.clip(1 - (self._rows**2).sum(axis=0), 0, None)

    @property
    def deviation(self) -> np.ndarray:
        """``(m,)`` standard deviation of the estimate."""
        return np.asarray(np.sqrt(self._variance * self._unexplained))

    def at(self, subset: np.ndarray, capacity: int) -> Kriging:
        """Return the same estimate at a subset of the points, to which ``capacity`` known points can be added."""
        part = copy.copy(self)
        part._points, part.estimate = self._points[subset], self.estimate[subset]
        part._unexplained = self._unexplained[subset]
        part._rows = np.zeros((self._size + capacity, len(subset)))
        part._rows[: self._size] = self._rows[:, subset]
        return part

    def add(self, point: int) -> None:
        """Make a point known, whatever its value: deviations near it become smaller, estimates stay."""
        rows = self._rows[: self._size]
        row = self._covariance(self._points[[point]])[0] - rows[:, point] @ rows
        row /= math.sqrt(self._unexplained[point] + _NUGGET)
        self._rows[self._size] = row
        self._size += 1
        self._unexplained = np.clip(self._unexplained - row**2, 0, None)

    def _covariance(self, points: np.ndarray) -> np.ndarray:
        return _matern(_distances(points, self._points) / self.length)


def farthest_points(points: np.ndarray, count: int) -> np.ndarray:
    """Choose points that are spread evenly: from the middle one on, each is the farthest from those before it.

    Parameters
    ----------
    points
        ``(m, ndim)`` coordinates.
    count
        How many to choose.

    Returns
    -------
    ``(count,)`` their indices, in that order.
    """
    from_middle = ((points - points.mean(axis=0)) ** 2).sum(axis=1)
    chosen = [int(from_middle.argmin())]
    nearest = np.full(len(points), np.inf)
    for _ in range(count - 1):
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(nearest.argmax()))
    return np.array(chosen)


def _distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    a, b = (torch.as_tensor(np.ascontiguousarray(array)) for array in (points, others))
    return np.asarray(torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").numpy())


def _matern(distance: np.ndarray) -> np.ndarray:
    r = torch.as_tensor(distance) * math.sqrt(5)
    decay = r.neg().exp_()
    return np.asarray((r * r).div_(3).add_(r).add_(1).mul_(decay).numpy())


def _solve(lower: np.ndarray, right: np.ndarray) -> np.ndarray:
    a, b = torch.as_tensor(lower), torch.as_tensor(np.ascontiguousarray(right))
    return np.asarray(torch.linalg.solve_triangular(a, b, upper=False).numpy())
