"""Whether a network is the same as before: its weights, and everything else that its output depends on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from glas3d.hashing import bytes_sha256
from glas3d.predict.engine.fixed_steps import has_known_code

# How many values of each tensor the fingerprint contains, beside the sum of all.
_SAMPLED = 4096
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, np.generic)
# Members of a module that are described on their own, or say nothing of its output.
_SKIPPED = ("training", "_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "_is_full_backward_hook")


def digest(net: nn.Module) -> str:
    """Return the hash of all values of a network's parameters, buffers and attributes, the same in every process."""
    return _hash(_described_state(net, own=False))


def weights_digest(net: nn.Module) -> str:
    """Return the hash of what a network learnt: the parameters and buffers that are saved with it.

    It is the same in every process, and while the network is evaluated: attributes, in which a network may note what it
    has evaluated, are not part of it.
    """
    described = (_described(name, value, own=False) for name, value in net.state_dict().items())
    return _hash(chain([(type(net).__qualname__, None)], chain.from_iterable(described)))


def _hash(state: Iterable[tuple[str, torch.Tensor | None]]) -> str:
    """Return the hash of descriptions and of the values of tensors."""

    def parts() -> Iterator[bytes | memoryview]:
        for description, tensor in state:
            yield description.encode()
            if tensor is not None:
                yield _bytes(_flat(tensor))

    return bytes_sha256(parts())


def fingerprint(net: nn.Module) -> str:
    """Return a hash that changes when a network changes, in a hundredth of the time of `digest`.

    It holds, of every parameter, buffer and tensor in an attribute, where it is, how often it was written to, the sum
    of the bits of its values and some of the values; of other attributes their values, or which objects they are; and
    which hooks there are. What is in lists and dictionaries of modules of unknown code, and what such modules read from
    elsewhere, is not noticed: engines are compared with such a network at the start of every explanation as well.
    """

    def parts() -> Iterator[bytes | memoryview]:
        for description, tensor in _described_state(net, own=True):
            yield description.encode()
            if tensor is None:
                continue
            flat = _flat(tensor)
            n_writes = 0 if tensor.is_inference() else tensor._version
            integers = _INTEGERS.get(flat.element_size())
            total = 0 if integers is None else int(flat.contiguous().view(integers).sum(dtype=torch.int64))
            yield f" {tensor.data_ptr() if tensor.layout == torch.strided else 0} {n_writes} {total}".encode()
            yield _bytes(flat[:: max(1, len(flat) // _SAMPLED)])

    return bytes_sha256(parts())


def _described_state(net: nn.Module, own: bool) -> Iterator[tuple[str, torch.Tensor | None]]:
    """Yield a description of each part of a network's state, with its tensor if it is one.

    Parameters
    ----------
    own
        Describe objects of other kinds by which object of this process they are, not by their type alone.
    """
    for name, module in net.named_modules():
        yield f"\n{name}: {type(module).__module__}.{type(module).__qualname__}", None
        if isinstance(module, torch.jit.ScriptModule):  # of all its members it lists the tensors alone
            for key, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
                yield from _described(f"{name}.{key}", tensor, own)
            continue
        for members in (module._parameters, module._buffers):
            for key, member in members.items():
                yield from _described(f"{name}.{key}", member, own)
        for key, value in sorted(vars(module).items()):
            if key not in _SKIPPED:
                yield from _described(f"{name}.{key}", value, own, in_containers=own and has_known_code(module))


def _described(
    name: str, value: Any, own: bool, *, in_containers: bool = False
) -> Iterator[tuple[str, torch.Tensor | None]]:
    """Yield the description of one value; ``in_containers``: what lists, dictionaries and sets hold is part of it."""
    if isinstance(value, torch.Tensor):
        has_values = not torch.nn.parameter.is_lazy(value) and value.device.type != "meta"
        shape = tuple(value.shape) if has_values else ""
        yield f"\n{name} {value.dtype} {shape}", value.detach() if has_values else None
    elif isinstance(value, _PLAIN):
        yield f"\n{name} {value!r}", None
    elif isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        yield f"\n{name} {value.dtype} {value.shape} {bytes_sha256([np.ascontiguousarray(value).tobytes()])}", None
    elif isinstance(value, dict) and (in_containers or name.endswith("_hooks")):
        for number, (key, item) in enumerate(value.items()):
            if in_containers:
                yield from _described(f"{name}[{number}] key", key, own)
            yield from _described(f"{name}[{number}]", item, own, in_containers=in_containers)
    elif isinstance(value, tuple) or (in_containers and isinstance(value, list | set)):
        for number, item in enumerate(value):
            yield from _described(f"{name}[{number}]", item, own, in_containers=in_containers)
    elif not isinstance(value, list | dict | set):  # a network may note in these what it has evaluated
        yield f"\n{name} {type(value).__qualname__} {id(value) if own else ''}", None


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor's values in one row; of a sparse one those that it holds."""
    detached = tensor.detach()
    if detached.layout != torch.strided:
        detached = detached.to_dense()
    return detached.reshape(-1)


def _bytes(flat: torch.Tensor) -> memoryview:
    return flat.cpu().contiguous().view(torch.uint8).numpy().data
