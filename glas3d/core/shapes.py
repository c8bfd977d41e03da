"""Spots that take a segment's own shape: its ellipsoid, or the segment itself, softened.

Both are what a Gaussian of ``sigma`` makes of a segment. Blurring the segment's indicator gives the softened segment;
its first two moments, the centroid and ``C + sigma^2``, give the ellipsoid. With ``sigma`` large against the segment
both become the round spot of `glas3d.core.gaussian`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import torch

from glas3d.core.gaussian import NEGLIGIBLE_FACTOR
from glas3d.core.search import Segments


def covariances(segments: Segments) -> np.ndarray:
    """``(m, ndim, ndim)`` covariance of each segment's voxel coordinates, in voxels squared."""
    ndim = segments.labels.ndim
    order = np.argsort(segments.index)
    where = np.argwhere(np.isin(segments.labels, segments.index))
    labels = segments.labels[tuple(where.T)]
    which = order[np.searchsorted(segments.index[order], labels)]
    m = len(segments.index)
    count = np.bincount(which, minlength=m)
    mean = np.stack([np.bincount(which, weights=c, minlength=m) / count for c in where.T], axis=1)
    centred = where - mean[which]
    found = np.empty((m, ndim, ndim))
    for i, j in combinations_with_replacement(range(ndim), 2):
        product = np.bincount(which, weights=centred[:, i] * centred[:, j], minlength=m) / count
        found[:, i, j] = found[:, j, i] = product
    return found


@dataclass(frozen=True)
class Ellipsoids:
    """Gaussians with a full covariance each: ``exp(-(x - mu)' P (x - mu) / 2)``, ``P`` the covariance's inverse.

    Attributes
    ----------
    offsets
        ``x - mu`` an axis, one tensor of shape ``(m, n_axis)`` each, float32.
    precision
        ``(m, ndim, ndim)`` float32.
    """

    offsets: tuple[torch.Tensor, ...]
    precision: torch.Tensor

    @classmethod
    def of(
        cls,
        segments: Segments,
        sigma: Sequence[float],
        *,
        spacing: Sequence[float] | None = None,
        device: torch.device | str = "cpu",
    ) -> Ellipsoids:
        """The ellipsoid of each segment around its point: covariance ``C + sigma^2``, in units of ``spacing``."""
        scale = np.ones(segments.labels.ndim) if spacing is None else np.asarray(spacing, dtype=np.float64)
        covariance = covariances(segments) * np.outer(scale, scale)
        with np.errstate(over="ignore"):
            # an infinite sigma is a spot that is everywhere
            covariance += np.diag(np.minimum(np.square(np.asarray(sigma, dtype=np.float64)), 1e30))
        offsets = [
            (np.arange(n, dtype=np.float64)[None, :] - segments.points[:, axis, None]) * scale[axis]
            for axis, n in enumerate(segments.labels.shape)
        ]
        return cls(
            tuple(torch.as_tensor(o, dtype=torch.float32, device=device) for o in offsets),
            torch.as_tensor(np.linalg.inv(covariance), dtype=torch.float32, device=device),
        )

    def __len__(self) -> int:
        return len(self.precision)

    def masks(self, start: int, out: torch.Tensor) -> torch.Tensor:
        """See `glas3d.core.gaussian.Masks`."""
        stop = start + len(out)
        ndim = len(self.offsets)
        along = []
        for axis, offset in enumerate(self.offsets):
            shape = [len(out)] + [1] * ndim
            shape[axis + 1] = offset.shape[1]
            along.append(offset[start:stop].view(shape))
        out.zero_()
        for i, j in combinations_with_replacement(range(ndim), 2):
            weight = self.precision[start:stop, i, j] * (-0.5 if i == j else -1.0)
            out.addcmul_(along[i] * weight.view(-1, *[1] * ndim), along[j])
        out.exp_()
        return out.masked_fill_(out < NEGLIGIBLE_FACTOR, 0.0)


class SoftSegments:
    """Each segment's indicator blurred by a Gaussian of ``sigma``, peak 1.

    A blur is one small matrix an axis, applied to the segment's own box: exact, without a cut of the kernel.
    What leaves the volume is lost.
    """

    def __init__(
        self,
        segments: Segments,
        sigma: Sequence[float],
        *,
        spacing: Sequence[float] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._boxes: list[tuple[tuple[slice, ...], torch.Tensor]] = []
        for value in segments.index:
            inside = segments.labels == value
            box = []
            for axis in range(inside.ndim):
                others = tuple(a for a in range(inside.ndim) if a != axis)
                found = np.flatnonzero(inside.any(axis=others))
                box.append(slice(int(found[0]), int(found[-1]) + 1))
            own = torch.as_tensor(inside[tuple(box)], dtype=torch.float32, device=device)
            self._boxes.append((tuple(box), own))
        scale = [1.0] * segments.labels.ndim if spacing is None else [float(s) for s in spacing]
        self._blur = []
        for n, s, voxel in zip(segments.labels.shape, sigma, scale, strict=True):
            place = np.arange(n, dtype=np.float64) * voxel
            with np.errstate(over="ignore"):
                weight = np.exp(-0.5 * ((place[:, None] - place[None, :]) / s) ** 2)
            self._blur.append(torch.as_tensor(weight, dtype=torch.float32, device=device))

    def __len__(self) -> int:
        return len(self._boxes)

    def masks(self, start: int, out: torch.Tensor) -> torch.Tensor:
        """See `glas3d.core.gaussian.Masks`."""
        for row, (box, inside) in zip(out, self._boxes[start : start + len(out)], strict=True):
            spread = inside
            for axis, (matrix, own) in enumerate(zip(self._blur, box, strict=True)):
                # tensordot puts the new axis first; back to its place
                spread = torch.tensordot(matrix[:, own], spread, dims=([1], [axis])).movedim(0, axis)
            row.copy_(spread / spread.max())
        return out.masked_fill_(out < NEGLIGIBLE_FACTOR, 0.0)
