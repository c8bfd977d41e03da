"""Shrunken regions, against a ball whose flow is known in closed form."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from glas3d.imaging.space import mni_grid, voxel_to_world, world_to_voxel
from glas3d.simulate import Simulation, simulate_participant
from glas3d.simulate.regions import region_shares
from glas3d.simulate.shrinkage import _lost_at_rates, shrinking_shift

SIMULATION = Simulation(
    participants=2, seed=6, resolution=4, atrophy="shrinking", regions=("Thalamus_R", "Precuneus_L")
)
CENTRE, RADIUS = np.array([-28.0, -12.0, 24.0]), 16.0


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    """An atlas with one region, a ball, on a grid of unequal axes."""
    folder = tmp_path_factory.mktemp("atlas")
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = CENTRE - 2 * np.array([15, 16, 17])
    points = voxel_to_world(np.indices((31, 33, 35)).reshape(3, -1).T, affine)
    labels = (np.linalg.norm(points - CENTRE, axis=1) <= RADIUS).reshape(31, 33, 35).astype(np.int16)
    nib.Nifti1Image(labels, affine).to_filename(folder / "ball_dseg.nii.gz")
    (folder / "ball_dseg.tsv").write_text("index\tname\n1\tball\n")
    return str(folder / "ball_dseg.nii.gz")


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_a_ball_shrinks_to_its_centre_at_the_rate_of_its_flow(ball, share):
    """Of a velocity with a constant divergence ``c`` in a ball, the flow multiplies distances by ``exp(c / 3)``."""
    factor = np.exp(np.interp(share, *_lost_at_rates("ball", ball)) / 3) - 1
    assert factor > (1 - share) ** (-1 / 3) - 1  # the smoothed edge loses less than the inside
    directions = np.array([[1, 0, 0], [0, -1, 0], [0, 0, 1], [1, 1, -1] / np.sqrt(3)])
    for distance in (3.0, 6.0, 9.0):
        shift = shrinking_shift(CENTRE + distance * directions, np.array([share]), ("ball",), ball)
        outwards = (shift * directions).sum(axis=1)
        np.testing.assert_allclose(outwards, distance * factor, rtol=0.05)
        assert np.linalg.norm(shift - outwards[:, None] * directions, axis=1).max() < 0.05 * outwards.mean()


def test_nothing_moves_beyond_the_reach_of_a_region(ball):
    far = CENTRE + (RADIUS + 17) * np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert (shrinking_shift(far, np.array([0.7]), ("ball",), ball) == 0).all()
    near = CENTRE + (RADIUS + 3) * np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert (np.abs(shrinking_shift(near, np.array([0.7]), ("ball",), ball)).max(axis=1) > 1).all()
    assert (shrinking_shift(near, np.array([0.0]), ("ball",), ball) == 0).all()


@pytest.mark.parametrize("name", ["Hippocampus_L", "Temporal_Inf_R"])
def test_a_region_loses_the_share_of_its_volume_and_tissue_never_folds(name):
    grid = mni_grid(2)
    points = voxel_to_world(np.moveaxis(np.indices(grid.shape), 0, -1), grid.affine)
    share = region_shares(2, (name,))[0]
    for lost in (0.3, 0.6):
        source = points + shrinking_shift(points, np.array([lost]), (name,), "AAL")
        gradients = np.stack([np.stack(np.gradient(source[..., i], 2.0), axis=-1) for i in range(3)], axis=-2)
        determinant = np.linalg.det(gradients)
        assert determinant.min() > 0.1
        moved = map_coordinates(share, world_to_voxel(source.reshape(-1, 3), grid.affine).T, order=1)
        assert 1 - moved.sum() / share.sum() == pytest.approx(lost, abs=0.02)


def test_shrinking_moves_tissue_and_removes_none():
    still = replace(SIMULATION, deformation=0, bias=0, noise=0)
    well, ill = (simulate_participant(still, 0, keep).volume for keep in ((), None))
    assert ill.min() == 0
    assert ill.max() <= well.max() * 1.001  # interpolation between intensities that were there
    thinned = simulate_participant(replace(still, atrophy="thinning"), 0).volume
    both = simulate_participant(replace(still, atrophy="both"), 0).volume
    changed = [np.abs(volume - well).sum() for volume in (ill, thinned, both)]
    assert min(changed[:2]) > 0
    assert changed[2] > max(changed[:2])


def test_a_twin_differs_around_the_healed_region_alone():
    ill = simulate_participant(SIMULATION, 0)
    for healed, kept in (SIMULATION.regions, SIMULATION.regions[::-1]):
        twin = simulate_participant(SIMULATION, 0, [kept])
        differs = np.argwhere(twin.volume != ill.volume)
        assert len(differs) > 50
        region = np.argwhere(region_shares(4, (healed,))[0] > 0)
        distance = np.sqrt(((differs[:, None] - region[None]) ** 2).sum(axis=-1)).min(axis=1) * 4
        assert distance.max() < 16 + 12  # the reach of the flow, and the deformation and interpolation after it
        control = simulate_participant(replace(SIMULATION, ad=0), 0).volume
    np.testing.assert_array_equal(simulate_participant(SIMULATION, 0, ()).volume, control)


@pytest.mark.slow
def test_a_shrunken_participant_has_one_anatomy_at_every_resolution():
    """What shrinking changes at 1 mm is what it changes at 2 mm; at 4 mm the tissue that moves is blurred."""
    from glas3d.imaging.space import resample

    still = replace(SIMULATION, deformation=0, bias=0, noise=0)
    changes = []
    for resolution in (1, 2, 4):
        at = replace(still, resolution=resolution)
        change = simulate_participant(at, 0).volume - simulate_participant(at, 0, ()).volume
        changes.append(resample(nib.Nifti1Image(change, at.grid.affine), mni_grid(4)))
    similar = np.corrcoef([change.ravel() for change in changes])
    assert similar[0, 1] > 0.97
    assert similar[1, 2] > 0.8
