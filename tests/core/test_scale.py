"""A ladder of sigmas, and one explanation from it."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from glas3d import GLAS, Grid, Predictor
from glas3d.core.covariates import CovariateScores
from glas3d.core.scale import fuse_scales, ladder
from tests.core import oracle
from tests.core.cases import CELLS, SHAPES, WIDE, TinyNet, blocks, refused, volume

SETTINGS = {"sigma_light": 2.0, "sigma_shadow": (3.0, 2.5, 2.0), "sigma_spatial": 1.5}


def explained(scales, ndim=3, search=None, **settings):
    predict = Predictor(TinyNet(SHAPES[ndim]), "softmax", device="cpu")
    glas = GLAS(predict, **(SETTINGS | ({"sigma_shadow": 3.0} if ndim == 2 else {}) | settings))
    look = Grid(2) if search is None else search
    return {k: one.explain(volume(SHAPES[ndim]), 1, look) for k, one in ladder(glas, scales).items()}


def test_a_scale_multiplies_both_sigmas_and_nothing_else():
    glas = GLAS(lambda batch: batch.mean(dim=(1, 2, 3, 4))[:, None], background=0.5, **SETTINGS)
    made = ladder(glas, (0.5, 2))
    assert list(made) == [0.5, 2.0]
    assert made[2.0].settings.sigma_light == 4.0
    assert made[2.0].settings.sigma_shadow == (6.0, 5.0, 4.0)
    assert made[0.5].settings.sigma_spatial == 1.5
    assert made[0.5].background == 0.5
    assert made[0.5].predict is glas.predict


def standard(values):
    return (values - values.mean()) / values.std()


LIKE = explained((1,), 2, search=np.array([[1.0, i / 2] for i in range(12)]))[1.0]


def scored(*rows):
    """Explanations of scales 1, 2, ... with these scores, and nothing else of their own."""
    like = replace(LIKE, points=LIKE.points[: len(rows[0])])
    for name in ("light", "shadow", "drop"):
        like = replace(like, **{name: getattr(like, name)[: len(rows[0])]})
    return {float(k): replace(like, score=np.asarray(row, dtype=float)) for k, row in enumerate(rows, 1)}


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", ["grid", "segments"])
def test_the_fused_score_is_the_weighted_mean_of_standard_log_scores(ndim, kind):
    search = None if kind == "grid" else blocks(SHAPES[ndim], (2, 2, 3)[:ndim])
    found = explained((2, 0.5, 1), ndim, search)
    fused = fuse_scales(found)
    assert list(fused.explanations) == [0.5, 1.0, 2.0]
    rows = [standard(np.log(found[k].score)) for k in (0.5, 1.0, 2.0)]
    weight = np.array([row.max() ** 4 for row in rows])
    weight /= weight.sum()
    np.testing.assert_allclose(fused.weight, weight)
    expected = sum(w * row for w, row in zip(weight, rows, strict=True))
    np.testing.assert_allclose(fused.explanation.score, expected, atol=1e-9)
    assert fused.best == (0.5, 1.0, 2.0)[int(weight.argmax())]
    if kind == "grid":
        drawn = oracle.spread(fused.explanation.points, expected, SHAPES[ndim], 1.5, "euclidean", None)
        np.testing.assert_allclose(fused.explanation.saliency, drawn, atol=1e-5)
    else:
        painted = np.unique(fused.explanation.saliency)
        np.testing.assert_array_equal(painted, np.unique(np.float32([0, *fused.explanation.score])))


def test_each_point_has_the_scale_where_it_stands_out_and_its_light_and_drop():
    found = explained((0.5, 1, 2))
    fused = fuse_scales(found)
    rows = {k: standard(one.score) for k, one in found.items()}
    for i, scale in enumerate(fused.scale):
        assert scale == max(rows, key=lambda k: rows[k][i])
        for name in ("light", "shadow", "drop"):
            assert getattr(fused.explanation, name)[i] == getattr(found[scale], name)[i]
    assert len(set(fused.scale)) > 1
    assert fused.explanation.settings["evaluations"] == 3 * 17
    assert fused.explanation.settings["scales"] == [0.5, 1.0, 2.0]
    assert fused.explanation.settings["sigma_light"] == [1.0, 2.0, 4.0]


def test_the_settings_say_how_and_not_what():
    """A group takes participants that were explained alike."""
    one, other = ({k: replace(e, score=e.score**p) for k, e in explained((0.5, 1)).items()} for p in (1, 3))
    one, other = fuse_scales(one), fuse_scales(other)
    assert one.weight.tolist() != other.weight.tolist()
    assert one.explanation.settings == other.explanation.settings


@given(
    st.lists(st.lists(st.floats(1e-6, 1.0), min_size=5, max_size=5), min_size=1, max_size=4),
    st.floats(1e-3, 1e3),
    st.randoms(),
)
@example([[1e-5, 2e-5, 1.0, 0.5, 0.1], [0.2, 0.3, 0.5, 0.1, 0.9]], 1e-3, Random(0))
def test_neither_the_order_of_scales_nor_the_unit_of_the_score_matters(rows, unit, random):
    found = scored(*rows)
    items = [(k, replace(one, score=one.score * unit)) for k, one in found.items()]
    random.shuffle(items)
    one, other = fuse_scales(found), fuse_scales(dict(items))
    np.testing.assert_allclose(other.explanation.score, one.explanation.score, atol=1e-6)
    np.testing.assert_allclose(other.weight, one.weight, atol=1e-6)
    assert one.weight.sum() == pytest.approx(1)


def test_points_keep_their_order_at_one_scale():
    (found,) = explained((1,)).values()
    fused = fuse_scales({3.0: found})
    np.testing.assert_allclose(fused.explanation.score, standard(np.log(found.score)), atol=1e-9)
    np.testing.assert_array_equal(fused.explanation.score.argsort(), found.score.argsort())
    for name in ("light", "shadow", "drop"):
        np.testing.assert_array_equal(getattr(fused.explanation, name), getattr(found, name))
    assert set(fused.scale) == {3.0} == {fused.best}
    assert fused.weight.tolist() == [1.0]


def test_scores_a_hundred_thousand_times_smaller_keep_their_order():
    score = fuse_scales(scored([1.0, 2e-5, 1e-5, 3e-6])).explanation.score
    assert score.argsort().tolist() == [3, 2, 1, 0]
    assert len(set(score)) == 4


def test_a_scale_at_which_nothing_stands_out_hardly_counts():
    clear, blurred = [1e-3] * 9 + [0.5], [0.4, 0.5] * 5
    fused = fuse_scales(scored(blurred, clear))
    assert fused.best == 2.0
    assert fused.weight[1] > 0.95
    assert fused.explanation.score.argmax() == 9


def test_a_scale_that_says_nothing_does_not_count():
    clear, silent = [0.1, 0.2, 0.9], [0.3, 0.3, 0.3]
    fused = fuse_scales(scored(silent, clear, silent))
    assert fused.weight.tolist() == [0.0, 1.0, 0.0]
    np.testing.assert_allclose(fused.explanation.score, standard(np.log(clear)))
    assert fused.scale.tolist() == [1.0, 1.0, 2.0], "below the average no scale stands out"


def test_rounding_is_no_evidence():
    """Differences far below the highest score of all scales, though large against each other."""
    real = np.array([0.1, 0.9, 0.2, 0.1])
    fused = fuse_scales(scored(1e-9 * np.array([1.0, 2.0, 70.0, 30.0]), real))
    assert fused.weight[0] == 0
    assert fused.scale[1] == 2.0
    np.testing.assert_allclose(fused.explanation.score, standard(np.log(real)))


def test_scores_below_nothing_are_nothing():
    """A model's value, unlike a probability, may be negative."""
    fused = fuse_scales(scored([-0.5, 0.0, 0.4, 0.9], [-1.0, -2.0, -3.0, -4.0]))
    assert np.isfinite(fused.explanation.score).all()
    assert fused.weight.tolist() == [1.0, 0.0]
    assert fused.explanation.score[0] == fused.explanation.score[1]
    nothing = fuse_scales(scored([-1.0, -2.0, -3.0]))
    assert not nothing.explanation.score.any()
    assert not nothing.explanation.saliency.any()


