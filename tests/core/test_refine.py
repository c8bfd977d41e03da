"""Coarse to fine: the estimate against a textbook oracle, the search against all points asked."""

import numpy as np
import pytest
import torch

from glas3d import GLAS, GlasError, Grid
from glas3d.core.refine import CoarseToFine, Kriging, farthest_points
from glas3d.core.search import Segments

SHAPE = (24, 30, 20)


def matern(a, b, length):
    r = np.sqrt(5) * np.linalg.norm(a[:, None] - b[None], axis=-1) / length
    return (1 + r + r**2 / 3) * np.exp(-r)


def kriging(points, known, length):
    """Weights of the known values at all points, and what variance is left, from the inverse covariance."""
    inverse = np.linalg.inv(matern(points[known], points[known], length) + 1e-6 * np.eye(len(known)))
    across = matern(points, points[known], length)
    return across @ inverse, (1 - np.einsum("ij,jk,ik->i", across, inverse, across)).clip(0), inverse


def field_of(ndim=3):
    points = np.random.default_rng(ndim).uniform(0, 4, (60, ndim))
    known = np.array([3, 50, 7, 21, 34, 35, 59, 12])
    values = np.sin(points[known]).sum(axis=1)
    return Kriging(points, known, values), points, known, values


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_field_is_kriging(ndim):
    field, points, known, values = field_of(ndim)
    weights, left, inverse = kriging(points, known, field.length)
    rest = values - values.mean()
    np.testing.assert_allclose(field.estimate, values.mean() + weights @ rest, atol=1e-7)
    np.testing.assert_allclose(field.deviation, np.sqrt(rest @ inverse @ rest / 8 * left), atol=1e-6)
    np.testing.assert_allclose(field.estimate[known], values, atol=1e-4)


def test_the_likeliest_length_is_taken():
    """Values drawn of a covariance are best explained by its own length."""
    points = np.random.default_rng(1).uniform(0, 8, (300, 2))
    for length in (0.7, 2.0, 4.5):
        factor = np.linalg.cholesky(matern(points, points, length) + 1e-9 * np.eye(300))
        values = factor @ np.random.default_rng(2).standard_normal(300)
        assert Kriging(points, np.arange(300), values).length == length


def test_a_point_that_is_added_makes_its_neighbours_surer():
    whole, points, known, _ = field_of()
    _, before, _ = kriging(points, known, whole.length)
    scale = whole.deviation.max() / np.sqrt(before.max())
    some = np.array([40, 1, 11, 17, 58])
    field = whole.at(some, 2)
    np.testing.assert_array_equal(field.estimate, whole.estimate[some])
    np.testing.assert_array_equal(field.deviation, whole.deviation[some])
    for place in (2, 0):  # points 11 and 40
        field.add(place)
    _, after, _ = kriging(points, np.r_[known, 11, 40], field.length)
    np.testing.assert_allclose(field.deviation, scale * np.sqrt(after[some]), atol=1e-5)
    assert (after <= before + 1e-12).all()
    assert after.sum() < before.sum()


def test_points_are_chosen_evenly():
    points = Grid((6, 9)).points((12, 18))
    chosen = farthest_points(points, 14)
    assert len(set(chosen)) == 14
    nearest = np.linalg.norm(points[:, None] - points[chosen][None], axis=-1).min(axis=1)
    assert nearest.max() <= 2 * np.sqrt(12 * 18 / 14 / np.pi) + 2  # no hole larger than twice a fair share and a cell
    assert sorted(farthest_points(points, 54)) == list(range(54))


class Lesions:
    """Decisive where any of some places are left bright; counts what it is asked."""

    def __init__(self, *centres, shape=SHAPE, width=3.0):
        axes = np.stack(np.indices(shape)).astype(np.float32)
        ones = [np.exp(-((axes - np.reshape(c, (-1, *[1] * len(shape)))) ** 2).sum(0) / 2 / width**2) for c in centres]
        self.where = torch.as_tensor(np.stack([one / one.sum() for one in ones]), dtype=torch.float32)
        self.strength = torch.linspace(0.9, 0.6, len(centres))
        self.asked = 0

    def __call__(self, batch):
        self.asked += len(batch)
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
    every, model.asked = model.asked, 0
    found = CoarseToFine(glas, 0.25).explain(volume(), 1, Grid(9))
    assert 0.2 * every < model.asked <= 0.25 * every
    assert found.explanation.settings["evaluations"] == model.asked
    np.testing.assert_array_equal(found.explanation.points, dense.points)
    assert np.corrcoef(dense.score, found.explanation.score)[0, 1] >= 0.98
    assert np.corrcoef(dense.saliency.ravel(), found.explanation.saliency.ravel())[0, 1] >= 0.99
    assert top(dense.score) == top(found.explanation.score)
    asked = found.evaluated
    for name in ("light", "shadow", "drop", "score"):
        np.testing.assert_allclose(
            getattr(found.explanation, name)[asked], getattr(dense, name)[asked], rtol=1e-5, atol=1e-7
        )
    assert (found.deviation[asked] == 0).all()
    assert (found.deviation[~asked] > 0).all()
    # most of what is not asked lies within two of its deviations
    off = np.abs(found.explanation.score - dense.score)[~asked]
    assert (off <= 2 * found.deviation[~asked] + 1e-6).mean() > 0.9


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
    assert dense.light.min() < -1
    assert np.corrcoef(dense.score, found.score)[0, 1] >= 0.98
    assert top(dense.score) == top(found.score)


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
    """The same brain on a finer axis: the same points are asked."""
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


def test_few_points_are_all_asked():
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
        (lambda glas: CoarseToFine(glas, 0), "budget must be a share of the forwards, above 0 and at most 1, got 0"),
        (lambda glas: CoarseToFine(glas, 1.5), "at most 1, got 1.5"),
        (lambda glas: CoarseToFine(glas, "half"), "got 'half'"),
        (lambda glas: CoarseToFine(glas, tolerance=-1), "tolerance must be a share of the highest score"),
        (lambda glas: CoarseToFine(glas.predict), "is one of a GLAS, got Lesions"),
        (lambda glas: CoarseToFine(glas).explain(volume(), [0, 1]), r"follows one target, .* got \[0, 1\]"),
        (
            lambda glas: CoarseToFine(glas.replace(kernel="ellipsoid")).explain(volume(), 1, boxes()),
            'with kernel="ellipsoid" every one has its own shape',
        ),
    ],
    ids=["nothing", "too much", "text", "tolerance", "no glas", "targets", "shapes"],
)
def test_what_it_refuses(how, message):
    with pytest.raises(GlasError, match=message):
        how(GLAS(Lesions((8, 20, 6))))
