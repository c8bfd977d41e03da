"""Every engine against the float64 oracle, and which of them "auto" takes."""

import copy
import dataclasses
import logging
import math
import os
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from glas3d import GLAS, GlasError, Grid, Predictor
from glas3d.core.threads import torch_threads
from glas3d.predict import ModelInfo, use_clock
from glas3d.predict.engine.builders import own_copy
from glas3d.predict.engine.engines import ENGINES, Engine, build, installed_version
from glas3d.predict.engine.fingerprint import fingerprint
from glas3d.user_cache import UserCache
from tests.core.cases import TinyNet, is_trial, refused, volume
from tests.predict.engine import engines

slow = pytest.mark.slow


@pytest.fixture(autouse=True)
def real_clock():
    """Real time decides, in place of the clock of other tests, which stands still."""
    with use_clock(time.perf_counter):
        yield


QUICK = ("eager", "channels_last", "onnx", "openvino")


@pytest.mark.parametrize(
    ("net", "engine"),
    [
        *((engines.paper, name) for name in QUICK),
        *((engines.flat, name) for name in QUICK),
        pytest.param(engines.flat, "compile", marks=slow),
        *(pytest.param(net, name, marks=slow) for net in (engines.dense, engines.residual) for name in QUICK),
    ],
)
def test_an_engine_agrees_with_the_oracle(net, engine):
    net, shape = net()
    handlers, weights = list(logging.getLogger().handlers), {k: v.clone() for k, v in net.state_dict().items()}
    result = engines.explained(net, shape, engine)
    intact, light, drop = engines.truth(net, shape)
    assert np.ptp(np.concatenate([[intact], light, intact - drop])) > 1e-3, "an output that never changes shows nothing"
    np.testing.assert_allclose(result.probability, intact, rtol=0, atol=1e-4)
    np.testing.assert_allclose(result.light, light, rtol=0, atol=1e-4)
    np.testing.assert_allclose(result.drop, drop, rtol=0, atol=1e-4)
    assert (result.settings["engine"], result.settings["engine_version"]) == (engine, ENGINES[engine].version)
    assert logging.getLogger().handlers == handlers, "a library's handler stays behind"
    assert all(torch.equal(net.state_dict()[k], v) for k, v in weights.items())


@pytest.mark.parametrize("engine", QUICK[1:])
@pytest.mark.parametrize("net", [engines.paper, engines.flat])
def test_an_engine_keeps_evidence_in_log_odds(net, engine):
    """The network itself agrees with the oracle (tests/core/test_evidence.py)."""
    net, shape = net()
    own, found = (engines.explained(net, shape, name, fusion="mean", link="logit") for name in ("eager", engine))
    assert found.settings["engine"] == engine
    for name in ("light", "drop", "evidence", "density"):
        expected, actual = getattr(own, name), getattr(found, name)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * np.ptp(expected))


def test_an_engine_repeats_its_bits_and_takes_batches_of_any_size():
    net, shape = engines.paper()
    one, again, other = (engines.explained(net, shape, "openvino", batch_size=n) for n in (3, 3, 2))
    np.testing.assert_array_equal(one.score, again.score)
    np.testing.assert_allclose(one.score, other.score, rtol=0, atol=1e-5)


def test_reduced_precision_is_an_offer(caplog, monkeypatch):
    net, shape = engines.paper()
    exact = engines.explained(net, shape, "eager")
    result = engines.explained(net, shape, "autocast")
    np.testing.assert_allclose(result.light, exact.light, rtol=0, atol=ENGINES["autocast"].tolerance)
    assert result.settings["engine"] == "autocast"
    assert not np.array_equal(result.light, exact.light)
    strict = dataclasses.replace(ENGINES["autocast"], tolerance=1e-9)
    monkeypatch.setitem(ENGINES, "autocast", strict)
    result = engines.explained(engines.paper()[0], shape, "autocast")
    assert result.settings["engine"] == "eager"
    assert "autocast differs by" in result.settings["engine_notes"][0]
    np.testing.assert_array_equal(result.score, exact.score)
    assert "autocast is left out" in caplog.text


