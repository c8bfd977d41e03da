"""What of a model's answer is explained, when it answers every voxel."""

from __future__ import annotations

import numpy as np
import torch

from glas3d.checks import whole_number
from glas3d.errors import GlasError


class RegionMean:
    """Mean of one channel of the answer over regions: the `readout` of a `Predictor` for segmentation networks.

    Parameters
    ----------
    region
        On the grid of the model's output, ``(*spatial)``: booleans (one region), or whole numbers, a region each
        (0 is none). A column each, in the order of `labels`.
    channel
        Axis 1 of the activated answer. One sigmoid logit has two, as everywhere: 1 is its probability.

    Attributes
    ----------
    labels
        The numbers of the regions, ascending; 1 for booleans.

    Raises
    ------
    GlasError
        Regions that are neither, or none; when asked, an answer without that channel or on another grid.

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
            raise GlasError(f"a region must hold a voxel at least, got none on {array.shape}")
        self.labels = tuple(int(label) for label in labels)
        self.shape, self.channel = array.shape, whole_number("channel", channel, least=0)
        flat = array.ravel()
        self._places = [torch.from_numpy(np.flatnonzero(flat == label)) for label in labels]

    def __call__(self, answer: torch.Tensor) -> torch.Tensor:
        """``(n, k, *spatial)`` to ``(n, regions)``."""
        if not isinstance(answer, torch.Tensor):
            raise GlasError(f"RegionMean reads one tensor (n, k, *spatial), the model gives {type(answer).__name__}")
        if answer.ndim < 2 or tuple(answer.shape[2:]) != self.shape or self.channel >= answer.shape[1]:
            raise GlasError(
                f"RegionMean reads channel {self.channel} of (n, k, *{self.shape}), the grid of its region, "
                f"the model gives {tuple(answer.shape)}"
            )
        self._places = [place.to(answer.device) for place in self._places]  # moves once
        flat = answer[:, self.channel].flatten(1)
        return torch.stack([flat[:, place].mean(dim=1) for place in self._places], dim=1)
