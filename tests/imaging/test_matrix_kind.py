"""A matrix nearly in place is told apart: native to template world, the inverse of that, or a matrix of FLIRT."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.eulerangles import euler2mat

from glas3d.imaging.itk import write_matrix
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import VoxelGrid, resample, template
from glas3d.imaging.spatial_transform import load_transform

WORLD = nib.affines.from_matvec(euler2mat(0.04, -0.03, 0.05) @ np.diag([1.02, 0.98, 1.03]), [2.0, 4.0, -3.0])
POINTS = np.array([[0.0, 0, 0], [50, 0, 0], [0, 40, 0], [0, 0, 30]])


def scan(axes):
    """Return the template moved by the inverse of WORLD, on voxels of three sizes."""
    affine = np.diag([2.0 * axes, 2.5, 3.0, 1.0])
    affine[:3, 3] = [-96.0 * axes, -132.0, -80.0]
    shape = (97, 91, 68)
    seen = resample(template(), VoxelGrid(shape, WORLD @ affine))
    return load_scan(nib.Nifti1Image(seen * np.float32(500), affine))


def flirt(scan, matrix):
    """Return FLIRT's matrix to FSL's MNI152, by where it maps four points."""
    voxels = nib.affines.apply_affine(np.linalg.inv(scan.affine), POINTS)
    if scan.affine[0, 0] > 0:
        voxels[:, 0] = scan.shape[0] - 1 - voxels[:, 0]
    source = voxels * scan.spacing
    mni152 = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
    target = 2 * nib.affines.apply_affine(np.linalg.inv(mni152), nib.affines.apply_affine(matrix, POINTS))
    solved = np.linalg.solve(np.column_stack([source, np.ones(4)]), np.column_stack([target, np.ones(4)]))
    return solved.T


@pytest.mark.parametrize("axes", [1, -1])
def test_a_world_matrix_is_taken_for_one(axes):
    check = load_transform(WORLD).check(scan(axes))
    assert check.reading is None
    assert check.problem is None
    assert check.correlation > 0.95


@pytest.mark.parametrize("axes", [1, -1])
@pytest.mark.parametrize("inverse", [False, True])
def test_a_matrix_of_flirt_nearly_in_place_is_told_apart(tmp_path, axes, inverse):
    moved = scan(axes)
    matrix = flirt(moved, WORLD)
    path = tmp_path / "flirt.mat"
    np.savetxt(path, np.linalg.inv(matrix) if inverse else matrix, fmt="%.10f  ")
    check = load_transform(path).check(moved)
    assert check.reading == ("the inverse of a matrix of FSL's FLIRT" if inverse else "a matrix of FSL's FLIRT")
    assert f"its matrix fits better as {check.reading}, and must be from native to template world" in check.problem


def test_an_inverse_is_told_apart():
    assert load_transform(np.linalg.inv(WORLD)).check(scan(1)).reading == "a matrix from the template to native space"


def test_a_matrix_of_an_itk_file_is_of_a_known_kind(tmp_path):
    write_matrix(WORLD, tmp_path / "itk.txt")
    pytest.importorskip("SimpleITK")
    assert load_transform(tmp_path / "itk.txt").check(scan(1)).reading is None
