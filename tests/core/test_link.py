"""Log-odds: from logits and from probabilities, where they are exact, where there are none, and of two classes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from glas3d import GLAS, RGLAS, Predictor
from glas3d.core.explanation import class_difference
from glas3d.core.link import log_odds, log_odds_of_logits, log_odds_of_probabilities
from glas3d.errors import GlasWarning
from glas3d.predict.engine.comparison import EngineFailed, check_agreement
from glas3d.predict.engine.engines import ENGINES
from tests.core import oracle
from tests.core.cases import POINTS, SHAPES, TinyNet, assert_close, atlas, logits_in_float64, refused, volume

SHAPE = SHAPES[3]
SIGMAS = {"sigma_light": 2.5, "sigma_shadow": 1.8}


class Head(nn.Module):
    """A network with other outputs: a linear map of another's logits."""

    def __init__(self, weights, offset=0.0):
        super().__init__()
        self.net, self.offset = TinyNet(SHAPE), offset
        self.register_buffer("weights", torch.as_tensor(weights, dtype=torch.float32))

    def forward(self, x):
        return self.net(x) @ self.weights.T + self.offset


@given(st.lists(st.floats(-60, 60), min_size=2, max_size=6))
def test_those_of_logits_are_the_logit_less_the_others(z):
    result = log_odds_of_logits(torch.tensor([z], dtype=torch.float64))[0]
    np.testing.assert_allclose(result, [oracle.log_odds(z, y) for y in range(len(z))], rtol=1e-9, atol=1e-12)


@given(st.floats(-30, 30), st.floats(-500, 500))
def test_they_do_not_depend_on_what_all_logits_have_in_common(z, offset):
    alone = log_odds_of_logits(torch.tensor([[z, 0.0, 1.0]], dtype=torch.float64))
    moved = log_odds_of_logits(torch.tensor([[z + offset, offset, offset + 1.0]], dtype=torch.float64))
    np.testing.assert_allclose(moved, alone, atol=1e-10)


@pytest.mark.parametrize("z", [[0.3, -1.0, 2.0], [800.0, 0.0, -3.0], [-60.0, 60.0], [1.0, 1.0]])
def test_their_gradients_are_finite_also_where_a_class_is_certain(z):
    """Of a class: 1 for its own logit, and for each other less its share among the others."""
    logits = torch.tensor([z], dtype=torch.float64, requires_grad=True)
    for y in range(len(z)):
        (result,) = torch.autograd.grad(log_odds(logits, "softmax")[0, y], logits)
        others = np.delete(np.array(z), y)
        shares = np.exp(others - np.logaddexp.reduce(others))
        np.testing.assert_allclose(result[0], np.insert(-shares, y, 1.0), atol=1e-9)


def test_those_of_sigmoids_are_their_logits():
    z = torch.tensor([[2.0], [-3.0]])
    assert log_odds(z, "sigmoid").tolist() == [[-2.0, 2.0], [3.0, -3.0]]
    assert log_odds(z.T, "sigmoid").tolist() == [[2.0, -3.0]]


def test_a_certain_probability_still_tells_inputs_apart_by_the_other_classes():
    p = torch.tensor([[1.0, 1e-12], [1.0, 2e-12]], dtype=torch.float32)
    np.testing.assert_allclose(log_odds_of_probabilities(p)[:, 0].diff(), -np.log(2), rtol=1e-6)
    np.testing.assert_allclose(log_odds_of_probabilities(torch.tensor([[0.8]])), [[np.log(4)]], rtol=1e-6)


@pytest.mark.parametrize(
    ("p", "match"),
    [
        ([[0.5, 0.6]], "add up to 1.1"),
        ([[-0.1, 1.1]], "go down to -0.1"),
        ([[1.5]], "a probability from 0 to 1, the model's output is 1.5"),
        ([[-2.0]], "a probability from 0 to 1, the model's output is -2"),
        ([[1.0, 0.0]], "of 0 or 1 are not finite"),
        ([[1.0]], "of 0 or 1 are not finite"),
    ],
)
def test_outputs_without_log_odds_are_refused(p, match):
    with refused(match):
        log_odds_of_probabilities(torch.tensor(p))


