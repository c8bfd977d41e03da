"""Files and matrices that are no transform, or not of this scan, are refused in one sentence."""

import sys

import nibabel as nib
import numpy as np
import pytest

from glas3d.imaging.itk import apply_steps, write_matrix
from glas3d.imaging.space import VoxelGrid, mni_grid
from glas3d.imaging.spatial_transform import Warp, load_transform
from tests.imaging.cases import SHAPE, refused
from tests.imaging.native import MOVED, bend, write_field

HOME = np.linalg.inv(MOVED)


@pytest.mark.parametrize(
    ("matrix", "match"),
    [
        (np.eye(3), r"must be 4 x 4, the matrix given has shape \(3, 3\)"),
        (np.eye(5), r"must be 4 x 4, the matrix given has shape \(5, 5\)"),
        (np.diag([1, 1, 0, 1.0]), "must have an inverse, the matrix given has determinant 0"),
        (np.diag([-1, 1, 1, 1.0]), "must not swap left and right"),
        (np.full((4, 4), np.nan), "must be finite"),
        (np.eye(4) + np.eye(4)[::-1] * 0.5, "must end in the row 0 0 0 1"),
        (np.array([["a"] * 4] * 4), "must hold real numbers"),
        ([[1, 2], [3]], "must hold real numbers|must be 4 x 4"),
        (3, "a path or several paths, got 3"),
        ([], "a path or several paths"),
        (None, "got None"),
    ],
    ids=str,
)
def test_a_matrix_that_is_no_transform_is_refused(matrix, match):
    with refused(match):
        load_transform(matrix)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "no such file"),
        ("type = 1\nnxldims = 256", "is neither"),
        ("1 2 3\n4 5 6\n7 8 9\n", "has shape"),
        ("1 0 0 0\n0 1 0 0\n0 0 0 0\n0 0 0 1\n", "must have an inverse"),
        ("#Insight Transform File V1.0\n#Transform 0\nTransform: Odd_double_3_3\nParameters: 1\n", "ITK reads"),
    ],
    ids=["missing", "lta", "3x3", "singular", "itk"],
)
def test_a_file_that_is_no_transform_is_refused(tmp_path, itk, content, match):
    path = tmp_path / "transform.txt"
    if content is not None:
        path.write_text(content)
    with refused(match, path):
        load_transform(path)


def test_a_folder_that_save_did_not_write_is_refused(tmp_path):
    with refused("transform.json", tmp_path):
        load_transform(tmp_path)
    (tmp_path / "transform.json").write_text("[]")
    with refused("transform.json", tmp_path):
        load_transform(tmp_path)


def test_a_warp_needs_its_inverse(tmp_path, files):
    alone = write_field(tmp_path / "sub_1Warp.nii.gz", bend)
    affine = files / "sub_0GenericAffine.mat"
    with refused("give the inverse of .* as inverse=, such as sub_1InverseWarp.nii.gz", alone):
        load_transform([alone, affine])
    odd = write_field(tmp_path / "field.nii.gz", bend)
    with refused("give the inverse of .* as inverse=$", odd):
        load_transform([odd, affine])
    with refused("one file a warp, got 1 for 0 warps"):
        load_transform(affine, files / "sub_1InverseWarp.nii.gz")
    transform = load_transform([odd, affine], inverse=str(files / "sub_1InverseWarp.nii.gz"))
    assert isinstance(transform, Warp)


def test_an_inverse_of_something_else_is_refused(tmp_path, files):
    big = write_field(tmp_path / "big.nii.gz", lambda points: points + np.array([0.0, 15.0, 0.0]))
    with refused(r"must undo each other \(2 mm allowed\).* misses by 1\d"):
        load_transform([files / "sub_1Warp.nii.gz", files / "sub_0GenericAffine.mat"], inverse=big)


def test_a_warp_that_does_not_cover_the_brain_is_refused(tmp_path, files):
    grid = mni_grid(4)
    half = VoxelGrid((grid.shape[0] // 2, *grid.shape[1:]), grid.affine)
    path = write_field(tmp_path / "half_1Warp.nii.gz", bend, half)
    with refused("must cover the brain .75% needed., the field of .* covers 5", path):
        load_transform([path, files / "sub_0GenericAffine.mat"], inverse=files / "sub_1InverseWarp.nii.gz")


def test_an_image_that_is_no_warp_is_refused(tmp_path, files):
    img = nib.load(write_field(tmp_path / "a_1Warp.nii.gz", bend, mni_grid(8)))
    img.header.set_intent("none")
    img.to_filename(tmp_path / "none.nii.gz")
    with refused("of vector intent, .* intent code 0", tmp_path / "none.nii.gz"):
        load_transform(tmp_path / "none.nii.gz")
    nib.Nifti1Image(np.zeros((4, 5, 6, 3)), np.eye(4)).to_filename(tmp_path / "fsl.nii")
    with refused(r"displacement field \(x, y, z, 1, 3\)", tmp_path / "fsl.nii"):
        load_transform(tmp_path / "fsl.nii")
    (tmp_path / "text.nii.gz").write_text("no image")
    with refused("nibabel can read", tmp_path / "text.nii.gz"):
        load_transform(tmp_path / "text.nii.gz")


def test_without_simpleitk_matrices_still_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    np.savetxt(tmp_path / "plain.txt", MOVED)
    load_transform(tmp_path / "plain.txt").save(tmp_path / "kept")
    np.testing.assert_array_equal(
        load_transform(tmp_path / "kept").matrix, load_transform(tmp_path / "plain.txt").matrix
    )
    write_matrix(HOME, tmp_path / "itk.txt")
    with refused(r'pip install "glas3d\[transforms\]"'):
        load_transform(tmp_path / "itk.txt")
    with refused(r'pip install "glas3d\[transforms\]"'):
        apply_steps(np.zeros(SHAPE), np.eye(4), mni_grid(8), [], "linear")
