"""What a step of a network does to a window: how far it reaches, and how it is done on a part of its input.

Three kinds of steps keep a change in its place: those whose output at a voxel depends on a neighbourhood of it
(`Neighbourhood`: convolution, pooling), on that voxel alone (`Pointwise`: activations, eval batch norm, sums,
concatenation of channels), and the mean of everything (`GlobalMean`), to which a change adds its own. Every other step
is done on the whole.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from glas3d.core.windows import Windows


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """A step whose output at ``o`` depends on the input from ``o * stride - padding`` on, ``reach`` voxels.

    Attributes
    ----------
    kernel, stride, dilation, padding
        One an axis; padding is that before the first voxel.
    outside
        What the input is said to be out there.
    apply
        The step without padding.
    counted
        The whole's spatial shape to what ``apply``'s sums are divided by, voxel by voxel; None: they are no sums.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    outside: float
    apply: Callable[[torch.Tensor], torch.Tensor]
    counted: Callable[[torch.Tensor], torch.Tensor] | None = None

    @property
    def reach(self) -> np.ndarray:
        """Voxels an axis from the first that an output depends on to the last."""
        found: np.ndarray = np.asarray(self.dilation) * (np.asarray(self.kernel) - 1) + 1
        return found

    def through(self, windows: Windows, shape: Sequence[int]) -> Windows:
        """Where an output of this shape can differ."""
        stride, padding = np.asarray(self.stride), np.asarray(self.padding)
        low = -((-(windows.low + padding - self.reach + 1)) // stride)
        high = (windows.high - 1 + padding) // stride + 1
        empty = (windows.high <= windows.low).any(axis=1, keepdims=True)
        return Windows.of(low, np.where(empty, low, high), shape)

    def needed(self, windows: Windows) -> tuple[np.ndarray, tuple[int, ...]]:
        """First corners ``(m, ndim)``, perhaps outside of the input, and the size of what the windows depend on."""
        size = (np.asarray(windows.size) - 1) * self.stride + self.reach
        return windows.corner * self.stride - np.asarray(self.padding), tuple(int(n) for n in size)


@dataclass(frozen=True, eq=False)
class Pointwise:
    """A step whose output at a voxel depends on that voxel of its inputs alone.

    Attributes
    ----------
    spatial
        Which of its arguments have the space's axes last, by place; None: all of them.
    """

    spatial: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class GlobalMean:
    """The mean over space.

    Attributes
    ----------
    ndim
        How many axes it is over, the last ones.
    keepdim
        Whether they stay, of length 1.
    """

    ndim: int
    keepdim: bool


Rule = Neighbourhood | Pointwise | GlobalMean

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_MAX_POOL = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVG_POOL = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_BATCH_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training")
_ATEN_BATCH_NORM = ("input", "weight", "bias", "running_mean", "running_var", "training")

# Functions and methods by the names they share in torch, its functional and aten.
_POINTWISE = (
    "add", "sub", "mul", "div", "true_divide", "truediv", "neg", "pos", "abs", "sqrt", "exp", "log", "pow",
    "square", "reciprocal", "clamp", "clamp_min", "clamp_max", "addcmul", "addcdiv", "lerp", "where", "maximum",
    "minimum", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "sigmoid",
    "tanh", "hardtanh", "hardswish", "hardsigmoid", "logsigmoid", "softsign", "dropout", "dropout2d", "dropout3d",
    "feature_dropout", "alpha_dropout", "float", "contiguous", "clone", "detach", "to", "rsub",
)  # fmt: skip
_NEIGHBOURHOODS = {
    name + str(n): names
    for name, names in (("conv", _CONVOLUTION), ("max_pool", _MAX_POOL), ("avg_pool", _AVG_POOL))
    for n in ("2d", "3d")
}
_OTHERS = ["cat", "concat", "batch_norm", "mean", "adaptive_avg_pool2d", "adaptive_avg_pool3d"]
_FUNCTIONS: dict[Any, str] = {
    getattr(home, name): name
    for home in (torch, F, torch._C._nn, operator)
    for name in (*_POINTWISE, *_NEIGHBOURHOODS, *_OTHERS)
    if hasattr(home, name)
}
_POINTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Sigmoid,
    nn.Tanh, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign, nn.PReLU, nn.Identity, nn.Dropout,
    nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip


def rule_of(traced: fx.GraphModule, node: fx.Node, constants: Mapping[fx.Node, Any]) -> Rule | None:
    """How a step keeps a change in its place; None where it does not, or it is not known to.

    Parameters
    ----------
    constants
        The values of the steps that do not depend on the volume.
    """
    if node.op == "call_module":
        return _of_module(traced.get_submodule(str(node.target)))
    name = _name(node)
    if name is None or not node.args:
        return None
    if name in _POINTWISE:
        return Pointwise()
    if name in _NEIGHBOURHOODS or name == "batch_norm":
        names = _NEIGHBOURHOODS.get(name, _ATEN_BATCH_NORM if _is_aten(node) else _BATCH_NORM)
        given: dict[str, Any] = {}
        for key, value in (*zip(names, node.args, strict=False), *node.kwargs.items()):
            if isinstance(value, fx.Node) and key != "input":
                if value not in constants:
                    return None
                value = constants[value]
            given[key] = value
        if name == "batch_norm":
            held = given.get("running_mean") is not None and not given.get("training")
            return Pointwise(spatial=(0,)) if held else None
        return _neighbourhood(name, given)
    if name in ("cat", "concat"):
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        return Pointwise() if dim == 1 else None
    if name == "mean":
        return _mean(node)
    size = node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size")
    return GlobalMean(int(name[-2]), keepdim=True) if _all_ones(size) else None


def _name(node: fx.Node) -> str | None:
    if node.op == "call_method":
        return str(node.target) if node.target in (*_POINTWISE, "mean") else None
    if node.op != "call_function":
        return None
    if _is_aten(node):
        name = node.target._schema.name.removeprefix("aten::")  # type: ignore[union-attr]
        return name if name in _FUNCTIONS.values() else None
    return _FUNCTIONS.get(node.target)


def _is_aten(node: fx.Node) -> bool:
    """Whether a step is an operation as exported graphs name them."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target.namespace == "aten"


def _of_module(module: nn.Module) -> Rule | None:
    kind = type(module)  # a subclass may do anything
    if kind in _POINTWISE_MODULES:
        return Pointwise()
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and kind.__module__.startswith("torch.nn"):
        return Pointwise() if module.running_mean is not None else None
    if kind in (nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d):
        return GlobalMean(2 if kind is nn.AdaptiveAvgPool2d else 3, True) if _all_ones(module.output_size) else None
    if kind in (nn.Conv2d, nn.Conv3d):
        if module.padding_mode != "zeros":
            return None
        return _neighbourhood(f"conv{len(module.kernel_size)}d", {n: getattr(module, n) for n in _CONVOLUTION[1:]})  # type: ignore[arg-type]
    for names, name, kinds in (
        (_MAX_POOL, "max_pool", (nn.MaxPool2d, nn.MaxPool3d)),
        (_AVG_POOL, "avg_pool", (nn.AvgPool2d, nn.AvgPool3d)),
    ):
        if kind in kinds:
            return _neighbourhood(f"{name}{kinds.index(kind) + 2}d", {n: getattr(module, n) for n in names[1:]})
    return None


def _neighbourhood(name: str, given: dict[str, Any]) -> Neighbourhood | None:
    ndim = int(name[-2])
    stride, dilation = _each(given.get("stride") or 1, ndim), _each(given.get("dilation", 1), ndim)
    if name.startswith("conv"):
        weight, bias, groups = given["weight"], given.get("bias"), given.get("groups", 1)
        kernel = tuple(weight.shape[2:])
        padding = given.get("padding", 0)
        if padding == "same":
            padding = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
        convolve: Any = F.conv2d if ndim == 2 else F.conv3d

        def convolved(part: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = convolve(part, weight, bias, stride, 0, dilation, groups)
            return found

        before = _each(0 if padding == "valid" else padding, ndim)
        return Neighbourhood(kernel, stride, dilation, before, 0.0, convolved)
    kernel = _each(given["kernel_size"], ndim)
    stride = _each(given.get("stride") or given["kernel_size"], ndim)
    padding = _each(given.get("padding", 0), ndim)
    if name.startswith("max"):
        if given.get("return_indices"):
            return None
        return Neighbourhood(
            kernel, stride, dilation, padding, -math.inf, lambda part: _largest(part, kernel, stride, dilation)
        )
    mean: Any = F.avg_pool2d if ndim == 2 else F.avg_pool3d
    ceil, all_count = bool(given.get("ceil_mode", False)), bool(given.get("count_include_pad", True))
    divisor = given.get("divisor_override")

    def counted(ones: torch.Tensor) -> torch.Tensor:
        """What the sums are divided by: those of ones, over their means."""
        sums, means = (mean(ones, kernel, stride, padding, ceil, all_count, by) for by in (1, divisor))
        found: torch.Tensor = torch.round(sums / means)
        return found

    whole = not ceil and not any(padding)
    by = (divisor or math.prod(kernel)) if whole else 1
    return Neighbourhood(
        kernel,
        stride,
        (1,) * ndim,
        padding,
        0.0,
        lambda part: mean(part, kernel, stride, 0, divisor_override=by),
        None if whole else counted,
    )


def _largest(
    part: torch.Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> torch.Tensor:
    """Max pooling without padding, an axis after the other.

    torch's own notes where each maximum was, which takes up to ten times as long unless channels are last.
    """
    for axis, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True), 2):
        n = (part.shape[axis] - d * (k - 1) - 1) // s + 1
        shifted = [part[(slice(None),) * axis + (slice(i * d, i * d + (n - 1) * s + 1, s),)] for i in range(k)]
        part = shifted[0]
        for other in shifted[1:]:
            part = torch.maximum(part, other)
    return part


def _mean(node: fx.Node) -> GlobalMean | None:
    """A mean over the last two or three axes."""
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    keepdim = bool(node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False))
    if not isinstance(dims, list | tuple) or set(node.kwargs) - {"dim", "keepdim"}:
        return None
    found = sorted(int(d) for d in dims)
    return GlobalMean(len(found), keepdim) if found in ([-2, -1], [2, 3], [-3, -2, -1], [2, 3, 4]) else None


def _each(value: Any, ndim: int) -> tuple[int, ...]:
    """One number an axis."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    values = values * ndim if len(values) == 1 else values
    return tuple(int(v) for v in values)


def _all_ones(size: Any) -> bool:
    return bool(size) and all(n == 1 for n in (size if isinstance(size, list | tuple) else (size,)))
