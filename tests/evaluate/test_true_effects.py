"""True effects of regions on a model, against closed forms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from glas3d import GlasError, Predictor
from glas3d.evaluate import mean_true_effects, true_effects
from glas3d.simulate import PLANTED, Simulation, simulate_participant

SIMULATION = Simulation(participants=4, seed=9, resolution=8, regions=("Putamen_R", "Hippocampus_L", "Precuneus_L"))
SHAPE = SIMULATION.grid.shape
WEIGHTS = np.random.default_rng(5).normal(0, 1e-4, SHAPE)


class Linear(nn.Module):
    """One logit, linear in the scan, which certain answers saturate."""

    def __init__(self, offset=0.0, columns=1):
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(WEIGHTS, dtype=torch.float64))
        self.offset, self.columns = offset, columns

    def forward(self, batch):
        logit = (batch.double() * self.weight).sum(dim=(1, 2, 3, 4))[:, None] + self.offset
        return logit if self.columns == 1 else torch.cat([torch.zeros_like(logit), logit, logit / 2], dim=1)


def logit_of(keep, number=0):
    return float((np.rint(simulate_participant(SIMULATION, number, keep).volume) * WEIGHTS).sum())


def game(effect_of):
    """Return the definition of the effects for any function of what is kept."""
    names = SIMULATION.regions
    effects = {}
    for name in names:
        last = effect_of(names) - effect_of([n for n in names if n != name])
        effects[name] = (last + effect_of([name]) - effect_of([])) / 2
    return effects


@pytest.mark.parametrize("offset", [0.0, 400.0], ids=["open", "certain"])
def test_the_effects_on_a_linear_model_are_sums_of_weights_over_what_disease_changed(offset):
    """Also where the probability is 1 in float32."""
    predict = Predictor(Linear(offset), "sigmoid", classes=("NC", "AD"), device="cpu")
    table = true_effects(predict, SIMULATION, 0)
    found = table.set_index("name")["effect"]
    well = simulate_participant(SIMULATION, 0, ()).volume
    for name in SIMULATION.regions:
        changed = np.rint(simulate_participant(SIMULATION, 0, (name,)).volume) - np.rint(well)
        assert abs(changed).sum() > 0
        assert found[name] == pytest.approx((changed * WEIGHTS).sum(), rel=1e-3, abs=1e-4)
    assert (found.drop(list(SIMULATION.regions)) == 0).all()
    against = true_effects(predict, SIMULATION, 0, "NC").set_index("name")["effect"]
    np.testing.assert_allclose(against, -found, atol=1e-6)


def test_the_table_has_a_row_a_region(aal):
    table = true_effects(Predictor(Linear(), "sigmoid", classes=("NC", "AD"), device="cpu"), SIMULATION, 0)
    assert table.columns.tolist() == ["index", "name", "planted", "effect"]
    assert table["name"].tolist() == aal.table["name"].tolist()
    assert table["index"].tolist() == aal.table["index"].tolist()
    assert set(table.loc[table["planted"] == 1, "name"]) == set(SIMULATION.regions)


def test_softmax_takes_a_class_against_all_others():
    predict = Predictor(Linear(columns=3), "softmax", classes=("NC", "AD", "FTD"), device="cpu")
    found = true_effects(predict, SIMULATION, 2).set_index("name")["effect"]

    def log_odds(keep):
        z = logit_of(keep, 2)
        return z - np.logaddexp(0, z / 2)

    for name, effect in game(log_odds).items():
        assert found[name] == pytest.approx(effect, abs=1e-4)


def test_a_callable_is_measured_by_its_probabilities():
    def predict(batch):
        z = (batch.double().numpy() * WEIGHTS).sum(axis=(1, 2, 3, 4))
        p = 1 / (1 + np.exp(-z))
        return np.stack([1 - p, p], axis=1)

    found = true_effects(predict, SIMULATION, 0, 1).set_index("name")["effect"]
    for name, effect in game(logit_of).items():
        assert found[name] == pytest.approx(effect, abs=1e-6)


def test_interaction_counts_half_to_each_of_two_regions():
    """A model that multiplies what two regions lost: the Shapley value of such a game is half the product each."""
    simulation = replace(SIMULATION, regions=SIMULATION.regions[:2])
    well = np.rint(simulate_participant(simulation, 0, ()).volume).sum()
    lost = {
        name: 1e-3 * (well - np.rint(simulate_participant(simulation, 0, (name,)).volume).sum())
        for name in simulation.regions
    }
    volumes = {
        keep: np.rint(simulate_participant(simulation, 0, keep).volume)
        for keep in ((), *((name,) for name in simulation.regions), simulation.regions)
    }

    def predict(batch):
        (keep,) = (k for k, volume in volumes.items() if np.array_equal(volume, batch[0, 0]))
        p = 1 / (1 + np.exp(-np.prod([lost[name] for name in keep]) if len(keep) == 2 else 0))
        return np.array([[p]])

    found = true_effects(predict, simulation, 0, 0).set_index("name")["effect"]
    for name in simulation.regions:
        assert found[name] == pytest.approx(np.prod(list(lost.values())) / 2)


def test_a_control_has_no_effects_and_is_not_evaluated():
    def predict(batch):
        raise AssertionError

    table = true_effects(predict, SIMULATION, 1, 1)
    assert (table["effect"] == 0).all()
    assert table["planted"].sum() == 3


def test_lesions_and_a_suppressor_have_effects_of_their_own(aal):
    simulation = replace(SIMULATION, lesions=(20.0, 20.0), suppressor="Insula_L")
    predict = Predictor(Linear(), "sigmoid", classes=("NC", "AD"), device="cpu")
    table = true_effects(predict, simulation, 1).set_index("name")  # a control
    assert len(table) == 117
    assert table.loc["lesions", "index"] == 0
    assert table["planted"][["lesions", "Insula_L", "Putamen_R"]].tolist() == [1, 0, 1]
    well = np.rint(simulate_participant(simulation, 1, ()).volume)
    for name in ("lesions", "Insula_L"):
        changed = np.rint(simulate_participant(simulation, 1, (name,)).volume) - well
        assert table.loc[name, "effect"] == pytest.approx((changed * WEIGHTS).sum(), rel=1e-2, abs=1e-3)
        assert table.loc[name, "effect"] != 0
    assert (table["effect"].drop(["lesions", "Insula_L"]) == 0).all()


def test_the_mean_is_over_participants():
    predict = Predictor(Linear(), "sigmoid", classes=("NC", "AD"), device="cpu")
    both = [true_effects(predict, SIMULATION, number)["effect"] for number in (0, 2)]
    mean = mean_true_effects(predict, SIMULATION, (0, 2))
    np.testing.assert_allclose(mean["effect"], (both[0] + both[1]) / 2)
    assert not np.allclose(*both)


def test_certain_probabilities_without_logits_are_refused():
    with pytest.raises(GlasError, match="measured in log-odds: log-odds of a probability of 0 or 1 are not"):
        true_effects(lambda batch: np.array([[0.0, 1.0]]), SIMULATION, 0, 1)
    with pytest.raises(GlasError, match="at least one participant, got none"):
        mean_true_effects(lambda batch: np.array([[0.0, 1.0]]), SIMULATION, [])
    with pytest.raises(GlasError, match="target must be one of NC"):
        true_effects(Predictor(Linear(), "sigmoid", classes=("NC", "AD"), device="cpu"), SIMULATION, 0, "MCI")


@pytest.mark.parametrize("outputs", [[2.5, 5.0], [0.4, 0.4], [-0.2, 1.2], [1.7]], ids=str)
def test_outputs_that_are_no_probabilities_are_refused(outputs):
    with pytest.raises(GlasError, match="true effects are measured in log-odds: log-odds need"):
        true_effects(lambda batch: np.array([outputs]), SIMULATION, 0, 0)


def test_the_shipped_network_uses_every_region_that_was_planted():
    from glas3d.predict import load_model

    table = mean_true_effects(load_model("adnc-simulated"), Simulation(participants=4, seed=2020), (0, 2))
    planted = table.set_index("name")["effect"][list(PLANTED)]
    assert (planted >= planted.max() / 20).all()
