"""What RGLAS leaves as it was, and what it refuses in one clear sentence."""

import copy
import re

import numpy as np
import pytest
import torch

from glas3d import GLAS, RGLAS, Grid, Predictor
from tests.core.cases import (
    POINTS,
    NoisyOr,
    Recorder,
    TinyNet,
    atlas,
    constant,
    refused,
    volume,
)

SIGMAS = {"sigma_light": 2.5, "sigma_shadow": 1.8, "sigma_spatial": 1.5}


class Brightness:
    """A transform fitted to a volume: divides by its mean, and keeps what it was fitted to."""

    def __init__(self):
        self.fitted = []

    def fit(self, one):
        self.fitted.append(one.clone())
        mean = float(one.mean())
        return lambda batch: batch / mean


def test_normalisation_is_fitted_once_on_the_intact_volume():
    net, image, transform = TinyNet((7, 9)), volume((7, 9)), Brightness()
    found = RGLAS(GLAS(Predictor(net, "softmax", transform=transform, device="cpu"), batch_size=4, **SIGMAS)).explain(
        image, 1, Grid((3, 2))
    )
    assert len(found.rounds) > 2
    assert len(transform.fitted) == 1
    assert np.array_equal(transform.fitted[0].numpy(), image)
    mean = float(torch.from_numpy(image).mean())
    frozen = Predictor(net, "softmax", transform=lambda batch: batch / mean, device="cpu")
    again = RGLAS(GLAS(frozen, batch_size=4, **SIGMAS)).explain(image, 1, Grid((3, 2)))
    assert np.array_equal(found.saliency, again.saliency)


class OwnFit:
    """Not a `Predictor`, but fitted like one; a fitted one can be fitted again."""

    def __init__(self, fitted):
        self.fitted, self.mean = fitted, 1.0

    def fit(self, one):
        self.fitted.append(one.clone())
        twin = copy.copy(self)
        twin.mean = float(one.mean())
        return twin

    def __call__(self, batch):
        return NoisyOr({(3, 4): 0.9})(batch / self.mean)


def test_any_predict_with_fit_is_fitted_once():
    fitted = []
    found = RGLAS(GLAS(OwnFit(fitted), **SIGMAS)).explain(volume((7, 9)), 1, Grid((3, 2)))
    assert len(found.rounds) > 1
    assert len(fitted) == 1


@pytest.mark.parametrize("as_tensor", [False, True])
def test_nothing_given_is_changed(as_tensor):
    net = TinyNet((7, 9)).train()
    predict = Predictor(net, "softmax", transform=Brightness(), device="cpu")
    background = np.full((7, 9), 0.3, dtype=np.float32)
    glas = GLAS(predict, background=background, batch_size=4, **SIGMAS)
    recursive = RGLAS(glas)
    image, points, labels = volume((7, 9)), POINTS[2].copy(), atlas((7, 9))
    before = (dict(vars(glas)), dict(vars(predict)), dict(vars(recursive)), copy.deepcopy(net.state_dict()))
    given_volume = torch.from_numpy(image.copy()).requires_grad_() if as_tensor else image.copy()
    first = [recursive.explain(given_volume, 1, search) for search in (points, labels)]
    again = [recursive.explain(given_volume, 1, search) for search in (points, labels)]
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.saliency, two.saliency), "the same inputs, another map"
    assert (dict(vars(glas)), dict(vars(predict)), dict(vars(recursive))) == before[:3]
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before[3].items())
    assert net.training
    assert np.array_equal(given_volume.detach().numpy() if as_tensor else given_volume, image)
    assert np.array_equal(points, POINTS[2])
    assert np.array_equal(labels, atlas((7, 9)))
    assert (background == np.float32(0.3)).all()


GLAS_OF_TWO = GLAS(constant(0.4, 0.6))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"threshold": -0.1}, "threshold must be from 0 to below 1, got -0.1"),
        ({"threshold": 1}, "threshold must be from 0 to below 1, got 1"),
        ({"threshold": float("nan")}, "threshold must be .*got nan"),
        ({"threshold": "high"}, "threshold must be from 0 to below 1, got 'high'"),
        ({"threshold": None}, "threshold must be .*got None"),
        ({"stop": 0}, "stop must be greater than 0, got 0"),
        ({"stop": -5.0}, "stop must be greater than 0, got -5.0"),
        ({"stop": float("nan")}, "stop must be greater than 0, got nan"),
        ({"stop": "5"}, "stop must be greater than 0, got '5'"),
        ({"stop": None}, "stop must be .*got None"),
        ({"max_iterations": 0}, "max_iterations must be a whole number of at least 1, got 0"),
        ({"max_iterations": 2.0}, "max_iterations must be .*got 2.0"),
        ({"max_iterations": True}, "max_iterations must be .*got True"),
        ({"max_iterations": None}, "max_iterations must be .*got None"),
    ],
)
def test_settings(settings, match):
    with refused(match):
        RGLAS(GLAS_OF_TWO, **settings)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"volume": np.ones((7, 9))}, r"\(c, \*spatial\)"),
        ({"search": Grid(8)}, "more cells than voxels"),
        ({"search": POINTS[3]}, r"\(m, 2\) voxel coordinates"),
        ({"target": 2}, "class index from 0 to 1, got 2"),
        ({"target": "AD"}, "this model names no classes"),
        ({"target": None}, "class index or name, got None"),
    ],
)
def test_what_glas_refuses_is_refused(changed, match):
    arguments = {"volume": volume((7, 9)), "target": 1, "search": Grid(2)} | changed
    with refused(match):
        RGLAS(GLAS_OF_TWO).explain(**arguments)


def test_a_background_of_another_shape():
    with refused(r"background must be a number or of shape \(1, 7, 9\)"):
        RGLAS(GLAS(constant(0.4, 0.6), background=np.ones((9, 7)))).explain(volume((7, 9)), 1, Grid(2))


@pytest.mark.parametrize("target", [[0, 1], [1], (0,), []], ids=str)
def test_several_targets_are_refused_before_the_model_is_evaluated(target):
    recorder = Recorder(constant(0.4, 0.6))
    with refused(f"a recursion follows one target, a class index or name, got {re.escape(str(target))}"):
        RGLAS(GLAS(recorder)).explain(volume((7, 9)), target, Grid(2))
    assert recorder.batches == []


@pytest.mark.parametrize(
    "glas",
    [constant(0.4, 0.6), Predictor(TinyNet((7, 9)), "softmax", device="cpu"), None],
    ids=["callable", "predictor", "none"],
)
def test_something_that_is_no_glas(glas):
    with refused(f"RGLAS recurses on a GLAS, got {type(glas).__name__}"):
        RGLAS(glas)
