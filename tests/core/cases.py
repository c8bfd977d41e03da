"""Cases for the tests of the core: small volumes of unequal axes, tiny networks, a small atlas."""

import copy
import re
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from glas3d import Grid
from glas3d.errors import GlasError

SHAPES = {2: (7, 9), 3: (7, 8, 9)}
SPACINGS = {2: (1.5, 2.5), 3: (1.5, 2.0, 3.0)}
# On voxels, between them, and in corners.
POINTS = {
    2: np.array([[3.0, 4.0], [0.0, 8.0], [5.25, 1.5], [6.4, -0.3]]),
    3: np.array([[3.0, 4.0, 2.0], [0.0, 7.0, 8.0], [5.25, 1.5, 6.75], [6.4, -0.3, 0.1]]),
}

# Larger volumes, their cells, and three objects (of 3 voxels on each axis), each in a cell of its own.
WIDE = {2: (20, 24), 3: (10, 12, 15)}
CELLS = {2: (4, 4), 3: (2, 2, 3)}
PLACES = {2: ((2, 3), (17, 20), (17, 3)), 3: ((2, 3, 2), (7, 8, 12), (2, 8, 7))}
# The four ends of the recursion, and the reasons they give.
ENDS = {
    "measure": "^the measure .* is above",
    "no point left": "^no point is left$",
    "none removed": "^a round removed no point$",
    "iterations": "^as many rounds as allowed were made$",
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


def blocks(shape, cells):
    """An atlas of boxes; the outermost voxels belong to no box."""
    which = np.meshgrid(*[np.arange(n) * k // n for n, k in zip(shape, cells, strict=True)], indexing="ij")
    return np.pad((np.ravel_multi_index(which, cells) + 130)[(slice(1, -1),) * len(shape)], 1)


def searches(ndim):
    """A grid and an atlas with a point, or segment, for each of the objects."""
    return {"grid": Grid(CELLS[ndim]), "segments": blocks(WIDE[ndim], CELLS[ndim])}


class TinyNet(nn.Module):
    """A network of random weights, with one convolution if wanted, whose output depends on every voxel."""

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


def logits_in_float64(net):
    """Return a network's float64 copy for the oracle: from one volume to logits."""
    twin = copy.deepcopy(net).to("cpu").double().eval()

    def logits(one):
        with torch.no_grad():
            return twin(torch.from_numpy(np.ascontiguousarray(one))[None])[0].numpy()

    return logits


def in_float64(net):
    """Return a network's float64 copy for the oracle: from one volume to softmax probabilities."""
    logits = logits_in_float64(net)

    def probabilities(one):
        z = logits(one)
        raised = np.exp(z - z.max())
        return raised / raised.sum()

    return probabilities


class Linear:
    """``predict`` whose column j is ``sum(w_j * x)``, in float64 and row by row: batches cannot matter."""

    def __init__(self, weights):
        self.weights = torch.as_tensor(np.asarray(weights), dtype=torch.float64)

    def __call__(self, batch):
        rows = [(self.weights * row.double()).flatten(1).sum(dim=1) for row in batch]
        return torch.stack(rows)


def is_trial():
    """Return whether a model is being tried before an explanation (`glas3d.core.independence`)."""
    frame = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != "glas3d.core.independence":
        frame = frame.f_back
    return frame is not None


class Recorder:
    """Wraps a model and keeps an explanation's batches: a copy, the address and the shape of each."""

    def __init__(self, predict):
        self.predict = predict
        self.batches, self.addresses, self.shapes = [], [], []

    def __call__(self, batch):
        if is_trial():
            return self.predict(batch)
        self.batches.append(batch.clone().numpy())
        self.addresses.append(batch.data_ptr())
        self.shapes.append(tuple(batch.shape))
        return self.predict(batch)


class NoisyOr:
    """Each bright object is evidence enough: ``P = 1 - prod(1 - strength_j * brightness_j)``, above a floor.

    An object's brightness is the mean of its voxels, 1 for the value 1 and 0 for ``dark``.
    """

    def __init__(self, evidence, floor=0.02, dark=0.0):
        self.evidence, self.floor, self.dark = evidence, floor, dark

    def __call__(self, batch):
        absent = torch.ones(len(batch), dtype=torch.float64)
        for centre, strength in self.evidence.items():
            mean = batch[(..., *(slice(a - 1, a + 2) for a in centre))].double().flatten(1).mean(dim=1)
            absent *= 1 - strength * ((mean - self.dark) / (1 - self.dark)).clamp(0, 1)
        p = self.floor + (1 - self.floor) * (1 - absent)
        return torch.stack([1 - p, p], dim=1)


def constant(*probabilities):
    """Return a model whose output does not depend on its input."""
    return lambda batch: torch.tensor(probabilities).expand(len(batch), -1)


# How far the difference of two float32 outputs of a network may be off, by the libraries and the processor that run it.
ROUNDING = 3e-7


def assert_close(actual, expected, tolerance=2e-5):
    """Compare within ``tolerance`` of the largest expected value, and rounding: tiny scores must agree too."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * min(1.0, np.abs(expected).max()) + ROUNDING


def assert_ended(found, end):
    """Check that the recursion gives the reason of this end and of no other."""
    assert [name for name, pattern in ENDS.items() if re.search(pattern, found.reason)] == [end]


@contextmanager
def refused(match):
    """Expect a `GlasError` whose message is one sentence that matches."""
    with pytest.raises(GlasError, match=match) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert 20 < len(re.sub(r"/\S*/", "", message)) < 250, "without the folders, which may have any length"
