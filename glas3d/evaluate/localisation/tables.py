"""Tables 1 to 4 of Oh et al. 2020, of any model and any data set in which people marked objects."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from glas3d.core.glas import GLAS
from glas3d.core.saliency import minmax
from glas3d.core.search import Grid
from glas3d.errors import GlasError, GlasWarning
from glas3d.evaluate.attribution import attribute
from glas3d.evaluate.localisation.annotated import AnnotatedImage, AnnotatedImages
from glas3d.evaluate.localisation.options import LANDMARKS, METHODS_OF_TABLE, VARIANTS, LocalisationOptions
from glas3d.evaluate.metrics.pointing import intersection_over_union, landmark_distance, pointing
from glas3d.evaluate.metrics.score_drop import score_drop
from glas3d.explain.image import explain_image
from glas3d.imaging.picture import load_picture, resize, resize_points
from glas3d.options import accepts, parse
from glas3d.output import Columns, Writer, described_table
from glas3d.predict import Predictor

LEVEL = 0.95  # the centroid of the largest blob above it is where a map points
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
FILES = {1: "landmarks", 2: "points", 3: "methods", 4: "rounds"}
_PAPER_SIDE = 224.0
COLUMNS: Columns = {
    "table": ("Number of the paper's table", ""),
    "image": ("File of the image", ""),
    "class": ("Class that people gave the image, which is explained", ""),
    "landmark": ("Parts of the bird; the nearest counts", ""),
    "method": ("Explanation method", ""),
    "points": ("Search points on each axis", "count"),
    "round": ("Rounds whose maps are fused; adaptive: until the recursion ends itself", ""),
    "probability": ("Probability of the class", "probability"),
    "predicted": ("Class of the highest probability", ""),
    "row": ("Row at which the map points, in pixels of the model's input", "pixel"),
    "column": ("Column at which the map points, in pixels of the model's input", "pixel"),
    "hit": ("1 where the map points into a box of the object, else 0; a flat map does not", "0 or 1"),
    "small": ("1 where the boxes fill less than a quarter of the image, else 0", "0 or 1"),
    "distance": ("Distance from the map's highest pixel to the landmark, in pixels of the model's input", "pixel"),
    "drop": ("Fall of the probability when the map, scaled to [0, 1], is masked out", "probability"),
    "evaluations": ("Model evaluations, a backward pass counted as two", "count"),
    "seconds": ("Time of one map; the median in a table of methods", "s"),
    "accuracy": ("Share of the images whose map points into a box (pointing game)", "ratio"),
    "accuracy_small": ("The same of small objects alone", "ratio"),
    "n": ("Images", "count"),
    "n_small": ("Images of small objects", "count"),
    **{f"iou_{t:g}": (f"Overlap (IOU) of the boxes with the map above {t:g}", "ratio") for t in THRESHOLDS},
}


@dataclass(frozen=True, eq=False)
class Localisation:
    """What was measured of maps of images in which people marked objects.

    Attributes
    ----------
    tables
        The paper's tables by their numbers: means over the images.
    images
        One row for each map: the table, the image, its class, and what was measured.
    top1
        Share of the images whose class the model gives the highest probability.
    record
        The data set, the options, the model and the methods that were left out, ready for JSON.
    """

    tables: Mapping[int, pd.DataFrame]
    images: pd.DataFrame
    top1: float
    record: dict[str, Any]

    def files(self) -> dict[str, Writer]:
        """Return the writers of all tables and their sidecars, by the names of the files."""
        files: dict[str, Writer] = {}
        for name, table in {"images": self.images, **{FILES[n]: each for n, each in self.tables.items()}}.items():
            files |= described_table(name, table, COLUMNS, Top1=self.top1, **self.record)
        return files


@accepts(LocalisationOptions)
def localise(
    data: AnnotatedImages,
    predict: Predictor | Callable[..., Any],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Any,
) -> Localisation:
    """Measure where maps of images point, by the protocol of tables 1 to 4 of Oh et al. 2020.

    The class that people gave an image is explained, whether the model recognises it or not. A map points at the
    centroid of its largest blob above 0.95; the distance to a landmark is from its highest pixel.

    Parameters
    ----------
    data
        Images with their classes, boxes and landmarks, see `read_layout`.
    predict
        A `Predictor`, or any callable ``(n, 3, rows, cols)`` with values from 0 to 255 to ``(n, classes)``
        probabilities, with the classes in the order of the data set.
    progress
        Called with the images done and in all.
    **options
        The options of `LocalisationOptions`.

    Returns
    -------
    The tables, and what they are the means of.

    Raises
    ------
    GlasError
        The model has another number of classes, table 1 of a data set without landmarks, a method that the model does
        not allow was named, or an option that does not fit.

    Warns
    -----
    GlasWarning
        A method of the paper that the model does not allow is left out.
    """
    (chosen,) = parse(options, LocalisationOptions, caller="localise")
    landmarks = _landmarks(data, chosen)
    tables = tuple(chosen.tables) if chosen.tables is not None else ((1,) if landmarks else ()) + (2, 3, 4)
    drawn = data if chosen.images is None else data.drawn(chosen.images, chosen.seed)
    of_table = dict.fromkeys(tables, drawn.images)
    if 1 in tables:
        named = data.of_classes(landmarks)
        of_table[1] = (named if chosen.images is None else named.drawn(chosen.images, chosen.seed)).images
    work = _Measuring(data, predict, chosen, landmarks)
    # the first image of each table comes first: what a model does not allow is known before most of the work is done
    order = [(n, images[0]) for n, images in of_table.items()]
    order += [(n, image) for n, images in of_table.items() for image in images[1:]]
    for done, (number, image) in enumerate(order):
        progress(done, len(order))
        work.measure(number, image)
    progress(len(order), len(order))
    rows = pd.DataFrame(work.rows)
    summaries = {number: _SUMMARIES[number](rows[rows["table"] == number]) for number in tables}
    predictions = rows.drop_duplicates("image")
    record = {
        "Data": {"layout": data.layout, "images": len(predictions), "classes": len(data.classes)},
        "Settings": {name: getattr(chosen, name) for name in ("size", "cells", "images", "seed")} | {"tables": tables},
        "LeftOut": work.left_out,
    }
    rows = rows.sort_values("table", kind="stable").dropna(axis="columns", how="all").reset_index(drop=True)
    return Localisation(summaries, rows, float((predictions["predicted"] == predictions["class"]).mean()), record)


def _landmarks(data: AnnotatedImages, options: LocalisationOptions) -> dict[str, tuple[str, ...]]:
    """Return the classes of table 1 with their parts; none where the data set has no landmarks."""
    has_some = any(image.landmarks for image in data.images)
    if not has_some:
        if options.landmarks is not None or (options.tables is not None and 1 in options.tables):
            raise GlasError(f"table 1 needs landmarks, the layout {data.layout} has none here")
        return {}
    if options.landmarks is not None:
        named = {
            name: (parts,) if isinstance(parts, str) else tuple(parts) for name, parts in options.landmarks.items()
        }
        known = {part for image in data.images for part in image.landmarks}
        for part in {part for parts in named.values() for part in parts} - known:
            raise GlasError(f"there is no part {part!r} in this data set, its parts are {', '.join(sorted(known))}")
        return named
    own = {name: parts for name, parts in LANDMARKS.items() if name in data.classes}
    if not own and options.tables is not None and 1 in options.tables:
        raise GlasError(
            "table 1 needs landmarks of classes: the paper's five birds are not in this data set, give landmarks"
        )
    return own


class _Measuring:
    """Measures one image after the other, and collects the rows."""

    def __init__(
        self,
        data: AnnotatedImages,
        predict: Any,
        options: LocalisationOptions,
        landmarks: Mapping[str, tuple[str, ...]],
    ) -> None:
        self.data, self.predict, self.options, self.landmarks = data, predict, options, landmarks
        self.rows: list[dict[str, Any]] = []
        self.left_out: dict[str, str] = {}

    def measure(self, number: int, image: AnnotatedImage) -> None:
        """Add the rows of one image to one table."""
        marked = _Marked.of(image, self.options.size)
        probabilities = np.asarray(self.predict(torch.from_numpy(marked.data[None].copy())))[0]
        if len(probabilities) != len(self.data.classes):
            raise GlasError(
                f"the model must have the {len(self.data.classes)} classes of the data set, it has {len(probabilities)}"
            )
        common = {
            "table": number,
            "image": f"{image.path.parent.name}/{image.path.name}",
            "class": self.data.classes[image.target],
            "probability": float(probabilities[image.target]),
            "predicted": self.data.classes[int(probabilities.argmax())],
        }
        if number == 4:
            self.rows += [common | row for row in self._rounds(marked)]
            return
        for row in self._points(marked) if number == 2 else self._methods(number, marked):
            saliency = row.pop("map")
            self.rows.append(common | row | self._measured(number, marked, saliency))

    def _measured(self, number: int, marked: _Marked, saliency: np.ndarray) -> dict[str, Any]:
        measured: dict[str, Any] = {"hit": 0, "small": int(marked.small)}
        if np.ptp(saliency) > 0:
            game = pointing(saliency, marked.boxes, level=LEVEL)
            measured |= {"row": game.point[0], "column": game.point[1], "hit": int(game.hit)}
        if number == 1:
            parts = self.landmarks[self.data.classes[marked.target]]
            away = [
                landmark_distance(saliency, marked.landmarks[part])
                for part in parts
                if part in marked.landmarks and np.ptp(saliency) > 0
            ]
            measured["distance"] = min(away, default=np.nan)
        if number == 3:
            removed = score_drop(GLAS(self.predict), marked.data, [minmax(saliency)], marked.target)
            measured["drop"] = float(removed.drop[0])
        return measured

    def _points(self, marked: _Marked) -> Iterable[dict[str, Any]]:
        for k in self.options.points:
            yield {"points": k} | self._by_method(marked, "glas_paper", k)

    def _methods(self, number: int, marked: _Marked) -> Iterable[dict[str, Any]]:
        for name in self.options.methods or METHODS_OF_TABLE[number]:
            if name in self.left_out:
                continue
            try:
                values = self._by_method(marked, name, self.options.cells)
            except GlasError as problem:
                if self.options.methods is not None or any(row.get("method") == name for row in self.rows):
                    raise
                self.left_out[name] = str(problem)
                warnings.warn(f"{name} is left out: {problem}", GlasWarning, stacklevel=4)
                continue
            yield {"method": name} | values

    def _by_method(self, marked: _Marked, name: str, k: int) -> dict[str, Any]:
        method, settings = VARIANTS.get(name, (name, {}))
        scale = (marked.data.shape[1] * marked.data.shape[2]) ** 0.5 / _PAPER_SIDE
        scaled = {key: value * scale**0.5 if key.startswith("sigma") else value for key, value in settings.items()}
        attribution = attribute(torch.from_numpy(marked.data), self.predict, marked.target, method, Grid(k), **scaled)
        saliency = attribution.volume.astype(np.float64)
        return {"map": saliency, "evaluations": attribution.evaluations, "seconds": attribution.seconds}

    def _rounds(self, marked: _Marked) -> Iterable[dict[str, Any]]:
        start = time.perf_counter()
        search = Grid(self.options.cells)
        result = explain_image(
            torch.from_numpy(marked.data), self.predict, marked.target, search, preset="paper", recursive=True
        )
        assert not isinstance(result, tuple)
        maps = [each.saliency.astype(np.float64) for each in result.rounds if each.kept]
        seconds, n = time.perf_counter() - start, result.explanation.settings["evaluations"]
        fused = {str(r): np.sum(maps[:r], axis=0) for r in range(1, self.options.rounds + 1)}
        for name, saliency in {**fused, "adaptive": np.sum(maps, axis=0)}.items():
            overlap = intersection_over_union(saliency, marked.mask, THRESHOLDS)
            yield {"round": name, "evaluations": n, "seconds": seconds} | {
                f"iou_{t:g}": float(value) for t, value in zip(THRESHOLDS, overlap, strict=True)
            }


@dataclass(frozen=True, eq=False)
class _Marked:
    """An image at the size that the model takes, with its boxes and landmarks there."""

    data: np.ndarray
    target: int
    boxes: np.ndarray
    landmarks: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(cls, image: AnnotatedImage, size: tuple[int, int]) -> _Marked:
        data = load_picture(image.path, "RGB").data
        data = data[:, : data.shape[1] - image.bottom]
        shape = (data.shape[1], data.shape[2])
        scale = np.array(size) / np.array(shape)
        boxes = np.rint(np.array(image.boxes) * scale[:, None]).astype(int)
        boxes[..., 0] = boxes[..., 0].clip(0, np.array(size) - 1)
        boxes[..., 1] = boxes[..., 1].clip(boxes[..., 0] + 1, np.array(size))
        if not image.boxes or (np.array(image.boxes)[..., 0] >= shape).any():
            raise GlasError(f"a box must lie in its image, {image.path} of {shape} has {image.boxes}")
        landmarks = {
            name: tuple(resize_points(np.array(where), shape, size).tolist()) for name, where in image.landmarks.items()
        }
        return cls(np.ascontiguousarray(resize(data, size)), image.target, boxes, landmarks)

    @property
    def mask(self) -> np.ndarray:
        """``(rows, cols)`` bool, what is in one of the boxes."""
        inside = np.zeros(self.data.shape[1:], dtype=bool)
        for (top, bottom), (left, right) in self.boxes:
            inside[top:bottom, left:right] = True
        return inside

    @property
    def small(self) -> bool:
        """Whether the boxes fill less than a quarter of the image."""
        return bool(self.mask.mean() < 0.25)


def _landmarks_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return table 1: the mean distance by class and method, and how many images of the class there are."""
    table = rows.groupby(["class", "method"], sort=False)["distance"].mean().unstack()
    table = table.reindex(columns=list(rows["method"].drop_duplicates()))
    table.loc["mean"] = table.mean()
    n = rows.groupby("class")["image"].nunique()
    return table.assign(n=[*n.loc[table.index[:-1]], int(n.sum())]).rename_axis(columns=None).reset_index()


def _pointing_table(by: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return what makes table 2 or 3."""

    def summarise(rows: pd.DataFrame) -> pd.DataFrame:
        groups = rows.groupby(by, sort=False)
        small = rows[rows["small"] == 1].groupby(by, sort=False)
        table = pd.DataFrame({"accuracy": groups["hit"].mean(), "accuracy_small": small["hit"].mean()})
        table = table.loc[list(rows[by].drop_duplicates())]
        if by == "method":
            table["drop"] = groups["drop"].mean()
        for name in ("evaluations", "seconds"):
            table[name] = groups[name].median()
        return (
            table.assign(n=groups.size(), n_small=small.size())
            .fillna({"n_small": 0})
            .astype({"n_small": int})
            .reset_index()
        )

    return summarise


def _rounds_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return table 4: the mean overlap by round and threshold."""
    table = rows.groupby("round", sort=False)[[f"iou_{t:g}" for t in THRESHOLDS]].mean()
    return table.assign(n=rows.groupby("round").size()).reset_index()


_SUMMARIES: Mapping[int, Callable[[pd.DataFrame], pd.DataFrame]] = {
    1: _landmarks_table,
    2: _pointing_table("points"),
    3: _pointing_table("method"),
    4: _rounds_table,
}
