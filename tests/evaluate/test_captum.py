"""`GLASAttribution`: the maps of `GLAS`, as Captum's own tools take them."""

import importlib
import sys

import numpy as np
import pytest
import torch
from captum.attr import Attribution, NoiseTunnel
from captum.metrics import infidelity, sensitivity_max
from torch import nn

from glas3d import GLAS, Grid, Predictor
from glas3d.evaluate.captum import GLASAttribution
from tests.core.cases import POINTS, SHAPES, NoisyOr, TinyNet, atlas, refused, volume

SETTINGS = {"sigma_light": 2.5, "sigma_shadow": 1.8, "sigma_spatial": 1.5, "batch_size": 8}
SEARCHES = {"grid": lambda ndim: Grid(2), "points": POINTS.get, "segments": lambda ndim: atlas(SHAPES[ndim])}


def batch(ndim=2, channels=1, n=3):
    return torch.from_numpy(np.stack([volume(SHAPES[ndim], channels, seed) for seed in range(n)]))


def attribution(ndim=2, channels=1, **settings):
    return GLASAttribution(TinyNet(SHAPES[ndim], channels), "softmax", **SETTINGS | settings)


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("ndim", [2, 3])
def test_the_maps_are_those_of_glas(ndim, channels, search):
    inputs, search = batch(ndim, channels), SEARCHES[search](ndim)
    attributions = attribution(ndim, channels).attribute(inputs, target=2, search=search)
    assert attributions.shape == inputs.shape
    glas = GLAS(Predictor(TinyNet(SHAPES[ndim], channels), activation="softmax", device="cpu"), **SETTINGS)
    for image, maps in zip(inputs, attributions, strict=True):
        for channel in maps:
            assert np.array_equal(channel.numpy(), glas.explain(image, 2, search).saliency)


@pytest.mark.parametrize("scores", [{"fusion": "light"}, {"fusion": "mean", "link": "logit", "density": True}])
def test_settings_and_spacing_reach_glas(scores):
    inputs = batch()
    settings = {"unit": "mm", "background": 0.7, "kernel": "exponential"} | scores
    attributions = attribution(**settings).attribute(inputs, 0, Grid(3), spacing=(1.5, 2.5))
    glas = GLAS(Predictor(TinyNet((7, 9)), "softmax", device="cpu"), **SETTINGS | settings)
    for image, (saliency,) in zip(inputs, attributions, strict=True):
        assert np.array_equal(saliency.numpy(), glas.explain(image, 0, Grid(3), spacing=(1.5, 2.5)).saliency)


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        (1, [1, 1, 1]),
        (np.int64(1), [1, 1, 1]),
        ("AD", [2, 2, 2]),
        ([1], [1, 1, 1]),
        ([2, 0, 1], [2, 0, 1]),
        (["AD", 0, "MCI"], [2, 0, 1]),
        (np.array([2, 0, 1]), [2, 0, 1]),
        (torch.tensor(1), [1, 1, 1]),
        (torch.tensor([1]), [1, 1, 1]),
        (torch.tensor([2, 0, 1]), [2, 0, 1]),
    ],
    ids=str,
)
def test_one_class_for_all_or_one_for_each_input(target, classes):
    predict = Predictor(TinyNet((7, 9)), "softmax", classes=("NC", "MCI", "AD"), device="cpu")
    glas, inputs = GLASAttribution(predict, **SETTINGS), batch()
    attributions = glas.attribute(inputs, target, Grid(2))
    for image, saliency, column in zip(inputs, attributions, classes, strict=True):
        assert np.array_equal(saliency[0].numpy(), glas.glas.explain(image, column, Grid(2)).saliency)


