"""Kinds of matrices: whether a matrix of unknown kind brings a scan to the template better when read otherwise."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np

from glas3d.imaging.scan import Scan
from glas3d.imaging.space import VoxelGrid, check_space, mni_grid, resample_scan, template_on, voxel_to_world

_COARSE_MM = 3.0
_SAME_MM = 1.5  # two readings that differ by less are the same
_BETTER = 0.03  # of correlation; a shift of 1 mm costs 0.03, one of 2.5 mm 0.1

# FLIRT's matrices are between millimetres from the first voxel, x running to the left. Where x, y and z are 0 in the
# references that are commonly registered to: FSL's MNI152 (and SPM's field of view), the ICBM templates of 2009 as
# nilearn and as TemplateFlow have them.
_REFERENCES = ((90.0, -126.0, -72.0), (98.0, -134.0, -72.0), (96.0, -132.0, -78.0))


def better_reading(matrix: np.ndarray, scan: Scan) -> str | None:
    """Return as what a matrix between native and template world fits the scan plainly better; None: as that.

    Parameters
    ----------
    matrix
        4x4, taken as native world to template world, both RAS+ in mm.
    scan
        The scan in native space.
    """
    coarse = _coarse(scan)
    brain = voxel_to_world(np.argwhere(template_on(4) > 0.1)[::50], mni_grid(4).affine)
    native = nib.affines.apply_affine(np.linalg.inv(matrix), brain)

    def correlation(reading: np.ndarray) -> float:
        check = check_space(replace(coarse, affine=reading @ coarse.affine))
        return check.correlation * check.coverage

    best, highest = None, correlation(matrix) + _BETTER
    for name, reading in _other_readings(matrix, scan):
        shift = nib.affines.apply_affine(reading, native) - brain
        if np.linalg.norm(shift, axis=1).mean() > _SAME_MM and (reached := correlation(reading)) > highest:
            best, highest = name, reached
    return best


def _other_readings(matrix: np.ndarray, scan: Scan) -> list[tuple[str, np.ndarray]]:
    """Return the names of other kinds of matrices, and the world matrix that each of them means."""
    inverse = np.linalg.inv(matrix)
    readings = [("a matrix from the template to native space", inverse)]
    scaled = np.diag([*scan.spacing, 1.0])
    if np.linalg.det(scan.affine[:3, :3]) > 0:  # FSL turns x around
        scaled = scaled @ nib.affines.from_matvec(np.diag([-1.0, 1.0, 1.0]), [scan.shape[0] - 1, 0, 0])
    from_world = scaled @ np.linalg.inv(scan.affine)
    for origin in _REFERENCES:
        to_world = nib.affines.from_matvec(np.diag([-1.0, 1.0, 1.0]), origin)
        readings.append(("a matrix of FSL's FLIRT", to_world @ matrix @ from_world))
        readings.append(("the inverse of a matrix of FSL's FLIRT", to_world @ inverse @ from_world))
    return readings


def _coarse(scan: Scan) -> Scan:
    """Return the scan on larger voxels along its own axes, for checks that are fast."""
    factors = np.rint(_COARSE_MM / np.array(scan.spacing)).clip(1)
    shape = np.ceil(np.array(scan.shape) / factors).astype(int)
    affine = scan.affine @ nib.affines.from_matvec(np.diag(factors), (factors - 1) / 2)
    grid = VoxelGrid((int(shape[0]), int(shape[1]), int(shape[2])), affine)
    return replace(scan, data=resample_scan(scan, grid), affine=affine)
