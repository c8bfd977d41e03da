"""Atlases: a label image and its look-up table, brought to a scan's grid as points and segments."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.core.search import Segments
from glas3d.errors import GlasError, GlasWarning
from glas3d.imaging.scan import ImageLike, load_scan
from glas3d.imaging.space import VoxelGrid, resample, world
from glas3d.output import bids_label
from glas3d.resources import folder, names

Point = Literal["centroid", "medoid"]


@dataclass(frozen=True, eq=False, repr=False)
class Atlas:
    """Labelled regions of the brain.

    Attributes
    ----------
    name
        Used in file names (``seg-<name>``).
    labels_img
        3D image of whole numbers; 0 is background.
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

    @staticmethod
    def names() -> list[str]:
        """The atlases that are shipped."""
        return names("atlases")

    @classmethod
    def from_files(
        cls,
        labels_img: ImageLike,
        tsv: str | os.PathLike[str],
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
            BIDS look-up table (``*_dseg.tsv``): columns ``index`` and ``name``; ``hemisphere`` is told from
            the regions' places when it is missing.
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
        scan = load_scan(labels_img)
        values = np.asarray(scan.img.dataobj).reshape(scan.shape)  # exact: float32 would join labels above 2^24
        values = np.where(np.isnan(values), 0, values) if values.dtype.kind == "f" else values
        # in float64: float32 would round the largest label up
        fits = bool((values >= 0).all() and float(values.max()) <= np.iinfo(np.int32).max)
        labels = values.astype(np.int32) if fits else np.empty(0, np.int32)
        if not np.array_equal(labels, values):
            raise GlasError(f"an atlas must hold whole numbers from 0 to 2147483647, {scan.name} does not")
        table = _read_table(Path(tsv))
        unnamed = sorted(set(np.unique(labels).tolist()) - {0} - set(table["index"]))
        if unnamed:
            some = ", ".join(map(str, unnamed[:5])) + (" ..." if len(unnamed) > 5 else "")
            raise GlasError(f"every label of {scan.name} must have a row in {tsv}, these have none: {some}")
        if "hemisphere" not in table:
            table["hemisphere"] = _hemispheres(labels, scan.affine, table["index"])
        own = dict(part.split("-", 1) for part in scan.stem.split("_") if "-" in part).get("atlas", scan.stem)
        chosen = bids_label(name or own)
        image = nib.Nifti1Image(labels, scan.affine)
        return cls(chosen, image, table[["index", "name", "hemisphere"]], scan.sha256, space)

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
        labels = self.on(grid)
        try:
            segments = Segments.from_labels(labels, self.table["index"].to_numpy(), point=point)
        except GlasError:
            if labels.any():
                raise
            raise GlasError(f"the atlas {self.name} does not overlap the scan's grid of {grid.shape}") from None
        lost = self.table.loc[~self.table["index"].isin(segments.index), "name"]
        if len(lost):
            message = f"{len(lost)} regions of {self.name} own no voxel of the grid {grid.shape}: {', '.join(lost)}"
            warnings.warn(message, GlasWarning, stacklevel=2)
        return segments

    def centroids(self) -> pd.DataFrame:
        """The table with the regions' centroids on the atlas's own grid: ``x y z`` in mm, ``n_voxels``."""
        grid = VoxelGrid(self.labels_img.shape, self.labels_img.affine)
        segments = self.segments(grid)
        xyz = pd.DataFrame(world(segments.points, grid.affine), columns=["x", "y", "z"])
        found = xyz.assign(index=segments.index, n_voxels=segments.n_voxels)
        return self.table.merge(found, on="index", how="left", validate="one_to_one")


def _read_table(tsv: Path) -> pd.DataFrame:
    if not tsv.is_file():
        raise GlasError(f"no such file: {tsv}")
    try:
        table = pd.read_csv(tsv, sep="\t", dtype=str, keep_default_na=False)
    except (ValueError, OSError, UnicodeDecodeError):
        raise GlasError(f"an atlas table must be tab-separated text, {tsv} is not") from None
    missing = [column for column in ("index", "name") if column not in table]
    if missing:
        raise GlasError(f"an atlas table must have the columns index and name, {tsv} has {', '.join(table.columns)}")
    try:
        table["index"] = table["index"].astype("int64")
    except ValueError:
        raise GlasError(f"the column index of an atlas table must hold whole numbers, {tsv} does not") from None
    table = table[table["index"] != 0].reset_index(drop=True)
    twice = table.loc[table["index"].duplicated(), "index"]
    if len(twice):
        raise GlasError(f"every index of an atlas table must be there once, {tsv} has {twice.iloc[0]} twice")
    return table


def _hemispheres(labels: np.ndarray, affine: np.ndarray, index: pd.Series[int]) -> list[str]:
    """L or R where at least three quarters of a region lie on that side of x = 0, else midline."""
    where = np.argwhere(labels)
    values, x = labels[labels != 0], world(where, affine)[:, 0]
    top = int(labels.max()) + 1
    total = np.bincount(values, minlength=top)
    left = np.bincount(values, weights=x < 0, minlength=top)
    share = np.divide(left, total, out=np.full(top, 0.5), where=total > 0)
    sides = [share[i] if i < top else 0.5 for i in index]
    return ["L" if s >= 0.75 else "R" if s <= 0.25 else "midline" for s in sides]