@pytest.mark.parametrize(
    ("target", "match"),
    [
        ([0, 1], "one class, or one for each input: got 2 for 3 inputs"),
        (torch.tensor([0, 1, 2, 0]), "got 4 for 3 inputs"),
        ([], "got 0 for 3 inputs"),
        (3, "class index from 0 to 2, got 3"),
        ([0, 1, -1], "class index from 0 to 2, got -1"),
        (None, "class index or name, got None"),
        (1.0, "class index or name, got 1.0"),
        (torch.eye(3), r"class index or name, got \[1.0, 0.0, 0.0\]"),
        ("AD", "this model names no classes"),
    ],
    ids=str,
)
def test_targets_that_are_refused(target, match):
    with refused(match):
        attribution().attribute(batch(), target, Grid(2))


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        (torch.ones(7, 9), r"a batch \(n, c, \*spatial\) .*got \(7, 9\)"),
        (torch.ones(1, 7, 9), r"got \(1, 7, 9\)"),
        ((torch.ones(1, 1, 7, 9), torch.ones(1, 4)), "one tensor .*got 2: Tensor, Tensor"),
        ((), "one tensor .*got 0"),
        (np.ones((1, 1, 7, 9)), "one tensor .*got 1: ndarray"),
        (torch.full((1, 1, 7, 9), torch.nan), "finite numbers"),
    ],
    ids=["no batch", "no channels", "two", "none", "array", "nan"],
)
def test_inputs_that_are_refused(inputs, match):
    with refused(match):
        attribution().attribute(inputs, 1, Grid(2))


def test_an_empty_batch_has_no_maps():
    assert attribution().attribute(torch.ones(0, 1, 7, 9), 1, Grid(2)).shape == (0, 1, 7, 9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int16, torch.uint8])
def test_attributions_are_like_the_inputs(dtype):
    inputs = (batch(channels=2) * 50).to(dtype)
    attributions = attribution(channels=2).attribute(inputs, 1, Grid(2))
    assert attributions.dtype == (dtype if dtype.is_floating_point else torch.float32)
    assert attributions.device == inputs.device
    assert not attributions.is_inference()
    attributions[:, 0] = 0
    assert attributions[:, 1].any(), "the channels share memory"


def test_a_tuple_comes_back_as_one_and_gradients_do_not_matter():
    inputs = batch().requires_grad_()
    (attributions,) = attribution().attribute((inputs,), 1, Grid(2))
    assert torch.equal(attributions, attribution().attribute(batch(), 1, Grid(2)))
    assert not attributions.requires_grad
    assert torch.equal(inputs, batch())


def test_the_activation_is_stated_never_guessed():
    net = TinyNet((7, 9))
    for model in (net, lambda inputs: net(inputs)):
        with refused("logits or probabilities: give activation="):
            GLASAttribution(model)
    with refused("activation must be one of softmax, sigmoid, none, got 'relu'"):
        GLASAttribution(net, "relu")
    predict = Predictor(net, "sigmoid", device="cpu")
    for stated in ({"activation": "softmax"}, {"transform": lambda inputs: inputs}, {"device": "cpu"}):
        with refused("a Predictor states its own activation, transform and device"):
            GLASAttribution(predict, **stated)
    attributions = {
        name: GLASAttribution(model, activation, **SETTINGS).attribute(batch(), 1, Grid(2))
        for name, model, activation in (
            ("softmax", net, "softmax"),
            ("sigmoid", net, "sigmoid"),
            ("none", lambda inputs: net(inputs).detach().softmax(dim=1), "none"),
            ("predictor", predict, None),
        )
    }
    assert torch.equal(attributions["softmax"], attributions["none"])
    assert torch.equal(attributions["sigmoid"], attributions["predictor"])
    assert not torch.allclose(attributions["softmax"], attributions["sigmoid"])


def test_one_logit_has_two_columns():
    glas = GLASAttribution(TinyNet((7, 9), classes=1), activation="sigmoid", **SETTINGS)
    inputs = batch()
    assert not torch.equal(glas.attribute(inputs, 0, Grid(2)), glas.attribute(inputs, 1, Grid(2)))


