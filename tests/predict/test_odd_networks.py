"""Networks that are unusual: without values, lazy, sparse, scripted or failing. Each is explained right, or refused."""

import numpy as np
import pytest
import torch
from torch import nn

from glas3d import GLAS, GlasError, Grid, Predictor, load_model

SHAPE = (5, 6, 7)
N = 5 * 6 * 7
VOLUME = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0))


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(N, 2)).eval()


class Sparse(nn.Module):
    """A network with a sparse buffer, of zeros but for its diagonal."""

    def __init__(self, layout):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(N, 2)
        weights = torch.diag(torch.linspace(0.5, 1.5, N))
        self.register_buffer("weights", weights.to_sparse() if layout == "coo" else weights.to_sparse_csr())

    def forward(self, x):
        return self.linear(torch.sparse.mm(self.weights, x.flatten(1).T).T)


def explained(predict, **settings):
    return GLAS(predict, sigma_light=1, sigma_shadow=1.5, **settings).explain(VOLUME, 1, Grid((2, 3, 2)))


MADE = {
    "frozen": lambda: torch.jit.freeze(torch.jit.script(plain())),
    "scripted": lambda: torch.jit.script(plain()),
    "traced": lambda: torch.jit.trace(plain(), VOLUME[None]),
    "sparse": lambda: Sparse("coo").eval(),
    "compressed": lambda: Sparse("csr").eval(),
}


@pytest.mark.parametrize("engine", ["auto", "eager"])
@pytest.mark.parametrize("name", MADE)
@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:Sparse CSR tensor support")
def test_frozen_and_sparse_networks_are_explained(name, engine):
    net = MADE[name]()
    e = explained(Predictor(net, "softmax", device="cpu"), engine=engine)

    def probability(x):
        with torch.no_grad():
            return net(torch.as_tensor(x[None], dtype=torch.float32)).double().softmax(1)[0, 1].item()

    volume = VOLUME.double().numpy()
    for point, light, drop in zip(e.points, e.light, e.drop, strict=True):
        squared = ((np.indices(SHAPE) - point.reshape(3, 1, 1, 1)) ** 2).sum(axis=0)
        assert light == pytest.approx(probability(volume * np.exp(-squared / 2)), abs=1e-6)
        assert drop == pytest.approx(probability(volume) - probability(volume * (1 - np.exp(-squared / 4.5))), abs=1e-6)


class PartlyMeta(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(N, 2)
        self.register_buffer("mean", torch.empty(2, device="meta"))

    def forward(self, x):
        return self.linear(x.flatten(1)) - self.mean


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: plain().to("meta"),
            "weight of a Linear is on the meta device, where tensors have no values: load them",
        ),
        (PartlyMeta, "mean of a PartlyMeta is on the meta device"),
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), "weight of a LazyLinear is not initialised: evaluate"),
        (lambda: nn.Sequential(nn.LazyBatchNorm3d(), nn.Flatten()), "weight of a LazyBatchNorm3d is not initialised"),
    ],
)
def test_a_network_without_values_is_refused_before_it_is_evaluated(make, message):
    net = make()
    called = []
    net.register_forward_pre_hook(lambda *_: called.append(1))
    with pytest.raises(GlasError, match=f"a network must have its weights, {message}"):
        Predictor(net, "softmax")
    for model in (lambda batch: net(batch).softmax(1), Predictor(lambda batch: net(batch), "softmax")):
        with pytest.raises(GlasError, match=f"a network must have its weights, {message}"):
            explained(model)
    assert called == []


def test_a_lazy_network_that_was_evaluated_once_is_explained():
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    net(VOLUME[None])
    assert explained(Predictor(net, "softmax", device="cpu")).probability == pytest.approx(
        net(VOLUME[None]).softmax(1)[0, 1].item(), abs=1e-6
    )


class Failing(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, x):
        raise self.error


@pytest.mark.parametrize("error", [KeyError("weights"), NotImplementedError(), AssertionError("2D"), OSError(5, "I/O")])
@pytest.mark.parametrize("engine", ["auto", "onnx"])
def test_an_error_of_a_network_is_named_with_its_line(error, engine):
    with pytest.raises(GlasError) as caught:
        explained(Predictor(Failing(error), "softmax"), engine=engine)
    line = Failing.forward.__code__.co_firstlineno + 1
    assert str(caught.value).startswith(f"the model does not take a batch of (1, 1, 5, 6, 7): {type(error).__name__}")
    assert str(caught.value).endswith(f" (test_odd_networks.py, line {line}, in forward)")
    assert caught.value.__cause__ is error


def raising(*_):
    raise KeyError("mine")