def test_an_engine_follows_weights_that_change_and_a_network_in_training():
    net = nn.Sequential(engines.paper()[0], nn.Dropout(0.9)).train()
    shape = (16, 18, 22)
    predict = Predictor(net, "softmax", device="cpu")
    first = engines.explained(predict, shape, "channels_last")
    np.testing.assert_allclose(first.light, engines.explained(predict, shape, "eager").light, rtol=0, atol=1e-5)
    with torch.no_grad():
        next(net.parameters()).mul_(-1)
    second = engines.explained(predict, shape, "channels_last")
    assert abs(second.light - first.light).max() > 1e-4
    np.testing.assert_allclose(second.light, engines.explained(predict, shape, "eager").light, rtol=0, atol=1e-5)
    assert net.training


def test_an_engine_is_given_covariates_beside_the_volume():
    class Two(nn.Module):
        def forward(self, x, table):
            return torch.stack([x.mean(dim=(1, 2, 3)), 0.1 * table.sum(dim=1)], dim=1)

    predict = Predictor(Two(), "softmax", covariates=("age", "sex"), device="cpu")
    batch, table = torch.rand(2, 1, 7, 9), torch.tensor([[3.0, 1], [4, 0]])
    for name in ("channels_last", "onnx", "openvino"):
        answer = predict.with_engine(name, 1)(batch, table)
        torch.testing.assert_close(answer, predict(batch, table))


# What is refused.


def test_what_cannot_be_asked_by_an_engine_is_refused():
    image = volume((7, 9))

    def plain(batch):
        return torch.full((len(batch), 2), 0.5)

    predict = Predictor(TinyNet((7, 9)), "softmax", device="cpu")
    with refused("engine must be one of auto, eager, .*, got 'fast'"):
        GLAS(predict, engine="fast").explain(image, 1, Grid(2))
    with refused("engine must be the name of an engine, got 3"):
        GLAS(predict, engine=3)
    with refused("engine='onnx' needs a Predictor of a torch module, got function"):
        GLAS(plain, engine="onnx").explain(image, 1, Grid(2))
    with refused("the engine onnx runs torch modules, the model function is none: leave engine out"):
        GLAS(Predictor(plain, "none", device="cpu"), engine="onnx").explain(image, 1, Grid(2))
    with refused("the engine cudagraphs runs on cuda, the model is on cpu"):
        GLAS(predict, engine="cudagraphs").explain(image, 1, Grid(2))


def test_an_engine_is_built_under_the_settings_of_evaluations():
    """A CUDA graph that is recorded while TF32 is allowed would repeat its error in every evaluation."""
    allowed = []

    def build_recording(net, inputs, cached):
        allowed.append((torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic))
        return net

    engine = Engine(name="recording", build=build_recording, devices=("cpu",))
    build(engine, TinyNet((7, 9)), (torch.zeros(2, 1, 7, 9),))
    assert allowed == [(False, True)]


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_a_library_that_is_missing_is_named_and_passed_over(name, monkeypatch):
    library = ENGINES[name].library
    monkeypatch.setattr(
        "glas3d.predict.engine.engines.installed_version", lambda of: None if of == library else installed_version(of)
    )
    predict = Predictor(TinyNet((7, 9)), "softmax", device="cpu")
    message = f'the engine {name} needs {library}, which is missing: pip install "glas3d[{ENGINES[name].extra}]"'
    with pytest.raises(GlasError) as caught:
        GLAS(predict, engine=name).explain(volume((7, 9)), 1, Grid(2))
    assert str(caught.value) == message
    assert GLAS(predict).explain(volume((7, 9)), 1, Grid(2)).settings["engine"] == "eager"


def test_a_network_of_several_answers_is_none_for_an_engine():
    class Pair(nn.Module):
        def forward(self, x):
            return [x.mean(dim=(1, 2, 3)), x]

    predict = Predictor(Pair(), "none", readout=lambda answer: answer[0], device="cpu")
    with refused("the engine onnx needs one tensor as output, got a list: evaluate the model Pair without it"):
        GLAS(predict, engine="onnx").explain(volume((7, 9)), 0, Grid(2))


# "auto", by a clock of its own: a batch takes the network a second.


class Slow(nn.Module):
    """A network that takes a second; `seconds` may give another time for a number of torch's threads."""

    def __init__(self, clock, seconds=None):
        super().__init__()
        self.net = TinyNet((7, 9))
        self.clock, self.seconds, self.batch_sizes = clock, seconds or {}, []

    def __deepcopy__(self, memo):
        return copy.deepcopy(self.net)

    def forward(self, x):
        if is_trial():
            return self.net(x)
        self.clock[0] += self.seconds.get(torch.get_num_threads(), 1.0)
        self.batch_sizes.append(len(x))
        return self.net(x)


