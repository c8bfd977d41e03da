import pickle

import numpy as np
import pytest

from glas3d import GlasError
from glas3d.statistics.map_sums import MapSums

SHAPE = (4, 5, 6)


def maps(n, seed=0, offset=0.0):
    return np.random.default_rng(seed).normal(size=(n, *SHAPE)) + offset


def summed(values, **how):
    sums = MapSums(values.shape[1:], **how)
    for each in values:
        sums.add(each)
    return sums


def in_top(volume, top, weights=None):
    """Return the voxels than which fewer than ``top`` % are higher, by counting."""
    flat = volume.ravel() if weights is None else np.repeat(volume.ravel(), weights.ravel())
    higher = (flat[None, :] > volume.ravel()[:, None]).sum(axis=1).reshape(volume.shape)
    inside = (higher < top / 100 * flat.size - 1e-6) & (volume > flat.min())
    return inside if weights is None else inside & (weights > 0)


@pytest.mark.parametrize("offset", [0, 1e6])
def test_mean_and_variance_are_those_of_all_maps(offset):
    values = maps(7, offset=offset)
    sums = summed(values)
    np.testing.assert_allclose(sums.mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(sums.variance, values.var(axis=0, ddof=1), rtol=1e-8)
    assert len(sums) == 7


def test_float32_maps_are_summed_in_float64():
    values = (maps(50) + 1000).astype(np.float32)
    sums = summed(values)
    assert sums.mean.dtype == sums.variance.dtype == np.float64
    np.testing.assert_allclose(sums.variance, values.astype(float).var(axis=0, ddof=1), rtol=1e-9)


@pytest.mark.parametrize("top", [1, 5, 30, 100])
def test_overlap_counts_the_maps_that_have_a_voxel_in_their_top(top):
    values = maps(5)
    np.testing.assert_allclose(summed(values, top=top).overlap, np.mean([in_top(v, top) for v in values], axis=0))
    first = summed(values[:1], top=top).overlap
    assert first.sum() == min(max(1, round(np.ceil(top / 100 * 120))), 119)  # the lowest never counts


def test_the_top_is_not_rounded_up():
    """16.1 % of 1000 is 161, though slightly more in floating point."""
    volume = np.random.default_rng(0).permutation(1000.0 + np.arange(1000)).reshape(20, 5, 10)
    assert 16.1 * 1000 / 100 > 161
    assert summed(volume[None], top=16.1).overlap.sum() == 161


def test_ties_count_together_and_a_flat_map_has_no_top():
    values = np.zeros((3, *SHAPE))
    values[0, :2], values[1, 0, 0, 0] = 1, 1
    np.testing.assert_allclose(summed(values).overlap, (values > 0).mean(axis=0))


def test_weights_are_numbers_of_voxels():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(6, 9)), np.array([0, 3, 50, 7, 1, 20, 9, 4, 6])
    for top in (1, 10, 33, 60):
        overlap = summed(values, top=top, weights=weights).overlap
        np.testing.assert_allclose(overlap, np.mean([in_top(v, top, weights) for v in values], axis=0))


def test_voxels_outside_a_mask_do_not_count():
    values, mask = maps(4), np.zeros(SHAPE, int)
    mask[1:3, 1:4] = 1
    values[:, mask == 0] += 100
    sums = summed(values, top=20, weights=mask)
    assert (sums.overlap[mask == 0] == 0).all()
    inside = np.stack([v[mask > 0] for v in values])
    np.testing.assert_array_equal(sums.overlap[mask > 0], summed(inside, top=20).overlap)


def test_the_order_of_maps_does_not_matter():
    values = maps(8, offset=5)
    one, other = summed(values), summed(values[::-1])
    for name in ("mean", "variance", "overlap"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-10, atol=1e-10)


def test_memory_does_not_grow():
    values = maps(40)
    assert len(pickle.dumps(summed(values))) - len(pickle.dumps(summed(values[:2]))) < 100


def test_returned_arrays_are_copies():
    sums = summed(maps(3))
    before = sums.mean
    sums.mean[:], sums.variance[:], sums.overlap[:] = 9, 9, 9
    sums.combined()[:] = 9
    np.testing.assert_array_equal(sums.mean, before)


def test_the_linear_combination_is_normalised():
    values = maps(4)
    total = values.sum(axis=0)
    np.testing.assert_allclose(summed(values).combined(), (total - total.min()) / np.ptp(total), atol=1e-14)


def test_without_maps_all_is_nan_and_one_map_has_no_variance():
    empty = MapSums(SHAPE)
    for values in (empty.mean, empty.variance, empty.overlap, empty.combined()):
        assert np.isnan(values).all()
    single = summed(maps(1))
    assert np.isnan(single.variance).all()
    assert not np.isnan(single.mean).any()


def test_a_gap_stays_a_gap():
    values = maps(3)
    values[1, 2, 3, 4] = np.nan
    sums = summed(values)
    gap = np.zeros(SHAPE, bool)
    gap[2, 3, 4] = True
    for statistic in (sums.mean, sums.variance, sums.overlap, sums.combined()):
        np.testing.assert_array_equal(np.isnan(statistic), gap)


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda: MapSums(SHAPE, top=0), "above 0 and at most 100, got 0"),
        (lambda: MapSums(SHAPE, top=101), "got 101"),
        (lambda: MapSums(SHAPE, weights=np.ones(3)), r"shape \(4, 5, 6\), got \(3,\)"),
        (lambda: MapSums(SHAPE).add(np.zeros((4, 6, 5))), r"\(4, 6, 5\) came, those before are \(4, 5, 6\)"),
    ],
)
def test_maps_that_cannot_be_summed_are_refused(refused, message):
    with pytest.raises(GlasError, match=message):
        refused()
