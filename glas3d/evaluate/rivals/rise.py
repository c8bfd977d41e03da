"""RISE: the mean of random masks, each weighted by the probability that it leaves (Petsiuk et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from glas3d.checks import whole_number
from glas3d.errors import GlasError
from glas3d.evaluate.rivals.rival import LINEAR, Scores, spatial_shape


@dataclass(frozen=True, kw_only=True)
class Rise:
    """RISE, Petsiuk, Das & Saenko, BMVC 2018, on two or three spatial axes.

    A mask is a coarse grid of zeros and ones, enlarged by linear interpolation and shifted at random; the volume is
    multiplied by it. The map is the mean of the masks weighted by the probability of the target.

    Attributes
    ----------
    n_masks
        How many masks, each one model evaluation; the authors take 4,000 to 8,000.
    cells
        Cells of the coarse grid along each axis.
    keep
        The share of the cells that keep the volume, in (0, 1].
    batch_size
        Masked volumes in a batch.
    seed
        Of the random masks: the same seed gives the same map.

    Raises
    ------
    GlasError
        A setting is outside what it may be.

    Examples
    --------
    >>> bright = lambda batch: batch[:, 0, 2:4, 4:6].mean(dim=(1, 2))[:, None]
    >>> attribution = Rise(n_masks=400, cells=4).attribute(bright, torch.ones(1, 8, 12), target=0)
    >>> bool(attribution[2:4, 4:6].mean() > attribution.mean())
    True
    """

    n_masks: int = 4000
    cells: int = 7
    keep: float = 0.5
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_masks", "cells", "batch_size"):
            whole_number(name, getattr(self, name), least=1)
        if not 0 < self.keep <= 1:
            raise GlasError(f"keep must be above 0 and at most 1, got {self.keep!r}")

    @torch.inference_mode()
    def attribute(self, model: Scores, volume: torch.Tensor, target: int) -> torch.Tensor:
        """Return the map of one volume; see `Rival.attribute`.

        Parameters
        ----------
        model
            Turns a batch ``(n, c, *spatial)`` into probabilities ``(n, k)``.
        volume
            ``(c, *spatial)``.
        target
            The column that is explained.
        """
        shape, device = spatial_shape(volume), volume.device
        random = torch.Generator().manual_seed(self.seed)
        cell = [-(-n // self.cells) for n in shape]
        enlarged = [(self.cells + 1) * n for n in cell]
        saliency = torch.zeros(shape, device=device)
        for start in range(0, self.n_masks, self.batch_size):
            count = min(self.batch_size, self.n_masks - start)
            kept = torch.rand((count, 1, *[self.cells] * len(shape)), generator=random) < self.keep
            smooth = functional.interpolate(kept.float().to(device), size=enlarged, mode=LINEAR[len(shape)])
            masks = torch.empty((count, 1, *shape), device=device)
            for mask, whole in zip(masks, smooth, strict=True):
                corner = [int(torch.randint(n, (), generator=random)) for n in cell]
                mask.copy_(whole[(slice(None), *(slice(x, x + n) for x, n in zip(corner, shape, strict=True)))])
            saliency += torch.tensordot(model(volume * masks)[:, target], masks[:, 0], dims=1)
        return saliency / (self.n_masks * self.keep)
