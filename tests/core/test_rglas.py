"""RGLAS against the oracle of Algorithm 1; what it finds, and what it keeps."""

import math

import numpy as np
import pytest
import torch

from glas3d import GLAS, RGLAS, Grid, Predictor, Segments
from tests.core import oracle
from tests.core.cases import (
    PLACES,
    POINTS,
    SHAPES,
    SPACINGS,
    WIDE,
    NoisyOr,
    Recorder,
    TinyNet,
    assert_close,
    assert_ended,
    atlas,
    in_float64,
    searches,
    volume,
)

SIGMAS = {"sigma_light": 2.5, "sigma_shadow": 1.8, "sigma_spatial": 1.5}
GRID = {2: (3, 2), 3: (3, 1, 2)}


def nearest(points, centre):
    return int(((points - np.asarray(centre)) ** 2).sum(axis=1).argmin())


def compare(
    ndim=3, search="grid", background=0.0, seed=0, channels=1, device="cpu", in_mm=False, recursion=None, **settings
):
    """Compare every round and the fused map with the oracle's; return the oracle's end."""
    shape, settings, recursion = SHAPES[ndim], SIGMAS | settings, {"max_iterations": 5} | (recursion or {})
    image, spacing = volume(shape, channels, seed), SPACINGS[ndim] if in_mm else None
    if isinstance(background, str):
        background = np.random.default_rng(5).uniform(0, 1, (channels, *shape)).astype(np.float32)
    net = TinyNet(shape, channels, seed=seed, convolve=device == "cpu")
    given_search = {"grid": Grid(GRID[ndim]), "points": POINTS[ndim], "segments": atlas(shape)}[search]
    expected = oracle.recurse(
        in_float64(net),
        image,
        1,
        points={"grid": oracle.grid(GRID[ndim], shape), "points": POINTS[ndim]}.get(search),
        labels=given_search if search == "segments" else None,
        spacing=spacing,
        background=background,
        **recursion,
        **settings,
    )
    predict = Predictor(net, activation="softmax", device=device)
    glas = GLAS(predict, unit="mm" if in_mm else "voxel", background=background, batch_size=4, **settings)
    found = RGLAS(glas, **recursion).explain(image, 1, given_search, spacing)
    assert np.abs(expected["saliency"]).max() == 1, "a case too dull to compare"
    assert np.abs(found.saliency - expected["saliency"]).max() < 1e-3
    for one, other in zip(found.rounds, expected["rounds"], strict=True):
        assert one.points.tolist() == other["points"]
        assert one.removed.tolist() == other["removed"]
        assert one.kept == other["kept"]
        assert np.abs(one.saliency - other["saliency"]).max() < 1e-3
        assert one.probability == pytest.approx(other["probability"], abs=1e-5)
        assert one.measure == pytest.approx(other["measure"], rel=1e-3)
        assert one.explanation.probability == pytest.approx(other["intact"], abs=1e-5)
        np.testing.assert_allclose(one.explanation.score, other["score"], atol=1e-5)
    assert_ended(found, expected["end"])
    return expected["end"]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("background", [0.0, 0.7, "image"])
