"""Evidence of both ends, density, and how much of the whole the regions account for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from glas3d import GLAS, RGLAS, Grid, Predictor, Segments
from glas3d.core.accelerate.refine import CoarseToFine
from glas3d.core.covariates import Covariates
from glas3d.core.cover import Cover
from glas3d.core.gaussian import gaussian_masks
from glas3d.core.reference import consensus, references
from glas3d.core.scale import fuse_scales, ladder
from glas3d.core.shapes import SoftSegments
from tests.core import oracle
from tests.core.cases import (
    POINTS,
    ROUNDING,
    SHAPES,
    Linear,
    Recorder,
    TinyNet,
    assert_close,
    assert_ended,
    atlas,
    blocks,
    is_trial,
    logits_in_float64,
    volume,
)
from tests.core.test_theory import game, players, shapley

SHAPE = SHAPES[3]
SIGMAS = {"sigma_light": 2.5, "sigma_shadow": 1.8, "sigma_spatial": 1.5}
MEAN = SIGMAS | {"fusion": "mean", "link": "logit"}
HARD = {"kernel": "segment", "sigma_light": 1e-3, "sigma_shadow": 1e-3, "fusion": "mean"}


def net(shape=SHAPE, seed=0):
    return Predictor(TinyNet(shape, seed=seed), "softmax", device="cpu")


class LinearLogits(nn.Module):
    """Two logits, 0 and ``sum(w * x) + b``."""

    def __init__(self, weights, b=0.3):
        super().__init__()
        self.register_buffer("weights", torch.as_tensor(weights, dtype=torch.float32))
        self.b = b

    def forward(self, x):
        z = (self.weights * x).flatten(1).sum(dim=1) + self.b
        return torch.stack([torch.zeros_like(z), z], dim=1)


@given(
    st.tuples(*[st.floats(0.3, 20.0)] * 2),
    st.lists(st.tuples(*[st.floats(-0.5, n - 0.5) for n in SHAPE]), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.6]),
    st.booleans(),
)
def test_of_a_linear_model_it_is_the_weights_times_what_the_masks_cover(sigmas, points, background, density):
    image, w = volume(SHAPE, 2), np.random.default_rng(2).normal(size=(2, *SHAPE))
    light, shadow = (np.stack([oracle.mask(p, SHAPE, s) for p in points]) for s in sigmas)
    each = (w * (image - background)).sum(axis=0)
    first, last = ((each * masks).sum(axis=(1, 2, 3)) for masks in (light, shadow))
    if density:
        first, last = first / light.sum(axis=(1, 2, 3)), last / shadow.sum(axis=(1, 2, 3))
    for predict, link in ((Linear(w[None]), "probability"), (Predictor(LinearLogits(w), "softmax"), "logit")):
        found = GLAS(
            predict,
            sigma_light=sigmas[0],
            sigma_shadow=sigmas[1],
            background=background,
            fusion="mean",
            link=link,
            density=density,
        ).explain(image, 0 if link == "probability" else 1, points)
        np.testing.assert_allclose(found.score, (first + last) / 2, atol=2e-5 * np.abs(each).sum())
        np.testing.assert_array_equal(found.score, found.density if density else found.evidence)
        assert found.effect == pytest.approx(each.sum(), abs=1e-3)


@given(st.integers(1, 5), st.integers(1, 2), st.integers(0, 2**32 - 1), st.booleans())
def test_without_interactions_of_three_it_is_the_shapley_value(n, order, seed, in_log_odds):
    _, v = game(n, order, seed)

    class Game(nn.Module):
        def forward(self, batch):
            kept = batch[:, 0].flatten(2).amin(dim=2) > 0.5
            z = torch.tensor([v(frozenset(np.flatnonzero(row).tolist())) for row in kept], dtype=torch.float64)
            return torch.stack([torch.zeros_like(z), z], dim=1)

    image, labels = players(n)
    game_net = Predictor(Game(), "softmax" if in_log_odds else "none", device="cpu")
    found = GLAS(game_net, **HARD, link="logit" if in_log_odds else "probability").explain(image, 1, labels)
    np.testing.assert_allclose(found.score, shapley(v, n), atol=1e-5)
    np.testing.assert_allclose(found.effect, v(frozenset(range(n))) - v(frozenset()), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 9, 20])
@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"fusion": "product"}, 9),
        ({"fusion": "product", "evidence": True}, 10),
        ({"fusion": "mean"}, 10),
        ({"fusion": "light"}, 5),
        ({"fusion": "shadow", "evidence": True}, 5),
    ],
)
def test_each_fusion_evaluates_what_it_needs(settings, count, batch_size):
    recorder = Recorder(lambda batch: net()(batch))
    found = GLAS(recorder, batch_size=batch_size, **SIGMAS, **settings).explain(volume(SHAPE), 1, POINTS[3])
    assert found.settings["evaluations"] == count
    assert sum(map(len, recorder.batches)) == -(-count // min(batch_size, count)) * min(batch_size, count)
    expected = GLAS(net(), batch_size=1, evidence=True, **SIGMAS).explain(volume(SHAPE), 1, POINTS[3])
    for name in ("light", "shadow", "drop", "evidence", "density"):
        own = getattr(found, name)
        if own is not None and not np.isnan(own).all() and (name != "density" or settings["fusion"] == "product"):
            assert_close(own, getattr(expected, name))
    assert (found.evidence is None) == (count in (5, 9))
    assert np.isnan(found.light).all() == (settings["fusion"] == "shadow")
    assert np.isnan(found.drop).all() == (settings["fusion"] == "light")


def test_covariates_have_evidence_and_no_density():
    image, w, slopes = volume(SHAPE), np.random.default_rng(2).normal(size=SHAPE), np.array([0.5, -2.0])
    values, reference = {"age": 1.5, "score": -0.3}, {"age": 0.25, "score": 0.7}

    def linear(batch, table):
        z = (batch[:, 0].double() * torch.as_tensor(w)).flatten(1).sum(1) + table.double() @ torch.as_tensor(slopes)
        return z[:, None]

    glas = GLAS(linear, **SIGMAS, fusion="mean", batch_size=3)
    covariates = Covariates.of(values, reference)
    found = glas.explain(image, 0, POINTS[3], covariates=covariates)
    expected = slopes * [1.25, -1.0]
    np.testing.assert_allclose(found.covariates.evidence, expected, atol=1e-4)
    np.testing.assert_allclose(found.covariates.score, expected, atol=1e-4)
    assert found.effect == pytest.approx(float((w * image).sum() + expected.sum()), abs=1e-3)
    dense = glas.replace(density=True).explain(image, 0, POINTS[3], covariates=covariates)
    assert np.isnan(dense.covariates.score).all()
    assert np.isfinite(dense.score).all()


def parcels(shape=(10, 12, 15)):
    return blocks(shape, (2, 2, 3)), volume(shape)


@pytest.mark.parametrize("fusion", ["product", "mean"])
def test_regions_that_partition_the_volume_account_for_a_linear_model(fusion):
    labels, image = parcels()
    w = np.random.default_rng(3).normal(0.1, 1, size=image.shape)
    w[:, labels == 0] = 0
    glas = GLAS(Linear(w[None] / 20), **(HARD | {"fusion": fusion}), evidence=True)
    found = glas.explain(image, 0, labels)
    each = np.array([(w * image / 20)[:, labels == value].sum() for value in found.segments.index])
    assert found.accounted == pytest.approx(1, abs=1e-4)
    assert found.largest == pytest.approx(max(each / each.sum()), abs=1e-4)


def test_what_lies_outside_of_the_regions_is_not_accounted_for():
    labels, image = parcels()
    w = np.zeros(image.shape)
    w[:, labels == 0] = 0.1
    w[:, labels != 0] = 0.001
    found = GLAS(Predictor(LinearLogits(w), "softmax"), **HARD, link="logit").explain(image, 1, labels)
    share = (w * image)[:, labels != 0].sum() / (w * image).sum()
    assert found.accounted == pytest.approx(share, abs=1e-3)
    assert share < 0.1


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": "gaussian", "sigma_light": 4.0, "sigma_shadow": 4.0},  # counted many times
        {"kernel": "gaussian", "sigma_light": 0.5, "sigma_shadow": 0.5},  # hardly covered
        {"sigma_light": 20.0},  # one end alone
        {"sigma_shadow": 20.0},
        {"fusion": "shadow"},
        {"background": "near"},  # nothing to account for
    ],
)
def test_nothing_is_accounted_for_by_masks_that_are_no_partition_or_where_there_is_no_effect(change):
    labels, image = parcels()
    w = np.random.default_rng(3).uniform(0, 0.01, size=image.shape)
    if change.get("background") == "near":
        change = {"background": image - 0.01}
    found = GLAS(Predictor(LinearLogits(w), "softmax"), **(HARD | {"link": "logit"} | change)).explain(image, 1, labels)
    assert np.isnan(found.accounted)
    assert np.isnan(found.largest)


def test_an_effect_in_probability_is_measured_in_log_odds():
    labels, image = parcels()
    w = np.full(image.shape, 1.0 / image.sum())  # 1 from no volume to the whole
    for strength, accountable in ((0.9, False), (1.1, True)):
        predict = Predictor(LinearLogits(strength * w, 0.0), "softmax")
        assert GLAS(predict, **HARD).explain(image, 1, labels).account.is_known == accountable


@pytest.mark.parametrize("ndim", [2, 3])
def test_what_masks_cover(ndim):
    shape, points = SHAPES[ndim], POINTS[ndim]
    masks = np.stack([oracle.mask(p, shape, 2.0) for p in points])
    searched = np.random.default_rng(0).random(shape) < 0.5
    found = Cover.of(gaussian_masks(points, shape, (2.0,) * ndim), shape, searched)
    np.testing.assert_allclose(found.sums, masks.reshape(len(points), -1).sum(axis=1), rtol=1e-5)
    assert found.mean == pytest.approx(masks.sum(axis=0)[searched].mean(), rel=1e-5)
    assert found.percentile == pytest.approx(np.percentile(masks.sum(axis=0)[searched], 99), rel=1e-5)
    for mean, percentile, expected in ((0.8, 1.5, True), (0.79, 1, False), (1.11, 1.2, False), (1, 1.51, False)):
        assert replace(found, mean=mean, percentile=percentile).is_partition == expected


@pytest.mark.parametrize("ndim", [2, 3])
def test_masks_are_added_up_alike_in_short_and_in_full(ndim, monkeypatch):
    shape = SHAPES[ndim]
    made = [
        gaussian_masks(POINTS[ndim], shape, (1.5, 2.5, 0.7)[:ndim]),
        SoftSegments(Segments.from_labels(atlas(shape)), (1.2,) * ndim),
    ]
    monkeypatch.setattr("glas3d.core.gaussian._AT_A_TIME", 2 * np.prod(shape[:-1]))  # two points at a time
    for masks in made:
        each = torch.stack([masks.masks(i, torch.empty((1, *shape)))[0] for i in range(len(masks))]).numpy()
        sums, total = masks.added()
        np.testing.assert_allclose(sums, each.reshape(len(masks), -1).sum(axis=1), rtol=1e-5)
        np.testing.assert_allclose(total, each.sum(axis=0), rtol=1e-5, atol=1e-7)
    assert gaussian_masks(POINTS[ndim], shape, (2.0,) * ndim, "exponential").added() is None


# Invariances.


def test_evidence_does_not_depend_on_a_constant_nor_on_what_no_input_changes():
    """The log-odds may be shifted by any number, and any voxels may be added that equal the background."""
    image, w = volume(SHAPE), np.random.default_rng(1).normal(size=(1, *SHAPE)) / 20
    one, other = (
        GLAS(Predictor(LinearLogits(w, b), "softmax"), **MEAN).explain(image, 1, POINTS[3]) for b in (0.0, 5.0)
    )
    assert_close(one.score, other.score, 1e-4)
    padded, wide = (np.pad(x, ((0, 0), (0, 3), (0, 0), (0, 2)), constant_values=c) for x, c in ((image, 0), (w, 9)))
    found = GLAS(Predictor(LinearLogits(wide), "softmax"), **MEAN).explain(padded, 1, POINTS[3])
    assert_close(found.score, one.score, 1e-4)


def test_of_two_classes_evidence_for_one_is_evidence_against_the_other():
    image, w = volume(SHAPE), np.random.default_rng(1).normal(size=(1, *SHAPE)) / 20
    for_one, for_other = GLAS(Predictor(LinearLogits(w), "softmax"), **MEAN).explain(image, [0, 1], POINTS[3])
    assert_close(for_one.score, -for_other.score)
    assert for_one.probability + for_other.probability == pytest.approx(1)


@pytest.mark.parametrize("axes", [(0, 2, 1, 3), (0, 3, 2, 1)])
def test_axes_may_be_exchanged(axes):
    image, w = volume(SHAPE), np.random.default_rng(1).normal(size=(1, *SHAPE)) / 20
    spatial = [a - 1 for a in axes[1:]]
    one = GLAS(Predictor(LinearLogits(w), "softmax"), **MEAN).explain(image, 1, POINTS[3])
    turned = GLAS(Predictor(LinearLogits(w.transpose(axes)), "softmax"), **MEAN).explain(
        image.transpose(axes), 1, POINTS[3][:, spatial]
    )
    assert_close(turned.evidence, one.evidence, 1e-4)
    assert_close(turned.density, one.density, 1e-4)


# Recursion, scales, references, cut and refinement.


@pytest.mark.parametrize("search", ["grid", "points", "segments"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_recursion_masks_out_positive_evidence_alone(ndim, search):
    shape, grid = SHAPES[ndim], {2: (3, 2), 3: (3, 1, 2)}[ndim]
    image, recursion = volume(shape), {"max_iterations": 4, "threshold": 0.6}
    given_search = {"grid": Grid(grid), "points": POINTS[ndim], "segments": atlas(shape)}[search]
    tiny, settings = TinyNet(shape, seed=1), MEAN
    expected = oracle.recurse(
        logits_in_float64(tiny),
        image,
        1,
        points={"grid": oracle.grid(grid, shape), "points": POINTS[ndim]}.get(search),
        labels=given_search if search == "segments" else None,
        **recursion,
        **settings,
    )
    glas = GLAS(Predictor(tiny, "softmax", device="cpu"), batch_size=4, **settings)
    found = RGLAS(glas, **recursion).explain(image, 1, given_search)
    assert_ended(found, expected["end"])
    first = found.rounds[0].explanation.score
    assert first.min() < 0 < first.max()
    for own, other in zip(found.rounds, expected["rounds"], strict=True):
        assert own.removed.tolist() == other["removed"]
        assert own.probability == pytest.approx(other["probability"], abs=1e-5)
        assert_close(own.saliency, other["saliency"], 1e-4)
    assert_close(found.saliency, expected["saliency"], 1e-4)


def test_scales_of_evidence_have_no_logarithm():
    parts = {k: g.explain(volume(SHAPE), 1, Grid(2)) for k, g in ladder(GLAS(net(), **MEAN), (0.5, 1, 2)).items()}
    scores = np.stack([part.score for part in parts.values()])
    assert scores.min() < 0
    standard = (scores - scores.mean(axis=1, keepdims=True)) / scores.std(axis=1, keepdims=True)
    weight = standard.max(axis=1) ** 4
    found = fuse_scales(parts)
    np.testing.assert_allclose(found.explanation.score, weight @ standard / weight.sum(), atol=1e-9)
    own = standard.argmax(axis=0)
    np.testing.assert_array_equal(found.explanation.evidence, scores[own, np.arange(scores.shape[1])])
    assert np.isnan(found.explanation.accounted)


def test_references_agree_on_the_sign_of_evidence():
    each = references(GLAS(net(), **MEAN), {"zero": 0.0, "half": 0.5, "one": 1.0})
    parts = {name: glas.explain(volume(SHAPE), 1, POINTS[3]) for name, glas in each.items()}
    found = consensus(parts, dead_zone=0.0)
    signs = np.sign([part.evidence for part in parts.values()])
    np.testing.assert_array_equal(found.sign, np.sign(signs.sum(axis=0)))
    np.testing.assert_array_equal(found.explanation.evidence, np.median([p.evidence for p in parts.values()], axis=0))
    assert np.isnan(found.explanation.accounted)


@pytest.mark.parametrize("fusion", ["mean", "light", "shadow"])
def test_a_cut_keeps_log_odds(fusion):
    shape = (20, 27, 23)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        deep = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.Conv3d(4, 3, 3),
            nn.ELU(),
            nn.Flatten(),
            nn.Linear(3 * 8 * 11 * 9, 3),
        )
    settings = MEAN | {"sigma_light": 1.0, "sigma_shadow": 1.2, "fusion": fusion}
    glas = GLAS(Predictor(deep, "softmax", device="cpu"), **settings)
    full = glas.explain(volume(shape), 1, Grid(3))
    cut = glas.replace(cut=7.0, cut_always=True).explain(volume(shape), 1, Grid(3))
    assert cut.settings["recomputed"]["recomputed"], cut.settings["recomputed"]["reason"]
    assert cut.settings["evaluations"] == full.settings["evaluations"]
    for name in ("light", "drop", "score"):
        np.testing.assert_allclose(getattr(cut, name), getattr(full, name), atol=1e-5 * np.ptp(full.score) + ROUNDING)
    rough = glas.replace(cut=2.0, cut_always=True).explain(volume(shape), 1, Grid(3))
    assert_close(rough.score, full.score, 0.05)  # used within a share of the effects, else evaluated in full


@pytest.mark.parametrize("fusion", ["mean", "light", "shadow"])
def test_a_quarter_of_the_evaluations_finds_the_evidence(fusion):
    shape = (24, 30, 20)
    axes = np.stack(np.indices(shape)).astype(np.float32)

    def blob(centre):
        return np.exp(-((axes - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(axis=0) / 18) / 60

    counted = []

    class Counted(LinearLogits):
        def forward(self, x):
            counted.append(0 if is_trial() else len(x))
            return super().forward(x)

    predict = Predictor(Counted(blob((8, 20, 6)) - blob((17, 8, 14))), "softmax")
    image = 1 + 0.05 * np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    glas = GLAS(predict, **(MEAN | {"sigma_light": 4.0, "sigma_shadow": 6.0, "fusion": fusion}), batch_size=1)
    dense = glas.explain(image, 1, Grid(9))
    every = sum(counted)
    counted.clear()
    found = CoarseToFine(glas, 0.25).explain(image, 1, Grid(9)).explanation
    assert sum(counted) <= 0.25 * every
    assert np.corrcoef(dense.score, found.score)[0, 1] >= 0.98
    if fusion == "mean":
        assert np.corrcoef(dense.density, found.density)[0, 1] >= 0.98
        assert_close(found.evidence, found.score, 1e-12)


@pytest.mark.parametrize("density", [False, True])
def test_light_alone_in_log_odds_is_counted_from_the_background(density):
    """Log-odds of nearly nothing lit are far below 0; a map of them would be highest where there are no points."""
    given = {"fusion": "light", "density": density, **SIGMAS}
    plain = GLAS(net(), **given).explain(volume(SHAPE), 1, POINTS[3])
    glas = GLAS(Predictor(TinyNet(SHAPE), "softmax", device="cpu"), link="logit", **given)
    found = glas.explain(volume(SHAPE), 1, POINTS[3])
    assert found.settings["evaluations"] == plain.settings["evaluations"] + 1  # the background
    above = found.light - found.bare
    np.testing.assert_allclose(found.score, above / (found.covers["light"].sums if density else 1), rtol=1e-6)
    nothing = GLAS(glas.predict, link="logit", background=volume(SHAPE), **given).explain(volume(SHAPE), 1, POINTS[3])
    np.testing.assert_allclose(nothing.score, 0, atol=1e-6)  # what changes nothing has no light of its own
