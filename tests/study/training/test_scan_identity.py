"""The hash of voxels is that of a scan, not of a file."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from glas3d.imaging.scan import load_scan
from glas3d.study.training.scan_identity import voxels_sha256

SHAPE = (7, 8, 9)
AFFINE = np.array([[2.0, 0, 0, -7], [0, 3, 0, -9], [0, 0, 4, 5], [0, 0, 0, 1]])


@pytest.fixture
def values():
    return np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)


def identity(path, img):
    nib.save(img, path)
    return voxels_sha256(load_scan(path))


def test_one_scan_in_many_files(tmp_path, values):
    """Compressed, of another data type, with other axes, and with another position of the head."""
    first = identity(tmp_path / "a.nii", nib.Nifti1Image(values, AFFINE))
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes(), 1))
    assert voxels_sha256(load_scan(tmp_path / "b.nii.gz")) == first
    assert identity(tmp_path / "c.nii.gz", nib.Nifti1Image(values.astype(np.float64), AFFINE)) == first
    turned = nib.Nifti1Image(values, AFFINE).as_reoriented([[2, -1], [0, 1], [1, -1]])
    assert turned.shape != SHAPE
    assert identity(tmp_path / "d.nii.gz", turned) == first
    moved = AFFINE + np.array([[0, 0, 0, 5.0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert identity(tmp_path / "e.nii.gz", nib.Nifti1Image(values, moved)) == first


def test_other_voxels_are_another_scan(tmp_path, values):
    first = identity(tmp_path / "a.nii", nib.Nifti1Image(values, AFFINE))
    assert identity(tmp_path / "b.nii", nib.Nifti1Image(values[::-1].copy(), AFFINE)) != first
    assert identity(tmp_path / "c.nii", nib.Nifti1Image(values.reshape(9, 8, 7), AFFINE)) != first
    values[3, 4, 5] += 1
    assert identity(tmp_path / "d.nii", nib.Nifti1Image(values, AFFINE)) != first
