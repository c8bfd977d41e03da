"""A recursion ends and gives a reason, no point comes back, and one decisive object never has an empty map."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glas3d import GLAS, RGLAS, Grid
from tests.core import oracle
from tests.core.cases import (
    CELLS,
    PLACES,
    POINTS,
    WIDE,
    Linear,
    NoisyOr,
    TinyNet,
    assert_ended,
    atlas,
    blocks,
    constant,
    searches,
    volume,
)

SIGMAS = {"sigma_light": 2.5, "sigma_shadow": 1.8, "sigma_spatial": 1.5}


def tiny(seed, gain):
    net = TinyNet((7, 9), seed=seed)
    return lambda batch: (gain * net(batch)).detach().softmax(dim=1)


MODELS = st.one_of(
    st.builds(tiny, st.integers(0, 10**6), st.sampled_from([0.1, 1.0, 30.0, 1000.0])),
    st.builds(
        lambda centre, floor: NoisyOr({centre: 1.0}, floor),
        st.tuples(st.integers(1, 5), st.integers(1, 7)),
        st.sampled_from([0.0, 0.1]),
    ),
    st.builds(lambda p: constant(1 - p, p), st.sampled_from([0.0, 1e-12, 0.3, 1.0])),
)


@given(
    predict=MODELS,
    search=st.sampled_from([Grid((4, 5)), Grid(1), POINTS[2], atlas((7, 9)), [[3, 4], [3, 4], [3, 4]]]),
    threshold=st.floats(0, 1, exclude_max=True),
    stop=st.floats(1e-6, float("inf"), exclude_min=True),
    max_iterations=st.sampled_from([1, 2, 1000]),
    background=st.sampled_from([0.0, 1.2]),
    gamma=st.sampled_from([0.0, 1e-5]),
    sigma=st.sampled_from([0.3, 2.0, 50.0]),
)
def test_it_always_ends_and_no_point_comes_back(
    predict, search, threshold, stop, max_iterations, background, gamma, sigma
):
    glas = GLAS(
        predict, sigma_light=2, sigma_shadow=2, sigma_spatial=sigma, background=background, gamma=gamma, batch_size=8
    )
    found = RGLAS(glas, threshold, stop, max_iterations).explain(volume((7, 9)), 1, search)
    m = len(found.rounds[0].points)
    assert 1 <= len(found.rounds) <= min(m, max_iterations), "all rounds but the last remove a point and leave one"
    left = list(range(m))
    for number, one in enumerate(found.rounds):
        assert one.points.tolist() == left
        assert len(one.explanation.score) == len(left)
        assert set(one.removed) <= set(left)
        assert one.saliency.dtype == np.float32
        assert one.saliency.shape == (7, 9)
        assert 0 <= one.saliency.min() <= one.saliency.max() <= 1
        assert one.saliency.max() in (0, 1)
        assert one.kept or number == len(found.rounds) - 1 > 0
        left = [i for i in left if i not in one.removed]
    last = found.rounds[-1]
    end = "measure" if last.measure > stop else "iterations"
    if end == "iterations" and not left:
        end = "no point left"
    elif end == "iterations" and not last.removed.size:
        end = "none removed"
    assert_ended(found, end)
    assert end != "iterations" or len(found.rounds) == max_iterations
    assert last.kept == (end != "measure" or last is found.rounds[0])
    kept = [one.saliency.astype(np.float64) for one in found.rounds if one.kept]
    assert found.saliency.dtype == np.float32
    if not isinstance(search, np.ndarray) or search.dtype.kind == "f":
        np.testing.assert_allclose(found.saliency, oracle.minmax(sum(kept)), atol=1e-5)
    if len(kept) == 1:
        np.testing.assert_array_equal(found.saliency, found.rounds[0].saliency)


@given(
    centre=st.tuples(*[st.integers(1, n - 2) for n in WIDE[2]]),
    search=st.sampled_from([Grid(CELLS[2]), Grid(7), blocks(WIDE[2], CELLS[2])]),
    floor=st.sampled_from([0.0, 1e-9, 0.02]),
    stop=st.floats(1e-6, 10, exclude_min=True),
    threshold=st.floats(0, 0.9),
)
def test_one_decisive_object_is_never_an_empty_map(centre, search, floor, stop, threshold):
    """Put out, it leaves no probability: the measure ends the recursion, but the first round counts."""
    glas = GLAS(NoisyOr({centre: 1.0}, floor), sigma_light=2.5, sigma_shadow=2.5, sigma_spatial=1.5)
    found = RGLAS(glas, threshold, stop).explain(np.ones((1, *WIDE[2])), 1, search)
    assert found.rounds[0].kept
    assert found.rounds[0].removed.size
    assert found.saliency.max() == 1
    first = found.rounds[0]
    distance = np.sqrt(((first.explanation.points - centre) ** 2).sum(axis=1))
    assert distance[first.explanation.score.argmax()] <= distance.min() + 1
    assert distance[first.removed].min() <= distance.min() + 1
    if len(found.rounds) == 1:
        np.testing.assert_array_equal(found.saliency, first.saliency)


def test_what_is_exactly_at_the_threshold_stays():
    """``B = S > t1``: the weakest segment, 0 in the round's map, outlives a threshold of 0."""
    found = RGLAS(GLAS(Linear(volume((7, 9))[None]), **SIGMAS), threshold=0, max_iterations=1)
    first = found.explain(volume((7, 9)), 0, atlas((7, 9))).rounds[0]
    assert len(first.removed) == 2
    assert first.explanation.score.argmin() not in first.removed


