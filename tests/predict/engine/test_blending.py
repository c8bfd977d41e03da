"""Engines that blend perturbed volumes in their own graph give what written volumes give."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from glas3d import GLAS, Predictor
from glas3d.core.covariates import Covariates
from glas3d.core.perturb import PerturbedBatch
from glas3d.predict import ModelInfo, use_clock
from glas3d.predict.engine import builders
from glas3d.predict.engine.engines import ENGINES, Engine
from tests.core import oracle
from tests.core.cases import POINTS, SHAPES, TinyNet, atlas, in_float64, refused, volume

SIGMAS = {"sigma_light": 2.0, "sigma_shadow": 1.5, "sigma_spatial": 2.0}
FIELDS = ("light", "drop", "score")


@pytest.fixture
def writes(monkeypatch):
    """How often a batch was written."""
    count, written = [], PerturbedBatch.written

    def counting(batch):
        count.append(len(batch))
        return written(batch)

    monkeypatch.setattr(PerturbedBatch, "written", counting)
    return count


@pytest.fixture
def built(monkeypatch):
    """The types of the networks that engines were built of."""
    types = []
    for name, engine in list(ENGINES.items()):

        def build(net, inputs, cached, build=engine.build):
            types.append(type(net).__name__)
            return build(net, inputs, cached)

        monkeypatch.setitem(ENGINES, name, dataclasses.replace(engine, build=build))
    return types


def explained(predict, engine, ndim=3, channels=1, search=None, batch_size=3, **settings):
    shape = SHAPES[ndim]
    background = np.random.default_rng(5).uniform(0, 1, (channels, *shape)).astype(np.float32)
    covariates = settings.pop("covariates", None)
    glas = GLAS(predict, engine=engine, batch_size=batch_size, background=background, **(SIGMAS | settings))
    points = POINTS[ndim] if search is None else search
    return glas.explain(volume(shape, channels), 1, points, covariates=covariates)


def assert_same(found, expected, tolerance=1e-5):
    assert found.probability == pytest.approx(expected.probability, abs=1e-5)
    for name in FIELDS:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=tolerance, err_msg=name)


CASES = {
    "2D": {"ndim": 2},
    "3D": {},
    "mean of both ends": {"fusion": "mean"},
    "light alone": {"fusion": "light"},
    "shadow alone": {"ndim": 2, "fusion": "shadow"},
    "exponential": {"ndim": 2, "kernel": "exponential"},
    "segments": {"kernel": "segment", "search": "atlas", "fusion": "mean"},
    "ellipsoids": {"kernel": "ellipsoid", "search": "atlas"},
    "channels": {"ndim": 2, "channels": 3},
    "one channel": {"channels": 2, "channel": 1},
    "one channel of segments": {"ndim": 2, "channels": 2, "channel": 0, "kernel": "segment", "search": "atlas"},
    "log-odds": {"ndim": 2, "link": "logit", "fusion": "mean"},
    "single inputs": {"ndim": 2, "batch_size": 1},
    "one batch": {"ndim": 2, "batch_size": 16},
}


@pytest.mark.parametrize(
    ("case", "engine"),
    [
        *((case, "openvino") for case in CASES),
        *((case, "onnx") for case in ("3D", "one channel of segments", "mean of both ends")),
        pytest.param("3D", "compile", marks=pytest.mark.slow),
        pytest.param("one channel of segments", "compile", marks=pytest.mark.slow),
    ],
)
def test_an_engine_that_blends_agrees_with_the_network(case, engine, writes, built):
    settings = dict(CASES[case])
    shape = SHAPES[settings.get("ndim", 3)]
    if settings.get("search") == "atlas":
        settings["search"] = atlas(shape)
    predict = Predictor(TinyNet(shape, settings.get("channels", 1)), "softmax", device="cpu")
    expected = explained(predict, "eager", **settings)
    writes.clear()
    built.clear()
    found = explained(predict, engine, **settings)
    assert found.settings["engine"] == engine
    assert built == ["BlendingNetwork"]
    span = np.ptp(np.concatenate([expected.light, expected.drop])) if settings.get("link") == "logit" else 1.0
    assert_same(found, expected, 1e-5 * max(1.0, span))
    first = len(writes)
    again = explained(predict, engine, **settings)
    assert len(writes) - first == first - 2, "only the network itself is given the first batch, and a darker one"
    assert built == ["BlendingNetwork"]
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))


def test_a_graph_with_blending_agrees_with_the_oracle():
    net, shape = TinyNet(SHAPES[3]), SHAPES[3]
    glas = GLAS(Predictor(net, "softmax", device="cpu"), engine="openvino", **SIGMAS)
    found = glas.explain(volume(shape), 1, POINTS[3])
    expected = oracle.explain(in_float64(net), volume(shape), 1, points=POINTS[3], **SIGMAS)
    np.testing.assert_allclose(found.light, expected["light"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.drop, expected["drop"], rtol=0, atol=1e-5)


class Two(nn.Module):
    """A network of a volume and covariates, which writes to the volume."""

    def __init__(self):
        super().__init__()
        self.net = TinyNet(SHAPES[3])

    def forward(self, x, table):
        return self.net(x.sub_(0.3)) + 0.1 * table.sum(dim=1, keepdim=True) * torch.tensor([1.0, -1.0, 0.0])


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_covariates_and_a_network_that_writes_to_its_input(engine, built):
    predict = Predictor(Two(), "softmax", covariates=("age", "sex"), device="cpu")
    covariates = Covariates.of({"age": 7.0, "sex": 1.0}, {"age": 5.0, "sex": 0.0})
    found, expected = (explained(predict, name, covariates=covariates) for name in (engine, "eager"))
    assert built == ["BlendingNetwork"]
    assert_same(found, expected)
    np.testing.assert_allclose(found.covariates.score, expected.covariates.score, rtol=0, atol=1e-5)
    assert abs(expected.covariates.drop).max() > 1e-3


@pytest.mark.parametrize(
    ("transform", "types"),
    [(lambda batch: batch * 2 - 1, []), (lambda batch: batch.clamp(max=1.7), ["TinyNet"])],
)
def test_a_transform_is_never_left_out(transform, types, built):
    """What was built with blending is used only where the transform comes before both."""
    net = TinyNet(SHAPES[3])
    plain = explained(Predictor(net, "softmax", device="cpu"), "openvino")
    built.clear()
    predict = Predictor(net, "softmax", transform, device="cpu")
    found = explained(predict, "openvino")
    assert built == types
    assert_same(found, explained(predict, "eager"))
    assert abs(found.light - plain.light).max() > 1e-4


def engine_of(run_of, **more):
    return Engine(
        name="fast",
        build=lambda net, inputs, cached: run_of(builders.own_copy(net)),
        devices=("cpu",),
        blends=True,
        **more,
    )


def test_an_engine_whose_blending_differs_is_refused(monkeypatch):
    def mistaken(net):
        return lambda volume, difference, offset, first, *others: net(volume, difference, offset, first.abs(), *others)

    monkeypatch.setitem(ENGINES, "fast", engine_of(mistaken))
    with refused("the engine fast differs by .* from the network, more than .*: evaluate the model TinyNet without it"):
        explained(Predictor(TinyNet(SHAPES[3]), "softmax", device="cpu"), "fast")


def test_what_cannot_blend_is_given_written_volumes(monkeypatch):
    def plain(net):
        if isinstance(net, builders.BlendingNetwork):
            raise NotImplementedError("an operation that it lacks")
        return net

    monkeypatch.setitem(ENGINES, "fast", engine_of(plain))
    predict = Predictor(TinyNet(SHAPES[3]), "softmax", device="cpu")
    found = explained(predict, "fast")
    assert found.settings["engine"] == "fast"
    assert_same(found, explained(predict, "eager"), 0)


@pytest.mark.parametrize("kernel", ["gaussian", "segment"])
def test_auto_blends_in_the_first_batch_too(kernel, monkeypatch):
    """The network itself and the graph take turns on the first batch."""
    now, net = [0.0], TinyNet(SHAPES[3])

    def quick(built):
        def run(*inputs):
            now[0] += 0.1
            return built(*inputs)

        return run

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def __deepcopy__(self, memo):
            return copy.deepcopy(self.net)

        def forward(self, x):
            now[0] += 10.0
            return self.net(x)

    for name in [name for name in ENGINES if name != "eager"]:
        monkeypatch.delitem(ENGINES, name)
    monkeypatch.setitem(ENGINES, "fast", engine_of(quick, seconds_to_build=0.1))
    search = np.arange(7 * 8 * 9).reshape(7, 8, 9) // 40 + 1
    with use_clock(lambda: now[0]):
        predict = Predictor(Slow(), "softmax", device="cpu")
        found = explained(predict, "auto", search=search, kernel=kernel, batch_size=2)
    assert found.settings["engine"] == "fast"
    assert_same(found, explained(Predictor(net, "softmax", device="cpu"), "eager", search=search, kernel=kernel))


def test_a_kept_graph_with_blending_is_told_from_one_without(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    net = TinyNet(SHAPES[3])

    def clip(batch):
        return batch.clamp(max=1.7)

    for transform, files in ((None, 1), (clip, 2), (None, 2), (clip, 2)):
        info = ModelInfo(name="made", sha256="some")
        predict = Predictor(copy.deepcopy(net), "softmax", transform, device="cpu", info=info)
        assert_same(explained(predict, "openvino"), explained(predict, "eager"))
        assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == files
