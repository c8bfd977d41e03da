"""Volumes of a page: their grid, their precision, and the regions that their voxels belong to."""

import base64
import gzip

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.imaging.space import VoxelGrid
from glas3d.report.webpage.volumes import (
    MOST_VOXELS,
    Volumes,
    labels_by_value,
    numbered,
    smaller_grid,
    within_budget,
)

AFFINE = np.array([[2.0, 0, 0, -8], [0, 3, 0, -9], [0, 0, 4, -12], [0, 0, 0, 1]])
SHAPE = (7, 8, 9)


def blocks():
    """Return labels of four regions, and a table with two values for each, the last two alike."""
    labels = np.zeros(SHAPE, dtype=np.int16)
    for label, first in ((40, 0), (7, 2), (12, 4), (3, 6)):
        labels[1:-1, first : first + 2, 2:-2] = label
    table = pd.DataFrame({"index": [3, 7, 12, 40], "score": [0.5, -2.25, 0.5, 0.0], "light": [0.1, 0.2, 0.1, 0.3]})
    return labels, table


def painted(labels, table, column):
    values = np.zeros(100, dtype=np.float32)
    values[table["index"]] = table[column]
    return values[labels]


def decoded(volumes, name):
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(volumes.encoded[name])))


def test_regions_are_recognised_by_their_values_in_all_maps():
    labels, table = blocks()
    maps = {name: painted(labels, table, name) for name in ("score", "light")}
    found = labels_by_value(maps, table)
    assert found.numbers.tolist() == [1, 2, 1, 4]  # the first and the third cannot be told apart
    expected = np.zeros(SHAPE, dtype=int)
    for label, number in ((3, 1), (7, 2), (12, 1), (40, 4)):
        expected[labels == label] = number
    np.testing.assert_array_equal(found.volume, expected)
    np.testing.assert_array_equal(numbered(labels, table).volume[labels == 12], 3)


def test_a_map_spread_over_voxels_is_no_map_of_regions():
    _, table = blocks()
    smooth = np.random.default_rng(0).normal(size=SHAPE)
    assert labels_by_value({"score": smooth}, table) is None
    assert labels_by_value({"score": np.zeros(SHAPE)}, table) is None
    assert labels_by_value({}, table) is None


def test_a_map_of_other_values_is_no_map_of_this_table():
    labels, table = blocks()
    other = table.assign(score=table["score"] + 0.01)
    assert labels_by_value({"score": painted(labels, other, "score")}, table) is None


def test_a_volume_keeps_its_values_zero_and_place():
    volumes = Volumes()
    values = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    values[0] = 0
    img = decoded(volumes, volumes.add(values, AFFINE))
    shown = np.asarray(img.dataobj)
    np.testing.assert_allclose(shown, values, atol=np.abs(values).max() / 65000)
    assert (shown[0] == 0).all()
    np.testing.assert_array_equal(img.affine, AFFINE)
    integers = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    np.testing.assert_array_equal(np.asarray(decoded(volumes, volumes.add(integers, AFFINE)).dataobj), integers)


def test_the_same_volume_is_embedded_once_and_too_many_are_left_out(monkeypatch):
    volumes = Volumes()
    first = volumes.add(np.ones(SHAPE, dtype=np.uint8), AFFINE)
    assert volumes.add(np.ones(SHAPE, dtype=np.uint8), AFFINE) == first
    assert list(volumes.encoded) == [first]
    monkeypatch.setattr("glas3d.report.webpage.volumes._MOST_BYTES", len(volumes.encoded[first]))
    assert volumes.add(np.zeros(SHAPE, dtype=np.uint8), AFFINE) is None
    assert volumes.left_out == 1
    assert volumes.add(np.ones(SHAPE, dtype=np.uint8), AFFINE) == first


def test_large_volumes_get_a_coarser_grid_over_the_same_field_of_view():
    grid = VoxelGrid((181, 217, 180), np.diag([1.0, 1, 1, 1]))
    coarse = smaller_grid(grid)
    assert coarse.shape == (91, 109, 90)
    assert np.prod(coarse.shape) <= MOST_VOXELS
    np.testing.assert_array_equal(coarse.affine[:3, 3], 0.5)  # between the first two centres of the fine grid
    assert coarse.spacing == (2, 2, 2)
    huge = smaller_grid(VoxelGrid((512, 512, 300), np.eye(4)))
    assert np.prod(huge.shape) <= MOST_VOXELS


def test_axes_run_to_the_right_the_front_and_the_top():
    values = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)
    img = nib.Nifti1Image(values, AFFINE)
    flipped = img.as_reoriented(np.array([[1, -1], [2, 1], [0, -1]]))
    assert nib.aff2axcodes(flipped.affine) != ("R", "A", "S")
    shown, affine = within_budget(flipped)
    np.testing.assert_array_equal(shown, values)
    np.testing.assert_allclose(affine, AFFINE)
