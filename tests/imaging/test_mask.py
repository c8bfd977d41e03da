import itertools
from functools import cache

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from glas3d.core.search import Grid, resolve_search
from glas3d.imaging.mask import MORE_THAN_A_BRAIN, bright_voxels, mask_on, share_outside_brain
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import VoxelGrid, mni_grid, resample, template, template_on
from tests.imaging.cases import HEADS, POSES, SHAPE, affine, head, head_grid, refused


def ball(grid, centre, radius):
    """Return a ball of 1 with a radius in mm around a point, on any grid."""
    xyz = nib.affines.apply_affine(grid.affine, np.stack(np.indices(grid.shape), axis=-1))
    return nib.Nifti1Image((np.linalg.norm(xyz - centre, axis=-1) <= radius).astype(np.uint8), grid.affine)


@pytest.mark.parametrize("pose", POSES)
def test_a_mask_on_its_own_grid_is_itself(tmp_path, pose):
    values = np.random.default_rng(1).random(SHAPE).astype(np.float32)
    img = nib.Nifti1Image(values, POSES[pose])
    nib.save(img, tmp_path / "mask.nii.gz")
    for each in (img, tmp_path / "mask.nii.gz"):
        mask = mask_on(each, VoxelGrid(SHAPE, POSES[pose]))
        assert mask.dtype == bool
        assert np.array_equal(mask, values > 0.5)


