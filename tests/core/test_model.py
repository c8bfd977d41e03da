"""What the method looks for in a model, and what wrappers pass on."""

import pytest
import torch
from torch import nn

from glas3d import Predictor
from glas3d.core import model
from glas3d.core.rounds import FrozenModel

PROTOCOLS = (
    model.HasDevice,
    model.HasClasses,
    model.Fittable,
    model.RunsOnEngine,
    model.Recomputable,
    model.HasTransform,
    model.TakesPerturbedBatches,
    model.EngineModel,
)
INTACT = torch.zeros(1, 4, 5)


def offers(predict):
    return {protocol.__name__ for protocol in PROTOCOLS if isinstance(predict, protocol)}


@pytest.fixture
def predictor():
    net = nn.Sequential(nn.Flatten(), nn.Linear(20, 2))
    return Predictor(net, "softmax", classes=("NC", "AD"), device="cpu")


def test_a_plain_callable_offers_nothing():
    predict = torch.sigmoid
    assert offers(predict) == set()
    assert model.device_of(predict) == torch.device("cpu")
    assert model.classes_of(predict) is None


def test_a_predictor_offers_everything_but_an_engine(predictor):
    offered = {protocol.__name__ for protocol in PROTOCOLS} - {"EngineModel", "TakesPerturbedBatches"}
    assert offers(predictor) == offered
    assert model.classes_of(predictor) == ("NC", "AD")


@pytest.mark.parametrize("engine", ["auto", "eager"])
def test_a_predictor_on_an_engine_names_each_offer_itself(predictor, engine):
    """What ``__getattr__`` passes on is not seen by ``isinstance`` from Python 3.12 on."""
    running = predictor.with_engine(engine, 1)
    assert offers(running) == {protocol.__name__ for protocol in PROTOCOLS}
    named = set(dir(running))
    for protocol in PROTOCOLS:
        assert {name for name in vars(protocol) if not name.startswith("_")} <= named, protocol.__name__


def test_a_frozen_predictor_offers_what_its_predictor_does_but_no_fit(predictor):
    assert offers(FrozenModel(predictor, INTACT)) == offers(predictor) - {"Fittable"}
    assert offers(FrozenModel(torch.sigmoid, INTACT)) == {"HasDevice", "HasClasses"}
