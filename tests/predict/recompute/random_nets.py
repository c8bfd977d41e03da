"""Random small convolutional networks, to be computed on parts of their activations."""

import torch
from hypothesis import strategies as st
from torch import nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
MAX = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
MEAN = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
CHANNELS = 4
ACTIVATIONS = (nn.ReLU(inplace=True), nn.ELU(), nn.Tanh(), nn.PReLU(), nn.Dropout(0.5), nn.Identity())


class Residual(nn.Module):
    """Adds in place, and rectifies in place what a later step adds."""

    def __init__(self, body):
        super().__init__()
        self.body = body
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.body(x)
        out += x
        return self.relu(out) + x


class Dense(nn.Module):
    """Returns its input and its output, concatenated."""

    def __init__(self, body, back):
        super().__init__()
        self.body, self.back = body, back

    def forward(self, x):
        return self.back(torch.cat([x, self.body(x)], 1))


def each(draw, ndim, *values):
    """One number an axis."""
    return tuple(draw(st.sampled_from(values)) for _ in range(ndim))


def same(draw, ndim):
    """A convolution that keeps the shape."""
    kernel, dilation = each(draw, ndim, 1, 3), each(draw, ndim, 1, 2)
    return CONV[ndim](
        CHANNELS, CHANNELS, kernel, padding="same", dilation=dilation, groups=draw(st.sampled_from((1, 2, 4)))
    )


@st.composite
def steps(draw, ndim):
    """One layer or block of layers, of as many channels in as out."""
    kind = draw(st.sampled_from(("conv", "max", "mean", "norm", "act", "residual", "dense")))
    if kind == "norm":
        return NORM[ndim](CHANNELS)
    if kind == "act":
        return draw(st.sampled_from(ACTIVATIONS))
    if kind == "residual":
        return Residual(nn.Sequential(same(draw, ndim), nn.ReLU(inplace=True), same(draw, ndim)))
    if kind == "dense":
        return Dense(same(draw, ndim), CONV[ndim](2 * CHANNELS, CHANNELS, 1))
    kernel, stride = each(draw, ndim, 1, 2, 3), each(draw, ndim, 1, 2, 3)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    if kind == "conv":
        groups, dilation = draw(st.sampled_from((1, 2))), each(draw, ndim, 1, 2)
        return CONV[ndim](CHANNELS, CHANNELS, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))
    ceil = draw(st.booleans())
    if kind == "max":
        return MAX[ndim](kernel, stride, padding, dilation=each(draw, ndim, 1, 2), ceil_mode=ceil)
    divisor = draw(st.sampled_from((None, 3)))
    return MEAN[ndim](kernel, stride, padding, ceil, draw(st.booleans()), divisor_override=divisor)


@st.composite
def networks(draw, ndim, shape):
    """A network in float64 that takes ``(n, 1, *shape)``; layers that do not fit the shape are left out."""
    layers = [CONV[ndim](1, CHANNELS, 3, padding=1)]
    torch.manual_seed(draw(st.integers(0, 99)))
    probe = layers[0](torch.zeros(1, 1, *shape))
    for layer in draw(st.lists(steps(ndim), min_size=1, max_size=5)):
        try:
            after = layer.eval()(probe)
        except RuntimeError:  # the kernel is larger than what is left
            continue
        if after.numel() and torch.isfinite(after).all():
            layers.append(layer)
            probe = after
    pool = nn.AdaptiveAvgPool2d if ndim == 2 else nn.AdaptiveAvgPool3d
    end = draw(st.sampled_from(("map", "mean", "dense")))
    if end == "mean":
        layers += [pool(1), nn.Flatten(), nn.Linear(CHANNELS, 3)]
    elif end == "dense":
        layers += [nn.Flatten(), nn.Linear(probe[0].numel(), 3)]
    net = nn.Sequential(*layers)
    with torch.no_grad():
        for name, tensor in (*net.named_parameters(), *net.named_buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5 if "var" in name else torch.randn_like(tensor))
    return net.double().eval()
