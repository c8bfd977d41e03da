"""Whether the weights of a network are the same as before."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from glas3d.hashing import bytes_sha256

# How many values of each tensor the fingerprint contains.
_SAMPLED = 4096


def digest(net: nn.Module) -> str:
    """Return the hash of all values of a network's parameters and buffers."""

    def parts() -> Iterator[bytes | memoryview]:
        for description, tensor in _described_tensors(net):
            yield description.encode()
            yield _bytes(tensor.detach().reshape(-1))

    return bytes_sha256(parts())


def fingerprint(net: nn.Module) -> str:
    """Return a hash that changes when a network's weights change, in a hundredth of the time of `digest`.

    It holds how often every parameter and buffer was written to, and some of its values: torch does not count what is
    written through ``.data``, which as a rule changes all values of a tensor.
    """

    def parts() -> Iterator[bytes | memoryview]:
        for description, tensor in _described_tensors(net):
            n_writes = 0 if tensor.is_inference() else tensor._version
            flat = tensor.detach().reshape(-1)
            yield f"{description} {n_writes}".encode()
            yield _bytes(flat[:: max(1, len(flat) // _SAMPLED)])

    return bytes_sha256(parts())


def _described_tensors(net: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each parameter and buffer, after its name, type and shape."""
    for name, tensor in net.state_dict(keep_vars=True).items():
        if isinstance(tensor, torch.Tensor):
            yield f"{name} {tensor.dtype} {tuple(tensor.shape)}", tensor


def _bytes(flat: torch.Tensor) -> memoryview:
    return flat.cpu().contiguous().view(torch.uint8).numpy().data
