"""White-matter hyperintensities: round lesions of white matter, as dark as grey matter on T1w scans."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import distance_transform_edt

from glas3d.imaging.space import VoxelGrid, mni_grid, voxel_to_world, world_to_voxel
from glas3d.simulate.anatomy import anatomy

_DRAWN_MM = 2.0  # lesions are drawn on this grid: they are the same at every resolution
_RADIUS_MM = 3.0  # median
_SMALLEST_MM, _LARGEST_MM = 1.5, 8.0
_SPREAD = 0.4  # standard deviation of the logarithm of the radius


def lesion_share(rng: np.random.Generator, mean: float, template: str, grid: VoxelGrid) -> np.ndarray | None:
    """Draw a participant's lesions, and return each voxel's share in them.

    Their number has a Poisson distribution. Centres are in white matter, the deeper the more likely; radii are
    log-normal with a median of 3 mm.

    Parameters
    ----------
    rng
        Source of all random numbers.
    mean
        Mean number of lesions.
    template
        The template brain, see `glas3d.simulate.anatomy.anatomy`.
    grid
        Where the shares are wanted.

    Returns
    -------
    ``grid.shape`` from 0 to 1; None if the participant has no lesions.
    """
    count = int(rng.poisson(mean))
    if count == 0:
        return None
    voxels, depth = _white_matter(template)
    centres = voxel_to_world(
        voxels[rng.choice(len(voxels), count, p=depth)] + rng.uniform(-0.5, 0.5, (count, 3)), mni_grid(_DRAWN_MM).affine
    )
    radii = np.clip(_RADIUS_MM * np.exp(_SPREAD * rng.standard_normal(count)), _SMALLEST_MM, _LARGEST_MM)
    share = np.zeros(grid.shape)
    spacing = np.array(grid.spacing)
    edge = max(1.0, float(spacing.max()))  # mm over which the share falls at the surface, so that small lesions count
    for centre, radius in zip(world_to_voxel(centres, grid.affine), radii, strict=True):
        reach = (radius + edge) / spacing
        low = np.clip(np.floor(centre - reach).astype(int), 0, grid.shape)
        high = np.clip(np.ceil(centre + reach).astype(int) + 1, 0, grid.shape)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        axes = np.ogrid[box]
        distance = np.sqrt(sum(((x - c) * s) ** 2 for x, c, s in zip(axes, centre, spacing, strict=True)))
        share[box] = np.maximum(share[box], np.clip((radius - distance) / edge + 0.5, 0, 1))
    return share


@lru_cache(maxsize=4)
def _white_matter(template: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels of white matter on the grid of drawing ``(n, 3)``, and their probabilities, by depth."""
    depth = distance_transform_edt(anatomy(template, _DRAWN_MM).white > 0.5)
    voxels = np.argwhere(depth > 0)
    return voxels, depth[depth > 0] / depth.sum()
