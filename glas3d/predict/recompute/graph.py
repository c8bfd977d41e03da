"""One graph of a network and its transform, none of whose steps changes a tensor in place."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from glas3d.core.model import CannotRecompute
from glas3d.errors import reason

# What replaces an operation in place; any other operation with a trailing underscore is refused.
_IN_PLACE: dict[Any, Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    torch.relu_: torch.relu,
    torch.sigmoid_: torch.sigmoid,
    torch.tanh_: torch.tanh,
}


class _TransformAndNetwork(nn.Module):
    """Transform and network as one module; the transform may be any callable of tensors."""

    def __init__(self, net: nn.Module, transform: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
        super().__init__()
        self.net = net
        self.transform = transform

    def forward(self, volume: torch.Tensor) -> Any:
        return self.net(volume if self.transform is None else self.transform(volume))


def trace(net: object, transform: Callable[[torch.Tensor], torch.Tensor] | None) -> fx.GraphModule:
    """Return the steps from a batch to the network's output, none of which changes the output of another step.

    The network must be in eval mode: the steps that it makes in this mode are traced.

    Parameters
    ----------
    net
        The network, a torch module.
    transform
        Applied to a batch before the network; None: nothing is.

    Raises
    ------
    CannotRecompute
        Not a torch module, one whose steps depend on the values, one with hooks, or one that changes activations in
        place in a way that is not known.
    """
    if not isinstance(net, nn.Module):
        raise CannotRecompute("the model is no torch module")
    if any(m._forward_hooks or m._forward_pre_hooks for m in net.modules()):
        raise CannotRecompute("hooks are registered on the network")
    try:
        traced = fx.symbolic_trace(_TransformAndNetwork(net, transform))
    except Exception as error:  # the code of a network and of a transform is run, and may fail in any way
        raise CannotRecompute(f"the steps of the model cannot be followed: {reason(error)}") from error
    _out_of_place(traced)
    return traced


def _out_of_place(traced: fx.GraphModule) -> None:
    """Make every step return a new tensor, which the steps after it read."""
    graph = traced.graph
    for position, node in enumerate(list(graph.nodes)):
        if not _makes_out_of_place(traced, node):
            continue
        later = set(list(graph.nodes)[position + 1 :])
        (changed,) = node.all_input_nodes[:1] or (None,)
        if changed is not None:
            changed.replace_all_uses_with(node, delete_user_cb=lambda user, later=later: user in later)
    graph.lint()


def _makes_out_of_place(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Make one step return a new tensor; return whether it changed its input before."""
    if node.op == "call_module":
        module = traced.get_submodule(str(node.target))
        if not getattr(module, "inplace", False):
            return False
        name = f"{node.name}_out_of_place"
        replacement = copy.copy(module)  # the parameters stay shared
        replacement.inplace = False  # type: ignore[assignment]
        traced.add_submodule(name, replacement)
        node.target = name
        return True
    if node.op == "call_function":
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
            return True
        if node.target in _IN_PLACE:
            node.target = _IN_PLACE[node.target]
            return True
    if node.op in ("call_function", "call_method"):
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            operation = _without_mutation(node.target)
            if operation is not None:
                node.target = operation
                return True
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        name = name.removesuffix(".default")
        if node.op == "call_method" and name in ("relu_", "sigmoid_", "tanh_", "add_", "sub_", "mul_", "div_"):
            node.target = name[:-1]
            return True
        if node.target is operator.setitem or (name.endswith("_") and not name.endswith("__")):
            raise CannotRecompute(f"the network changes activations in place by {name}")
    return False


def _without_mutation(operation: torch._ops.OpOverload) -> torch._ops.OpOverload | None:
    """Return the ATen operation that returns what another writes into its first argument: ``relu`` for ``relu_``."""
    name, _, overload = str(operation).removeprefix("aten.").partition(".")
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    return getattr(packet, overload, None)
