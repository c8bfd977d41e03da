"""Masks: a mask image on the grid of a search, and the bright voxels of a scan."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from scipy.ndimage import binary_fill_holes

from glas3d.errors import GlasError
from glas3d.imaging.scan import ImageLike, Scan, load_scan
from glas3d.imaging.space import VoxelGrid, air_intensity, resample


def mask_on(mask_img: ImageLike | Scan, grid: VoxelGrid) -> np.ndarray:
    """Return a mask on a grid: the voxels of which it fills more than half.

    Parameters
    ----------
    mask_img
        Path, 3D image or `Scan`; values above 0.5 are inside, so that labels and probabilities can be given.
    grid
        Usually the grid of a scan or a model.

    Returns
    -------
    ``grid.shape`` bool, for ``glas3d.core.search.resolve``.

    Raises
    ------
    GlasError
        The mask is empty, or fills no voxel of the grid.
    """
    scan = mask_img if isinstance(mask_img, Scan) else load_scan(mask_img, constant=True)
    inside = (scan.data > 0.5).astype(np.float32)
    if not inside.any():
        raise GlasError(f"a mask must hold values above 0.5, {scan.name} holds none")
    filled = resample(nib.Nifti1Image(inside, scan.affine), grid) > 0.5
    if not filled.any():
        raise GlasError(
            f"the mask {scan.name} fills no voxel of the grid of {grid.shape}: it lies elsewhere, or is thinner"
        )
    return filled


def bright_voxels(scan: Scan) -> np.ndarray:
    """Return the head of a scan: voxels that differ from the air by more than 15 % of the bright, with holes filled.

    Air is the median intensity on the scan's faces, bright the 98th percentile of the difference from it; the
    ventricles are such holes.

    Returns
    -------
    ``scan.shape`` bool.
    """
    contrast = np.abs(scan.data - air_intensity(scan))
    return np.asarray(binary_fill_holes(contrast > 0.15 * np.percentile(contrast, 98)), dtype=bool)
