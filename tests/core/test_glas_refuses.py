"""Bad use ends in one clear sentence: what was required, and what came."""

import re

import numpy as np
import pytest
import torch

from glas3d import GLAS, Grid, Segments
from tests.core.cases import POINTS, Recorder, TinyNet, atlas, constant, refused, volume

PREDICT = constant(0.4, 0.6)
SIGMA_NAMES = ("sigma_light", "sigma_shadow", "sigma_spatial")


@pytest.mark.parametrize("name", SIGMA_NAMES)
@pytest.mark.parametrize(
    ("value", "match"),
    [
        (0, "must be greater than 0, got 0"),
        (-1.0, "must be greater than 0, got -1.0"),
        (float("nan"), "must be greater than 0, got nan"),
        ((2.0, 0.0), r"must be greater than 0, got \(2.0, 0.0\)"),
        (None, "must be a number or one number for each axis, got None"),
        ("wide", "must be a number or one number for each axis, got 'wide'"),
        ((), r"must be greater than 0, got \(\)"),
    ],
)
def test_sigmas(name, value, match):
    with refused(f"{name}.*{match}"):
        GLAS(PREDICT, **{name: value})


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"unit": "cm"}, "unit must be one of voxel, mm, got 'cm'"),
        ({"kernel": "box"}, "kernel must be one of gaussian, exponential, ellipsoid, segment, got 'box'"),
        ({"distance": "city"}, "distance must be one of euclidean, squared, got 'city'"),
        ({"fusion": "sum"}, "fusion must be one of product, light, shadow, mean, got 'sum'"),
        ({"fusion": None}, "fusion must be one of .*got None"),
        ({"link": "odds"}, "link must be one of probability, logit, auto, got 'odds'"),
        ({"link": "logit"}, 'link="logit" gives negative light.*give fusion="mean"'),
        ({"link": "auto", "fusion": "product"}, 'link="auto" gives negative light'),
        ({"density": 1}, "density must be true or false, got 1"),
        ({"gamma": -1e-5}, "gamma must be 0 or a positive number, got -1e-05"),
        ({"gamma": float("nan")}, "gamma must be 0 or a positive number, got nan"),
        ({"gamma": float("inf")}, "gamma must be .*got inf"),
        ({"gamma": "small"}, "gamma must be .*got 'small'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"batch_size": -4}, "batch_size must be .*got -4"),
        ({"batch_size": 2.0}, "batch_size must be .*got 2.0"),
        ({"batch_size": True}, "batch_size must be .*got True"),
    ],
)
def test_settings(settings, match):
    with refused(match):
        GLAS(PREDICT, **settings)


def test_a_bare_module_does_not_say_what_it_answers():
    with refused(r'logits or probabilities: give Predictor\(net, activation="softmax"\)'):
        GLAS(TinyNet((7, 9)))


def test_something_that_is_no_model():
    with refused("Predictor or a callable, got str"):
        GLAS("paper-net")


@pytest.mark.parametrize("name", ["sigma_light", "sigma_shadow"])
def test_as_many_sigmas_as_axes(name):
    recorder = Recorder(PREDICT)
    with refused(f"{name} must be one number or 2 .*got 3"):
        GLAS(recorder, **{name: (1, 2, 3)}).explain(volume((7, 9)), 1, Grid(2))
    with refused(f"{name} must be one number or 3 .*got 2"):
        GLAS(recorder, **{name: (1, 2)}).explain(volume((7, 8, 9)), 1, Grid(2))
    assert not recorder.batches


@pytest.mark.parametrize(
    "settings",
    [{"sigma_spatial": (2, 2, 2)}, {"sigma_spatial": (1, 2, 3), "distance": "squared"}],
    ids=["euclidean", "squared"],
)
def test_as_many_spatial_sigmas_as_axes(settings):
    recorder = Recorder(PREDICT)
    with refused(r"sigma_spatial must be one number or 2 \(one for each axis\), got 3"):
        GLAS(recorder, batch_size=2, **settings).explain(volume((7, 9)), 1, Grid(2))
    assert not recorder.batches


@pytest.mark.parametrize("sigma", [(1.0, 2.0), (1.0, 2.0, 3.0)])
def test_the_euclidean_distance_takes_one_spatial_sigma(sigma):
    message = (
        f'sigma_spatial must be one number for distance="euclidean", got {sigma}; '
        'distance="squared" takes one for each axis'
    )
    with refused(f"^{re.escape(message)}$"):
        GLAS(PREDICT, sigma_spatial=sigma)
    recorder = Recorder(PREDICT)
    image = volume((7, 8, 9)[-len(sigma) :])
    for fitting in ({"sigma_spatial": sigma, "distance": "squared"}, {"sigma_spatial": (2,) * len(sigma)}):
        GLAS(recorder, batch_size=99, **fitting).explain(image, 1, Grid(2))
    assert len(recorder.batches) == 2


