import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glas3d.core.gaussian import gaussian_masks
from glas3d.core.perturb import LightAndShadow, Perturbations, blend
from tests.core import oracle
from tests.core.cases import POINTS, SHAPES, volume


def perturbations(batch_size, ndim=3, channels=2, background=0.25):
    shape = SHAPES[ndim]
    intact = torch.from_numpy(volume(shape, channels))
    light, shadow = (gaussian_masks(POINTS[ndim], shape, (sigma,) * ndim) for sigma in (1.5, 2.5))
    inputs = LightAndShadow(intact, torch.full_like(intact, background), light, shadow)
    return Perturbations(inputs, batch_size)


def by_number(made):
    """Every input by its number, and what the batches were like."""
    inputs, addresses, shapes = {}, set(), set()
    for batch, numbers in made.batches():
        assert len(numbers) <= len(batch)
        addresses.add(batch.data_ptr())
        shapes.add(tuple(batch.shape))
        for row, number in enumerate(numbers):
            assert number not in inputs
            inputs[number] = batch[row].numpy().copy()
    return inputs, addresses, shapes


def test_blend_keeps_the_volume_where_the_mask_is_one():
    masks = torch.rand(3, 7, 9)
    above, below = torch.rand(2, 7, 9), torch.rand(2, 7, 9)
    out = torch.empty(3, 2, 7, 9)
    assert blend(below, above, masks, out=out) is out
    for row, g in zip(out.numpy(), masks.numpy(), strict=True):
        np.testing.assert_allclose(row, oracle.light(above.numpy(), g, below.numpy()), atol=1e-6)
        np.testing.assert_allclose(row, oracle.shade(below.numpy(), g, above.numpy()), atol=1e-6)


@pytest.mark.parametrize("background", [0.0, 0.3])
def test_blend_is_exact_at_the_ends(background):
    """``I*G + B*(1-G)`` is ``I`` itself where G is 1 and ``B`` itself where it is 0."""
    bright = torch.rand(1, 70, 90, generator=torch.Generator().manual_seed(0)) * 1000
    dark = torch.full_like(bright, background)
    masks = torch.zeros(1, 70, 90)
    masks[:, ::2] = 1.0
    for above, below in ((bright, dark), (dark, bright)):
        out = blend(below, above, masks, out=torch.empty(1, 1, 70, 90))[0]
        assert torch.equal(out[:, 1::2], below[:, 1::2])
        assert torch.equal(out[:, ::2], above[:, ::2])


@pytest.mark.parametrize("ndim", [2, 3])
def test_inputs_are_intact_then_light_and_shadow_of_every_point(ndim):
    made = perturbations(3, ndim)
    inputs, _, _ = by_number(made)
    intact = volume(SHAPES[ndim], 2)
    assert np.array_equal(inputs[0], intact)
    for i, mu in enumerate(POINTS[ndim]):
        lit = oracle.light(intact, oracle.mask(mu, SHAPES[ndim], 1.5), 0.25)
        dark = oracle.shade(intact, oracle.mask(mu, SHAPES[ndim], 2.5), 0.25)
        np.testing.assert_allclose(inputs[2 * i + 1], lit, atol=2e-6)
        np.testing.assert_allclose(inputs[2 * i + 2], dark, atol=2e-6)


@given(st.integers(1, 12))
def test_batches_share_a_buffer_and_a_shape_and_change_nothing(batch_size):
    made = perturbations(batch_size)
    expected, _, _ = by_number(perturbations(1))
    inputs, addresses, shapes = by_number(made)
    assert len(made) == 2 * len(POINTS[3]) + 1
    assert sorted(inputs) == list(range(len(made)))
    assert len(addresses) == 1
    assert shapes == {(min(batch_size, 9), 2, 7, 8, 9)}
    assert all(np.array_equal(inputs[number], expected[number]) for number in expected)


def test_a_second_pass_gives_the_same_inputs():
    made = perturbations(4)
    first, _, _ = by_number(made)
    second, _, _ = by_number(made)
    assert all(np.array_equal(first[number], second[number]) for number in first)


def test_what_a_model_does_to_its_batch_does_not_come_back():
    made = perturbations(4)
    expected, _, _ = by_number(perturbations(4))
    for batch, numbers in made.batches():
        for row, number in enumerate(numbers):
            assert np.array_equal(batch[row].numpy(), expected[number])
        batch.fill_(7.0)  # as a normalisation in place would


def test_the_volume_given_is_left_alone():
    intact = torch.from_numpy(volume((7, 9)))
    before = intact.clone()
    made = gaussian_masks(POINTS[2], (7, 9), (1.0, 1.0))
    inputs = LightAndShadow(intact, torch.zeros_like(intact), made, made)
    for batch, _ in Perturbations(inputs, 5).batches():
        batch.fill_(7.0)
    assert torch.equal(intact, before)
