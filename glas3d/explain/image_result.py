"""Maps on the picture's own pixels, the ranked table and files: what `explain_image` gives back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from glas3d.core.explanation import Explanation
from glas3d.core.glas import GLAS
from glas3d.core.rglas import Round
from glas3d.core.saliency import minmax
from glas3d.core.search import Segments, paint, resolve
from glas3d.errors import GlasWarning
from glas3d.explain.modes import Answer
from glas3d.explain.outputs import Home, Saved, Writer
from glas3d.imaging.picture import Picture, move_points, resize, resize_labels

COLUMNS = ["index", "name", "row", "column", "n_pixels", "light", "shadow", "drop", "score", "rank"]


@dataclass(frozen=True, eq=False)
class ImageRound:
    """One round of a recursion on a picture.

    Attributes
    ----------
    saliency
        ``(rows, cols)`` float32, the round's map in [0, 1].
    probability_before, probability_after
        ``P(y|I)`` before and after that map was put out.
    measure
        What ends the recursion when it grows above ``stop``.
    kept
        Whether it counts in the fused map.
    removed
        Names of the points or segments it removed.
    """

    saliency: np.ndarray
    probability_before: float
    probability_after: float
    measure: float
    kept: bool
    removed: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ImageExplanation(Saved):
    """The explanation of one picture for one class.

    Attributes
    ----------
    saliency, light, shadow
        ``(rows, cols)`` float32 on the picture's own pixels: maps of score, ``f_l`` and ``f_s``.
    table
        One row a point or segment, ranked: ``index name row column n_pixels light shadow drop score rank``; places in
        the picture's own pixels, rank 1 is highest.
    picture
        What was explained.
    explanation
        What the core found, on the pixels the model was asked on.
    provenance
        Every setting, version and hash, ready for JSON.
    stem
        Start of the files' names.
    rounds
        Of a recursion, in order; empty without.
    parts
        What it was fused from, when it was: one explanation a scale, channel or class.
    """

    saliency: np.ndarray
    light: np.ndarray
    shadow: np.ndarray
    table: pd.DataFrame
    picture: Picture
    explanation: Explanation
    provenance: dict[str, Any]
    stem: str
    rounds: tuple[ImageRound, ...] = ()
    parts: Mapping[str, ImageExplanation] = field(default_factory=dict)

    _ending = ".tif"

    def __repr__(self) -> str:
        best = self.table.sort_values("rank").iloc[0]
        where = f"row {best['row']:.0f}, column {best['column']:.0f}"
        return f"ImageExplanation({self.stem}: {self.explanation!r}, best {best['name']} at {where})"

    def _map(self, statistic: str) -> Writer:
        return _tiff(getattr(self, statistic))

    def _rounds(self) -> list[Writer]:
        return [_tiff(one.saliency) for one in self.rounds]


@dataclass(frozen=True, eq=False)
class Place:
    """Where to look, on the picture's own pixels and on those the model is asked on.

    Attributes
    ----------
    search
        For the core, at the model's size.
    segments
        On the picture's own pixels; None: points.
    """

    shape: tuple[int, int]
    asked: tuple[int, int]
    search: Segments | np.ndarray
    segments: Segments | None

    @classmethod
    def of(cls, search: Any, mask: np.ndarray | None, shape: tuple[int, int], asked: tuple[int, int]) -> Place:
        """Resolve a search on the picture's own pixels, and move it to the size the model is asked on."""
        points, own = resolve(search, shape, mask)
        if own is None:
            return cls(shape, asked, move_points(points, shape, asked), None)
        if shape == asked:
            return cls(shape, asked, own, own)
        moved = Segments.from_labels(resize_labels(own.labels, asked), own.index, point=own.point)
        lost = np.setdiff1d(own.index, moved.index)
        if lost.size:
            names = ", ".join(map(str, lost[:10])) + (", ..." if lost.size > 10 else "")
            message = f"{lost.size} segments own no pixel of the {asked} the model is asked on: {names}"
            warnings.warn(message, GlasWarning, stacklevel=3)
        return cls(shape, asked, moved, own)

    def home(self, points: np.ndarray) -> np.ndarray:
        """Points at the model's size on the picture's own pixels."""
        return move_points(points, self.asked, self.shape)


@dataclass(frozen=True, eq=False)
class PictureHome(Home[ImageExplanation]):
    """Onto the picture's own pixels."""

    picture: Picture
    glas: GLAS
    place: Place
    kind: str
    shared: Mapping[str, Any]

    def _one(self, explanation: Explanation, fused: str, answer: Answer | None, several: bool) -> ImageExplanation:
        provenance = self._provenance(explanation, answer)
        values = np.stack([explanation.light, explanation.shadow])
        if explanation.segments is None:
            drawn = self.glas.spread(explanation.points, values, self.place.asked)
            maps = resize(np.stack([explanation.saliency, *drawn]), self.picture.shape)
        else:
            maps = self._painted(np.stack([explanation.score, *values]), explanation.segments)
        table = self._table(explanation)
        rounds: tuple[ImageRound, ...] = ()
        if answer is not None:
            for name, column in answer.columns.items():
                table[name] = column
            if answer.recursion is not None:
                rounds = tuple(self._round(one, table["name"]) for one in answer.recursion.rounds)
                told = [{k: v for k, v in one.__dict__.items() if k != "saliency"} for one in rounds]
                provenance["Recursion"] = {"ended": answer.recursion.reason, "rounds": told}
        stem = self._stem(f"{self.picture.stem}_desc-{self.kind}{fused}", explanation, several)
        score, light, shadow = maps
        return ImageExplanation(score, light, shadow, table, self.picture, explanation, provenance, stem, rounds)

    def _painted(self, values: np.ndarray, segments: Segments) -> np.ndarray:
        assert self.place.segments is not None
        return paint(self.place.segments.labels, segments.index, values)

    def _round(self, one: Round, names: pd.Series) -> ImageRound:
        segments = one.explanation.segments
        if segments is None:
            drawn = resize(one.saliency[None], self.picture.shape)[0]
        else:
            drawn = self._painted(minmax(one.explanation.score), segments)
        removed = tuple(names.iloc[one.removed])
        return ImageRound(drawn, one.explanation.probability, one.probability, one.measure, one.kept, removed)

    def _table(self, explanation: Explanation) -> pd.DataFrame:
        place = self.place.home(explanation.points)
        segments = explanation.segments
        index = np.arange(1, len(place) + 1) if segments is None else segments.index
        kind, width = "point" if segments is None else "segment", len(str(index.max()))
        n_pixels: Any = 1
        if segments is not None:
            assert self.place.segments is not None
            own = dict(zip(self.place.segments.index, self.place.segments.n_voxels, strict=True))
            n_pixels = [own[i] for i in index]
        table = pd.DataFrame(
            {
                "index": index,
                "name": [f"{kind}-{i:0{width}d}" for i in index],
                "row": place[:, 0],
                "column": place[:, 1],
                "n_pixels": n_pixels,
                "light": explanation.light,
                "shadow": explanation.shadow,
                "drop": explanation.drop,
                "score": explanation.score,
            }
        )
        return table.assign(rank=table["score"].rank(ascending=False, method="first").astype("int64"))[COLUMNS]


def _tiff(values: np.ndarray) -> Writer:
    """A writer for `write_together`: 32-bit float, which ImageJ, QGIS and scikit-image read as it is."""
    return lambda path: Image.fromarray(np.ascontiguousarray(values, dtype=np.float32)).save(path, format="TIFF")
