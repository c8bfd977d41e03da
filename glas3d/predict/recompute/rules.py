"""The rules by which a step of a network confines a change to a window, and how it is computed on a part of its input.

Three kinds of steps confine a change: those whose output at a voxel depends on a neighbourhood of it (`Neighbourhood`:
convolution, pooling), on that voxel alone (`Pointwise`: activations, batch normalisation in eval mode, sums,
concatenation of channels), and the mean over space (`GlobalMean`), which a change shifts. Every other step is computed
as a whole.
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

from glas3d.core.accelerate.windows import Windows


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """A step whose output at ``o`` depends on ``reach`` voxels of the input, from ``o * stride - padding`` on.

    Attributes
    ----------
    kernel, stride, dilation, padding
        One number for each axis; the padding is that before the first voxel.
    outside
        The value of the padding.
    apply
        Computes the step without padding.
    divisor
        Computes, from ones of the input's shape ``(1, 1, *spatial)``, what the sums that ``apply`` returns are divided
        by; None: ``apply`` returns the output itself.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    outside: float
    apply: Callable[[torch.Tensor], torch.Tensor]
    divisor: Callable[[torch.Tensor], torch.Tensor] | None = None

    @property
    def reach(self) -> np.ndarray:
        """Number of voxels on each axis, from the first that an output depends on to the last."""
        reach: np.ndarray = np.asarray(self.dilation) * (np.asarray(self.kernel) - 1) + 1
        return reach

    def through(self, windows: Windows, shape: Sequence[int]) -> Windows:
        """Return where an output of this spatial shape can differ, if the input differs inside windows."""
        stride, padding = np.asarray(self.stride), np.asarray(self.padding)
        low = -((-(windows.low + padding - self.reach + 1)) // stride)
        high = (windows.high - 1 + padding) // stride + 1
        empty = (windows.high <= windows.low).any(axis=1, keepdims=True)
        return Windows.of(low, np.where(empty, low, high), shape)

    def needed(self, windows: Windows) -> tuple[np.ndarray, tuple[int, ...]]:
        """Return the first corners ``(m, ndim)`` of what the windows depend on, which may lie outside, and its size."""
        size = (np.asarray(windows.size) - 1) * self.stride + self.reach
        return windows.corner * self.stride - np.asarray(self.padding), tuple(int(n) for n in size)


@dataclass(frozen=True, eq=False)
class Pointwise:
    """A step whose output at a voxel depends on that voxel of its inputs alone.

    Attributes
    ----------
    spatial
        The positions of those of its arguments that have spatial axes; None: all of them.
    """

    spatial: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class GlobalMean:
    """The mean over space.

    Attributes
    ----------
    ndim
        Number of spatial axes, the last ones.
    keepdim
        Whether they stay, with length 1.
    """

    ndim: int
    keepdim: bool


Rule = Neighbourhood | Pointwise | GlobalMean

_CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_MAX_POOL = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_AVG_POOL = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_BATCH_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training")
_ATEN_BATCH_NORM = ("input", "weight", "bias", "running_mean", "running_var", "training")

# Functions and methods by the names that they share in torch, torch.nn.functional and aten.
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
_OTHER_FUNCTIONS = ["cat", "concat", "batch_norm", "mean", "adaptive_avg_pool2d", "adaptive_avg_pool3d"]
_FUNCTIONS: dict[Any, str] = {
    getattr(module, name): name
    for module in (torch, F, torch._C._nn, operator)
    for name in (*_POINTWISE, *_NEIGHBOURHOODS, *_OTHER_FUNCTIONS)
    if hasattr(module, name)
}
_POINTWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Sigmoid,
    nn.Tanh, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign, nn.PReLU, nn.Identity, nn.Dropout,
    nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip


def rule_of(traced: fx.GraphModule, node: fx.Node, constants: Mapping[fx.Node, Any]) -> Rule | None:
    """Return the rule by which a step confines a change; None where it does not, or is not known to.

    Parameters
    ----------
    traced, node
        The network as a graph, and one of its steps.
    constants
        The outputs of the steps that do not depend on the volume.
    """
    if node.op == "call_module":
        return _of_module(traced.get_submodule(str(node.target)))
    name = _name(node)
    if name is None or not node.args:
        return None
    if name in _POINTWISE:
        return Pointwise()
    if name in _NEIGHBOURHOODS or name == "batch_norm":
        return _of_function_with_settings(node, name, constants)
    if name in ("cat", "concat"):
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        return Pointwise() if dim == 1 else None
    if name == "mean":
        return _mean(node)
    size = node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size")
    return GlobalMean(int(name[-2]), keepdim=True) if _all_ones(size) else None


def _of_function_with_settings(node: fx.Node, name: str, constants: Mapping[fx.Node, Any]) -> Rule | None:
    """Return the rule of a convolution, a pooling or a batch normalisation; None if a setting depends on the volume."""
    names = _NEIGHBOURHOODS.get(name, _ATEN_BATCH_NORM if _is_aten(node) else _BATCH_NORM)
    settings: dict[str, Any] = {}
    for key, value in (*zip(names, node.args, strict=False), *node.kwargs.items()):
        if isinstance(value, fx.Node) and key != "input":
            if value not in constants:
                return None
            value = constants[value]
        settings[key] = value
    if name == "batch_norm":
        by_running_statistics = settings.get("running_mean") is not None and not settings.get("training")
        return Pointwise(spatial=(0,)) if by_running_statistics else None
    return _neighbourhood(name, settings)


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
    """Return whether a step is one of the operations of ATen, which exported graphs consist of."""
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


def _neighbourhood(name: str, settings: dict[str, Any]) -> Neighbourhood | None:
    """Return the rule of a convolution or pooling, from its name (``conv3d``) and its settings as torch names them."""
    ndim = int(name[-2])
    if name.startswith("conv"):
        return _convolution(ndim, settings)
    kernel = _per_axis(settings["kernel_size"], ndim)
    stride = _per_axis(settings.get("stride") or settings["kernel_size"], ndim)
    padding = _per_axis(settings.get("padding", 0), ndim)
    if name.startswith("avg"):
        return _average_pooling(kernel, stride, padding, settings)
    if settings.get("return_indices"):
        return None
    dilation = _per_axis(settings.get("dilation", 1), ndim)
    return Neighbourhood(
        kernel, stride, dilation, padding, -math.inf, lambda part: _max_pool(part, kernel, stride, dilation)
    )


def _convolution(ndim: int, settings: dict[str, Any]) -> Neighbourhood:
    stride, dilation = _per_axis(settings.get("stride") or 1, ndim), _per_axis(settings.get("dilation", 1), ndim)
    weight, bias, groups = settings["weight"], settings.get("bias"), settings.get("groups", 1)
    kernel = tuple(weight.shape[2:])
    padding = settings.get("padding", 0)
    if padding == "same":
        padding = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
    convolve: Any = F.conv2d if ndim == 2 else F.conv3d

    def apply(part: torch.Tensor) -> torch.Tensor:
        convolved: torch.Tensor = convolve(part, weight, bias, stride, 0, dilation, groups)
        return convolved

    before = _per_axis(0 if padding == "valid" else padding, ndim)
    return Neighbourhood(kernel, stride, dilation, before, 0.0, apply)


def _average_pooling(
    kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], settings: dict[str, Any]
) -> Neighbourhood:
    mean: Any = F.avg_pool2d if len(kernel) == 2 else F.avg_pool3d
    ceil, count_padding = bool(settings.get("ceil_mode", False)), bool(settings.get("count_include_pad", True))
    override = settings.get("divisor_override")

    def divisor(ones: torch.Tensor) -> torch.Tensor:
        sums, means = (mean(ones, kernel, stride, padding, ceil, count_padding, by) for by in (1, override))
        rounded: torch.Tensor = torch.round(sums / means)
        return rounded

    same_everywhere = not ceil and not any(padding)
    by = (override or math.prod(kernel)) if same_everywhere else 1
    return Neighbourhood(
        kernel,
        stride,
        (1,) * len(kernel),
        padding,
        0.0,
        lambda part: mean(part, kernel, stride, 0, divisor_override=by),
        None if same_everywhere else divisor,
    )


