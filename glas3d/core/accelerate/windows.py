"""Windows: boxes of one size, one for each perturbed volume; outside of its box a volume equals its base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch


@dataclass(frozen=True, eq=False)
class Windows:
    """The boxes in which each of ``m`` volumes, or activations of them, can differ from a known base.

    The boxes differ in size; the windows that hold them are as large as the largest box, so that many of them make
    one batch, and are moved inwards where they would leave the volume.

    Attributes
    ----------
    low, high
        ``(m, ndim)`` int64: each box's first corner, and one voxel beyond its last; equal where nothing differs.
    shape
        Voxels of the whole on each axis.
    """

    low: np.ndarray
    high: np.ndarray
    shape: tuple[int, ...]

    @classmethod
    def of(cls, low: np.ndarray, high: np.ndarray, shape: Sequence[int]) -> Windows:
        """Return boxes cut to the whole; boxes that end before they begin become empty."""
        low = np.clip(np.asarray(low, dtype=np.int64), 0, shape)
        return cls(low, np.clip(np.asarray(high, dtype=np.int64), low, shape), tuple(shape))

    def __len__(self) -> int:
        return len(self.low)

    @cached_property
    def size(self) -> tuple[int, ...]:
        """Voxels of every window on each axis, at least 1."""
        largest = (self.high - self.low).max(axis=0, initial=1)
        return tuple(int(n) for n in largest)

    @cached_property
    def corner(self) -> np.ndarray:
        """``(m, ndim)`` the first corner of every window."""
        corner: np.ndarray = np.minimum(self.low, np.asarray(self.shape) - self.size)
        return corner

    @property
    def share(self) -> float:
        """Share of the whole that a window holds."""
        return float(np.prod(np.asarray(self.size) / self.shape))

    def within(self, low: np.ndarray, high: np.ndarray) -> Windows:
        """Return the part of each box that lies in one box."""
        return Windows.of(np.maximum(self.low, low), np.minimum(self.high, high), self.shape)

    def joined(self, other: Windows) -> Windows:
        """Return the smallest boxes that hold both of two boxes each."""
        return Windows.of(np.minimum(self.low, other.low), np.maximum(self.high, other.high), self.shape)


def crop(whole: torch.Tensor, corner: Sequence[int] | np.ndarray, size: Sequence[int] | np.ndarray) -> torch.Tensor:
    """Return a view of one box in the last axes of a tensor."""
    for axis, (start, n) in enumerate(zip(corner, size, strict=True), whole.ndim - len(size)):
        whole = whole.narrow(axis, int(start), int(n))
    return whole


def extent(differs: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest box that holds every true voxel of ``(*spatial)``.

    Returns
    -------
    Its first corner, and one voxel beyond its last, ``(ndim,)`` each; both 0 where no voxel is true.
    """
    low, high = [], []
    for axis in range(differs.ndim):
        others = [a for a in range(differs.ndim) if a != axis]
        true = torch.nonzero(differs.amax(dim=others) if others else differs).flatten()
        low.append(int(true[0]) if len(true) else 0)
        high.append(int(true[-1]) + 1 if len(true) else 0)
    return np.array(low), np.array(high)
