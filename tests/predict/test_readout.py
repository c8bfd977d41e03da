"""Targets beyond classes: segmentation, detection, regression."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNetPlusPlus, DynUNet, UNet
from torch import nn

from glas3d import GLAS, RGLAS, Grid, Predictor
from glas3d.predict import FirstOutput, RegionMean
from tests.core.cases import POINTS, SHAPES, TinyNet, refused, volume

SMALL = {"sigma_light": 2, "sigma_shadow": 2}
SEGMENTED = (8, 12, 16)


def returns(value):
    """A model that returns the same value for every batch."""
    return lambda batch: value


def regions(shape):
    """Two regions whose numbers are neither consecutive nor below 128."""
    labels = np.zeros(shape, dtype=np.int16)
    labels[2:5, 3:] = 301
    labels[6, :4] = 17
    return labels


@pytest.fixture(scope="module")
def unet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        net = UNet(3, 1, 3, channels=(4, 8), strides=(2,))
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(2)
    return net.eval()


# What a region's mean is.


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float64])
def test_the_mean_over_each_region_in_the_order_of_its_number(ndim, dtype):
    labels = regions(SHAPES[ndim])
    output = torch.rand(5, 4, *SHAPES[ndim])
    read = RegionMean(labels.astype(dtype), channel=2)
    assert read.labels == (17, 301)
    means = read(output)
    expected = [output[:, 2].numpy()[:, labels == label].mean(axis=1) for label in (17, 301)]
    torch.testing.assert_close(means, torch.from_numpy(np.stack(expected, axis=1)))


def test_booleans_are_one_region_and_channel_1_is_read():
    mask = regions((7, 9)) == 17
    output = torch.rand(2, 3, 7, 9)
    for region in (mask, torch.from_numpy(mask), mask[::-1][::-1]):
        read = RegionMean(region)
        assert read.labels == (1,)
        torch.testing.assert_close(read(output), output[:, 1, mask].mean(dim=1, keepdim=True))


@pytest.mark.parametrize(
    ("region", "match"),
    [
        (np.zeros((7, 9), dtype=bool), r"at least one voxel, got none on \(7, 9\)"),
        (np.full((7, 9), 0.5), "booleans or whole numbers from 0, got others in float64"),
        (np.full((7, 9), np.nan), "whole numbers from 0"),
        (np.full((7, 9), np.inf), "whole numbers from 0"),
        (np.full((7, 9), -1), "whole numbers from 0, got others in int64"),
        ("hippocampus", "whole numbers from 0"),
        (None, "whole numbers from 0"),
    ],
)
def test_what_is_no_region(region, match):
    with refused(match):
        RegionMean(region)


@pytest.mark.parametrize("channel", [-1, True, 1.0, "lesion"])
def test_what_is_no_channel(channel):
    with refused("channel must be a whole number of at least 0"):
        RegionMean(np.ones((7, 9), dtype=bool), channel)


@pytest.mark.parametrize(
    ("output", "match"),
    [
        (torch.zeros(2, 3, 9, 7), r"channel 1 of \(n, k, \*\(7, 9\)\).*gives \(2, 3, 9, 7\)"),
        (torch.zeros(2, 1, 7, 9), r"gives \(2, 1, 7, 9\)"),
        (torch.zeros(2, 3), r"gives \(2, 3\)"),
        ([torch.zeros(2, 3, 7, 9)], r"one tensor \(n, k, \*spatial\), the model gives list"),
    ],
)
def test_an_output_that_does_not_fit_the_region(output, match):
    predict = Predictor(returns(output), "none", readout=RegionMean(np.ones((7, 9), dtype=bool)))
    with refused(match):
        predict(torch.zeros(2, 1, 7, 9))


# Segmentation networks.


def test_a_unet_s_regions_are_named_and_explained_at_once(unet):
    labels, image = regions(SEGMENTED), volume(SEGMENTED)
    names = ("stem", "lobe")
    predict = Predictor(unet, "softmax", readout=RegionMean(labels, channel=2), classes=names, device="cpu")

    def by_hand(batch):
        with torch.no_grad():
            raised = unet(batch).exp()
        lesion = (raised / raised.sum(dim=1, keepdim=True))[:, 2]
        return torch.stack([lesion[:, torch.from_numpy(labels == n)].mean(dim=1) for n in (17, 301)], dim=1)

    torch.testing.assert_close(predict(image[None]), by_hand(torch.from_numpy(image[None])))
    explanations = GLAS(predict, **SMALL).explain(image, names, Grid((2, 3, 3)))
    expected = GLAS(by_hand, **SMALL).explain(image, [0, 1], Grid((2, 3, 3)))
    for explanation, other in zip(explanations, expected, strict=True):
        np.testing.assert_allclose(explanation.score, other.score, rtol=1e-4, atol=1e-8)
        assert explanation.score.max() > 2 * np.median(explanation.score)  # the output depends on the position
    assert [explanation.target for explanation in explanations] == [0, 1]
    assert np.abs(explanations[0].drop - explanations[1].drop).max() > 1e-4


def test_the_softmax_is_over_the_channels():
    logits = torch.randn(2, 3, 7, 9)
    whole = Predictor(returns(logits), "softmax", readout=lambda p: p.sum(dim=1).mean(dim=(1, 2)))
    torch.testing.assert_close(whole(torch.zeros(2, 1, 7, 9)), torch.ones(2, 1))


def test_one_sigmoid_channel_has_two_columns_here_too():
    logits, region = torch.randn(2, 1, 7, 9), np.ones((7, 9), dtype=bool)
    for channel, sign in ((0, 1), (1, -1)):
        predict = Predictor(returns(logits), "sigmoid", readout=RegionMean(region, channel))
        expected = (1 / (1 + (sign * logits).exp())).mean(dim=(2, 3))
        torch.testing.assert_close(predict(torch.zeros(2, 1, 7, 9)), expected)
    with refused("softmax over one output is always 1"):
        Predictor(returns(logits), "softmax", readout=RegionMean(region))(torch.zeros(2, 1, 7, 9))


def test_a_map_without_a_readout_says_what_is_missing(unet):
    with refused(r"\(2, classes\) for a batch of 2, got \(2, 3, 8, 12, 16\): give a readout"):
        Predictor(unet, "softmax", device="cpu")(torch.zeros(2, 1, *SEGMENTED))


def test_the_readout_stays_when_the_transform_is_fitted():
    class Scale:
        def fit(self, volume):
            return lambda batch: batch / volume.mean()

    image = volume((7, 9))
    predict = Predictor(lambda batch: batch, "none", Scale(), readout=lambda p: p.mean(dim=(1, 2, 3)))
    torch.testing.assert_close(predict.fit(image)(image[None]), torch.ones(1, 1))


# Several outputs: deep supervision, objects, detections.


@pytest.fixture(scope="module")
def nested():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return BasicUNetPlusPlus(2, 1, 2, features=(4,) * 6, deep_supervision=True).eval()


def test_a_list_of_outputs(nested):
    batch, region = torch.rand(2, 1, 32, 48), regions((32, 48)) > 0
    whole = nested(batch)
    assert isinstance(whole, list)
    with refused(r"one tensor \(n, classes\), got list: glas3d.predict.FirstOutput"):
        Predictor(nested, "softmax", device="cpu")(batch)
    with refused(r"one tensor \(n, classes\), got list: .*a readout with activation"):
        Predictor(nested, "softmax", readout=RegionMean(region), device="cpu")(batch)
    expected = whole[0].softmax(dim=1)[:, 1, torch.from_numpy(region)].mean(dim=1, keepdim=True).detach()
    mean = RegionMean(region)
    for predict in (
        Predictor(FirstOutput(nested), "softmax", readout=mean, device="cpu"),
        Predictor(nested, "none", readout=lambda several: mean(several[0].softmax(dim=1)), device="cpu"),
    ):
        torch.testing.assert_close(predict(batch), expected)


def test_deep_supervision_that_ends_with_training():
    net = DynUNet(3, 1, 2, [3] * 3, [1, 2, 2], [2, 2], filters=[4] * 3, deep_supervision=True)
    assert net(torch.zeros(1, 1, *SEGMENTED)).ndim == 6
    predict = Predictor(net, "softmax", readout=RegionMean(regions(SEGMENTED)), device="cpu")
    assert predict(torch.rand(2, 1, *SEGMENTED)).shape == (2, 2)


@pytest.mark.parametrize("kind", ["object", "dict"])
def test_logits_within_something_else(kind):
    logits = torch.randn(2, 3)
    output = SimpleNamespace(logits=logits) if kind == "object" else {"logits": logits}
    with refused(f"got {type(output).__name__}: "):
        Predictor(returns(output), "softmax")(torch.zeros(2, 1, 7, 9))
    read = (lambda o: o.logits.softmax(1)) if kind == "object" else (lambda o: o["logits"].softmax(1))
    given = Predictor(returns(output), "none", readout=read)(torch.zeros(2, 1, 7, 9))
    torch.testing.assert_close(given, logits.softmax(dim=1))


def test_the_box_of_highest_score_of_a_detector():
    """As many boxes as there are bright pixels, a dict an image: torchvision's form."""

    def detect(batch):
        return [
            {"scores": image[image > 1.5] / 2, "labels": torch.ones(int((image > 1.5).sum()))} for image in batch[:, 0]
        ]

    def highest(detections):
        return torch.stack(
            [boxes["scores"].amax() if len(boxes["scores"]) else torch.tensor(0.0) for boxes in detections]
        )

    image = np.zeros((1, 7, 9), dtype=np.float32)
    image[0, 1, 7] = 2.0
    predict = Predictor(detect, "none", readout=highest, classes=("a box",))
    e = GLAS(predict, sigma_light=1, sigma_shadow=1).explain(image, "a box", [[1, 7], [5, 2]])
    assert e.probability == 1
    assert e.score.argmax() == 0


