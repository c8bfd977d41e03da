"""Coarse to fine: the search against the explanation of all points."""

import numpy as np
import pytest
import torch

from glas3d import GLAS, GlasError, Grid
from glas3d.core.accelerate.refine import CoarseToFine
from glas3d.core.search import Segments
from tests.core.cases import is_trial

SHAPE = (24, 30, 20)


class Lesions:
    """A model that responds to any of some bright lesions, and counts its inputs."""

    def __init__(self, *centres, shape=SHAPE, width=3.0):
        axes = np.stack(np.indices(shape)).astype(np.float32)
        ones = [np.exp(-((axes - np.reshape(c, (-1, *[1] * len(shape)))) ** 2).sum(0) / 2 / width**2) for c in centres]
        self.where = torch.as_tensor(np.stack([one / one.sum() for one in ones]), dtype=torch.float32)
        self.strength = torch.linspace(0.9, 0.6, len(centres))
        self.n_inputs = 0

    def __call__(self, batch):
        self.n_inputs += 0 if is_trial() else len(batch)
        seen = torch.sigmoid(10 * (batch[:, 0].flatten(1) @ self.where.flatten(1).T - 0.5)) * self.strength
        p = 1 - (1 - seen).prod(dim=1)
        return torch.stack([1 - p, p], dim=1)


def volume(shape=SHAPE):
    return 1 + 0.05 * np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)


def top(values, share=0.01):
    return set(np.argsort(-values)[: max(1, round(share * values.size))].tolist())


PLANTED = {
    "one": ((8, 20, 6),),
    "two": ((6, 8, 5), (17, 23, 14)),
    "three": ((6, 8, 5), (17, 23, 14), (18, 6, 10)),
}


@pytest.mark.parametrize("centres", PLANTED.values(), ids=PLANTED)
def test_a_quarter_of_the_forwards_finds_what_all_find(centres):
    model = Lesions(*centres)
    glas = GLAS(model, sigma_light=4, sigma_shadow=6, batch_size=1)
    dense = glas.explain(volume(), 1, Grid(9))
    every, model.n_inputs = model.n_inputs, 0
    found = CoarseToFine(glas, 0.25).explain(volume(), 1, Grid(9))
    assert 0.2 * every < model.n_inputs <= 0.25 * every
    assert found.explanation.settings["evaluations"] == model.n_inputs
    np.testing.assert_array_equal(found.explanation.points, dense.points)
    assert np.corrcoef(dense.score, found.explanation.score)[0, 1] >= 0.98
    assert np.corrcoef(dense.saliency.ravel(), found.explanation.saliency.ravel())[0, 1] >= 0.99
    assert top(dense.score) == top(found.explanation.score)
    known = found.evaluated
    for name in ("light", "shadow", "drop", "score"):
        np.testing.assert_allclose(
            getattr(found.explanation, name)[known], getattr(dense, name)[known], rtol=1e-5, atol=1e-7
        )
    assert (found.deviation[known] == 0).all()
    assert (found.deviation[~known] > 0).all()
    # most estimates lie within two of their deviations
    off = np.abs(found.explanation.score - dense.score)[~known]
    assert (off <= 2 * found.deviation[~known] + 1e-6).mean() > 0.9


def test_the_highest_of_a_sure_model_are_found():
    """Where one point is near 1 and the next are millionths, their order is one of log odds."""

    def sure(batch):
        odds = 700 * (batch[:, 0].flatten(1) @ lesion.where.flatten() - 0.56)
        return torch.sigmoid(odds)[:, None]

    lesion = Lesions((8, 20, 6), width=4.0)
    glas = GLAS(sure, sigma_light=6, sigma_shadow=8)
    image = np.ones((1, *SHAPE), dtype=np.float32)
    dense = glas.explain(image, 0, Grid(12))
    highest = np.sort(dense.score)[::-1]
    assert highest[0] > 0.1
    assert highest[17] < 1e-3
    found = CoarseToFine(glas, 0.25).explain(image, 0, Grid(12)).explanation
    assert top(dense.score) == top(found.score)
    assert np.corrcoef(dense.score, found.score)[0, 1] > 0.999


