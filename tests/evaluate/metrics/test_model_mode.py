"""Metrics evaluate a model as `GLAS` does: in eval mode, and so that it can be trained afterwards."""

import pytest
import torch
from torch import nn

from glas3d import GLAS, GlasError, GlasWarning, Grid
from glas3d.evaluate.metrics import deletion_curve, score_drop
from glas3d.evaluate.rivals.value import ExplainedValue

SHAPE = (5, 6, 7)
VOLUME = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))


class Keeping(nn.Module):
    """Keeps what it made of its first input, and is in training mode with dropout and batch norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.drop, self.linear = nn.BatchNorm3d(1), nn.Dropout(0.5), nn.Linear(5 * 6 * 7, 2)
        self.kept = None

    def forward(self, x):
        if self.kept is None:
            self.kept = torch.ones_like(x[:1])
        return self.linear(self.drop(self.norm(x * self.kept)).flatten(1)).softmax(1)


def curve(glas):
    return deletion_curve(glas, VOLUME, glas.explain(VOLUME, 1, Grid(2)), steps=3).probability


def drops(glas):
    maps = [VOLUME[0].numpy(), (1 - VOLUME[0]).numpy()]
    return score_drop(glas, VOLUME, maps, target=1).drop


@pytest.mark.parametrize("metric", [curve, drops])
def test_a_module_hidden_in_a_callable_is_in_eval_mode_and_can_be_trained(metric):
    net, evaluated = Keeping(), Keeping().eval()
    hidden = GLAS(lambda batch: net(batch), sigma_light=1, sigma_shadow=1)
    expected = metric(GLAS(lambda batch: evaluated(batch), sigma_light=1, sigma_shadow=1))
    net.kept = None
    assert metric(hidden) == pytest.approx(expected, abs=1e-6)
    assert net.training
    assert net.norm.num_batches_tracked == 0
    net(VOLUME[None].requires_grad_()).sum().backward()  # what it kept is no inference tensor


@pytest.mark.parametrize("metric", [curve, drops])
def test_an_error_of_the_model_is_one_sentence(metric):
    def model(batch):
        if failing:
            raise KeyError("weights")
        return torch.ones(len(batch), 2)

    failing = []
    glas = GLAS(model, sigma_light=1, sigma_shadow=1)
    explanation = glas.explain(VOLUME, 1, Grid(2))
    failing.append(1)
    with pytest.raises(GlasError, match=r"KeyError: 'weights' \(test_model_mode\.py"):
        deletion_curve(glas, VOLUME, explanation, steps=3) if metric is curve else drops(glas)


def over_the_batch(batch):
    """Return probabilities that depend on the mean over the whole batch."""
    return (batch / (batch.mean() + 0.1)).flatten(1)[:, 100:102].softmax(1)


def test_a_score_drop_refuses_outputs_that_depend_on_the_batch():
    maps = [VOLUME[0].numpy(), (1 - VOLUME[0]).numpy()]
    glas = GLAS(over_the_batch, sigma_light=1, sigma_shadow=1)
    with pytest.raises(
        GlasError, match=r"depend on their own input alone, this model's changed by .*: give batch_size=1"
    ):
        score_drop(glas, VOLUME, maps, target=1)
    alone = score_drop(glas, VOLUME, maps, target=1, batch_size=1)
    expected = [float(over_the_batch(VOLUME[None] * (1 - torch.as_tensor(m)))[0, 1]) for m in maps]
    assert alone.remaining == pytest.approx(expected, abs=1e-6)


def test_rivals_evaluate_one_at_a_time_where_outputs_depend_on_the_batch():
    with pytest.warns(GlasWarning, match="depends on the other inputs of its batch"):
        value = ExplainedValue(over_the_batch, VOLUME, 1)
    volumes = torch.stack([VOLUME, VOLUME * 0.5, VOLUME**2])
    with value.prepared(), torch.no_grad():
        values = value(volumes)[:, 0]
    expected = torch.stack([over_the_batch(one[None])[0, 1] for one in volumes])
    assert torch.allclose(values, expected, atol=1e-6)


def test_rivals_refuse_a_model_that_is_random():
    with pytest.raises(GlasError, match="must give the same scan the same output each time"):
        ExplainedValue(lambda batch: torch.rand(len(batch), 2), VOLUME, 1)


def test_rivals_name_an_error_of_the_model():
    def model(batch):
        raise KeyError("weights")

    with pytest.raises(
        GlasError, match=r"does not take a batch of \(1, 1, 5, 6, 7\): KeyError: 'weights' \(test_model_m"
    ):
        ExplainedValue(model, VOLUME, 1)
