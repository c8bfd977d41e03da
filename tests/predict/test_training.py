from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from glas3d import GlasError, Predictor
from glas3d.predict.training import Recipe, light_or_shade, train
from glas3d.predict.transform import Standardisation

SHAPE = (16, 18, 20)
LESION = (slice(4, 9), slice(6, 11), slice(9, 14))
QUICK = Recipe(epochs=8, pretraining=1, batch_size=8, learning_rate=3e-3, dropout=0.0, sigma=(1.5, 3.0))


@cache
def lesson(n=48, seed=0):
    """Bright ellipsoids, half of them with a dark hole, and their labels."""
    rng = np.random.default_rng(seed)
    axes = np.stack(np.meshgrid(*(np.linspace(-1, 1, k) for k in SHAPE), indexing="ij"))
    inside = (axes**2).sum(axis=0) < 1
    volumes = inside * rng.normal(1, 0.1, (n, 1, *SHAPE))
    labels = np.arange(n) % 2
    volumes[labels == 1, 0, *LESION] *= 0.5
    return torch.as_tensor(volumes, dtype=torch.float32), torch.as_tensor(labels)


def reference():
    volumes, labels = lesson()
    return volumes[labels == 0].mean(dim=0)


@cache
def trained(recipe=QUICK):
    return train(*lesson(), reference(), recipe)


def short(**changed):
    return replace(QUICK, epochs=1, **changed)


def states(recipe):
    net, standardisation = train(*lesson(), reference(), recipe)
    return {**net.state_dict(), "mean": standardisation.mean, "std": standardisation.std}


def same(one, other):
    return all(torch.equal(one[key], other[key]) for key in one.keys() | other.keys())


def test_it_learns_an_obvious_lesson():
    net, standardisation = trained()
    volumes, labels = lesson(40, seed=9)
    p = Predictor(net, "softmax", lambda batch: (batch - standardisation.mean) / standardisation.std, "cpu")(volumes)
    assert (p.argmax(dim=1) == labels).float().mean() > 0.95
    assert not net.training
    assert {p.device.type for p in net.parameters()} == {"cpu"}
    assert all(p.is_contiguous() for p in net.parameters())


def test_the_standardisation_is_that_of_the_intact_training_scans():
    _, standardisation = trained()
    expected = Standardisation.of(lesson()[0])
    assert torch.equal(standardisation.mean, expected.mean)
    assert torch.equal(standardisation.std, expected.std)


def test_one_seed_gives_one_network_bit_for_bit():
    assert torch.get_num_threads() == 1
    torch.manual_seed(1)
    one = states(short())
    torch.manual_seed(2)
    assert same(one, states(short()))


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"augmented": 0.0}, {"pretraining": 0}, {"sigma": (3.0, 6.0)}], ids=str
)
def test_other_recipes_give_other_networks(changed):
    assert not same(states(short()), states(short(**changed)))


def test_the_global_generator_is_not_disturbed():
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    train(*lesson(), reference(), short())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.rand(4), expected)


def test_what_it_is_given_is_left_alone():
    volumes, labels = (t.clone() for t in lesson())
    control = reference()
    train(volumes, labels, control, short(augmented=1.0))
    assert torch.equal(volumes, lesson()[0])
    assert torch.equal(labels, lesson()[1])
    assert torch.equal(control, reference())


def test_every_epoch_is_reported():
    said = []
    train(*lesson(), reference(), replace(QUICK, epochs=3, pretraining=2), lambda *words: said.append(words))
    assert [s[:2] for s in said] == [("autoencoder", i) for i in (1, 2)] + [("classifier", i) for i in (1, 2, 3)]
    losses = [loss for _, _, loss in said]
    assert np.isfinite(losses).all()
    assert losses[1] < losses[0]
    assert losses[4] < losses[2]


