"""Maps home: what was found on the model's grid, drawn on the scan's own."""

from __future__ import annotations

import nibabel as nib
import numpy as np

from glas3d.core.search import Segments, paint
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.scan import Scan
from glas3d.imaging.space import VoxelGrid, grid_of, resample


class Drawing:
    """Draws on the scan's own grid what was found on the grid the model was asked on.

    Segments are painted on their labels on the scan's grid, other maps are resampled linearly.
    """

    def __init__(self, scan: Scan, grid: VoxelGrid, atlas: Atlas | None, segments: Segments | None) -> None:
        self._scan, self._grid, self._segments = scan, grid, segments
        self._own = grid_of(scan)
        if segments is not None:
            self._labels = segments.labels.astype(np.int32)
            if not self._own.same_as(grid):
                img = nib.Nifti1Image(self._labels, grid.affine)
                self._labels = resample(img, self._own, "nearest") if atlas is None else atlas.on(self._own)

    def segments(self, values: np.ndarray, which: np.ndarray | None = None) -> nib.Nifti1Image:
        """Values of all segments, or of ``which`` of them."""
        assert self._segments is not None
        index = self._segments.index if which is None else self._segments.index[which]
        return self._scan.like(paint(self._labels, index, values))

    def volume(self, values: np.ndarray) -> nib.Nifti1Image:
        """A volume on the model's grid."""
        if not self._own.same_as(self._grid):
            values = resample(nib.Nifti1Image(values, self._grid.affine), self._own)
        return self._scan.like(values)
