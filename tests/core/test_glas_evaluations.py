"""Which inputs a model gets, how often, and that it stays as it was; what an explanation holds."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from glas3d import GLAS, Grid, Predictor
from tests.core.cases import POINTS, Linear, Recorder, TinyNet, atlas, constant, is_trial, refused, volume

SMALL = {"sigma_light": 2, "sigma_shadow": 2}


@given(st.integers(1, 4), st.integers(1, 12), st.sampled_from([1, [1], [2, 0, 1], [0, 0, 0, 0]]))
def test_all_targets_share_the_2m_plus_1_evaluations(m, batch_size, target):
    recorder, ticks = Recorder(Linear(np.ones((3, 1, 7, 9)))), []
    glas = GLAS(recorder, batch_size=batch_size, progress=lambda *n: ticks.append(n), **SMALL)
    glas.explain(volume((7, 9)), target, POINTS[2][:m])
    inputs = 2 * m + 1
    rows = min(batch_size, inputs)
    assert len(recorder.batches) == math.ceil(inputs / rows)
    assert set(recorder.shapes) == {(rows, 1, 7, 9)}, "the last batch is padded"
    assert len(set(recorder.addresses)) == 1, "the buffer is used again"
    assert ticks == [(min(done, inputs), inputs) for done in range(rows, inputs + rows, rows)]


def test_the_predictor_sees_the_same_buffer_each_time():
    recorder = Recorder(TinyNet((7, 9)))
    GLAS(Predictor(recorder, "softmax", device="cpu"), batch_size=2, **SMALL).explain(volume((7, 9)), 1, Grid(3))
    assert len(recorder.batches) == 10
    assert len(set(recorder.addresses)) == len(set(recorder.shapes)) == 1


def test_padding_rows_do_not_count():
    """The output of this model numbers the perturbed rows: only those of inputs may be used."""
    order = iter(range(100))

    def numbered(batch):
        if is_trial():
            return torch.zeros(len(batch), 1)
        intact = (batch == torch.from_numpy(volume((7, 9)))).flatten(1).all(dim=1)
        return torch.tensor([[0.0 if whole else float(next(order)) + 1] for whole in intact])

    e = GLAS(numbered, batch_size=4, **SMALL).explain(volume((7, 9)), 0, POINTS[2])
    # rows: intact l0 l1 s0 | l2 s1 ... : a batch holds its lights, then its shadows
    assert e.probability == 0
    assert sorted([e.probability, *e.light, *(e.probability - e.drop)]) == list(range(9))


def test_a_sequence_of_targets_is_a_tuple_in_its_order():
    glas = GLAS(Predictor(TinyNet((7, 9)), "softmax", classes=("NC", "MCI", "AD"), device="cpu"), batch_size=4, **SMALL)
    image = volume((7, 9))
    several = glas.explain(image, ["AD", 0, "MCI"], Grid(2))
    assert isinstance(several, tuple)
    assert [e.target for e in several] == [2, 0, 1]
    for e, target in zip(several, (2, "NC", np.int64(1)), strict=True):
        alone = glas.explain(image, target, Grid(2))
        assert alone.target == e.target
        assert alone.probability == e.probability
        for name in ("light", "shadow", "drop", "score", "saliency"):
            assert np.array_equal(getattr(alone, name), getattr(e, name))
    assert sum(e.probability for e in several) == pytest.approx(1.0, abs=1e-6)
    assert isinstance(glas.explain(image, [1], Grid(2)), tuple)
    assert len(glas.explain(image, np.array([1, 2]), Grid(2))) == 2


@pytest.mark.parametrize(
    ("target", "match", "evaluations"),
    [
        ("MCI", r"one of NC \(0\), AD \(1\), got 'MCI'", 0),
        (["NC", "nobody"], "got 'nobody'", 0),
        (True, "class index or name, got True", 0),
        ([0, True], "class index or name, got True", 0),
        ([], "empty sequence", 0),
        (2, "class index from 0 to 1, got 2", 0),
        (-1, "class index from 0 to 1, got -1", 0),
        ([0, 5], "class index from 0 to 1, got 5", 0),
        (1.0, "class index or name, got 1.0", 0),
        (None, "class index or name, got None", 0),
    ],
)
def test_a_target_the_model_does_not_have_is_refused_early(target, match, evaluations):
    recorder = Recorder(constant(0.4, 0.6))
    recorder.classes = ("NC", "AD")
    with refused(match):
        GLAS(recorder, batch_size=2, **SMALL).explain(volume((7, 9)), target, Grid(3))
    assert len(recorder.batches) == evaluations


def test_a_name_needs_a_model_with_names():
    with refused("'AD' is a name, but this model names no classes"):
        GLAS(constant(0.4, 0.6), **SMALL).explain(volume((7, 9)), "AD", Grid(2))


class Mixed(nn.Module):
    """Parts that behave differently in training, some of them frozen, some in training mode."""

    def __init__(self):
        super().__init__()
        self.tiny = TinyNet((7, 9), classes=4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(4, 2)
        self.train()
        self.norm.eval()
        self.tiny.body.eval()
        for parameter in self.tiny.parameters():
            parameter.requires_grad_(False)
        self.out(torch.ones(1, 4)).sum().backward()  # gradients that must stay

    def forward(self, x):
        return self.out(self.drop(self.norm(self.tiny(x))))


def state(net):
    return {
        "training": [module.training for module in net.modules()],
        "requires_grad": [p.requires_grad for p in net.parameters()],
        "grad": [None if p.grad is None else p.grad.numpy().tobytes() for p in net.parameters()],
        "bits": {name: value.numpy().tobytes() for name, value in net.state_dict().items()},
        "addresses": [p.data_ptr() for p in net.parameters()],
        "hooks": [
            [*m._forward_hooks, *m._forward_pre_hooks, *m._backward_hooks, *m._backward_pre_hooks]
            for m in net.modules()
        ],
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tobytes(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_num_threads()),
    }


def test_the_model_is_left_as_it_was():
    net, seen = Mixed(), []
    net.out.register_forward_hook(lambda *args: seen.extend([net.drop.training] * (not is_trial())))
    before = state(net)
    assert len(set(before["training"])) == 2
    predict = Predictor(net, "softmax", device="cpu")
    glas = GLAS(predict, batch_size=4, **SMALL)
    first = glas.explain(volume((7, 9)), 1, Grid(3))
    assert state(net) == before
    assert seen == [False] * 5, "hooks run, and in eval mode"
    assert np.array_equal(glas.explain(volume((7, 9)), 1, Grid(3)).score, first.score), "no dropout"
    assert predict.net is net


def test_the_model_is_left_as_it_was_when_it_fails():
    net = Mixed()
    before = state(net)
    with refused("the model does not take a batch of"):
        GLAS(Predictor(net, "softmax", device="cpu"), **SMALL).explain(volume((8, 9)), 1, Grid(3))
    assert state(net) == before


def test_what_an_explanation_holds():
    net = Predictor(TinyNet((7, 8, 9)), "softmax", device="cpu")
    e = GLAS(net, batch_size=4, sigma_light=(1, 2, 3), sigma_shadow=2).explain(volume((7, 8, 9)), 1, Grid((2, 3, 1)))
    assert e.points.dtype == np.float64
    assert e.points.shape == (6, 3)
    for name in ("light", "shadow", "drop", "score"):
        assert getattr(e, name).dtype == np.float64
        assert getattr(e, name).shape == (6,)
    assert e.saliency.dtype == np.float32
    assert e.saliency.shape == (7, 8, 9)
    assert isinstance(e.probability, float)
    assert e.segments is None
    assert repr(e).startswith("Explanation(P(class 1) = 0.")
    assert "6 points on (7, 8, 9)" in repr(e)
    record = json.loads(json.dumps(e.settings))
    assert record["sigma_light"] == [1.0, 2.0, 3.0]
    assert (record["sigma_shadow"], record["batch_size"], record["evaluations"]) == (2.0, 4, 13)
    assert (record["unit"], record["spacing"], record["device"]) == ("voxel", None, "cpu")


def test_an_explanation_of_an_atlas_has_segments():
    e = GLAS(constant(0.4, 0.6), **SMALL).explain(volume((7, 9)), 1, atlas((7, 9)))
    assert "3 segments on (7, 9)" in repr(e)
    assert e.segments.index.tolist() == [7, 41, 300]


@pytest.mark.parametrize(
    "given",
    [
        lambda v: torch.from_numpy(v),
        lambda v: torch.from_numpy(v).double().requires_grad_(),
        lambda v: v.astype(np.float64),
        lambda v: v.astype(">f4"),
        lambda v: v.astype(np.uint16),
        lambda v: v.astype(np.int64),
        lambda v: np.asfortranarray(v),
        lambda v: np.ascontiguousarray(v[:, ::-1])[:, ::-1],
        lambda v: v.tolist(),
    ],
    ids=["tensor", "gradient", "float64", "big-endian", "uint16", "int64", "fortran", "reversed", "list"],
)
@pytest.mark.parametrize("role", ["volume", "background"])
def test_volume_and_background_come_in_many_forms_and_are_left_alone(role, given):
    whole = np.rint(volume((7, 9)) * 100)
    form = given(whole.copy())
    before = form.detach().clone() if isinstance(form, torch.Tensor) else np.array(form)

    def explained(image):
        settings = SMALL | ({"background": image} if role == "background" else {})
        shown = image if role == "volume" else volume((7, 9), seed=3) * 100
        return GLAS(Predictor(TinyNet((7, 9)), "softmax", device="cpu"), **settings).explain(shown, 1, Grid(3))

    assert np.array_equal(explained(form).saliency, explained(whole).saliency)
    assert np.array_equal(np.asarray(form.detach() if isinstance(form, torch.Tensor) else form), before)


def test_progress_draws_a_bar_and_silence_is_silent(capsys):
    GLAS(constant(0.4, 0.6), batch_size=4, **SMALL).explain(volume((7, 9)), 1, POINTS[2])
    assert capsys.readouterr().err == ""
    GLAS(constant(0.4, 0.6), batch_size=4, progress=True, **SMALL).explain(volume((7, 9)), 1, POINTS[2])
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.split("\r")[-1].startswith("[" + "=" * 30 + "] 9/9 model evaluations")
