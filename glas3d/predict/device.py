"""Which device a network computes on, and by which kernels."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from glas3d.errors import GlasError

_lock = threading.Lock()
_exact: list[ExitStack] = []  # one entry for each evaluation that is in progress; the first has torch's own settings


@contextmanager
def exact_kernels() -> Iterator[None]:
    """Let cuDNN use exact kernels that repeat their bits, until the last of the threads that need them is done.

    TF32 would be off by a thousandth, and the fastest kernels do not repeat their bits.
    """
    with _lock:
        flags = _exact[0] if _exact else ExitStack()
        if not _exact:
            flags.enter_context(
                torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
            )
        _exact.append(flags)
    try:
        yield
    finally:
        with _lock:
            flags = _exact.pop()
            if not _exact:
                flags.close()


def choose_device(net: object, device: str | torch.device) -> torch.device:
    """Return the device that a model computes on.

    Parameters
    ----------
    net
        A torch module, or any callable.
    device
        ``"auto"``: where the module is; when that is the CPU, CUDA where the machine has it. A callable stays on the
        CPU. Otherwise the name of a torch device.

    Raises
    ------
    GlasError
        Not a device of torch, or one that this machine does not have.
    """
    if device != "auto":
        return _named(device)
    current = next((t.device for t in tensors_of(net)), None) if isinstance(net, nn.Module) else None
    if current is not None and current.type != "cpu":
        return current
    if isinstance(net, nn.Module) and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def tensors_of(net: nn.Module) -> list[torch.Tensor]:
    """Return the parameters and buffers of a network."""
    return [*net.parameters(), *net.buffers()]


def _named(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
    except RuntimeError:
        hint = "; for a GPU give cuda" if str(device).lower().startswith("gpu") else ""
        raise GlasError(f"device must be auto, cpu, cuda or another device of torch, got {device!r}{hint}") from None
    missing = (chosen.type == "cuda" and not torch.cuda.is_available()) or (
        chosen.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        kind = chosen.type.upper()
        raise GlasError(
            f"device must be one that this machine has, got {device!r}, but torch finds no {kind} here: give cpu"
        )
    if chosen.type != "cuda":
        return chosen
    return torch.device("cuda", torch.cuda.current_device() if chosen.index is None else chosen.index)
