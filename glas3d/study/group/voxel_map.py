"""Group maps by voxel, of participants explained on a grid: maps are summed, and points stand in place of regions."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.imaging.map_header import map_on
from glas3d.statistics.map_sums import MapSums
from glas3d.study.group.files import group_stem
from glas3d.study.group.group_sums import GroupInput, GroupSums, Statistic


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
