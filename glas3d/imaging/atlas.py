"""Atlases: a label image and its look-up table, brought to a scan's grid as points and segments."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.bids_names import bids_label
from glas3d.core.search import Segments
from glas3d.core.settings import Point as Point
from glas3d.errors import GlasError, GlasWarning
from glas3d.hashing import arrays_sha256
from glas3d.imaging.lookup import Table, hemispheres, own_names, read_lookup_table
from glas3d.imaging.nilearn_atlases import file_stem, take_apart
from glas3d.imaging.probability import Maps, strongest
from glas3d.imaging.scan import ImageLike, Scan, load_scan
from glas3d.imaging.space import VoxelGrid, resample, world
from glas3d.resources import folder, names

_KEPT = 4  # grids whose segments an atlas remembers
_LOCK = threading.Lock()


@dataclass(frozen=True, eq=False, repr=False)
class Atlas:
    """Labelled regions of the brain.

    Attributes
    ----------
    name
        Used in file names (``seg-<name>``).
    labels_img
        3D image of whole numbers; 0 is background. Taken not to change.
    table
        One row a region: ``index`` (its label), ``name``, ``hemisphere`` (``L``, ``R`` or ``midline``).
    sha256
        Of the label image's file.
    space
        The space its regions are in, such as ``"MNI"``: scans are checked against it. None: unknown, as
        for a parcellation of the scan itself, and nothing is checked.

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
    def load(cls, name: str) -> Atlas:
        """A shipped atlas.

        Raises
        ------
        GlasError
            Nothing of that name is shipped; the message lists what is.
        """
        place = folder("atlases", name)
        stem = place / f"atlas-{name}_dseg"
        return cls.from_files(f"{stem}.nii.gz", f"{stem}.tsv", name=name, space="MNI")

    @classmethod
    def named(cls, name: str, *, space: str | None = None) -> Atlas:
        """A shipped atlas, or that of a label image or of 4D probabilities with its ``.tsv`` beside it, by its path.

        Parameters
        ----------
        space
            Of the atlas of a path.

        Raises
        ------
        GlasError
            It is neither, and what `from_files` refuses.
        """
        path = Path(name)
        if name in cls.names() or not path.exists():
            return cls.load(name)
        table = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".tsv")
        if _volumes(path) > 1:
            return cls.from_probabilistic(path, table, space=space)
        return cls.from_files(path, table, space=space)

    @staticmethod
    def names() -> list[str]:
        """The atlases that are shipped."""
        return names("atlases")

    @classmethod
    def from_files(
        cls,
        labels_img: ImageLike,
        tsv: Table,
        *,
        name: str | None = None,
        space: str | None = None,
    ) -> Atlas:
        """An atlas of your own.

        Parameters
        ----------
        labels_img
            Path or image of whole numbers, in the space of the scans.
        tsv
            BIDS look-up table (``*_dseg.tsv``, also as ``.csv`` or DataFrame): columns ``index`` and
            ``name``; or a colour table of FreeSurfer, ITK-SNAP or MRIcron (``.txt``, ``.lut``, ``.label``,
            ``.ctbl``). A ``hemisphere`` that is missing is told from the regions' names (``Left ...``,
            ``..._L``, ``LH``), else from their places.
        name
            Used in file names; None: the ``atlas-`` entity of the file's name, else the file's stem.
        space
            ``"MNI"`` when its regions are in MNI space.

        Raises
        ------
        GlasError
            Labels that are not whole numbers, a table without the columns, a label twice, or labels of the
            image that the table does not name.
        """
        scan = load_scan(labels_img, constant=True)
        labels = _labels(scan)
        table = read_lookup_table(tsv, np.unique(labels).tolist())
        source = "the table" if isinstance(tsv, pd.DataFrame) else os.fspath(tsv)
        return cls._made(labels, scan.affine, table, scan.name, source, name or _entity(scan), scan.sha256, space)

    @classmethod
    def from_nilearn(
        cls, fetched: Any, *, name: str | None = None, threshold: float | None = None, maps: str = "maps"
    ) -> Atlas:
        """What a ``nilearn.datasets.fetch_atlas_*`` function returned.

        Labels keep their own names where they are sparse or missing from the image; 4D maps are taken apart
        by `from_probabilistic`. Coordinates are searched with `Coordinates`, surfaces not at all.

        Parameters
        ----------
        fetched
            The bunch, of any version of nilearn, or a dict with the same fields.
        name
            Used in file names; None: the file's stem.
        threshold
            For 4D maps, see `from_probabilistic`.
        maps
            Which image, where a bunch has several (``"thick_17"``, ``"scale122"``, ``"rsn28"``).

        Raises
        ------
        GlasError
            A bunch without a volume, or one that does not say which name is whose.

        Warns
        -----
        GlasWarning
            An atlas that is not in MNI space, or regions on the other side than their names say.

        Examples
        --------
        >>> from nilearn import datasets
        >>> Atlas.from_nilearn(datasets.fetch_atlas_aal("SPM12"), name="AAL2")  # doctest: +SKIP
        Atlas(AAL2: 116 regions, (91, 109, 91))
        """
        found = take_apart(fetched, maps)
        called = name or found.stem or "atlas"
        volumes = Maps(found.maps)
        if volumes.n > 1:
            if found.names is None and _whole(next(iter(volumes))):
                raise GlasError(
                    f"each of the {volumes.n} volumes of {volumes.name} is an atlas of its own: choose one, "
                    "as in Atlas.from_nilearn({'maps': nilearn.image.index_img(fetched.maps, 9)})"
                )
            labels = strongest(volumes, threshold)
            table = pd.DataFrame({"index": range(1, volumes.n + 1), "name": found.volume_names(volumes.n)})
            affine, sha256 = volumes.affine, arrays_sha256(labels, volumes.affine)
        else:
            scan = load_scan(found.maps, constant=True)
            labels, affine, sha256 = _labels(scan), scan.affine, scan.sha256
            table = found.label_table(np.unique(labels[labels > 0]).tolist())
        atlas = cls._made(labels, affine, table, volumes.name, "its look-up table", called, sha256, found.space)
        if found.space != "MNI":
            message = f"{atlas.name} is in {found.space} space: on a scan in MNI space its regions lie elsewhere"
            warnings.warn(message, GlasWarning, stacklevel=2)
        return atlas

    @classmethod
    def from_probabilistic(
        cls,
        maps_img: ImageLike,
        table: Table | Sequence[str],
        *,
        threshold: float | None = None,
        name: str | None = None,
        space: str | None = None,
    ) -> Atlas:
        """An atlas of maps, one a volume: a voxel belongs to the map that is highest there.

        Parameters
        ----------
        maps_img
            Path or 4D image of probabilities, percentages, loadings or statistics, in the space of the scans.
        table
            One name a volume, in order; or a table as in `from_files` whose rows, in the order of their
            ``index``, are the volumes (a row 0 before as many rows as volumes is background).
        threshold
            What the highest map must reach for a voxel to belong to it, in the maps' own unit (0.25, or 25
            for percentages); None: a quarter of that map's own maximum. For probabilities that reach 1 this
            is the usual 25 %, and maps without a unit (loadings, z) keep their core whatever their scale.
        name, space
            As in `from_files`.

        Returns
        -------
        Its labels count the volumes from 1.

        Raises
        ------
        GlasError
            Another number of names than of volumes, or a threshold that no voxel reaches.
        """
        maps = Maps(maps_img)
        if isinstance(table, str | os.PathLike | pd.DataFrame):
            rows = read_lookup_table(table, range(maps.n + 1)).sort_values("index")
            rows = rows if len(rows) == maps.n else rows[rows["index"] != 0]
        else:
            rows = pd.DataFrame({"name": list(table)})
        if len(rows) != maps.n:
            raise GlasError(f"{maps.name} has {maps.n} maps and must have as many names, got {len(rows)}")
        labels = strongest(maps, threshold)
        rows = read_lookup_table(rows.assign(index=range(1, maps.n + 1)))
        called = name or file_stem(maps_img) or "atlas"
        sha256 = arrays_sha256(labels, maps.affine)
        return cls._made(labels, maps.affine, rows, maps.name, "the table", called, sha256, space)

    @classmethod
    def _made(
        cls,
        labels: np.ndarray,
        affine: np.ndarray,
        table: pd.DataFrame,
        image_source: str,
        table_source: str,
        name: str,
        sha256: str,
        space: str | None,
    ) -> Atlas:
        table = table[table["index"] != 0].reset_index(drop=True)
        unnamed = sorted(set(np.unique(labels).tolist()) - {0} - set(table["index"]))
        if unnamed:
            some = ", ".join(map(str, unnamed[:5])) + (" ..." if len(unnamed) > 5 else "")
            raise GlasError(f"every label of {image_source} must have a row in {table_source}, these have none: {some}")
        sides = hemispheres(table, labels, affine, warn=space == "MNI")
        own = own_names(table["name"].tolist(), table["index"].tolist())
        table = pd.DataFrame({"index": table["index"], "name": own, "hemisphere": sides})
        return cls(bids_label(name) or "atlas", nib.Nifti1Image(labels, affine), table, sha256, space)

    def __repr__(self) -> str:
        return f"Atlas({self.name}: {len(self.table)} regions, {self.labels_img.shape})"

    def on(self, grid: VoxelGrid) -> np.ndarray:
        """The labels on a grid by nearest neighbour, ``grid.shape`` int32."""
        return resample(self.labels_img, grid, "nearest")

    def segments(self, grid: VoxelGrid, point: Point = "centroid") -> Segments:
        """The regions as segments of a grid, in the table's order.

        Parameters
        ----------
        grid
            Usually a scan's or a model's.
        point
            ``"centroid"`` (the paper's), or ``"medoid"``: the region's voxel nearest to it.

        Raises
        ------
        GlasError
            No region lies on the grid.

        Warns
        -----
        GlasWarning
            Regions that own no voxel of the grid, by name.
        """
        index = self.table["index"].to_numpy()
        key = (tuple(grid.shape), np.asarray(grid.affine, np.float64).tobytes(), str(point), index.tobytes())
        with _LOCK:
            segments = self._segments.pop(key, None)
        if segments is None:
            segments = self._segments_on(grid, index, point)
        with _LOCK:
            self._segments[key] = segments  # last: the first is the one longest not asked for
            while len(self._segments) > _KEPT:
                del self._segments[next(iter(self._segments))]
        lost = self.table.loc[~self.table["index"].isin(segments.index), "name"]
        if len(lost):
            message = f"{len(lost)} regions of {self.name} own no voxel of the grid {grid.shape}: {', '.join(lost)}"
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
        return self.__dict__ | {"_segments": {}}  # workers find them out themselves

    def centroids(self) -> pd.DataFrame:
        """The table with the regions' centroids on the atlas's own grid: ``x y z`` in mm, ``n_voxels``."""
        grid = VoxelGrid(self.labels_img.shape, self.labels_img.affine)
        segments = self.segments(grid)
        xyz = pd.DataFrame(world(segments.points, grid.affine), columns=["x", "y", "z"])
        found = xyz.assign(index=segments.index, n_voxels=segments.n_voxels)
        return self.table.merge(found, on="index", how="left", validate="one_to_one")


def _labels(scan: Scan) -> np.ndarray:
    """The labels of an image, int32."""
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


def _volumes(path: Path) -> int:
    """How many volumes an image has; 1 where it is none, which `load_scan` says in its words."""
    try:
        image: Any = nib.load(path)
    except Exception:  # nibabel has many of its own
        return 1
    return int(np.prod(image.shape[3:]))


def _whole(values: np.ndarray) -> bool:
    return bool((values == np.rint(values)).all())


def _entity(scan: Scan) -> str:
    """The ``atlas-`` entity of a file's name, else its stem."""
    return dict(part.split("-", 1) for part in scan.stem.split("_") if "-" in part).get("atlas", scan.stem)
