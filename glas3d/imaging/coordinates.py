"""Search points as named positions in the head: world coordinates, brought to any grid."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from glas3d.checks import refuse_formulas
from glas3d.errors import GlasError
from glas3d.imaging.lookup_table import as_text, unique_names
from glas3d.imaging.space import VoxelGrid, world_to_voxel
from glas3d.tables import read_table


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Coordinates:
    """Named positions in world coordinates.

    Attributes
    ----------
    points
        ``(m, 3)`` float64, x y z in mm (RAS+), in the space of the scans.
    names
        One unique name per position; None (default): ``point-1`` and so on.
    space
        The space they are in, such as ``"MNI"``; None (default): unknown.

    Raises
    ------
    GlasError
        The points have another shape or are not finite, there are not as many names as points, or a name begins as a
        formula of a spreadsheet does.

    Examples
    --------
    >>> coordinates = Coordinates([[-26, -21, -10], [26, -20, -10]], ["Hippocampus_L", "Hippocampus_R"])
    >>> coordinates
    Coordinates(2 points: Hippocampus_L, Hippocampus_R)
    >>> from glas3d.imaging.space import mni_grid
    >>> coordinates.on(mni_grid(2))
    array([[32. , 52.5, 31. ],
           [58. , 53. , 31. ]])
    """

    points: np.ndarray
    names: tuple[str, ...]
    space: str | None

    def __init__(
        self,
        points: np.ndarray | Sequence[Sequence[float]],
        names: Sequence[str] | None = None,
        *,
        space: str | None = None,
    ) -> None:
        try:
            array = np.array(points, dtype=np.float64)
        except (TypeError, ValueError):
            array = np.empty(0)
        if array.ndim != 2 or array.shape[1] != 3 or len(array) == 0:
            raise GlasError(f"coordinates must be (m, 3) numbers, x y z in mm, got {np.shape(array)}")
        if not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
            raise GlasError(
                f"coordinates must be finite numbers in mm, those of row {row + 1} are {_in_mm(array[row])}"
            )
        width = len(str(len(array)))
        counted = range(1, len(array) + 1)
        given = [""] * len(array) if names is None else [as_text(name) for name in names]
        if len(given) != len(array):
            raise GlasError(f"{len(array)} coordinates must have as many names, got {len(given)}")
        refuse_formulas("the name of a point", given)
        filled = [name or f"point-{i:0{width}d}" for name, i in zip(given, counted, strict=True)]
        array.setflags(write=False)
        object.__setattr__(self, "points", array)
        object.__setattr__(self, "names", tuple(unique_names(filled, counted)))
        object.__setattr__(self, "space", space)

    @classmethod
    def from_file(cls, tsv: str | os.PathLike[str], *, space: str | None = None) -> Coordinates:
        """Read a tab-separated table with the columns ``x y z``, in mm, and optionally ``name``.

        Raises
        ------
        GlasError
            The file does not exist, is no table, lacks a column, or has cells that are no numbers.
        """
        path = Path(tsv)
        return cls._from_table(read_table(path, "coordinates", missing=()), None, str(path), space)

    @classmethod
    def from_nilearn(cls, fetched: Any) -> Coordinates:
        """Take what a ``nilearn.datasets.fetch_coords_*`` function returned, in MNI space.

        Raises
        ------
        GlasError
            The argument is not such a bunch.
        """
        if not isinstance(fetched, Mapping) or "rois" not in fetched:
            came = ", ".join(map(str, fetched)) if isinstance(fetched, Mapping) else type(fetched).__name__
            raise GlasError(f"coordinates must be what a fetch_coords_* function returned, with rois, got {came[:80]}")
        rois = fetched["rois"]
        rois = rois if isinstance(rois, pd.DataFrame) else pd.DataFrame.from_records(rois)
        names = fetched.get("labels", fetched.get("regions"))
        return cls._from_table(rois, names, "the bunch fetched", "MNI")

    @classmethod
    def _from_table(
        cls, table: pd.DataFrame, names: Sequence[str] | None, source: str, space: str | None
    ) -> Coordinates:
        if not {"x", "y", "z"} <= set(table.columns):
            has = ", ".join(map(str, table.columns))
            raise GlasError(f"coordinates must have the columns x, y and z, {source} has {has}")
        numbers = table[["x", "y", "z"]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
        if len(bad) or len(numbers) == 0:
            wrong = f"row {bad[0] + 1} does not" if len(bad) else "it has no rows"
            raise GlasError(f"x, y and z must hold finite numbers in mm, in {source} {wrong}")
        return cls(numbers, list(table["name"]) if names is None and "name" in table else names, space=space)

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        some = ", ".join(self.names[:3]) + (", ..." if len(self.names) > 3 else "")
        return f"Coordinates({len(self)} points: {some})"

    def on(self, grid: VoxelGrid) -> np.ndarray:
        """Return the points in voxel coordinates of a grid, ``(m, 3)`` float64.

        Raises
        ------
        GlasError
            Points lie outside the grid; the message names them.
        """
        voxels = world_to_voxel(self.points, grid.affine)
        outside = ~((voxels >= -0.5) & (voxels <= np.asarray(grid.shape) - 0.5)).all(axis=1)
        if outside.any():
            which = np.flatnonzero(outside)
            some = ", ".join(f"{self.names[i]} at {_in_mm(self.points[i])}" for i in which[:3])
            more = ", ..." if len(which) > 3 else ""
            raise GlasError(f"coordinates must lie in the grid of {grid.shape}, {len(which)} do not: {some}{more}")
        return voxels


def _in_mm(point: np.ndarray) -> str:
    return "(" + ", ".join(f"{v:g}" for v in point) + ") mm"