@pytest.fixture
def clock():
    now = [0.0]
    with torch_threads(1), use_clock(lambda: now[0]):
        yield now


def only(monkeypatch, clock, *, takes=0.1, wrong=0.0, base=2.0, load=math.inf, build=None):
    """Leave one engine besides the network itself; return the shapes for which it was built."""
    built = []

    def make(net, inputs, stored):
        built.append([tuple(x.shape) for x in inputs])
        clock[0] += base
        built_net = own_copy(net)

        def run(x):
            clock[0] += takes
            return built_net(x) + wrong * torch.arange(3)

        return run

    for name in [name for name in ENGINES if name != "eager"]:
        monkeypatch.delitem(ENGINES, name)
    fast = Engine(name="fast", build=build or make, devices=("cpu",), seconds_to_build=base, seconds_to_load=load)
    monkeypatch.setitem(ENGINES, "fast", fast)
    return built


def explained(net, engine="auto", points=8):
    glas = GLAS(Predictor(net, "softmax", device="cpu"), engine=engine, batch_size=1, sigma_light=2, sigma_shadow=2)
    return glas.explain(volume((7, 9)), 1, np.linspace([0, 0], [6, 8], points))


def test_auto_builds_what_pays(monkeypatch, clock):
    built, net = only(monkeypatch, clock), Slow(clock)
    result = explained(net, points=20)
    assert (result.settings["engine"], len(built), len(net.batch_sizes)) == ("fast", 1, 3)
    assert built == [[(1, 1, 7, 9)]]
    # the network itself twice, and once on darker inputs; the engine on both, timed, used, and checked
    assert clock[0] == pytest.approx(3 * 1.0 + 2.0 + (2 + 2 + 41 + 3) * 0.1)
    np.testing.assert_allclose(result.score, explained(net, "eager", points=20).score, rtol=0, atol=1e-6)
    evaluations = len(net.batch_sizes)
    assert explained(net, points=2).settings["engine"] == "fast", "what is built is used"
    assert (len(built), len(net.batch_sizes)) == (1, evaluations)


def test_auto_builds_nothing_for_a_few_forwards_but_for_many_times_a_few(monkeypatch, clock):
    built, net = only(monkeypatch, clock), Slow(clock)
    used = [explained(net, points=3).settings["engine"] for _ in range(5)]
    # 7 evaluations each; 4 * (2 + 3 * 1) = 20 seconds must be expected, and as many are as there have been
    assert used == ["eager", "eager", "fast", "fast", "fast"]
    assert len(built) == 1


def test_auto_counts_what_the_first_build_in_a_process_imports(monkeypatch, clock):
    built, net = only(monkeypatch, clock), Slow(clock)
    monkeypatch.setitem(ENGINES, "fast", dataclasses.replace(ENGINES["fast"], seconds_to_import=9.0, imports="absent"))
    assert explained(net, points=20).settings["engine"] == "eager", "41 evaluations save 10.25 s; 3 + 2 + 9 are spent"
    monkeypatch.setitem(sys.modules, "absent", dataclasses)
    assert explained(Slow(clock), points=20).settings["engine"] == "fast"
    assert len(built) == 1


def test_auto_takes_what_was_built_before_where_building_would_not_pay(monkeypatch, clock, tmp_path):
    class Timed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = TinyNet((7, 9))

        def forward(self, x):
            clock[0] += 0 if is_trial() else 1.0
            return self.net(x)

    def build(net, inputs, entry):
        entry.write(b"built")
        return own_copy(net.net)

    def used(engine, name):
        torch.manual_seed(0)
        predict = Predictor(Timed(), "softmax", device="cpu", info=ModelInfo(name="m", sha256=name))
        glas = GLAS(predict, engine=engine, batch_size=1, sigma_light=2, sigma_shadow=2)
        return glas.explain(volume((7, 9)), 1, np.linspace([0, 0], [6, 8], 20)).settings["engine"]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    only(monkeypatch, clock, build=build, base=1e4, load=5.0)
    assert used("fast", "known") == "fast"
    assert [used("auto", name) for name in ("known", "other")] == ["fast", "eager"]
    monkeypatch.setitem(ENGINES, "fast", dataclasses.replace(ENGINES["fast"], seconds_to_load=1e4))
    assert used("auto", "known") == "eager", "reading it takes too long"


