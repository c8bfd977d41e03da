"""What the tests of training teach."""

from functools import cache

import numpy as np
import torch

SHAPE = (16, 18, 20)
LESION = (slice(4, 9), slice(6, 11), slice(9, 14))


@cache
def lesson(n=48, seed=0):
    """Bright ellipsoids, half of them with a dark hole, and their labels."""
    rng = np.random.default_rng(seed)
    axes = np.stack(np.meshgrid(*(np.linspace(-1, 1, k) for k in SHAPE), indexing="ij"))
    inside = (axes**2).sum(axis=0) < 1
    volumes = inside * rng.normal(1, 0.1, (n, 1, *SHAPE))
    labels = np.arange(n) % 2
    volumes[labels == 1, 0, *LESION] *= 0.5
    return torch.as_tensor(volumes, dtype=torch.float32), torch.as_tensor(labels)


def reference():
    volumes, labels = lesson()
    return volumes[labels == 0].mean(dim=0)