@pytest.mark.parametrize(
    ("read", "match"),
    [
        (lambda p: p, r"a readout must return \(2, classes\) for a batch of 2, got \(2, 3, 7, 9\)$"),
        (lambda p: p.mean(), r"a readout must return .* for a batch of 2, got \(\)"),
        (lambda p: p[:1].mean(dim=(2, 3)), r"got \(1, 3\)"),
        (lambda p: {"mean": p}, r"a readout must return one tensor \(n, classes\), got dict$"),
        (lambda p: p.mean(dim=(1, 2, 3)), "^2 classes are named, the readout gives 1$"),
    ],
)
def test_readouts_that_do_not_give_a_column_a_target(read, match):
    predict = Predictor(returns(torch.zeros(2, 3, 7, 9)), "softmax", readout=read, classes=("a", "b"))
    with refused(match):
        predict(torch.zeros(2, 1, 7, 9))


def test_what_is_no_readout():
    with refused("readout must be callable, got ndarray"):
        Predictor(TinyNet((7, 9)), "softmax", readout=np.ones((7, 9)))


# Numbers that are no probability.


class Age(nn.Module):
    """``w_j . x + b_j``: the outputs of a linear regressor."""

    def __init__(self, shape, offsets):
        super().__init__()
        weights = np.random.default_rng(8).normal(size=(len(offsets), int(np.prod(shape))))
        self.weights = torch.from_numpy(weights).double()
        self.offsets = torch.tensor(offsets, dtype=torch.float64)

    def forward(self, x):
        return x.double().flatten(1) @ self.weights.T + self.offsets