def test_auto_tries_nothing_that_cannot_overtake_the_best(monkeypatch, clock):
    built, net = only(monkeypatch, clock), Slow(clock)
    monkeypatch.setitem(ENGINES, "late", dataclasses.replace(ENGINES["fast"], name="late", speedup=9.0))
    monkeypatch.setitem(ENGINES, "last", dataclasses.replace(ENGINES["fast"], name="last", speedup=12.0))
    assert explained(net, points=300).settings["engine"] == "fast"
    assert len(built) == 2, "the first and the last: that of 9 times is not faster than the 10 times that were measured"


@pytest.mark.parametrize(
    ("takes", "threads", "tried"),
    [
        ({8: 1.0, 4: 0.5, 2: 0.4, 1: 0.7}, 2, [8, 8, 4, 4, 2, 2, 1, 2]),
        ({8: 1.0, 4: 0.96}, 8, [8, 8, 4, 8]),
        ({8: 1.0, 4: 1.7}, 8, [8, 8, 4, 8]),
    ],
)
def test_auto_has_as_many_threads_as_are_fast(takes, threads, tried, monkeypatch, clock):
    had = []

    def make(net, inputs, stored):
        had.append(torch.get_num_threads())
        return own_copy(net)

    only(monkeypatch, clock, build=make)
    net = Slow(clock, takes)
    counts = []
    net.register_forward_pre_hook(lambda *given: counts.extend([torch.get_num_threads()] * (not is_trial())))
    with torch_threads(8):
        result = explained(net, points=20)
        assert counts == tried
        assert had == [threads]
        assert (result.settings["engine"], result.settings["engine_threads"]) == ("fast", threads)
        assert explained(net, points=20).settings["engine_threads"] == threads, "without another try"
        assert counts == tried
        named = explained(net, "fast", points=20).settings
        assert named["engine_threads"] == 8, "by name nothing depends on a clock"
        assert had == ([8] if threads == 8 else [threads, 8])
        assert torch.get_num_threads() == 8


def test_fewer_threads_are_taken_by_the_network_itself_too(monkeypatch, clock):
    only(monkeypatch, clock, takes=0.9)
    net = Slow(clock, {4: 1.0, 2: 0.5, 1: 0.9})
    counts = []
    net.register_forward_pre_hook(lambda *given: counts.extend([torch.get_num_threads()] * (not is_trial())))
    with torch_threads(4):
        result = explained(net, points=20).settings
        assert (result["engine"], result["engine_threads"]) == ("eager", 2)
        assert counts[6:] == [2] * 41, "the first batch among them"


def test_auto_leaves_what_is_not_faster(monkeypatch, clock):
    built, net = only(monkeypatch, clock, takes=0.96), Slow(clock)
    assert explained(net, points=20).settings["engine"] == "eager"
    assert explained(net, points=20).settings["engine"] == "eager"
    assert len(built) == 1, "and does not try again"


@pytest.mark.parametrize("how", ["differs", "cannot be built"])
def test_an_engine_that_fails_is_left_by_auto_and_refused_when_asked_for(how, monkeypatch, clock, caplog):
    def broken(net, inputs, stored):
        raise NotImplementedError("an operation\nthat it lacks")

    only(monkeypatch, clock, wrong=1e-3, build=broken if how == "cannot be built" else None)
    net = Slow(clock)
    result = explained(net, points=20)
    assert result.settings["engine"] == "eager"
    (note,) = result.settings["engine_notes"]
    assert note.startswith(f"fast {how}")
    assert "\n" not in note
    np.testing.assert_array_equal(result.score, explained(net, "eager", points=20).score)
    assert caplog.text.count("is left out") == 1
    with refused(f"the engine fast {how}.*: evaluate the model Slow without it"):
        explained(net, "fast")


# What is built is kept.


