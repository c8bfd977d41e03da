"""Masks: a mask image on the grid of a search, and the bright voxels of a scan."""

from __future__ import annotations

from functools import lru_cache

import nibabel as nib
import numpy as np
from scipy.ndimage import binary_fill_holes, distance_transform_edt

from glas3d.errors import GlasError
from glas3d.imaging.scan import ImageLike, Scan, load_scan
from glas3d.imaging.space import VoxelGrid, air_intensity, resample, template_values
from glas3d.imaging.tissue import air_level, tissue_contrast

MORE_THAN_A_BRAIN = 0.1
"""The least `share_outside_brain` of a scan that plainly holds more than a brain: 0 without a skull, 0.7 with it."""

_FAR_MM = 12.0  # from the template's brain: farther than brains differ, nearer than the scalp ends


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


def share_outside_brain(volume: np.ndarray, grid: VoxelGrid) -> float:
    """Return the volume of tissue farther than 12 mm outside the template's brain, as a share of the brain's volume.

    It is 0 for a brain alone, also with a generous mask, and about 0.7 for a head with its skull.

    Parameters
    ----------
    volume, grid
        Intensities of ``grid.shape`` in MNI space.
    """
    air = air_level(volume)
    contrast = tissue_contrast(volume, air)
    if contrast.size == 0:
        return 0.0
    tissue = volume - volume.dtype.type(air) >= contrast.min()
    brain, far = _brain_and_surroundings(*_key(grid))
    return float((tissue & far).sum() / max(int(brain.sum()), 1))


def template_brain(grid: VoxelGrid) -> np.ndarray:
    """Return the voxels of the template's brain on a grid in MNI space, ventricles among them.

    Returns
    -------
    ``grid.shape`` bool, read-only.
    """
    return _brain(*_key(grid))


def _key(grid: VoxelGrid) -> tuple[tuple[int, ...], bytes]:
    """Return the shape and the affine of a grid in a form that can be hashed."""
    return tuple(grid.shape), np.asarray(grid.affine, np.float64).tobytes()


def _grid_of_key(shape: tuple[int, ...], affine: bytes) -> VoxelGrid:
    return VoxelGrid(shape, np.frombuffer(affine).reshape(4, 4))


@lru_cache(maxsize=4)
def _brain(shape: tuple[int, ...], affine: bytes) -> np.ndarray:
    brain = np.asarray(binary_fill_holes(template_values(_grid_of_key(shape, affine)) > 0.1), dtype=bool)
    brain.setflags(write=False)
    return brain


@lru_cache(maxsize=4)
def _brain_and_surroundings(shape: tuple[int, ...], affine: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels of the template's brain, and those farther than `_FAR_MM` outside of it."""
    brain = _brain(shape, affine)
    if not brain.any():
        return brain, np.zeros(shape, dtype=bool)
    spacing = _grid_of_key(shape, affine).spacing
    return brain, np.asarray(distance_transform_edt(~brain, sampling=spacing) > _FAR_MM)


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
