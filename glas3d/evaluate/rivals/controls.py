"""Controls: maps that look plausible and know nothing of the model. A method must be better than they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from scipy.ndimage import gaussian_gradient_magnitude

from glas3d.evaluate.rivals.rival import Rival, Task


class Control(Rival):
    """A map that is made without the model, for which the link plays no part."""

    links: ClassVar = ("probability", "logit")


@dataclass(frozen=True, kw_only=True)
class Random(Control):
    """A standard normal number for each region.

    Parameters
    ----------
    seed
        Of the numbers: the same seed gives the same map.
    """

    seed: int = 0

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the values of the regions, ``(m,)``; see `Rival.attribute`."""
        return torch.randn(task.n_regions, generator=torch.Generator().manual_seed(self.seed))


@dataclass(frozen=True, kw_only=True)
class Edges(Control):
    """The edges of the volume: the size of its Gaussian gradient of one voxel, the largest over channels."""

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the map, ``(*spatial)``; see `Rival.attribute`."""
        edges = [torch.from_numpy(gaussian_gradient_magnitude(c.numpy(), 1.0)) for c in task.volume.cpu()]
        return torch.stack(edges).amax(dim=0)


@dataclass(frozen=True, kw_only=True)
class Difference(Control):
    """How far the volume is from the reference, ``|scan - reference|``, the largest over channels."""

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the map, ``(*spatial)``; see `Rival.attribute`."""
        return task.difference.abs().amax(dim=0)
