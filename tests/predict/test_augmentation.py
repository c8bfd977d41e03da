import numpy as np
import pytest
import torch

from glas3d.predict import Recipe
from glas3d.predict.augmentation import light_or_shade
from tests.predict.lessons import SHAPE, lesson, reference


def shade(recipe, batch, towards=None, seed=0):
    return shade_and_kept(recipe, batch, towards, seed)[0]


def shade_and_kept(recipe, batch, towards=None, seed=0):
    return light_or_shade(
        batch, reference() if towards is None else towards, recipe, torch.Generator().manual_seed(seed)
    )


def test_light_and_shade_go_towards_the_reference():
    batch = lesson()[0] * 1.7
    out = shade(Recipe(augmented=1.0, sigma=(2.0, 4.0), max_gaussians=1), batch)
    assert out.shape == batch.shape
    assert out.dtype == batch.dtype
    control = reference().expand_as(batch)
    low, high = torch.minimum(batch, control), torch.maximum(batch, control)
    assert ((out >= low - 1e-5) & (out <= high + 1e-5)).all()
    # every row is changed, a lit one almost everywhere and a shaded one in a spot
    moved = (out - batch).abs() / (control - batch).abs().clamp_min(1e-3)
    share = moved[:, 0, reference()[0] > 0.1].mean(dim=1)
    assert (share > 1e-3).all()
    assert (share < 0.4).any()
    assert (share > 0.6).any()
    # at the spot a shaded scan is the reference, and far from it a lit one
    assert moved.flatten(1).max(dim=1).values.min() > 0.9


def test_what_is_kept_is_the_scans_own_share():
    """The batch is the kept share of the scan and, for the rest, the reference; rows left alone are kept whole."""
    batch = torch.rand(32, 2, *SHAPE, generator=torch.Generator().manual_seed(3))
    towards = batch.mean(dim=0)
    out, kept = shade_and_kept(Recipe(augmented=0.5, sigma=(2.0, 4.0)), batch, towards)
    assert kept.shape == (32, 1, *SHAPE)
    torch.testing.assert_close(out, kept * batch + (1 - kept) * towards)
    whole = (kept == 1).flatten(1).all(dim=1)
    assert 0 < whole.sum() < 32
    assert torch.equal(out[whole], batch[whole])


def spot(*at, sigma=2.0):
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in SHAPE), indexing="ij")
    return torch.exp(-sum((axis - mu) ** 2 for axis, mu in zip(axes, at, strict=True)) / (2 * sigma**2))


def masks(recipe, *places, rows=32):
    """How far each row has gone to the reference, 0 to 1, when spots can only lie in ``places``."""
    towards = torch.zeros(1, *SHAPE)
    for place in places:
        towards[(0, *place)] = 1
    out = shade(recipe, torch.full((rows, 1, *SHAPE), -1.0), towards)
    return ((out + 1) / (towards + 1))[:, 0]


@pytest.mark.parametrize(("lit", "expected"), [(1.0, lambda m: 1 - m), (0.0, lambda m: m)], ids=["light", "shadow"])
def test_a_spot_has_the_size_asked_for(lit, expected):
    place = (8, 9, 10)
    recipe = Recipe(augmented=1.0, sigma=(2.0, 2.0), lit=lit, max_gaussians=1)
    for mask in masks(recipe, place):
        torch.testing.assert_close(mask, expected(spot(*place)), rtol=0, atol=1e-5)


def test_sizes_are_spread_between_the_smallest_and_the_largest():
    place = (8, 9, 10)
    found = masks(Recipe(augmented=1.0, sigma=(1.0, 4.0), lit=0.0, max_gaussians=1), place, rows=64)[:, 9, 9, 10]
    sigma = (-1 / (2 * found.log())).sqrt()  # one voxel off its middle
    assert sigma.min() >= 1 - 1e-3
    assert sigma.max() <= 4 + 1e-3
    assert sigma.log2().mean() == pytest.approx(1, abs=0.25)


def test_spots_are_joined():
    places = [(3, 4, 5), (12, 13, 14)]
    one, other = (spot(*place) for place in places)
    kinds = {"first": one, "second": other, "both": 1 - (1 - one) * (1 - other)}
    kinds |= {"twice the first": 1 - (1 - one) ** 2, "twice the second": 1 - (1 - other) ** 2}
    seen = set()
    for mask in masks(Recipe(augmented=1.0, sigma=(2.0, 2.0), lit=0.0, max_gaussians=2), *places):
        (kind,) = [name for name, expected in kinds.items() if torch.allclose(mask, expected, atol=1e-5)]
        seen.add(kind)
    assert {"first", "second", "both"} <= seen


@pytest.mark.parametrize("lit", [0.2, 0.7])
def test_the_share_that_is_lit(lit):
    found = masks(Recipe(augmented=1.0, sigma=(2.0, 2.0), lit=lit, max_gaussians=1), (8, 9, 10), rows=100)[:, 0, 0, 0]
    assert float((found > 0.5).float().mean()) == pytest.approx(lit, abs=0.12)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_only_the_chosen_rows_change(share):
    batch = lesson()[0].repeat(4, 1, 1, 1, 1) * 1.3
    original = batch.clone()
    out = shade(Recipe(augmented=share), batch)
    changed = (out != batch).flatten(1).any(dim=1)
    assert float(changed.float().mean()) == pytest.approx(share, abs=0.1)
    assert torch.equal(out[~changed], batch[~changed])
    assert torch.equal(batch, original)
    assert out.data_ptr() != batch.data_ptr()


def test_augmentation_repeats_by_generator_and_leaves_the_global_one():
    batch, recipe = lesson()[0], Recipe()
    before = torch.get_rng_state()
    assert torch.equal(shade(recipe, batch), shade(recipe, batch))
    assert not torch.equal(shade(recipe, batch), shade(recipe, batch, seed=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_spots_lie_where_the_reference_is_bright():
    places = [(x, y, z) for x in (12, 14) for y in (3, 4) for z in (15, 16)]
    found = masks(Recipe(augmented=1.0, sigma=(1.0, 1.0), lit=0.0, max_gaussians=1), *places, rows=40)
    assert {tuple(np.unravel_index(int(mask.argmax()), SHAPE)) for mask in found} == set(places)


def test_every_channel_is_perturbed():
    batch = torch.stack([lesson(4)[0][:, 0]] * 2, dim=1) * torch.tensor([1.5, 2.5]).view(1, 2, 1, 1, 1)
    out = shade(Recipe(augmented=1.0), batch, torch.cat([reference(), reference()]))
    assert (out != batch).flatten(2).any(dim=2).all()