@pytest.mark.parametrize("classes", [2, 3])
def test_one_output_a_class(classes):
    volumes, labels = lesson(12)
    net, _ = train(volumes, labels if classes == 2 else torch.arange(12) % 3, reference(), short(pretraining=0))
    assert net.classifier[-1].out_features == classes


def test_a_rare_class_counts_as_much():
    """Three in four are of one class: a network that always says so would be no use."""
    volumes, labels = lesson(96)
    kept = torch.cat([torch.nonzero(labels == 0)[:, 0], torch.nonzero(labels == 1)[:12, 0]])
    net, s = train(volumes[kept], labels[kept], reference(), replace(QUICK, pretraining=0, augmented=0.0))
    unseen, truth = lesson(40, seed=9)
    called = Predictor(net, "softmax", lambda batch: (batch - s.mean) / s.std, "cpu")(unseen).argmax(dim=1)
    assert (called[truth == 1] == 1).float().mean() > 0.9
    assert (called[truth == 0] == 0).float().mean() > 0.9


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"pretraining": -1}, {"batch_size": 1}], ids=str)
def test_recipes_that_are_none_are_refused(bad):
    with pytest.raises(GlasError, match="at least 1 epoch, 0 of pre-training, and 2 scans a batch"):
        Recipe(**bad)


def shade(recipe, batch, towards=None, seed=0):
    return light_or_shade(
        batch, reference() if towards is None else towards, recipe, torch.Generator().manual_seed(seed)
    )


def test_light_and_shade_go_towards_the_reference():
    batch = lesson()[0] * 1.7
    out = shade(Recipe(augmented=1.0, sigma=(2.0, 4.0)), batch)
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


@pytest.mark.parametrize(("kind", "near", "far"), [("lit", 0.0, 1.0), ("shaded", 1.0, 0.0)])
def test_a_spot_has_the_size_asked_for(kind, near, far):
    """Towards 1 from 0 the result is the mask itself."""
    towards = torch.zeros(1, *SHAPE)
    towards[0, 8, 9, 10] = 1  # the only bright voxel: where every spot lies
    batch = torch.zeros(32, 1, *SHAPE)
    out = shade(Recipe(augmented=1.0, sigma=(2.0, 2.0)), batch - 1, towards)
    mask = (out + 1) / (towards + 1)  # 0: the scan's, 1: the reference's
    distance = (
        (
            torch.stack(torch.meshgrid(*map(torch.arange, SHAPE), indexing="ij"))
            - torch.tensor([8, 9, 10]).view(3, 1, 1, 1)
        )
        .float()
        .norm(dim=0)
    )
    spot = torch.exp(-(distance**2) / (2 * 2.0**2))
    expected = spot if kind == "shaded" else 1 - spot
    rows = [row for row in mask[:, 0] if abs(row[8, 9, 10] - near) < 1e-4]
    assert 8 <= len(rows) <= 24
    for row in rows:
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-5)
    assert abs(float(rows[0][0, 0, 0]) - far) < 1e-4


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
    towards = torch.zeros(1, *SHAPE)
    towards[0, 12:15, 3:5, 15:17] = 1
    out = shade(Recipe(augmented=1.0, sigma=(1.0, 1.0)), torch.full((40, 1, *SHAPE), -1.0), towards)
    mask = ((out + 1) / (towards + 1))[:, 0]
    shaded = mask[mask.flatten(1).mean(dim=1) < 0.5]
    assert len(shaded) > 5
    for row in shaded:
        x, y, z = np.unravel_index(int(row.argmax()), SHAPE)
        assert 12 <= x < 15
        assert 3 <= y < 5
        assert 15 <= z < 17


def test_every_channel_is_perturbed():
    batch = torch.stack([lesson(4)[0][:, 0]] * 2, dim=1) * torch.tensor([1.5, 2.5]).view(1, 2, 1, 1, 1)
    out = shade(Recipe(augmented=1.0), batch, torch.cat([reference(), reference()]))
    assert (out != batch).flatten(2).any(dim=2).all()