def test_a_transform_is_fitted_to_each_input():
    class Brightness:
        def fit(self, volume):
            mean = volume.mean()
            return lambda inputs: inputs / mean

    inputs, net = batch(), TinyNet((7, 9))
    attributions = GLASAttribution(net, "softmax", transform=Brightness(), **SETTINGS).attribute(inputs, 1, Grid(2))
    brighter = GLASAttribution(net, "softmax", transform=Brightness(), **SETTINGS).attribute(inputs * 3, 1, Grid(2))
    torch.testing.assert_close(attributions, brighter, rtol=1e-3, atol=1e-7)


def test_it_is_an_attribution_of_captum():
    net = TinyNet((7, 9)).train()
    glas = GLASAttribution(net, "softmax", **SETTINGS)
    assert isinstance(glas, Attribution)
    assert isinstance(glas.forward_func, Predictor)
    assert glas.forward_func.net is net
    assert not glas.has_convergence_delta()
    assert not glas.multiplies_by_inputs
    assert GLASAttribution.get_name() == "GLAS"
    glas.attribute(batch(), 1, Grid(2))
    assert net.training


def test_captums_infidelity():
    """The object's map foretells what taking voxels away does; the mirrored map does not."""
    inputs = torch.ones(2, 1, 20, 24)
    glas = GLASAttribution(NoisyOr({(4, 5): 0.9}), "none", sigma_light=2, sigma_shadow=2, sigma_spatial=1.5)
    attributions = glas.attribute(inputs, 1, Grid((10, 12)))

    def darken(batch):
        removed = (torch.rand(batch.shape, generator=torch.Generator().manual_seed(0)) < 0.3).float() * batch
        return removed, batch - removed

    def measure(maps):
        return infidelity(glas.forward_func, darken, inputs, maps, target=1, n_perturb_samples=60, normalize=True)

    right, wrong = measure(attributions), measure(attributions.flip(2, 3))
    assert right.shape == (2,)
    assert (right < 0.8 * wrong).all()


def test_captums_sensitivity():
    glas, inputs = attribution(channels=2), batch(channels=2)
    options = {"n_perturb_samples": 2, "target": torch.tensor([2, 0, 1]), "search": Grid(2)}
    still = sensitivity_max(glas.attribute, inputs, perturb_func=lambda batch: batch, **options)
    assert still.tolist() == [0, 0, 0], "the targets did not stay with their inputs"
    moved = sensitivity_max(glas.attribute, inputs, perturb_radius=0.05, **options)
    assert moved.shape == (3,)
    assert ((moved > 0) & (moved < 1)).all()
    brighter = sensitivity_max(glas.attribute, inputs, perturb_func=lambda batch: 2 * batch, **options)
    plain, changed = (glas.attribute(times * inputs, [2, 0, 1], Grid(2)).flatten(1) for times in (1, 2))
    torch.testing.assert_close(brighter, (changed - plain).norm(dim=1) / plain.norm(dim=1))


def test_captums_noise_tunnel():
    glas, inputs = attribution(), batch()
    tunnel = NoiseTunnel(glas)
    still = tunnel.attribute(inputs, nt_samples=2, stdevs=0.0, target=[2, 0, 1], search=Grid(2))
    torch.testing.assert_close(still, glas.attribute(inputs, [2, 0, 1], Grid(2)))
    noisy = tunnel.attribute(inputs, nt_samples=2, stdevs=0.3, target=[2, 0, 1], search=Grid(2))
    assert noisy.shape == inputs.shape
    assert not torch.allclose(noisy, still)


def test_without_captum_one_sentence_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "captum"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.delitem(sys.modules, "glas3d.evaluate.captum")
    with refused(r'needs captum .*pip install "glas3d\[captum\]"'):
        importlib.import_module("glas3d.evaluate.captum")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_inputs_and_module_on_cuda():
    net = nn.Sequential(nn.Flatten(), nn.Linear(63, 2))
    on_cpu = GLASAttribution(net, "softmax", **SETTINGS).attribute(batch(), 1, Grid(2))
    attributions = GLASAttribution(net.cuda(), "softmax", **SETTINGS).attribute(batch().cuda(), 1, Grid(2))
    assert attributions.device.type == "cuda"
    torch.testing.assert_close(attributions.cpu(), on_cpu, rtol=1e-4, atol=1e-7)
