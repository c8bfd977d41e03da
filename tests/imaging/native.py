"""Heads in native space: the template moved and deformed by a known formula, and a real scan if available."""

import os
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nibabel.eulerangles import euler2mat
from scipy.ndimage import map_coordinates

from glas3d.imaging.atlas import Atlas
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import VoxelGrid, mni_grid, template

# 15 mm and 12 degrees in all; native world to template world, in mm
MOVED = np.linalg.inv(nib.affines.from_matvec(euler2mat(*np.radians((8.0, -6.0, 7.0))), [9.0, -10.0, 7.0]))
_COLIN = ("GLAS3D_COLIN27", "/usr/share/mricron/templates/ch2.nii.gz")
NO_COLIN = f"no scan of Colin27: set {_COLIN[0]} to ch2.nii.gz of Debian's mricron-data, or install that package"


def colin():
    """Return the path of Colin27, a real head with its skull, or None."""
    path = Path(os.environ.get(_COLIN[0], _COLIN[1]))
    return path if path.is_file() else None


def bend(points):
    """Return points deformed smoothly by up to 4 mm, in the template's world, as no matrix could."""
    x, y, z = np.moveaxis(points / 22, -1, 0)
    return points + np.stack([2.5 * np.sin(y) * np.cos(z), 2.5 * np.cos(x + z), 2 * np.sin(x) + np.cos(y)], axis=-1)


def unbend(points):
    result = points.copy()
    for _ in range(15):
        result -= bend(result) - points
    return result


def to_native(points, bent=False):
    """Map points of the template's world to the native one: the truth."""
    return apply_affine(np.linalg.inv(MOVED), bend(points) if bent else points)


def to_template(points, bent=False):
    moved = apply_affine(MOVED, points)
    return unbend(moved) if bent else moved


def voxels(grid):
    """Return the world coordinates of a grid's voxel centres, ``(*shape, 3)``."""
    return apply_affine(grid.affine, np.moveaxis(np.indices(grid.shape), 0, -1))


def native_grid(axes=(1, 1, 1), spacing=(2.4, 2.0, 3.0), angles=(6.0, -4.0, 8.0), low=-85.0, high=105.0):
    """An oblique grid of voxels with three sizes around the moved head; ``axes``: the sign of each array axis."""
    turn = euler2mat(*np.radians(angles)[::-1]) @ np.diag(axes)
    ends = np.array([(x, y, z) for x in (-85, 85) for y in (-122, 90) for z in (low, high)], dtype=float)
    local = to_native(ends) @ turn
    shape = np.ceil(np.ptp(local, axis=0) / spacing).astype(int) + 1
    assert len(set(shape)) == 3
    affine = nib.affines.from_matvec(turn @ np.diag(spacing), turn @ local.min(axis=0))
    return VoxelGrid(tuple(int(n) for n in shape), affine)


def seen_from(grid, img, bent=False, order=1):
    """Return an image of the template's space on a native grid, sampled at each voxel's true position."""
    index = apply_affine(np.linalg.inv(img.affine), to_template(voxels(grid), bent))
    data = np.asarray(img.dataobj)
    return map_coordinates(data, np.moveaxis(index, -1, 0), order=order)


@cache
def head(grid, bent=False):
    """Return the template in native space, in raw units with some noise."""
    data = 700 * seen_from(grid, template(), bent)
    data += np.random.default_rng(0).normal(0, 10, grid.shape)
    return load_scan(nib.Nifti1Image(data.astype(np.float32), grid.affine))


@cache
def labels(grid, bent=False):
    """Return the true labels of AAL in native space."""
    return seen_from(grid, Atlas.load("AAL").labels_img, bent, order=0)


def centre(labels, label, affine):
    return apply_affine(affine, np.argwhere(labels == label).mean(axis=0))


def write_field(path, mapping, grid=None):
    """Write a mapping of points as ITK's displacement field: ``(x, y, z, 1, 3)`` in LPS mm."""
    grid = grid or mni_grid(4)
    at = voxels(grid)
    shift = (mapping(at) - at) * np.array([-1.0, -1.0, 1.0])
    img = nib.Nifti1Image(shift[:, :, :, None].astype(np.float32), grid.affine)
    img.header.set_intent("vector")
    img.to_filename(path)
    return path
