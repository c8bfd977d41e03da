"""Rivals on models whose maps are known: linear ones, constant ones, games, and one that depends on a single box."""

import itertools
import re
import sys

import captum.attr
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from glas3d import Predictor
from glas3d.core.covariates import Covariates
from glas3d.evaluate import rivals
from glas3d.evaluate.rivals import (
    METHODS,
    Difference,
    Edges,
    ExplainedValue,
    FeatureAblation,
    GaussianOcclusion,
    GradCam,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    Lime,
    Mask,
    Occlusion,
    Random,
    Rise,
    ShapleySampling,
    SmoothGrad,
    Task,
)
from tests.core.cases import Linear, TinyNet, refused

SHAPES = {2: (15, 18), 3: (11, 12, 13)}
BOXES = {2: (slice(3, 8), slice(9, 14)), 3: (slice(3, 7), slice(2, 6), slice(7, 12))}
QUICK = {"rise": {"n_masks": 600, "cells": 5}, "mask": {"n_steps": 60, "side": 8}, "lime": {"n_samples": 60}}
RIVALS = [name for name in METHODS if not name.startswith("glas")]
CONTROLS = ["random", "edges", "difference"]
APPROXIMATE = {"atol": 1e-5, "rtol": 1e-4, "check_dtype": False}


class Planted(nn.Module):
    """Two logits that depend on the brightness inside one box alone, through a convolution that changes nothing."""

    def __init__(self, ndim):
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[ndim]
        self.convolution = convolution(1, 1, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        with torch.no_grad():
            self.convolution.weight.fill_(1)
        self.box = (slice(None), 0, *BOXES[ndim])

    def forward(self, batch):
        evidence = 4 * self.relu(self.convolution(batch))[self.box].flatten(1).mean(dim=1) - 2
        return torch.stack([-evidence, evidence], dim=1)


def image(ndim, channels=1, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.5, 1, (channels, *SHAPES[ndim])).astype(np.float32))


def inside(ndim):
    box = np.zeros(SHAPES[ndim], dtype=bool)
    box[BOXES[ndim]] = True
    return box


