"""Group maps: the saliency of many participants, linearly combined and normalised (the paper, IV.E)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.core.explanation import COMPUTATION_SETTINGS
from glas3d.core.saliency import minmax
from glas3d.core.search import paint
from glas3d.errors import GlasError
from glas3d.explain import ScanExplanation, ranked
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import VoxelGrid
from glas3d.output import generated_by, write_json, write_together
from glas3d.statistics.map_sums import MapSums, two_sample_t
from glas3d.tables import write_table

Statistic = Literal["mean", "variance", "overlap"]

MEANS = ["light", "shadow", "drop"]


class Group:
    """What sums of a group's explanations share: a pattern to be drawn on, who is in them, and files.

    Parameters
    ----------
    group
        Name of the group, for file names.
    """

    def __init__(self, group: str) -> None:
        self.group = group
        self._rows: pd.DataFrame | None = None
        self._pattern: nib.Nifti1Image | None = None
        self._sums = np.zeros((len(MEANS), 0))
        self._inputs: list[dict[str, Any]] = []
        self._settings: dict[str, Any] = {}
        self._table: pd.DataFrame | None = None

    @property
    def grid(self) -> VoxelGrid:
        """The participants'.

        Raises
        ------
        GlasError
            No participant was added.
        """
        _, pattern = self._filled()
        return VoxelGrid(pattern.shape, pattern.affine)

    def table(self) -> pd.DataFrame:
        """One row a region or point, ranked by the normalised sum.

        Raises
        ------
        GlasError
            No participant was added.
        """
        if self._table is None:
            self._table = self._ranked()
        return self._table.copy()

    def _ranked(self) -> pd.DataFrame:
        raise NotImplementedError

    def saliency_img(self) -> nib.Nifti1Image:
        """The normalised sum on the participants' grid, float32 in [0, 1]."""
        raise NotImplementedError

    def save(self, folder: Path) -> list[Path]:
        """Write map, table and their sidecars into ``folder``, all of them or none."""
        stem = self._stem()
        sidecar = {
            "Statistic": "linear combination of min-max normalised saliency, min-max normalised",
            "Group": self.group,
            "GeneratedBy": generated_by(),
            **self._settings,
        }
        return write_together(
            folder,
            {
                f"{stem}_stat-saliency_statmap.nii.gz": self.saliency_img().to_filename,
                f"{stem}_stat-saliency_statmap.json": write_json(sidecar | {"Participants": self._inputs}),
                f"{stem}_regions.tsv": write_table(self.table()),
                f"{stem}_regions.json": write_json(sidecar | {"Sources": [f"{stem}_stat-saliency_statmap.nii.gz"]}),
            },
        )

    def _stem(self) -> str:
        """Start of the files' names."""
        raise NotImplementedError

    def _filled(self) -> tuple[pd.DataFrame, nib.Nifti1Image]:
        if self._rows is None or self._pattern is None:
            raise GlasError(f"a group map needs at least one participant, {self.group} has none")
        return self._rows, self._pattern


