"""A scan or an image with its regions, resolved for any explanation method, and its maps on its own grid."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, cast

import nibabel as nib
import numpy as np
import pandas as pd
import torch
from nibabel.spatialimages import SpatialImage
from scipy.spatial import cKDTree

from glas3d.core.explanation import Explanation
from glas3d.core.glas import default_batch_size
from glas3d.core.model import device_of
from glas3d.core.score import Target
from glas3d.core.search import Grid, Segments, paint, resolve_search
from glas3d.errors import GlasError
from glas3d.evaluate.rivals.rival import Task
from glas3d.evaluate.rivals.value import ExplainedValue
from glas3d.explain.image import resolve_image
from glas3d.explain.image_result import ImageMaps, write_tiff
from glas3d.explain.inputs import MATCHED, is_matched
from glas3d.explain.options import ExplainOptions, ImageOptions, ModeOptions
from glas3d.explain.outputs import Request
from glas3d.explain.result import ScanMaps
from glas3d.explain.scan import resolve_scan
from glas3d.explain.table import row_names
from glas3d.imaging.map_header import describe_map
from glas3d.imaging.native_mapper import NativeMapper
from glas3d.imaging.picture import is_picture_file, resize
from glas3d.output import Writer

_MODES = {declared.name for declared in fields(ModeOptions)} - {"preset"}


@dataclass(frozen=True, eq=False)
class Subject(ABC):
    """A scan or an image that is explained, with its regions, on the grid of the model.

    Attributes
    ----------
    request
        The volume, the target, the reference and the search, resolved.
    resolve
        Resolves the same with settings of GLAS.
    batch_size
        Volumes that the model is given at once; None: by their size.
    """

    request: Request[Any]
    resolve: Callable[[Mapping[str, Any]], Request[Any]]
    batch_size: int | None

    @property
    def target(self) -> Target:
        """The class that is explained, as it was given."""
        target: Target = self.request.task.target
        return target

    @cached_property
    def search(self) -> tuple[np.ndarray, Segments | None]:
        """The ``(m, ndim)`` points of the search, and its segments if it has some."""
        task = self.request.task
        return resolve_search(task.search, task.volume.shape[1:], task.mask)

    @cached_property
    def labels(self) -> np.ndarray:
        """``(*spatial)`` int64: 1 to ``m`` for the voxels of the regions, 0 elsewhere.

        The region of a point is what is nearest to it: the cells of a grid.
        """
        task, (points, segments) = self.request.task, self.search
        numbers = np.arange(1, len(points) + 1)
        if segments is not None:
            return segments.paint(numbers).astype(np.int64)
        spacing = np.asarray(task.spacing)
        voxels = np.moveaxis(np.indices(task.volume.shape[1:]), 0, -1) * spacing
        nearest = numbers[cKDTree(points * spacing).query(voxels)[1]]
        return np.where(task.mask, nearest, 0) if task.mask is not None else nearest

    @property
    def index(self) -> np.ndarray:
        """``(m,)`` index of each region in the table."""
        points, segments = self.search
        return np.arange(1, len(points) + 1) if segments is None else segments.index

    def value(self, link: Any) -> ExplainedValue:
        """Return the number that is explained."""
        task, predict = self.request.task, self.request.glas.predict
        size = self.batch_size or default_batch_size(task.volume.size, device_of(predict))
        return ExplainedValue(
            predict,
            task.volume,
            self.target,
            reference=self.request.glas.background,
            link=link,
            batch_size=size,
            covariates=task.covariates,
        )

    def task(self, value: ExplainedValue) -> Task:
        """Return what a rival method is given."""
        labels = torch.from_numpy(self.labels).to(value.difference.device)
        return Task(value, labels, len(self.index), self.explain)

    def explain(self, settings: Mapping[str, Any], preset: str | None) -> Explanation:
        """Return the explanation by GLAS."""
        more: dict[str, Any] = {"batch_size": self.batch_size} if self.batch_size else {}
        if preset is not None:
            more["preset"] = preset
        request = self.resolve({**more, **settings})
        (result,) = request.mode.evaluate(request.glas, request.task)
        return result.explanation

    def record(self, target: int) -> dict[str, Any]:
        """Return what a sidecar holds of the input, the model, the search and the class with this index."""
        record = dict(self.request.maps.record)
        if notes := [note.text for note in self.request.maps.setting_notes if not note.of_masks]:
            record["Notes"] = notes
        classes = record["Model"]["classes"]
        named = {"index": target, "class": classes[target] if classes else str(target)}
        return record | {"Search": self.search_record, "Target": named}

    @property
    @abstractmethod
    def stem(self) -> str:
        """Start of the names of all files."""

    @property
    @abstractmethod
    def search_label(self) -> str:
        """The search in file names, such as ``seg-AAL_desc-``, before what is described."""

    @property
    @abstractmethod
    def search_record(self) -> dict[str, Any]:
        """What the sidecar holds of the search."""

    @abstractmethod
    def regions(self) -> pd.DataFrame:
        """Return the columns ``index`` and ``name`` of all regions."""

    @abstractmethod
    def map_back(self, volume: np.ndarray | None, values: np.ndarray, target: str) -> Any:
        """Return a map on the subject's own grid.

        Parameters
        ----------
        volume
            ``(*spatial)`` on the grid of the model; None: the values of the regions are painted.
        values
            ``(m,)`` the values of the regions.
        target
            Name of the class.
        """

    @staticmethod
    @abstractmethod
    def writer(mapped: Any) -> tuple[str, Writer]:
        """Return the ending of a map's file, and what writes it."""