def gaussians(points, shape, sigma):
    axes = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    away = [sum((a - m) ** 2 for a, m in zip(axes, point, strict=True)) for point in points]
    return np.exp(-np.stack(away) / (2 * sigma**2)).reshape(len(points), -1)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_linear_regressor_in_closed_form(ndim):
    """Shadow takes away ``sum(w G x)`` whatever the offset; light leaves that and the offset."""
    shape, points = SHAPES[ndim], POINTS[ndim][:2]
    net, image = Age(shape, (70.0, -3.0)), volume(shape)
    predict = Predictor(net, "none", classes=("age", "change"), device="cpu")
    explanations = GLAS(predict, sigma_light=1.5, sigma_shadow=2.5).explain(image, ("age", "change"), points)
    weighed = net.weights.numpy() * image.ravel()
    for explanation, w, offset in zip(explanations, weighed, (70.0, -3.0), strict=True):
        assert explanation.probability == pytest.approx(w.sum() + offset, abs=1e-4)
        np.testing.assert_allclose(explanation.drop, gaussians(points, shape, 2.5) @ w, atol=1e-4)
        light = gaussians(points, shape, 1.5) @ w + offset
        np.testing.assert_allclose(explanation.light, light, atol=1e-4)
        np.testing.assert_allclose(explanation.score, light * (np.abs(explanation.drop) + 1e-5), rtol=1e-4, atol=1e-4)
    assert (explanations[1].light < 0).any()
    assert (explanations[1].score < 0).any()


