"""Occlusion by sliding Gaussian windows, as MONAI has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from glas3d.errors import GlasError
from glas3d.evaluate.rivals.rival import spatial_shape, without_warnings


@dataclass(frozen=True, kw_only=True)
class GaussianOcclusion:
    """MONAI's `OcclusionSensitivity` with Gaussian windows.

    Attributes
    ----------
    window
        Voxels of a window along each axis.
    overlap
        The share of a window that the next one covers too, from 0 to below 1.
    box
        First voxel and end along each axis: windows are placed inside only. None: everywhere.
    batch_size
        Occluded volumes in a batch; None: MONAI's choice.
    """

    window: int = 12
    overlap: float = 0.6
    box: Sequence[tuple[int, int]] | None = None
    batch_size: int | None = None

    def attribute(self, model: nn.Module, volume: torch.Tensor, target: int) -> torch.Tensor:
        """Return the map of one volume: minus the probability when a voxel is occluded; see `Rival.attribute`.

        The intact volume is not evaluated: its probability is a constant that changes no comparison within a map.

        Parameters
        ----------
        model
            A module that turns a batch ``(n, c, *spatial)`` into logits ``(n, k)``; MONAI takes the softmax.
        volume
            ``(c, *spatial)``.
        target
            The column that is explained.

        Returns
        -------
        ``(*spatial)``, NaN outside the box.

        Raises
        ------
        GlasError
            A box that does not have a pair for each axis, or lies outside the volume.
        """
        from monai.visualize.occlusion_sensitivity import OcclusionSensitivity

        shape = spatial_shape(volume)
        box = [(0, n) for n in shape] if self.box is None else list(self.box)
        if len(box) != len(shape) or any(not 0 <= low < end <= n for (low, end), n in zip(box, shape, strict=True)):
            raise GlasError(f"box must hold first voxel and end along each axis of {shape}, got {self.box!r}")
        batch: dict[str, Any] = {} if self.batch_size is None else {"n_batch": self.batch_size}
        with without_warnings():
            occlude = OcclusionSensitivity(
                model, mask_size=self.window, overlap=self.overlap, mode="gaussian", verbose=False, **batch
            )
            occluded = occlude(volume.unsqueeze(0), b_box=[edge for pair in box for edge in pair])[0]
        saliency = torch.full(shape, torch.nan, device=volume.device)
        saliency[tuple(slice(low, end) for low, end in box)] = -torch.as_tensor(occluded).to(saliency)[0, target]
        return saliency
