"""What of a model's output is explained, when it returns more than a number for each class."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from glas3d.checks import whole_number
from glas3d.errors import GlasError


class FirstOutput(nn.Module):
    """The first output of a network that returns several tensors, class logits first, such as MONAI's ``ViT``.

    Parameters
    ----------
    net
        Any module that returns a sequence.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the first of the network's outputs."""
        first: torch.Tensor = self.net(x)[0]
        return first


class RegionMean:
    """The mean of one channel over regions: the ``readout`` of a `Predictor` for segmentation networks.

    Parameters
    ----------
    region
        ``(*spatial)`` on the grid of the model's output: booleans (one region), or whole numbers, one for each region
        (0 is outside of all). Each region becomes a column, in the order of `labels`.
    channel
        Index on axis 1 of the activated output. One sigmoid logit has two channels, as everywhere: 1 is its
        probability.

    Attributes
    ----------
    labels
        The numbers of the regions, ascending; 1 for booleans.

    Raises
    ------
    GlasError
        ``region`` holds other values, or no region; when called, an output without that channel or on another grid.

    Examples
    --------
    >>> region = np.zeros((3, 4), dtype=int)
    >>> region[0, 1:], region[2] = 12, 40
    >>> read = RegionMean(region)
    >>> read.labels
    (12, 40)
    >>> read(torch.arange(24.0).reshape(1, 2, 3, 4))
    tensor([[14.0000, 21.5000]])
    """

    def __init__(self, region: np.ndarray | torch.Tensor, channel: int = 1) -> None:
        array = np.asarray(region.cpu() if isinstance(region, torch.Tensor) else region)
        whole = array.dtype.kind in "biu" or (array.dtype.kind == "f" and bool((array == np.floor(array)).all()))
        if not whole or not np.isfinite(array).all() or (array < 0).any():
            raise GlasError(f"a region must be booleans or whole numbers from 0, got others in {array.dtype}")
        labels = np.unique(array[array != 0])
        if labels.size == 0:
            raise GlasError(f"a region must hold at least one voxel, got none on {array.shape}")
        self.labels = tuple(int(label) for label in labels)
        self.shape, self.channel = array.shape, whole_number("channel", channel, least=0)
        flat = array.ravel()
        self._voxels = [torch.from_numpy(np.flatnonzero(flat == label)) for label in labels]

    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        """Return ``(n, regions)`` of an output ``(n, k, *spatial)``."""
        if not isinstance(output, torch.Tensor):
            raise GlasError(f"RegionMean reads one tensor (n, k, *spatial), the model gives {type(output).__name__}")
        if output.ndim < 2 or tuple(output.shape[2:]) != self.shape or self.channel >= output.shape[1]:
            raise GlasError(
                f"RegionMean reads channel {self.channel} of (n, k, *{self.shape}), the grid of its region, "
                f"the model gives {tuple(output.shape)}"
            )
        self._voxels = [voxels.to(output.device) for voxels in self._voxels]  # moved once
        flat = output[:, self.channel].flatten(1)
        return torch.stack([flat[:, voxels].mean(dim=1) for voxels in self._voxels], dim=1)
