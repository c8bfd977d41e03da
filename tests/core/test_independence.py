"""A model's output for an input depends on that input alone, or the model is refused or evaluated one by one."""

import numpy as np
import pytest
import torch
from torch import nn

from glas3d import GLAS, RGLAS, Grid, Predictor
from glas3d.core.agreement import allowed_difference, differ
from glas3d.core.reference import probability_of_background
from glas3d.errors import GlasWarning
from tests.core.cases import SHAPES, TinyNet, refused, volume

SMALL = {"sigma_light": 2, "sigma_shadow": 2}
OURS = ("light", "drop", "score", "saliency")


def softmax(batch):
    """A model of two classes that sees where the image is bright."""
    logits = torch.stack([batch[..., :3].flatten(1).mean(dim=1), batch[..., 3:].flatten(1).mean(dim=1)], dim=1)
    return (3 * logits).softmax(1)


def explained(predict, batch_size=4, image=None, **settings):
    glas = GLAS(predict, batch_size=batch_size, **SMALL, **settings)
    return glas.explain(volume((7, 9)) if image is None else image, 1, Grid((3, 2)))


# What depends on more than the input.


@pytest.mark.parametrize("batch_size", [2, 4, 50, None])
def test_a_model_that_normalises_over_the_batch_is_evaluated_one_by_one(batch_size):
    def over_the_batch(batch):
        return softmax((batch - batch.mean()) / batch.std())

    def each_alone(batch):
        return torch.cat([over_the_batch(row[None]) for row in batch])

    with pytest.warns(GlasWarning, match="depends on the other inputs of its batch .*evaluated one at a time"):
        found = explained(over_the_batch, batch_size)
    expected = explained(each_alone, 1)
    for name in OURS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.settings["batch_size"] == 1
    assert "normalisation over the batch" in found.settings["one_by_one"]
    assert "one_by_one" not in expected.settings


def test_batch_norm_without_running_statistics_is_noticed():
    net = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), TinyNet((7, 9)))
    with pytest.warns(GlasWarning, match="other inputs of its batch"):
        assert explained(Predictor(net, "softmax", device="cpu")).settings["batch_size"] == 1


@pytest.mark.parametrize("batch_size", [1, 4])
def test_random_output_is_refused(batch_size):
    def dropped(batch):
        return softmax(torch.dropout(batch, 0.5, train=True))

    state = torch.get_rng_state()
    with refused("same scan the same output each time, .* changed by .*: it is random, such as by dropout"):
        explained(dropped, batch_size)
    torch.set_rng_state(state)
    with refused("it is random"):
        explained(lambda batch: softmax(batch * np.float32(np.random.random())), batch_size)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_hidden_state_is_refused(batch_size):
    kept = [torch.zeros(7, 9)]

    def running(batch):
        kept[0] = 0.9 * kept[0] + 0.1 * batch.mean(dim=(0, 1))
        return softmax(batch - kept[0])

    with refused("it keeps something from one evaluation to the next"):
        explained(running, batch_size)


def test_state_that_shows_late_is_refused_at_the_end():
    calls = []

    def tiring(batch):
        calls.append(len(batch))
        return softmax(batch if len(calls) < 4 else 0.9 * batch)

    # 13 inputs, 5 in a batch: the last batch holds the intact image twice
    with refused("differs by .* between the first batch and the last"):
        explained(tiring, 5)


def test_a_well_behaved_model_is_evaluated_four_times_more():
    inputs = []

    def counted(batch):
        inputs.append(len(batch))
        return softmax(batch)

    found = explained(counted, 4)
    assert found.settings["evaluations"] == 13
    assert inputs == [1, 3, 4, 4, 4, 4]


class Counted(nn.Module):
    """A network that notes how many inputs each of its evaluations had, and may normalise over them."""

    def __init__(self):
        super().__init__()
        self.net, self.sizes, self.over_the_batch = TinyNet((7, 9)), [], False

    def forward(self, x):
        self.sizes.append(len(x))
        return self.net((x - x.mean()) / x.std() if self.over_the_batch else x)


def test_a_model_that_has_not_changed_is_tried_with_the_first_scan_alone():
    net = Counted()
    predict = Predictor(net, "softmax", device="cpu")
    images = [volume((7, 9)), volume((7, 9)) * 0.5]
    for image, expected in zip(images, ([1, 3, 4, 4, 4, 4], [4, 4, 4, 4]), strict=True):
        net.sizes.clear()
        found = explained(predict, 4, image, engine="eager")
        assert net.sizes == expected
        assert found.settings["evaluations"] == 13
    alone = explained(Predictor(Counted(), "softmax", device="cpu"), 4, images[1], engine="eager")
    for name in OURS:
        np.testing.assert_array_equal(getattr(found, name), getattr(alone, name))
    # batches of another size, another link, and another transform are tried
    for others in ({"batch_size": 3}, {"link": "logit", "fusion": "mean"}):
        net.sizes.clear()
        explained(predict, **({"image": images[1], "engine": "eager"} | others))
        assert net.sizes[:2] == [1, 3]
    net.sizes.clear()
    explained(Predictor(net, "softmax", transform=torch.neg, device="cpu"), 4, images[1], engine="eager")
    assert net.sizes[:2] == [1, 3]


