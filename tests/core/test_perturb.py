import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glas3d.core.covariates import WithEmptyMasks
from glas3d.core.gaussian import gaussian_masks
from glas3d.core.perturb import Buffers, LightAndShadow, Perturbations, PerturbedBatch, blend
from glas3d.core.search import Segments
from glas3d.core.shapes import Ellipsoids, SoftSegments
from tests.core import oracle
from tests.core.cases import POINTS, SHAPES, atlas, volume


def perturbations(batch_size, ndim=3, channels=2, background=0.25):
    shape = SHAPES[ndim]
    intact = torch.from_numpy(volume(shape, channels))
    light, shadow = (gaussian_masks(POINTS[ndim], shape, (sigma,) * ndim) for sigma in (1.5, 2.5))
    inputs = LightAndShadow(intact, torch.full_like(intact, background), light, shadow)
    return Perturbations(inputs, batch_size)


def by_number(made):
    """Every input by its number, and what the batches were like."""
    inputs, addresses, shapes = {}, set(), set()
    for described, numbers in made.batches():
        batch = described.written()
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
    for described, numbers in made.batches():
        batch = described.written()
        for row, number in enumerate(numbers):
            assert np.array_equal(batch[row].numpy(), expected[number])
        batch.fill_(7.0)  # as a normalisation in place would


def test_the_volume_given_is_left_alone():
    intact = torch.from_numpy(volume((7, 9)))
    before = intact.clone()
    made = gaussian_masks(POINTS[2], (7, 9), (1.0, 1.0))
    inputs = LightAndShadow(intact, torch.zeros_like(intact), made, made)
    for batch, _ in Perturbations(inputs, 5).batches():
        batch.written().fill_(7.0)
    assert torch.equal(intact, before)


# A batch is described before it is written.


def described(ndim, kernel, channel=None):
    """Inputs of two covariates, and a number for each kind: intact, light, shadow, empty light and shadow, the bare."""
    shape, random = SHAPES[ndim], np.random.default_rng(3)
    intact = volume(shape, 2)
    dark = random.uniform(0, 1, intact.shape).astype(np.float32)
    light, shadow = (
        WithEmptyMasks(gaussian_masks(POINTS[ndim], shape, (sigma,) * ndim, kernel), 2) for sigma in (1.5, 2.5)
    )
    inputs = LightAndShadow(torch.from_numpy(intact), torch.from_numpy(dark), light, shadow, channel, bare=True)
    return inputs, [4, 0, 1, 3, 5, 2, 0, 0, 9, 12, 13, 1]


def expected_of(inputs, number, ndim, kernel):
    intact, dark = (part.double().numpy() for part in (inputs.volume, inputs.background))
    if number == 0:
        return intact
    point, kind = divmod(number - 1, 2)
    empty = point >= len(POINTS[ndim])
    g = np.zeros(SHAPES[ndim]) if empty else oracle.mask(POINTS[ndim][point], SHAPES[ndim], (1.5, 2.5)[kind], kernel)
    return (oracle.light, oracle.shade)[kind](intact, g, dark, inputs.channel)


@pytest.mark.parametrize("channel", [None, 1])
@pytest.mark.parametrize("kernel", ["gaussian", "exponential"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_description_is_what_is_written(ndim, kernel, channel):
    inputs, numbers = described(ndim, kernel, channel)
    batch = PerturbedBatch(inputs, numbers)
    written = batch.written().double().numpy()
    first, difference, offset, *factors = (part.double().numpy() for part in batch.tensors)
    blended = first + difference * (offset + np.prod(np.broadcast_arrays(*factors), axis=0))
    assert len(factors) == (ndim if kernel == "gaussian" else 2)
    for row, number in enumerate(numbers):
        right = expected_of(inputs, number, ndim, kernel)
        np.testing.assert_allclose(written[row], right, rtol=0, atol=1e-6, err_msg=str(number))
        np.testing.assert_allclose(blended[row], right, rtol=0, atol=1e-6, err_msg=str(number))


@pytest.mark.parametrize("kernel", ["gaussian", "exponential"])
def test_a_description_stays_true_when_the_batch_is_written(kernel):
    inputs, numbers = described(3, kernel)
    batch = PerturbedBatch(inputs, numbers)
    before = [part.clone() for part in batch.tensors]
    batch.written().fill_(7.0)
    assert all(torch.equal(part, kept) for part, kept in zip(batch.tensors, before, strict=True))


@pytest.mark.parametrize("kernel", ["gaussian", "exponential"])
def test_another_brightness_is_that_of_the_written_batch(kernel):
    inputs, numbers = described(2, kernel, channel=0)
    batch = PerturbedBatch(inputs, numbers)
    torch.testing.assert_close(batch.scaled(0.1).written(), batch.written() * 0.1, rtol=0, atol=1e-7)


def test_batches_that_nobody_writes_take_no_memory():
    made, held = perturbations(4), []
    for number, (batch, _) in enumerate(made.batches()):
        if number == 0:
            batch.written()
        held.append(sum(kept.numel() for kept in made._buffers._kept.values()))
    assert held[0] > 0
    assert held[-1] == 0


@pytest.mark.parametrize("kind", [SoftSegments, Ellipsoids.of])
@pytest.mark.parametrize("ndim", [2, 3])
def test_masks_written_into_their_boxes_leave_nothing_of_earlier_ones(kind, ndim):
    shape = SHAPES[ndim]
    made = kind(Segments.from_labels(atlas(shape), None), (0.15,) * ndim)
    buffers, like = Buffers(), torch.zeros(1, *shape)
    buffers.get("masks", like, 4, *shape).fill_(7.0)
    right = made.masks(0, torch.empty(len(made), *shape))
    assert (right == 0).any(dim=0).any(), "no box is the whole volume"
    for rows, masks, start, expected in (
        (slice(1, 4), made, 0, right),
        (slice(0, 3), made, 1, [right[1], right[2], torch.zeros(shape)]),
        (slice(2, 4), made, 0, right[:2]),
        (slice(0, 2), gaussian_masks(POINTS[ndim], shape, (2.0,) * ndim), 3, None),
        (slice(0, 2), made, 2, [right[2], torch.zeros(shape)]),
        (slice(0, 4), None, -1, torch.zeros(4, *shape)),
    ):
        found = buffers.masks("masks", like, rows, masks, start)
        if expected is not None:
            assert all(torch.equal(mask, own) for mask, own in zip(found, expected, strict=True))
