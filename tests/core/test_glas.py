"""The numbers: GLAS against the oracle, closed forms, limits and symmetries."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glas3d import GLAS, Grid, Predictor, Segments
from tests.core import oracle
from tests.core.cases import (
    POINTS,
    SHAPES,
    SPACINGS,
    Linear,
    Recorder,
    TinyNet,
    assert_close,
    atlas,
    constant,
    in_float64,
    logits_in_float64,
    volume,
)

SIGMAS = {"sigma_light": 2.5, "sigma_shadow": 1.8, "sigma_spatial": 2.0}
KERNELS = ("gaussian", "exponential")
GRID = {2: (3, 2), 3: (2, 1, 3)}


def background_of(kind, shape, channels):
    random = np.random.default_rng(5)
    return {
        "darkness": 0.0,
        "number": 0.7,
        "spatial": random.uniform(0, 1, shape).astype(np.float32),
        "channels": random.uniform(0, 1, (channels, *shape)).astype(np.float32),
    }[kind]


def compare(ndim=3, channels=1, search="grid", background="darkness", in_mm=False, device="cpu", **settings):
    """One explanation and the oracle's, everything in it."""
    shape, settings = SHAPES[ndim], SIGMAS | settings
    image, spacing = volume(shape, channels), SPACINGS[ndim] if in_mm else None
    net = TinyNet(shape, channels, convolve=device == "cpu")
    expected = oracle.explain(
        logits_in_float64(net) if settings.get("link") == "logit" else in_float64(net),
        image,
        1,
        points=oracle.grid(GRID[ndim], shape) if search == "grid" else None,
        labels=None if search == "grid" else atlas(shape),
        spacing=spacing,
        background=background_of(background, shape, channels),
        **settings,
    )
    explained = GLAS(
        Predictor(net, activation="softmax", device=device),
        unit="mm" if in_mm else "voxel",
        background=background_of(background, shape, channels),
        batch_size=4,
        evidence=True,
        **settings,
    ).explain(image, target=1, search=Grid(GRID[ndim]) if search == "grid" else atlas(shape), spacing=spacing)
    np.testing.assert_allclose(explained.points, expected["points"], atol=1e-12)
    assert np.abs(expected["drop"]).max() > 1e-3, "a case too dull to compare"
    unread = {"light": ("shadow", "drop"), "shadow": ("light",)}.get(settings.get("fusion"), ())
    both = () if unread else ("evidence", "density", "effect")
    for name in ("probability", "light", "shadow", "drop", "score", "saliency", *both):
        if name in unread:
            assert np.isnan(getattr(explained, name)).all()
        else:
            assert_close(getattr(explained, name), expected[name])