def test_a_model_that_has_changed_is_tried_again():
    net = Counted()
    predict = Predictor(net, "softmax", device="cpu")
    explained(predict)
    net.over_the_batch = True
    with pytest.warns(GlasWarning, match="depends on the other inputs of its batch"):
        assert explained(predict).settings["batch_size"] == 1
    with pytest.warns(GlasWarning, match="depends on the other inputs of its batch"):  # and every time
        assert explained(predict).settings["batch_size"] == 1


def test_an_engine_is_compared_with_the_model_for_every_scan():
    net = Counted()
    predict = Predictor(net, "softmax", device="cpu")
    explained(predict, engine="channels_last")
    net.sizes.clear()
    explained(predict, 4, volume((7, 9)) * 0.5, engine="channels_last")
    assert net.sizes == [1]  # the intact scan; all else is evaluated by the engine's own copy


# What a model writes to is never read again.


class InPlace(nn.Module):
    """A network that normalises the batch it is given."""

    def __init__(self, net, in_place=True):
        super().__init__()
        self.net, self.in_place = net, in_place

    def forward(self, x):
        x = x if self.in_place else x.clone()
        return self.net(x.sub_(1.2).div_(0.4).clamp_(min=-2))


class Overwriting:
    """A transform that is fitted by writing over the scan, and writes over each batch."""

    def fit(self, scan):
        mean = float(scan.mean())
        scan.zero_()
        return lambda batch: batch.sub_(mean)


@pytest.mark.parametrize("batch_size", [1, 4, 5])
@pytest.mark.parametrize("ndim", [2, 3])
def test_writing_to_the_batch_changes_nothing(ndim, batch_size):
    image, background = volume(SHAPES[ndim]), volume(SHAPES[ndim], seed=3)
    found, expected = (
        explained(
            Predictor(InPlace(TinyNet(SHAPES[ndim]), way), "softmax", device="cpu"),
            batch_size,
            image,
            background=background,
        )
        if ndim == 2
        else GLAS(
            Predictor(InPlace(TinyNet(SHAPES[3]), way), "softmax", device="cpu"), batch_size=batch_size, **SMALL
        ).explain(image, 1, Grid((2, 1, 3)))
        for way in (True, False)
    )
    for name in OURS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_recursion_reads_nothing_that_a_model_has_written_over():
    found, expected = (
        RGLAS(GLAS(Predictor(InPlace(TinyNet((7, 9)), way), "softmax", device="cpu"), batch_size=4, **SMALL)).explain(
            volume((7, 9)), 1, Grid((3, 2))
        )
        for way in (True, False)
    )
    np.testing.assert_array_equal(found.saliency, expected.saliency)
    assert [r.probability for r in found.rounds] == [r.probability for r in expected.rounds]


def test_a_background_and_a_fitted_scan_are_left_alone():
    image, background = volume((7, 9)), volume((7, 9), seed=3)
    kept = image.copy(), background.copy()
    predict = Predictor(InPlace(TinyNet((7, 9))), "softmax", transform=Overwriting(), device="cpu")
    glas = GLAS(predict, background=background, batch_size=4, **SMALL)
    first = probability_of_background(glas, image, 1)
    assert probability_of_background(glas, image, 1) == first
    glas.explain(image, 1, Grid(2))
    assert np.array_equal(image, kept[0])
    assert np.array_equal(background, kept[1])
    batch = torch.from_numpy(image)[None]
    predict.fit(batch[0])(batch)
    assert np.array_equal(batch[0].numpy(), kept[0])


# How much two evaluations may differ.


def test_allowed_is_a_share_of_the_effect_and_more_than_rounding():
    outputs = np.array([[0.2, 0.5, 1e-5], [0.2, 0.5001, 4e-5]])
    assert allowed_difference(outputs) == pytest.approx([4e-6, 1e-5, 3e-7], rel=1e-3)
    assert allowed_difference(np.array([[0.0, 300.0], [1.0, -300.0]])) == pytest.approx([1e-4, 3e-2])
    assert differ(np.array([0.5]), np.array([0.6]), np.array([0.01]))
    assert differ(np.array([np.nan]), np.array([0.6]), np.array([1.0]))
    assert not differ(np.array([0.5]), np.array([0.505]), np.array([0.01]))
