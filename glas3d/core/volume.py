"""Volumes and backgrounds, checked where they enter the core."""

from __future__ import annotations

import numpy as np
import torch

from glas3d.errors import GlasError

Background = float | np.ndarray | torch.Tensor


def as_volume(volume: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Return a volume as a contiguous float32 tensor on the CPU.

    Raises
    ------
    GlasError
        Not finite numbers of shape ``(c, *spatial)`` with two or three spatial axes.
    """
    array = _float32(volume)
    if array is None:
        raise GlasError(f"a volume must be an array of numbers (c, *spatial), got {type(volume).__name__}")
    if array.ndim not in (3, 4) or array.numel() == 0:
        raise GlasError(f"a volume must be (c, *spatial) with two or three spatial axes, got {tuple(array.shape)}")
    if not torch.isfinite(array).all():
        raise GlasError(f"a volume must hold finite numbers, got NaN or infinity in one of {tuple(array.shape)}")
    return array.contiguous()


def as_reference(background: Background, volume: torch.Tensor) -> torch.Tensor:
    """Return a background as a float32 tensor of the volume's shape, ``(c, *spatial)``.

    A number, and an image that stands for all channels, are expanded without memory of their own.

    Raises
    ------
    GlasError
        Not finite numbers, or a shape that is neither ``()``, ``(*spatial)`` nor ``(c, *spatial)``.
    """
    reference = _float32(background)
    if reference is None:
        raise GlasError(f"background must be a number or an image, got {type(background).__name__}")
    if reference.ndim and tuple(reference.shape) not in (tuple(volume.shape), tuple(volume.shape[1:])):
        raise GlasError(f"background must be a number or of shape {tuple(volume.shape)}, got {tuple(reference.shape)}")
    if not torch.isfinite(reference).all():
        raise GlasError("background must hold finite numbers, got NaN or infinity")
    return reference.expand(volume.shape)


def _float32(values: object) -> torch.Tensor | None:
    """Return a number or array as a float32 tensor on the CPU, or None when it holds no real numbers.

    NumPy converts first: torch takes neither foreign byte order, nor negative strides, nor wide unsigned integers.
    """
    if isinstance(values, torch.Tensor):
        return None if values.is_complex() else values.detach().to(device="cpu", dtype=torch.float32)
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            return None
        return torch.from_numpy(np.array(array, dtype=np.float32))
    except (TypeError, ValueError):
        return None
