"""Atlases: a label image and its look-up table, brought to a scan's grid as points and segments."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.bids_names import bids_label
from glas3d.core.search import Segments
from glas3d.core.settings import Point as Point
from glas3d.counts import counted
from glas3d.display import ShownInNotebooks, Summary
from glas3d.errors import GlasError, GlasWarning, listed
from glas3d.hashing import arrays_sha256
from glas3d.imaging.lookup_table import TABLE_ENDINGS, TableLike, hemispheres, read_lookup_table, unique_names
from glas3d.imaging.nilearn_atlases import file_stem, parse_fetched
from glas3d.imaging.probability_maps import ProbabilityMaps, highest_map
from glas3d.imaging.scan import ImageLike, Scan, load_scan, open_image
from glas3d.imaging.space import VoxelGrid, resample, voxel_to_world
from glas3d.resources import folder, is_path, names, shipped_name

_CACHED = 4  # grids whose segments an atlas keeps
_SHOWN = 5  # rows in a notebook
_LOCK = threading.Lock()


@dataclass(frozen=True, eq=False, repr=False)
class Atlas(ShownInNotebooks):
    """A set of labelled brain regions.

    Attributes
    ----------
    name
        The name in file names (``seg-<name>``).
    labels_img
        3D image of whole numbers; 0 is background. It must not be changed.
    table
        One row per region: ``index`` (its label), ``name``, ``hemisphere`` (``L``, ``R`` or ``midline``).
    sha256
        The hash of the label image's file, or of labels and affine for an image in memory.
    space
        The space its regions are in, such as ``"MNI"``: scans are checked against it. None: unknown, as
        for a parcellation of the scan itself; nothing is checked.

    Examples
    --------
    >>> aal = Atlas.load("AAL")
    >>> aal
    Atlas(AAL: 116 regions, (181, 217, 181))
    >>> aal.table.iloc[36].to_dict()
    {'index': 37, 'name': 'Hippocampus_L', 'hemisphere': 'L'}
    """

    name: str
    labels_img: nib.Nifti1Image
    table: pd.DataFrame
    sha256: str
    space: str | None = None
    _segments: dict[tuple[Any, ...], Segments] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def load(
        cls,
        name: str | os.PathLike[str],
        *,
        table: str | os.PathLike[str] | None = None,
        label: str | None = None,
        space: str | None = None,
    ) -> Atlas:
        """Load a shipped atlas by its name, or any atlas by the path of its image.

        Parameters
        ----------
        name
            The name of a shipped atlas, in any case; or the path of a label image or of 4D probabilities.
        table
            The look-up table of an atlas that is given by its path, as in `from_files`. None (default): the file of
            the same name next to the image, with the ending of a table, such as ``.tsv``.
        label
            The name in file names of an atlas that is given by its path, ``name`` in `from_files`.
        space
            The space of an atlas that is given by its path, as in `from_files`.

        Raises
        ------
        GlasError
            No such atlas is shipped and no such file exists (the message lists the shipped ones), there is no look-up
            table, or the files cannot be used, as in `from_files` and `from_probabilistic`.
        """
        name, path = os.fspath(name), Path(name)
        if table is not None and cls.shipped_name(name):
            raise GlasError(
                f"a look-up table (--atlas-table) is for an atlas that is a file, {name} is shipped with one"
            )
        if cls.shipped_name(name) or not path.exists():
            if is_path(name) and not cls.shipped_name(name):
                raise GlasError(f"no such file: {name}")
            atlas = _shipped(folder("atlases", name))
            return replace(atlas, table=atlas.table.copy())  # others may change theirs
        table = table_next_to(path) if table is None else table
        if _number_of_volumes(path) > 1:
            return cls.from_probabilistic(path, table, name=label, space=space)
        return cls.from_files(path, table, name=label, space=space)

    @staticmethod
    def names() -> list[str]:
        """Return the names of the shipped atlases."""
        return names("atlases")

    @staticmethod
    def shipped_name(name: str) -> str | None:
        """Return the name of a shipped atlas that is given in any case; None if it is not shipped."""
        return shipped_name("atlases", name)

    @classmethod
    def recorded(cls, search: Mapping[str, Any]) -> Atlas | None:
        """Return the shipped atlas that a sidecar records under ``Search``, by name and hash; None for any other."""
        name = cls.shipped_name(str(search.get("atlas", "")))
        atlas = None if name is None else cls.load(name)
        return atlas if atlas is not None and atlas.sha256 == search.get("sha256") else None

    @classmethod
    def from_files(
        cls,
        labels_img: ImageLike,
        tsv: TableLike,
        *,
        name: str | None = None,
        space: str | None = None,
    ) -> Atlas:
        """Make an atlas from a label image and its look-up table.

        Parameters
        ----------
        labels_img
            Path or image of whole numbers, in the space of the scans.
        tsv
            BIDS look-up table (``*_dseg.tsv``, also as ``.csv`` or DataFrame): columns ``index`` and
            ``name``; or a table of FreeSurfer, FSL, ITK-SNAP, MRtrix, CAT12, MRIcron or SPM (``.txt``, ``.lut``,
            ``.label``, ``.ctbl``, ``.xml``, ``.csv``). A missing ``hemisphere`` is taken from the region's name
            (``Left ...``, ``..._L``, ``LH``), else from the side that three quarters of its voxels lie on.
        name
            The name in file names; None (default): the ``atlas-`` entity of the file's name, else the file's stem.
        space
            ``"MNI"`` when its regions are in MNI space; None (default): unknown.

        Raises
        ------
        GlasError
            Labels are not whole numbers, the table lacks a column or has a label twice, or the image has labels
            that the table does not name.
        """
        scan = load_scan(labels_img, constant=True)
        labels = _labels(scan)
        table = read_lookup_table(tsv, np.unique(labels).tolist())
        sources = (scan.name, "the table" if isinstance(tsv, pd.DataFrame) else os.fspath(tsv))
        labels_img = nib.Nifti1Image(labels, scan.affine)
        return cls._checked(labels_img, table, sources, name or _atlas_entity(scan), scan.sha256, space)

    @classmethod
    def from_nilearn(
        cls, fetched: Any, *, name: str | None = None, threshold: float | None = None, maps: str = "maps"
    ) -> Atlas:
        """Make an atlas from what a ``nilearn.datasets.fetch_atlas_*`` function returned.

        Labels keep their own names where they are sparse or missing from the image; 4D maps become labels as in
        `from_probabilistic`. Fetched coordinates are for `Coordinates`; surfaces are not supported.

        Parameters
        ----------
        fetched
            The bunch, of any version of nilearn, or a dictionary with the same fields.
        name
            The name in file names; None (default): the file's stem.
        threshold
            The threshold for 4D maps, see `from_probabilistic`.
        maps
            The field of the image, where a bunch has several (``"thick_17"``, ``"scale122"``, ``"rsn28"``).

        Raises
        ------
        GlasError
            The bunch has no volume, or does not say which label has which name.

        Warns
        -----
        GlasWarning
            The atlas is not in MNI space, or regions lie on the other side than their names say.

        Examples
        --------
        >>> from nilearn import datasets
        >>> Atlas.from_nilearn(datasets.fetch_atlas_aal("SPM12"), name="AAL2")  # doctest: +SKIP
        Atlas(AAL2: 116 regions, (91, 109, 91))
        """
        parsed = parse_fetched(fetched, maps)
        volumes = ProbabilityMaps(parsed.maps)
        if volumes.n > 1:
            if parsed.names is None and _all_whole(next(iter(volumes))):
                raise GlasError(
                    f"each of the {volumes.n} volumes of {volumes.name} is an atlas of its own: choose one, "
                    "as in Atlas.from_nilearn({'maps': nilearn.image.index_img(fetched.maps, 9)})"
                )
            labels, affine = highest_map(volumes, threshold), volumes.affine
            sha256 = arrays_sha256(labels, affine)
            table = pd.DataFrame({"index": range(1, volumes.n + 1), "name": parsed.volume_names(volumes.n)})
        else:
            scan = load_scan(parsed.maps, constant=True)
            labels, affine, sha256 = _labels(scan), scan.affine, scan.sha256
            table = parsed.label_table(np.unique(labels[labels > 0]).tolist())
        sources = (volumes.name, "its look-up table")
        labels_img = nib.Nifti1Image(labels, affine)
        atlas = cls._checked(labels_img, table, sources, name or parsed.stem or "atlas", sha256, parsed.space)
        if parsed.space != "MNI":
            message = f"{atlas.name} is in {parsed.space} space: on a scan in MNI space its regions lie elsewhere"
            warnings.warn(message, GlasWarning, stacklevel=2)
        return atlas

    @classmethod
    def from_probabilistic(
        cls,
        maps_img: ImageLike,
        table: TableLike | Sequence[str],
        *,
        threshold: float | None = None,
        name: str | None = None,
        space: str | None = None,
    ) -> Atlas:
        """Make an atlas from maps, one per volume: a voxel belongs to the map that is highest there.

        Parameters
        ----------
        maps_img
            Path or 4D image of probabilities, percentages, loadings or statistics, in the space of the scans.
        table
            One name per volume, in order; or a table as in `from_files` whose rows, in the order of their
            ``index``, are the volumes (a further row with index 0 is background).
        threshold
            The value that the highest map must reach for a voxel to belong to it, in the maps' own unit (0.25, or
            25 for percentages); None (default): a quarter of that map's own maximum. For probabilities that reach 1
            this is the usual 25 %, and maps without a unit (loadings, z) keep their core whatever their scale.
        name, space
            As in `from_files`.

        Returns
        -------
        An atlas whose labels are the numbers of the volumes, from 1.

        Raises
        ------
        GlasError
            There are not as many names as volumes, or no voxel reaches the threshold.
        """
        maps = ProbabilityMaps(maps_img)
        if isinstance(table, str | os.PathLike | pd.DataFrame):
            rows = read_lookup_table(table, range(maps.n + 1)).sort_values("index")
            rows = rows if len(rows) == maps.n else rows[rows["index"] != 0]
        else:
            rows = pd.DataFrame({"name": list(table)})
        if len(rows) != maps.n:
            raise GlasError(f"{maps.name} has {maps.n} maps and must have as many names, got {len(rows)}")
        labels_img = nib.Nifti1Image(highest_map(maps, threshold), maps.affine)
        rows = read_lookup_table(rows.assign(index=range(1, maps.n + 1)))
        sha256 = arrays_sha256(np.asarray(labels_img.dataobj), maps.affine)
        sources = (maps.name, "the table")
        return cls._checked(labels_img, rows, sources, name or file_stem(maps_img) or "atlas", sha256, space)

    @classmethod
    def _checked(
        cls,
        labels_img: nib.Nifti1Image,
        table: pd.DataFrame,
        sources: tuple[str, str],
        name: str,
        sha256: str,
        space: str | None,
    ) -> Atlas:
        """Return an atlas after a check of its labels against its table; ``sources`` is what messages call the two."""
        labels = np.asarray(labels_img.dataobj)
        table = table[table["index"] != 0].reset_index(drop=True)
        unnamed = sorted(set(np.unique(labels).tolist()) - {0} - set(table["index"]))
        if unnamed:
            which = listed(unnamed)
            raise GlasError(f"every label of {sources[0]} must have a row in {sources[1]}, these have none: {which}")
        sides = hemispheres(table, labels, labels_img.affine, warn=space == "MNI")
        regions = unique_names(table["name"].tolist(), table["index"].tolist())
        table = pd.DataFrame({"index": table["index"], "name": regions, "hemisphere": sides})
        return cls(bids_label(name) or "atlas", labels_img, table, sha256, space)

    def __repr__(self) -> str:
        return f"Atlas({self.name}: {len(self.table)} regions, {self.labels_img.shape})"

    def _summary(self) -> Summary:
        sides = self.table["hemisphere"].value_counts()
        size = " x ".join(f"{v:.3g}" for v in nib.affines.voxel_sizes(self.labels_img.affine))
        facts = {
            "regions": f"{len(self.table)}: " + ", ".join(f"{n} {side}" for side, n in sides.items()),
            "space": self.space or "unknown",
            "label image": f"{' x '.join(map(str, self.labels_img.shape))} voxels of {size} mm",
        }
        shown = self.table.head(_SHOWN)
        rows = shown[["index", "name", "hemisphere"]].astype(str).to_numpy().tolist()
        caption = f"The first {len(shown)} of {len(self.table)} regions" if len(shown) < len(self.table) else ""
        return Summary(f"Atlas {self.name}", facts, ("index", "name", "hemisphere"), rows, caption=caption)

    def on(self, grid: VoxelGrid) -> np.ndarray:
        """Return the labels on a grid by nearest neighbour, ``grid.shape`` int32."""
        return resample(self.labels_img, grid, "nearest")

    def segments(self, grid: VoxelGrid, point: Point = "centroid") -> Segments:
        """Return the regions as segments of a grid, in the table's order.

        Parameters
        ----------
        grid
            Usually the grid of a scan or a model.
        point
            ``"centroid"`` (default, as in the paper), or ``"medoid"``: the region's voxel nearest to it.

        Raises
        ------
        GlasError
            No region lies on the grid.

        Warns
        -----
        GlasWarning
            Regions own no voxel of the grid; the message names them.
        """
        index = self.table["index"].to_numpy()
        key = (tuple(grid.shape), np.asarray(grid.affine, np.float64).tobytes(), str(point), index.tobytes())
        with _LOCK:
            segments = self._segments.pop(key, None)
        if segments is None:
            segments = self._segments_on(grid, index, point)
        with _LOCK:
            self._segments[key] = segments  # at the end: the first is the one used longest ago
            while len(self._segments) > _CACHED:
                del self._segments[next(iter(self._segments))]
        missing = self.table.loc[~self.table["index"].isin(segments.index), "name"]
        if len(missing):
            are, get = ("is", "gets") if len(missing) == 1 else ("are", "get")
            message = (
                f"{counted(len(missing), f'region of {self.name}')} {are} too small for the voxel grid {grid.shape} "
                f"and {get} no score: {', '.join(missing)}"
            )
            warnings.warn(message, GlasWarning, stacklevel=2)
        return segments

    def _segments_on(self, grid: VoxelGrid, index: np.ndarray, point: Point) -> Segments:
        labels = self.on(grid)
        try:
            segments = Segments.from_labels(labels, index, point=point)
        except GlasError:
            if labels.any():
                raise
            raise GlasError(f"the atlas {self.name} does not overlap the scan's grid of {grid.shape}") from None
        for array in (segments.labels, segments.index, segments.points):
            array.setflags(write=False)
        return segments

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_segments": {}}  # workers compute them again

    def centroids(self) -> pd.DataFrame:
        """Return the table with the regions' centroids on the atlas's own grid: ``x y z`` in mm, and ``n_voxels``."""
        grid = VoxelGrid(self.labels_img.shape, self.labels_img.affine)
        segments = self.segments(grid)
        xyz = pd.DataFrame(voxel_to_world(segments.points, grid.affine), columns=["x", "y", "z"])
        centroids = xyz.assign(index=segments.index, n_voxels=segments.n_voxels)
        return self.table.merge(centroids, on="index", how="left", validate="one_to_one")


@lru_cache(maxsize=4)
def _shipped(shipped: Path) -> Atlas:
    """Return the atlas in one of the shipped folders, read once."""
    stem = shipped / f"atlas-{shipped.name}_dseg"
    return Atlas.from_files(f"{stem}.nii.gz", f"{stem}.tsv", name=shipped.name, space="MNI")


def _labels(scan: Scan) -> np.ndarray:
    """Return the labels of an image as int32."""
    values = np.asarray(scan.img.dataobj).reshape(scan.shape)  # exact: float32 would join labels above 2^24
    values = np.where(np.isnan(values), 0, values) if values.dtype.kind == "f" else values
    # in float64: float32 would round the largest label up
    fits = bool((values >= 0).all() and float(values.max()) <= np.iinfo(np.int32).max)
    labels = values.astype(np.int32) if fits else np.empty(0, np.int32)
    if not np.array_equal(labels, values):
        raise GlasError(f"an atlas must hold whole numbers from 0 to 2147483647, {scan.name} does not")
    if not labels.any():
        raise GlasError(f"an atlas must hold labels above 0, {scan.name} holds none")
    return labels


def table_next_to(path: Path) -> Path:
    """Return the look-up table that has the name of a label image and lies next to it.

    Raises
    ------
    GlasError
        There is none.
    """
    stem = path.name.removesuffix(".gz").removesuffix(".nii").removesuffix(".mgz").removesuffix(".mgh")
    for ending in TABLE_ENDINGS:
        if (table := path.with_name(stem + ending)).is_file():
            return table
    raise GlasError(
        f"an atlas needs a look-up table of its labels, {path} has none next to it: give {stem}.tsv with the columns "
        "index and name there, or name the file by --atlas-table (table=); tables of FreeSurfer, FSL, ITK-SNAP, "
        f"MRtrix, CAT12, MRIcron and SPM may be used, too ({', '.join(TABLE_ENDINGS[1:])})"
    )


def _number_of_volumes(path: Path) -> int:
    """Return how many volumes an image has; 1 for what is not an image, which `load_scan` then refuses."""
    try:
        image = open_image(path)
    except GlasError:
        return 1
    return int(np.prod(image.shape[3:]))


def _all_whole(values: np.ndarray) -> bool:
    return bool((values == np.rint(values)).all())


def _atlas_entity(scan: Scan) -> str:
    """Return the ``atlas-`` entity of a file's name, else its stem."""
    return dict(part.split("-", 1) for part in scan.stem.split("_") if "-" in part).get("atlas", scan.stem)