def explained(predict, target=1, **settings):
    return GLAS(predict, **(SIGMAS | {"link": "logit", "fusion": "mean"} | settings)).explain(
        volume(SHAPE), target, atlas(SHAPE)
    )


@pytest.mark.parametrize("target", [0, 1])
def test_one_logit_is_that_of_the_second_class_and_minus_that_of_the_first(target):
    single = Head([[0.4, -1.0, 0.8]])
    both = Head([[0.0, 0.0, 0.0], [0.4, -1.0, 0.8]])  # a softmax of 0 and z
    one, two = (
        explained(Predictor(net, activation, device="cpu"), target)
        for net, activation in ((single, "sigmoid"), (both, "softmax"))
    )
    assert_close(one.score, two.score)
    assert one.output == pytest.approx(two.output, abs=1e-5)
    assert one.probability == pytest.approx(1 / (1 + np.exp(-one.output)))
    assert one.probability == pytest.approx(
        float(Predictor(single, "sigmoid", device="cpu")(torch.from_numpy(volume(SHAPE))[None])[0, target]), abs=1e-6
    )


def test_of_independent_classes_each_has_its_own_logit():
    net = TinyNet(SHAPE)
    result = explained(Predictor(net, "sigmoid", device="cpu"), 2)
    assert result.output == pytest.approx(logits_in_float64(net)(volume(SHAPE).astype(np.float64))[2], abs=1e-5)
    assert not result.settings["exclusive_classes"]


@pytest.mark.parametrize("kind", ["predictor", "callable"])
def test_probabilities_of_all_classes_are_as_good_as_logits(kind):
    softmax = nn.Sequential(TinyNet(SHAPE), nn.Softmax(1))
    predict = Predictor(softmax, "none", device="cpu") if kind == "predictor" else lambda batch: softmax(batch)
    if kind == "callable":
        softmax.eval().requires_grad_(False)
    expected = explained(Predictor(TinyNet(SHAPE), "softmax", device="cpu"))
    assert_close(explained(predict).score, expected.score, 1e-4)
    assert_close(explained(predict, link="auto").score, expected.score, 1e-4)


def certain(offset):
    return Predictor(Head(np.eye(3), torch.tensor([0.0, offset, 0.0])), "softmax", device="cpu")


def test_a_saturated_network_keeps_its_evidence_in_log_odds():
    sure, unsure = (explained(certain(offset), fusion="shadow") for offset in (60.0, 0.0))
    assert sure.probability == 1.0
    assert len(set(sure.drop.tolist())) == len(sure.drop)
    # an offset of one class alone shifts its log-odds by that much, and no drop
    assert_close(sure.drop, unsure.drop, 1e-4)
    hidden = explained(certain(60.0), link="probability", fusion="shadow")
    assert set(hidden.drop.tolist()) == {0.0}


def test_auto_takes_the_models_own_output_where_there_are_no_log_odds():
    regressor = Predictor(Head([[3.0, 1.0, 0.0]]), "none", device="cpu")
    with refused("log-odds need a probability from 0 to 1"):
        explained(regressor, 0)
    with pytest.warns(GlasWarning, match="made of the model's own output: log-odds need a probability"):
        result = explained(regressor, 0, link="auto")
    assert result.settings["link"] == "probability"
    assert_close(result.score, explained(regressor, 0, link="probability").score)
    assert explained(Predictor(TinyNet(SHAPE), "softmax", device="cpu"), link="auto").settings["link"] == "logit"


def test_auto_has_one_link_for_all_rounds():
    def saturates(batch):  # 1 once the first segment is masked out
        gone = batch[:, 0, :2, :3].amax(dim=(1, 2, 3)) < 0.3
        p = torch.where(gone, 1.0, 0.5 + 0.2 * batch[:, 0, 3:6, 2:7].mean(dim=(1, 2, 3)).clamp(0, 1)).double()
        return torch.stack([1 - p, p], dim=1)

    glas = GLAS(saturates, link="auto", fusion="mean", kernel="segment", sigma_light=0.1, sigma_shadow=0.1)
    with pytest.warns(GlasWarning, match="of 0 or 1 are not finite"):
        result = RGLAS(glas).explain(volume(SHAPE), 1, atlas(SHAPE))
    assert {one.explanation.settings["link"] for one in result.rounds} == {"probability"}