class Fit:
    def __init__(self, fit):
        self.fit = fit


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"transform": raising},
            r"the model does not take a batch of .*: KeyError: 'mine' \(test_odd_networks.py, line",
        ),
        (
            {"transform": Fit(raising)},
            r"the transform cannot be fitted to a scan of \(1, 5, 6, 7\): KeyError: 'mine' \(",
        ),
        ({"transform": Fit(lambda volume: None)}, "the fit of a transform must return a callable, got NoneType"),
        ({"readout": raising}, r"the readout does not take the output for a batch of \(1, .*: KeyError: 'mine' \(test"),
    ],
)
def test_an_error_of_a_transform_or_readout_is_named(parts, message):
    with pytest.raises(GlasError, match=message):
        explained(Predictor(plain(), "softmax", **parts))


@pytest.mark.parametrize(
    "output",
    [lambda n: torch.ones(n, 2).to_sparse(), lambda n: torch.ones(n, 2, device="meta")],
    ids=["sparse", "meta"],
)
@pytest.mark.parametrize("activation", ["softmax", "none"])
def test_an_output_without_plain_numbers_is_refused(output, activation):
    with pytest.raises(
        GlasError, match=r"a model must return one .*\(n, classes\).*, got a (sparse|tensor on the meta)"
    ):
        explained(Predictor(lambda batch: output(len(batch)), activation))


class Branching(nn.Module):
    """Takes another way by what is in the batch, which no tracer can follow."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(N, 2)

    def forward(self, x):
        return self.linear(x.flatten(1) / (255 if x.max() > 100 else 1))


@pytest.mark.parametrize(("make", "engine"), [(lambda: Sparse("coo"), "onnx"), (Branching, "openvino")])
def test_what_cannot_be_exported_writes_nothing(capfd, make, engine):
    with pytest.raises(GlasError, match=f"the engine {engine} cannot be built: "):
        explained(Predictor(make(), "softmax", device="cpu"), engine=engine)
    assert "".join(capfd.readouterr()) == ""


def failing_factory():
    raise KeyError("checkpoint")


def meta_factory():
    return Predictor(plain().to("meta"), "softmax")


def failing_model():
    return Predictor(Failing(ZeroDivisionError()), "softmax")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "failing_factory",
            r"the model factory .*:failing_factory failed: KeyError: 'checkpoint' \(test_odd_networks.py",
        ),
        ("meta_factory", "a network must have its weights, weight of a Linear is on the meta device"),
    ],
)
def test_an_error_of_a_factory_is_named(name, message):
    with pytest.raises(GlasError, match=message):
        load_model(f"tests.predict.test_odd_networks:{name}")


def test_the_module_of_a_factory_that_fails_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_models.py").write_text("import math\n\nvalues = {}\nvalues['weights']\n")
    monkeypatch.syspath_prepend(tmp_path)
    message = r"broken_models:net cannot be imported: KeyError: 'weights' \(broken_models.py, line 4\)"
    with pytest.raises(GlasError, match=message) as caught:
        load_model("broken_models:net")
    assert isinstance(caught.value.__cause__, KeyError)


# Half and double precision


def convolutions():
    torch.manual_seed(0)
    layers = (nn.Conv3d(1, 3, 3, padding=1), nn.BatchNorm3d(3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * N, 2))
    return nn.Sequential(*layers).eval()


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)], ids=str
)
@pytest.mark.parametrize(
    "settings", [{}, {"cut": 3.0}, {"link": "logit", "fusion": "mean"}], ids=["plain", "cut", "logit"]
)
def test_networks_of_another_precision_are_given_inputs_of_theirs(dtype, tolerance, settings):
    net = convolutions().to(dtype)
    predict = Predictor(net, "softmax", device="cpu")
    e = explained(predict, engine="eager", **settings)
    expected = explained(Predictor(convolutions(), "softmax", device="cpu"), engine="eager", **settings)
    np.testing.assert_allclose(e.light, expected.light, atol=tolerance * max(1, np.abs(expected.light).max()))
    np.testing.assert_allclose(e.drop, expected.drop, atol=tolerance * max(1, np.abs(expected.light).max()))
    assert np.ptp(expected.light) > 5 * tolerance or dtype == torch.bfloat16
    assert predict(VOLUME[None]).dtype == torch.float32
    assert {p.dtype for p in net.parameters()} == {dtype}
    assert predict.info.name == "Sequential"


def test_covariates_are_given_in_the_precision_of_the_network():
    class WithAge(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.linear = nn.Linear(N + 1, 2)

        def forward(self, x, table):
            return self.linear(torch.cat([x.flatten(1), table], dim=1))

    values = torch.tensor([[0.3]])
    single = Predictor(WithAge().eval(), "softmax", covariates=["age"], device="cpu")(VOLUME[None], values)
    double = Predictor(WithAge().eval().double(), "softmax", covariates=["age"], device="cpu")(VOLUME[None], values)
    np.testing.assert_allclose(double.numpy(), single.numpy(), atol=1e-6)
