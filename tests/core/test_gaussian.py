import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glas3d.core.axes import per_axis
from glas3d.core.gaussian import gaussian_masks
from tests.core import oracle
from tests.core.cases import POINTS, SHAPES, SPACINGS, refused

KERNELS = ("gaussian", "exponential")
TINY = float(np.finfo(np.float32).tiny)


def masks(points, shape, sigma, kernel="gaussian", spacing=None):
    made = gaussian_masks(points, shape, per_axis(sigma, len(shape), "sigma"), kernel, spacing=spacing)
    return made.masks(0, torch.full((len(points), *shape), -1.0)).numpy()


@pytest.mark.parametrize("in_mm", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_masks_match_the_oracle(ndim, kernel, in_mm):
    shape, points = SHAPES[ndim], POINTS[ndim]
    spacing = SPACINGS[ndim] if in_mm else None
    expected = [oracle.mask(mu, shape, 1.7, kernel, spacing) for mu in points]
    np.testing.assert_allclose(masks(points, shape, 1.7, kernel, spacing), expected, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_sigma_an_axis_belongs_to_its_axis(ndim):
    sigma = (0.8, 1.6, 3.2)[:ndim]
    expected = [oracle.mask(mu, SHAPES[ndim], sigma) for mu in POINTS[ndim]]
    np.testing.assert_allclose(masks(POINTS[ndim], SHAPES[ndim], sigma), expected, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_peak_is_one_at_the_point(kernel):
    (g,) = masks(np.array([[2.0, 6.0, 5.0]]), (7, 8, 9), 1.3, kernel)
    assert g[2, 6, 5] == 1.0
    assert (g == 1.0).sum() == 1


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_infinite_sigma_is_everywhere_and_a_vanishing_one_a_single_voxel(kernel):
    points = np.array([[2.0, 6.0, 5.0], [0.0, 0.0, 8.0]])
    assert (masks(points, (7, 8, 9), np.inf, kernel) == 1.0).all()
    delta = np.zeros((2, 7, 8, 9))
    delta[0, 2, 6, 5] = delta[1, 0, 0, 8] = 1.0
    assert np.array_equal(masks(points, (7, 8, 9), 1e-3, kernel), delta)


def test_one_infinite_axis_is_a_slab():
    (g,) = masks(np.array([[3.0, 4.0]]), (7, 9), (1e-3, np.inf))
    assert np.array_equal(g, np.repeat(np.arange(7)[:, None] == 3, 9, axis=1).astype(np.float32))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_spot_in_mm_is_round_in_the_head(kernel):
    (g,) = masks(np.array([[4.0, 4.0, 4.0]]), (9, 9, 9), 2.0, kernel, (1.0, 2.0, 4.0))
    assert g[8, 4, 4] == pytest.approx(g[4, 6, 4], rel=1e-6)
    assert g[8, 4, 4] == pytest.approx(g[4, 4, 5], rel=1e-6)
    assert g[8, 4, 4] != pytest.approx(g[4, 8, 4], rel=1e-2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_masks_can_start_anywhere(kernel):
    made = gaussian_masks(POINTS[3], SHAPES[3], (2.0,) * 3, kernel)
    whole = made.masks(0, torch.empty(len(made), *SHAPES[3]))
    buffer = torch.empty(2, *SHAPES[3])
    assert made.masks(1, buffer) is buffer
    assert torch.equal(buffer, whole[1:3])


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_terms_survive_making_masks(kernel):
    made = gaussian_masks(POINTS[2], SHAPES[2], (2.0,) * 2, kernel)
    first = made.masks(0, torch.empty(len(made), *SHAPES[2])).clone()
    assert torch.equal(made.masks(0, torch.empty(len(made), *SHAPES[2])), first)


def test_factors_below_1e_10_are_zero():
    # exp(-d^2 / 2) passes 1e-10 between d = 6 (1.5e-8) and d = 7 (2.3e-11)
    (g,) = masks(np.array([[0.0, 0.0]]), (9, 8), 1.0)
    assert g[6, 0] == pytest.approx(np.exp(-18.0), rel=1e-6)
    assert not g[7:].any()
    assert not g[:, 7:].any()
    assert g[6, 6] == pytest.approx(np.exp(-36.0), rel=1e-6), "a product below 1e-10 is kept: it is no factor"


@given(st.sampled_from(KERNELS), st.floats(0.01, 50.0), st.tuples(*[st.floats(-0.5, 6.5)] * 3))
def test_masks_hold_no_denormals(kernel, sigma, point):
    g = masks(np.array([point]), (7, 8, 9), sigma, kernel)
    assert ((g == 0) | (g >= TINY)).all()
    assert g.max() <= 1.0


def test_the_exponential_has_values_to_cut():
    """The property above would hold for nothing if no value ever fell among the denormals."""
    reach = 8**0.5 / 9.5  # distances in steps of 8 voxels are exponents in steps of 76
    exponents = np.arange(0, 129, 8) / reach**2
    assert ((exponents > 87.4) & (exponents < 103)).any()
    (g,) = masks(np.array([[0.0, 0.0]]), (129, 1), reach, "exponential")
    assert ((g == 0) | (g >= TINY)).all()


def test_coordinates_are_float64():
    points = np.array([[290.0, 1.0], [291.0, 1.0], [299.0, 1.0]])
    g = masks(points, (300, 3), 0.5)
    assert [int(one[:, 1].argmax()) for one in g] == [290, 291, 299]
    # in float32 both of these would be voxel 299 itself
    near = np.array([[299.0 - 1e-5, 1.0], [299.0 + 1e-5, 1.0]])
    expected = [oracle.mask(mu, (300, 3), 1e-5)[299, 1] for mu in near]
    np.testing.assert_allclose(masks(near, (300, 3), 1e-5)[:, 299, 1], expected, rtol=1e-5)
    assert expected[0] == pytest.approx(np.exp(-0.5), rel=1e-5)


def test_the_exponential_takes_one_sigma():
    with refused(r"one sigma for all axes, got \(1.0, 2.0\)"):
        gaussian_masks(POINTS[2], SHAPES[2], (1.0, 2.0), "exponential")


def test_per_axis_repeats_one_number():
    assert per_axis(2, 3, "sigma") == (2.0, 2.0, 2.0)
    assert per_axis([2], 2, "sigma") == (2.0, 2.0)
    assert per_axis(np.array([1, 2, np.inf]), 3, "sigma") == (1.0, 2.0, np.inf)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (0, "sigma_x must be greater than 0, got 0"),
        (-1.5, "greater than 0, got -1.5"),
        ((1, 2, -3), "greater than 0"),
        (float("nan"), "greater than 0, got nan"),
        ((1, 2), "one number or 3 .*got 2"),
        ((1, 2, 3, 4), "one number or 3 .*got 4"),
        ("wide", "number or one number for each axis, got 'wide'"),
    ],
)
def test_per_axis_refuses(value, match):
    with refused(match):
        per_axis(value, 3, "sigma_x")
