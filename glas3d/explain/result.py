"""`ScanExplanation`: maps on the scan's own grid, the ranked table and files, as `explain_img` returns them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.core.explanation import Explanation
from glas3d.core.rglas import RecursiveExplanation
from glas3d.core.search import Segments
from glas3d.display import drawing_function
from glas3d.explain.inputs import Inputs
from glas3d.explain.modes import ModeResult
from glas3d.explain.outputs import STATISTICS, NativeMaps, SavedResult, drawn_ends
from glas3d.explain.search import ResolvedSearch
from glas3d.explain.table import region_table
from glas3d.imaging.anatomy import anatomy_of
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.map_header import describe_map
from glas3d.imaging.native_mapper import NativeMapper
from glas3d.imaging.scan import Scan
from glas3d.imaging.space import SpaceCheck, check_space
from glas3d.output import Writer


@dataclass(frozen=True, eq=False, repr=False)
class ScanExplanation(SavedResult):
    """The explanation of one scan for one class.

    Attributes
    ----------
    saliency_img, light_img, shadow_img, drop_img
        Maps of the score, of ``f_l``, of ``f_s`` and of the signed drop on the scan's own grid, float32; None for an
        end that was not evaluated.
    table
        One row for each region or point, ranked: ``index name hemisphere x y z n_voxels light shadow drop score
        rank direction evidence density``; ``x y z`` in mm, ``n_voxels`` on the grid of the model; rank 1 has the
        highest score.
    explanation
        The result of `GLAS`, on the grid of the model.
    provenance
        Every setting, version and hash, ready for JSON.
    stem
        Start of the files' names.
    round_imgs
        The map of each round of a recursion, normalised to [0, 1]; empty without recursion.
    parts
        The explanations that this one was fused from, one for each scale, reference, channel or class; empty if none.
    scan
        The scan that was explained, on whose grid the maps are; of several channels the first.
    """

    saliency_img: nib.Nifti1Image
    light_img: nib.Nifti1Image | None
    shadow_img: nib.Nifti1Image | None
    drop_img: nib.Nifti1Image | None
    table: pd.DataFrame
    explanation: Explanation
    provenance: dict[str, Any]
    stem: str
    round_imgs: tuple[nib.Nifti1Image, ...] = ()
    parts: Mapping[str, ScanExplanation] = field(default_factory=dict)
    scan: Scan | None = None

    _ending = ".nii.gz"

    @property
    def probability(self) -> float:
        """``P(y|I)`` of the intact scan."""
        return self.explanation.probability

    def _position(self, row: Mapping[Any, Any]) -> str:
        """Return where a region or point is in mm; of a point in MNI space also which region it lies in."""
        if row["x"] != row["x"]:  # a covariate
            return ""
        at = ", ".join(f"{row[axis]:z.0f}" for axis in "xyz")
        if "atlas" in self.provenance["Search"] or not self.is_in_mni:
            return f"{at} mm"
        point = np.array([[row[axis] for axis in "xyz"]])
        return f"{at} mm, {anatomy_of(point, _anatomy())[0]}"

    @cached_property
    def is_in_mni(self) -> bool:
        """Whether the search was made in MNI space, as far as can be known; a scan that was not checked is checked."""
        if searched_in_mni(self.provenance):
            return True
        if self.scan is None or self.provenance.get("SpaceCheck") is not None:
            return False
        return check_space(self.scan).problem is None

    def _map(self, statistic: str) -> Writer | None:
        img = getattr(self, f"{statistic}_img")
        return None if img is None else img.to_filename

    def _rounds(self) -> list[Writer]:
        return [img.to_filename for img in self.round_imgs]

    def report(self, file: str | os.PathLike[str], *, with_scan: bool = True) -> Path:
        """Write the report of this result: one HTML file that shows it, and all that a reader must know about it.

        Parameters
        ----------
        file
            Path of the file, such as ``report.html``.
        with_scan
            Whether the file may hold a copy of the scan, with larger voxels. False: the template is shown in its place.

        Returns
        -------
        The path of the file.

        Raises
        ------
        GlasError
            The file cannot be written.
        """
        path: Path = drawing_function("report")(self, Path(file), with_scan=with_scan)
        return path


@dataclass(frozen=True, eq=False)
class ScanMaps(NativeMaps[ScanExplanation]):
    """The mapping of results back to the scan's own grid."""

    inputs: Inputs
    search: ResolvedSearch

    def _map_explanation(
        self, explanation: Explanation, fused: str, result: ModeResult | None, several: bool
    ) -> ScanExplanation:
        inputs, search = self.inputs, self.search
        provenance = self._provenance(explanation, result)
        mapper = NativeMapper(
            inputs.scan, inputs.grid, search.atlas, explanation.segments, inputs.transform, search.native_mask
        )
        ends = drawn_ends(explanation)
        values = np.stack(list(ends.values()))
        if explanation.segments is None:
            volumes = self.glas.spread(explanation.points, values, inputs.grid.shape, inputs.grid.spacing)
            maps = [mapper.volume(volume) for volume in (explanation.saliency, *volumes)]
        else:
            maps = [mapper.segments(column) for column in (explanation.score, *values)]
        imgs = dict(zip((STATISTICS[0], *ends), maps, strict=True))
        for statistic, img in imgs.items():
            describe_map(img, statistic, str(provenance["Target"]["class"]))
        table = region_table(explanation, inputs.grid, search.atlas, search.names)
        rounds: tuple[nib.Nifti1Image, ...] = ()
        if result is not None:
            for name, column in result.columns.items():
                table[name] = table["index"].map(dict(zip(_index(explanation), column, strict=True)))
            if result.recursion is not None:
                provenance["Recursion"] = self._recursion_record(result.recursion, explanation)
                rounds = tuple(self._round_imgs(result.recursion, explanation, mapper))
                for number, img in enumerate(rounds, start=1):
                    describe_map(img, f"round {number}", str(provenance["Target"]["class"]))
        stem = self._stem(explanation.segments, explanation.target, fused, several)
        score, light, shadow, drop = (imgs.get(statistic) for statistic in STATISTICS)
        assert score is not None
        return ScanExplanation(
            score, light, shadow, drop, table, explanation, provenance, stem, rounds, scan=inputs.scan
        )

    def _search_record(self, points: np.ndarray, segments: Segments | None) -> dict[str, Any]:
        return self.search.record(points, segments)

    def _unlabelled_stem(self, segments: Segments | None, fused: str) -> str:
        """Return the scan's name with the entities of search and fusion: ``seg-AAL``, ``desc-gridrecursive``."""
        if self.search.atlas is not None:
            entities = f"seg-{self.search.atlas.name}" + (f"_desc-{fused}" if fused else "")
        else:
            entities = f"desc-{self.search.kind if segments is None else 'segments'}{fused}"
        return f"{self.inputs.scan.stem}_{entities}"

    def _round_imgs(
        self, recursion: RecursiveExplanation, explanation: Explanation, mapper: NativeMapper
    ) -> Iterator[nib.Nifti1Image]:
        for recursion_round in recursion.rounds:
            if explanation.segments is None:
                yield mapper.volume(recursion_round.saliency)
            else:
                yield mapper.segments(recursion_round.values, recursion_round.points)

    def _recursion_record(self, recursion: RecursiveExplanation, explanation: Explanation) -> dict[str, Any]:
        """Return every round and why the recursion ended, for the sidecar."""
        rounds = [
            {
                "probability_before": recursion_round.explanation.probability,
                "probability_after": recursion_round.probability,
                "measure": recursion_round.measure,
                "kept": recursion_round.kept,
                "removed": self._names(recursion_round.removed, explanation),
            }
            for recursion_round in recursion.rounds
        ]
        return {"ended": recursion.reason, "rounds": rounds}

    def _names(self, rows: np.ndarray, explanation: Explanation) -> list[Any]:
        """Return the names of some regions or points, or their coordinates where they have no names."""
        if self.search.atlas is not None and explanation.segments is not None:
            named = self.search.atlas.table.set_index("index")["name"]
            return [str(named[i]) for i in explanation.segments.index[rows]]
        if self.search.names is not None:
            return [self.search.names[i] for i in rows]
        return list(explanation.points[rows].tolist())


def searched_in_mni(provenance: Mapping[str, Any]) -> bool:
    """Return whether a search is known to have been made in MNI space, from the provenance of its result.

    It was where the scan was brought to the template, was found to look like a brain there, or was searched by a
    shipped atlas, all of which are in MNI space. Maps are in MNI space only if the scan was not brought there.
    """
    if provenance.get("Transform") is not None or Atlas.recorded(provenance["Search"]) is not None:
        return True
    check = provenance.get("SpaceCheck")
    return check is not None and SpaceCheck(**check).problem is None


@lru_cache(maxsize=1)
def _anatomy() -> Atlas:
    """Return the atlas that names the anatomy of points."""
    return Atlas.load("AAL")


def _index(explanation: Explanation) -> np.ndarray:
    """Return the ``index`` of each point in the table."""
    if explanation.segments is None:
        return np.arange(1, len(explanation.points) + 1)
    return explanation.segments.index
