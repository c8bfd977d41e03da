"""Spread the scores of points over a map (Eq. 3), and normalise maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from glas3d.core.gaussian import gaussian_masks
from glas3d.core.settings import Distance

# Weights, and values, that are held at a time (4 MiB of float32 each).
_AT_A_TIME = 2**20
# Least number of points at a time, where there are as many: a matrix product of few is slow.
_POINTS = 64


def spread(
    points: np.ndarray,
    values: np.ndarray,
    shape: Sequence[int],
    sigma: Sequence[float],
    distance: Distance = "euclidean",
    *,
    spacing: Sequence[float] | None = None,
) -> np.ndarray:
    """Return the saliency maps of scored points (Eq. 3).

    ``S(x) = 1/m * sum_i exp(-D(x, mu_i) / sigma^2) * values_i``, with ``D`` the Euclidean distance or,
    for ``distance="squared"``, its square. Both weights are kernels of `glas3d.core.gaussian`: the
    exponential one, and a Gaussian of ``sigma / sqrt(2)``.

    Parameters
    ----------
    points
        ``(m, ndim)`` voxel coordinates.
    values
        ``(k, m)``: ``k`` maps are made from one pass over the weights.
    shape
        Voxels on each axis.
    sigma
        One value for each axis, in units of ``spacing``; they may differ for ``distance="squared"`` only.
    distance
        ``"euclidean"`` or ``"squared"``.
    spacing
        Size of a voxel on each axis; None means 1.

    Returns
    -------
    ``(k, *shape)`` float32, unnormalised.
    """
    shape = tuple(shape)
    if distance == "squared":
        weights = gaussian_masks(points, shape, [s / math.sqrt(2) for s in sigma], "gaussian", spacing=spacing)
    else:
        weights = gaussian_masks(points, shape, sigma, "exponential", spacing=spacing)
    scores = torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float64)
    # Scores span many orders of magnitude (gamma alone is 1e-5): they are scaled to 1 before they become float32.
    scale = scores.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    scaled = (scores / scale).to(torch.float32)
    (k, m), plane = scores.shape, math.prod(shape[1:])
    # a slab of all maps at a time, from some points at a time: only the maps themselves grow with their number
    depth = max(1, _AT_A_TIME // (plane * max(k, min(m, _POINTS))))
    count = max(1, min(m, _AT_A_TIME // (plane * depth)))
    maps = torch.empty((k, *shape))
    for top in range(0, shape[0], depth):
        slab = weights.slab(slice(top, top + depth))
        size = (slab.terms[0].shape[1], *shape[1:])
        buffer = torch.empty((count, *size))
        total = torch.zeros((k, math.prod(size)), dtype=torch.float64)
        for start in range(0, m, count):
            masks = slab.masks(start, buffer[: min(count, m - start)])
            total += scaled[:, start : start + count] @ masks.reshape(len(masks), -1)
        total *= scale / m
        maps[:, top : top + depth] = total.reshape(k, *size)
    return maps.numpy()


def positive_share(values: np.ndarray) -> np.ndarray:
    """Scale signed values to [0, 1] with their zero kept: negative ones become 0, the largest becomes 1.

    Examples
    --------
    >>> positive_share(np.array([-3.0, 1.0, 2.0]))
    array([0. , 0.5, 1. ])
    >>> positive_share(np.array([-3.0, 0.0]))
    array([0., 0.])
    """
    positive = np.maximum(values, 0)
    largest = float(positive.max())
    return np.asarray(positive / largest if largest > 0 else positive)


def minmax(saliency: np.ndarray) -> np.ndarray:
    """Scale a map to [0, 1]; a map of one value becomes all zero.

    Examples
    --------
    >>> minmax(np.array([2.0, 4.0, 3.0]))
    array([0. , 1. , 0.5])
    >>> minmax(np.array([2.0, 2.0]))
    array([0., 0.])
    """
    low, high = float(saliency.min()), float(saliency.max())
    if not high > low:
        return np.zeros_like(saliency)
    return (saliency - low) / (high - low)
