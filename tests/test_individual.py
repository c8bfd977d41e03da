"""The statistics of docs/measure/individual.py by hand, and the whole of it at a small size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from glas3d import Predictor
from glas3d.predict import ModelInfo
from glas3d.simulate import GROUPS, Simulation, simulate_participant
from tests.scripts import load_script

SCRIPT = Path(__file__).parents[1] / "docs" / "measure" / "individual.py"


@pytest.fixture(scope="module")
def individual():
    return load_script(SCRIPT)


def test_a_rescan_finds_its_owner_by_the_highest_correlation(individual):
    first = np.array([[1.0, 2, 3, 4], [4, 3, 2, 1], [1, 3, 2, 4]])
    second = np.array([[10.0, 20, 30, 50], [1, 3, 2, 5], [0, 3, 2, 4]])  # the second is the third participant's
    assert individual.identified(first, second).tolist() == [True, False, True]
    assert individual.identified(second, first).tolist() == [True, True, False]


def test_the_share_of_owners_has_the_exact_interval(individual):
    # all of n: the lower end solves p^n = 0.025
    assert individual.share(np.ones(24, dtype=bool)) == pytest.approx((1, 0.025 ** (1 / 24), 1))
    assert individual.share(np.array([True, False])) == pytest.approx((0.5, 1 - 0.975**0.5, 0.975**0.5))


def test_spearman_region_by_region(individual):
    scores = np.array([[1.0, 5.0, 9.0], [2.0, 5.0, 7.0], [3.0, 5.0, 7.0]])
    truth = np.array([[1.0, 1.0, 1.0], [3.0, 2.0, 2.0], [2.0, 3.0, 3.0]])
    # ranks 1 2 3 against 1 3 2: 1 - 6 * 2 / 24; the same score in all follows nothing; ties share a rank
    tied = spearmanr(scores[:, 2], truth[:, 2]).statistic
    np.testing.assert_allclose(individual.spearman(scores, truth), [0.5, 0.0, tied])
    stacked = individual.spearman(np.stack([scores, -scores]), np.stack([truth, truth]))
    np.testing.assert_allclose(stacked, [[0.5, 0.0, tied], [-0.5, 0.0, -tied]])


def test_what_a_score_knows_beyond_general_severity(individual):
    rng = np.random.default_rng(0)
    general, own = rng.normal(size=(300, 1)), rng.normal(size=(300, 4))
    truth = general + own
    own_scores, general_scores = own, np.repeat(truth.mean(axis=1, keepdims=True), 4, axis=1)
    assert individual.spearman(general_scores, truth).min() > 0.5
    np.testing.assert_allclose(individual.beyond_general(general_scores, truth), 0, atol=1e-12)
    assert individual.beyond_general(own_scores, truth).min() > 0.5
    # by the formula: r_xy 0.5, r_xz 1 - 6 * 2 / 24, r_yz 1 of three participants leave nothing to follow
    x, y = np.array([[1.0, 1], [3, 2], [2, 3]]), np.array([[1.0, 2], [2, 4], [3, 9]])
    np.testing.assert_array_equal(individual.beyond_general(x, y), [0, 0])


def test_the_bootstrap_draws_participants(individual, monkeypatch):
    monkeypatch.setattr(individual, "DRAWS", 200)
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(12, 2))
    draws = individual.bootstrapped(np.stack([truth[:, 0], rng.normal(size=12)], axis=1), truth)
    assert draws.shape == (200, 2)
    np.testing.assert_allclose(draws[:, 0], 1)
    assert 0.1 < draws[:, 1].std() < 0.5  # that of a correlation of twelve: about 0.3
    assert individual.with_interval(0.5, np.linspace(0, 1, 1001)) == "0.50 [0.03, 0.97]"


def test_the_mean_map_is_removed_before_owners_are_found(individual):
    """Alike but for a small part of their own, maps are found by that part, and correlate by the common one."""
    rng = np.random.default_rng(2)
    common, own = 10 * rng.normal(size=50), rng.normal(size=(6, 50))
    maps = common + np.stack([own, own]) + 0.1 * rng.normal(size=(2, 6, 50))
    maps[:, :, 7] = np.nan  # a region without a voxel
    measured = individual.Measured(maps, np.zeros((6, 6)), np.zeros((6, 6)))
    assert measured.identified(own=True).all()
    within, between = map(float, measured.likeness(own=False).split(" / "))
    assert between > 0.97
    within, between = map(float, measured.likeness(own=True).split(" / "))
    assert within > 0.97
    assert between == pytest.approx(-1 / 5, abs=0.05)


def test_two_backgrounds_agree_on_the_mean_of_their_shares(individual):
    found = individual.consensus(np.array([[1.0, -3.0, 0.0]]), np.array([[20.0, 0.0, 20.0]]))
    np.testing.assert_allclose(found, [[0.375, -0.375, 0.25]])


@pytest.mark.filterwarnings("ignore::glas3d.errors.GlasWarning")  # a coarse grid loses regions
def test_the_page_at_a_small_size(individual, tmp_path, monkeypatch):
    """A linear network: the run goes on where it was stopped, and the page has the numbers of the maps."""
    size = individual.Size(chosen=2, reported=2, resolution=16, fold_resolution=16, training=8, folds=2, epochs=1)
    monkeypatch.setattr(individual, "ENGINE", "eager")
    monkeypatch.setattr(individual, "DRAWS", 50)
    grid = Simulation(resolution=16).grid
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(int(np.prod(grid.shape)), 2))
    torch.manual_seed(0)
    torch.nn.init.normal_(net[1].weight, std=1e-5)
    reference = simulate_participant(Simulation(resolution=16), 1).volume[None]
    info = ModelInfo(name="linear", grid=grid, channels=1, reference=reference)
    predict = Predictor(net.eval(), "softmax", device="cpu", classes=GROUPS, info=info)
    values_of, calls = individual.values_of, []

    def counted(*arguments):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(arguments)
        return values_of(*arguments)

    monkeypatch.setattr(individual, "values_of", counted)
    with pytest.raises(KeyboardInterrupt):
        individual.measure(size, tmp_path, predict)
    calls.append(None)
    parts = individual.measure(size, tmp_path, predict)
    done = len(calls)
    individual.measure(size, tmp_path, predict)
    assert len(calls) == done
    maps = {(call[2], call[3], call[4]) for call in calls if call and call[0] is predict}
    assert {(number, 3, "evidence") for number in (0, 2)} <= maps
    page = individual.page_of(parts, size)
    value, draws = parts["report"]["paper"].follows(parts["report"]["paper"].severity)
    assert individual.with_interval(value, draws) in next(
        line for line in page.splitlines() if line.startswith("| paper |")
    )
    np.testing.assert_allclose(
        parts["folds"]["mean of 2 networks"].maps,
        (parts["folds"]["network 1"].maps + parts["folds"]["network 2"].maps) / 2,
    )
    assert "Read groups" in page or "both bounds" in page