def test_a_readout_has_no_log_odds():
    predict = Predictor(TinyNet(SHAPE), "softmax", device="cpu", readout=lambda p: p[:, :2])
    with refused("the output of a readout is no class of the model TinyNet"):
        explained(predict)
    with pytest.warns(GlasWarning, match="the output of a readout"):
        explained(predict, link="auto")


@pytest.mark.parametrize("fusion", ["mean", "light", "shadow"])
def test_of_exclusive_classes_the_log_odds_of_one_against_another_are_a_difference_of_logits(fusion):
    net = TinyNet(SHAPE)
    first, second = explained(Predictor(net, "softmax", device="cpu"), [2, 0], fusion=fusion)
    result = class_difference(first, second)
    # the logit of the difference alone, as a regressor
    expected = explained(
        Predictor(Head([[-1.0, 0.0, 1.0]]), "none", device="cpu"), 0, link="probability", fusion=fusion, gamma=0.0
    )
    assert result.output == pytest.approx(expected.output, abs=1e-5)
    if fusion != "shadow":
        assert_close(result.light, expected.light)
    if fusion != "light":
        assert_close(result.drop, expected.drop)
    of_fusion = {"shadow": expected.drop, "light": expected.light - result.bare}
    assert_close(result.score, of_fusion.get(fusion, expected.score))
    if fusion == "mean":
        assert_close(result.density, expected.density)
        assert result.effect == pytest.approx(expected.effect, abs=1e-5)
        assert_close(result.saliency, expected.saliency)


def test_of_independent_classes_it_is_the_difference_of_their_log_odds():
    first, second = explained(Predictor(TinyNet(SHAPE), "sigmoid", device="cpu"), [2, 0])
    assert_close(class_difference(first, second).score, first.score - second.score)


@pytest.mark.parametrize("engine", ["eager", "channels_last", "compile", "onnx", "openvino"])
@pytest.mark.parametrize("fusion", ["mean", "shadow"])
def test_engines_agree_in_log_odds(engine, fusion):
    predict = Predictor(TinyNet(SHAPE), "softmax", device="cpu")
    settings = SIGMAS | {"link": "logit", "fusion": fusion, "batch_size": 2}
    result = GLAS(predict, engine=engine, **settings).explain(volume(SHAPE), 1, POINTS[3])
    expected = oracle.explain(
        logits_in_float64(predict.net), volume(SHAPE), 1, points=POINTS[3], **SIGMAS, link="logit", fusion=fusion
    )
    assert result.settings["engine"] == engine
    assert_close(result.score, expected["score"], 1e-4)


def test_reduced_precision_is_measured_by_the_range_of_log_odds():
    """An offset of all log-odds gives reduced precision no more room."""
    expected = torch.tensor([[20.0], [21.0]])
    check_agreement(ENGINES["autocast"], expected + 0.004, expected, expected, log_odds=True)
    check_agreement(ENGINES["autocast"], expected + 0.05, expected, expected)
    with pytest.raises(EngineFailed, match="differs by"):
        check_agreement(ENGINES["autocast"], expected + 0.05, expected, expected, log_odds=True)


@pytest.mark.parametrize("engine", ["autocast"])
def test_reduced_precision_in_log_odds_is_used_or_left_out(engine):
    predict = Predictor(TinyNet(SHAPE), "softmax", device="cpu")
    settings = SIGMAS | {"link": "logit", "fusion": "mean", "batch_size": 2}
    result = GLAS(predict, engine=engine, **settings).explain(volume(SHAPE), 1, POINTS[3])
    exact = GLAS(predict, engine="eager", **settings).explain(volume(SHAPE), 1, POINTS[3])
    size = np.ptp([*exact.light, *(exact.output - exact.drop), exact.output])
    assert np.abs(result.score - exact.score).max() <= 2 * 5e-3 * max(size, 1.0)
