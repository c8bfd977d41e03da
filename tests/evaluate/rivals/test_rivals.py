"""Rivals on models whose maps are known: linear ones, constant ones, and one that depends on a single box."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from glas3d.evaluate.rivals import FeatureAblation, GaussianOcclusion, GradCam, Lime, Mask, Occlusion, Rise, blurred
from tests.core.cases import refused

SHAPES = {2: (15, 18), 3: (11, 12, 13)}
BOXES = {2: (slice(3, 8), slice(9, 14)), 3: (slice(3, 7), slice(2, 6), slice(7, 12))}


class Planted(nn.Module):
    """Two logits that depend on the brightness inside one box alone, through a convolution that changes nothing."""

    def __init__(self, ndim):
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[ndim]
        self.convolution = convolution(1, 1, 1, bias=False)
        with torch.no_grad():
            self.convolution.weight.fill_(1)
        self.box = (slice(None), 0, *BOXES[ndim])

    def forward(self, batch):
        evidence = 4 * self.convolution(batch)[self.box].flatten(1).mean(dim=1) - 2
        return torch.stack([-evidence, evidence], dim=1)


def probabilities(net):
    return lambda batch: net(batch).softmax(dim=1)


def image(ndim, channels=1):
    return torch.from_numpy(np.random.default_rng(0).uniform(0.5, 1, (channels, *SHAPES[ndim])).astype(np.float32))


def inside(ndim):
    box = np.zeros(SHAPES[ndim], dtype=bool)
    box[BOXES[ndim]] = True
    return box


def regions(ndim):
    """Labels with gaps; region 7 is the planted box."""
    labels = np.zeros(SHAPES[ndim], dtype=int)
    labels[: SHAPES[ndim][0] // 2] = 3
    labels[BOXES[ndim]] = 7
    return labels


METHODS = {
    "grad_cam": lambda ndim: GradCam(),
    "rise": lambda ndim: Rise(n_masks=600, cells=5),
    "mask": lambda ndim: Mask(n_steps=60, side=8, background=torch.zeros(1, *SHAPES[ndim])),
    "lime": lambda ndim: Lime(features=regions(ndim), n_samples=60),
    "feature_ablation": lambda ndim: FeatureAblation(features=regions(ndim)),
    "occlusion": lambda ndim: Occlusion(window=(4,) * ndim, stride=(2,) * ndim),
    "gaussian_occlusion": lambda ndim: GaussianOcclusion(window=5),
}


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", METHODS)
def test_the_map_is_higher_where_the_model_looks(name, ndim):
    method, net, volume = METHODS[name](ndim), Planted(ndim).eval(), image(ndim)
    model = probabilities(net) if name in ("rise", "mask") else net
    saliency = method.attribute(model, volume, 1)
    assert saliency.shape == volume.shape[1:]
    assert saliency.dtype == torch.float32
    assert saliency.isfinite().all()
    assert not saliency.requires_grad
    if name != "grad_cam":  # with one channel its map is the volume itself
        box = inside(ndim)
        assert saliency[box].mean() > saliency[~box].mean() + saliency.std()


@pytest.mark.parametrize("ndim", [2, 3])
def test_ablation_and_occlusion_of_a_linear_model(ndim):
    """The drop of a region is the sum of weight times intensity in it."""
    volume = image(ndim, channels=2)
    weight = torch.from_numpy(np.random.default_rng(1).normal(size=volume.shape).astype(np.float32))

    def linear(batch):
        return (batch * weight).flatten(1).sum(dim=1, keepdim=True)

    labels, evidence = regions(ndim), (weight * volume).sum(dim=0)
    for batch_size in (None, 3):
        saliency = FeatureAblation(features=labels, batch_size=batch_size).attribute(linear, volume, 0)
        for label in np.unique(labels):
            torch.testing.assert_close(saliency[labels == label].mean(), evidence[labels == label].sum())
    tile = tuple(slice(0, 4) for _ in range(ndim))
    saliency = Occlusion(window=(4,) * ndim).attribute(linear, volume, 0)
    torch.testing.assert_close(saliency[tile], evidence[tile].sum().expand((4,) * ndim))


@pytest.mark.parametrize("ndim", [2, 3])
def test_rise_of_a_model_that_does_not_look(ndim):
    """Masks that keep everything give the probability itself; others give it on average."""
    volume = image(ndim)

    def constant(batch):
        return torch.full((len(batch), 2), 0.3)

    whole = Rise(n_masks=20, keep=1.0).attribute(constant, volume, 1)
    torch.testing.assert_close(whole, torch.full(SHAPES[ndim], 0.3))
    half = Rise(n_masks=2000, cells=3, batch_size=64).attribute(constant, volume, 1)
    assert half.mean() == pytest.approx(0.3, rel=0.05)
    assert torch.equal(half, Rise(n_masks=2000, cells=3, batch_size=64).attribute(constant, volume, 1))
    assert not torch.equal(half, Rise(n_masks=2000, cells=3, batch_size=64, seed=1).attribute(constant, volume, 1))


def test_mask_of_a_model_that_does_not_look_deletes_nothing():
    volume = image(2)
    saliency = Mask(n_steps=60).attribute(lambda batch: 0 * batch.mean(dim=(2, 3)) + 0.3, volume, 0)
    assert saliency.max() < 0.05
    assert blurred(volume).std() < 0.3 * volume.std()


def test_lime_is_the_same_for_the_same_seed():
    net, volume = Planted(2), image(2)
    state = torch.get_rng_state()
    first, again = (Lime(features=regions(2), n_samples=20).attribute(net, volume, 1) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(state, torch.get_rng_state())


def test_gaussian_windows_in_a_box_only():
    box = ((2, 8), (4, 12))
    saliency = GaussianOcclusion(window=4, box=box, batch_size=2).attribute(Planted(2).eval(), image(2), 1)
    assert saliency[2:8, 4:12].isfinite().all()
    assert int(saliency.isfinite().sum()) == 6 * 8


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Rise(n_masks=0), "n_masks must be a whole number of at least 1, got 0"),
        (lambda: Rise(keep=0.0), "keep must be above 0 and at most 1, got 0.0"),
        (lambda: Mask(side=2.5), "side must be a whole number of at least 1, got 2.5"),
        (lambda: Lime(features=regions(2), batch_size=0), "batch_size must be a whole number of at least 1, got 0"),
    ],
)
def test_settings_that_are_refused(make, match):
    with refused(match):
        make()


@pytest.mark.parametrize(
    ("method", "match"),
    [
        (
            FeatureAblation(features=np.zeros((18, 15), dtype=int)),
            r"features must be whole numbers of shape \(15, 18\)",
        ),
        (Lime(features=np.zeros((15, 18))), "got float64 of shape"),
        (Occlusion(window=(4, 4, 4)), r"window must have a number for each of 2 axes, got \(4, 4, 4\)"),
        (Occlusion(window=(4, 4), stride=(2,)), r"stride must have a number for each of 2 axes, got \(2,\)"),
        (GaussianOcclusion(box=((0, 4), (10, 19))), "box must hold first voxel and end along each axis"),
        (GradCam(layer="head"), "layer must name a module of the network, got 'head'"),
    ],
)
def test_what_does_not_fit_the_volume_is_refused(method, match):
    with refused(match):
        method.attribute(Planted(2), image(2), 1)


def test_volumes_and_networks_that_are_refused():
    with refused(r"a volume must be \(c, \*spatial\) with two or three spatial axes, got \(15, 18\)"):
        Rise().attribute(probabilities(Planted(2)), image(2)[0], 1)
    with refused("Grad-CAM needs a network with a convolution"):
        GradCam().attribute(nn.Sequential(nn.Flatten(), nn.Linear(270, 2)), image(2), 1)


def test_without_captum_one_sentence_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "captum"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "captum", None)
    with refused(r'needs captum .*pip install "glas3d\[captum\]"'):
        Occlusion(window=(4, 4)).attribute(Planted(2), image(2), 1)