def test_answers_that_are_no_probabilities():
    model = Lesions((8, 20, 6), (17, 23, 14))
    glas = GLAS(lambda batch: 30 * model(batch) - 7, sigma_light=4, sigma_shadow=6, fusion="shadow")
    dense = glas.explain(volume(), 1, Grid(9))
    found = CoarseToFine(glas, 0.25).explain(volume(), 1, Grid(9)).explanation
    assert glas.replace(fusion="light").explain(volume(), 1, Grid(9)).light.min() < -1
    assert np.isnan(dense.light).all()
    assert np.isnan(found.light).all()
    assert np.corrcoef(dense.score, found.score)[0, 1] >= 0.98
    assert top(dense.score) == top(found.score)


def test_evidence_against_a_class_is_sought_like_evidence_for_it():
    """Of two classes, what speaks for one speaks against the other, so that the same points are evaluated."""
    towards, away = Lesions((8, 20, 6)).where, Lesions((17, 23, 14)).where

    def both(batch):
        odds = batch[:, 0].flatten(1) @ (0.04 * towards - 0.06 * away).flatten()
        return torch.sigmoid(torch.stack([odds, -odds], dim=1).double())

    glas = GLAS(both, sigma_light=4, sigma_shadow=6, fusion="mean", link="logit")
    dense = glas.explain(volume(), 0, Grid(9))
    found, opposite = (CoarseToFine(glas, 0.25).explain(volume(), target, Grid(9)) for target in (0, 1))
    assert -dense.score.min() > dense.score.max() > 0
    np.testing.assert_array_equal(found.evaluated, opposite.evaluated)
    np.testing.assert_allclose(found.explanation.score, -opposite.explanation.score, atol=1e-4 * np.ptp(dense.score))
    assert np.corrcoef(dense.score, found.explanation.score)[0, 1] >= 0.98