@pytest.mark.parametrize("name", ["sigma_light", "sigma_shadow"])
def test_the_exponential_kernel_takes_one_sigma(name):
    recorder = Recorder(PREDICT)
    with refused(r"exponential kernel takes one sigma for all axes, got \(1.0, 2.0\)"):
        GLAS(recorder, kernel="exponential", **{name: (1, 2)}).explain(volume((7, 9)), 1, Grid(2))
    GLAS(recorder, kernel="exponential", **{name: (2, 2)}, batch_size=9).explain(volume((7, 9)), 1, Grid(2))
    assert len(recorder.batches) == 1


@pytest.mark.parametrize(
    ("spacing", "match"),
    [
        (None, 'unit="mm" needs the spacing'),
        ((1.0, 2.0, 3.0), "spacing must be one number or 2 .*got 3"),
        ((1.0, 0.0), r"spacing must be greater than 0, got \(1.0, 0.0\)"),
        ((1.0, -2.0), "spacing must be greater than 0"),
        ("1 mm", "spacing must be a number or one number for each axis, got '1 mm'"),
    ],
)
def test_millimetres_need_a_spacing(spacing, match):
    with refused(match):
        GLAS(PREDICT, unit="mm").explain(volume((7, 9)), 1, Grid(2), spacing=spacing)


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (np.ones((7, 9)), r"\(c, \*spatial\) with two or three spatial axes, got \(7, 9\)"),
        (np.ones((1, 1, 7, 8, 9)), r"two or three spatial axes, got \(1, 1, 7, 8, 9\)"),
        (np.ones((0, 7, 9)), r"got \(0, 7, 9\)"),
        (np.float32(3), r"got \(\)"),
        (np.where(np.arange(63).reshape(1, 7, 9) == 5, np.nan, 1.0), r"finite numbers.*\(1, 7, 9\)"),
        (torch.full((1, 7, 9), torch.inf), "finite numbers"),
        ("scan.nii.gz", "array of numbers .*got str"),
        (None, "array of numbers .*got NoneType"),
    ],
)
def test_volumes(image, match):
    with refused(match):
        GLAS(PREDICT).explain(image, 1, Grid(2))


@pytest.mark.parametrize(
    ("background", "match"),
    [
        (np.zeros((9, 7)), r"of shape \(2, 7, 9\), got \(9, 7\)"),
        (np.zeros((1, 7, 9)), r"of shape \(2, 7, 9\), got \(1, 7, 9\)"),
        (np.zeros((2, 7, 9, 1)), r"got \(2, 7, 9, 1\)"),
        (np.zeros(1), r"got \(1,\)"),
        (float("nan"), "background must hold finite numbers"),
        (np.full((7, 9), np.inf), "background must hold finite numbers"),
        ("blur", "background must be a number or an image, got str"),
        (None, "background must be a number or an image, got NoneType"),
    ],
)
def test_backgrounds(background, match):
    with refused(match):
        GLAS(PREDICT, background=background).explain(volume((7, 9), 2), 1, Grid(2))


@pytest.mark.parametrize(
    ("search", "match"),
    [
        (Grid(8), r"grid must have no more cells than voxels, got 8 on a volume of \(7, 9\)"),
        (Grid((2, 2, 2)), r"grid must have one number or one for each of the volume's 2 axes, got 2 2 2"),
        ([[3, 4], [3, 9]], r"lie in the volume of \(7, 9\), point 1 is at \(3.0, 9.0\)"),
        (POINTS[3], r"\(m, 2\) voxel coordinates .*got an array of \(4, 3\)"),
        (atlas((7, 8)), r"on a volume of \(7, 9\), got an array of \(7, 8\)"),
        (Segments.from_labels(atlas((7, 8))), r"volume's grid: labels \(7, 8\), volume \(7, 9\)"),
        (np.zeros((7, 9), dtype=int), "no segment lies in the volume"),
        ("AAL", r"search must be a Grid \(such as Grid\(4\)\), segments or .* got 'AAL'"),
        (4, "voxel coordinates on a volume of .* got 4"),
    ],
)
def test_searches(search, match):
    recorder = Recorder(PREDICT)
    with refused(match):
        GLAS(recorder).explain(volume((7, 9)), 1, search)
    assert not recorder.batches


def test_a_grid_of_nothing():
    with refused("grid must have at least 1 cell on each axis, got 0"):
        GLAS(PREDICT).explain(volume((7, 9)), 1, Grid(0))


def test_answers_that_are_no_probabilities():
    for answer, match in (
        (lambda batch: torch.ones(len(batch) + 1, 2), r"one row of probabilities for each input, \(1, classes\)"),
        (lambda batch: torch.full((len(batch), 2), torch.nan), "finite probabilities"),
        (lambda batch: {"p": 1}, "one array of probabilities.*got dict"),
    ):
        with refused(match):
            GLAS(answer).explain(volume((7, 9)), 1, Grid(2))
