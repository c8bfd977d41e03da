"""What is computed inside windows alone equals the evaluation of the whole volume."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.networks.nets import DenseNet, resnet10
from torch import nn

from glas3d.core.accelerate.windows import Windows, crop
from glas3d.core.model import CannotRecompute
from glas3d.predict import PaperNet
from glas3d.predict.recompute.graph import trace
from glas3d.predict.recompute.window_evaluation import evaluate_windows
from glas3d.predict.recompute.windowed_steps import LARGEST_SHARE, follow_windows
from tests.predict.recompute.random_nets import networks

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
    """Every output of every kind is the same as that of the whole volume."""
    bases = bases_of(shape, channels, dtype)
    with torch.inference_mode():
        steps = follow_windows(trace(net, transform), bases, windows, 1.0 if everywhere else LARGEST_SHARE)
        run = net if transform is None else lambda x: net(transform(x))
        scale = float(run(bases).abs().max())
        torch.testing.assert_close(steps.output, run(bases), rtol=0, atol=atol * scale)
        for kind, of_kind in enumerate(windows):
            rows = np.arange(len(of_kind))[::-1]
            whole, parts = perturbed(bases[kind, None], of_kind, rows)
            output, expected = evaluate_windows(steps, kind, rows, parts), run(whole)
            torch.testing.assert_close(output, expected, rtol=0, atol=atol * max(1.0, float(expected.abs().max())))
    return steps


@pytest.mark.parametrize("ndim", [2, 3])
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_random_networks_give_the_output_of_the_whole_volume(ndim, data):
    shape = SHAPES[ndim]
    net = data.draw(networks(ndim, shape))
    windows = []
    for _ in range(2):
        corner = st.tuples(*[st.integers(0, n - 1) for n in shape])
        size = st.tuples(*[st.integers(0, 5) for _ in shape])
        m = data.draw(st.integers(1, 3))
        corners, sizes = (data.draw(st.lists(axes, min_size=m, max_size=m)) for axes in (corner, size))
        windows.append(boxes(shape, corners, sizes))
    gain = torch.rand(shape, dtype=torch.float64) + 0.5
    assert_same(net, shape, windows, lambda x: torch.addcmul(-gain, x, gain))


@pytest.mark.parametrize(
    ("net", "shape", "from_step"),
    [
        (PaperNet((27, 33, 30), batch_norm=True), (27, 33, 30), "classifier.0 (Flatten)"),
        (resnet10(spatial_dims=3, n_input_channels=1, num_classes=3, widen_factor=0.0625), (40, 49, 44), ""),
        (resnet10(spatial_dims=2, n_input_channels=1, num_classes=3, widen_factor=0.25), (60, 77), ""),
        (DenseNet(3, 1, 3, init_features=6, growth_rate=4, block_config=(2, 2)), (40, 49, 44), ""),
        (DenseNet(2, 1, 3, init_features=8, growth_rate=4, block_config=(2, 3)), (60, 77), ""),
    ],
    ids=["paper", "resnet 3D", "resnet 2D", "densenet 3D", "densenet 2D"],
)
def test_common_networks(net, shape, from_step):
    ndim = len(shape)
    corners = [[n // 3 for n in shape], [0] * ndim, [n - 4 for n in shape]]
    windows = [boxes(shape, corners, [5] * ndim), boxes(shape, corners[:2], range(3, 3 + ndim))]
    steps = assert_same(net.double().eval(), shape, windows, everywhere=False)
    assert steps.whole_from == from_step
    # the first convolution was computed on little more than its windows and a neighbourhood of them
    first = next(node for node in steps.order if node in steps.rules)
    assert steps.windows[0][first].share < 0.2


@pytest.mark.parametrize(
    ("layer", "description"),
    [
        (nn.InstanceNorm2d(4), "1 (InstanceNorm2d)"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), "1 (Conv2d)"),
        (nn.Upsample(scale_factor=2), "1 (Upsample)"),
        (nn.AdaptiveMaxPool2d(2), "1 (AdaptiveMaxPool2d)"),
        (nn.BatchNorm2d(4, track_running_stats=False), "1 (BatchNorm2d)"),
    ],
)
def test_from_an_unknown_step_on_everything_is_computed(layer, description):
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), layer, nn.ReLU()).double().eval()
    steps = assert_same(net, (13, 18), [boxes((13, 18), [[4, 5], [9, 0]], [3, 4])])
    assert steps.whole_from == description


class Written(nn.Module):
    """The same steps as functions and methods of tensors."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 1, 3, 5))
        self.register_buffer("mean", torch.randn(4))
        self.register_buffer("var", torch.rand(4) + 0.5)
        self.register_buffer("places", torch.randn(4, 14, 18))

    def forward(self, x):
        f = nn.functional
        x = torch.conv2d(x, self.weight, None, (1, 1), (1, 2), (1, 1), 1)
        x = f.batch_norm(x, self.mean, self.var, training=False)
        x = f.max_pool2d(f.relu(x), 2, stride=1, padding=1) * torch.sigmoid(self.places[:, :, :1])
        y = f.avg_pool2d(x, (3, 2), padding=1, stride=(1, 2), count_include_pad=False)
        y = torch.cat((y, y.tanh()), dim=1).mul_(2.0)
        y = 1 - y / 2
        return torch.cat([y.mean((2, 3)), f.adaptive_avg_pool2d(y, 1).view(y.size(0), -1), y.flatten(1)], 1)


def test_functions_and_methods():
    steps = assert_same(Written().double(), (13, 17), [boxes((13, 17), [[4, 5], [12, 0]], [3, 4])])
    assert steps.whole_from == "flatten"


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Writes(nn.Module):
    def forward(self, x):
        x = x * 2
        x[:, :, 0] = 0
        return x


def hooked():
    net = nn.Sequential(nn.Conv2d(1, 2, 3))
    net[0].register_forward_hook(lambda *_: None)
    return net


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (lambda x: x, "is no torch module"),
        (Branches(), "cannot be followed: symbolically traced variables cannot be used as inputs to control flow"),
        (Writes(), "in place by setitem|cannot be followed: 'Proxy' object does not support item assignment"),
        (hooked(), "hooks are registered"),
    ],
)
def test_the_reason_why_steps_cannot_be_followed(net, why):
    with pytest.raises(CannotRecompute, match=why):
        trace(net, None)


def test_windows_of_most_of_the_volume_save_nothing():
    windows = [boxes((13, 18), [[0, 0]], [12, 18])]
    with pytest.raises(CannotRecompute, match="reach 92% of the volume"):
        follow_windows(trace(nn.Conv2d(1, 1, 3), None), bases_of((13, 18), dtype=torch.float32), windows)
