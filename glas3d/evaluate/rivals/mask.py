"""MASK: a mask that is learnt by gradients to delete as little as possible (Fong & Vedaldi 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from glas3d.checks import whole_number
from glas3d.evaluate.rivals.rival import LINEAR, Rival, Task

_SIDE = {2: 28, 3: 12}


@dataclass(frozen=True, kw_only=True)
class Mask(Rival):
    """A coarse mask that deletes the class with as little as possible, learnt by gradients (Fong & Vedaldi 2017).

    The mask is learnt (by Adam) so that the volume, faded to the reference where the mask is low, has a low probability
    of the target while little is deleted. The map is 1 minus the mask. The authors' reference is a blurred copy of the
    image.

    Parameters
    ----------
    n_steps
        Steps of gradient descent, each a forward and a backward pass.
    side
        Cells of the mask along each axis. None: 28 for an image, 12 for a volume, at most as many as it has voxels.
    sparsity, smoothness
        How much deleted volume and how much unevenness of the mask cost.
    exponent
        Of the mask's differences in the smoothness term.
    learning_rate
        Of Adam.

    Raises
    ------
    GlasError
        A number of steps or of cells that is not a whole number of at least 1.
    """

    links: ClassVar = ("probability",)
    needs: ClassVar = ("gradients",)
    n_steps: int = 300
    side: int | None = None
    sparsity: float = 1e-2
    smoothness: float = 2e-1
    exponent: float = 3.0
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        whole_number("n_steps", self.n_steps, least=1)
        if self.side is not None:
            whole_number("side", self.side, least=1)

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the map, ``(*spatial)`` in [0, 1]; see `Rival.attribute`."""
        shape = task.shape
        cells = [min(n, self.side or _SIDE[len(shape)]) for n in shape]
        mask = torch.full((1, 1, *cells), 0.5, device=task.difference.device, requires_grad=True)
        optimiser = torch.optim.Adam([mask], lr=self.learning_rate)
        with torch.enable_grad():
            for _ in range(self.n_steps):
                enlarged = functional.interpolate(mask, size=shape, mode=LINEAR[len(shape)])
                probability = task.value(task.difference * enlarged)[0, 0]
                uneven = sum(mask.diff(dim=axis).abs().pow(self.exponent).mean() for axis in range(2, mask.ndim))
                loss = self.sparsity * (1 - mask).abs().mean() + self.smoothness * uneven + probability
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                mask.data.clamp_(0, 1)
            learnt = functional.interpolate(mask, size=shape, mode=LINEAR[len(shape)])
        return 1 - learnt.detach()[0, 0]