def boxes():
    """Segments of 4 x 5 x 4 voxels."""
    x, y, z = (axis // side for axis, side in zip(np.indices(SHAPE), (4, 5, 4), strict=True))
    return Segments.from_labels(1 + x + 6 * y + 36 * z)


def test_segments_by_their_centroids():
    glas = GLAS(Lesions((8, 20, 6), (17, 23, 14)), sigma_light=4, sigma_shadow=6)
    dense = glas.explain(volume(), 1, boxes())
    found = CoarseToFine(glas, 0.5).explain(volume(), 1, boxes())
    assert 0.4 * len(found.evaluated) < found.evaluated.sum() <= 0.5 * len(found.evaluated)
    assert np.corrcoef(dense.score, found.explanation.score)[0, 1] >= 0.98
    assert top(dense.score, 0.05) == top(found.explanation.score, 0.05)
    painted = dense.segments.paint(found.explanation.score)
    np.testing.assert_array_equal(found.explanation.saliency, painted)
    np.testing.assert_array_equal(found.explanation.segments.labels, dense.segments.labels)


def test_pictures_too():
    centres, shape = ((10, 30), (40, 12)), (48, 40)
    glas = GLAS(Lesions(*centres, shape=shape), sigma_light=4, sigma_shadow=6)
    dense = glas.explain(volume(shape), 1, Grid((16, 14)))
    found = CoarseToFine(glas, 0.25).explain(volume(shape), 1, Grid((16, 14))).explanation
    assert np.corrcoef(dense.score, found.score)[0, 1] >= 0.98
    assert top(dense.score) == top(found.score)


@pytest.mark.parametrize("fusion", ["product", "light", "shadow"])
def test_the_whole_budget_is_the_plain_explanation(fusion):
    glas = GLAS(Lesions((8, 20, 6)), sigma_light=4, sigma_shadow=6, fusion=fusion, batch_size=5)
    dense = glas.explain(volume(), 1, Grid((4, 5, 3)))
    found = CoarseToFine(glas, 1).explain(volume(), 1, Grid((4, 5, 3)))
    assert found.evaluated.all()
    for name in ("points", "light", "shadow", "drop", "score", "saliency"):
        np.testing.assert_allclose(getattr(found.explanation, name), getattr(dense, name), rtol=1e-5, atol=1e-6)


def test_it_repeats_itself():
    runs = [CoarseToFine(GLAS(Lesions((8, 20, 6))), 0.3).explain(volume(), 1, Grid(6)) for _ in range(2)]
    assert np.array_equal(runs[0].evaluated, runs[1].evaluated)
    assert np.array_equal(runs[0].explanation.score, runs[1].explanation.score)


def test_a_tolerance_ends_it_sooner():
    glas = GLAS(Lesions((8, 20, 6)), sigma_light=6, sigma_shadow=8)
    dense = glas.explain(volume(), 1, Grid(9)).score
    whole, sooner = (CoarseToFine(glas, 0.6, tolerance=one).explain(volume(), 1, Grid(9)) for one in (0, 0.05))
    assert sooner.evaluated.sum() < whole.evaluated.sum()
    assert sooner.deviation.max() <= 0.05 * sooner.explanation.score.max()
    assert np.abs(sooner.explanation.score - dense).max() <= 0.1 * dense.max()
    assert sooner.explanation.settings["coarse_to_fine"] == {
        "budget": 0.6,
        "tolerance": 0.05,
    }


def test_only_points_of_the_mask():
    mask = np.zeros(SHAPE, dtype=bool)
    mask[:12] = True
    found = CoarseToFine(GLAS(Lesions((8, 20, 6)))).explain(volume(), 1, Grid(6), mask=mask)
    assert (found.explanation.points[:, 0] < 12).all()
    assert len(found.evaluated) == len(found.explanation.points) == 3 * 36


def test_mm_and_spacing():
    """The same brain on a finer axis: the model is evaluated at the same points."""
    model, spacing = Lesions((8, 20, 6)), (2.0, 1.5, 3.0)
    glas = GLAS(model, sigma_light=8, sigma_shadow=12, sigma_spatial=8, unit="mm")
    dense = glas.explain(volume(), 1, Grid(8), spacing)
    found = CoarseToFine(glas, 0.25).explain(volume(), 1, Grid(8), spacing).explanation
    assert np.corrcoef(dense.score, found.score)[0, 1] >= 0.98
    assert np.corrcoef(dense.saliency.ravel(), found.saliency.ravel())[0, 1] >= 0.99


def test_normalisation_is_fitted_to_the_intact_volume_once():
    class Fitted(Lesions):
        fits = 0

        def fit(self, given):
            self.fits += 1
            assert given.shape == (1, *SHAPE)
            return self

    model = Fitted((8, 20, 6))
    CoarseToFine(GLAS(model)).explain(volume(), 1, Grid(5))
    assert model.fits == 1


def test_progress_counts_all_rounds():
    seen = []
    glas = GLAS(Lesions((8, 20, 6)), batch_size=7, progress=lambda done, total: seen.append((done, total)))
    found = CoarseToFine(glas, 0.3).explain(volume(), 1, Grid(6))
    done, totals = zip(*seen, strict=True)
    assert list(done) == sorted(done)
    assert set(totals) == {found.explanation.settings["evaluations"]} == {done[-1]}


def test_few_points_are_all_evaluated():
    found = CoarseToFine(GLAS(Lesions((8, 20, 6))), 0.1).explain(volume(), 1, [(3.0, 4.0, 5.0), (8.0, 20.0, 6.0)])
    assert found.evaluated.all()


def test_a_model_that_sees_nothing():
    glas = GLAS(lambda batch: torch.full((len(batch), 2), 0.5))
    found = CoarseToFine(glas).explain(volume(), 1, Grid(6))
    np.testing.assert_allclose(found.explanation.score, 0.5 * 1e-5, rtol=1e-6)
    assert np.isfinite(found.deviation).all()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            lambda glas: CoarseToFine(glas, 0),
            "budget must be a share of the model evaluations, above 0 and at most 1, got 0",
        ),
        (lambda glas: CoarseToFine(glas, 1.5), "at most 1, got 1.5"),
        (lambda glas: CoarseToFine(glas, "half"), "got 'half'"),
        (lambda glas: CoarseToFine(glas, tolerance=-1), "tolerance must be a share of the highest score"),
        (lambda glas: CoarseToFine(glas.predict), "is one of a GLAS, got Lesions"),
        (lambda glas: CoarseToFine(glas).explain(volume(), [0, 1]), r"follows one target, .* got \[0, 1\]"),
        (
            lambda glas: CoarseToFine(glas.replace(kernel="ellipsoid")).explain(volume(), 1, boxes()),
            'with kernel="ellipsoid" every mask has its own shape',
        ),
    ],
    ids=["nothing", "too much", "text", "tolerance", "no glas", "targets", "shapes"],
)
def test_what_it_refuses(how, message):
    with pytest.raises(GlasError, match=message):
        how(GLAS(Lesions((8, 20, 6))))
