"""Maps in native space: results on the grid that the model was evaluated on, brought to the scan's own grid."""

from __future__ import annotations

import nibabel as nib
import numpy as np

from glas3d.core.search import Segments, paint
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.scan import Scan
from glas3d.imaging.space import Interpolation, VoxelGrid, grid_of, resample
from glas3d.imaging.spatial_transform import SpatialTransform


class NativeMapper:
    """Maps values from the grid that the model was evaluated on to the scan's own grid.

    Values of segments are painted on the segments' labels on the scan's grid; volumes are resampled linearly.

    Parameters
    ----------
    scan
        The scan whose grid the maps are on.
    grid
        The grid of the results: in the scan's world or, if there is a ``transform``, in the template's.
    atlas
        The atlas of the segments, which may have finer labels than ``segments``; None: the segments' own labels.
    segments
        The segments that values belong to, on ``grid``; None when only volumes are mapped.
    transform
        The transform from the scan's space to the template; None (default) when both are the same space.
    mask
        The voxels of the scan's grid in which segments are painted, bool; None (default): all.
    """

    def __init__(
        self,
        scan: Scan,
        grid: VoxelGrid,
        atlas: Atlas | None,
        segments: Segments | None,
        transform: SpatialTransform | None = None,
        mask: np.ndarray | None = None,
    ) -> None:
        self._scan, self._grid, self._segments, self._transform = scan, grid, segments, transform
        self._same_grid = transform is None and grid_of(scan).same_as(grid)
        if segments is not None:
            self._labels = segments.labels.astype(np.int32)
            if not self._same_grid:
                labels_img = nib.Nifti1Image(self._labels, grid.affine) if atlas is None else atlas.labels_img
                self._labels = self._to_native(labels_img, "nearest")
            if mask is not None:
                self._labels = np.where(mask, self._labels, 0)

    def segments(self, values: np.ndarray, which: np.ndarray | None = None) -> nib.Nifti1Image:
        """Return a map of the values of all segments, or of those at the positions ``which``."""
        assert self._segments is not None
        index = self._segments.index if which is None else self._segments.index[which]
        return self._scan.like(paint(self._labels, index, values))

    def volume(self, values: np.ndarray) -> nib.Nifti1Image:
        """Return a map of a volume ``grid.shape``."""
        if not self._same_grid:
            values = self._to_native(nib.Nifti1Image(values, self._grid.affine), "linear")
        return self._scan.like(values)

    def _to_native(self, img: nib.Nifti1Image, interpolation: Interpolation) -> np.ndarray:
        if self._transform is not None:
            return self._transform.to_native(img, self._scan, interpolation)
        return resample(img, grid_of(self._scan), interpolation)
