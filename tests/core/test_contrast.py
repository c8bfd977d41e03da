"""Evidence for one class over another: the difference of two explanations from the same evaluations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glas3d import GLAS, Grid, Predictor
from glas3d.core.explanation import class_difference
from tests.core import oracle
from tests.core.cases import POINTS, SHAPES, Linear, TinyNet, assert_close, atlas, in_float64, refused, volume

SIGMAS = {"sigma_light": 2.5, "sigma_shadow": 1.8, "sigma_spatial": 2.0}
SIGNED = ("probability", "light", "drop", "score", "saliency")


def explained(ndim=3, search="grid", classes=3, **settings):
    """Return one explanation for each class, from the same evaluations."""
    shape = SHAPES[ndim]
    net = Predictor(TinyNet(shape, classes=classes), activation="softmax", device="cpu")
    where = Grid(2) if search == "grid" else atlas(shape)
    return GLAS(net, **(SIGMAS | settings)).explain(volume(shape), range(classes), where)


@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_agrees_with_the_oracle(ndim, search):
    shape = SHAPES[ndim]
    where = {"points": oracle.grid(2, shape)} if search == "grid" else {"labels": atlas(shape)}
    a, b = (oracle.explain(in_float64(TinyNet(shape)), volume(shape), y, **where, **SIGMAS) for y in (2, 0))
    classes = explained(ndim, search)
    found = class_difference(classes[2], classes[0])
    for name in SIGNED:
        assert_close(getattr(found, name), a[name] - b[name])
    assert_close(found.shadow, np.abs(a["drop"] - b["drop"]))
    assert found.target == 2
    assert found.covariates is None


@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_turned_round_it_is_the_opposite(ndim, search):
    a, b, _ = explained(ndim, search)
    there, back = class_difference(a, b), class_difference(b, a)
    for name in SIGNED:
        assert np.array_equal(getattr(there, name), -np.asarray(getattr(back, name)))
    assert np.array_equal(there.shadow, back.shadow)
    assert there.shadow.min() >= 0
    nothing = class_difference(a, a)
    assert nothing.probability == 0
    assert not any(np.any(getattr(nothing, name)) for name in (*SIGNED, "shadow"))


def test_of_two_classes_it_is_twice_the_one():
    """``P(b) = 1 - P(a)``: drops are each other's negative, so shadows are equal and light decides the score."""
    a, b = explained(classes=2)
    found = class_difference(a, b)
    assert_close(found.probability, 2 * a.probability - 1)
    assert_close(found.drop, 2 * a.drop)
    assert_close(found.light, 2 * a.light - 1)
    assert_close(found.score, (2 * a.light - 1) * a.shadow)
    assert np.abs(a.drop + b.drop).max() < 1e-6


def test_contrasts_go_on_from_one_another():
    a, b, c = explained()
    by_way_of_b, straight = (class_difference(a, b), class_difference(b, c)), class_difference(a, c)
    for name in SIGNED:
        assert_close(sum(getattr(one, name) for one in by_way_of_b), getattr(straight, name))
    assert (straight.shadow <= sum(one.shadow for one in by_way_of_b) + 1e-12).all()


def test_three_classes_drops_sum_to_nothing():
    """Softmax: what one class loses the others win."""
    classes = explained()
    assert np.abs(sum(e.drop for e in classes)).max() < 1e-6
    assert np.abs(classes[0].drop).max() > 1e-3


@given(st.sampled_from([0.0, 0.6]), st.integers(1, 8), st.floats(0.3, 20.0))
def test_a_linear_model_has_a_closed_form(background, batch_size, sigma):
    """The contrast of two classes is the explanation of the difference of their weights."""
    image, w = volume((7, 8, 9), 2), np.random.default_rng(2).normal(size=(2, 2, 7, 8, 9))
    glas = GLAS(
        Linear(w), sigma_light=sigma, sigma_shadow=sigma, background=background, batch_size=batch_size, gamma=0.0
    )
    found = class_difference(*glas.explain(image, (0, 1), POINTS[3]))
    above = (w[0] - w[1]) * (image.astype(np.float64) - background)
    expected = np.array([(above * oracle.mask(mu, (7, 8, 9), sigma)).sum() for mu in POINTS[3]])
    tolerance = 2e-7 * np.abs(w * image).sum()
    np.testing.assert_allclose(found.drop, expected, atol=tolerance)
    np.testing.assert_allclose(found.light, background * (w[0] - w[1]).sum() + expected, atol=tolerance)
    np.testing.assert_allclose(found.shadow, np.abs(expected), atol=tolerance)


def test_its_map_is_that_of_its_scores():
    a, b, _ = explained(3, "segments")
    found = class_difference(a, b)
    assert_close(found.saliency, oracle.paint(atlas(SHAPES[3]), a.segments.index, found.score))
    assert found.saliency.min() < 0 < found.saliency.max(), "evidence both ways, or the case is dull"
    a, b, _ = explained(3, "grid")
    found = class_difference(a, b)
    assert_close(found.saliency, oracle.spread(found.points, found.score, SHAPES[3], 2.0))


@pytest.mark.parametrize("fusion", ["light", "shadow"])
def test_an_ablation_is_contrasted_too(fusion):
    a, b, _ = explained(fusion=fusion)
    assert_close(class_difference(a, b).score, getattr(a, fusion) - getattr(b, fusion))


def test_the_two_are_left_alone():
    a, b, _ = explained()
    before = [getattr(e, name).copy() for e in (a, b) for name in ("light", "shadow", "drop", "score", "saliency")]
    class_difference(a, b)
    after = [getattr(e, name) for e in (a, b) for name in ("light", "shadow", "drop", "score", "saliency")]
    assert all(np.array_equal(x, y) for x, y in zip(before, after, strict=True))


def test_other_points_are_refused():
    net = Predictor(TinyNet((7, 9)), "softmax", device="cpu")
    one = GLAS(net).explain(volume((7, 9)), 0, Grid(2))
    for other in (Grid(3), [[1, 1], [1, 7], [5, 1], [5, 7]]):
        with refused(
            r"two classes needs the same points for both, got class 0 at 4 points .* and class 1 at \d points"
        ):
            class_difference(one, GLAS(net).explain(volume((7, 9)), 1, other))
