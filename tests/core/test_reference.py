"""Several references: each keeps its explanation, and their consensus is robust to a misleading one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glas3d import GLAS, Explanation, Grid, Predictor
from glas3d.core.covariates import Covariates
from glas3d.core.reference import consensus, references
from glas3d.errors import GlasError
from tests.core import oracle
from tests.core.cases import (
    POINTS,
    SHAPES,
    SPACINGS,
    Linear,
    TinyNet,
    assert_close,
    atlas,
    constant,
    refused,
    volume,
)

SIGMAS = {"sigma_light": 2.5, "sigma_shadow": 1.8, "sigma_spatial": 2.0}


def backgrounds(shape):
    random = np.random.default_rng(5)
    return {"zero": 0.0, "grey": 0.7, "donor": random.uniform(0.5, 2.0, (1, *shape)).astype(np.float32)}


def of_each(ndim=3, search="grid", spacing=None, **settings):
    shape = SHAPES[ndim]
    glas = GLAS(Predictor(TinyNet(shape), "softmax", device="cpu"), batch_size=4, **(SIGMAS | settings))
    where = Grid(2) if search == "grid" else atlas(shape)
    each = references(glas, backgrounds(shape))
    return {name: one.explain(volume(shape), 1, where, spacing) for name, one in each.items()}


def made(drop, score=None):
    """An explanation with these drops, and scores (else the sizes of the drops)."""
    drop = np.asarray(drop, dtype=np.float64)
    score = np.abs(drop) if score is None else np.asarray(score, dtype=np.float64)
    points = np.stack([np.arange(len(drop)), np.zeros(len(drop))], axis=1)
    settings = {"sigma_spatial": 2.0, "distance": "euclidean", "spacing": None, "evaluations": 7, "batch_size": 2}
    drawn = np.zeros((len(drop), 2), dtype=np.float32)
    return Explanation(1, 0.5, points, np.full(len(drop), 0.5), np.abs(drop), drop, score, drawn, None, settings)


# Explainers.


def test_each_reference_has_an_explainer_that_differs_in_nothing_else():
    glas = GLAS(constant(0.4, 0.6), sigma_light=3, channel=0, fusion="shadow", gamma=0.1, background=9.0)
    reference = np.ones((7, 9))
    each = references(glas, {"zero": 0.0, "mean": reference})
    assert list(each) == ["zero", "mean"]
    assert each["zero"].background == 0.0
    assert each["mean"].background is reference
    assert all(one.settings == glas.settings and one.predict is glas.predict for one in each.values())
    assert glas.background == 9.0


@pytest.mark.parametrize(
    ("given_ones", "match"),
    [
        ({}, r"references must be backgrounds by their names, at least one, got \{\}"),
        ([0.0, 1.0], r"references must be backgrounds by their names, at least one, got \[0.0, 1.0\]"),
        ({"": 0.0}, "every reference must have a name, got ''"),
        ({0: 0.0}, "every reference must have a name, got 0"),
    ],
)
def test_references_refused(given_ones, match):
    with refused(match):
        references(GLAS(constant(0.4, 0.6)), given_ones)


# What they agree on.


@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_agrees_with_plain_loops(ndim, search):
    found = of_each(ndim, search)
    agreed = consensus(found, dead_zone=0.2)
    largest = max(abs(d) for one in found.values() for d in one.drop)
    for i in range(len(found["zero"].points)):
        shares, votes_of_point = [], []
        for row, one in enumerate(found.values()):
            shares.append(one.score[i] / sum(abs(s) for s in one.score))
            votes_of_point.append(0 if abs(one.drop[i]) <= 0.2 * largest else 1 if one.drop[i] > 0 else -1)
            assert agreed.drop[row, i] == one.drop[i]
            assert agreed.share[row, i] == pytest.approx(shares[-1], rel=1e-12)
        votes = {sign: votes_of_point.count(sign) for sign in (-1, 0, 1)}
        winners = [sign for sign, n in votes.items() if n == max(votes.values())]
        assert agreed.sign[i] == (winners[0] if len(winners) == 1 else 0)
        assert agreed.agreement[i] == max(votes.values()) / 3
        assert agreed.explanation.score[i] == pytest.approx(sorted(shares)[1], rel=1e-12)
        for name in ("light", "shadow", "drop"):
            assert getattr(agreed.explanation, name)[i] == sorted(getattr(one, name)[i] for one in found.values())[1]
    assert len(set(agreed.sign.tolist())) > 1, "a case too dull to compare"


@pytest.mark.parametrize(
    ("search", "settings"),
    [
        ("segments", {}),
        ("grid", {}),
        ("grid", {"distance": "squared", "sigma_spatial": (1.0, 2.0, 3.0)}),
        ("grid", {"unit": "mm"}),
    ],
    ids=["segments", "grid", "squared", "mm"],
)
def test_its_map_is_that_of_its_scores(search, settings):
    agreed = consensus(of_each(3, search, SPACINGS[3] if "unit" in settings else None, **settings)).explanation
    if search == "segments":
        expected = oracle.paint(atlas(SHAPES[3]), agreed.segments.index, agreed.score)
    else:
        settings = {"sigma_spatial": 2.0, "distance": "euclidean"} | settings
        spacing = SPACINGS[3] if "unit" in settings else None
        expected = oracle.spread(
            agreed.points, agreed.score, SHAPES[3], settings["sigma_spatial"], settings["distance"], spacing
        )
    assert_close(agreed.saliency, expected)
    assert agreed.saliency.dtype == np.float32


def test_nothing_is_lost_and_it_says_how_it_was_made():
    found = of_each()
    agreed = consensus(found)
    assert agreed.names == ("zero", "grey", "donor")
    assert all(agreed.explanations[name] is one for name, one in found.items())
    settings = agreed.explanation.settings
    assert settings["references"] == ["zero", "grey", "donor"]
    assert settings["dead_zone"] == 0.01
    assert settings["evaluations"] == 3 * found["zero"].settings["evaluations"]
    assert settings["sigma_light"] == 2.5
    assert "references" not in found["zero"].settings
    assert agreed.explanation.probability == found["zero"].probability
    assert "zero, grey, donor: 8 points" in repr(agreed)


def test_a_reference_under_which_all_moves_more_has_no_more_say():
    quiet, loud = made([0.01, 0.03, 0.02]), made([0.1, 0.3, 0.2])
    agreed = consensus({"quiet": quiet, "loud": loud})
    np.testing.assert_allclose(agreed.share[0], agreed.share[1], rtol=1e-12)
    assert consensus({"a": loud, "b": made([0, 0, 0])}).share[1].tolist() == [0, 0, 0]
    signed = consensus({"a": made([1, 1], [3.0, -1.0]), "b": made([1, 1], [1.0, 1.0])})
    assert signed.share.tolist() == [[0.75, -0.25], [0.5, 0.5]]


@given(
    st.integers(1, 2).flatmap(
        lambda half: st.lists(
            st.lists(st.floats(0, 1), min_size=6, max_size=6), min_size=2 * half + 1, max_size=2 * half + 2
        )
    )
)
def test_a_minority_of_misleading_references_carries_nothing_away(rows):
    """The first are misleading, fewer than half: every point's score lies within what the others give it."""
    agreed = consensus({f"reference {i}": made(np.ones(6), row) for i, row in enumerate(rows)})
    honest = agreed.share[(len(rows) - 1) // 2 :]
    assert len(honest) > len(rows) / 2
    score = agreed.explanation.score
    assert (score >= honest.min(axis=0)).all()
    assert (score <= honest.max(axis=0)).all()
    for i in range(6):
        for j in range(6):
            if honest[:, i].min() > honest[:, j].max():  # all of them put i before j
                assert score[i] > score[j]


def test_the_sign_is_what_most_say_and_a_tie_says_nothing():
    rows = {
        "a": made([1.0, 0.5, 0.5, 0.005, 0.5, 0.5]),
        "b": made([1.0, 0.5, -0.5, 0.01, -0.5, 0.0]),
        "c": made([-1.0, 0.0, 0.0, 0.02, -0.5, 0.0]),
    }
    agreed = consensus(rows)
    assert agreed.sign.tolist() == [1, 1, 0, 0, -1, 0]
    np.testing.assert_allclose(agreed.agreement, np.array([2, 2, 1, 2, 2, 2]) / 3)
    two = consensus({"a": rows["a"], "b": rows["b"]})
    assert two.sign.tolist() == [1, 1, 0, 0, 0, 0]
    assert two.agreement.tolist() == [1, 1, 0.5, 1, 0.5, 0.5]


def test_the_dead_zone_is_a_share_of_the_largest_drop_of_all():
    """A reference under which nothing changes gives no sign."""
    loud, quiet = made([0.5, -0.25]), made([-0.005, -0.0051])
    assert consensus({"loud": loud, "quiet": quiet, "as quiet": quiet}).sign.tolist() == [0, -1]
    without = consensus({"loud": loud, "quiet": quiet, "as quiet": quiet}, dead_zone=0)
    assert without.sign.tolist() == [-1, -1]
    nothing = consensus({"a": made([0, 0]), "b": made([0, 0])}, dead_zone=0)
    assert nothing.sign.tolist() == [0, 0]
    assert nothing.agreement.tolist() == [1, 1]


def test_how_much_of_the_best_is_lost_under_another():
    one = made([9, 8, 7, 6, 0, 0, 0, 0])
    other = made([9, 0, 0, 0, 8, 7, 6, 0])
    agreed = consensus({"one": one, "other": other, "again": one})
    assert agreed.flips(4).tolist() == [[0, 0.75, 0], [0.75, 0, 0.75], [0, 0.75, 0]]
    assert agreed.flips(1).tolist() == [[0] * 3] * 3
    assert agreed.flips(100).tolist() == [[0] * 3] * 3
    for top in (0, 2.0, True):
        with refused(f"top must be a whole number of at least 1, got {top}"):
            agreed.flips(top)


def test_covariates_are_agreed_on_beside_the_points():
    numbers = Covariates.of({"age": 0.9, "score": -0.4}, {"age": 0.2, "score": 0.3})

    def predict(batch, table):
        p = torch.sigmoid(batch.mean(dim=(1, 2, 3)) + table @ torch.tensor([0.5, 2.0]) * batch.amax(dim=(1, 2, 3)))
        return p[:, None]

    each = references(GLAS(predict, **SIGMAS), backgrounds((7, 9)))
    found = {name: one.explain(volume((7, 9)), 0, Grid(2), covariates=numbers) for name, one in each.items()}
    agreed = consensus(found).explanation.covariates
    assert agreed.names == ("age", "score")
    for j in range(2):
        shares = [e.covariates.score[j] / (e.score.sum() + e.covariates.score.sum()) for e in found.values()]
        assert agreed.score[j] == pytest.approx(sorted(shares)[1], rel=1e-12)
        assert agreed.drop[j] == sorted(e.covariates.drop[j] for e in found.values())[1]
        assert agreed.light[j] == sorted(e.covariates.light[j] for e in found.values())[1]
    without = GLAS(lambda batch: predict(batch, torch.zeros(len(batch), 2)), **SIGMAS)
    with refused("'zero' and 'other' differ in"):
        consensus({"zero": found["zero"], "other": without.explain(volume((7, 9)), 0, Grid(2))})


def test_what_cannot_agree():
    found = of_each()
    one = found["zero"]
    shifted = replace(one, points=one.points + 0.5)
    for given_ones, match in (
        ({"zero": one}, "needs explanations of two references or more"),
        ([one, one], "needs explanations of two references or more"),
        ({"zero": one, "pair": (one, one)}, "one explanation for each reference, 'pair' has tuple"),
        ({"zero": one, "other": replace(one, target=2)}, "'zero' and 'other' differ in classes"),
        ({"zero": one, "other": shifted}, "'zero' and 'other' differ in points"),
        ({"zero": one, "other": replace(one, saliency=one.saliency[:-1])}, "'zero' and 'other' differ in points"),
        ({"zero": one, "other": replace(one, probability=one.probability + 0.01)}, "differ in volumes"),
    ):
        with pytest.raises(GlasError, match=match):
            consensus(given_ones)
    for dead_zone in (-0.1, 1, "wide", float("nan")):
        with refused("dead_zone must be from 0 to below 1"):
            consensus(found, dead_zone=dead_zone)


# Why it matters: the reference alone turns the sign.


@given(st.floats(0.3, 20.0))
def test_of_a_linear_model_the_reference_decides_the_sign(sigma):
    """``drop = w.(G (x - B))``: with weights of one sign, that of ``x - B``."""
    image = np.ones((1, 7, 9), dtype=np.float32)
    glas = GLAS(Linear(-np.ones((1, 1, 7, 9))), sigma_light=sigma, sigma_shadow=sigma)
    each = references(glas, {"below": 0.0, "above": 2.0, "further above": 3.0})
    agreed = consensus({name: one.explain(image, 0, POINTS[2]) for name, one in each.items()})
    assert (np.sign(agreed.drop) == np.array([-1, 1, 1])[:, None]).all()
    np.testing.assert_allclose(agreed.drop[0], -agreed.drop[1], atol=1e-5)
    assert (agreed.sign == 1).all()
    assert np.allclose(agreed.agreement, 2 / 3)
