"""Names of the anatomy at positions: inside a region, near one, far from all."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from glas3d.imaging.anatomy import anatomy_of
from glas3d.imaging.atlas import Atlas


@pytest.fixture
def two():
    """Return an atlas of two regions of one voxel each on a grid of unequal axes, 2 x 3 x 4 mm."""
    labels = np.zeros((7, 8, 9), np.int32)
    labels[1, 2, 3], labels[5, 2, 3] = 4, 9
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = -6, -6, -12
    table = {"index": [4, 9], "name": ["Left", "Right"], "hemisphere": ["L", "R"]}
    return Atlas.from_files(nib.Nifti1Image(labels, affine), pd.DataFrame(table), name="two")


def test_positions_inside_near_and_far(two):
    # the left region is at -4, 0, 0 mm, the right one at 4, 0, 0
    points = [[-4, 0, 0], [4.4, -1, 1.5], [-1, 0, 0], [1, 0, 0], [-4, 9, 0], [-4, 0, 11], [500, 0, 0]]
    assert anatomy_of(np.array(points), two) == [
        "in Left",
        "in Right",
        "3 mm from Left",
        "3 mm from Right",
        "9 mm from Left",
        "outside of all regions",
        "outside of all regions",
    ]


def test_centroids_of_an_atlas_lie_in_their_own_regions(aal):
    table = aal.centroids()
    inside = [name == f"in {own}" for own, name in zip(table["name"], anatomy_of(table[list("xyz")], aal), strict=True)]
    assert sum(inside) == 116 - 5  # the five whose centroid is outside of them