@pytest.mark.parametrize("distance", ["euclidean", "squared"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("ndim", [2, 3])
def test_agrees_with_the_oracle(ndim, channels, search, kernel, distance):
    compare(ndim, channels, search, kernel=kernel, distance=distance)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("background", ["darkness", "number", "spatial", "channels"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("ndim", [2, 3])
def test_agrees_on_every_background(ndim, channels, background, kernel):
    compare(ndim, channels, background=background, kernel=kernel)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("distance", ["euclidean", "squared"])
@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_agrees_in_mm(ndim, search, distance, kernel):
    millimetres = {"sigma_light": 5.0, "sigma_shadow": 3.5, "sigma_spatial": 4.0}
    compare(ndim, search=search, in_mm=True, distance=distance, kernel=kernel, **millimetres)


@pytest.mark.parametrize("in_mm", [False, True])
@pytest.mark.parametrize("ndim", [2, 3])
def test_agrees_with_a_sigma_an_axis(ndim, in_mm):
    uneven = {"sigma_light": (1.0, 2.0, 4.0)[:ndim], "sigma_shadow": (3.0, 1.5, 2.0)[:ndim]}
    compare(ndim, in_mm=in_mm, **uneven)
    compare(ndim, in_mm=in_mm, distance="squared", sigma_spatial=(4.0, 2.0, 1.0)[:ndim], **uneven)


@pytest.mark.parametrize("density", [False, True])
@pytest.mark.parametrize("fusion", ["mean", "light", "shadow"])
@pytest.mark.parametrize("background", ["darkness", "channels"])
@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_agrees_in_log_odds(ndim, search, background, fusion, density):
    compare(ndim, 2, search, background, link="logit", fusion=fusion, density=density)


@pytest.mark.parametrize("link", ["probability", "logit"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_agrees_in_evidence(ndim, kernel, link):
    compare(ndim, 1, kernel=kernel, link=link, fusion="mean")
    compare(ndim, 1, "segments", kernel=kernel, link=link, fusion="mean", density=True, distance="squared")


@pytest.mark.parametrize("density", [False, True])
@pytest.mark.parametrize("fusion", ["product", "light", "shadow", "mean"])
@pytest.mark.parametrize("gamma", [0.0, 0.25])
def test_agrees_for_every_fusion_and_gamma(fusion, gamma, density):
    compare(fusion=fusion, gamma=gamma, density=density)
    compare(search="segments", fusion=fusion, gamma=gamma, density=density)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("background", ["darkness", "channels"])
@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_agrees_on_cuda(ndim, search, background, kernel):
    compare(ndim, 2, search, background, kernel=kernel, device="cuda")


@pytest.mark.parametrize("fusion", ["light", "shadow"])
def test_an_ablation_is_that_score_alone(fusion):
    net = Predictor(TinyNet((7, 9)), "softmax", device="cpu")
    settings = {"sigma_light": 2, "sigma_shadow": 2, "batch_size": 4}
    alone = GLAS(net, fusion=fusion, **settings).explain(volume((7, 9)), search=Grid(3))
    both = GLAS(net, **settings).explain(volume((7, 9)), search=Grid(3))
    assert np.array_equal(alone.score, getattr(alone, fusion))
    assert_close(alone.score, getattr(both, fusion))
    assert alone.settings["evaluations"] == 10
    assert np.array_equal(both.score, both.light * both.shadow)


@given(
    st.tuples(*[st.floats(0.3, 20.0)] * 2),
    st.lists(st.tuples(*[st.floats(-0.5, n - 0.5) for n in (7, 8, 9)]), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.6]),
    st.integers(1, 8),
)
def test_a_linear_model_has_a_closed_form(sigmas, points, background, batch_size):
    image, w = volume((7, 8, 9), 2), np.random.default_rng(2).normal(size=(2, 2, 7, 8, 9))
    e = GLAS(
        Linear(w), sigma_light=sigmas[0], sigma_shadow=sigmas[1], background=background, batch_size=batch_size
    ).explain(image, 1, points)
    for i, mu in enumerate(points):
        above = w[1] * (image.astype(np.float64) - background)
        light = (above * oracle.mask(mu, (7, 8, 9), sigmas[0])).sum() + background * w[1].sum()
        drop = (above * oracle.mask(mu, (7, 8, 9), sigmas[1])).sum()
        size = np.abs(above).sum()  # float32 inputs: their rounding adds up over the voxels
        assert e.light[i] == pytest.approx(light, abs=1e-7 * size)
        assert e.drop[i] == pytest.approx(drop, abs=1e-7 * size)
        assert e.shadow[i] == np.abs(e.drop[i]) + 1e-5


def test_the_drop_keeps_its_sign():
    w = np.zeros((1, 1, 7, 9))
    w[0, 0, 1, 2], w[0, 0, 5, 6] = 0.3, -0.3
    e = GLAS(Linear(w), sigma_light=1, sigma_shadow=1).explain(np.ones((1, 7, 9)), 0, [[1, 2], [5, 6]])
    np.testing.assert_allclose(e.drop, [0.3, -0.3], atol=1e-6)
    np.testing.assert_allclose(e.shadow, [0.30001, 0.30001], atol=1e-6)


@pytest.mark.parametrize("background", [0.0, 0.7])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_infinite_spots_show_the_volume_and_leave_the_background(ndim, kernel, background):
    image = volume(SHAPES[ndim], 2)
    recorder = Recorder(Linear(np.ones((2, 2, *SHAPES[ndim]))))
    everywhere = {"sigma_light": np.inf, "sigma_shadow": np.inf, "batch_size": 1}
    glas = GLAS(recorder, kernel=kernel, background=background, **everywhere)
    e = glas.explain(image, 0, POINTS[ndim])
    dark = np.full_like(image, background)
    assert np.array_equal(recorder.batches[0][0], image)
    for lit, shaded in zip(recorder.batches[1::2], recorder.batches[2::2], strict=True):
        assert np.array_equal(lit[0], image)
        assert np.array_equal(shaded[0], dark)
    assert (e.light == e.probability).all()
    assert len(set(e.score)) == 1


@pytest.mark.parametrize("background", [0.0, 0.7])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_vanishing_spots_show_and_hide_one_voxel(ndim, kernel, background):
    image = volume(SHAPES[ndim], 2)
    points = [[3, 4, 2][:ndim], [0, 7, 8][:ndim]]
    recorder = Recorder(Linear(np.ones((1, 2, *SHAPES[ndim]))))
    GLAS(recorder, sigma_light=1e-3, sigma_shadow=1e-3, kernel=kernel, background=background, batch_size=1).explain(
        image, 0, points
    )
    for i, mu in enumerate(points):
        at = (slice(None), *mu)
        lit, dark = np.full_like(image, background), image.copy()
        lit[at], dark[at] = image[at], background
        np.testing.assert_allclose(recorder.batches[2 * i + 1][0], lit, atol=2e-7)
        np.testing.assert_allclose(recorder.batches[2 * i + 2][0], dark, atol=2e-7)


@given(st.floats(0.0, 1.0, width=32), st.floats(0.0, 1.0), st.sampled_from(KERNELS))
def test_a_constant_model_gives_a_flat_map(p, gamma, kernel):
    glas = GLAS(constant(1 - p, p), sigma_light=2, sigma_shadow=3, gamma=gamma, kernel=kernel)
    e = glas.explain(volume((7, 9)), 1, atlas((7, 9)))
    assert (e.drop == 0).all()
    assert (e.shadow == gamma).all()
    assert (e.score == gamma * p).all()
    inside = atlas((7, 9)) != 0
    assert (e.saliency[inside] == np.float32(gamma * p)).all()
    assert (e.saliency[~inside] == 0).all()


@pytest.mark.parametrize("search", [Grid((3, 2, 4)), atlas((7, 8, 9))], ids=["grid", "segments"])
def test_batches_and_threads_do_not_matter_and_runs_repeat(search):
    net = Predictor(TinyNet((7, 8, 9)), "softmax", device="cpu")
    results = {}
    for batch_size in (1, 2, 7, 1000, None):
        glas = GLAS(net, sigma_light=2, sigma_shadow=2, batch_size=batch_size)
        results[batch_size] = glas.explain(volume((7, 8, 9)), 1, search)
        again = glas.explain(volume((7, 8, 9)), 1, search)
        for name in ("light", "shadow", "drop", "score", "saliency"):
            assert np.array_equal(getattr(again, name), getattr(results[batch_size], name))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        results["threads"] = GLAS(net, sigma_light=2, sigma_shadow=2).explain(volume((7, 8, 9)), 1, search)
    finally:
        torch.set_num_threads(threads)
    for e in results.values():
        for name in ("light", "shadow", "drop", "score", "saliency"):
            assert_close(getattr(e, name), getattr(results[1], name), 1e-5)


@given(st.permutations([0, 1, 2]), st.sets(st.integers(0, 2)), st.sampled_from(KERNELS))
def test_the_map_turns_with_the_volume(axes, flipped, kernel):
    """The same volume in another axis order, seen by the same model: the same map in that order."""
    shape, sigma, spacing = np.array((7, 8, 9)), np.array((1.5, 2.0, 3.0)), np.array((1.0, 1.5, 0.5))
    sigma = sigma if kernel == "gaussian" else np.full(3, 2.0)

    def turn(array):  # the last three axes
        lead = array.ndim - 3
        turned = np.flip(array, [lead + axis for axis in flipped])
        return turned.transpose(*range(lead), *[lead + axis for axis in axes])

    def undo(batch):
        back = batch.permute(0, 1, *[2 + axis for axis in np.argsort(axes)])
        return torch.flip(back, [2 + axis for axis in flipped]).contiguous()

    net, image = Predictor(TinyNet((7, 8, 9), 2), "softmax", device="cpu"), volume((7, 8, 9), 2)
    points = POINTS[3]
    turned_points = np.where([axis in flipped for axis in range(3)], shape - 1 - points, points)[:, axes]
    searches = [
        (points, turned_points),
        (Grid((2, 1, 3)), Grid(tuple(np.array((2, 1, 3))[axes]))),
        (atlas(shape), turn(atlas(shape))),
    ]
    for search, turned_search in searches:
        common = {"unit": "mm", "sigma_spatial": 2.0, "kernel": kernel, "batch_size": 4}
        e = GLAS(net, sigma_light=sigma, sigma_shadow=sigma, **common).explain(image, 1, search, spacing)
        t = GLAS(lambda batch: net(undo(batch)), sigma_light=sigma[axes], sigma_shadow=sigma[axes], **common).explain(
            turn(image), 1, turned_search, spacing[axes]
        )
        assert_close(t.saliency, turn(e.saliency), 1e-5)
        if not isinstance(search, Grid):  # its points come in another order
            assert_close(t.score, e.score, 1e-5)


@given(st.floats(0.25, 4.0))
def test_mm_and_voxels_agree_when_scaled(size):
    net = Predictor(TinyNet((7, 9)), "softmax", device="cpu")
    voxel = GLAS(net, sigma_light=2, sigma_shadow=3, sigma_spatial=2, distance="squared", batch_size=8)
    mm = GLAS(
        net,
        sigma_light=2 * size,
        sigma_shadow=3 * size,
        sigma_spatial=2 * size,
        distance="squared",
        unit="mm",
        batch_size=8,
    )
    one = voxel.explain(volume((7, 9)), 1, Grid(3))
    other = mm.explain(volume((7, 9)), 1, Grid(3), spacing=(size, size))
    assert_close(other.score, one.score, 1e-5)
    assert_close(other.saliency, one.saliency, 1e-5)


def test_spread_draws_other_values_with_the_same_settings():
    glas = GLAS(Linear(np.ones((1, 1, 7, 9))), sigma_light=2, sigma_shadow=2, unit="mm")
    e = glas.explain(volume((7, 9)), 0, Grid(3), spacing=(1.0, 2.5))
    drawn = glas.spread(e.points, np.stack([e.light, e.score]), (7, 9), (1.0, 2.5))
    assert drawn.shape == (2, 7, 9)
    np.testing.assert_allclose(drawn[1], e.saliency, rtol=1e-6)  # the order of sums depends on the number of threads
    assert_close(drawn[0], oracle.spread(e.points, e.light, (7, 9), 6.0, spacing=(1.0, 2.5)))


def test_segments_that_were_chosen_are_the_only_ones_painted():
    labels = atlas((7, 9))
    net = Predictor(TinyNet((7, 9)), "softmax", device="cpu")
    e = GLAS(net, sigma_light=2, sigma_shadow=2, batch_size=4).explain(
        volume((7, 9)), 1, Segments.from_labels(labels, index=[300, 7])
    )
    assert e.segments.index.tolist() == [300, 7]
    assert np.array_equal(e.saliency, oracle.paint(labels, [300, 7], e.score).astype(np.float32))
