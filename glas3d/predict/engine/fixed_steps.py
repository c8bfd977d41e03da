"""Whether a network makes the same steps for all inputs of one shape, so that an engine that agrees once always does.

A tracer records the steps that a network made for one input. Another input may take a branch that was not recorded,
and a module may read something that no fingerprint shows. Neither is possible in a network of modules whose code is
known, with nothing hung onto them, that can be evaluated without any values.
"""

from __future__ import annotations

import copy
import sys
import types
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import nn

# Packages whose modules compute their output from their inputs, parameters, buffers and attributes, and nothing else.
_KNOWN = ("torch.nn.modules", "monai.networks", "glas3d")
# Where functions that such modules hold, such as activations, may come from.
_KNOWN_FUNCTIONS = ("torch", "monai", "glas3d")
_DATA = (type(None), bool, int, float, complex, str, bytes, Enum, type, np.generic, np.ndarray)
# Members that hold what `parameters()`, `buffers()` and `modules()` return.
_REGISTERED = ("_parameters", "_buffers", "_modules")
_OF_TORCH = (torch.Tensor, torch.dtype, torch.device, torch.layout, torch.memory_format)
# What torch imports to evaluate anything without values, and how long that takes.
_IMPORTED, _SECONDS_TO_IMPORT = "torch.fx.experimental.symbolic_shapes", 1.0


def seconds_to_try() -> float:
    """Return how long `has_fixed_steps` is expected to take at most: next to nothing, or the import that it needs."""
    return 0.0 if _IMPORTED in sys.modules else _SECONDS_TO_IMPORT


def has_fixed_steps(net: nn.Module, inputs: tuple[torch.Tensor, ...]) -> bool:
    """Return whether a network makes the same steps for all inputs of some shapes, until its fingerprint changes.

    That is so where

    - all its modules are classes of torch.nn, monai.networks or glas3d, without hooks, and hold only data and
      functions of these packages;
    - it can be evaluated on tensors that have shapes and no values. A branch, a shape or a number that depends on
      values cannot.

    Otherwise nothing is known, and False is returned.

    Parameters
    ----------
    net
        The network, in eval mode or not.
    inputs
        The batch and the covariates, without values: tensors on the meta device.
    """
    return all(_is_known(module) for module in net.modules()) and _needs_no_values(net, inputs)


def hooks_on_all_modules() -> bool:
    """Return whether hooks are registered that torch calls for all modules, and that may change outputs."""
    registered = nn.modules.module
    return bool(registered._global_forward_hooks or registered._global_forward_pre_hooks)


def has_known_code(module: nn.Module) -> bool:
    """Return whether a module's class is one of the packages whose modules keep nothing of what they evaluate."""
    return _is_in(type(module), _KNOWN)


def _is_known(module: nn.Module) -> bool:
    if not has_known_code(module) or module._forward_hooks or module._forward_pre_hooks:
        return False
    members = vars(module).items()
    return all(_is_data(value) for name, value in members if name not in _REGISTERED and not name.endswith("_hooks"))


def _is_data(value: Any) -> bool:
    """Return whether a member of a module is data, or a function of known packages."""
    if isinstance(value, dict):
        return all(_is_data(item) for pair in value.items() for item in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_data, value))
    if isinstance(value, types.FunctionType):
        return _is_in(value, _KNOWN_FUNCTIONS) and not value.__closure__
    return isinstance(value, (*_DATA, *_OF_TORCH, types.BuiltinFunctionType))


def _is_in(item: Any, packages: tuple[str, ...]) -> bool:
    """Return whether a class or function was defined in one of some packages."""
    return any(f"{item.__module__}.".startswith(f"{package}.") for package in packages)


def _needs_no_values(net: nn.Module, inputs: tuple[torch.Tensor, ...]) -> bool:
    """Return whether a copy of a network whose tensors have shapes alone can be evaluated."""
    try:
        without_values: dict[int, Any] = {}
        for tensor in [*net.parameters(), *net.buffers()]:
            empty = torch.empty_like(tensor, device="meta", requires_grad=False)
            is_parameter = isinstance(tensor, nn.Parameter)
            without_values[id(tensor)] = nn.Parameter(empty, requires_grad=False) if is_parameter else empty
        shapes = copy.deepcopy(net, without_values).eval()
        with torch.no_grad():
            shapes(*inputs)
    except Exception:  # each operation without such an evaluation has an error of its own
        return False
    return True
