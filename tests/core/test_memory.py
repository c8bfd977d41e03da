"""Batches that do not fit are evaluated again in halves, and no point is lost."""

import numpy as np
import pytest
import torch

from glas3d import GLAS, Predictor
from glas3d.core.glas import default_batch_size
from tests.core.cases import POINTS, TinyNet, is_trial, refused, volume


class Small(torch.nn.Module):
    """A network on a device that holds ``most`` inputs; it fails from its second batch on."""

    def __init__(self, most, message="CUDA out of memory. Tried to allocate 2 GiB"):
        super().__init__()
        self.net, self.most, self.message, self.batches = TinyNet((7, 8, 9)), most, message, []

    def forward(self, x):
        if is_trial():
            if self.most == 0:
                raise RuntimeError(self.message)
            return self.net(x)
        self.batches.append(len(x))
        if len(x) > self.most and len(self.batches) > 1:
            raise RuntimeError(self.message)
        return self.net(x)


def explained(net, batch_size):
    glas = GLAS(Predictor(net, "softmax", device="cpu"), batch_size=batch_size, sigma_light=2, sigma_shadow=2)
    return glas.explain(volume((7, 8, 9)), 1, POINTS[3])


@pytest.mark.parametrize("message", ["CUDA out of memory.", "DefaultCPUAllocator: can't allocate memory"])
def test_a_batch_that_does_not_fit_is_halved(message):
    net, ticks = Small(1, message), []
    glas = GLAS(
        Predictor(net, "softmax", device="cpu"),
        batch_size=4,
        sigma_light=2,
        sigma_shadow=2,
        progress=lambda *n: ticks.append(n),
    )
    found = glas.explain(volume((7, 8, 9)), 1, POINTS[3])
    assert net.batches == [4, 4, 2, *[1] * 5], "one batch fits, the next is halved twice"
    assert ticks == [(n, 9) for n in (4, 5, 6, 7, 8, 9)]
    assert found.settings["batch_size"] == 1
    expected = explained(TinyNet((7, 8, 9)), 4)
    for name in ("light", "drop", "score"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-6)


def test_a_batch_is_no_larger_than_the_memory_that_is_free(monkeypatch):
    cuda, values = torch.device("cuda"), 2**20
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_batch_size(values, cuda) == 16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for free, size in ((2**36, 16), (2**31, 8), (2**20, 2)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 2**40))
        assert default_batch_size(values, cuda) == size


def test_an_input_that_does_not_fit_alone_is_refused():
    with refused(r"one input of \(1, 7, 8, 9\) at a time does not fit into memory"):
        explained(Small(0), 4)


def test_another_error_is_not_tried_again():
    net = Small(1, "mat1 and mat2 shapes cannot be multiplied")
    with refused("the model does not take a batch of .*: mat1 and mat2 shapes cannot be multiplied"):
        explained(net, 4)
    assert net.batches == [4, 4]