class GroupMap(Group):
    """Sums the explanations of a group, one participant at a time, in constant memory.

    Each participant's scores are min-max normalised over the regions, so that a confident answer does not
    outvote the others; their sum is min-max normalised again. Light, shadow and drop are plain means. Mean,
    variance and overlap over participants are of the normalised scores, too.

    Parameters
    ----------
    group
        Name of the group, for file names.
    atlas
        The atlas all participants were explained with.
    top
        Overlap counts the participants that have a region among the highest ``top`` % of their atlas's voxels.
    """

    def __init__(self, group: str, atlas: Atlas, *, top: float = 5.0) -> None:
        super().__init__(group)
        self.atlas, self.top = atlas, top
        self._normalised = MapSums((0,), top)
        self._scores = np.zeros(0)

    def __len__(self) -> int:
        return len(self._inputs)

    def add(self, result: ScanExplanation) -> None:
        """Add one participant.

        Raises
        ------
        GlasError
            Other regions, or another grid, than the participants before.
        """
        table = result.table
        self._expect(result.stem, table, result.saliency_img, _method(result))
        self._sums += table[MEANS].to_numpy(dtype=float).T
        scores = table["score"].to_numpy(dtype=float, copy=True)
        known = np.isfinite(scores)
        scores[known] = minmax(scores[known])
        self._scores += scores
        self._normalised.add(scores)
        self._table = None
        self._inputs.append(result.provenance["Input"] | {"probability": result.explanation.probability})

    def check(self, result: ScanExplanation) -> None:
        """Refuse what `add` would refuse, without adding it: another session of a participant who counts already.

        Raises
        ------
        GlasError
            See `add`.
        """
        self._expect(f"another part of {self.group}", result.table, result.saliency_img, _method(result))

    def merge(self, other: GroupMap) -> GroupMap:
        """The group of both's participants, as when workers shared it; neither is changed.

        Raises
        ------
        GlasError
            Another group, atlas or top; other regions or another grid; explained otherwise.
        """
        one, two = ((each.group, each.atlas.sha256, each.top) for each in (self, other))
        if one != two:
            raise GlasError(
                f"to be merged, groups must share name, atlas and top: {self.group}, {self.atlas.name}, {self.top:g} % "
                f"and {other.group}, {other.atlas.name}, {other.top:g} %"
            )
        both = GroupMap(self.group, self.atlas, top=self.top)
        for part in (self, other):
            if len(part):
                both._expect(f"another part of {part.group}", *part._filled(), part._settings)
                both._sums += part._sums
                both._scores += part._scores
                both._normalised = both._normalised.merge(part._normalised)
                both._inputs += part._inputs
        return both

    def variation(self) -> pd.DataFrame:
        """How participants differ, one row a region: ``index name hemisphere n mean variance overlap``.

        Of the normalised scores; ``variance`` is the sample's (n - 1) and NaN for one participant, ``overlap`` the
        share of participants that have the region in their top.

        Raises
        ------
        GlasError
            No participant was added.
        """
        sums = self._normalised
        rows, _ = self._filled()
        rows = rows[["index", "name", "hemisphere"]].assign(n=len(self))
        return rows.assign(mean=sums.mean, variance=sums.variance, overlap=sums.overlap)

    def statistic_img(self, statistic: Statistic) -> nib.Nifti1Image:
        """A column of `variation` painted on the participants' grid, float32.

        Raises
        ------
        GlasError
            No participant was added, or one only for a variance.
        """
        table = self.variation()
        return self._painted(table["index"], table[statistic])

    def _ranked(self) -> pd.DataFrame:
        rows, _ = self._filled()
        means = dict(zip(MEANS, self._sums / len(self), strict=True))
        score = self._scores.copy()
        known = np.isfinite(score)
        score[known] = minmax(score[known])
        return ranked(rows.assign(**means, score=score))

    def saliency_img(self) -> nib.Nifti1Image:
        """The table's scores painted on the participants' grid, float32 in [0, 1]."""
        table = self.table()
        return self._painted(table["index"], table["score"])

    def _stem(self) -> str:
        return f"group-{self.group}_seg-{self.atlas.name}"

    def _expect(self, name: str, table: pd.DataFrame, img: nib.Nifti1Image, settings: dict[str, Any]) -> None:
        """Take what comes first for the pattern, and refuse what cannot be summed with it."""
        if self._rows is None:
            self._rows, self._pattern, self._settings = table, img, settings
            self._sums, self._scores = np.zeros((len(MEANS), len(table))), np.zeros(len(table))
            self._normalised = MapSums((len(table),), self.top, table["n_voxels"].to_numpy())
        rows, pattern = self._filled()
        if not self.grid.same_as(VoxelGrid(img.shape, img.affine)) or table["index"].tolist() != rows["index"].tolist():
            raise GlasError(
                f"a group's participants must share grid and regions: {name} is on {img.shape}, "
                f"those before on {pattern.shape}"
            )
        if settings != self._settings:
            raise GlasError(
                f"a group's participants must be explained alike, {name} differs in target, settings or model"
            )

    def _painted(self, index: pd.Series, values: pd.Series) -> nib.Nifti1Image:
        """Values of regions on the participants' grid, float32; 0 where there is none."""
        _, pattern = self._filled()
        if not values.notna().any():
            raise GlasError(f"a {values.name} map needs a region with a value, {self.group} ({len(self)}) has none")
        return painted(self.atlas, pattern, index, values)


def painted(atlas: Atlas, pattern: nib.Nifti1Image, index: pd.Series, values: pd.Series) -> nib.Nifti1Image:
    """Values of regions on an image's grid, float32; 0 where there is none."""
    numbers = values.to_numpy(dtype=float)
    known = np.isfinite(numbers)
    labels = atlas.on(VoxelGrid(pattern.shape, pattern.affine))
    return nib.Nifti1Image(paint(labels, index.to_numpy()[known], numbers[known]), pattern.affine, pattern.header)


def group_t(case: GroupMap, control: GroupMap) -> tuple[pd.DataFrame, nib.Nifti1Image]:
    """Student's t of two groups' normalised scores, from their sums and without covariates.

    Uncorrected, for a first look or more participants than fit in memory; `glas3d.statistics.two_groups.compare` tests.

    Returns
    -------
    One row a region, ``index name hemisphere t dof``, and its t painted on the participants' grid, float32.

    Raises
    ------
    GlasError
        Other regions, grids or explanations, a group of fewer than two participants, or nothing that varies.
    """
    rows, _ = case._filled()
    case._expect(control.group, *control._filled(), control._settings)
    t, dof = two_sample_t(case._normalised, control._normalised)
    table = rows[["index", "name", "hemisphere"]].assign(t=t, dof=dof)
    return table, case._painted(table["index"], table["t"])


def _method(result: ScanExplanation) -> dict[str, Any]:
    """What must be the same for all participants; where and in which batches they were computed need not be."""
    same = {key: result.provenance[key] for key in ("Target", "Settings", "Model", "Search")}
    same["Settings"] = {k: v for k, v in same["Settings"].items() if k not in COMPUTATION_SETTINGS}
    return same
