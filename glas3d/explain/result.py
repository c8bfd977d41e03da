"""Maps home, the ranked table and files: what `explain_img` gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.core import saliency
from glas3d.core.explanation import Explanation
from glas3d.core.glas import GLAS
from glas3d.core.rglas import RecursiveExplanation
from glas3d.explain.inputs import Inputs
from glas3d.explain.modes import Answer
from glas3d.explain.outputs import Home, Saved, Writer
from glas3d.explain.search import Where
from glas3d.explain.table import region_table
from glas3d.imaging.maps import Drawing


@dataclass(frozen=True, eq=False)
class ScanExplanation(Saved):
    """The explanation of one scan for one class.

    Attributes
    ----------
    saliency_img, light_img, shadow_img
        Maps of score, ``f_l`` and ``f_s`` on the scan's own grid, float32.
    table
        One row a region or point, ranked: ``index name hemisphere x y z n_voxels light shadow drop score
        rank``; ``x y z`` in mm, ``n_voxels`` on the grid the model was asked on, rank 1 is highest.
    explanation
        What the core found, on the grid the model was asked on.
    provenance
        Every setting, version and hash, ready for JSON.
    stem
        Start of the files' names.
    round_imgs
        The map of each round of a recursion, normalised to [0, 1]; empty without recursion.
    parts
        What it was fused from, when it was: one explanation a scale, reference, channel or class.
    """

    saliency_img: nib.Nifti1Image
    light_img: nib.Nifti1Image
    shadow_img: nib.Nifti1Image
    table: pd.DataFrame
    explanation: Explanation
    provenance: dict[str, Any]
    stem: str
    round_imgs: tuple[nib.Nifti1Image, ...] = ()
    parts: Mapping[str, ScanExplanation] = field(default_factory=dict)

    _ending = ".nii.gz"

    def __repr__(self) -> str:
        best = self.table.sort_values("rank").iloc[0]
        return f"ScanExplanation({self.stem}: {self.explanation!r}, best {best['name']})"

    def _map(self, statistic: str) -> Writer:
        writer: Writer = getattr(self, f"{statistic}_img").to_filename
        return writer

    def _rounds(self) -> list[Writer]:
        return [img.to_filename for img in self.round_imgs]


@dataclass(frozen=True, eq=False)
class ScanHome(Home[ScanExplanation]):
    """Onto the scan's own grid."""

    inputs: Inputs
    glas: GLAS
    where: Where
    shared: Mapping[str, Any]

    def _one(self, explanation: Explanation, fused: str, answer: Answer | None, several: bool) -> ScanExplanation:
        inputs = self.inputs
        provenance = self._provenance(explanation, answer)
        drawing = Drawing(
            inputs.scan, inputs.grid, self.where.atlas, explanation.segments, inputs.transform, self.where.mask_home
        )
        values = np.stack([explanation.light, explanation.shadow])
        if explanation.segments is None:
            volumes = self.glas.spread(explanation.points, values, inputs.grid.shape, inputs.grid.spacing)
            score, light, shadow = (drawing.volume(one) for one in (explanation.saliency, *volumes))
        else:
            score, light, shadow = (drawing.segments(one) for one in (explanation.score, *values))
        rounds: list[nib.Nifti1Image] = []
        table = region_table(explanation, inputs.grid, self.where.atlas, self.where.names)
        if answer is not None:
            for name, column in answer.columns.items():
                table[name] = table["index"].map(dict(zip(_index(explanation), column, strict=True)))
            if answer.recursion is not None:
                provenance["Recursion"] = self._recursion(answer.recursion, explanation)
                for one in answer.recursion.rounds:
                    if explanation.segments is None:
                        rounds.append(drawing.volume(one.saliency))
                    else:
                        rounds.append(drawing.segments(saliency.minmax(one.explanation.score), one.points))
        stem = self._stem(f"{inputs.scan.stem}_{self._label(explanation, fused)}", explanation, several)
        return ScanExplanation(score, light, shadow, table, explanation, provenance, stem, tuple(rounds))

    def _label(self, explanation: Explanation, fused: str) -> str:
        """The entities that tell how it was searched and fused, such as ``seg-AAL`` or ``desc-gridrecursive``."""
        if self.where.atlas is not None:
            return f"seg-{self.where.atlas.name}" + (f"_desc-{fused}" if fused else "")
        kind = self.where.kind if explanation.segments is None else "segments"
        return f"desc-{kind}{fused}"

    def _recursion(self, recursion: RecursiveExplanation, explanation: Explanation) -> dict[str, Any]:
        """Every round and why it ended, for the sidecar."""

        def names(which: np.ndarray) -> list[Any]:
            if self.where.atlas is not None and explanation.segments is not None:
                named = self.where.atlas.table.set_index("index")["name"]
                return [str(named[i]) for i in explanation.segments.index[which]]
            if self.where.names is not None:
                return [self.where.names[i] for i in which]
            return list(explanation.points[which].tolist())

        rounds = [
            {
                "probability_before": one.explanation.probability,
                "probability_after": one.probability,
                "measure": one.measure,
                "kept": one.kept,
                "removed": names(one.removed),
            }
            for one in recursion.rounds
        ]
        return {"ended": recursion.reason, "rounds": rounds}


def _index(explanation: Explanation) -> np.ndarray:
    """The table's ``index`` of each point."""
    if explanation.segments is None:
        return np.arange(1, len(explanation.points) + 1)
    return explanation.segments.index
