"""Masks in the shape of a segment: its ellipsoid, or the segment itself, smoothed.

Both are what a Gaussian of ``sigma`` makes of a segment. Blurring the segment's indicator gives the smoothed segment;
its first two moments, the centroid and ``C + sigma^2``, give the ellipsoid. With ``sigma`` large against the segment
both become the round mask of `glas3d.core.gaussian`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import torch
from torch.nn.functional import threshold

from glas3d.core.gaussian import NEGLIGIBLE_FACTOR
from glas3d.core.search import Segments
from glas3d.errors import GlasError

_NEGLIGIBLE_EXPONENT = 30.0  # exp(-30) is below NEGLIGIBLE_FACTOR
# Distance, in sigmas, at which a Gaussian falls below NEGLIGIBLE_FACTOR: masks are 0 beyond it.
_REACH = math.sqrt(-2 * math.log(NEGLIGIBLE_FACTOR))
# In voxels. A segment that is flat or a single voxel has no extent of its own, and float32 must hold the inverse.
_SMALLEST_SIGMA = 1e-3
_LARGEST_VARIANCE = 1e30  # the mask of an infinite sigma is 1 everywhere

Box = tuple[slice, ...]


def _voxels(segments: Segments) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates ``(v, ndim)`` of all voxels of segments, and the segment ``(v,)`` of each.

    Raises
    ------
    GlasError
        A segment without a voxel, which has no shape.
    """
    order = np.argsort(segments.index)
    voxels = np.argwhere(np.isin(segments.labels, segments.index))
    owner = order[np.searchsorted(segments.index[order], segments.labels[tuple(voxels.T)])]
    missing = np.flatnonzero(np.bincount(owner, minlength=len(segments.index)) == 0)
    if missing.size:
        raise GlasError(
            f"a mask of its segment's shape needs a voxel of it, segment {segments.index[missing[0]]} has none "
            f"on the grid of {segments.labels.shape}"
        )
    return voxels, owner


def covariances(segments: Segments) -> np.ndarray:
    """Return the covariance of each segment's voxel coordinates, ``(m, ndim, ndim)`` in voxels squared."""
    voxels, owner = _voxels(segments)
    m, ndim = len(segments.index), segments.labels.ndim
    count = np.bincount(owner, minlength=m)
    mean = np.stack([np.bincount(owner, weights=c, minlength=m) / count for c in voxels.T], axis=1)
    centred = voxels - mean[owner]
    covariance = np.empty((m, ndim, ndim))
    for i, j in combinations_with_replacement(range(ndim), 2):
        product = np.bincount(owner, weights=centred[:, i] * centred[:, j], minlength=m) / count
        covariance[:, i, j] = covariance[:, j, i] = product
    return covariance


def boxes(segments: Segments) -> list[Box]:
    """Return the smallest box that holds each segment."""
    voxels, owner = _voxels(segments)
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(len(segments.index)))
    low = np.minimum.reduceat(voxels[order], starts)
    high = np.maximum.reduceat(voxels[order], starts) + 1
    return _boxes(low, high)


def _boxes(low: np.ndarray, high: np.ndarray) -> list[Box]:
    """Return boxes from their first corners ``(m, ndim)``, and one voxel beyond their last."""
    return [
        tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        for first, last in zip(low, high, strict=True)
    ]


