import nibabel as nib
import numpy as np
import pytest

from glas3d.imaging.scan import Scan, load_scan
from glas3d.imaging.space import VoxelGrid, _blur, resample_scan
from glas3d.imaging.tissue import air_level, tissue_contrast
from tests.imaging.cases import affine, data


def head(air=0.0, tissue=100.0):
    volume = np.full((11, 12, 13), air, np.float32)
    volume[3:8, 3:9, 3:10] = tissue
    return volume


@pytest.mark.parametrize("air", [-1000.0, -1.0, 0.0, 30.0, 4000.0])
def test_air_is_what_the_faces_of_the_volume_hold(air):
    assert air_level(head(air, air + 100)) == air
    assert air_level(head(air, air + 100)[None]) == air


def test_a_volume_that_ends_inside_the_head_has_an_air_of_0():
    assert air_level(data()) == 0
    assert air_level(head(50.0)[3:8, 3:9, 3:10]) == 0


def test_rounding_is_no_air():
    assert air_level(head(1e-16)) == 0


def test_tissue_is_brighter_than_a_tenth_of_typical_tissue():
    volume = head()
    volume[0] = 9.9  # faint
    volume[1, :2] = 10.1
    tissue = tissue_contrast(volume, 0.0)
    assert sorted(set(tissue.tolist())) == pytest.approx([10.1, 100])
    assert (tissue == 100).sum() == 5 * 6 * 7
    np.testing.assert_allclose(np.unique(tissue_contrast(volume - 40, -40.0)), [10.1, 100], rtol=1e-5)


@pytest.mark.parametrize("air", [-1000.0, 0.0, 30.0])
def test_outside_the_field_of_view_is_air(air):
    scan = scan_of(head(air, air + 100))
    grid = VoxelGrid((17, 19, 23), affine(spacing=(2.0, 3.0, 4.0), origin=(-13.0, -21.0, 6.0)))
    moved = resample_scan(scan, grid)
    np.testing.assert_allclose(moved[3:14, 3:15, 3:16], scan.data, rtol=1e-4)
    assert (moved[:3] == air).all()
    assert (moved[:, :, 16:] == air).all()


def scan_of(volume) -> Scan:
    return load_scan(nib.Nifti1Image(volume, affine()))


@pytest.mark.parametrize(
    ("own", "target", "squared"),
    [
        (1, 4, 15),  # the difference of the squared sizes
        (2, 4, 15),  # as from 1 mm
        (1.5, 4, 15),
        (3, 4, 28 / 3),  # less near the grid's own size
        (4, 4, 0),
        (5, 4, 0),
        (0.5, 1, 0.75),
        (0.5, 4, 15.75),
    ],
)
def test_voxels_of_1_mm_and_of_half_the_width_are_smoothed_alike(own, target, squared):
    fine = VoxelGrid((7, 8, 9), affine(spacing=(own, 20, 20)))
    coarse = VoxelGrid((7, 8, 9), affine(spacing=(target, 20, 20)))
    np.testing.assert_allclose(_blur(fine, coarse) ** 2, [squared, 0, 0], atol=1e-9)