def test_equal_scales_give_the_smallest():
    row = [0.1, 0.4, 0.2, 0.9]
    fused = fuse_scales(scored(row, row, row))
    assert set(fused.scale) == {1.0} == {fused.best}
    np.testing.assert_allclose(fused.weight, 1 / 3)


def test_a_model_that_says_nothing_has_the_smallest_scale_and_no_score():
    glas = GLAS(lambda batch: torch.full((len(batch), 2), 0.5), **SETTINGS)
    fused = fuse_scales({k: g.explain(volume(SHAPES[3]), 1, Grid(2)) for k, g in ladder(glas, (2, 1)).items()})
    assert set(fused.scale) == {1.0} == {fused.best}
    assert not fused.explanation.score.any()


def test_one_point_stands_out_from_nothing():
    fused = fuse_scales(explained((1, 2), search=np.array([[3.0, 4.0, 2.0]])))
    assert fused.explanation.score.tolist() == [0.0]


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_small_and_a_large_object_get_scales_of_their_own(ndim):
    """The model responds to an object only when all of it is lit, so a mask must be as large as it, not larger."""
    shape = WIDE[ndim]
    points = np.array([[3.0] * ndim, [float(n) - 4.0 for n in shape]])
    near = [np.sqrt(((np.indices(shape).reshape(ndim, -1).T - p) ** 2).sum(axis=1)).reshape(shape) for p in points]
    regions = [torch.as_tensor(near[0] <= 0.5), torch.as_tensor(near[1] <= 3.0)]
    rest = torch.as_tensor((near[0] > 0.5) & (near[0] <= 2.5))

    def predict(batch):
        one, other = (batch[:, 0, r].mean(dim=1) for r in regions)
        # what lies around the small object speaks against it
        return (one - batch[:, 0, rest].mean(dim=1)).clamp(0, 1)[:, None] * 0.5 + other[:, None] ** 4 * 0.5

    image = torch.ones(1, *shape)
    image[0, rest] = 0.6
    glas = GLAS(predict, sigma_light=1.0, sigma_shadow=1.0)
    searched = np.concatenate([points, [[float(n) / 2 for n in shape]], [[1.0] + [float(n) - 2 for n in shape[1:]]]])
    found = {k: g.explain(image, 0, searched) for k, g in ladder(glas, (0.7, 1.5, 4)).items()}
    scale = fuse_scales(found).scale
    assert scale[0] < scale[1]


def test_what_is_no_ladder_is_refused():
    glas = GLAS(lambda batch: batch.mean(dim=(1, 2, 3, 4))[:, None])
    for scales, match in (((1, 1), "every scale must be given once"), ((1, -1), "scales must be greater than 0")):
        with refused(match):
            ladder(glas, scales)
    with refused("at least one scale"):
        fuse_scales({})
    found = explained((1,))
    with refused("scales must be of the same class and points"):
        fuse_scales(found | {2.0: explained((2,), search=Grid(CELLS[3]))[2.0]})
    with refused("scales must be of the same class and points"):
        fuse_scales(found | {2.0: replace(found[1.0], target=0)})
    numbers = CovariateScores(("age",), *np.ones((4, 1)))
    with refused("covariates have none"):
        fuse_scales({1.0: replace(found[1.0], covariates=numbers)})