def _max_pool(
    part: torch.Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> torch.Tensor:
    """Return max pooling without padding, one axis after the other.

    torch's own also records where each maximum is, which takes up to ten times as long unless the channels are last.
    """
    for axis, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True), 2):
        n = (part.shape[axis] - d * (k - 1) - 1) // s + 1
        shifted = [part[(slice(None),) * axis + (slice(i * d, i * d + (n - 1) * s + 1, s),)] for i in range(k)]
        part = shifted[0]
        for other in shifted[1:]:
            part = torch.maximum(part, other)
    return part


def _mean(node: fx.Node) -> GlobalMean | None:
    """Return the rule of a mean, if it is over the last two or three axes."""
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    keepdim = bool(node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False))
    if not isinstance(dims, list | tuple) or set(node.kwargs) - {"dim", "keepdim"}:
        return None
    axes = sorted(int(d) for d in dims)
    return GlobalMean(len(axes), keepdim) if axes in ([-2, -1], [2, 3], [-3, -2, -1], [2, 3, 4]) else None


def _per_axis(value: Any, ndim: int) -> tuple[int, ...]:
    """Return one number for each axis."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    values = values * ndim if len(values) == 1 else values
    return tuple(int(v) for v in values)


def _all_ones(size: Any) -> bool:
    return bool(size) and all(n == 1 for n in (size if isinstance(size, list | tuple) else (size,)))
