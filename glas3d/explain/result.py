"""Maps home, the ranked table and files: what `explain_img` gives back."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.core import saliency
from glas3d.core.explanation import Explanation
from glas3d.core.glas import GLAS
from glas3d.core.rglas import RecursiveExplanation
from glas3d.explain.answers import Answer
from glas3d.explain.inputs import Inputs
from glas3d.explain.table import region_table
from glas3d.explain.where import Where
from glas3d.imaging.maps import Drawing
from glas3d.output import bids_label, write_json, write_table, write_together

STATISTICS = ("saliency", "light", "shadow")


@dataclass(frozen=True, eq=False)
class ScanExplanation:
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

    def __repr__(self) -> str:
        best = self.table.sort_values("rank").iloc[0]
        return f"ScanExplanation({self.stem}: {self.explanation!r}, best {best['name']})"

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write the maps, the table and the sidecars; all of them or none.

        Parameters
        ----------
        folder
            Made when it is missing; files of the same names are replaced.

        Returns
        -------
        The paths written.
        """
        return write_together(Path(folder), self._files())

    def _files(self) -> dict[str, Callable[[Path], object]]:
        files: dict[str, Callable[[Path], object]] = {}
        for statistic in STATISTICS:
            name = f"{self.stem}_stat-{statistic}_statmap"
            files[f"{name}.nii.gz"] = getattr(self, f"{statistic}_img").to_filename
            files[f"{name}.json"] = write_json({"Statistic": statistic} | self.provenance)
        for number, img in enumerate(self.round_imgs, start=1):
            name = f"{self.stem.removesuffix('recursive')}round{number}_stat-saliency_statmap.nii.gz"
            files[name] = img.to_filename
        files[f"{self.stem}_regions.tsv"] = write_table(self.table)
        for part in self.parts.values():
            files |= part._files()
        return files


@dataclass(frozen=True, eq=False)
class Home:
    """Brings answers home: onto the scan's own grid, with names and provenance.

    Attributes
    ----------
    shared
        The provenance that all answers share.
    """

    inputs: Inputs
    glas: GLAS
    where: Where
    shared: Mapping[str, Any]

    def result(self, answer: Answer, *, several: bool) -> ScanExplanation:
        """One answer; ``several``: its files lie beside those of other classes, and say theirs."""
        whole = self._one(answer.explanation, answer.fused, answer, several)
        parts = {
            # two classes are told apart by their label, other parts by their own name
            name: self._one(part, "" if answer.against is not None else bids_label(name), None, several)
            for name, part in answer.parts.items()
        }
        return replace(whole, parts=parts)

    def _one(self, explanation: Explanation, fused: str, answer: Answer | None, several: bool) -> ScanExplanation:
        inputs, target, classes = self.inputs, explanation.target, self.shared["Model"]["classes"]
        provenance = {
            **self.shared,
            "Target": {"index": target, "class": classes[target] if classes else str(target)},
            "Probability": explanation.probability,
            "Settings": explanation.settings | self.shared["Settings"],
        }
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
            if answer.against is not None:
                other = answer.against
                provenance["Against"] = {"index": other, "class": classes[other] if classes else str(other)}
            if answer.recursion is not None:
                provenance["Recursion"] = self._recursion(answer.recursion, explanation)
                for one in answer.recursion.rounds:
                    if explanation.segments is None:
                        rounds.append(drawing.volume(one.saliency))
                    else:
                        rounds.append(drawing.segments(saliency.minmax(one.explanation.score), one.points))
        stem = f"{inputs.scan.stem}_{self._label(explanation, fused)}"
        if several:
            stem = f"{stem}_label-{_entity(target, classes)}"
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


def _entity(target: int, classes: Sequence[str] | None) -> str:
    """A BIDS label of a class, alphanumeric and its own: the name where that will do, else the index."""
    names = [bids_label(name) for name in classes or ()]
    if not all(names) or len(set(names)) < len(names):  # indices for all, or an index could be another's name
        names = []
    return names[target] if names else f"class{target}"
