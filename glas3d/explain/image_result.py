"""`ImageExplanation`: maps on the image's own pixels, the ranked table and files, as `explain_image` returns them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from glas3d.core.explanation import Explanation
from glas3d.core.rglas import Round
from glas3d.core.search import Grid, Segments, paint, resolve_search
from glas3d.display import drawing_function, fields_repr
from glas3d.errors import GlasWarning
from glas3d.explain.modes import ModeResult
from glas3d.explain.outputs import STATISTICS, NativeMaps, SavedResult, drawn_ends
from glas3d.explain.table import directions, evidence_columns, ranks, row_names
from glas3d.imaging.picture import Picture, resize, resize_labels, resize_points
from glas3d.output import Writer

COLUMNS = ["index", "name", "row", "column", "n_pixels", "light", "shadow", "drop", "score", "rank", "direction"]


@dataclass(frozen=True, eq=False)
class ImageRound:
    """One round of a recursion on an image.

    Attributes
    ----------
    saliency
        ``(rows, cols)`` float32, the map of the round in [0, 1].
    probability_before, probability_after
        ``P(y|I)`` before and after that map was masked out.
    measure
        The number that ends the recursion when it is above ``stop``.
    kept
        Whether the round counts in the fused map.
    removed
        Names of the points or segments that the round removed.
    """

    saliency: np.ndarray
    probability_before: float
    probability_after: float
    measure: float
    kept: bool
    removed: tuple[str, ...]

    __repr__ = fields_repr

    def record(self) -> dict[str, Any]:
        """Return all but the map, for the sidecar."""
        return {name: value for name, value in self.__dict__.items() if name != "saliency"}


@dataclass(frozen=True, eq=False, repr=False)
class ImageExplanation(SavedResult):
    """The explanation of one image for one class.

    Attributes
    ----------
    saliency, light, shadow, drop
        ``(rows, cols)`` float32 on the image's own pixels: maps of the score, of ``f_l``, of ``f_s`` and of the signed
        drop; None for an end that was not evaluated.
    table
        One row for each point or segment, ranked: ``index name row column n_pixels light shadow drop score rank``;
        rows and columns are those of the image's own pixels; rank 1 has the highest score.
    picture
        The image that was explained.
    explanation
        The result of `GLAS`, at the size that the model takes.
    provenance
        Every setting, version and hash, ready for JSON.
    stem
        Start of the files' names.
    rounds
        The rounds of a recursion, in order; empty without recursion.
    parts
        The explanations that this one was fused from, one for each scale, reference, channel or class; empty if none.
    """

    saliency: np.ndarray
    light: np.ndarray | None
    shadow: np.ndarray | None
    drop: np.ndarray | None
    table: pd.DataFrame
    picture: Picture
    explanation: Explanation
    provenance: dict[str, Any]
    stem: str
    rounds: tuple[ImageRound, ...] = ()
    parts: Mapping[str, ImageExplanation] = field(default_factory=dict)

    _ending = ".tif"

    def report(self, file: str | os.PathLike[str]) -> Path:
        """Write the report of this result: one HTML file with the image below its map, the table and every setting.

        Parameters
        ----------
        file
            Path of the file, such as ``report.html``.

        Returns
        -------
        The path of the file.

        Raises
        ------
        GlasError
            The file cannot be written.
        """
        path: Path = drawing_function("report")(self, Path(file))
        return path

    def _position(self, row: Mapping[Any, Any]) -> str:
        return f"row {row['row']:z.0f}, column {row['column']:z.0f}"

    def _map(self, statistic: str) -> Writer | None:
        values = getattr(self, statistic)
        return None if values is None else write_tiff(values)

    def _rounds(self) -> list[Writer]:
        return [write_tiff(image_round.saliency) for image_round in self.rounds]


@dataclass(frozen=True, eq=False)
class ImageSearch:
    """The places to search, on the image's own pixels and at the size that the model takes.

    Attributes
    ----------
    shape, size
        Rows and columns of the image, and of the model's input.
    search
        What `GLAS.explain` takes, at the model's size.
    segments
        The segments on the image's own pixels; None: points are searched.
    kind
        Label for file names: ``"grid"``, ``"points"`` or ``"segments"``.
    grid
        Cells for each axis, if a grid was given.
    """

    shape: tuple[int, int]
    size: tuple[int, int]
    search: Segments | np.ndarray
    segments: Segments | None
    kind: str
    grid: Any = None

    @classmethod
    def of(cls, search: Any, mask: np.ndarray | None, shape: tuple[int, int], size: tuple[int, int]) -> ImageSearch:
        """Resolve a search on the image's own pixels, and move it to the model's size."""
        points, segments = resolve_search(search, shape, mask)
        if segments is None:
            kind, grid = ("grid", search.k) if isinstance(search, Grid) else ("points", None)
            return cls(shape, size, resize_points(points, shape, size), None, kind, grid)
        if shape == size:
            return cls(shape, size, segments, segments, "segments")
        resized = Segments.from_labels(resize_labels(segments.labels, size), segments.index, point=segments.point)
        lost = np.setdiff1d(segments.index, resized.index)
        if lost.size:
            names = ", ".join(map(str, lost[:10])) + (", ..." if lost.size > 10 else "")
            message = f"{lost.size} segments have no pixel in the {size} that the model takes: {names}"
            warnings.warn(message, GlasWarning, stacklevel=4)
        return cls(shape, size, resized, segments, "segments")

    def record(self, n_points: int) -> dict[str, Any]:
        """Return what the sidecar records of the search and its number of points or segments."""
        return {"grid": self.grid} if self.grid is not None else {self.kind: n_points}

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Return points at the model's size in the image's own pixels."""
        return resize_points(points, self.size, self.shape)


