"""MASK: a mask that is learnt by gradients to delete as little as possible (Fong & Vedaldi 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from glas3d.checks import whole_number
from glas3d.evaluate.rivals.rival import LINEAR, Scores, spatial_shape


def blurred(volume: torch.Tensor, sigma: float = 10.0) -> torch.Tensor:
    """Return a volume ``(c, *spatial)`` blurred by a Gaussian of ``sigma`` voxels along its spatial axes."""
    sigmas = (0, *[sigma] * len(spatial_shape(volume)))
    return torch.from_numpy(gaussian_filter(volume.detach().cpu().numpy(), sigmas)).to(volume.device)


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask:
    """MASK, Fong & Vedaldi, ICCV 2017, on two or three spatial axes.

    A coarse mask is learnt by gradient descent (Adam) so that the volume, blurred where the mask is low, has a low
    probability of the target while little is blurred. The map is 1 minus the mask.

    Attributes
    ----------
    n_steps
        Steps of gradient descent, each one forward pass and one backward pass.
    side
        Cells of the mask along each axis.
    sparsity, smoothness
        How much blurred volume and how much unevenness of the mask cost.
    exponent
        Of the mask's differences in the smoothness term.
    learning_rate
        Of Adam.
    background
        ``(c, *spatial)``: what takes the place of deleted voxels. None: the volume, `blurred`.

    Raises
    ------
    GlasError
        A number of steps or of cells that is not a whole number of at least 1.

    Examples
    --------
    >>> bright = lambda batch: batch[:, 0, 2:4, 4:6].mean(dim=(1, 2))[:, None]
    >>> volume = torch.zeros(1, 8, 12)
    >>> volume[0, 2:4, 4:6] = 1
    >>> attribution = Mask(n_steps=50, side=8).attribute(bright, volume, target=0)
    >>> bool(attribution[2:4, 4:6].mean() > attribution.mean())
    True
    """

    n_steps: int = 300
    side: int = 28
    sparsity: float = 1e-2
    smoothness: float = 2e-1
    exponent: float = 3.0
    learning_rate: float = 0.1
    background: torch.Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("n_steps", "side"):
            whole_number(name, getattr(self, name), least=1)

    def attribute(self, model: Scores, volume: torch.Tensor, target: int) -> torch.Tensor:
        """Return the map of one volume, in [0, 1]; see `Rival.attribute`.

        Parameters
        ----------
        model
            Turns a batch ``(n, c, *spatial)`` into probabilities ``(n, k)`` and lets gradients through.
        volume
            ``(c, *spatial)``.
        target
            The column that is explained.
        """
        shape = spatial_shape(volume)
        background = blurred(volume) if self.background is None else self.background
        mask = torch.full((1, 1, *[self.side] * len(shape)), 0.5, device=volume.device, requires_grad=True)
        optimiser = torch.optim.Adam([mask], lr=self.learning_rate)
        for _ in range(self.n_steps):
            enlarged = functional.interpolate(mask, size=shape, mode=LINEAR[len(shape)])
            probability = model(background + (volume - background) * enlarged)[0, target]
            uneven = sum(mask.diff(dim=axis).abs().pow(self.exponent).mean() for axis in range(2, mask.ndim))
            loss = self.sparsity * (1 - mask).abs().mean() + self.smoothness * uneven + probability
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            mask.data.clamp_(0, 1)
        return 1 - enlarged.detach()[0, 0]
