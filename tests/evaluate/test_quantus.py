"""`explain_func`: the maps of `GLAS`, as Quantus takes them; Quantus' own metrics where it is installed."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from glas3d import GLAS, Grid, Predictor
from glas3d.evaluate.quantus import explain_func
from tests.core.cases import SHAPES, TinyNet, atlas, refused, volume

SETTINGS = {"sigma_light": 2.5, "sigma_shadow": 1.8, "sigma_spatial": 1.5, "batch_size": 8}
KEYWORDS = {"activation": "softmax", "search": Grid(3)} | SETTINGS
QUIET = {"disable_warnings": True, "display_progressbar": False}


def batch(ndim=2, channels=3, n=2):
    return np.stack([volume(SHAPES[ndim], channels, seed) for seed in range(n)])


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ndim", [2, 3])
def test_the_maps_are_those_of_glas(ndim, channels, as_tensor):
    net, inputs = TinyNet(SHAPES[ndim], channels), batch(ndim, channels)
    glas = GLAS(Predictor(net, activation="softmax", device="cpu"), **SETTINGS)
    for search in (Grid(2), atlas(SHAPES[ndim])):
        maps = explain_func(
            model=net,
            inputs=torch.from_numpy(inputs) if as_tensor else inputs.astype(np.float64),
            targets=np.array([2, 0]),
            **KEYWORDS | {"search": search},
        )
        assert isinstance(maps, np.ndarray)
        assert maps.dtype == np.float32
        assert maps.shape == (2, 1, *SHAPES[ndim])
        for image, column, saliency in zip(inputs, (2, 0), maps, strict=True):
            assert np.array_equal(saliency[0], glas.explain(image, column, search).saliency)


def test_a_predictor_states_its_own_activation():
    net, inputs = TinyNet((7, 9), 3), batch()
    stated = explain_func(net, inputs, [2, 0], **KEYWORDS | {"activation": "sigmoid"})
    predict = Predictor(net, activation="sigmoid", classes=("NC", "MCI", "AD"), device="cpu")
    assert np.array_equal(stated, explain_func(predict, inputs, ["AD", "NC"], search=Grid(3), **SETTINGS))
    with refused("logits or probabilities: give activation="):
        explain_func(net, inputs, [2, 0])
    with refused("a Predictor states its own"):
        explain_func(predict, inputs, [2, 0], activation="sigmoid")


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"inputs": batch()[0]}, r"a batch \(n, c, \*spatial\) .*got \(3, 7, 9\)"),
        ({"inputs": "x_batch"}, "array of numbers .*got str"),
        ({"targets": np.array([0, 1, 2])}, "got 3 for 2 inputs"),
        ({"targets": np.array([0.0, 1.0])}, "class index or name, got 0.0"),
        ({"targets": np.array([0, 3])}, "class index from 0 to 2, got 3"),
        ({"search": Grid(8)}, "no more cells than voxels"),
        ({"sigma_light": 0}, "sigma_light must be greater than 0"),
        ({"device": "gpu"}, "device must be .*got 'gpu'"),
    ],
    ids=str,
)
def test_what_is_refused(changed, match):
    arguments = {"model": TinyNet((7, 9), 3), "inputs": batch(), "targets": np.array([2, 0])} | KEYWORDS | changed
    with refused(match):
        explain_func(**arguments)


@pytest.mark.parametrize("scores", [{"fusion": "light"}, {"fusion": "mean", "link": "logit", "density": True}])
def test_how_scores_are_made_reaches_glas(scores):
    net, inputs = TinyNet((7, 9), 3), batch()
    maps = explain_func(net, inputs, np.array([2, 0]), **KEYWORDS | scores)
    glas = GLAS(Predictor(net, "softmax", device="cpu"), **SETTINGS | scores)
    for image, target, saliency in zip(inputs, (2, 0), maps, strict=True):
        np.testing.assert_array_equal(saliency[0], glas.explain(image, target, Grid(3)).saliency)


def test_neither_library_is_imported_before_it_is_used():
    code = (
        "import sys; sys.modules['quantus'] = sys.modules['captum'] = None\n"
        "import numpy, torch, glas3d.evaluate.quantus as q\n"
        "net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(63, 2))\n"
        "print(q.explain_func(net, numpy.ones((1, 1, 7, 9)), 1, activation='softmax', search=q.Grid(2)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(1, 1, 7, 9)\n"


@pytest.fixture(scope="module")
def quantus():
    return pytest.importorskip("quantus", reason="quantus is not installed: the extra quantus", exc_type=ImportError)


def measure(metric, net, x, y=(2, 0), **more):
    return metric(
        model=net,
        x_batch=x,
        y_batch=np.array(y),
        explain_func=explain_func,
        explain_func_kwargs=dict(KEYWORDS),
        **more,
    )


@pytest.mark.parametrize("ndim", [2, 3])
def test_quantus_pixel_flipping(quantus, ndim):
    """Its curve is that of plain loops: darken the voxels in the map's order and evaluate the module."""
    net, x = TinyNet(SHAPES[ndim], 1).eval(), batch(ndim, 1)
    step = int(np.prod(SHAPES[ndim])) // 7
    metric = quantus.PixelFlipping(features_in_step=step, perturb_baseline=0.0, normalise=False, **QUIET)
    curves = measure(metric, net, x, channel_first=True, softmax=True)
    maps = explain_func(net, x, np.array([2, 0]), **KEYWORDS)
    for one, saliency, column, curve in zip(x, maps, (2, 0), curves, strict=True):
        order, flat, expected = np.argsort(-saliency.ravel(), kind="stable"), one.ravel().copy(), []
        for start in range(0, flat.size, step):
            flat[order[start : start + step]] = 0
            with torch.no_grad():
                expected.append(float(net(torch.from_numpy(flat.reshape(1, *one.shape))).softmax(dim=1)[0, column]))
        np.testing.assert_allclose(curve, expected, atol=1e-5)


def test_quantus_guesses_channels_for_images_only(quantus):
    metric = quantus.Sparseness(**QUIET)
    assert len(measure(metric, TinyNet((7, 9), 3).eval(), batch())) == 2
    net, volumes = TinyNet((7, 8, 9), 1).eval(), batch(3, 1)
    with pytest.raises(ValueError, match="Only batched 1D and 2D"):
        measure(metric, net, volumes)
    assert len(measure(metric, net, volumes, channel_first=True)) == 2


def test_quantus_sensitivity_and_localisation(quantus):
    net, x = TinyNet((7, 9), 3).eval(), batch()
    (one, other) = measure(quantus.MaxSensitivity(nr_samples=2, **QUIET), net, x, device="cpu")
    assert 0 < min(one, other) <= max(one, other) < 1
    maps = explain_func(net, x, np.array([2, 0]), **KEYWORDS)
    inside = (maps > np.median(maps, axis=(2, 3), keepdims=True)).astype(int)
    mass = measure(quantus.RelevanceMassAccuracy(**QUIET), net, x, s_batch=inside)
    np.testing.assert_allclose(mass, (maps * inside).sum(axis=(1, 2, 3)) / maps.sum(axis=(1, 2, 3)), rtol=1e-5)
    assert all(measure(quantus.PointingGame(**QUIET), net, x, s_batch=inside))


def test_quantus_explains_the_module_it_randomised(quantus):
    """Not the one that was given: maps of other weights are other maps."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 63, 3)).eval()
    alike = measure(quantus.MPRT(**QUIET), net, batch())
    assert list(alike) == ["original", "1"]
    assert min(alike["original"]) == pytest.approx(1)
    assert max(alike["1"]) < 0.999