@dataclass(frozen=True, eq=False)
class ImageMaps(NativeMaps[ImageExplanation]):
    """The mapping of results back to the image's own pixels."""

    picture: Picture
    search: ImageSearch

    def _map_explanation(
        self, explanation: Explanation, fused: str, result: ModeResult | None, several: bool
    ) -> ImageExplanation:
        provenance = self._provenance(explanation, result)
        ends = drawn_ends(explanation)
        values = np.stack(list(ends.values()))
        if explanation.segments is None:
            volumes = self.glas.spread(explanation.points, values, self.search.size)
            maps = resize(np.stack([explanation.saliency, *volumes]), self.picture.shape)
        else:
            maps = self._painted(np.stack([explanation.score, *values]), explanation.segments)
        table = self._table(explanation)
        rounds: tuple[ImageRound, ...] = ()
        if result is not None:
            for name, column in result.columns.items():
                table[name] = column
            if result.recursion is not None:
                rounds = tuple(
                    self._round(recursion_round, table["name"]) for recursion_round in result.recursion.rounds
                )
                records = [image_round.record() for image_round in rounds]
                provenance["Recursion"] = {"ended": result.recursion.reason, "rounds": records}
        stem = self._stem(explanation.segments, explanation.target, fused, several)
        by_name = dict(zip((STATISTICS[0], *ends), maps, strict=True))
        score, (light, shadow, drop) = by_name["saliency"], (by_name.get(name) for name in STATISTICS[1:])
        return ImageExplanation(score, light, shadow, drop, table, self.picture, explanation, provenance, stem, rounds)

    def _search_record(self, points: np.ndarray, segments: Segments | None) -> dict[str, Any]:
        return self.search.record(len(points))

    def _unlabelled_stem(self, segments: Segments | None, fused: str) -> str:
        return f"{self.picture.stem}_desc-{self.search.kind}{fused}"

    def _painted(self, values: np.ndarray, segments: Segments) -> np.ndarray:
        assert self.search.segments is not None
        return paint(self.search.segments.labels, segments.index, values)

    def _round(self, recursion_round: Round, names: pd.Series) -> ImageRound:
        explanation = recursion_round.explanation
        if explanation.segments is None:
            saliency = resize(recursion_round.saliency[None], self.picture.shape)[0]
        else:
            saliency = self._painted(recursion_round.values, explanation.segments)
        removed = tuple(names.iloc[recursion_round.removed])
        return ImageRound(
            saliency,
            explanation.probability,
            recursion_round.probability,
            recursion_round.measure,
            recursion_round.kept,
            removed,
        )

    def _table(self, explanation: Explanation) -> pd.DataFrame:
        position = self.search.to_image(explanation.points)
        segments = explanation.segments
        index = np.arange(1, len(position) + 1) if segments is None else segments.index
        n_pixels: Any = 1
        if segments is not None:
            assert self.search.segments is not None
            sizes = dict(zip(self.search.segments.index, self.search.segments.n_voxels, strict=True))
            n_pixels = [sizes[i] for i in index]
        table = pd.DataFrame(
            {
                "index": index,
                "name": row_names(index, "point" if segments is None else "segment"),
                "row": position[:, 0],
                "column": position[:, 1],
                "n_pixels": n_pixels,
                "light": explanation.light,
                "shadow": explanation.shadow,
                "drop": explanation.drop,
                "score": explanation.score,
                **evidence_columns(explanation),
            }
        )
        direction = directions(pd.Series(explanation.direction))
        return table.assign(rank=ranks(table["score"]), direction=direction)[[*COLUMNS, *evidence_columns(explanation)]]


def write_tiff(values: np.ndarray) -> Writer:
    """Return a writer of 32-bit float TIFF, which ImageJ, QGIS and scikit-image read without conversion."""
    return lambda path: Image.fromarray(np.ascontiguousarray(values, dtype=np.float32)).save(path, format="TIFF")
