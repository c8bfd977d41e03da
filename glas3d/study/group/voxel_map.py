"""Group maps by voxel: of participants explained on a grid, whose points stand in place of regions, or on their own
parcellations.
"""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.imaging.map_header import map_on
from glas3d.output import Columns
from glas3d.statistics.map_sums import MapSums
from glas3d.study.group.files import group_stem
from glas3d.study.group.group_sums import GroupInput, GroupSums, Statistic, group_columns


class VoxelMap(GroupSums):
    """Sums the maps of a group explained on a grid, one participant at a time, in constant memory.

    A participant's map is the mean over sessions. Each map, and the scores of its points, are min-max normalised and
    summed (evidence as it is); the sums are normalised again, as `glas3d.study.group.group_map.GroupMap` does with
    regions.

    Parameters
    ----------
    group
        Name of the group, for messages and file names.
    top
        Overlap counts the participants that have a voxel among their highest ``top`` %.

    Raises
    ------
    GlasError
        ``top`` is not above 0 and at most 100.
    """

    _row_kind = "points"

    def __init__(self, group: str, *, top: float = 5.0) -> None:
        super().__init__(group, top=top)
        self._voxels = MapSums((0,), top)

    def saliency_img(self) -> nib.Nifti1Image:
        """Return the normalised sum of the maps, float32 in [0, 1], of evidence in [-1, 1].

        Raises
        ------
        GlasError
            No participant was added.
        """
        return self._img(self._voxels.combined(signed=self.keeps_zero), "saliency")

    def statistic_img(self, statistic: Statistic) -> nib.Nifti1Image:
        """Return mean, variance or overlap of the normalised maps, float32.

        Raises
        ------
        GlasError
            No participant was added.
        """
        return self._img(getattr(self._voxels, statistic), statistic)

    def _stem(self) -> str:
        return group_stem(None, self.group)

    def _ordered(self, table: pd.DataFrame) -> pd.DataFrame:
        return table.sort_values("index")

    def _prepare(self, rows: pd.DataFrame, shape: tuple[int, ...]) -> None:
        self._scores, self._voxels = MapSums((len(rows),), self.top), MapSums(shape, self.top)

    def _add_values(self, scores: np.ndarray, sessions: Sequence[GroupInput]) -> None:
        total = np.zeros(self._voxels.shape)
        for session in sessions:
            total += np.asarray(session.saliency_img.dataobj, dtype=np.float64)
            self._record_input(session)
        self._scores.add(self._scaled(scores))
        self._voxels.add(self._scaled(total / len(sessions)))

    def _combined_scores(self) -> np.ndarray:
        return self._scores.combined(signed=self.keeps_zero)

    def _img(self, values: np.ndarray, statistic: str) -> nib.Nifti1Image:
        _, pattern = self._filled()
        return map_on(pattern, values, statistic, self.group)


class ParcellationMap(VoxelMap):
    """Sums the explanations of a group on participants' own parcellations, one participant at a time.

    Maps are summed voxel by voxel, as no atlas has the regions of all participants. Values of a region are means over
    the participants that have a voxel of it, as are its coordinates and its number of voxels; ``n_participants`` says
    how many those are.

    Parameters
    ----------
    group
        Name of the group, for messages and file names.
    name
        Name of the parcellations, for file names.
    top
        Overlap counts the participants that have a voxel among their highest ``top`` %, in tables a region among the
        highest ``top`` % of their regions' voxels.

    Raises
    ------
    GlasError
        ``top`` is not above 0 and at most 100.
    """

    _row_kind = "regions"
    _averaged = ("x", "y", "z", "n_voxels", *VoxelMap._averaged)

    def __init__(self, group: str, name: str, *, top: float = 5.0) -> None:
        super().__init__(group, top=top)
        self.name = name
        self._known = np.zeros(0, dtype=np.int64)

    def table(self) -> pd.DataFrame:
        """Return one row a region, ranked by the normalised sum, with the participants that have it.

        Raises
        ------
        GlasError
            No participant was added.
        """
        return super().table().assign(n_participants=self._known)

    def variation(self) -> pd.DataFrame:
        """Return how participants differ, see `GroupSums.variation`; ``n`` is how many have the region.

        Raises
        ------
        GlasError
            No participant was added.
        """
        return super().variation().assign(n=self._known)

    def _stem(self) -> str:
        return group_stem(self.name, self.group)

    def _prepare(self, rows: pd.DataFrame, shape: tuple[int, ...]) -> None:
        super()._prepare(rows, shape)
        self._scores = MapSums((len(rows),), self.top, lacking=True)
        self._known = np.zeros(len(rows), dtype=np.int64)

    def _add_values(self, scores: np.ndarray, sessions: Sequence[GroupInput]) -> None:
        self._scores.weights = self._ordered(sessions[0].table)["n_voxels"].to_numpy()
        super()._add_values(scores, sessions)

    def _add_measures(self, values: np.ndarray) -> None:
        known = values[self._measures.index("n_voxels")] > 0
        self._known += known
        super()._add_measures(np.where(known, values, 0))

    def _measure_means(self) -> np.ndarray:
        return np.where(self._known > 0, self._measure_sums / np.maximum(self._known, 1), np.nan)

    def columns(self) -> Columns:
        """Return the description and the units of the columns of the table; positions are means, too."""
        columns = dict(group_columns(self._method, self._measures))
        columns |= {
            name: (f"Mean over participants that have the region of: {columns[name][0]}", columns[name][1])
            for name in ("x", "y", "z", "n_voxels")
        }
        return columns | {"n_participants": ("Number of participants that have a voxel of the region", "count")}
