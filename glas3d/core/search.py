"""The points of a search: the centres of a grid, given points, or the points of segments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from glas3d.core.settings import Point
from glas3d.errors import GlasError


def _shown(cells: Any) -> str:
    """Return cells for each axis as a command takes them: ``3`` or ``2 3 2``."""
    return " ".join(map(str, cells)) if isinstance(cells, tuple | list) else repr(cells)


@dataclass(frozen=True)
class Grid:
    """A search at the centres of ``k`` cells on each axis.

    On an axis of ``n`` voxels the centres are ``(i + 0.5) * n / k - 0.5`` for ``i = 0 .. k - 1``
    (documentation: "How open points are read").

    Parameters
    ----------
    k
        Cells on each axis: one number for all axes, or one for each.

    Examples
    --------
    >>> Grid(2).points((4, 6))
    array([[0.5, 1. ],
           [0.5, 4. ],
           [2.5, 1. ],
           [2.5, 4. ]])
    >>> Grid(0)
    Traceback (most recent call last):
    glas3d.errors.GlasError: grid must have at least 1 cell on each axis, got 0
    """

    k: int | tuple[int, ...]

    def __post_init__(self) -> None:
        try:
            values = np.atleast_1d(np.asarray(self.k))
            cells = tuple(int(value) for value in values)
            are_whole = values.ndim == 1 and all(v == c for v, c in zip(values, cells, strict=True))
        except (TypeError, ValueError, OverflowError):
            are_whole, cells = False, ()
        if not are_whole:
            raise GlasError(f"grid must have a whole number of cells on each axis, got {_shown(self.k)}")
        object.__setattr__(self, "k", cells[0] if len(cells) == 1 else cells)
        if not cells or min(cells) < 1:
            raise GlasError(f"grid must have at least 1 cell on each axis, got {_shown(self.k)}")

    def points(self, shape: Sequence[int]) -> np.ndarray:
        """Return the cell centres in C order, ``(k_1 * ... * k_ndim, ndim)`` float64 voxel coordinates.

        Raises
        ------
        GlasError
            Neither one ``k`` nor one for each axis, or more cells than voxels on an axis.
        """
        cells = self.k if isinstance(self.k, tuple) else (self.k,) * len(shape)
        if len(cells) != len(shape):
            raise GlasError(
                f"grid must have one number or one for each of the volume's {len(shape)} axes, got {_shown(cells)}"
            )
        if any(k > n for k, n in zip(cells, shape, strict=True)):
            raise GlasError(
                f"grid must have no more cells than voxels, got {_shown(self.k)} on a volume of {tuple(shape)}"
            )
        axes = [(np.arange(k) + 0.5) * n / k - 0.5 for k, n in zip(cells, shape, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(shape))


@dataclass(frozen=True, eq=False)
class Segments:
    """A label volume and the point that stands for each of its segments.

    Attributes
    ----------
    labels
        Integers of shape ``(*spatial)``; voxels whose value is not in ``index`` belong to no segment.
    index
        ``(m,)`` label values, one for each segment, all different.
    points
        ``(m, ndim)`` float64 voxel coordinates.
    point
        What the points are: ``"centroid"`` or ``"medoid"``. A segment that loses voxels to a mask gets a new point
        of that kind.
    """

    labels: np.ndarray
    index: np.ndarray
    points: np.ndarray
    point: Point = "centroid"

    def __repr__(self) -> str:
        return f"Segments({len(self.index)} on {self.labels.shape}, {self.point}s)"

    @classmethod
    def from_labels(
        cls,
        labels: np.ndarray,
        index: Sequence[int] | np.ndarray | None = None,
        *,
        point: Point = "centroid",
    ) -> Segments:
        """Return the segments of a label volume, without those of ``index`` that have no voxel.

        Parameters
        ----------
        labels
            Integers of shape ``(*spatial)``; 0 is background.
        index
            Label values to use, in this order; None: all that occur, in ascending order, without 0.
        point
            ``"centroid"``: the mean voxel coordinate, which may lie outside its segment (the paper's);
            ``"medoid"``: the segment's voxel nearest to that mean.

        Raises
        ------
        GlasError
            Labels that are not whole numbers, a label value given twice, or no segment at all.
        """
        labels = np.asarray(labels)
        if labels.dtype.kind not in "iub" and not np.array_equal(labels, np.rint(labels)):
            raise GlasError(f"segment labels must be whole numbers, got {labels.dtype} values with fractions")
        if point not in ("centroid", "medoid"):
            raise GlasError(f'point must be "centroid" or "medoid", got {point!r}')
        labels = labels.astype(np.int64)
        if index is None:
            wanted = np.unique(labels)
            wanted = wanted[wanted != 0]
        else:
            wanted = np.asarray(index, dtype=np.int64)
        if len(np.unique(wanted)) != len(wanted):
            raise GlasError("every segment needs a label value of its own, got the same value twice")
        position = _positions(labels, wanted)
        owned = position < len(wanted)
        owner = position[owned]
        counts = np.bincount(owner, minlength=len(wanted))
        kept = counts > 0
        if not kept.any():
            raise GlasError(f"no segment lies in the volume of {labels.shape}: it has none of the labels given")
        coordinates = np.nonzero(owned)
        sums = [np.bincount(owner, weights=c, minlength=len(wanted))[kept] for c in coordinates]
        points = np.stack(sums, axis=1) / counts[kept, None]
        if point == "medoid":
            together = np.stack(coordinates, axis=1)[np.argsort(owner, kind="stable")]
            for i, voxels in enumerate(np.split(together, np.cumsum(counts[kept])[:-1])):
                points[i] = voxels[np.argmin(((voxels - points[i]) ** 2).sum(axis=1))]
        return cls(labels, wanted[kept], points, point)

    @property
    def n_voxels(self) -> np.ndarray:
        """``(m,)`` number of voxels of each segment."""
        counts = dict(zip(*np.unique(self.labels, return_counts=True), strict=True))  # one pass for all segments
        return np.array([counts.get(value, 0) for value in self.index])

    def within(self, mask: np.ndarray) -> Segments:
        """Return the part of each segment that lies in a mask, with a point of its own; empty segments are left out.

        A segment that lies in the mask as a whole keeps its point.

        Parameters
        ----------
        mask
            ``(*spatial)``, True or 1 where to search.

        Raises
        ------
        GlasError
            A mask of another shape, or no segment in it.
        """
        searched = _as_mask(mask, self.labels.shape)
        no_segment = 0 if 0 not in self.index else int(self.index.min()) - 1
        labels = np.where(searched, self.labels, no_segment)
        if not np.isin(labels, self.index).any():
            raise GlasError(f"no segment lies in the mask of {np.count_nonzero(searched)} voxels")
        left = Segments.from_labels(labels, self.index, point=self.point)
        before = np.isin(self.index, left.index)
        whole = self.n_voxels[before] == left.n_voxels
        return replace(left, points=np.where(whole[:, None], self.points[before], left.points))

    def paint(self, values: np.ndarray) -> np.ndarray:
        """Give every voxel the value of its segment; voxels of no segment get 0.

        Parameters
        ----------
        values
            ``(..., m)``, one value for each segment.

        Returns
        -------
        ``(..., *spatial)`` float32.
        """
        return paint(self.labels, self.index, values)


def paint(labels: np.ndarray, index: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Give every voxel of a label volume on any grid the value of its segment, as `Segments.paint` does.

    Parameters
    ----------
    labels
        Integers of any shape.
    index
        ``(m,)`` label values of the segments.
    values
        ``(..., m)``, one value for each segment.

    Returns
    -------
    ``(..., *labels.shape)`` float32; voxels of no segment get 0.
    """
    position = _positions(labels, index)
    values = np.asarray(values)
    painted = np.empty((*values.shape[:-1], *labels.shape), dtype=np.float32)
    count = math.prod(values.shape[:-1])
    for image, row in zip(painted.reshape(count, *labels.shape), values.reshape(count, len(index)), strict=True):
        np.append(row, 0.0).astype(np.float32).take(position, out=image)
    return painted


def _positions(labels: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the position in ``index`` of every voxel's label, and the length of ``index`` where it is none of them."""
    m = len(index)
    low, high = (int(index.min()), int(index.max())) if m else (0, 0)
    if high - low < _LARGEST_TABLE:  # looking up is faster than searching
        table = np.full(high - low + 2, m, dtype=np.int32)
        table[index - low] = np.arange(m)
        # as unsigned numbers labels below the lowest are large too: all that belong to no segment read the last value
        offset = (labels.astype(np.int64) - low).view(np.uint64)
        return table[np.minimum(offset, np.uint64(high - low + 1)).view(np.int64)]
    order = np.argsort(index)
    position = np.searchsorted(index[order], labels).clip(max=m - 1)
    return np.where(index[order][position] == labels, order[position], m)


# Range of label values up to which a table of them is made.
_LARGEST_TABLE = 2**20

Search = Grid | Segments | np.ndarray


def inside(points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return which of ``(m, ndim)`` points lie in a mask, read at the nearest voxel: ``(m,)`` bool."""
    voxels = np.clip(np.rint(points).astype(int), 0, np.asarray(mask.shape) - 1)
    in_mask: np.ndarray = np.asarray(mask, dtype=bool)[tuple(voxels.T)]
    return in_mask


def resolve_search(
    search: Search | Sequence[Sequence[float]], shape: Sequence[int], mask: np.ndarray | None = None
) -> tuple[np.ndarray, Segments | None]:
    """Return the points of a search on a volume, and its segments when it has some.

    Parameters
    ----------
    search
        A `Grid`, `Segments`, an integer label volume of exactly ``shape``, or ``(m, ndim)`` voxel
        coordinates.
    shape
        Voxels of the volume on each axis.
    mask
        ``(*spatial)``, True or 1 where to search: points outside of it (see `inside`) are left out, and of segments
        the part in it is used (see `Segments.within`).

    Returns
    -------
    Points ``(m, ndim)`` float64, and segments or None.

    Raises
    ------
    GlasError
        A search of another kind, points outside the volume, a label volume or mask of another shape, or no point or
        segment in the mask.
    """
    points, segments = _resolve(search, tuple(shape))
    if mask is None:
        return points, segments
    if segments is not None:
        segments = segments.within(mask)
        return segments.points, segments
    searched = _as_mask(mask, tuple(shape))
    kept = points[inside(points, searched)]
    if len(kept) == 0:
        raise GlasError(f"none of {len(points)} search points lies in the mask of {np.count_nonzero(searched)} voxels")
    return kept, None


def _as_mask(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(mask)
    if array.shape != shape:
        raise GlasError(f"a mask must be on the volume's grid: mask {array.shape}, volume {shape}")
    if array.dtype.kind not in "biuf" or not ((array == 0) | (array == 1)).all():
        raise GlasError(
            f"a mask must be True or 1 where to search, else False or 0; it holds other {array.dtype} values"
        )
    if not array.any():
        raise GlasError(f"a mask must hold a voxel to search, the mask of {shape} is empty")
    return array.astype(bool)


def _resolve(search: Search | Sequence[Sequence[float]], shape: tuple[int, ...]) -> tuple[np.ndarray, Segments | None]:
    if isinstance(search, Grid):
        return search.points(shape), None
    if not isinstance(search, Segments):
        try:
            array = np.asarray(search)
        except ValueError:
            array = np.empty(0, dtype=object)
        if array.shape == shape and array.dtype.kind in "iu":
            search = Segments.from_labels(array)
        elif array.dtype.kind in "iuf" and array.ndim == 2 and array.shape[1] == len(shape) and len(array):
            points = array.astype(np.float64)
            outside = ~((points >= -0.5) & (points <= np.asarray(shape) - 0.5)).all(axis=1)
            if outside.any():
                first = int(np.flatnonzero(outside)[0])
                raise GlasError(
                    f"search points must lie in the volume of {shape}, "
                    f"point {first} is at {tuple(float(v) for v in points[first])}"
                )
            return points, None
        else:
            if array.dtype == object:
                received = type(search).__name__
            else:
                received = f"an array of {array.shape}" if array.ndim else repr(search)
            raise GlasError(
                f"search must be a Grid (such as Grid(4)), segments or (m, {len(shape)}) voxel coordinates on a volume "
                f"of {shape}, got {received}"
            )
    if search.labels.shape != shape:
        raise GlasError(f"segments must be on the volume's grid: labels {search.labels.shape}, volume {shape}")
    return search.points, search
