"""RISE: the mean of random masks, each weighted by the probability that it leaves (Petsiuk et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional

from glas3d.checks import is_number, whole_number
from glas3d.errors import GlasError
from glas3d.evaluate.rivals.rival import LINEAR, Rival, Task


@dataclass(frozen=True, kw_only=True)
class Rise(Rival):
    """The mean of random masks, each weighted by the probability that it leaves (RISE, Petsiuk et al. 2018).

    A mask is a coarse grid of zeros and ones, enlarged by linear interpolation and shifted at random; where it is low,
    the volume fades to the reference.

    Parameters
    ----------
    n_masks
        How many masks, each one model evaluation; the authors take 4,000 to 8,000.
    cells
        Cells of the coarse grid along each axis.
    keep
        The share of the cells that keep the volume, in (0, 1].
    seed
        Of the random masks: the same seed gives the same map.

    Raises
    ------
    GlasError
        A setting is outside what it may be.
    """

    links: ClassVar = ("probability",)
    n_masks: int = 1000
    cells: int = 7
    keep: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_masks", "cells"):
            whole_number(name, getattr(self, name), least=1)
        if not (is_number(self.keep) and 0 < self.keep <= 1):
            raise GlasError(f"keep must be above 0 and at most 1, got {self.keep!r}")

    @torch.no_grad()
    def attribute(self, task: Task) -> torch.Tensor:
        """Return the map, ``(*spatial)``; see `Rival.attribute`."""
        shape, device = task.shape, task.difference.device
        random = torch.Generator().manual_seed(self.seed)
        cell = [-(-n // self.cells) for n in shape]
        enlarged = [(self.cells + 1) * n for n in cell]
        saliency = torch.zeros(shape, dtype=torch.float64, device=device)
        for start in range(0, self.n_masks, task.batch_size):
            masks = torch.empty((min(task.batch_size, self.n_masks - start), 1, *shape), device=device)
            for mask in masks:
                kept = torch.rand((1, 1, *[self.cells] * len(shape)), generator=random) < self.keep
                smooth = functional.interpolate(kept.float().to(device), size=enlarged, mode=LINEAR[len(shape)])
                corner = [int(torch.randint(n, (), generator=random)) for n in cell]
                window: Any = tuple(slice(x, x + n) for x, n in zip(corner, shape, strict=True))
                mask.copy_(smooth[0][:, *window])
            values = task.value(task.difference * masks)[:, 0].double()
            saliency += torch.tensordot(values, masks[:, 0].double(), dims=1)
        return (saliency / (self.n_masks * self.keep)).float()