@pytest.mark.parametrize("search", ["grid", "points", "segments"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_agrees_with_the_oracle(ndim, search, background, seed):
    compare(ndim, search, background, seed)


@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize(
    "settings",
    [
        {"channels": 2, "background": 0.7},
        {"in_mm": True, "sigma_light": 5.0, "sigma_shadow": 3.5, "sigma_spatial": 2.0},
        {"kernel": "exponential", "distance": "squared"},
        {"fusion": "light"},
        {"fusion": "shadow", "gamma": 0.1},
    ],
    ids=["channels", "mm", "kernels", "light", "shadow"],
)
def test_agrees_whatever_the_settings_of_a_round(search, settings):
    compare(search=search, **settings)


@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize("recursion", [{"threshold": 0.3}, {"threshold": 0.95}, {"stop": 0.9}, {"stop": 0.2}], ids=str)
def test_agrees_whatever_the_settings_of_the_recursion(search, recursion):
    compare(2, search, seed=4, recursion=recursion)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_agrees_on_cuda(ndim, search):
    compare(ndim, search, 0.7, channels=2, device="cuda")


@pytest.mark.parametrize("strengths", [(0.9, 0.6), (0.6, 0.9), (0.9, 0.35, 0.65), (0.35, 0.65, 0.9)], ids=str)
@pytest.mark.parametrize("dark", [0.0, 0.4])
@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_planted_evidence_is_found_in_order_of_strength(ndim, search, dark, strengths):
    evidence = dict(zip(PLACES[ndim], strengths, strict=False))
    glas = GLAS(NoisyOr(evidence, dark=dark), **SIGMAS, background=dark)
    image = np.ones((1, *WIDE[ndim]))
    rounds = RGLAS(glas).explain(image, 1, searches(ndim)[search]).rounds
    own = {centre: nearest(rounds[0].explanation.points, centre) for centre in evidence}
    order = sorted(evidence, key=evidence.get, reverse=True)
    for one, centre in zip(rounds, order, strict=False):
        assert one.kept
        assert one.removed.tolist() == [own[centre]]
        assert one.saliency[centre] > 0.9
        assert one.explanation.probability - one.probability > 0.1, "the evidence was not masked out"
    found = RGLAS(glas, max_iterations=len(order)).explain(image, 1, searches(ndim)[search])
    assert min(found.saliency[centre] for centre in order) > 0.7
    assert sorted(found.values.argsort()[-len(order) :]) == sorted(own.values())


@pytest.mark.parametrize("search", ["grid", "segments"])
def test_one_round_alone_misses_the_second_object(search):
    """What the recursion is for: after the first round the weak object is far from standing out."""
    strong, weak, _ = PLACES[3]
    glas = GLAS(NoisyOr({strong: 0.95, weak: 0.5}), **SIGMAS)
    image = np.ones((1, *WIDE[3]))
    once = RGLAS(glas, max_iterations=1).explain(image, 1, searches(3)[search])
    twice = RGLAS(glas, max_iterations=2).explain(image, 1, searches(3)[search])
    assert once.saliency[strong] > 0.9 > 0.3 > once.saliency[weak]
    assert min(twice.saliency[strong], twice.saliency[weak]) > 0.8


def test_each_round_explains_what_the_one_before_left():
    net, image = Predictor(TinyNet((7, 8, 9)), "softmax", device="cpu"), volume((7, 8, 9), 2)[:1]
    glas = GLAS(net, background=0.7, batch_size=4, **SIGMAS)
    found = RGLAS(glas).explain(image, 1, Grid((3, 1, 2)))
    left = torch.from_numpy(image)
    for one in found.rounds:
        alone = glas.explain(left, 1, found.rounds[0].explanation.points[one.points])
        assert_close(one.explanation.score, alone.score, 1e-4)
        assert_close(one.explanation.saliency, alone.saliency, 1e-4)
        assert one.measure == pytest.approx(math.sqrt(one.saliency.mean() / one.probability))
        left = left * (1 - torch.from_numpy(one.saliency)) + 0.7 * torch.from_numpy(one.saliency)


@pytest.mark.parametrize("search", [Grid((3, 2)), atlas((7, 9))], ids=["grid", "segments"])
def test_the_values_are_the_map_at_the_points(search):
    glas = GLAS(Predictor(TinyNet((7, 9)), "softmax", device="cpu"), batch_size=4, **SIGMAS)
    found = RGLAS(glas, max_iterations=2).explain(volume((7, 9)), 1, search)
    if isinstance(search, Grid):
        at = [found.saliency[oracle.nearest(mu, (7, 9))] for mu in search.points((7, 9))]
    else:
        at = [found.saliency[search == value][0] for value in (7, 41, 300)]
        assert not found.saliency[search == 0].any()
    np.testing.assert_array_equal(found.values.astype(np.float32), at)


def test_chosen_segments_are_the_only_ones_looked_at():
    segments = Segments.from_labels(atlas((7, 9)), index=[300, 7])
    glas = GLAS(Predictor(TinyNet((7, 9)), "softmax", device="cpu"), batch_size=4, **SIGMAS)
    found = RGLAS(glas).explain(volume((7, 9)), 1, segments)
    assert len(found.values) == 2
    assert not found.saliency[segments.labels == 41].any()
    assert segments.index.tolist() == [300, 7]


def test_a_round_costs_its_points_and_one_forward_more():
    recorder = Recorder(NoisyOr({(3, 4): 0.9}))
    found = RGLAS(GLAS(recorder, batch_size=1, **SIGMAS)).explain(volume((7, 9)), 1, Grid((3, 2)))
    assert len(recorder.batches) == sum(2 * len(one.points) + 2 for one in found.rounds)


def test_targets_by_name():
    net = Predictor(TinyNet((7, 9)), "softmax", classes=("NC", "MCI", "AD"), device="cpu")
    by_name, by_index = (
        RGLAS(GLAS(net, batch_size=4, **SIGMAS)).explain(volume((7, 9)), target, Grid(3)) for target in ("AD", 2)
    )
    assert by_name.rounds[0].explanation.target == 2
    assert np.array_equal(by_name.saliency, by_index.saliency)