@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize(
    ("predict", "recursion", "reason", "rounds"),
    [
        (NoisyOr({PLACES[2][0]: 1.0}), {"stop": 0.1}, r"the measure [01]\.\d+ is above 0\.1", 1),
        (constant(1.0, 0.0), {}, "the measure inf is above 5", 1),
        (
            NoisyOr({PLACES[2][0]: 0.9, PLACES[2][1]: 0.6}),
            {"max_iterations": 2},
            "as many rounds as allowed were made",
            2,
        ),
        (
            NoisyOr({PLACES[2][0]: 0.9, PLACES[2][1]: 0.6}),
            {"max_iterations": 1},
            "as many rounds as allowed were made",
            1,
        ),
    ],
    ids=["measure", "probability 0", "two", "one"],
)
def test_it_tells_why_it_ended(search, predict, recursion, reason, rounds):
    found = RGLAS(GLAS(predict, **SIGMAS), **recursion).explain(np.ones((1, *WIDE[2])), 1, searches(2)[search])
    assert re.fullmatch(reason, found.reason)
    assert len(found.rounds) == rounds
    assert found.reason in repr(found)


def test_it_ends_when_no_point_is_left():
    found = RGLAS(GLAS(constant(0.4, 0.6), **SIGMAS)).explain(volume((7, 9)), 1, [[3, 4]])
    assert found.reason == "no point is left"
    assert len(found.rounds) == 1
    assert found.rounds[0].removed.tolist() == [0]


def test_the_measure_is_the_first_reason():
    """The last point is removed, in the last round, and the measure is above too."""
    found = RGLAS(GLAS(constant(0.4, 0.6), **SIGMAS), stop=1e-3, max_iterations=1).explain(volume((7, 9)), 1, [[3, 4]])
    assert_ended(found, "measure")


def test_the_round_the_measure_ends_with_does_not_count():
    strong, weak, _ = PLACES[2]
    glas = GLAS(NoisyOr({strong: 0.9, weak: 0.6}), **SIGMAS)
    grid, image = Grid(CELLS[2]), np.ones((1, *WIDE[2]))
    measures = [one.measure for one in RGLAS(glas).explain(image, 1, grid).rounds]
    assert measures[0] < measures[1]
    found = RGLAS(glas, stop=(measures[0] + measures[1]) / 2).explain(image, 1, grid)
    assert [one.kept for one in found.rounds] == [True, False]
    np.testing.assert_array_equal(found.saliency, found.rounds[0].saliency)
    exactly = RGLAS(glas, stop=measures[1], max_iterations=2).explain(image, 1, grid)
    assert [one.kept for one in exactly.rounds] == [True, True], "the measure must be above, not at, stop"


@pytest.mark.parametrize(
    ("search", "gamma"), [(atlas((7, 9)), 1e-5), (Grid(3), 0.0), (POINTS[2], 0.0)], ids=["segments", "grid", "points"]
)
def test_a_flat_map_ends_after_one_round(search, gamma):
    found = RGLAS(GLAS(constant(0.4, 0.6), gamma=gamma, **SIGMAS)).explain(volume((7, 9)), 1, search)
    assert found.reason == "a round removed no point"
    assert len(found.rounds) == 1
    assert found.rounds[0].kept
    assert not found.saliency.any()
    assert not found.values.any()
    assert found.rounds[0].measure == 0


# Beyond Algorithm 1: a floor


@pytest.mark.parametrize("kind", ["grid", "segments"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_floor_ends_it_when_the_evidence_is_gone(ndim, kind):
    """Two redundant objects: the round that masks out the second one is the last, and counts."""
    shape = WIDE[ndim]
    data = np.zeros((1, *shape), dtype=np.float32)
    boxes = [tuple(slice(c - 1, c + 2) for c in centre) for centre in PLACES[ndim][:2]]
    for box, level in zip(boxes, (2.0, 1.8), strict=True):
        data[(0, *box)] = level

    def either(batch):
        means = torch.stack([batch[(slice(None), 0, *box)].flatten(1).mean(dim=1) for box in boxes])
        p = torch.sigmoid(4 * (means.amax(dim=0) - 0.9))
        return torch.stack([1 - p, p], dim=1)

    settings = {"sigma_light": 2.5, "sigma_shadow": 2.5, "sigma_spatial": 1.5}
    search = searches(ndim)[kind]
    plain = RGLAS(GLAS(either, **settings)).explain(data, 1, search)
    r = RGLAS(GLAS(either, **settings), floor=0.5).explain(data, 1, search)
    assert r.reason.startswith("P fell to")
    assert len(r.rounds) < len(plain.rounds)
    assert r.rounds[-1].probability <= 0.5 < min(one.probability for one in r.rounds[:-1])
    assert all(one.kept for one in r.rounds)
    # the rounds before it ended are those of the algorithm
    for one, other in zip(r.rounds, plain.rounds, strict=False):
        np.testing.assert_array_equal(one.saliency, other.saliency)
    for box in boxes:
        assert r.saliency[box].max() > 0.7


def test_a_segment_alone_is_not_an_empty_map():
    labels = np.zeros((7, 9), dtype=int)
    labels[2:5, 3:7] = 5
    bright = torch.ones(1, 7, 9)
    r = RGLAS(GLAS(lambda batch: batch.mean(dim=(1, 2, 3))[:, None], sigma_light=3)).explain(bright, 0, labels)
    np.testing.assert_array_equal(r.saliency, labels > 0)
    assert r.values.tolist() == [1.0]
