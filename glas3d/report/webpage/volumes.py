"""Volumes within a page: on a grid that fits its budget, gzipped NIfTI in base64."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.spatialimages import SpatialImage

from glas3d.hashing import text_sha256
from glas3d.imaging.space import Interpolation, VoxelGrid, resample

MOST_VOXELS = 1_000_000
"""Voxels of an embedded volume: those of the usual 2 mm grid (91 x 109 x 91) fit; larger volumes are resampled."""

# Room for all volumes in base64, which leaves a page of 15 MB with the viewer (2.3 MB), figures and tables.
_MOST_BYTES = 11_000_000
# How far a voxel's value may be from that of its region: maps are float32, tables are text.
_EQUAL = 1e-4
_WEIGHTS = np.array([0.7390851332, 0.5671432904, 0.9159655942, 0.6434105463])


class Volumes:
    """The volumes of a page, each embedded once.

    Attributes
    ----------
    encoded
        Base64 of a gzipped NIfTI file, by a name that follows from its content.
    left_out
        Number of volumes for which there was no room.
    """

    def __init__(self) -> None:
        self.encoded: dict[str, str] = {}
        self.left_out = 0

    def add(self, values: np.ndarray, affine: np.ndarray) -> str | None:
        """Embed a volume and return its name; None where there is no room.

        Parameters
        ----------
        values
            ``(x, y, z)``; floats are stored in 16 bits between their smallest and largest value.
        affine
            4x4, voxel to world in mm.
        """
        text = base64.b64encode(_nifti(values, affine)).decode("ascii")
        name = f"v{text_sha256(text)[:12]}"
        if name not in self.encoded and sum(map(len, self.encoded.values())) + len(text) > _MOST_BYTES:
            self.left_out += 1
            return None
        self.encoded[name] = text
        return name


def _nifti(values: np.ndarray, affine: np.ndarray) -> bytes:
    """Return a gzipped NIfTI file, the same bytes for the same values."""
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        # an even scale, on which 0 is exactly 0, so that what is nothing stays nothing
        slope = max(abs(low), abs(high)) / 32767 or 1.0
        img = nib.Nifti1Image(np.rint(values / slope).astype(np.int16), affine)
        img.header.set_slope_inter(slope, 0)
    else:
        img = nib.Nifti1Image(values, affine)
    return gzip.compress(img.to_bytes(), compresslevel=6, mtime=0)


def within_budget(img: SpatialImage, interpolation: Interpolation = "linear") -> tuple[np.ndarray, np.ndarray]:
    """Return the values and the affine of an image, with axes to the right, front and top, and not too many voxels.

    Parameters
    ----------
    img
        3D image, or 4D with one volume.
    interpolation
        ``"nearest"`` for labels.
    """
    img = nib.as_closest_canonical(nib.funcs.squeeze_image(img))
    data = np.asarray(img.dataobj)
    grid = smaller_grid(VoxelGrid(tuple(int(n) for n in img.shape[:3]), img.affine))
    if grid.shape == img.shape:
        return np.nan_to_num(data), np.asarray(img.affine)
    own = nib.Nifti1Image(
        np.nan_to_num(data.astype(np.float32 if interpolation == "linear" else data.dtype)), img.affine
    )
    return resample(own, grid, interpolation), np.asarray(grid.affine)


def smaller_grid(grid: VoxelGrid) -> VoxelGrid:
    """Return a grid over the same field of view with at most `MOST_VOXELS` voxels; the grid itself if it has no more.

    Examples
    --------
    >>> smaller_grid(VoxelGrid((182, 218, 182), np.eye(4))).shape
    (91, 109, 91)
    """
    n_voxels = int(np.prod(grid.shape))
    if n_voxels <= MOST_VOXELS:
        return grid
    factor = int(np.ceil((n_voxels / MOST_VOXELS) ** (1 / 3) - 0.02))
    shape = tuple(max(1, -(-n // factor)) for n in grid.shape)
    affine = np.array(grid.affine, dtype=float)
    affine[:3, 3] += affine[:3, :3] @ np.full(3, (factor - 1) / 2)  # the first centre is in the middle of its voxels
    affine[:3, :3] *= factor
    return VoxelGrid(shape, affine)


@dataclass(frozen=True, eq=False)
class Labels:
    """The voxels of regions.

    Attributes
    ----------
    volume
        ``(x, y, z)`` int16: the number of a region, from 1; 0 for none.
    numbers
        ``(rows,)``: the number of each row of the table; 0 for a row without voxels. Rows that cannot be told apart
        share one.
    """

    volume: np.ndarray
    numbers: np.ndarray


def numbered(labels: np.ndarray, table: pd.DataFrame) -> Labels:
    """Return the voxels of an atlas's regions, numbered as the rows of a table.

    Parameters
    ----------
    labels
        ``(x, y, z)``: the ``index`` of a region of the table in each voxel; 0 for none.
    table
        The regions.
    """
    numbers = np.zeros(int(max(labels.max(), table["index"].max())) + 1, dtype=np.int16)
    numbers[table["index"].to_numpy(dtype=int)] = np.arange(1, len(table) + 1)
    return Labels(numbers[labels], np.arange(1, len(table) + 1))


def labels_by_value(maps: Mapping[str, np.ndarray], table: pd.DataFrame) -> Labels | None:
    """Return the voxels of regions, recognised by the values of maps; None for maps that are no maps of regions.

    A map of regions has the value of a region in all its voxels. All maps together tell the regions apart, for every
    atlas, on every grid and in native space alike. Regions that have the same value in each map share a number.

    Parameters
    ----------
    maps
        Volumes of one shape, by the column of the table that they show.
    table
        The regions.
    """
    names = [name for name in maps if name in table]
    if not names:
        return None
    volumes = np.stack([np.asarray(maps[name], dtype=np.float64).ravel() for name in names], axis=1)
    inside = np.flatnonzero((volumes != 0).any(axis=1))
    known = np.flatnonzero(table[names].notna().all(axis=1))
    if inside.size == 0 or known.size == 0:
        return None
    rows = table[names].to_numpy(dtype=np.float64)[known]
    scale = np.abs(rows).max(axis=0)
    scale[scale == 0] = 1.0
    rows, volumes = rows / scale, volumes[inside] / scale
    # One number a voxel tells different values apart much sooner than a comparison of all maps.
    _, first, inverse = np.unique(volumes @ _WEIGHTS[: len(names)], return_index=True, return_inverse=True)
    if len(first) > 4 * len(rows):  # a map that is spread over voxels has nearly as many values as voxels
        return None
    distance = np.abs(volumes[first][:, None, :] - rows[None]).max(axis=2)
    nearest, error = distance.argmin(axis=1), distance.min(axis=1)
    if (error[inverse] > _EQUAL).mean() > 0.01:
        return None
    alike = (np.abs(rows[:, None, :] - rows[None]).max(axis=2) <= 2 * _EQUAL).argmax(axis=1)
    numbers = np.zeros(len(table), dtype=np.int16)
    numbers[known] = known[alike] + 1
    painted = np.where(error > _EQUAL, 0, numbers[known[nearest]])
    labels = np.zeros(next(iter(maps.values())).shape, dtype=np.int16)
    labels.ravel()[inside] = painted[inverse]
    return Labels(labels, np.where(np.isin(numbers, painted), numbers, 0))
