"""A small network, and the comparison of its scores with those of other forms of the same model."""

import numpy as np
import pytest
import torch
from torch import nn

from glas3d import GLAS, Grid

SHAPES = {2: (12, 10), 3: (7, 8, 9)}
AFFINE = np.array([[4.0, 0, 0, -12], [0, 5, 0, -16], [0, 0, 3, -9], [0, 0, 0, 1]])


def network(ndim, classes=2):
    """A small convolutional network whose output depends on the position."""
    torch.manual_seed(ndim)
    conv = nn.Conv2d if ndim == 2 else nn.Conv3d
    pool = nn.AdaptiveAvgPool2d if ndim == 2 else nn.AdaptiveAvgPool3d
    net = nn.Sequential(conv(1, 4, 3, padding=1), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(4, classes))
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(3)
    return net.eval()


def volume(shape):
    return torch.rand((1, *shape), generator=torch.Generator().manual_seed(5))


def explained(predict, shape, batch_size=4, target=1):
    glas = GLAS(predict, sigma_light=2, sigma_shadow=2, batch_size=batch_size)
    return glas.explain(volume(shape), target, Grid(2 if len(shape) == 3 else 3))


def assert_same_scores(predict, original, shape, least=1e-3, atol=1e-4, **settings):
    ours, theirs = (explained(p, shape, **settings) for p in (predict, original))
    assert np.ptp(theirs.score) > least  # or there would be nothing to compare
    for name in ("score", "light", "drop"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=0, atol=atol)
    assert ours.probability == pytest.approx(theirs.probability, abs=1e-4)
