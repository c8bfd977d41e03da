"""What the tests of the core explain: small volumes of unequal axes, tiny networks, a small atlas."""

import copy
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from glas3d.errors import GlasError

SHAPES = {2: (7, 9), 3: (7, 8, 9)}
SPACINGS = {2: (1.5, 2.5), 3: (1.5, 2.0, 3.0)}
# On voxels, between them, and in corners.
POINTS = {
    2: np.array([[3.0, 4.0], [0.0, 8.0], [5.25, 1.5], [6.4, -0.3]]),
    3: np.array([[3.0, 4.0, 2.0], [0.0, 7.0, 8.0], [5.25, 1.5, 6.75], [6.4, -0.3, 0.1]]),
}


def volume(shape, channels=1, seed=0):
    """Positive intensities, so that darkness is far away."""
    return np.random.default_rng(seed).uniform(0.5, 2.0, (channels, *shape)).astype(np.float32)


def atlas(shape):
    """Three segments of unequal size whose labels are neither consecutive nor below 128; the rest is 0."""
    labels = np.zeros(shape, dtype=np.int16)
    labels[:2, :3] = 300
    labels[3:6, 2:7] = 7
    labels[6, 4:] = 41
    return labels


class TinyNet(nn.Module):
    """Random weights, one convolution (where asked), answers that move with every voxel."""

    def __init__(self, shape, channels=1, classes=3, seed=0, convolve=True):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            convolution = {2: nn.Conv2d, 3: nn.Conv3d}[len(shape)]
            first = convolution(channels, 2, 3, padding=1) if convolve else nn.Identity()
            self.body = nn.Sequential(first, nn.Tanh(), nn.Flatten())
            self.head = nn.Linear((2 if convolve else channels) * int(np.prod(shape)), classes)
        with torch.no_grad():
            self.head.weight *= 3.0

    def forward(self, x):
        return self.head(self.body(x))


def in_float64(net):
    """The oracle's view of a network: one float64 volume to softmax probabilities, by its own copy."""
    twin = copy.deepcopy(net).to("cpu").double().eval()

    def probabilities(one):
        with torch.no_grad():
            logits = twin(torch.from_numpy(np.ascontiguousarray(one))[None])[0].numpy()
        raised = np.exp(logits - logits.max())
        return raised / raised.sum()

    return probabilities


class Linear:
    """``predict`` whose column j is ``sum(w_j * x)``, in float64 and row by row: batches cannot matter."""

    def __init__(self, weights):
        self.weights = torch.as_tensor(np.asarray(weights), dtype=torch.float64)

    def __call__(self, batch):
        rows = [(self.weights * row.double()).flatten(1).sum(dim=1) for row in batch]
        return torch.stack(rows)


class Recorder:
    """Wraps a ``predict`` and keeps what it was asked: a copy, the address and the shape of every batch."""

    def __init__(self, predict):
        self.predict = predict
        self.batches, self.addresses, self.shapes = [], [], []

    def __call__(self, batch):
        self.batches.append(batch.clone().numpy())
        self.addresses.append(batch.data_ptr())
        self.shapes.append(tuple(batch.shape))
        return self.predict(batch)


def constant(*probabilities):
    """A ``predict`` that does not look."""
    return lambda batch: torch.tensor(probabilities).expand(len(batch), -1)


def assert_close(actual, expected, tolerance=2e-5):
    """Within ``tolerance`` of the largest expected value: tiny scores must agree too."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * min(1.0, np.abs(expected).max())


@contextmanager
def refused(match):
    """A `GlasError` in one clear sentence that says ``match``."""
    with pytest.raises(GlasError, match=match) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert 20 < len(message) < 250
