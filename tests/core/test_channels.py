"""One channel alone: light leaves nothing of the others, shadow leaves them whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glas3d import GLAS, Grid, Predictor
from tests.core import oracle
from tests.core.cases import (
    POINTS,
    SHAPES,
    Linear,
    Recorder,
    TinyNet,
    assert_close,
    atlas,
    constant,
    in_float64,
    refused,
    volume,
)

SIGMAS = {"sigma_light": 2.5, "sigma_shadow": 1.8, "sigma_spatial": 2.0}
FIELDS = ("probability", "light", "shadow", "drop", "score", "saliency")


def background_of(kind, shape, channels):
    random = np.random.default_rng(5)
    whole = random.uniform(0, 1, (channels, *shape)).astype(np.float32)
    return {"darkness": 0.0, "number": 0.7, "spatial": whole[0], "channels": whole}[kind]


@pytest.mark.parametrize("background", ["darkness", "number", "spatial", "channels"])
@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("ndim", [2, 3])
def test_agrees_with_the_oracle(ndim, channel, search, background):
    shape = SHAPES[ndim]
    image, net, reference = volume(shape, 3), TinyNet(shape, 3), background_of(background, shape, 3)
    cells = {2: (3, 2), 3: (2, 1, 3)}[ndim]
    where = {"points": oracle.grid(cells, shape)} if search == "grid" else {"labels": atlas(shape)}
    expected = oracle.explain(in_float64(net), image, 1, background=reference, channel=channel, **where, **SIGMAS)
    predict = Predictor(net, activation="softmax", device="cpu")
    glas = GLAS(predict, background=reference, channel=channel, batch_size=4, **SIGMAS)
    found = glas.explain(image, 1, Grid(cells) if search == "grid" else atlas(shape))
    assert np.abs(expected["drop"]).max() > 1e-3, "a case too dull to compare"
    for name in FIELDS:
        assert_close(getattr(found, name), expected[name])
    assert found.settings["channel"] == channel


@pytest.mark.parametrize("background", ["number", "channels"])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("channel", [0, 2])
@pytest.mark.parametrize("ndim", [2, 3])
def test_the_other_channels_are_background_in_light_and_whole_in_shadow(ndim, channel, batch_size, background):
    """To the bit, in batches whose rows held something else before."""
    shape = SHAPES[ndim]
    image, reference = volume(shape, 3), background_of(background, shape, 3)
    bare = np.broadcast_to(np.asarray(reference, dtype=np.float32), image.shape)
    recorder = Recorder(constant(0.4, 0.6))
    GLAS(recorder, background=reference, channel=channel, batch_size=batch_size, **SIGMAS).explain(
        image, 1, POINTS[ndim]
    )
    inputs = by_number(recorder, 2 * len(POINTS[ndim]) + 1, batch_size)
    others = [c for c in range(3) if c != channel]
    assert np.array_equal(inputs[0], image)
    for i, mu in enumerate(POINTS[ndim]):
        lit, dark = inputs[2 * i + 1], inputs[2 * i + 2]
        assert np.array_equal(lit[others], bare[others])
        assert np.array_equal(dark[others], image[others])
        g = {kind: oracle.mask(mu, shape, SIGMAS[f"sigma_{kind}"]) for kind in ("light", "shadow")}
        np.testing.assert_allclose(lit[channel], oracle.light(image, g["light"], bare)[channel], atol=2e-6)
        np.testing.assert_allclose(dark[channel], oracle.shade(image, g["shadow"], bare)[channel], atol=2e-6)
        assert np.abs(lit[channel] - bare[channel]).max() > 0.1


def by_number(recorder, total, batch_size):
    """A batch holds intact first, then its lights, then its shadows."""
    inputs = {}
    for start, batch in zip(range(0, total, batch_size), recorder.batches, strict=True):
        numbers = range(start, min(start + batch_size, total))
        ordered = sorted(numbers, key=lambda n: (n > 0, n % 2 == 0, n))
        inputs.update(zip(ordered, batch, strict=False))
    return inputs


@given(st.integers(0, 2), st.sampled_from([0.0, 0.6]), st.integers(1, 8), st.floats(0.3, 20.0))
def test_a_linear_model_has_a_closed_form(channel, background, batch_size, sigma):
    """``light = P(B) + w_c.(G(x_c - B_c))`` and ``drop = w_c.(G(x_c - B_c))``: the other channels are not in it."""
    image, w = volume((7, 8, 9), 3), np.random.default_rng(2).normal(size=(2, 3, 7, 8, 9))
    glas = GLAS(
        Linear(w),
        sigma_light=sigma,
        sigma_shadow=sigma,
        background=background,
        batch_size=batch_size,
        channel=channel,
    )
    found = glas.explain(image, 1, POINTS[3])
    above = w[1, channel] * (image[channel].astype(np.float64) - background)
    expected = np.array([(above * oracle.mask(mu, (7, 8, 9), sigma)).sum() for mu in POINTS[3]])
    tolerance = 1e-7 * np.abs(w[1] * image).sum()
    np.testing.assert_allclose(found.drop, expected, atol=tolerance)
    np.testing.assert_allclose(found.light, background * w[1].sum() + expected, atol=tolerance)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_channels_of_a_linear_model_add_up_to_all_of_them(ndim):
    shape = SHAPES[ndim]
    image, w = volume(shape, 3), np.random.default_rng(3).normal(size=(1, 3, *shape))
    whole = GLAS(Linear(w), background=0.3, **SIGMAS)
    bare = 0.3 * w.sum()
    together = whole.explain(image, 0, POINTS[ndim])
    alone = [whole.replace(channel=c).explain(image, 0, POINTS[ndim]) for c in range(3)]
    np.testing.assert_allclose(sum(e.drop for e in alone), together.drop, atol=1e-4)
    np.testing.assert_allclose(sum(e.light - bare for e in alone), together.light - bare, atol=1e-4)
    assert all(e.probability == together.probability for e in alone)


def test_a_channel_the_model_does_not_read_changes_nothing():
    w = np.random.default_rng(4).normal(size=(1, 2, 7, 9))
    w[:, 1] = 0.0
    glas = GLAS(Linear(w), background=0.3, channel=1, **SIGMAS)
    found = glas.explain(volume((7, 9), 2), 0, Grid(3))
    assert (found.drop == 0).all()
    assert found.light == pytest.approx(0.3 * w.sum(), abs=1e-5)
    read = glas.replace(channel=0).explain(volume((7, 9), 2), 0, Grid(3))
    together = glas.replace(channel=None).explain(volume((7, 9), 2), 0, Grid(3))
    assert np.array_equal(read.score, together.score)


def test_both_channels_are_needed_so_either_s_shadow_takes_it_and_neither_s_light_gives_it():
    """What one modality alone shows: a model of two channels that answers 1 where both are bright."""

    def both(batch):
        return (batch[:, :, 2:5, 2:5].amin(dim=(2, 3)) > 0.5).all(dim=1).float()[:, None]

    image = np.ones((2, 7, 9), dtype=np.float32)
    glas = GLAS(both, sigma_light=50, sigma_shadow=50)
    together = glas.explain(image, 0, [[3, 3]])
    assert (together.light, together.drop) == (1, 1)
    for channel in (0, 1):
        alone = glas.replace(channel=channel).explain(image, 0, [[3, 3]])
        assert (alone.light, alone.drop) == (0, 1)


@pytest.mark.parametrize("ndim", [2, 3])
def test_of_one_channel_it_is_the_same_as_all(ndim):
    shape = SHAPES[ndim]
    glas = GLAS(Predictor(TinyNet(shape), "softmax", device="cpu"), background=0.3, **SIGMAS)
    all_of_them = glas.explain(volume(shape), 1, Grid(2))
    only = glas.replace(channel=0).explain(volume(shape), 1, Grid(2))
    for name in FIELDS:
        assert np.array_equal(getattr(only, name), getattr(all_of_them, name))


@pytest.mark.parametrize("search", [Grid((3, 2, 4)), atlas((7, 8, 9))], ids=["grid", "segments"])
def test_batches_do_not_matter_and_runs_repeat(search):
    net = Predictor(TinyNet((7, 8, 9), 2), "softmax", device="cpu")
    results = {}
    for batch_size in (1, 2, 7, 1000, None):
        glas = GLAS(net, channel=1, background=0.3, batch_size=batch_size, **SIGMAS)
        results[batch_size] = glas.explain(volume((7, 8, 9), 2), 1, search)
        again = glas.explain(volume((7, 8, 9), 2), 1, search)
        for name in FIELDS:
            assert np.array_equal(getattr(again, name), getattr(results[batch_size], name))
            assert_close(getattr(results[batch_size], name), getattr(results[1], name), 1e-5)


@pytest.mark.parametrize(
    ("channel", "match"),
    [
        (-1, "channel must be a whole number of at least 0, got -1"),
        (1.0, "channel must be a whole number of at least 0, got 1.0"),
        (True, "channel must be a whole number of at least 0, got True"),
        ("T1", "channel must be a whole number of at least 0, got 'T1'"),
    ],
)
def test_what_is_no_channel(channel, match):
    with refused(match):
        GLAS(constant(0.4, 0.6), channel=channel)


def test_a_channel_beyond():
    recorder = Recorder(constant(0.4, 0.6))
    for channels in (1, 2):
        with refused(f"channel must be one of the volume's {channels}, counted from 0, got 2"):
            GLAS(recorder, channel=2).explain(volume((7, 9), channels), 1, Grid(2))
    assert not recorder.batches
