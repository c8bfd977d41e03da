"""Shrink regions by a smooth deformation, as tissue that is lost draws in the tissue around it.

A region loses a share ``s`` of its volume when the deformation that moves its tissue has the Jacobian determinant
``1 - s`` there. As in Karacali & Davatzikos 2006 the determinant is prescribed and a deformation is sought that has it
(doi:10.1109/TMI.2006.871627): here the flow of a velocity field that is the gradient of a potential, whose Laplacian is
constant in the region, opposite in a shell around it, so that the tissue there expands as much, and zero elsewhere. A
flow never folds tissue.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.fft import dctn, idctn
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from glas3d.imaging.space import mni_grid, world_to_voxel
from glas3d.simulate.regions import region_shares

_WORK_MM = 2.0  # voxel size of velocity fields: the same flow moves scans of every resolution
_SHELL_MM = 4.0  # standard deviation of the blur that makes the shell
_REACH_MM = (8.0, 16.0)  # the flow fades out between these distances from the region
_STEPS = 8


def shrinking_shift(points: np.ndarray, shares: np.ndarray, regions: tuple[str, ...], atlas: str) -> np.ndarray:
    """Return how far from points the tissue comes from that shrunken regions put there.

    Parameters
    ----------
    points
        ``(..., 3)`` in mm, MNI space.
    shares
        ``(n,)`` shares of the regions' volumes that are lost, from 0 to 1; at most about nine tenths are.
    regions
        Names of the ``n`` regions.
    atlas
        Their atlas, by its name or path.

    Returns
    -------
    ``(..., 3)`` in mm; exactly 0 where no region's flow reaches.
    """
    grid = mni_grid(_WORK_MM)
    velocity = np.zeros((3, *grid.shape))
    for region, share in zip(regions, shares, strict=True):
        if share > 0:
            box, field = _velocity(region, atlas)
            velocity[(slice(None), *box)] += np.interp(share, *_lost_at_rates(region, atlas)) * field
    voxels = world_to_voxel(points, grid.affine)
    return _flow(velocity, voxels.reshape(-1, 3)).reshape(points.shape)


def _flow(velocity: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """Return how far a velocity field ``(3, x, y, z)`` in mm moves voxel coordinates ``(n, 3)`` in unit time, in mm."""
    shift = np.zeros(voxels.shape)
    speed = map_coordinates(np.abs(velocity).max(axis=0), voxels.T, order=1, mode="constant")
    rows = np.flatnonzero(speed)
    start = voxels[rows]
    moved = np.zeros(start.shape)

    def at(shifts: np.ndarray) -> np.ndarray:
        positions = (start + shifts / _WORK_MM).T
        return np.stack([map_coordinates(v, positions, order=1, mode="constant") for v in velocity], axis=1)

    for _ in range(_STEPS):  # the midpoint method
        moved = moved + at(moved + at(moved) / (2 * _STEPS)) / _STEPS
    shift[rows] = moved
    return shift


@lru_cache(maxsize=128)
def _lost_at_rates(region: str, atlas: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of a region's volume that is lost at several rates of its flow, and the rates."""
    box, field = _velocity(region, atlas)
    share = region_shares(_WORK_MM, (region,), atlas)[0][box]
    voxels = np.indices(share.shape).reshape(3, -1).T.astype(np.float64)
    rates = np.array([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    lost = []
    for rate in rates:
        source = (voxels + _flow(rate * field, voxels) / _WORK_MM).T
        lost.append(1 - map_coordinates(share, source, order=1, mode="constant").sum() / share.sum())
    return np.maximum.accumulate(lost), rates


@lru_cache(maxsize=128)
def _velocity(region: str, atlas: str) -> tuple[tuple[slice, ...], np.ndarray]:
    """Return the velocity that expands a region by a factor e in unit time, and the box of the working grid it fills.

    Returns
    -------
    The box, and ``(3, x, y, z)`` in mm.
    """
    share = region_shares(_WORK_MM, (region,), atlas)[0].astype(np.float64)
    margin = int(np.ceil(_REACH_MM[1] / _WORK_MM)) + 1
    inside = np.argwhere(share > 0.5) if (share > 0.5).any() else np.argwhere(share == share.max())
    low = np.maximum(inside.min(axis=0) - margin, 0)
    high = np.minimum(inside.max(axis=0) + margin + 1, share.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    expanding = share[box]
    shell = gaussian_filter(expanding, _SHELL_MM / _WORK_MM) * (1 - expanding)
    divergence = expanding - shell * (expanding.sum() / shell.sum())
    # no flow through the faces of the box: the potential is a sum of cosines
    angles = np.ogrid[tuple(slice(n) for n in divergence.shape)]
    laplacian = sum(2 * (np.cos(np.pi * k / n) - 1) for k, n in zip(angles, divergence.shape, strict=True))
    laplacian[0, 0, 0] = 1
    spectrum = dctn(divergence, norm="ortho") / laplacian
    spectrum[0, 0, 0] = 0
    potential = idctn(spectrum, norm="ortho") * _WORK_MM
    distance = distance_transform_edt(expanding <= 0.5) * _WORK_MM
    near, far = _REACH_MM
    fading = np.clip((far - distance) / (far - near), 0, 1)
    fading = fading**2 * (3 - 2 * fading)
    return box, np.stack(np.gradient(potential)) * fading