class ScanSubject(Subject):
    """A scan."""

    @property
    def _maps(self) -> ScanMaps:
        return cast(ScanMaps, self.request.maps)

    @property
    def stem(self) -> str:
        """Start of the names of all files: that of the scan."""
        return self._maps.inputs.scan.stem

    @property
    def search_label(self) -> str:
        """The atlas as an entity; another search begins the description."""
        atlas, segments = self._maps.search.atlas, self.search[1]
        if atlas is not None:
            return f"seg-{atlas.name}_desc-"
        return f"desc-{self._maps.search.kind if segments is None else 'segments'}"

    @property
    def search_record(self) -> dict[str, Any]:
        """What the sidecar holds of the search."""
        return self._maps.search.record(*self.search)

    def regions(self) -> pd.DataFrame:
        """Return the columns ``index`` and ``name``, those of regions without voxels among them."""
        atlas, names = self._maps.search.atlas, self._maps.search.names
        if atlas is not None:
            return atlas.table[["index", "name"]].reset_index(drop=True)
        kind = "point" if self.search[1] is None else "segment"
        return pd.DataFrame({"index": self.index, "name": names or row_names(self.index, kind)})

    def map_back(self, volume: np.ndarray | None, values: np.ndarray, target: str) -> nib.Nifti1Image:
        """Return a NIfTI image on the scan's own grid; see `Subject.map_back`."""
        maps, segments = self._maps, self.search[1]
        mapper = NativeMapper(
            maps.inputs.scan,
            maps.inputs.grid,
            maps.search.atlas,
            segments,
            maps.inputs.transform,
            maps.search.native_mask,
        )
        if volume is None and segments is not None:
            img = mapper.segments(values)
        else:
            painted = paint(self.labels, np.arange(1, len(values) + 1), values) if volume is None else volume
            img = mapper.volume(painted)
        describe_map(img, "attribution", target)
        return img

    @staticmethod
    def writer(mapped: nib.Nifti1Image) -> tuple[str, Writer]:
        """Return what writes NIfTI."""
        return ".nii.gz", mapped.to_filename


class ImageSubject(Subject):
    """An image."""

    @property
    def _maps(self) -> ImageMaps:
        return cast(ImageMaps, self.request.maps)

    @property
    def stem(self) -> str:
        """Start of the names of all files: that of the image."""
        return self._maps.picture.stem

    @property
    def search_label(self) -> str:
        """The kind of the search, which begins the description."""
        return f"desc-{self._maps.search.kind}"

    @property
    def search_record(self) -> dict[str, Any]:
        """What the sidecar holds of the search."""
        return self._maps.search.record(len(self.index))

    def regions(self) -> pd.DataFrame:
        """Return the columns ``index`` and ``name``."""
        kind = "point" if self.search[1] is None else "segment"
        return pd.DataFrame({"index": self.index, "name": row_names(self.index, kind)})

    def map_back(self, volume: np.ndarray | None, values: np.ndarray, target: str) -> np.ndarray:
        """Return an array ``(rows, cols)`` float32 on the image's own pixels; see `Subject.map_back`."""
        own = self._maps.search.segments
        if volume is None and own is not None:
            return paint(own.labels, self.index, values)
        painted = paint(self.labels, np.arange(1, len(values) + 1), values) if volume is None else volume
        resized: np.ndarray = resize(painted[None], self._maps.picture.shape)[0]
        return resized

    @staticmethod
    def writer(mapped: np.ndarray) -> tuple[str, Writer]:
        """Return what writes 32-bit float TIFF."""
        return ".tif", write_tiff(mapped)


def options_of(img: Any) -> type[ExplainOptions] | type[ImageOptions]:
    """Return the dataclass of the options for a scan or for an image."""
    several = isinstance(img, Mapping | list | tuple) and len(img) > 0
    first = (next(iter(img.values())) if isinstance(img, Mapping) else img[0]) if several else img
    is_volume = isinstance(first, SpatialImage) or (isinstance(first, str | os.PathLike) and not is_picture_file(first))
    return ExplainOptions if is_volume else ImageOptions


def resolve_subject(
    img: Any, predict: Any, target: Target, search: Any, keywords: Mapping[str, Any], batch_size: int | None
) -> Subject:
    """Read a scan or an image, and resolve what is explained of it and where.

    Parameters
    ----------
    img, predict, target
        As `glas3d.evaluate.attribute` takes them.
    search
        Where to look; None: the regions of AAL in a scan, a grid of 15 x 15 cells in an image.
    keywords
        The options of the input that were given, see `options_of`.
    batch_size
        Volumes that the model is given at once; None: by their size.

    Raises
    ------
    GlasError
        Input that does not fit, several targets, several backgrounds, or a mode.
    """
    of_input = options_of(img)
    options = of_input(**keywords)
    chosen = [name for name in _MODES if getattr(options, name) != getattr(of_input(), name)]
    if chosen:
        raise GlasError(f"methods are compared in the plain mode, got {', '.join(sorted(chosen))}")
    if options.several_backgrounds:
        raise GlasError("methods are compared with one background, got several")
    if isinstance(target, Sequence) and not isinstance(target, str):
        raise GlasError(f"methods are compared for one target, got {len(target)}")
    is_scan = of_input is ExplainOptions
    regions = search if search is not None else "AAL" if is_scan else Grid(15)

    def resolve(settings: Mapping[str, Any]) -> Request[Any]:
        given = {**keywords, **settings}
        if is_scan:
            return resolve_scan(img, predict, target, regions, given)
        return resolve_image(img, predict, target, regions, given)

    request = resolve({})
    if is_matched(request.maps.record["Settings"]["background"]):
        keywords = {**keywords, "background": MATCHED}  # for all methods, also those whose masks are round
    made = ScanSubject if is_scan else ImageSubject
    return made(request, resolve, batch_size)
