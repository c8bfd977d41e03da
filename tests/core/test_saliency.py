import numpy as np
import pytest

from glas3d.core import saliency
from tests.core import oracle
from tests.core.cases import POINTS, SHAPES, SPACINGS, assert_close, refused

VALUES = np.array([[0.3, 0.0, 0.9, 0.1], [1.0, 0.25, 0.0, 0.5]])


@pytest.mark.parametrize("in_mm", [False, True])
@pytest.mark.parametrize("distance", ["euclidean", "squared"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_spread_is_equation_3(ndim, distance, in_mm):
    shape, points = SHAPES[ndim], POINTS[ndim]
    spacing = SPACINGS[ndim] if in_mm else None
    maps = saliency.spread(points, VALUES, shape, (2.2,) * ndim, distance, spacing=spacing)
    assert maps.dtype == np.float32
    assert maps.shape == (2, *shape)
    for drawn, values in zip(maps, VALUES, strict=True):
        assert_close(drawn, oracle.spread(points, values, shape, 2.2, distance, spacing), 1e-6)


def test_squared_distances_take_a_sigma_an_axis():
    sigma = (1.0, 2.0, 4.0)
    (drawn,) = saliency.spread(POINTS[3], VALUES[:1], SHAPES[3], sigma, "squared")
    assert_close(drawn, oracle.spread(POINTS[3], VALUES[0], SHAPES[3], sigma, "squared"), 1e-6)


def test_euclidean_distances_do_not():
    with refused("one sigma for all axes"):
        saliency.spread(POINTS[3], VALUES, SHAPES[3], (1.0, 2.0, 4.0))


def test_one_point_is_its_own_value_and_falls_with_distance():
    (drawn,) = saliency.spread(np.array([[3.0, 4.0]]), np.array([[0.7]]), (7, 9), (2.0, 2.0))
    assert drawn[3, 4] == np.float32(0.7)
    assert drawn[3, 6] == pytest.approx(0.7 * np.exp(-2 / 4), rel=1e-6)
    assert drawn[0, 0] == pytest.approx(0.7 * np.exp(-5 / 4), rel=1e-6)
    (squared,) = saliency.spread(np.array([[3.0, 4.0]]), np.array([[0.7]]), (7, 9), (2.0, 2.0), "squared")
    assert squared[3, 6] == pytest.approx(0.7 * np.exp(-4 / 4), rel=1e-6)


def test_an_infinite_reach_is_the_mean():
    drawn = saliency.spread(POINTS[2], VALUES, (7, 9), (np.inf,) * 2)
    for one, values in zip(drawn, VALUES, strict=True):
        np.testing.assert_allclose(one, np.full((7, 9), values.mean()), rtol=1e-6)


# one voxel; two planes of all points, one left over; three planes of single points, and then some of them
@pytest.mark.parametrize(("at_a_time", "points"), [(1, 64), (2 * 8 * 9 * 4, 64), (3 * 8 * 9, 1), (3 * 8 * 9 * 2, 2)])
def test_slabs_and_portions_change_nothing(monkeypatch, at_a_time, points):
    expected = [oracle.spread(POINTS[3], values, SHAPES[3], 2.0) for values in VALUES]
    monkeypatch.setattr(saliency, "_AT_A_TIME", at_a_time)
    monkeypatch.setattr(saliency, "_POINTS", points)
    for found, one in zip(saliency.spread(POINTS[3], VALUES, SHAPES[3], (2.0,) * 3), expected, strict=True):
        np.testing.assert_allclose(found, one, rtol=2e-6)


@pytest.mark.parametrize("factor", [1e-30, 1e-12, 1e12])
def test_scores_of_any_magnitude_keep_their_precision(factor):
    (drawn,) = saliency.spread(POINTS[2], VALUES[:1] * factor, (7, 9), (2.0, 2.0))
    expected = oracle.spread(POINTS[2], VALUES[0], (7, 9), 2.0)
    np.testing.assert_allclose(drawn.astype(np.float64) / factor, expected, rtol=2e-6)


def test_no_score_no_map_and_negative_scores_keep_their_sign():
    assert not saliency.spread(POINTS[2], np.zeros((1, 4)), (7, 9), (2.0, 2.0)).any()
    up = saliency.spread(POINTS[2], VALUES, (7, 9), (2.0, 2.0))
    assert np.array_equal(saliency.spread(POINTS[2], -VALUES, (7, 9), (2.0, 2.0)), -up)


def test_minmax():
    np.testing.assert_array_equal(saliency.minmax(np.array([-2.0, 2.0, 0.0])), [0.0, 1.0, 0.5])
    flat = saliency.minmax(np.full((7, 9), 3.0, dtype=np.float32))
    assert flat.shape == (7, 9)
    assert flat.dtype == np.float32
    assert not flat.any()
