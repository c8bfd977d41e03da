"""Windows: boxes of one size, one a perturbed volume, outside of which it is what it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class Windows:
    """Where each of ``m`` volumes, or activations of them, can differ from a known one.

    The boxes differ in size; the windows that hold them are as large as the largest box, so that many of them make
    one batch, and are moved inwards where they would leave the volume.

    Attributes
    ----------
    low, high
        ``(m, ndim)`` int64: each box's first corner, and that behind its last; equal where nothing differs.
    shape
        Voxels an axis of the whole.
    """

    low: np.ndarray
    high: np.ndarray
    shape: tuple[int, ...]

    @classmethod
    def of(cls, low: np.ndarray, high: np.ndarray, shape: Sequence[int]) -> Windows:
        """Boxes cut to the whole; those that end before they begin are empty."""
        low = np.clip(np.asarray(low, dtype=np.int64), 0, shape)
        return cls(low, np.clip(np.asarray(high, dtype=np.int64), low, shape), tuple(shape))

    def __len__(self) -> int:
        return len(self.low)

    @cached_property
    def size(self) -> tuple[int, ...]:
        """Voxels an axis of every window, at least 1."""
        extent = (self.high - self.low).max(axis=0, initial=1)
        return tuple(int(n) for n in extent)

    @cached_property
    def corner(self) -> np.ndarray:
        """``(m, ndim)`` the first corner of every window."""
        found: np.ndarray = np.minimum(self.low, np.asarray(self.shape) - self.size)
        return found

    @property
    def share(self) -> float:
        """Of the whole that a window holds."""
        return float(np.prod(np.asarray(self.size) / self.shape))

    def within(self, low: np.ndarray, high: np.ndarray) -> Windows:
        """What of the boxes lies in one box."""
        return Windows.of(np.maximum(self.low, low), np.minimum(self.high, high), self.shape)

    def joined(self, other: Windows) -> Windows:
        """The smallest boxes that hold both."""
        return Windows.of(np.minimum(self.low, other.low), np.maximum(self.high, other.high), self.shape)


def crop(whole: torch.Tensor, corner: Sequence[int] | np.ndarray, size: Sequence[int] | np.ndarray) -> torch.Tensor:
    """A view of the last axes of a tensor."""
    for axis, (start, n) in enumerate(zip(corner, size, strict=True), whole.ndim - len(size)):
        whole = whole.narrow(axis, int(start), int(n))
    return whole


def extent(differs: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The smallest box that holds every true voxel of ``(*spatial)``: its first corner, and that behind its last."""
    low, high = [], []
    for axis in range(differs.ndim):
        others = [a for a in range(differs.ndim) if a != axis]
        found = torch.nonzero(differs.amax(dim=others) if others else differs).flatten()
        low.append(int(found[0]) if len(found) else 0)
        high.append(int(found[-1]) + 1 if len(found) else 0)
    return np.array(low), np.array(high)
