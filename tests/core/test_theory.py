"""docs/theory.md: what the page states about light and shadow, with cooperative games as models."""

import re
import subprocess
import sys
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glas3d import GLAS, RGLAS
from tests.core.cases import Linear

ROOT = Path(__file__).parent.parent.parent
SHAPE = (9, 3, 2)
HARD = {"kernel": "segment", "sigma_light": 1e-3, "sigma_shadow": 1e-3}
seeds = st.integers(0, 2**32 - 1)


def players(n):
    """Blocks of a volume that is bright everywhere."""
    return np.ones((1, n, *SHAPE[1:]), dtype=np.float32), np.arange(1, n + 1).repeat(6).reshape(n, *SHAPE[1:])


def explained_game(v, n, **settings):
    """`GLAS`'s light and drop of a game ``v`` of a frozen set of players."""

    def predict(batch):
        kept = batch[:, 0].flatten(2).amin(dim=2) > 0.5
        return torch.tensor([[v(frozenset(np.flatnonzero(row).tolist()))] for row in kept], dtype=torch.float64)

    volume, labels = players(n)
    return GLAS(predict, **(HARD | settings)), volume, labels


def light_and_drop(v, n):
    glas, volume, labels = explained_game(v, n)
    found = glas.explain(volume, 0, labels)
    return found.light, found.drop


def shapley(v, n):
    """By its words: a player's contribution, averaged over all orders."""
    found = np.zeros(n)
    orders = list(permutations(range(n)))
    for order in orders:
        for position, i in enumerate(order):
            found[i] += v(frozenset(order[: position + 1])) - v(frozenset(order[:position]))
    return found / len(orders)


def game(n, order, seed):
    """Random dividends up to ``order`` players, with the empty coalition's own."""
    random = np.random.default_rng(seed)
    dividends = {frozenset(t): random.normal() for size in range(order + 1) for t in combinations(range(n), size)}
    return dividends, lambda kept: sum(value for t, value in dividends.items() if t <= kept)


@given(st.integers(1, 5), st.integers(1, 2), seeds)
def test_without_interactions_beyond_two_the_mean_of_both_ends_is_the_shapley_value(n, order, seed):
    _, v = game(n, order, seed)
    light, drop = light_and_drop(v, n)
    np.testing.assert_allclose((light - v(frozenset()) + drop) / 2, shapley(v, n), atol=1e-9)
    if order == 1:
        np.testing.assert_allclose(light - v(frozenset()), drop, atol=1e-9)


@given(st.integers(3, 5), seeds)
def test_beyond_two_it_errs_by_what_the_page_says(n, seed):
    dividends, v = game(n, n, seed)
    light, drop = light_and_drop(v, n)
    error = [sum((0.5 - 1 / len(t)) * d for t, d in dividends.items() if i in t and len(t) > 2) for i in range(n)]
    found = (light - v(frozenset()) + drop) / 2 - shapley(v, n)
    np.testing.assert_allclose(found, error, atol=1e-9)
    assert np.abs(error).max() > 1e-6


@given(st.floats(0.01, 1), st.floats(-1, 1), seeds)
def test_of_a_linear_model_the_score_is_a_quadratic(bare, a, seed):
    """``(P(B) + a) (|a| + gamma)``, and evidence against scores up to ``P(B)^2 / 4``."""
    weights = np.random.default_rng(seed).uniform(0.1, 1, (1, 1, 3, *SHAPE[1:]))
    volume, labels = players(3)
    volume = volume * 2
    weights[0, 0, 0] *= a / weights[0, 0, 0].sum()  # the first block changes the output by a
    shift = bare - weights.sum()  # the reference is all 1
    linear = Linear(weights)
    glas = GLAS(lambda batch: linear(batch) + shift, background=1.0, **HARD)
    found = glas.explain(volume, 0, labels)
    assert found.light[0] - bare == pytest.approx(a, abs=1e-5)
    assert found.drop[0] == pytest.approx(a, abs=1e-5)
    assert found.score[0] == pytest.approx((bare + a) * (abs(a) + 1e-5), abs=1e-5)
    if a < 0:
        assert found.score[0] <= bare**2 / 4 + 2e-5


@pytest.mark.parametrize(
    ("v", "light", "drop", "score"),
    [
        (lambda s: float(len(s) == 2), 0, 1, 0),
        (lambda s: float(len(s) > 0), 1, 0, 1e-5),
        (lambda s: float(len(s) == 1), 1, -1, 1.00001),
    ],
    ids=["AND", "OR", "XOR"],
)
def test_what_one_sees_and_the_other_does_not(v, light, drop, score):
    glas, volume, labels = explained_game(v, 2)
    found = glas.explain(volume, 0, labels)
    assert found.light.tolist() == [light] * 2
    assert found.drop.tolist() == [drop] * 2
    assert found.score == pytest.approx(score)
    assert shapley(v, 2) == pytest.approx((light + drop) / 2)


@given(seeds)
def test_drops_of_a_linear_model_add_up_only_over_a_partition(seed):
    weights = np.random.default_rng(seed).uniform(0.1, 1, (1, 1, 5, *SHAPE[1:]))
    volume, labels = players(5)
    whole = weights.sum()  # P(x) - P(B), B = 0
    hard = GLAS(Linear(weights), **HARD).explain(volume, 0, labels)
    assert hard.drop.sum() == pytest.approx(whole, rel=1e-5)
    wide = GLAS(Linear(weights), sigma_light=5, sigma_shadow=5).explain(volume, 0, labels)
    assert wide.drop.sum() > 2 * whole
    assert GLAS(Linear(weights), sigma_light=0.2, sigma_shadow=0.2).explain(volume, 0, labels).drop.sum() < whole / 2


def test_recursion_makes_what_was_redundant_necessary():
    def noisy(kept):
        return 1 - (1 - 0.9 * (0 in kept)) * (1 - 0.8 * (1 in kept))

    glas, volume, labels = explained_game(noisy, 2)
    first, second = RGLAS(glas).explain(volume, 0, labels).rounds
    assert first.explanation.drop == pytest.approx([0.18, 0.08])
    assert first.removed.tolist() == [0]
    assert second.points.tolist() == [1]
    assert second.explanation.drop == pytest.approx([0.8])
    for n, removed in ((2, []), (3, [0, 1])):  # on their own, and with a player that counts for nothing
        alike, volume, labels = explained_game(lambda kept: float(bool(kept & {0, 1})), n)
        assert RGLAS(alike).explain(volume, 0, labels).rounds[0].removed.tolist() == removed


NUMBER = re.compile(r"-?\d+\.\d+(?:e-\d+)?|\de-\d+")


@pytest.mark.slow
def test_the_page_is_what_the_script_writes(tmp_path):
    """Its words to the letter, its numbers within their last digits."""
    out = tmp_path / "theory.md"
    script = ROOT / "docs" / "measure" / "theory.py"
    done = subprocess.run([sys.executable, str(script), str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made, kept = out.read_text(encoding="utf-8"), (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
    assert NUMBER.sub("#", made) == NUMBER.sub("#", kept)
    a, b = ([float(x) for x in NUMBER.findall(text)] for text in (made, kept))
    np.testing.assert_allclose(a, b, atol=0.0201)