def test_shadow_alone_does_not_depend_on_where_zero_is():
    shape = (7, 9)
    image, scores = volume(shape), {}
    for fusion in ("product", "shadow"):
        for offset in (0.0, 70.0):
            predict = Predictor(Age(shape, (offset,)), "none", device="cpu")
            scores[fusion, offset] = GLAS(predict, **SMALL, fusion=fusion).explain(image, 0, Grid((3, 4))).score
    np.testing.assert_allclose(scores["shadow", 0.0], scores["shadow", 70.0], atol=1e-4)
    ranks = [np.argsort(scores["product", offset]).tolist() for offset in (0.0, 70.0)]
    assert ranks[0] != ranks[1]


def test_a_map_and_a_recursion_of_negative_outputs_are_finite():
    predict = Predictor(Age((7, 9), (-40.0,)), "none", device="cpu")
    image = volume((7, 9))
    e = GLAS(predict, **SMALL).explain(image, 0, Grid((3, 4)))
    assert np.isfinite(e.saliency).all()
    assert e.saliency.min() < 0
    r = RGLAS(GLAS(predict, **SMALL, fusion="shadow")).explain(image, 0, Grid((3, 4)))
    assert len(r.rounds) == 1
    assert (r.saliency.min(), r.saliency.max()) == (0, 1)


def test_as_many_outputs_as_a_regressor_has():
    predict = Predictor(Age((7, 9), (0.0,) * 6), "none", device="cpu")
    assert len(GLAS(predict, **SMALL).explain(volume((7, 9)), range(6), Grid(2))) == 6
    with refused("class index from 0 to 5, got 6"):
        GLAS(predict, **SMALL).explain(volume((7, 9)), 6, Grid(2))


def test_one_logit_is_explained_from_both_sides():
    predict = Predictor(TinyNet((7, 8, 9), classes=1), "sigmoid", classes=("NC", "AD"), device="cpu")
    nc, ad = GLAS(predict, **SMALL).explain(volume((7, 8, 9)), ("NC", "AD"), Grid(2))
    np.testing.assert_allclose(nc.light + ad.light, 1, atol=1e-6)
    np.testing.assert_allclose(nc.drop, -ad.drop, atol=1e-6)
    np.testing.assert_allclose(nc.shadow, ad.shadow, atol=1e-6)


def test_three_classes_of_one_channel():
    predict = Predictor(TinyNet((7, 8, 9), classes=3), "softmax", classes=("NC", "MCI", "AD"), device="cpu")
    explanations = GLAS(predict, **SMALL).explain(volume((7, 8, 9)), ("NC", "MCI", "AD"), Grid(2))
    assert sum(explanation.probability for explanation in explanations) == pytest.approx(1)
    np.testing.assert_allclose(sum(explanation.drop for explanation in explanations), 0, atol=1e-6)
