"""Surrogates keep the values, smoothness and symmetry of a map, and raise no more false alarms than they say."""

import itertools

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import rankdata

from glas3d.errors import GlasError
from glas3d.statistics import SpatialSurrogates
from glas3d.statistics.surrogates import _hermite, _value_correlation, _variogram

SHAPE, SPACING = (18, 22, 16), (7.0, 6.0, 8.0)
DRAWS = 19  # p-values are multiples of 1/20


def ellipsoid(shape=SHAPE):
    """Return an ellipsoid that fills a grid, ``shape`` bool."""
    half = np.reshape(shape, (3, 1, 1, 1)) / 2
    return (((np.indices(shape) - half + 0.5) / half) ** 2).sum(axis=0) < 1


INSIDE = ellipsoid()


def process(length=20.0, shape=2.0, nugget=0.0, symmetry=0.0, values=None):
    """Return a Gaussian process whose parameters are known."""
    n = int(INSIDE.sum())
    ordered = ndtri((np.arange(n) + 0.5) / n) if values is None else np.sort(values)
    return SpatialSurrogates(ordered, INSIDE, SPACING, length, shape, nugget, symmetry)


def drawn(model, n, seed):
    """Return maps of a process, ``(n, *SHAPE)``."""
    maps = np.zeros((n, *SHAPE))
    maps[:, INSIDE] = list(model.draws(n, seed))
    return maps


def unit_ranks(values):
    ranks = rankdata(values) - (len(values) + 1) / 2
    return ranks / np.linalg.norm(ranks)


def test_the_variogram_is_that_of_all_pairs():
    rng = np.random.default_rng(0)
    inside = rng.uniform(size=(4, 6, 5)) < 0.7
    values = np.where(inside, rng.normal(size=inside.shape), 0.0)
    pairs = _variogram(values, inside, (2.0, 1.0, 1.5))
    expected = {}
    for one, other in itertools.product(np.argwhere(inside), repeat=2):
        distance = np.linalg.norm((one - other) * (2.0, 1.0, 1.5))
        number = 0 if distance == 0 else max(1, round(distance / 2))
        half_square = (values[tuple(one)] - values[tuple(other)]) ** 2 / 2
        expected.setdefault(number, []).append((distance, half_square))
    expected = [np.array(expected[number]) for number in sorted(expected)]
    np.testing.assert_array_equal(pairs.count, [len(each) for each in expected])
    np.testing.assert_allclose(pairs.distance, [each[:, 0].mean() for each in expected])
    np.testing.assert_allclose(pairs.variogram, [each[:, 1].mean() for each in expected], atol=1e-12)


def test_fields_have_the_covariance_that_is_stated():
    model = process(length=15.0, shape=1.5, nugget=0.2, symmetry=0.6)
    fields = np.stack(list(model._fields(500, np.random.default_rng(1)))).astype(np.float64)
    first = (4, 11, 8)
    others = [(4, 11, 8), (5, 11, 8), (4, 14, 7), (13, 11, 8), (12, 12, 8), (4, 2, 2)]
    for other in others:
        straight = np.linalg.norm((np.array(first) - other) * SPACING)
        folded = [min(i, SHAPE[0] - 1 - i) for i in (first[0], other[0])]
        reflected = np.linalg.norm((np.array([folded[0], *first[1:]]) - [folded[1], *other[1:]]) * SPACING)
        expected = 0.4 * model.correlation(straight) + 0.6 * model.correlation(reflected)
        measured = np.mean(fields[(slice(None), *first)] * fields[(slice(None), *other)])
        assert measured == pytest.approx(expected, abs=0.12), other
    assert expected < 0.02  # the last is far


@pytest.mark.parametrize(
    ("length", "shape", "nugget", "symmetry"), [(14.0, 2.0, 0.0, 0.0), (20.0, 2.0, 0.2, 0.8), (16.0, 1.0, 0.0, 0.5)]
)
@pytest.mark.parametrize("thresholded", [False, True])
def test_a_fit_finds_smoothness_and_symmetry(length, shape, nugget, symmetry, thresholded):
    maps = drawn(process(length, shape, nugget, symmetry), 8, 3)
    if thresholded:
        maps = np.where(INSIDE, np.clip(maps - 0.8, 0, None), 0)
    fits = [SpatialSurrogates.fit(each, INSIDE, SPACING) for each in maps]
    assert np.mean([each.symmetry for each in fits]) == pytest.approx(symmetry, abs=0.15)
    for distance in (8.0, 16.0, 30.0):
        expected = process(length, shape, nugget).correlation(distance)
        measured = np.mean([each.correlation(distance) for each in fits])
        assert measured == pytest.approx(expected, abs=0.2 if thresholded else 0.1)