def regions(ndim):
    """Labels with gaps; region 7 is the planted box."""
    labels = np.zeros(SHAPES[ndim], dtype=int)
    labels[: SHAPES[ndim][0] // 2] = 3
    labels[-2:, 2:5] = 12
    labels[BOXES[ndim]] = 7
    return labels


def rival(name, **settings):
    method = METHODS[name]
    return getattr(rivals, method.rival)(**{**method.settings, **QUICK.get(name, {}), **settings})


def task(predict, volume, target=1, *, labels=None, **more):
    value = ExplainedValue(predict, volume, target, **more)
    return Task.of(value, regions(volume.ndim - 1) if labels is None else labels)


def attribute(method, given):
    with given.value.prepared():
        return method.attribute(given)


def linear(ndim, channels=2, seed=1):
    """A linear model of two columns, its weights, a volume and a reference."""
    volume, reference = image(ndim, channels), image(ndim, channels, seed=7)
    weight = np.random.default_rng(seed).normal(size=(2, *volume.shape)).astype(np.float32)

    def predict(batch):
        return torch.stack([(batch * torch.from_numpy(w)).flatten(1).sum(dim=1) for w in weight], dim=1)

    evidence = (weight[1].astype(np.float64) * (volume - reference).numpy()).sum(axis=0)
    return predict, weight[1], volume, reference, evidence


def sums(evidence, ndim):
    """The sum of the evidence in each region, in the order of the labels."""
    labels = regions(ndim)
    return [evidence[labels == label].sum() for label in (3, 7, 12)]


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", RIVALS)
def test_the_map_is_higher_where_the_model_looks(name, ndim):
    given = task(Predictor(Planted(ndim), "softmax", device="cpu"), image(ndim))
    found = attribute(rival(name), given)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert not found.requires_grad
    if found.ndim == 1:
        assert found.shape == (3,)
        if name not in CONTROLS:
            assert int(found.argmax()) == 1
            assert found[1] > 10 * found[2].abs()
    else:
        assert found.shape == SHAPES[ndim]
        if name not in (*CONTROLS, "grad_cam"):  # with one channel the map of Grad-CAM is the volume itself
            box = inside(ndim)
            assert found[box].mean() > found[~box].mean() + found.std()


@pytest.mark.parametrize("ndim", [2, 3])
def test_closed_forms_of_a_linear_model(ndim):
    """What a region adds to a linear model is the sum of weight times difference from the reference."""
    predict, weight, volume, reference, evidence = linear(ndim)
    given = task(predict, volume, reference=reference, batch_size=3)

    def check(method, expected, tolerance=1e-4):
        np.testing.assert_allclose(attribute(method, given), expected, rtol=tolerance, atol=tolerance)

    check(Gradient(), np.abs(weight).max(axis=0))
    check(SmoothGrad(n_samples=3), np.abs(weight).max(axis=0))
    check(InputXGradient(), evidence)
    check(IntegratedGradients(n_steps=5), evidence)
    check(FeatureAblation(), sums(evidence, ndim), 1e-3)
    check(ShapleySampling(n_orders=1), sums(evidence, ndim), 1e-3)
    check(KernelShap(n_samples=60), sums(evidence, ndim), 2e-3)
    check(Difference(), (volume - reference).abs().amax(dim=0))
    window = (4, 5, 3)[:ndim]
    tile = tuple(slice(0, n) for n in window)
    drops = attribute(Occlusion(window=window), given)[tile]
    np.testing.assert_allclose(drops, np.full(window, evidence[tile].sum()), rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize("ndim", [2, 3])
def test_it_agrees_with_captum_where_captum_takes_a_reference(ndim):
    """Captum replaces by a baseline; here the reference is the origin. Both are the same, on a network too."""
    net, volume, reference = TinyNet(SHAPES[ndim], 2).eval(), image(ndim, 2), image(ndim, 2, seed=7)
    given = task(Predictor(net, "softmax", device="cpu"), volume, 2, reference=reference, link="logit", batch_size=3)

    def log_odds(batch):
        z = net(batch)
        return z[:, 2] - z[:, :2].logsumexp(dim=1)

    x, b = volume[None], reference[None]
    # the voxels of no region are one feature more, which is not compared
    labels = torch.from_numpy(np.unique(regions(ndim), return_inverse=True)[1].reshape(1, 1, *SHAPES[ndim]))
    drops = captum.attr.FeatureAblation(log_odds).attribute(x, baselines=b, feature_mask=labels)[0, 0]
    own = attribute(FeatureAblation(), given)
    for number in (1, 2, 3):
        torch.testing.assert_close(
            own[number - 1], drops[labels[0, 0] == number][0], atol=1e-5, rtol=1e-5, check_dtype=False
        )
    path = captum.attr.IntegratedGradients(log_odds).attribute(x, baselines=b, n_steps=24)[0].sum(dim=0).float()
    torch.testing.assert_close(
        attribute(IntegratedGradients(), given), path.detach(), atol=1e-5, rtol=1e-4, check_dtype=False
    )
    window = (2, *(4, 5, 3)[:ndim])
    boxes = captum.attr.Occlusion(log_odds).attribute(x, window, strides=window, baselines=b)[0].mean(dim=0)
    own = attribute(Occlusion(window=window[1:]), given)
    torch.testing.assert_close(own, boxes.float(), **APPROXIMATE)
    product = captum.attr.InputXGradient(log_odds).attribute(x)[0].sum(dim=0).detach()
    black = task(Predictor(net, "softmax", device="cpu"), volume, 2, link="logit")
    torch.testing.assert_close(attribute(InputXGradient(), black), product, **APPROXIMATE)


def test_grad_cam_agrees_with_its_formula():
    """Channels of the first convolution, weighted by their mean gradients; positive part; interpolated."""
    net, volume = TinyNet(SHAPES[3]), image(3)
    given = task(Predictor(net, "softmax", device="cpu"), volume, link="logit")
    activation = net.body[0](volume[None]).detach().requires_grad_(True)
    z = net.head(net.body[1:](activation))
    (z[:, 1] - z[:, [0, 2]].logsumexp(dim=1)).sum().backward()
    weights = activation.grad.mean(dim=(2, 3, 4), keepdim=True)
    expected = functional.relu((weights * activation).sum(dim=1))[0].detach()
    torch.testing.assert_close(attribute(GradCam(), given), expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(attribute(GradCam(layer="body.0"), given), expected, atol=1e-6, rtol=1e-4)


def test_guided_backpropagation_and_deconvolution_by_hand():
    """The gradient of a ReLU passes where it is positive and, if guided, where the unit is active too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    volume, labels = image(2)[:, :3, :4], np.ones((3, 4), dtype=int)
    given = task(Predictor(net, "none", device="cpu"), volume, labels=labels)
    hidden = net[1](volume.flatten()[None])[0].detach()
    back = net[3].weight[1].detach().clamp_min(0)
    assert bool((hidden < 0).any()) != bool((hidden < 0).all())
    for name, passed in (("deconvolution", back), ("guided_backprop", back * (hidden > 0))):
        expected = (net[1].weight.detach().T @ passed).reshape(3, 4)
        torch.testing.assert_close(attribute(rival(name), given), expected, atol=1e-6, rtol=1e-5)
    assert net[2].inplace


@pytest.mark.parametrize("ndim", [2, 3])
def test_integrated_gradients_account_for_the_whole_difference(ndim):
    net = TinyNet(SHAPES[ndim])
    given = task(Predictor(net, "softmax", device="cpu"), image(ndim), reference=0.3, link="logit")
    total = float(attribute(IntegratedGradients(n_steps=60), given).double().sum())
    assert total == pytest.approx(given.value.intact - given.value.removed, abs=1e-3)
    assert abs(total) > 0.01


def test_shapley_values_of_a_game_that_is_known():
    """A product of two regions and one region alone: the product is shared by halves."""
    labels = regions(3)
    volume = torch.from_numpy(np.select([labels == 3, labels == 7, labels == 12], [2.0, 3.0, 5.0])[None]).float()

    def predict(batch):
        one, two, three = (batch[:, 0][:, torch.from_numpy(labels == label)].mean(dim=1) for label in (3, 7, 12))
        return (one * two + three)[:, None]

    given = task(predict, volume, 0)
    orders = attribute(ShapleySampling(n_orders=200), given)
    np.testing.assert_allclose(orders, [3, 3, 5], atol=0.7)
    assert float(orders.sum()) == pytest.approx(11, abs=1e-4)
    kernel = attribute(KernelShap(n_samples=3000), given)
    np.testing.assert_allclose(kernel, [3, 3, 5], atol=0.2)
    np.testing.assert_allclose(attribute(FeatureAblation(), given), [6, 6, 5], atol=1e-5)


def test_lime_agrees_with_a_weighted_ridge_regression():
    """The regression of the authors, on all eight sets of three regions in the proportions of a large sample."""
    predict, _, volume, reference, evidence = linear(3)
    given = task(predict, volume, reference=reference)
    n = 4000
    own = attribute(Lime(n_samples=n), given)
    sets = np.array(list(itertools.product([0, 1], repeat=3)), dtype=float)
    cosine = sets.sum(axis=1) / np.sqrt(np.maximum(sets.sum(axis=1), 1e-12) * 3)
    weights = np.exp(-((1 - cosine) ** 2) / (2 * 0.25**2)) * n / 8
    values = sets @ sums(evidence, 3)
    centred = sets - np.average(sets, axis=0, weights=weights)
    left = centred.T @ (weights[:, None] * centred) + np.eye(3)
    expected = np.linalg.solve(left, centred.T @ (weights * (values - np.average(values, weights=weights))))
    np.testing.assert_allclose(own, expected, rtol=0.01, atol=0.01 * np.abs(expected).max())


@pytest.mark.parametrize("ndim", [2, 3])
def test_gaussian_occlusion_of_a_linear_model(ndim):
    """With windows over the whole volume one after the other, the middle of each has the drop by that window."""
    _, weight, volume, reference, _ = linear(ndim, channels=1)
    window = tuple(n - n % 2 for n in (5, 6, 6)[:ndim])
    shape = tuple(2 * n for n in window)
    cut = (slice(None), *(slice(0, n) for n in shape))
    weight, volume, reference = torch.from_numpy(weight[cut]), volume[cut], reference[cut]
    given = task(
        lambda batch: (batch * weight).flatten(1).sum(dim=1)[:, None],
        volume,
        0,
        reference=reference,
        labels=np.ones(shape, dtype=int),
    )
    drops = attribute(GaussianOcclusion(window=window, overlap=0.0), given)
    assert float(given.value.evaluations) >= 2**ndim + 1
    first = tuple(slice(0, n) for n in window)
    # inside one window the map is one number: the weighted mean of one value
    assert float(drops[first].std()) == pytest.approx(0, abs=1e-4)
    evidence = (weight * (volume - reference))[0][first]
    # the mask of the window is between 0 and 1
    low, high = float(evidence.clamp_max(0).sum()), float(evidence.clamp_min(0).sum())
    assert low < float(drops[first].mean()) < high


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
@pytest.mark.parametrize("ndim", [2, 3])
def test_gaussian_occlusion_agrees_with_monai_on_black(ndim):
    """MONAI returns the probability that is left; its mask fades to 0."""
    from monai.visualize.occlusion_sensitivity import OcclusionSensitivity

    net, volume = TinyNet(SHAPES[ndim], 2).eval(), image(ndim, 2)
    occlude = OcclusionSensitivity(
        net, mask_size=5, overlap=0.6, mode="gaussian", activate=lambda z: z.softmax(dim=1), verbose=False
    )
    with torch.no_grad():
        left = torch.as_tensor(occlude(volume[None])[0])[0, 2]
        intact = net(volume[None]).softmax(dim=1)[0, 2]
    given = task(Predictor(net, "softmax", device="cpu"), volume, 2)
    own = attribute(GaussianOcclusion(window=5, overlap=0.6), given)
    torch.testing.assert_close(own, intact - left.float(), atol=1e-6, rtol=1e-4)
    assert float(own.std()) > 1e-4


def test_gaussian_windows_in_a_box_only():
    box = ((2, 8), (4, 12))
    given = task(Predictor(Planted(2), "softmax", device="cpu"), image(2))
    saliency = attribute(GaussianOcclusion(window=4, overlap=0.6, box=box), given)
    assert saliency[2:8, 4:12].isfinite().all()
    assert int(saliency.isfinite().sum()) == 6 * 8


@pytest.mark.parametrize("ndim", [2, 3])
def test_rise_of_a_model_that_does_not_look(ndim):
    """Masks that keep everything give the probability itself; others give it on average."""
    volume = image(ndim)

    def constant(batch):
        return torch.full((len(batch), 2), 0.3)

    given = task(constant, volume)
    whole = attribute(Rise(n_masks=20, keep=1.0), given)
    torch.testing.assert_close(whole, torch.full(SHAPES[ndim], 0.3))
    half = attribute(Rise(n_masks=2000, cells=3), given)
    assert half.mean() == pytest.approx(0.3, rel=0.05)
    assert torch.equal(half, attribute(Rise(n_masks=2000, cells=3), given))
    assert not torch.equal(half, attribute(Rise(n_masks=2000, cells=3, seed=1), given))


def test_mask_of_a_model_that_does_not_look_deletes_nothing():
    given = task(lambda batch: 0 * batch.mean(dim=(2, 3)) + 0.3, image(2), 0)
    assert attribute(Mask(n_steps=60), given).max() < 0.05


def test_the_controls_know_nothing_of_the_model():
    ramp = torch.arange(15.0)[:, None].expand(15, 18)
    given = task(Predictor(Planted(2), "softmax", device="cpu"), ramp[None], reference=2.0)
    assert torch.equal(attribute(Difference(), given), (ramp - 2).abs())
    edges = attribute(Edges(), given)
    torch.testing.assert_close(edges[5:10], torch.ones(5, 18), atol=1e-3, rtol=0)
    first, again, other = (attribute(Random(seed=seed), given) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert given.value.evaluations == 0


# Evaluations.

COUNTS = {
    "feature_ablation": 3 + 1,
    "shapley_sampling": 2 * 3 + 1,
    "rise": 600,
    "lime": 60,
    "mask": 60 * 3,
    "gradient": 3,
    "input_x_gradient": 3,
    "deconvolution": 3,
    "guided_backprop": 3,
    "smooth_grad": 24 * 3,
    "integrated_gradients": 24 * 3,
    "integrated_gradients_mean": 24 * 3,
    "grad_cam": 3,
    **dict.fromkeys(CONTROLS, 0),
}


@pytest.mark.parametrize("name", RIVALS)
def test_evaluations_are_counted_and_a_backward_pass_is_two(name):
    net, inputs = Planted(2), []
    given = task(Predictor(net, "softmax", device="cpu"), image(2), batch_size=5)
    rival(name).check(given.value, name)  # what a check evaluates is not counted
    handle = net.register_forward_pre_hook(lambda module, args: inputs.append(len(args[0])))
    attribute(rival(name), given)
    handle.remove()
    backward = 3 if "gradients" in rival(name).needs else 1
    assert given.value.evaluations == backward * sum(inputs)
    if name in COUNTS:
        assert given.value.evaluations == COUNTS[name]


# The model is left as it was.


def state(net):
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "modes": [module.training for module in net.modules()],
        "in place": [getattr(module, "inplace", None) for module in net.modules()],
        "hooks": [list(getattr(module, name)) for module in net.modules() for name in hooks],
        "required": [p.requires_grad for p in net.parameters()],
        "gradients": [p.grad for p in net.parameters()],
        "values": [tensor.tolist() for tensor in (*net.parameters(), *net.buffers())],
    }


class Mixed(nn.Module):
    """A network with what methods can disturb: modes, a frozen weight, buffers, ReLUs in place, hooks, gradients."""

    def __init__(self):
        super().__init__()
        relu = nn.ReLU(inplace=True)  # one module, used twice
        self.body = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), relu, nn.Conv2d(3, 2, 3), relu)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(2, 2)
        self.body[1].eval()
        self.head.bias.requires_grad_(False)
        self.head.weight.grad = torch.ones_like(self.head.weight)
        self.body[0].register_forward_hook(lambda module, args, output: None)

    def forward(self, batch):
        return self.head(self.drop(self.body(batch)).mean(dim=(2, 3)))


@pytest.mark.parametrize("name", RIVALS)
def test_the_model_is_left_as_it_was(name):
    net = Mixed()
    before, random = state(net), torch.get_rng_state()
    given = task(Predictor(net, "softmax", device="cpu"), image(2))
    rival(name).check(given.value, name)
    attribute(rival(name), given)
    assert state(net) == before
    assert torch.equal(torch.get_rng_state(), random)


def test_the_model_is_left_as_it_was_by_a_method_that_fails():
    net = Mixed()
    before = state(net)
    given = task(Predictor(net, "softmax", device="cpu"), image(2))

    def fail(*_):
        net.head.register_forward_hook(lambda *_: None)
        raise RuntimeError("broken")

    given.value.forward = fail
    with pytest.raises(RuntimeError, match="broken"):
        attribute(GuidedBackprop(), given)
    assert state(net) == before


@pytest.mark.parametrize("name", RIVALS)
def test_batches_make_no_difference(name):
    net = TinyNet(SHAPES[2])
    if "relu" in rival(name).needs:
        net.body[1] = nn.ReLU()
    found = [
        attribute(rival(name), task(Predictor(net, "softmax", device="cpu"), image(2), reference=0.2, batch_size=size))
        for size in (1, 7)
    ]
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-4)


# The explained number.


@pytest.mark.parametrize("target", [0, 1, 2])
def test_log_odds_by_their_definition(target):
    net, volume = TinyNet(SHAPES[2]), image(2)
    z = net(volume[None])[0].detach().double().numpy()
    p = np.exp(z) / np.exp(z).sum()
    for predict in (Predictor(net, "softmax", device="cpu"), lambda batch: net(batch).softmax(dim=1)):
        value = ExplainedValue(predict, volume, target, link="logit")
        assert value.intact == pytest.approx(np.log(p[target] / (1 - p[target])), abs=1e-5)
        assert value.probability == pytest.approx(p[target], abs=1e-6)
    assert ExplainedValue(
        Predictor(net, "sigmoid", device="cpu"), volume, target, link="logit"
    ).intact == pytest.approx(z[target], abs=1e-5)


def test_log_odds_of_one_logit():
    """A single logit z has the columns 1 - sigmoid(z) and sigmoid(z)."""
    net, volume = TinyNet(SHAPES[2], classes=1), image(2)
    z = float(net(volume[None]).detach())
    predict = Predictor(net, "sigmoid", device="cpu")
    assert ExplainedValue(predict, volume, 1, link="logit").intact == pytest.approx(z, abs=1e-5)
    assert ExplainedValue(predict, volume, 0, link="logit").intact == pytest.approx(-z, abs=1e-5)
    alone = ExplainedValue(lambda batch: net(batch).sigmoid(), volume, 0, link="logit")
    assert alone.intact == pytest.approx(z, abs=1e-4)


def test_log_odds_hold_what_the_probability_has_lost():
    """P of 1 - 1e-9 is 1 in float32, and all drops are 0; the logits still tell regions apart."""

    def net(batch):
        z = 20 + batch[:, 0].flatten(1).mean(dim=1)
        return torch.stack([-z, z], dim=1)

    predict = Predictor(net, "softmax", device="cpu")
    assert set(attribute(FeatureAblation(), task(predict, image(2))).tolist()) == {0.0}
    assert len(set(attribute(FeatureAblation(), task(predict, image(2), link="logit")).tolist())) == 3


@pytest.mark.parametrize(
    ("predict", "match"),
    [
        (
            lambda batch: torch.tensor([[0.2, 0.9]]).expand(len(batch), 2),
            "log-odds need probabilities of all classes, .* add up to 1.1",
        ),
        (
            lambda batch: torch.tensor([[0.0, 1.0]]).expand(len(batch), 2),
            "log-odds of a probability of 0 or 1 are not finite",
        ),
        (lambda batch: torch.full((len(batch), 1), 1.7), "log-odds need a probability from 0 to 1, .* is 1.7"),
    ],
)
def test_log_odds_that_cannot_be_had(predict, match):
    with refused(match):
        ExplainedValue(predict, image(2), 0, link="logit")
    auto = ExplainedValue(predict, image(2), 0, link="auto")
    assert (auto.link, auto.why_no_log_odds[:8]) == ("probability", "log-odds")


def test_a_readout_has_no_log_odds():
    predict = Predictor(TinyNet(SHAPES[2]), "softmax", device="cpu", readout=lambda p: p[:, :2])
    with refused("a readout gives other numbers"):
        ExplainedValue(predict, image(2), 0, link="logit")
    assert ExplainedValue(predict, image(2), 0, link="auto").link == "probability"


# What is refused.


class Functional(nn.Module):
    """A network with a ReLU that is a module and one that is a function."""

    def __init__(self):
        super().__init__()
        self.relu, self.head = nn.ReLU(), nn.Linear(270, 2)

    def forward(self, batch):
        return self.head(functional.relu(self.relu(batch).flatten(1)))


@pytest.mark.parametrize(
    ("net", "method", "match"),
    [
        (Functional(), "guided_backprop", "every ReLU .* as a module nn.ReLU, 1 of 2 are functions"),
        (TinyNet(SHAPES[2]), "deconvolution", "deconvolution changes the gradient of ReLUs, this model has none"),
        (Functional(), "grad_cam", "grad_cam needs a network with a convolution, this model has none"),
        (
            lambda batch: TinyNet(SHAPES[2])(batch.detach()),
            "gradient",
            "gradient needs a torch network .*: its output does not depend on its input by way of torch$",
        ),
        (
            lambda batch: batch.numpy().mean(axis=(2, 3)).repeat(2, 1),
            "mask",
            "mask needs a torch network .*: its output cannot be had of a tensor that requires gradients$",
        ),
    ],
)
def test_models_that_lack_what_a_method_needs(net, method, match):
    value = ExplainedValue(Predictor(net, "none", device="cpu"), image(2), 0)
    with refused(match):
        rival(method).check(value, method)
    rival("occlusion").check(value, "occlusion")


class Branched(nn.Module):
    """A network with a convolution that is used, one that is not, and one of lines that are no map."""

    def __init__(self):
        super().__init__()
        self.lines, self.conv, self.head = nn.Conv1d(15, 15, 3, padding=1), nn.Conv2d(1, 2, 3), nn.Linear(2, 2)
        self.unused, self.detached = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3)

    def forward(self, batch):
        maps = self.conv(self.lines(batch[:, 0])[:, None])
        return self.head((maps + 0 * self.detached(batch.detach())).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("layer", "got"),
    [
        ("head", "got 'head', whose output is (1, 2)"),
        ("lines", "got 'lines', whose output is (1, 15, 18)"),
        ("unused", "got 'unused'"),
        ("detached", "got 'detached'"),
        ("nothing", "layer must name a module of the network, got 'nothing'"),
    ],
)
def test_a_layer_of_grad_cam_must_give_a_map(layer, got):
    given = task(Predictor(Branched(), "softmax", device="cpu"), image(2))
    for refuse in (
        lambda: GradCam(layer=layer).check(given.value, "grad_cam"),
        lambda: attribute(GradCam(layer=layer), given),
    ):
        with refused(re.escape(got) + "$"):
            refuse()
    of_default = attribute(GradCam(), given)
    torch.testing.assert_close(of_default, attribute(GradCam(layer="conv"), given))


class WithAge(Planted):
    """A network that takes two numbers next to the volume, of which the first multiplies what it reads."""

    def forward(self, batch, table):
        return super().forward(batch) * table[:, :1] + table[:, 1:]


class Bound(nn.Module):
    """The same network for one participant."""

    def __init__(self, net, values):
        super().__init__()
        self.net, self.values = net, torch.tensor([values])

    def forward(self, batch):
        return self.net(batch, self.values.expand(len(batch), -1))


@pytest.mark.parametrize("name", RIVALS)
def test_a_model_is_given_the_participants_covariates(name):
    net, own, volume = WithAge(2), Covariates.of({"age": 1.5, "sex": 1}, {"age": 0, "sex": 0}), image(2)
    given = task(Predictor(net, "softmax", device="cpu", covariates=own.names), volume, covariates=own)
    expected = task(Predictor(Bound(net, [1.5, 1.0]), "softmax", device="cpu"), volume)
    assert given.value.intact == expected.value.intact
    torch.testing.assert_close(attribute(rival(name), given), attribute(rival(name), expected))


def test_a_callable_is_given_the_participants_covariates():
    own = Covariates.of({"age": 0.25}, {"age": 0})
    value = ExplainedValue(lambda batch, table: torch.cat([table, 1 - table], dim=1), image(2), 0, covariates=own)
    assert value.intact == value.removed == 0.25


def test_a_model_that_takes_covariates_needs_their_values():
    predict = Predictor(lambda batch, table: table, "none", device="cpu", covariates=("age", "sex"))
    with refused("takes the covariates age, sex: give their values"):
        ExplainedValue(predict, image(2), 0)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Rise(n_masks=0), "n_masks must be a whole number of at least 1, got 0"),
        (lambda: Rise(keep=0.0), "keep must be above 0 and at most 1, got 0.0"),
        (lambda: Mask(side=2.5), "side must be a whole number of at least 1, got 2.5"),
        (lambda: Lime(n_samples=1), "n_samples must be a whole number of at least 2, got 1"),
        (lambda: KernelShap(n_samples=2), "n_samples must be a whole number of at least 3, got 2"),
        (lambda: ShapleySampling(n_orders=0), "n_orders must be a whole number of at least 1, got 0"),
        (lambda: SmoothGrad(noise=-1), "noise must be 0 or a positive number, got -1"),
        (lambda: IntegratedGradients(n_steps=0), "n_steps must be a whole number of at least 1, got 0"),
    ],
)
def test_settings_that_are_refused(make, match):
    with refused(match):
        make()


@pytest.mark.parametrize(
    ("method", "match"),
    [
        (Occlusion(window=(4, 4, 4)), r"window must have a number for each of 2 axes, got \(4, 4, 4\)"),
        (Occlusion(window=(4, 4), stride=(2,)), r"stride must have a number for each of 2 axes, got \(2,\)"),
        (GaussianOcclusion(box=((0, 4), (10, 19))), "box must hold first voxel and end along each axis"),
        (GradCam(layer="head"), "layer must name a module of the network, got 'head'"),
    ],
)
def test_what_does_not_fit_the_volume_is_refused(method, match):
    given = task(Predictor(Planted(2), "softmax", device="cpu"), image(2))
    with refused(match):
        attribute(method, given)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.zeros((18, 15), dtype=int), r"labels must be whole numbers of shape \(15, 18\), got int64 of \(18, 15\)"),
        (np.ones((15, 18)), "got float64 of"),
        (np.zeros((15, 18), dtype=int), "labels must hold a region, all are 0"),
    ],
)
def test_labels_that_are_refused(labels, match):
    with refused(match):
        task(Linear(np.ones((1, 1, 15, 18))), image(2), 0, labels=labels)


def test_without_captum_one_sentence_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "captum"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "captum", None)
    with refused(r'needs captum .*pip install "glas3d\[captum\]"'):
        attribute(Occlusion(window=(4, 4)), task(Predictor(Planted(2), "softmax", device="cpu"), image(2)))
