"""Group maps by region: the saliency of many participants, linearly combined and normalised (the paper, IV.E)."""

from __future__ import annotations

from collections.abc import Sequence

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.errors import GlasError
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.map_header import describe_map
from glas3d.statistics.map_sums import MapSums, combination
from glas3d.study.group.files import group_stem, paint_regions
from glas3d.study.group.group_sums import GroupInput, GroupSums, Statistic


class GroupMap(GroupSums):
    """Sums the explanations of a group, one participant at a time, in constant memory.

    Each participant's scores are min-max normalised over the regions, so that a confident prediction does not
    outvote the others; their sum is min-max normalised again. Evidence keeps its zero: the sum of the participants'
    evidence is divided by its largest absolute value. Light, shadow and drop are plain means. Mean, variance and
    overlap over participants are of the normalised scores, of evidence as it is.

    Parameters
    ----------
    group
        Name of the group, for messages and file names.
    atlas
        The atlas all participants were explained with.
    top
        Overlap counts the participants that have a region among the highest ``top`` % of their atlas's voxels.

    Raises
    ------
    GlasError
        ``top`` is not above 0 and at most 100.
    """

    _row_kind = "regions"

    def __init__(self, group: str, atlas: Atlas, *, top: float = 5.0) -> None:
        super().__init__(group, top=top)
        self.atlas = atlas
        self._score_sum = np.zeros(0)

    def saliency_img(self) -> nib.Nifti1Image:
        """Return the table's scores, each region in its voxels, float32 in [0, 1], of evidence in [-1, 1].

        Raises
        ------
        GlasError
            No participant was added.
        """
        table = self.table()
        return self._painted(table["index"], table["score"])

    def statistic_img(self, statistic: Statistic) -> nib.Nifti1Image:
        """Return a column of `variation`, each region in its voxels, float32.

        Raises
        ------
        GlasError
            No participant was added, or one only for a variance.
        """
        table = self.variation()
        return self._painted(table["index"], table[statistic])

    def _stem(self) -> str:
        return group_stem(self.atlas.name, self.group)

    def _prepare(self, rows: pd.DataFrame, shape: tuple[int, ...]) -> None:
        self._scores = MapSums((len(rows),), self.top, rows["n_voxels"].to_numpy())
        self._score_sum = np.zeros(len(rows))

    def _add_values(self, scores: np.ndarray, sessions: Sequence[GroupInput]) -> None:
        scaled = self._scaled(scores)
        self._score_sum += scaled
        self._scores.add(scaled)
        self._record_input(sessions[0])

    def _combined_scores(self) -> np.ndarray:
        return combination(self._score_sum, signed=self.keeps_zero)

    def _painted(self, index: pd.Series, values: pd.Series) -> nib.Nifti1Image:
        """Return values of regions on the participants' grid, float32; 0 where there is none."""
        _, pattern = self._filled()
        if not values.notna().any():
            raise GlasError(f"a {values.name} map needs a region with a value, {self.group} ({len(self)}) has none")
        img = paint_regions(self.atlas, pattern, index, values)
        describe_map(img, "saliency" if values.name == "score" else str(values.name), self.group)
        return img
