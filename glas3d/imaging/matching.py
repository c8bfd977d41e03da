"""Match a reference, such as the mean of a control group, to the intensities of one scan.

The mean of a group has none of the scan's own bias field and contrast. Where a mask puts it in place of a region, the
model sees that difference next to the one of the disease. A matched reference is scaled, voxel by voxel, to the scan
around it; a region is scaled by what surrounds it alone, so that what is wrong with the region itself is not copied
into the reference (documentation: "A reference matched to the scan").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import find_objects, gaussian_filter
from torch.nn.functional import interpolate

from glas3d.imaging.space import VoxelGrid

# Standard deviation of the neighbourhood whose intensities are compared. Chosen on the networks of the choice half of
# the benchmark of true effects (documentation: "Which methods follow the model?"): 8 to 24 mm were tried.
SCALE_MM = 12.0
_LARGEST_SCALE = 2.0  # and at least the inverse: where a neighbourhood is nearly empty
# The scale is smooth: on grids finer than the first it is estimated on one of about the second.
_FINE_MM, _COARSE_MM = 3.0, 4.0
# Share of what is negative among all intensities that interpolation may leave.
_NEGATIVE = 0.01
_TINY = float(np.finfo(np.float32).tiny)


def can_match(*images: np.ndarray) -> bool:
    """Return whether intensities have ratios: they are measured from 0, as those of a standardised scan are not."""
    return all(float(-np.minimum(image, 0).sum()) <= _NEGATIVE * float(np.abs(image).sum()) for image in images)


def match_reference(reference: np.ndarray, volume: np.ndarray, grid: VoxelGrid, labels: np.ndarray) -> np.ndarray:
    """Return a reference scaled to a scan.

    The scale of a voxel is the mean of the scan over the mean of the reference in its neighbourhood, both weighted by a
    Gaussian of `SCALE_MM` and over voxels where neither is 0. For a voxel of a region the neighbourhood is without that
    region.

    Parameters
    ----------
    reference, volume
        ``(*grid.shape)`` in the same intensities, 0 outside of the head or brain. The result is 0 where the reference
        is, so that nothing outside of it is explained away.
    grid
        The grid of both.
    labels
        ``(*grid.shape)`` integers: the region of each voxel, 0 in none.

    Returns
    -------
    ``(*grid.shape)`` float32.
    """
    factors = tuple(1 if size >= _FINE_MM else max(1, round(_COARSE_MM / size)) for size in grid.spacing)
    sigma = [SCALE_MM / (size * factor) for size, factor in zip(grid.spacing, factors, strict=True)]
    arrays = [np.asarray(array, np.float32) for array in (volume, reference)]
    both = (arrays[0] > 0) & (arrays[1] > 0)

    def smoothed(box: tuple[slice, ...], inside: np.ndarray) -> list[np.ndarray]:
        """Return the sums of scan and reference around each coarse voxel of a box, over some of its voxels."""
        parts = (_coarse(np.where(inside, array[box], np.float32(0)), factors) for array in arrays)
        return [gaussian_filter(part, sigma, mode="constant") for part in parts]

    everywhere = (slice(None),) * 3
    sums = smoothed(everywhere, both)
    scale = _at(_ratio(*sums), arrays[0].shape, factors).copy()
    for value, box in enumerate(find_objects(labels), start=1):
        if box is None:
            continue
        # the region's box in coarse voxels, one wider for the interpolation; outside of it the region has no voxel
        wide = tuple(
            slice(max(0, own.start // factor - 1), min(n, (own.stop - 1) // factor + 2))
            for own, factor, n in zip(box, factors, sums[0].shape, strict=True)
        )
        fine = tuple(slice(part.start * factor, part.stop * factor) for part, factor in zip(wide, factors, strict=True))
        of_region = smoothed(fine, both[fine] & (labels[fine] == value))
        others = _ratio(*(np.maximum(total[wide] - own, 0) for total, own in zip(sums, of_region, strict=True)))
        region, start = labels[box] == value, [own.start - part.start for own, part in zip(box, fine, strict=True)]
        scale[box][region] = _at(others, region.shape, factors, start)[region]
    return np.asarray(arrays[1] * scale, np.float32)


def _coarse(array: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    """Return the sums of blocks of voxels, float64; blocks at the far ends may be smaller."""
    for axis, factor in enumerate(factors):
        array = np.add.reduceat(array, np.arange(0, array.shape[axis], factor), axis=axis, dtype=np.float64)
    return array


def _at(
    coarse: np.ndarray, shape: tuple[int, ...], factors: tuple[int, ...], start: Sequence[int] = (0, 0, 0)
) -> np.ndarray:
    """Return values of coarse voxels at the fine voxels of a box that begins at ``start``, by linear interpolation."""
    if max(factors) > 1:
        sizes = [n * factor for n, factor in zip(coarse.shape, factors, strict=True)]
        coarse = interpolate(torch.from_numpy(coarse)[None, None], sizes, mode="trilinear")[0, 0].numpy()
    return coarse[tuple(slice(first, first + n) for first, n in zip(start, shape, strict=True))]


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return a ratio within its bounds, 1 where there is nothing to divide by."""
    least = max(1e-6 * float(below.max()), _TINY)
    ratio = np.clip(above / np.maximum(below, least), 1 / _LARGEST_SCALE, _LARGEST_SCALE)
    return np.where(below > least, ratio, 1.0)
