"""Kriging against a textbook oracle."""

import numpy as np
import pytest

from glas3d import Grid
from glas3d.core.accelerate.kriging import Kriging, farthest_points


def matern(a, b, length):
    r = np.sqrt(5) * np.linalg.norm(a[:, None] - b[None], axis=-1) / length
    return (1 + r + r**2 / 3) * np.exp(-r)


def by_inverse(points, known, length):
    """Return the weights of the known values at all points, and the variance left, from the inverse covariance."""
    inverse = np.linalg.inv(matern(points[known], points[known], length) + 1e-6 * np.eye(len(known)))
    across = matern(points, points[known], length)
    return across @ inverse, (1 - np.einsum("ij,jk,ik->i", across, inverse, across)).clip(0), inverse


def estimated(ndim=3):
    points = np.random.default_rng(ndim).uniform(0, 4, (60, ndim))
    known = np.array([3, 50, 7, 21, 34, 35, 59, 12])
    values = np.sin(points[known]).sum(axis=1)
    return Kriging(points, known, values), points, known, values


@pytest.mark.parametrize("ndim", [2, 3])
def test_estimates_and_deviations_are_those_of_a_textbook(ndim):
    kriging, points, known, values = estimated(ndim)
    weights, left, inverse = by_inverse(points, known, kriging.length)
    rest = values - values.mean()
    np.testing.assert_allclose(kriging.estimate, values.mean() + weights @ rest, atol=1e-7)
    np.testing.assert_allclose(kriging.deviation, np.sqrt(rest @ inverse @ rest / 8 * left), atol=1e-6)
    np.testing.assert_allclose(kriging.estimate[known], values, atol=1e-4)


def test_the_likeliest_length_is_taken():
    """Values drawn of a covariance are best explained by its own length."""
    points = np.random.default_rng(1).uniform(0, 8, (300, 2))
    for length in (0.7, 2.0, 4.5):
        factor = np.linalg.cholesky(matern(points, points, length) + 1e-9 * np.eye(300))
        values = factor @ np.random.default_rng(2).standard_normal(300)
        assert Kriging(points, np.arange(300), values).length == length


def test_a_point_that_is_added_makes_its_neighbours_more_certain():
    whole, points, known, _ = estimated()
    _, before, _ = by_inverse(points, known, whole.length)
    scale = whole.deviation.max() / np.sqrt(before.max())
    some = np.array([40, 1, 11, 17, 58])
    part = whole.at(some, 2)
    np.testing.assert_array_equal(part.estimate, whole.estimate[some])
    np.testing.assert_array_equal(part.deviation, whole.deviation[some])
    for candidate in (2, 0):  # points 11 and 40
        part.add(candidate)
    _, after, _ = by_inverse(points, np.r_[known, 11, 40], part.length)
    np.testing.assert_allclose(part.deviation, scale * np.sqrt(after[some]), atol=1e-5)
    assert (after <= before + 1e-12).all()
    assert after.sum() < before.sum()


def test_farthest_points_are_spread_evenly():
    points = Grid((6, 9)).points((12, 18))
    chosen = farthest_points(points, 14)
    assert len(set(chosen)) == 14
    nearest = np.linalg.norm(points[:, None] - points[chosen][None], axis=-1).min(axis=1)
    assert nearest.max() <= 2 * np.sqrt(12 * 18 / 14 / np.pi) + 2  # no hole larger than twice a fair share and a cell
    assert sorted(farthest_points(points, 54)) == list(range(54))
