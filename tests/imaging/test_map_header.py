"""The range in which viewers display a map, and headers that describe their own map and no other."""

import nibabel as nib
import numpy as np
import pytest

from glas3d.imaging.map_header import describe_map, display_range, map_on


@pytest.fixture
def values():
    """Return a map with axes of three lengths: a tenth of its voxels with a value is loud, the rest is not."""
    sizes = np.linspace(0.01, 1.0, 100)
    volume = np.zeros((7, 8, 9))
    volume.flat[:100] = sizes
    return volume


def test_what_is_shown_is_the_highest_tenth(values):
    lowest, largest = display_range(values)
    assert largest == 1
    assert (values >= lowest).sum() == 11  # the highest tenth, and the voxel at its limit
    raised = np.where(values > 0, values + 100, 0)  # as scores of a saturated output: much the same everywhere
    assert (raised >= display_range(raised)[0]).sum() == 11


def test_limits_of_the_range(values):
    faint = np.where(values > 0.99, 1.0, values * 1e-4)
    assert display_range(faint)[0] == pytest.approx(0.1)  # a tenth of the largest, however faint the others are
    lowest, largest = display_range(np.ones((2, 3, 4)))
    assert 0.9999 < lowest < largest == 1  # below the value, which viewers may hide
    assert display_range(np.zeros((2, 3, 4))) == display_range(np.full((2, 3, 4), np.nan)) == (0, 0)


def test_sign_scale_and_empty_voxels_do_not_matter(values):
    lowest, largest = display_range(values)
    assert display_range(-values) == (lowest, largest)
    np.testing.assert_allclose(display_range(1e-6 * values), (1e-6 * lowest, 1e-6 * largest))
    assert display_range(np.pad(values, 3)) == (lowest, largest)
    assert display_range(np.where(values == 0, np.nan, values)) == (lowest, largest)


def test_a_map_on_the_grid_of_another_describes_itself(values):
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    first = nib.Nifti1Image(values.astype(np.float32), affine)
    describe_map(first, "saliency", "AD")
    second = map_on(first, 1000 * values, "overlap", "NC")
    assert second.header["cal_max"] == 1000 * first.header["cal_max"]
    assert second.header.get_intent() == ("estimate", (), "overlap")
    assert second.header["descrip"].tobytes().startswith(b"glas3d overlap for NC")
    assert second.get_data_dtype() == np.float32
    np.testing.assert_array_equal(second.affine, affine)


@pytest.mark.parametrize(("largest", "range_"), [(0.4, (1.3, 2.6)), (5.0, (1.3, 5.0))])
def test_a_threshold_of_its_own(values, largest, range_):
    img = map_on(nib.Nifti1Image(values, np.eye(4)), largest * values, "neglog10pfwe", "ADvsNC", threshold=1.3)
    np.testing.assert_allclose([img.header["cal_min"], img.header["cal_max"]], range_)
