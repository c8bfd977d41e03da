"""A reference is scaled to a scan; what is wrong with a region is not copied into it."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from glas3d.imaging.atlas import Atlas
from glas3d.imaging.matching import SCALE_MM, match_reference
from glas3d.imaging.space import VoxelGrid, mni_grid, template_on

GRID = mni_grid(8)
INSIDE = template_on(8) > 0.1
NO_REGIONS = np.zeros(GRID.shape, int)


def mean_at(mm):
    """Return the template as a blurred group mean, in the units of a scanner."""
    return gaussian_filter(template_on(mm) * np.float32(900), 3 / mm) * (template_on(mm) > 0.05)


def error(matched, wanted, within):
    """Return the root of the mean squared difference, over that of the brightest tissue."""
    return float(np.sqrt(((matched - wanted)[within] ** 2).mean()) / wanted.max())


def smooth_field(shape, sigma, seed=0):
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    return field / field.std()


def test_a_scan_like_the_reference_leaves_it_as_it_is():
    mean = mean_at(8)
    assert error(match_reference(mean, mean, GRID, Atlas.load("AAL").on(GRID)), mean, INSIDE) < 1e-3


@pytest.mark.parametrize("mm", [4, 8])
def test_a_bias_field_and_the_scale_are_matched(mm):
    labels = Atlas.load("AAL").on(mni_grid(mm))
    mean, within = mean_at(mm), template_on(mm) > 0.1
    scan = mean * np.exp(0.08 * smooth_field(mean.shape, 40 / mm)) * np.float32(1.1)
    matched = match_reference(mean, scan.astype(np.float32), mni_grid(mm), labels)
    assert error(matched, scan, within) < 0.35 * error(mean, scan, within)


def test_the_disease_of_a_region_is_not_copied():
    """Half of a region's signal is lost: the reference keeps nearly all of it, as the scan without the disease does."""
    mean, labels = mean_at(8), Atlas.load("AAL").on(GRID)
    region = labels == Atlas.load("AAL").table.set_index("name").loc["Temporal_Inf_L", "index"]
    scan = np.where(region, mean * np.float32(0.5), mean)
    with_labels, without = (match_reference(mean, scan, GRID, each) for each in (labels, np.zeros_like(labels)))
    kept, lost = (float(m[region].mean() / mean[region].mean()) for m in (with_labels, without))
    assert kept > 0.88
    assert lost < kept - 0.1


def test_scales_are_those_of_the_definition():
    """An oracle voxel by voxel: each from Gaussian weights over the voxels of all other regions, and of none."""
    shape, spacing = (7, 9, 8), (4.0, 5.0, 4.5)
    grid = VoxelGrid(shape, np.diag([*spacing, 1.0]))
    rng = np.random.default_rng(1)
    mean, volume = (rng.uniform(0.5, 1.5, shape).astype(np.float32) for _ in range(2))
    volume[0, :2] = 0.0
    labels = rng.integers(0, 4, shape)
    where = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    # the filter's weights: cut off at four standard deviations, and normalised along each axis
    along = []
    for n, size in zip(shape, spacing, strict=True):
        d = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
        sigma = SCALE_MM / size
        radius = int(4 * sigma + 0.5)
        norm = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).sum()
        along.append(np.where(d <= radius, np.exp(-0.5 * (d / sigma) ** 2) / norm, 0))
    flat, own, both = labels.ravel(), volume.ravel().astype(float), (volume > 0).ravel()
    expected = np.empty(len(flat))
    for i, voxel in enumerate(where):
        weight = np.prod([along[a][voxel[a]][where[:, a]] for a in range(3)], axis=0) * both
        if flat[i]:
            weight = weight * (flat != flat[i])
        expected[i] = np.clip((weight * own).sum() / (weight * mean.ravel()).sum(), 0.5, 2)
    result = match_reference(mean, volume, grid, labels)
    np.testing.assert_allclose(result, (mean.ravel() * expected).reshape(shape), rtol=2e-5)


def test_fields_of_finer_grids_are_estimated_on_coarse_ones():
    fine, labels = mni_grid(2), Atlas.load("AAL")
    tilt = np.linspace(0.85, 1.15, fine.shape[1], dtype=np.float32)[None, :, None]
    scan = mean_at(2) * tilt
    matched = match_reference(mean_at(2), scan, fine, labels.on(fine))
    assert error(matched, scan, template_on(2) > 0.1) < 0.4 * error(mean_at(2), scan, template_on(2) > 0.1)


def test_nothing_outside_of_the_reference_is_explained_away():
    mean = mean_at(8)
    scan = mean.copy()
    scan[2:5, 2:5, 2:5] = 900.0  # a bright blob in the air
    matched = match_reference(mean, scan, GRID, NO_REGIONS)
    assert matched[2:5, 2:5, 2:5].max() < 0.05 * 900


def test_empty_scans_and_references_stay_finite():
    mean = mean_at(8)
    assert np.isfinite(match_reference(mean, np.zeros_like(mean), GRID, NO_REGIONS)).all()
    assert not match_reference(np.zeros_like(mean), mean, GRID, NO_REGIONS).any()
