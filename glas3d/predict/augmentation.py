"""Light and shadow as augmentation, so that perturbed scans are familiar to a network."""

from __future__ import annotations

import torch

from glas3d.core.gaussian import gaussian_masks
from glas3d.core.perturb import blend
from glas3d.predict.recipe import Recipe


def light_or_shade(
    batch: torch.Tensor, reference: torch.Tensor, recipe: Recipe, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch in which some scans are lit or shaded by random Gaussians, and how much of each voxel is kept.

    Parameters
    ----------
    batch
        ``(n, c, *spatial)`` scaled scans.
    reference
        ``(c, *spatial)``; the centres of the Gaussians lie where it is bright.
    recipe
        How many scans are lit or shaded, and the number and size of the Gaussians.
    generator
        Source of all random numbers.

    Returns
    -------
    A new batch of the same shape, and ``(n, 1, *spatial)``, the share of the scan's own intensity in each voxel, where
    the rest is the reference's; 1 in scans that are neither lit nor shaded.
    """
    bright = torch.nonzero(reference[0] > 0.1)
    shape = batch.shape[2:]
    smallest, largest = recipe.sigma
    augmented, kept = batch.clone(), batch.new_ones((len(batch), 1, *shape))
    for row in range(len(batch)):
        chance, kind, size = torch.rand(3, generator=generator).tolist()
        if chance >= recipe.augmented:
            continue
        count = 1 + int(torch.randint(recipe.max_gaussians, (1,), generator=generator))
        centres = bright[torch.randint(len(bright), (count,), generator=generator)]
        sigma = smallest * (largest / smallest) ** size
        masks = gaussian_masks(centres.numpy(), shape, [sigma] * len(shape)).masks(0, torch.empty((count, *shape)))
        joined = 1 - (1 - masks).prod(dim=0, keepdim=True)
        lit = kind < recipe.lit
        below, above = (reference, batch[row]) if lit else (batch[row], reference)
        blend(below, above, joined, out=augmented[row : row + 1])
        kept[row] = joined if lit else 1 - joined
    return augmented, kept
