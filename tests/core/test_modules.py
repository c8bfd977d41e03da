"""Modules behind a callable are found, and held in eval mode by as many evaluations as need it."""

import functools
import threading

import numpy as np
import pytest
import torch
from torch import nn

from glas3d import GLAS, Grid, Predictor
from glas3d.core.modules import EvalMode, modules_in
from tests.core.cases import volume

SHAPE = (7, 9)
in_this_file = nn.Dropout(0.5)


class Noisy(nn.Module):
    """A network of running statistics and dropout, with a dictionary for output."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5))
            self.head = nn.Linear(4 * 5 * 7, 2)

    def forward(self, x):
        return {"logits": self.head(self.body(x))}

    def logits(self, x):
        return self(x)["logits"]


def logits_of(net, x):
    return net(x)["logits"]


class Holder:
    def __init__(self, net):
        self.parts = {"nets": [net]}

    def __call__(self, x):
        return self.parts["nets"][0](x)["logits"]


class Slotted:
    __slots__ = ("net",)

    def __init__(self, net):
        self.net = net

    def __call__(self, x):
        return self.net(x)["logits"]


def wrapped(net):
    def inner(x):
        return net(x)["logits"]

    @functools.wraps(inner)
    def outer(*given):
        return inner(*given)

    return outer


def default(net):
    def call(x, net=net):
        return net(x)["logits"]

    return call


HIDING = {
    "lambda": lambda net: lambda x: net(x)["logits"],
    "bound method": lambda net: net.logits,
    "partial": lambda net: functools.partial(logits_of, net),
    "partial by keyword": lambda net: functools.partial(lambda x, net: net(x)["logits"], net=net),
    "wrapper": wrapped,
    "default": default,
    "attribute": Holder,
    "slot": Slotted,
}


@pytest.mark.parametrize("hide", HIDING.values(), ids=HIDING)
@pytest.mark.parametrize("bare", [False, True], ids=["predictor", "bare callable"])
def test_a_hidden_module_is_evaluated_in_eval_mode_and_left_as_it_was(hide, bare):
    net = Noisy().train()
    net.body[3].eval()  # its own mode, to be kept
    before = {key: value.clone() for key, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    call = hide(net)
    predict = (lambda x: call(x).softmax(1)) if bare else Predictor(call, "softmax")
    found = GLAS(predict, sigma_light=2, sigma_shadow=2).explain(volume(SHAPE), 1, Grid((2, 3)))
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    plain = Predictor(Noisy().logits, "softmax")
    net.eval()
    expected = GLAS(plain, sigma_light=2, sigma_shadow=2).explain(volume(SHAPE), 1, Grid((2, 3)))
    np.testing.assert_array_equal(found.score, expected.score)


def test_a_module_in_a_global_variable_is_found():
    assert modules_in(lambda x: in_this_file(x)) == [in_this_file]


def test_a_module_that_no_search_finds_is_noticed_when_it_is_called():
    net = nn.Dropout(0.5).train()
    stored = iter([net])  # nobody can look into an iterator

    def call(x):
        nonlocal stored
        current = next(stored)
        stored = iter([current])
        return current(x)

    assert modules_in(call) == []
    with EvalMode(modules_in(call)) as evaluation, evaluation.watching():
        assert torch.equal(call(torch.ones(40)), torch.ones(40))
        assert not net.training
    assert net.training


def test_modules_in_lists_of_a_module_are_found():
    net = nn.Identity()
    net.branches = [nn.Dropout(), {"deep": nn.Dropout()}]
    assert len(modules_in(net)) == 3


def test_two_evaluations_of_one_module_put_it_back_when_the_last_ends():
    net = nn.Dropout().train()
    first, second = EvalMode([net]), EvalMode([net])
    with first:
        second.__enter__()
    assert not net.training, "the second evaluation still needs eval mode"
    second.__exit__()
    assert net.training


def test_threads_share_a_predictor_of_a_network_in_training_mode():
    net = Noisy().train()
    predict = Predictor(net.logits, "softmax")
    batch = torch.from_numpy(volume(SHAPE))[None].repeat(3, 1, 1, 1)
    expected, wrong = predict(batch), []

    def evaluate():
        wrong.extend(1 for _ in range(150) if not torch.equal(predict(batch), expected))

    threads = [threading.Thread(target=evaluate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(module.training for module in net.modules())
