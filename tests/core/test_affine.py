"""A transform that may come before blending does; any other one is applied to every batch."""

import numpy as np
import pytest
import torch

from glas3d import GLAS, RGLAS, Predictor
from glas3d.core.affine import transformed_once
from glas3d.core.gaussian import gaussian_masks
from glas3d.core.perturb import LightAndShadow
from tests.core import oracle
from tests.core.cases import POINTS, SHAPES, TinyNet, assert_close, in_float64, volume

SIGMAS = {"sigma_light": 2.0, "sigma_shadow": 1.5, "sigma_spatial": 2.0}
GAIN = torch.linspace(0.5, 2.0, 9)  # of the last axis


def in_place(batch):
    return batch.sub_(1.2).div_(0.4)


def own_means(batch):
    return batch - batch.mean(dim=tuple(range(1, batch.ndim)), keepdim=True)


def smooth(batch):
    return (batch + batch.roll(1, dims=-1)) / 2


def branch(batch):
    return batch / 3 if batch.max() > 1.3 else batch


def mixed(batch):
    return batch - 0.3 * batch.flip(1)


def fails_on_nothing(batch):
    if batch.abs().max() == 0:
        raise ValueError("no tissue")
    return batch * 2


AFFINE = {
    "scaled": lambda batch: batch * 3 - 1,
    "voxel by voxel": lambda batch: batch * GAIN - GAIN.flip(0),
    "in place": in_place,
    "a clip that is not reached": lambda batch: batch.clamp(-1, 3) / 2,
}
OTHERS = {
    "a clip": lambda batch: batch.clamp(max=1.9),
    "a clip of few voxels": lambda batch: batch.clamp(max=1.95),
    "a power": lambda batch: batch**1.01,
    "a step": lambda batch: batch * (batch > 0.6),
    "own mean": own_means,
    "own maximum": lambda batch: batch / batch.amax(),
    "smoothed": smooth,
    "flipped": lambda batch: batch.flip(-1),
    "branch": branch,
    "channels mixed": mixed,
    "fails": fails_on_nothing,
    "another shape": lambda batch: batch[..., 1:],
    "double": lambda batch: batch.double() * 2,
    "not finite": lambda batch: batch.log(),
}


def inputs_of(ndim, channel=None):
    shape = SHAPES[ndim]
    intact = torch.from_numpy(volume(shape, 2))
    masks = gaussian_masks(POINTS[ndim], shape, (1.5,) * ndim)
    return LightAndShadow(intact, torch.zeros_like(intact), masks, masks, channel)


def once(transform, inputs):
    predict = Predictor(TinyNet(tuple(inputs.volume.shape[1:]), 2), "softmax", transform, device="cpu")
    given = inputs.volume.clone(), inputs.background.clone()
    model, after = transformed_once(predict, inputs, (1, 0, 2))
    assert torch.equal(inputs.volume, given[0]), "the volume is left alone"
    assert torch.equal(inputs.background, given[1])
    assert (model is predict) == (after is inputs)
    return model, after


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_transform_that_is_affine_is_applied_once(name, ndim):
    inputs = inputs_of(ndim)
    model, after = once(AFFINE[name], inputs)
    assert model.transform is None
    assert torch.equal(after.volume, AFFINE[name](inputs.volume[None].clone())[0])
    assert torch.equal(after.background, AFFINE[name](inputs.background[None].clone())[0])


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_any_other_transform_stays_where_it_is(name, ndim):
    model, _ = once(OTHERS[name], inputs_of(ndim))
    assert model.transform is OTHERS[name]


def test_a_model_without_a_transform_is_left_as_it_is():
    inputs = inputs_of(2)
    assert once(None, inputs)[1] is inputs
    assert transformed_once(torch.sigmoid, inputs, (1, 0)) == (torch.sigmoid, inputs)


@pytest.mark.parametrize("name", ["scaled", "a clip"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_explanations_agree_with_the_oracle(name, ndim):
    shape, transform = SHAPES[ndim], (AFFINE | OTHERS)[name]
    net, image = TinyNet(shape), volume(shape)
    probabilities = in_float64(net)

    def model(one):
        return probabilities(transform(torch.from_numpy(one)).numpy())

    result = GLAS(Predictor(net, "softmax", transform, device="cpu"), **SIGMAS).explain(image, 1, POINTS[ndim])
    expected = oracle.explain(model, image, 1, points=POINTS[ndim], **SIGMAS)
    assert_close(result.light, expected["light"])
    assert_close(result.drop, expected["drop"])


def test_a_transform_that_may_come_first_is_applied_to_a_few_inputs():
    """In a recursion too, whose model stays fitted to the intact volume."""
    counts = {}
    for name in ("scaled", "a clip"):
        seen = counts[name] = []

        def counted(batch, name=name, seen=seen):
            seen.append(len(batch))
            return (AFFINE | OTHERS)[name](batch)

        glas = GLAS(
            Predictor(TinyNet((7, 9)), "softmax", counted, device="cpu"), engine="eager", batch_size=4, **SIGMAS
        )
        points = np.argwhere(np.ones((7, 9)))[::2].astype(float)
        RGLAS(glas, max_iterations=1, stop=1e-9).explain(volume((7, 9)), 1, points)
    assert sum(counts["scaled"]) < 20
    assert sum(counts["a clip"]) > 2 * 32