def test_what_was_built_is_kept_for_other_runs(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    net, shape = engines.paper()
    right = engines.explained(net, shape, "eager")

    def again(sha256="some", weights=net):
        unknown = copy.deepcopy(weights)  # nothing was built of this module in this process
        predict = Predictor(unknown, "softmax", device="cpu", info=ModelInfo(name="made", sha256=sha256))
        return engines.explained(predict, shape, "openvino")

    again(sha256=None)
    assert not list(tmp_path.rglob("*"))
    first = again()
    (kept,) = (path for path in tmp_path.rglob("*") if path.is_file())
    with monkeypatch.context() as patched:
        patched.setattr(torch.export, "export", lambda *given: pytest.fail("it is built again"))
        np.testing.assert_array_equal(again().score, first.score)
    kept.write_bytes(b"half")
    np.testing.assert_array_equal(again().score, first.score)
    assert kept.stat().st_size > 1000, "and made anew"
    np.testing.assert_allclose(first.score, right.score, rtol=0, atol=1e-5)
    other = copy.deepcopy(net)
    with torch.no_grad():
        next(other.parameters()).mul_(-1)
    assert abs(again(weights=other).light - first.light).max() > 1e-4
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2


def test_the_files_used_longest_ago_are_deleted(tmp_path):
    cache = UserCache(tmp_path / "engines", most_files=2)
    for number, name in enumerate("abc"):
        cache.entry(name).write(name.encode())
        os.utime(cache.entry(name).path, (number, number))
    assert [cache.entry(name).read() for name in "abc"] == [None, b"b", b"c"]
    no_folder = UserCache(cache.entry("c").path)
    no_folder.entry("a").write(b"a")
    assert no_folder.entry("a").read() is None


def test_an_engine_has_the_threads_of_the_explanation():
    """Also when a batch is halved later, while torch itself has but one."""
    predict = Predictor(engines.paper()[0], "softmax", device="cpu")
    with torch_threads(2):
        with_engine = predict.with_engine("openvino", 1)
        assert with_engine.torch_threads == 1
        assert predict.with_engine("auto", 1).torch_threads == 2
        torch.set_num_threads(1)
        with_engine(torch.rand(2, 1, *engines.paper()[1]))
        assert torch.get_num_threads() == 1
        assert with_engine.engine_threads == 2


def test_a_net_written_to_is_another():
    def one_value(net):
        with torch.no_grad():
            net[0].weight[0, 0, 0, 0] += 1

    writes = {
        "one value": one_value,
        "all by the back door": lambda net: net[0].weight.data.mul_(-1),
        "another's": lambda net: net.load_state_dict(
            nn.Sequential(nn.Conv2d(3, 200, 7), nn.BatchNorm2d(200)).state_dict()
        ),
        "a buffer": lambda net: net.train()(torch.rand(2, 3, 9, 9)),
    }
    net = nn.Sequential(nn.Conv2d(3, 200, 7), nn.BatchNorm2d(200)).eval()
    for what, write in writes.items():
        before = fingerprint(net)
        net.eval()(torch.rand(2, 3, 9, 9))
        assert fingerprint(net) == before
        write(net)
        assert fingerprint(net) != before, what
    with torch.inference_mode():
        made_there = nn.Linear(2, 3)
    assert fingerprint(made_there) == fingerprint(made_there)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", ["cudagraphs", "compile", "channels_last"])
def test_an_engine_on_cuda_agrees_with_the_oracle(name):
    net, shape = engines.paper()
    result = engines.explained(Predictor(net, "softmax", device="cuda"), shape, name)
    intact, light, drop = engines.truth(net, shape)
    np.testing.assert_allclose(result.probability, intact, rtol=0, atol=1e-4)
    np.testing.assert_allclose(result.light, light, rtol=0, atol=1e-4)
    np.testing.assert_allclose(result.drop, drop, rtol=0, atol=1e-4)


@slow
def test_a_compiled_network_is_traced_once(tmp_path, monkeypatch):
    """The first call of a predictor is watched for modules in training mode, which must not trace it anew."""
    from torch._dynamo.utils import counters

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    net, shape = engines.flat()
    predict = Predictor(net, "softmax", device="cpu").with_engine("compile", 8)
    batch = torch.rand(2, 1, *shape)
    counters.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outputs = [predict(batch) for _ in range(3)]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[1], outputs[2])
    assert counters["stats"]["unique_graphs"] == 1
    assert not [str(warning.message) for warning in caught if "hooks" in str(warning.message)]