@dataclass(frozen=True)
class Ellipsoids:
    """Gaussians that each have a full covariance: ``exp(-(x - mu)' V^-1 (x - mu) / 2)``, 0 where below 1e-10.

    Attributes
    ----------
    offsets
        For each axis ``x - mu``, a tensor ``(m, n_axis)`` float32.
    whitening
        ``(m, ndim, ndim)`` float32, lower triangular ``W`` with ``W' W = V^-1 / 2``: the exponent is the sum of the
        squares of ``W (x - mu)``, which no rounding makes positive, and all but one of them lie in a plane.
    boxes
        The box of each outside of which it is 0.
    """

    offsets: tuple[torch.Tensor, ...]
    whitening: torch.Tensor
    boxes: tuple[Box, ...]

    @classmethod
    def of(
        cls,
        segments: Segments,
        sigma: Sequence[float],
        *,
        spacing: Sequence[float] | None = None,
        device: torch.device | str = "cpu",
    ) -> Ellipsoids:
        """Return the ellipsoid of each segment around its point: covariance ``C + sigma^2``."""
        shape = segments.labels.shape
        scale = np.ones(len(shape)) if spacing is None else np.asarray(spacing, dtype=np.float64)
        # in voxels, so that the smallest sigma is the same for every unit
        smoothing = np.maximum(np.asarray(sigma, dtype=np.float64) / scale, _SMALLEST_SIGMA)
        with np.errstate(over="ignore"):
            variance = np.minimum(smoothing**2, _LARGEST_VARIANCE)
        covariance = covariances(segments) + np.diag(variance)
        whitening = np.linalg.inv(np.linalg.cholesky(covariance)) * math.sqrt(0.5)
        offsets = [np.arange(n)[None, :] - segments.points[:, axis, None] for axis, n in enumerate(shape)]
        reach = np.minimum(_REACH * np.sqrt(np.einsum("mii->mi", covariance)), 2.0 * max(shape))
        low = np.clip(np.ceil(segments.points - reach), 0, shape).astype(int)
        high = np.clip(np.floor(segments.points + reach) + 1, low, shape).astype(int)
        return cls(
            tuple(torch.as_tensor(o, dtype=torch.float32, device=device) for o in offsets),
            torch.as_tensor(np.tril(whitening), dtype=torch.float32, device=device),
            tuple(_boxes(low, high)),
        )

    def __len__(self) -> int:
        return len(self.whitening)

    def masks(self, start: int, out: torch.Tensor) -> torch.Tensor:
        """Write masks into ``out`` as `glas3d.core.gaussian.Masks` says."""
        out.zero_()
        for number, row in enumerate(out, start):
            self.write(number, row)
        return out

    def write(self, number: int, out: torch.Tensor) -> Box:
        """Write one mask into its box of a volume of zeros (see `glas3d.core.gaussian.BoxedMasks`)."""
        box, weight, last = self.boxes[number], self.whitening[number], len(self.offsets) - 1
        along = []
        for axis, (offset, own) in enumerate(zip(self.offsets, box, strict=True)):
            along.append(offset[number, own].view([-1 if a == axis else 1 for a in range(last + 1)]))
        inside, in_planes = out[box], torch.zeros_like(along[0])
        for k in range(last):
            in_planes = in_planes + sum(weight[k, i] * along[i] for i in range(k + 1)) ** 2
        across = sum(weight[last, i] * along[i] for i in range(last))
        # in place: fresh memory costs more than the arithmetic; clamped: exp is slow where it gives denormals
        torch.add(across, weight[last, last] * along[last], out=inside)
        inside.square_().add_(in_planes).clamp_(max=_NEGLIGIBLE_EXPONENT).neg_().exp_()
        threshold(inside, NEGLIGIBLE_FACTOR, 0.0, inplace=True)
        return box


class SoftSegments:
    """Masks that are each segment's indicator, blurred by a Gaussian of ``sigma`` and scaled to peak 1.

    Factors and values below 1e-10 are 0. A blur is one small matrix for each axis, applied to the segment's own box;
    the part of it that leaves the volume is lost.
    """

    def __init__(
        self,
        segments: Segments,
        sigma: Sequence[float],
        *,
        spacing: Sequence[float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = segments.labels.shape
        scale = [1.0] * len(shape) if spacing is None else [float(s) for s in spacing]
        self._blur = []
        for n, s, voxel in zip(shape, sigma, scale, strict=True):
            position = np.arange(n, dtype=np.float64) * voxel
            with np.errstate(over="ignore", under="ignore"):
                weight = np.exp(-0.5 * ((position[:, None] - position[None, :]) / s) ** 2)
            weight[weight < NEGLIGIBLE_FACTOR] = 0.0
            self._blur.append(torch.as_tensor(weight, dtype=torch.float32, device=device))
        reach = [min(_REACH * s / voxel, 2.0 * n) for n, s, voxel in zip(shape, sigma, scale, strict=True)]
        self._segments: list[tuple[torch.Tensor, Box, Box]] = []
        for value, box in zip(segments.index, boxes(segments), strict=True):
            inside = torch.as_tensor(segments.labels[box] == value, dtype=torch.float32, device=device)
            wide = tuple(
                slice(max(0, own.start - math.ceil(r)), min(n, own.stop + math.ceil(r)))
                for own, r, n in zip(box, reach, shape, strict=True)
            )
            self._segments.append((inside, box, wide))

    def __len__(self) -> int:
        return len(self._segments)

    def masks(self, start: int, out: torch.Tensor) -> torch.Tensor:
        """Write masks into ``out`` as `glas3d.core.gaussian.Masks` says."""
        out.zero_()
        for number, row in enumerate(out, start):
            self.write(number, row)
        return out

    def write(self, number: int, out: torch.Tensor) -> Box:
        """Write one mask into its box of a volume of zeros (see `glas3d.core.gaussian.BoxedMasks`)."""
        spread, box, wide = self._segments[number]
        for matrix, own, reached in zip(self._blur, box, wide, strict=True):
            # each contracts the first axis and puts its blur last: after all of them the axes are in order again
            spread = torch.tensordot(spread, matrix[own, reached], dims=([0], [0]))
        torch.div(spread, spread.max(), out=out[wide])
        threshold(out[wide], NEGLIGIBLE_FACTOR, 0.0, inplace=True)
        return wide

    def added(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the sums of the masks, each within its own box (see `glas3d.core.gaussian.AddedMasks`)."""
        shape = [len(matrix) for matrix in self._blur]
        buffer, total = (torch.zeros(shape, device=self._blur[0].device) for _ in range(2))
        sums = torch.empty(len(self), dtype=torch.float64)
        for number in range(len(self)):
            wide = self.write(number, buffer)
            mask = buffer[wide]
            sums[number] = mask.sum(dtype=torch.float64)
            total[wide] += mask
            mask.zero_()
        return sums, total
