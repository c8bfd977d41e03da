"""Groups explained on a grid: maps summed voxel by voxel, and points in place of regions."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.bids_names import bids_label
from glas3d.core.saliency import minmax
from glas3d.errors import GlasError
from glas3d.explain import ranked
from glas3d.imaging.space import VoxelGrid
from glas3d.statistics.map_sums import MapSums
from glas3d.study.group.group_map import MEANS, Group, Statistic
from glas3d.study.group.participants import Read


class PointMap(Group):
    """Sums the explanations of a group on a grid, one participant at a time, in constant memory.

    Each participant's map, and its points' scores, are min-max normalised and summed; the sums are normalised again,
    as `glas3d.study.group.group_map.GroupMap` does with regions.

    Parameters
    ----------
    group
        Name of the group, for file names.
    top
        Overlap counts the participants that have a voxel among their highest ``top`` %.
    """

    def __init__(self, group: str, *, top: float = 5.0) -> None:
        super().__init__(group)
        self.top = top
        self._voxels, self._points = MapSums((0,), top), MapSums((0,), top)

    def __len__(self) -> int:
        return len(self._voxels)

    def add(self, sessions: Sequence[Read]) -> None:
        """Add one participant: the mean over its sessions' maps.

        Raises
        ------
        GlasError
            Another grid, or other points, than those before.
        """
        total: np.ndarray | None = None
        for read in sessions:
            img, rows = read.saliency_img, read.table.sort_values("index")
            if self._pattern is None or self._rows is None:
                self._pattern, self._rows = (
                    nib.Nifti1Image(np.zeros(img.shape, np.float32), img.affine, img.header),
                    rows,
                )
                self._sums = np.zeros((len(MEANS), len(rows)))
                self._voxels, self._points = MapSums(img.shape, self.top), MapSums((len(rows),), self.top)
                self._settings = {k: v for k, v in read.provenance.items() if k != "Input"}
            if (
                not self.grid.same_as(VoxelGrid(img.shape, img.affine))
                or rows["index"].tolist() != self._rows["index"].tolist()
            ):
                raise GlasError(
                    f"a group's participants must share grid and points: {read.stem} is on {img.shape} with "
                    f"{len(rows)}, those before on {self._pattern.shape} with {len(self._rows)}"
                )
            values = np.asarray(img.dataobj, dtype=np.float64)
            total = values if total is None else total + values
            self._inputs.append({**read.provenance["Input"], "probability": read.explanation.probability})
        assert total is not None
        self._voxels.add(minmax(total))
        self._table = None
        table = sessions[0].table.sort_values("index")
        self._points.add(minmax(table["score"].to_numpy(dtype=float)))
        self._sums += table[MEANS].to_numpy(dtype=float).T

    def _ranked(self) -> pd.DataFrame:
        rows, _ = self._filled()
        means = dict(zip(MEANS, self._sums / len(self), strict=True))
        return ranked(rows.assign(**means, score=self._points.combined()))

    def variation(self) -> pd.DataFrame:
        """How participants differ, one row a point: ``index name hemisphere n mean variance overlap``."""
        rows, _ = self._filled()
        sums = self._points
        rows = rows[["index", "name", "hemisphere"]].assign(n=len(self))
        return rows.assign(mean=sums.mean, variance=sums.variance, overlap=sums.overlap)

    def saliency_img(self) -> nib.Nifti1Image:
        """The sum of the maps, float32 in [0, 1]."""
        return self._img(self._voxels.combined())

    def statistic_img(self, statistic: Statistic) -> nib.Nifti1Image:
        """Mean, variance or overlap of the normalised maps, float32."""
        return self._img(getattr(self._voxels, statistic))

    def _stem(self) -> str:
        return f"group-{bids_label(self.group)}_desc-grid"

    def _img(self, values: np.ndarray) -> nib.Nifti1Image:
        _, pattern = self._filled()
        return nib.Nifti1Image(values.astype(np.float32), pattern.affine, pattern.header)
