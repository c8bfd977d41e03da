"""Values and a truth about them, brought together: arrays, images on one grid, or tables of the same regions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from nibabel.spatialimages import SpatialImage

from glas3d.errors import GlasError, listed
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import grid_of


@dataclass(frozen=True, eq=False)
class Pair:
    """A map, or the values of regions, and the truth about it.

    Attributes
    ----------
    values, truth
        float64 of the same shape: ``(*spatial)`` of maps, ``(m,)`` of regions.
    spacing
        Size of a voxel along each axis, in mm where maps have an affine, else 1; None for regions.
    """

    values: np.ndarray
    truth: np.ndarray
    spacing: tuple[float, ...] | None


def paired(values: Any, truth: Any, *, score: str = "score", effect: str = "effect") -> Pair:
    """Bring a map and a truth map together, or the tables of regions and of their truth.

    Parameters
    ----------
    values, truth
        Both arrays of one shape; or both images (paths or nibabel images) on one voxel grid; or both tables with the
        column ``index``, which name the regions. Regions that have no score, because they have no voxel on the grid of
        the model, are left out of both.
    score, effect
        The columns of the tables that hold the values and the truth.

    Raises
    ------
    GlasError
        The two are of different kinds, on different grids or of different regions, hold values that are not finite, or
        a region with an effect has no score.
    """
    kinds = [_kind(values), _kind(truth)]
    if kinds[0] != kinds[1]:
        raise GlasError(f"values and truth must be of one kind, got {kinds[0]} and {kinds[1]}")
    if kinds[0] == "a table":
        return _paired_tables(values, truth, score, effect)
    if kinds[0] == "an image":
        scan, other = load_scan(values, constant=True), load_scan(truth, constant=True)
        grid, other_grid = grid_of(scan), grid_of(other)
        if not grid.same_as(other_grid):
            how = f"{grid.shape} and {other_grid.shape}" if grid.shape != other_grid.shape else "affines that differ"
            raise GlasError(
                f"a truth map must be on the voxel grid of the map, got {how}: "
                "bring it there first, as nilearn.image.resample_to_img does"
            )
        return Pair(scan.data.astype(np.float64), other.data.astype(np.float64), scan.spacing)
    first, second = finite_array(values, "a map"), finite_array(truth, "a truth map")
    if first.shape != second.shape:
        raise GlasError(f"a truth map must be on the voxel grid of the map, got {first.shape} and {second.shape}")
    return Pair(first, second, (1.0,) * first.ndim if first.ndim > 1 else None)


def require_truth(truth: np.ndarray) -> np.ndarray:
    """Return where a truth is not 0, of the same shape.

    Raises
    ------
    GlasError
        It is 0 everywhere, or nowhere: nothing can be told apart.
    """
    true = np.asarray(truth != 0)
    if not true.any():
        raise GlasError(f"a truth must hold something to be found, all of {truth.size} values are 0")
    if true.all():
        raise GlasError(f"a truth must hold something that is not to be found, none of {truth.size} values is 0")
    return true


def finite_array(values: Any, what: str) -> np.ndarray:
    """Return values as a float64 array.

    Raises
    ------
    GlasError
        They are not finite numbers.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise GlasError(f"{what} must hold numbers, got {type(values).__name__}") from None
    if array.size == 0 or not np.isfinite(array).all():
        raise GlasError(f"{what} must hold finite numbers, got {'none' if array.size == 0 else 'NaN or infinity'}")
    return array


def _kind(values: Any) -> str:
    if isinstance(values, pd.DataFrame):
        return "a table"
    return "an image" if isinstance(values, SpatialImage | str | os.PathLike) else "an array"


def _paired_tables(values: pd.DataFrame, truth: pd.DataFrame, score: str, effect: str) -> Pair:
    for table, column, what in ((values, score, "scores"), (truth, effect, "the truth")):
        missing = [name for name in ("index", column) if name not in table]
        if missing:
            raise GlasError(f"the table of {what} must have the columns index and {column}, got no {missing[0]}")
    merged = truth[["index", effect]].merge(values[["index", score]], on="index", how="outer", indicator="from")
    alone = merged.loc[merged["from"] != "both", "index"]
    if len(alone):
        raise GlasError(
            f"both tables must have the same regions, {len(alone)} are in one alone: {listed(list(map(str, alone)))}"
        )
    lost = merged[score].isna()
    if (lost & (merged[effect] != 0)).any():
        regions = merged.loc[lost & (merged[effect] != 0), "index"]
        raise GlasError(f"regions with an effect must have a score, got none for {listed(list(map(str, regions)))}")
    kept = merged[~lost]
    return Pair(finite_array(kept[score], "scores"), finite_array(kept[effect], "the truth"), None)
