"""What is computed inside windows alone, against the whole forward."""

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.networks.nets import DenseNet, resnet10
from torch import nn

from glas3d.core.changed import CannotRecompute
from glas3d.core.windows import Windows, crop
from glas3d.predict.changed import plan as planning
from glas3d.predict.changed.plan import make_plan
from glas3d.predict.changed.recompute import follow
from glas3d.predict.changed.trace import trace
from glas3d.predict.networks import PaperNet
from tests.predict.random_nets import networks

SHAPES = {2: (13, 18), 3: (7, 10, 9)}
GENERATOR = torch.Generator().manual_seed(3)


def boxes(shape, corners, sizes):
    low = np.array([[c % n for c, n in zip(corner, shape, strict=True)] for corner in corners])
    return Windows.of(low, low + np.array(sizes), shape)


def bases_of(shape, channels=1, dtype=torch.float64):
    return torch.randn(2, channels, *shape, dtype=dtype, generator=GENERATOR)


def perturbed(base, windows, rows):
    """Volumes that are the base but for noise in their boxes, whole and inside the windows."""
    whole = base.repeat(len(rows), *[1] * (base.ndim - 1))
    for volume, row in zip(whole, rows, strict=True):
        inside = crop(volume, windows.low[row], windows.high[row] - windows.low[row])
        inside += torch.randn(inside.shape, dtype=base.dtype, generator=GENERATOR)
    return whole, torch.stack([crop(v, windows.corner[r], windows.size) for v, r in zip(whole, rows, strict=True)])


def assert_same(net, shape, windows, transform=None, *, channels=1, atol=1e-12, dtype=torch.float64, everywhere=True):
    """Every answer of every kind is the whole forward's."""
    bases = bases_of(shape, channels, dtype)
    largest = 1.0 if everywhere else planning.LARGEST_SHARE
    with torch.inference_mode(), mock.patch.object(planning, "LARGEST_SHARE", largest):
        made = make_plan(trace(net, transform), bases, windows)
        run = net if transform is None else lambda x: net(transform(x))
        scale = float(run(bases).abs().max())
        torch.testing.assert_close(made.answer, run(bases), rtol=0, atol=atol * scale)
        for kind, one in enumerate(windows):
            rows = np.arange(len(one))[::-1]
            whole, parts = perturbed(bases[kind, None], one, rows)
            found, expected = follow(made, kind, rows, parts), run(whole)
            torch.testing.assert_close(found, expected, rtol=0, atol=atol * max(1.0, float(expected.abs().max())))
    return made


@pytest.mark.parametrize("ndim", [2, 3])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_random_networks_answer_as_on_the_whole(ndim, data):
    shape = SHAPES[ndim]
    net = data.draw(networks(ndim, shape))
    windows = []
    for _ in range(2):
        corner = st.tuples(*[st.integers(0, n - 1) for n in shape])
        size = st.tuples(*[st.integers(0, 5) for _ in shape])
        m = data.draw(st.integers(1, 3))
        corners, sizes = (data.draw(st.lists(one, min_size=m, max_size=m)) for one in (corner, size))
        windows.append(boxes(shape, corners, sizes))
    gain = torch.rand(shape, dtype=torch.float64) + 0.5
    assert_same(net, shape, windows, lambda x: torch.addcmul(-gain, x, gain))