@pytest.mark.parametrize("pose", HEADS)
def test_a_mask_lies_in_the_same_position_in_every_pose(pose):
    fine, centre, radius = mni_grid(2), np.array([-20.0, -30.0, 10.0]), 40.0
    grid = HEADS[pose]
    mask = mask_on(ball(fine, centre, radius), grid)
    expected = np.asarray(ball(grid, centre, radius).dataobj) == 1
    assert np.count_nonzero(mask != expected) < 0.03 * np.count_nonzero(expected)
    xyz = nib.affines.apply_affine(grid.affine, np.argwhere(mask))
    np.testing.assert_allclose(xyz.mean(axis=0), centre, atol=0.5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_a_voxel_is_inside_when_the_mask_fills_more_than_half_of_it(dtype):
    fine = np.zeros((8, 12, 16), dtype)
    fine[:2] = fine[2, :8] = 200  # of the second coarse voxel along x, half of it where y < 8
    img = nib.Nifti1Image(fine, affine(spacing=(2, 2, 2), origin=(0, 0, 0)))
    coarse = VoxelGrid((4, 6, 8), affine(spacing=(4, 4, 4), origin=(1, 1, 1)))
    mask = mask_on(img, coarse)
    assert mask[0].all()
    assert not mask[2:].any()
    assert not mask[1, 5:].any()


def test_a_mask_that_is_everywhere_is_so_up_to_its_edge():
    img = nib.Nifti1Image(np.ones((14, 16, 18), np.uint8), affine(spacing=(2, 2, 2), origin=(0, 0, 0)))
    for mm, origin in itertools.product((1.5, 2.0, 4.0, 7.0), (-2.0, -0.9, 1.0)):
        counts = [int(np.ceil(2 * n / mm)) + 2 for n in (14, 16, 18)]
        grid = VoxelGrid(tuple(counts), affine(spacing=(mm,) * 3, origin=(origin,) * 3))
        xyz = nib.affines.apply_affine(grid.affine, np.stack(np.indices(grid.shape), axis=-1))
        within = ((xyz >= -1) & (xyz <= np.array([27, 31, 35]))).all(axis=-1)
        assert np.array_equal(mask_on(img, grid), within)


def test_a_mask_limits_a_search_on_the_models_grid():
    grid = mni_grid(8)
    mask = mask_on(ball(mni_grid(4), np.array([30.0, 0.0, 0.0]), 30.0), grid)
    points, _ = resolve_search(Grid(8), grid.shape, mask)
    xyz = nib.affines.apply_affine(grid.affine, points)
    assert 0 < len(points) < 8**3
    assert (np.linalg.norm(xyz - [30, 0, 0], axis=1) < 30 + 8).all()


@pytest.mark.parametrize(
    ("values", "origin", "match"),
    [
        (np.zeros(SHAPE), (0, 0, 0), "a mask must hold values above 0.5, .* holds none"),
        (np.full(SHAPE, 0.5), (0, 0, 0), "a mask must hold values above 0.5"),
        (np.ones(SHAPE), (500, 0, 0), r"fills no voxel of the grid of \(9, 10, 11\): it lies elsewhere, or is thinner"),
        (np.eye(7, 8)[..., None] * (np.arange(9) == 4), (0, 0, 0), "fills no voxel"),
    ],
)
def test_an_empty_mask_is_refused(tmp_path, values, origin, match):
    nib.save(nib.Nifti1Image(values.astype(np.float32), affine(spacing=(1, 1, 1), origin=origin)), tmp_path / "m.nii")
    with refused(match, tmp_path / "m.nii"):
        mask_on(tmp_path / "m.nii", VoxelGrid((9, 10, 11), affine(spacing=(4, 4, 4), origin=(-4, -4, -4))))
    with refused("no such file", tmp_path / "no.nii"):
        mask_on(tmp_path / "no.nii", mni_grid(8))


# The bright voxels of a scan


@cache
def brain(pose):
    return np.asarray(head(HEADS[pose], 1.0).dataobj) > 0.2


@pytest.mark.parametrize("pose", ["RAS", "oblique-LIP"])
@pytest.mark.parametrize(("scale", "air"), [(700.0, 0.0), (1.0, 0.0), (-50.0, 300.0), (900.0, -1000.0)])
def test_the_bright_voxels_are_the_head(pose, scale, air):
    grid = HEADS[pose]
    img = head(grid, scale)
    mask = bright_voxels(load_scan(nib.Nifti1Image(np.asarray(img.dataobj) + np.float32(air), grid.affine)))
    assert np.count_nonzero(mask & brain(pose)) > 0.97 * np.count_nonzero(brain(pose))
    assert np.count_nonzero(mask & ~brain(pose)) < 0.15 * np.count_nonzero(brain(pose))


def test_ventricles_are_filled():
    values = template_on(4).copy()
    middle = tuple(n // 2 for n in values.shape)
    dark = np.linalg.norm(np.stack(np.indices(values.shape), -1) - middle, axis=-1) < 4
    values[dark] = 0
    mask = bright_voxels(load_scan(nib.Nifti1Image(values, mni_grid(4).affine)))
    assert mask[dark].all()
    assert not mask[0].any()


def with_scalp(grid, share=1.0):
    """Return the template on a grid, and with a scalp around it of a share of the head's length."""
    brain = resample(template(), grid)
    distance = distance_transform_edt(brain < 0.1, sampling=grid.spacing)
    scalp = (distance > 13) & (distance < 20)
    scalp[:, int(share * grid.shape[1]) :] = False
    return brain, np.where(scalp, np.float32(0.9), brain)


@pytest.mark.parametrize("offset", [0.0, -1000.0])
@pytest.mark.parametrize("grid", [mni_grid(4), head_grid("PSR", mm=(5.0, 6.0, 7.0))])
def test_a_scalp_is_more_than_a_brain_and_a_brain_is_not(grid, offset):
    brain, head = (one * np.float32(700) + np.float32(offset) for one in with_scalp(grid))
    assert share_outside_brain(brain, grid) == 0
    assert share_outside_brain(head, grid) > 3 * MORE_THAN_A_BRAIN
    assert 0 < share_outside_brain(700 * with_scalp(grid, 0.2)[1], grid) < share_outside_brain(head, grid)


def test_a_generous_mask_still_leaves_a_brain():
    grid = mni_grid(4)
    brain, _ = with_scalp(grid)
    around = distance_transform_edt(brain < 0.1, sampling=grid.spacing) < 9
    assert share_outside_brain(np.where(around, np.maximum(brain, np.float32(0.5)), 0), grid) == 0


def test_nothing_at_all_is_not_more_than_a_brain():
    assert share_outside_brain(np.zeros((7, 8, 9), np.float32), mni_grid(16)) == 0
