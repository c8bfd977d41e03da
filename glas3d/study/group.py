"""Group maps: the saliency of many participants, linearly combined and normalised (the paper, IV.E)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.core.saliency import minmax
from glas3d.core.search import paint
from glas3d.errors import GlasError
from glas3d.explain import ScanExplanation, ranked
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import VoxelGrid
from glas3d.output import generated_by, write_json, write_table, write_together

_MEANS = ["light", "shadow", "drop"]


class GroupMap:
    """Sums the explanations of a group, one participant at a time, in constant memory.

    Each participant's scores are min-max normalised over the regions, so that a confident answer does not
    outvote the others; their sum is min-max normalised again. Light, shadow and drop are plain means.

    Parameters
    ----------
    group
        Name of the group, for file names.
    atlas
        The atlas all participants were explained with.
    """

    def __init__(self, group: str, atlas: Atlas) -> None:
        self.group, self.atlas = group, atlas
        self._rows: pd.DataFrame | None = None
        self._sums = np.zeros((len(_MEANS), 0))
        self._scores = np.zeros(0)
        self._pattern: nib.Nifti1Image | None = None
        self._inputs: list[dict[str, Any]] = []
        self._settings: dict[str, Any] = {}

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
        if self._rows is None or self._pattern is None:
            self._rows, self._pattern = table, result.saliency_img
            self._sums, self._scores = np.zeros((len(_MEANS), len(table))), np.zeros(len(table))
            self._settings = _method(result)
        same = VoxelGrid(self._pattern.shape, self._pattern.affine).same_as(
            VoxelGrid(result.saliency_img.shape, result.saliency_img.affine)
        )
        if not same or table["index"].tolist() != self._rows["index"].tolist():
            raise GlasError(
                f"a group's participants must share grid and regions: {result.stem} is on {result.saliency_img.shape}, "
                f"those before on {self._pattern.shape}"
            )
        if _method(result) != self._settings:
            raise GlasError(
                f"a group's participants must be explained alike, {result.stem} differs in target, settings or model"
            )
        self._sums += table[_MEANS].to_numpy(dtype=float).T
        scores = table["score"].to_numpy(dtype=float, copy=True)
        known = np.isfinite(scores)
        scores[known] = minmax(scores[known])
        self._scores += scores
        self._inputs.append(result.provenance["Input"] | {"probability": result.explanation.probability})

    def table(self) -> pd.DataFrame:
        """One row a region, ranked by the normalised sum.

        Raises
        ------
        GlasError
            No participant was added.
        """
        if self._rows is None:
            raise GlasError(f"a group map needs at least one participant, {self.group} has none")
        means = dict(zip(_MEANS, self._sums / len(self), strict=True))
        score = self._scores.copy()
        known = np.isfinite(score)
        score[known] = minmax(score[known])
        return ranked(self._rows.assign(**means, score=score))

    def saliency_img(self) -> nib.Nifti1Image:
        """The table's scores painted on the participants' grid, float32 in [0, 1]."""
        table = self.table().dropna(subset=["score"])
        assert self._pattern is not None
        grid = VoxelGrid(self._pattern.shape, self._pattern.affine)
        painted = paint(self.atlas.on(grid), table["index"].to_numpy(), table["score"].to_numpy())
        return nib.Nifti1Image(painted, self._pattern.affine, self._pattern.header)

    def save(self, folder: Path) -> list[Path]:
        """Write map, table and sidecar into ``folder``, all of them or none."""
        stem = f"group-{self.group}_seg-{self.atlas.name}"
        sidecar = {
            "Statistic": "linear combination of min-max normalised saliency, min-max normalised",
            "Group": self.group,
            "Participants": self._inputs,
            "GeneratedBy": generated_by(),
        }
        return write_together(
            folder,
            {
                f"{stem}_stat-saliency_statmap.nii.gz": self.saliency_img().to_filename,
                f"{stem}_stat-saliency_statmap.json": write_json(sidecar | self._settings),
                f"{stem}_regions.tsv": write_table(self.table()),
            },
        )


def _method(result: ScanExplanation) -> dict[str, Any]:
    """What must be the same for all participants; where and in which batches they were computed need not be."""
    same = {key: result.provenance[key] for key in ("Target", "Settings", "Model", "Search")}
    same["Settings"] = {k: v for k, v in same["Settings"].items() if k not in ("batch_size", "device")}
    return same
