"""Maps home: what was found on the model's grid, drawn on the scan's own."""

from __future__ import annotations

import nibabel as nib
import numpy as np

from glas3d.core.search import Segments, paint
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.scan import Scan
from glas3d.imaging.space import VoxelGrid, grid_of, resample
from glas3d.imaging.transform import Interpolation, Transform


class Drawing:
    """Draws on the scan's own grid what was found on the grid the model was asked on.

    Segments are painted on their labels on the scan's grid, other maps are resampled linearly.

    Parameters
    ----------
    grid
        In the scan's own world, or in the template's when there is a ``transform``, like the atlas.
    transform
        Brings both home.
    mask
        On the scan's own grid: what of the segments was looked at.
    """

    def __init__(
        self,
        scan: Scan,
        grid: VoxelGrid,
        atlas: Atlas | None,
        segments: Segments | None,
        transform: Transform | None = None,
        mask: np.ndarray | None = None,
    ) -> None:
        self._scan, self._grid, self._segments, self._transform = scan, grid, segments, transform
        self._there = transform is None and grid_of(scan).same_as(grid)
        if segments is not None:
            self._labels = segments.labels.astype(np.int32)
            if not self._there:
                own = nib.Nifti1Image(self._labels, grid.affine)
                self._labels = self._home(own if atlas is None else atlas.labels_img, "nearest")
            if mask is not None:
                self._labels = np.where(mask, self._labels, 0)

    def segments(self, values: np.ndarray, which: np.ndarray | None = None) -> nib.Nifti1Image:
        """Values of all segments, or of ``which`` of them."""
        assert self._segments is not None
        index = self._segments.index if which is None else self._segments.index[which]
        return self._scan.like(paint(self._labels, index, values))

    def volume(self, values: np.ndarray) -> nib.Nifti1Image:
        """A volume on the model's grid."""
        if not self._there:
            values = self._home(nib.Nifti1Image(values, self._grid.affine), "linear")
        return self._scan.like(values)

    def _home(self, img: nib.Nifti1Image, interpolation: Interpolation) -> np.ndarray:
        if self._transform is not None:
            return self._transform.home(img, self._scan, interpolation)
        return resample(img, grid_of(self._scan), interpolation)
