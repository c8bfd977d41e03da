"""Orientation and voxel size of a bundle's scans, by MONAI's own transforms."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from glas3d.errors import GlasError, reason
from glas3d.imaging.scan import Scan
from glas3d.imaging.space import VoxelGrid, grid_of


@dataclass(frozen=True, eq=False)
class MonaiResampling:
    """The transforms that bring a scan to the voxel grid that a model takes it on, which depends on the scan's own.

    Attributes
    ----------
    transforms
        ``Orientation`` and ``Spacing`` of MONAI, in their order.
    """

    transforms: tuple[Callable[[Any], Any], ...]

    def grid_for(self, grid: VoxelGrid) -> VoxelGrid:
        """Return the grid of a scan that was recorded on ``grid``, after the transforms."""
        return self._apply(np.zeros(grid.shape, dtype=np.float32), grid)[1]

    def resample(self, scan: Scan) -> np.ndarray:
        """Return a scan's intensities on its grid after the transforms, float32."""
        return self._apply(scan.data, grid_of(scan))[0]

    def _apply(self, data: np.ndarray, grid: VoxelGrid) -> tuple[np.ndarray, VoxelGrid]:
        volume: Any = MetaTensor(torch.tensor(data)[None], affine=torch.as_tensor(grid.affine))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # MONAI's, about its own code
                for transform in self.transforms:
                    volume = transform(volume)
        except Exception as error:  # arguments may be of any kind
            raise GlasError(
                f"the model's preprocessing cannot resample a scan of {grid.shape} voxels: {reason(error)}"
            ) from error
        values = np.asarray(volume.as_tensor()[0].numpy(), dtype=np.float32)
        return values, VoxelGrid(tuple(values.shape), np.asarray(volume.affine, dtype=np.float64))
