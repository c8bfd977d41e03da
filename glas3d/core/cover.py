"""What masks cover: the sum of each over voxels, and whether all of them together nearly partition the searched voxels.

Sums turn evidence into density. Evidence adds up to the effect of the whole volume only where masks share it out among
them: where their sum at each voxel is near 1 (documentation: "How much the regions account for").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from glas3d.core.gaussian import AddedMasks, Masks
from glas3d.core.search import Segments

# Masks nearly partition voxels when their sum there has a mean within these, and at most this 99th percentile.
_LEAST_MEAN, _MOST_MEAN, _MOST_PERCENTILE = 0.8, 1.1, 1.5
_REACHED = 0.1  # the sum of masks at a voxel that is searched at all
# Values of masks that are held at a time (4 MiB of float32).
_AT_A_TIME = 2**20


def overlaps(masks: Masks, segments: Segments, device: torch.device | str = "cpu") -> np.ndarray:
    """Return the share of each segment that each mask covers: ``(m, k)``, a row a mask and a column a segment."""
    shape, m = segments.labels.shape, len(masks)
    buffer = torch.empty((1, *shape), device=device)
    order = np.argsort(segments.index)
    inside = np.isin(segments.labels, segments.index)
    owner = order[np.searchsorted(segments.index[order], segments.labels[inside])]
    sums = np.empty((m, len(segments.index)))
    for number in range(m):
        values = masks.masks(number, buffer)[0].cpu().numpy()[inside]
        sums[number] = np.bincount(owner, weights=values, minlength=len(segments.index))
    return np.asarray(sums / segments.n_voxels)


@dataclass(frozen=True, eq=False)
class Cover:
    """What the masks of one end cover.

    Attributes
    ----------
    sums
        ``(m,)`` float64, each mask summed over voxels.
    mean, percentile
        Of the sum of all masks at each searched voxel: its mean, and its 99th percentile.
    """

    sums: np.ndarray
    mean: float
    percentile: float

    @classmethod
    def of(
        cls, masks: Masks, shape: Sequence[int], searched: np.ndarray | None, device: torch.device | str = "cpu"
    ) -> Cover:
        """Add up masks.

        Parameters
        ----------
        masks
            The masks of ``m`` points, on a device.
        shape
            Voxels on each axis.
        searched
            ``(*spatial)`` booleans, the voxels that are searched; None: all.
        """
        sums, total = _added(masks, tuple(shape), device)
        covered = total.cpu().numpy()
        covered = covered.ravel() if searched is None else covered[searched]
        return cls(sums.cpu().numpy(), float(covered.mean(dtype=np.float64)), float(np.percentile(covered, 99)))

    @property
    def is_partition(self) -> bool:
        """Whether the masks nearly partition the searched voxels."""
        return _LEAST_MEAN <= self.mean <= _MOST_MEAN and self.percentile <= _MOST_PERCENTILE


def reached(masks: Masks, within: np.ndarray, device: torch.device | str = "cpu") -> float:
    """Return the share of some voxels, ``(*spatial)`` booleans, at which all masks together have a tenth or more."""
    _, total = _added(masks, within.shape, device)
    return float((total.cpu().numpy()[within] >= _REACHED).mean())


def _added(masks: Masks, shape: tuple[int, ...], device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sum of each mask over voxels ``(m,)`` float64, and that of all masks ``(*spatial)`` float32."""
    if isinstance(masks, AddedMasks) and (added := masks.added()) is not None:
        return added
    m = len(masks)
    n = max(1, min(m, _AT_A_TIME // int(np.prod(shape))))
    buffer, total = torch.empty((n, *shape), device=device), torch.zeros(shape, device=device)
    sums = []
    for start in range(0, m, n):
        some = masks.masks(start, buffer[: min(n, m - start)])
        sums.append(some.flatten(1).sum(dim=1, dtype=torch.float64))
        total += some.sum(dim=0)
    return torch.cat(sums), total
