"""Scores to a map: Eq. 3 for points, painting for segments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from glas3d.core.gaussian import spots

Distance = Literal["euclidean", "squared"]

# Weights of this many voxels are held at a time (16 MiB of float32).
_CHUNK_VOXELS = 2**22


def spread(
    points: np.ndarray,
    values: np.ndarray,
    shape: Sequence[int],
    sigma: Sequence[float],
    distance: Distance = "euclidean",
    *,
    spacing: Sequence[float] | None = None,
) -> np.ndarray:
    """The saliency map of scored points (Eq. 3).

    ``S(x) = 1/m * sum_i exp(-D(x, mu_i) / sigma^2) * values_i``, with ``D`` the Euclidean distance or,
    for ``distance="squared"``, its square. Both weights are kernels of `glas3d.core.gaussian`: the
    exponential one, and a Gaussian of ``sigma / sqrt(2)``.

    Parameters
    ----------
    points
        ``(m, ndim)`` voxel coordinates.
    values
        ``(k, m)``: ``k`` maps are made from one pass over the weights.
    sigma
        One value an axis; they may differ for ``distance="squared"`` only.

    Returns
    -------
    ``(k, *shape)`` float32, unnormalised.
    """
    shape = tuple(shape)
    if distance == "squared":
        weights = spots(points, shape, [s / math.sqrt(2) for s in sigma], "gaussian", spacing=spacing)
    else:
        weights = spots(points, shape, sigma, "exponential", spacing=spacing)
    m, voxels = len(points), math.prod(shape)
    chunk = max(1, min(m, _CHUNK_VOXELS // voxels))
    buffer = torch.empty((chunk, *shape))
    scores = torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float64)
    # Scores span many orders of magnitude (gamma alone is 1e-5): scaled to 1 before float32 meets them.
    scale = scores.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    scaled = (scores / scale).to(torch.float32)
    total = torch.zeros((len(scores), voxels), dtype=torch.float64)
    for start in range(0, m, chunk):
        masks = weights.masks(start, buffer[: min(chunk, m - start)])
        total += scaled[:, start : start + chunk] @ masks.reshape(len(masks), voxels)
    total *= scale / m
    return total.reshape(len(scores), *shape).to(torch.float32).numpy()


def minmax(saliency: np.ndarray) -> np.ndarray:
    """Scale a map to [0, 1]; a flat map becomes all zero.

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