def test_surrogates_have_the_values_of_the_map_and_are_repeatable():
    values = np.random.default_rng(0).gamma(0.3, size=int(INSIDE.sum())).clip(0.5)  # many tie
    (volume,) = drawn(process(values=values), 1, 0)
    fit = SpatialSurrogates.fit(volume, INSIDE, SPACING)
    first, second = fit.draws(2, seed=4)
    for surrogate in (first, second):
        np.testing.assert_array_equal(np.sort(surrogate), np.sort(values))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.5
    np.testing.assert_array_equal(first, next(fit.draws(1, seed=4)))
    assert (next(fit.draws(1, seed=5)) != first).any()


def test_the_correlation_of_values_follows_from_the_gaussian_field():
    rng = np.random.default_rng(2)
    for function in (np.exp, lambda z: np.clip(z - 1, 0, None), lambda z: z):
        z = ndtri((np.arange(200_000) + 0.5) / 200_000)
        values = function(z)
        weights = _hermite((values - values.mean()) / values.std())
        one, other = rng.standard_normal((2, 400_000))
        for correlation in (0.3, 0.8):
            both = function(one), function(correlation * one + np.sqrt(1 - correlation**2) * other)
            expected = np.corrcoef(*both)[0, 1]
            assert _value_correlation(np.array(correlation), weights) == pytest.approx(expected, abs=0.015)
    assert _value_correlation(np.array(0.3), weights) == pytest.approx(0.3, abs=1e-3)  # of the identity


def p_values(maps, others, surrogates):
    """Return a one-sided p-value for the rank correlation of each pair of maps by surrogates of the first."""
    p = []
    for one, other in zip(maps, others, strict=True):
        fixed = unit_ranks(other[INSIDE])
        observed = fixed @ unit_ranks(one[INSIDE])
        null = np.array([fixed @ unit_ranks(each) for each in surrogates(one)])
        p.append((1 + (null >= observed).sum()) / (1 + len(null)))
    return np.array(p)


def permuted(one):
    rng = np.random.default_rng(0)
    return [rng.permutation(one[INSIDE]) for _ in range(DRAWS)]


def smooth(one):
    return SpatialSurrogates.fit(one, INSIDE, SPACING).draws(DRAWS, seed=8)


def test_unrelated_smooth_and_symmetric_maps_raise_few_false_alarms():
    model = process(length=20.0, symmetry=0.6)
    maps, others = drawn(model, 60, 5), drawn(model, 60, 6)
    p = p_values(maps, others, smooth)
    assert (p <= 0.05).mean() <= 0.1
    assert (p <= 0.5).mean() == pytest.approx(0.5, abs=0.17)
    naive = p_values(maps, others, permuted)
    assert (naive <= 0.05).mean() > 0.3  # the same test fails permuted voxels


def test_maps_that_share_something_are_found():
    model = process(length=20.0, symmetry=0.6)
    maps, noise = drawn(model, 15, 5), drawn(model, 15, 6)
    assert (p_values(maps, 0.7 * maps + 0.7 * noise, smooth) <= 0.05).mean() > 0.9


def test_voxels_outside_the_box_of_the_mask_change_nothing():
    (volume,) = drawn(process(), 1, 2)
    padded = np.pad(volume, ((2, 2), (3, 0), (0, 5)), constant_values=9.0)
    inside = np.pad(INSIDE, ((2, 2), (3, 0), (0, 5)))
    one, other = (SpatialSurrogates.fit(*each, SPACING) for each in ((volume, INSIDE), (padded, inside)))
    assert repr(one) == repr(other)
    np.testing.assert_array_equal(next(one.draws(1)), next(other.draws(1)))


@pytest.mark.slow
@pytest.mark.parametrize("thresholded", [False, True])
@pytest.mark.parametrize(("length", "shape", "nugget", "symmetry"), [(14.0, 2.0, 0.0, 0.0), (25.0, 2.0, 0.0, 0.9)])
def test_p_values_are_uniform(length, shape, nugget, symmetry, thresholded):
    model = process(length, shape, nugget, symmetry)
    maps, others = drawn(model, 200, 15), drawn(model, 200, 16)
    maps = np.where(INSIDE, np.clip(maps - 1, 0, None), 0) if thresholded else maps
    p = p_values(maps, others, smooth)
    assert (p <= 0.05).mean() <= 0.1
    for level in (0.25, 0.5, 0.75):
        assert (p <= level).mean() == pytest.approx(level, abs=0.1)


@pytest.mark.parametrize(
    ("volume", "inside", "spacing", "message"),
    [
        (np.zeros(SHAPE), INSIDE, SPACING, "at least 10 voxels that differ, got"),
        (np.zeros((3, 4)), INSIDE, SPACING, r"a mask of its shape and three voxel sizes, got \(3, 4\)"),
        (np.ones(SHAPE), np.zeros(SHAPE, bool), SPACING, "got 0 voxels"),
    ],
)
def test_what_is_refused(volume, inside, spacing, message):
    with pytest.raises(GlasError, match=message):
        SpatialSurrogates.fit(volume, inside, spacing)
