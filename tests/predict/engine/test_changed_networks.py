"""Engines follow the network they were built from, whatever in it changes, and branches on the data."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from glas3d import GLAS, GlasError, Grid, Predictor
from glas3d.predict import ModelInfo, PaperNet
from glas3d.predict.engine import engine_predictor
from glas3d.predict.engine.comparison import EngineFailed, check_agreement
from glas3d.predict.engine.engines import ENGINES
from glas3d.predict.engine.fingerprint import digest, fingerprint
from glas3d.predict.engine.fixed_steps import has_fixed_steps
from tests.core.cases import TinyNet, refused, volume

SHAPE = (7, 8, 9)
NAMES = ("onnx", "openvino", "channels_last")


class Adjustable(nn.Module):
    """A network with something of every kind that decides its output."""

    def __init__(self):
        super().__init__()
        self.net = TinyNet(SHAPE)
        self.temperature, self.gains = 1.0, [1.0]
        self.shift = torch.tensor(0.0)
        self.register_buffer("scale", torch.tensor(1.0), persistent=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.wide = nn.Linear(200, 200)

    def forward(self, x):
        extra = self.wide.weight.sum() * 1e-3 * torch.tensor([1.0, -1.0, 0.0])
        return self.net(x * self.scale * self.gains[0] + self.shift) / self.temperature + extra


def temperature(net):
    net.temperature = 0.3


def listed(net):
    net.gains[0] = 2.0


def plain_tensor(net):
    net.shift = torch.tensor(0.5)


def buffer(net):
    net.scale.fill_(0.4)


def one_weight_by_data(net):
    net.wide.weight.data[3, 7] += 1000.0


def hook(net):
    net.net.register_forward_hook(lambda module, inputs, output: 3 * output)


CHANGES = (temperature, listed, plain_tensor, buffer, one_weight_by_data, hook)


def explained(predict, engine, batch_size=4):
    glas = GLAS(predict, engine=engine, batch_size=batch_size, sigma_light=2, sigma_shadow=3)
    return glas.explain(volume(SHAPE), 1, Grid((2, 1, 3)))


def assert_same(found, expected):
    assert found.probability == pytest.approx(expected.probability, abs=1e-5)
    np.testing.assert_allclose(found.light, expected.light, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.drop, expected.drop, rtol=0, atol=1e-5)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("engine", NAMES)
def test_an_engine_follows_its_network(engine, change):
    net = Adjustable()
    predict = Predictor(net, "softmax", device="cpu")
    before = explained(predict, engine)
    change(net)
    found = explained(predict, engine)
    assert found.settings["engine"] == engine
    assert abs(found.probability - before.probability) > 1e-3, "a change that changes nothing shows nothing"
    assert_same(found, explained(predict, "eager"))


@pytest.mark.parametrize("change", [change for change in CHANGES if change is not listed])
def test_a_fingerprint_changes_with_the_network(change):
    net = Adjustable()
    before = fingerprint(net)
    with torch.no_grad():
        net(torch.ones(2, 1, *SHAPE))
    assert fingerprint(net) == before
    change(net)
    assert fingerprint(net) != before


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_what_no_fingerprint_shows_is_noticed_by_comparison(monkeypatch, batch_size):
    for room in ("engine.trials", "predictor"):  # neither is the engine built anew, nor the model tried again
        monkeypatch.setattr(f"glas3d.predict.{room}.fingerprint", lambda net: "the same")
    net = Adjustable()
    predict = Predictor(net, "softmax", device="cpu")
    explained(predict, "channels_last", batch_size)
    temperature(net)
    assert_same(explained(predict, "channels_last", batch_size), explained(predict, "eager"))


def test_a_kept_engine_of_another_state_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setattr("glas3d.predict.engine.comparison.digest", lambda net: "the same")

    def predictor(net):
        return Predictor(net, "softmax", device="cpu", info=ModelInfo(name="made", sha256="some"))

    explained(predictor(Adjustable()), "openvino")
    other = Adjustable()
    temperature(other)
    assert_same(explained(predictor(other), "openvino"), explained(predictor(other), "eager"))


def test_a_digest_is_the_same_in_every_process_and_holds_attributes():
    net, other = Adjustable(), Adjustable()
    assert digest(net) == digest(other) == digest(copy.deepcopy(net))
    temperature(other)
    assert digest(net) != digest(other)


def test_odd_tensors_have_a_fingerprint():
    net = nn.Linear(3, 3)
    net.register_buffer("sparse", torch.eye(4).to_sparse())
    net.lazy = nn.LazyLinear(2)
    net.elsewhere = nn.Linear(2, 2, device="meta")
    net.mixed = np.arange(3)
    assert fingerprint(net) == fingerprint(net)
    net.mixed = np.arange(3) + 1
    before = fingerprint(net)
    net.sparse = 2 * torch.eye(4).to_sparse()
    assert fingerprint(net) != before


class Branch(nn.Module):
    """A network that scales bright scans: a tracer sees one of the branches."""

    def __init__(self):
        super().__init__()
        self.net = TinyNet(SHAPE)

    def forward(self, x):
        return self.net(x / 100 if x.max() > 1.5 else x)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_branch_on_the_data_is_refused_or_right(batch_size):
    predict = Predictor(Branch(), "softmax", device="cpu")
    with refused("the engine onnx differs by .* from the network, more than .*: evaluate the model Branch without it"):
        explained(predict, "onnx", batch_size)
    assert_same(explained(predict, "channels_last", batch_size), explained(predict, "eager", batch_size))


# What is known to make the same steps for all inputs is not compared for every scan.


class ReadsNumber(nn.Module):
    """A network that computes with a number that it has read from its input."""

    def forward(self, x):
        return x.flatten(1)[:, :2] / x.max().item()


def of_known_code(made):
    """Return a class as if it came with glas3d."""
    return type(made.__name__, (made,), {"__module__": "glas3d.predict"})


def activated(function):
    net = paper_net()
    net.classifier[3].function = function
    return net


def hooked():
    net = paper_net()
    net.encoder[1].register_forward_hook(hook_of_module)
    return net


def hook_of_module(module, inputs, output):
    return output


def with_own_forward():
    net = paper_net()
    net.forward = lambda x: x.flatten(1)[:, :2]
    return net


def paper_net():
    torch.manual_seed(0)
    return PaperNet(EVEN).eval()


EVEN = (8, 9, 10)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (paper_net, True),
        (lambda: nn.Sequential(paper_net(), nn.LayerNorm(2)), True),
        (lambda: activated(torch.nn.functional.relu), True),
        (lambda: activated(hook_of_module), False),
        (lambda: activated([Branch()]), False),
        (lambda: nn.Sequential(paper_net(), Branch()), False),
        (lambda: of_known_code(Branch)(), False),
        (lambda: of_known_code(ReadsNumber)(), False),
        (hooked, False),
        (with_own_forward, False),
    ],
)
def test_only_networks_of_known_code_without_branches_have_fixed_steps(make, expected):
    assert has_fixed_steps(make(), (torch.empty(2, 1, *EVEN, device="meta"),)) is expected


def test_a_fingerprint_of_known_code_holds_what_is_in_lists_and_dictionaries():
    net = paper_net()
    net.encoder[1].noted = {"sizes": [1, 2]}
    before = fingerprint(net)
    net.encoder[1].noted["sizes"][0] = 3
    assert fingerprint(net) != before


def test_an_engine_of_known_steps_is_compared_for_the_first_scan_alone(monkeypatch):
    sizes, evaluate = [], PaperNet.forward

    def counted(net, x):
        sizes.append(len(x))
        return evaluate(net, x)

    def explain(predict):
        sizes.clear()
        glas = GLAS(predict, engine="channels_last", batch_size=4, sigma_light=2, sigma_shadow=3)
        return glas.explain(volume(EVEN), 1, Grid((2, 1, 3)))

    seconds = [1.0]
    monkeypatch.setattr(PaperNet, "forward", counted)
    monkeypatch.setattr("glas3d.predict.engine.trials.seconds_to_try", lambda: seconds[0])
    net = paper_net()
    predict = Predictor(net, "softmax", device="cpu")
    explain(predict)
    explain(predict)
    assert sizes == [4, 1, 4, 4, 4], "comparing has not taken as long as proving would"
    seconds[0] = 0.0
    found = explain(predict)
    assert sizes[:-1] == [4, 4, 4, 4], "the last one is the trial without values"
    explain(predict)
    assert sizes == [4, 4, 4, 4]
    handle = nn.modules.module.register_module_forward_hook(hook_of_module)
    try:
        explain(predict)
        assert sizes == [4, 1, 4, 4, 4]
    finally:
        handle.remove()
    one_weight = net.classifier[2].weight
    one_weight.data[0] *= -3
    changed = explain(predict)
    assert len(sizes) > 8, "another network is tried as any first one"
    assert not np.allclose(changed.score, found.score, rtol=1e-6)
    expected = GLAS(predict, engine="eager", batch_size=4, sigma_light=2, sigma_shadow=3)
    assert_same(changed, expected.explain(volume(EVEN), 1, Grid((2, 1, 3))))


class InPlace(nn.Module):
    def __init__(self, in_place=True):
        super().__init__()
        self.net, self.in_place = TinyNet(SHAPE), in_place

    def forward(self, x):
        x = x if self.in_place else x.clone()
        return self.net(x.sub_(1.2).div_(0.4))


@pytest.mark.parametrize("engine", NAMES)
def test_a_network_that_writes_to_its_input_runs_on_an_engine(engine):
    found = explained(Predictor(InPlace(), "softmax", device="cpu"), engine)
    assert found.settings["engine"] == engine
    assert_same(found, explained(Predictor(InPlace(False), "softmax", device="cpu"), "eager"))


def test_an_engine_is_measured_by_the_effects():
    expected = torch.tensor([[2e-5, 1.0], [1e-5, 1.0]])
    wrong = expected + torch.tensor([[7e-6, 0.0], [0.0, 0.0]])
    check_agreement(ENGINES["onnx"], expected + 1e-8, expected, expected)
    with pytest.raises(EngineFailed, match=r"differs by 7\.0e-06 from the network, more than 2e-07"):
        check_agreement(ENGINES["onnx"], wrong, expected, expected)
    with pytest.raises(EngineFailed, match="returns"):
        check_agreement(ENGINES["onnx"], expected[:, :1], expected, expected)


def test_an_engine_that_stays_wrong_is_left_out(monkeypatch):
    """It agrees when it is built, and never again."""
    predict = Predictor(TinyNet(SHAPE), "softmax", device="cpu")

    def fail(*given, **options):
        raise EngineFailed("differs by 1.0e-01 from the network, more than 0.0001")

    monkeypatch.setattr(engine_predictor, "check_agreement", fail)
    with refused("the engine channels_last differs by 1.0e-01 .*: evaluate the model TinyNet without it"):
        explained(predict, "channels_last")
    found = explained(predict, "autocast")
    assert found.settings["engine"] == "eager"
    assert_same(found, explained(predict, "eager"))


# What a network may do beside its output.


class Cache(nn.Module):
    """Keeps what it made of its first input."""

    def __init__(self):
        super().__init__()
        self.net, self.kept = TinyNet(SHAPE), None

    def forward(self, x):
        if self.kept is None:
            self.kept = x[:1] * 0 + 1
        return self.net(x * self.kept)


def test_a_network_can_be_trained_after_it_was_explained():
    net = Cache()
    explained(Predictor(net, "softmax", device="cpu"), "eager")
    net(torch.ones(2, 1, *SHAPE, requires_grad=True)).sum().backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_script_modules_are_explained():
    net = TinyNet(SHAPE).eval()
    expected = explained(Predictor(net, "softmax", device="cpu"), "eager")
    for scripted in (torch.jit.script(net), torch.jit.freeze(torch.jit.script(net))):
        assert_same(explained(Predictor(scripted, "softmax", device="cpu"), "auto"), expected)


@pytest.mark.parametrize("error", [KeyError("x"), AssertionError("odd"), IndexError("7"), ZeroDivisionError()])
def test_any_error_of_a_network_is_one_sentence(error):
    class Broken(nn.Module):
        def forward(self, x):
            raise error

    with pytest.raises(GlasError, match=r"the model does not take a batch of \(1, 1, 7, 8, 9\)") as caught:
        explained(Predictor(Broken(), "softmax", device="cpu"), "eager")
    assert caught.value.__cause__ is error


def test_names_must_be_as_many_as_outputs():
    with refused("2 classes are named, the model gives 3"):
        explained(Predictor(TinyNet(SHAPE), "softmax", classes=("NC", "AD"), device="cpu"), "eager")
