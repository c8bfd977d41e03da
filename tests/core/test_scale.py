"""A ladder of sigmas, and one explanation from it."""

import numpy as np
import pytest
import torch

from glas3d import GLAS, Grid, Predictor
from glas3d.core.saliency import minmax
from glas3d.core.scale import adaptive, ladder
from tests.core import oracle
from tests.core.cases import CELLS, SHAPES, WIDE, TinyNet, blocks, refused, volume

SETTINGS = {"sigma_light": 2.0, "sigma_shadow": (3.0, 2.5, 2.0), "sigma_spatial": 1.5}


def explained(scales, ndim=3, search=None, **settings):
    predict = Predictor(TinyNet(SHAPES[ndim]), device="cpu")
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


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", ["grid", "segments"])
def test_the_fused_score_is_the_mean_of_normalised_ones(ndim, kind):
    search = None if kind == "grid" else blocks(SHAPES[ndim], (2, 2, 3)[:ndim])
    found = explained((2, 0.5, 1), ndim, search)
    fused = adaptive(found)
    assert list(fused.explanations) == [0.5, 1.0, 2.0]
    expected = np.mean([minmax(one.score) for one in found.values()], axis=0)
    np.testing.assert_allclose(fused.explanation.score, expected, atol=1e-12)
    if kind == "grid":
        drawn = oracle.spread(fused.explanation.points, expected, SHAPES[ndim], 1.5, "euclidean", None)
        np.testing.assert_allclose(fused.explanation.saliency, drawn, atol=1e-6)
    else:
        np.testing.assert_array_equal(np.unique(fused.explanation.saliency), np.unique(np.float32([0, *expected])))


def test_each_point_has_the_scale_where_it_stands_out_and_its_light_and_drop():
    found = explained((0.5, 1, 2))
    fused = adaptive(found)
    standard = {k: (one.score - one.score.mean()) / one.score.std() for k, one in found.items()}
    for i, scale in enumerate(fused.scale):
        assert scale == max(standard, key=lambda k: standard[k][i])
        for name in ("light", "shadow", "drop"):
            assert getattr(fused.explanation, name)[i] == getattr(found[scale], name)[i]
    assert fused.best == max(standard, key=lambda k: standard[k].max())
    assert len(set(fused.scale)) > 1
    assert fused.explanation.settings["forwards"] == 3 * 17
    assert fused.explanation.settings["scales"] == [0.5, 1.0, 2.0]


def test_the_order_of_scales_and_the_size_of_scores_do_not_matter():
    from dataclasses import replace

    found = explained((0.5, 1, 2))
    larger = {k: replace(one, score=one.score * 7) if k == 1.0 else one for k, one in reversed(found.items())}
    one, other = adaptive(found), adaptive(larger)
    np.testing.assert_allclose(one.explanation.score, other.explanation.score, atol=1e-12)
    np.testing.assert_array_equal(one.scale, other.scale)


def test_one_scale_is_that_scale():
    (found,) = explained((1,)).values()
    fused = adaptive({1.0: found})
    np.testing.assert_allclose(fused.explanation.score, minmax(found.score))
    np.testing.assert_array_equal(fused.explanation.light, found.light)
    assert set(fused.scale) == {1.0} == {fused.best}


def test_a_model_that_says_nothing_has_the_smallest_scale_and_no_score():
    glas = GLAS(lambda batch: torch.full((len(batch), 2), 0.5), **SETTINGS)
    fused = adaptive({k: g.explain(volume(SHAPES[3]), 1, Grid(2)) for k, g in ladder(glas, (2, 1)).items()})
    assert set(fused.scale) == {1.0}
    assert not fused.explanation.score.any()


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_small_and_a_large_object_get_scales_of_their_own(ndim):
    """Each is answered only when all of it is seen, so a spot must be as large as the object, not larger."""
    shape = WIDE[ndim]
    points = np.array([[3.0] * ndim, [float(n) - 4.0 for n in shape]])
    near = [np.sqrt(((np.indices(shape).reshape(ndim, -1).T - p) ** 2).sum(axis=1)).reshape(shape) for p in points]
    regions = [torch.as_tensor(near[0] <= 0.5), torch.as_tensor(near[1] <= 3.0)]
    rest = torch.as_tensor((near[0] > 0.5) & (near[0] <= 2.5))

    def answer(batch):
        one, other = (batch[:, 0, r].mean(dim=1) for r in regions)
        # what lies around the small object speaks against it
        return (one - batch[:, 0, rest].mean(dim=1)).clamp(0, 1)[:, None] * 0.5 + other[:, None] ** 4 * 0.5

    image = torch.ones(1, *shape)
    image[0, rest] = 0.6
    glas = GLAS(answer, sigma_light=1.0, sigma_shadow=1.0)
    places = np.concatenate([points, [[float(n) / 2 for n in shape]], [[1.0] + [float(n) - 2 for n in shape[1:]]]])
    found = {k: g.explain(image, 0, places) for k, g in ladder(glas, (0.7, 1.5, 4)).items()}
    scale = adaptive(found).scale
    assert scale[0] < scale[1]


def test_what_is_no_ladder_is_refused():
    glas = GLAS(lambda batch: batch.mean(dim=(1, 2, 3, 4))[:, None])
    for scales, match in (((1, 1), "every scale must be there once"), ((1, -1), "scales must be greater than 0")):
        with refused(match):
            ladder(glas, scales)
    with refused("at least one scale"):
        adaptive({})
    found = explained((1,))
    with refused("scales must be of the same class and points"):
        adaptive(found | {2.0: explained((2,), search=Grid(CELLS[3]))[2.0]})
