"""Where to look: the centres of a grid, given points, or the centroids of segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from glas3d.errors import GlasError


@dataclass(frozen=True)
class Grid:
    """``k`` cells an axis, looked at in their centres.

    On an axis of ``n`` voxels the centres are ``(i + 0.5) * n / k - 0.5`` for ``i = 0 .. k - 1``
    (docs/method.md).

    Parameters
    ----------
    k
        Cells an axis: one number for all axes, or one an axis.

    Examples
    --------
    >>> Grid(2).points((4, 6))
    array([[0.5, 1. ],
           [0.5, 4. ],
           [2.5, 1. ],
           [2.5, 4. ]])
    >>> Grid(0)
    Traceback (most recent call last):
    glas3d.errors.GlasError: a grid needs at least 1 cell an axis, got k=0
    """

    k: int | tuple[int, ...]

    def __post_init__(self) -> None:
        try:
            given = np.atleast_1d(np.asarray(self.k))
            cells = tuple(int(v) for v in given)
            whole = given.ndim == 1 and all(v == c for v, c in zip(given, cells, strict=True))
        except (TypeError, ValueError, OverflowError):
            whole, cells = False, ()
        if not whole:
            raise GlasError(f"a grid needs a whole number of cells an axis, got k={self.k!r}")
        object.__setattr__(self, "k", cells[0] if len(cells) == 1 else cells)
        if not cells or min(cells) < 1:
            raise GlasError(f"a grid needs at least 1 cell an axis, got k={self.k}")

    def points(self, shape: Sequence[int]) -> np.ndarray:
        """The cell centres in C order, ``(k_1 * ... * k_ndim, ndim)`` float64 voxel coordinates.

        Raises
        ------
        GlasError
            As many ``k`` as neither 1 nor the number of axes, or more cells than voxels on an axis.
        """
        cells = self.k if isinstance(self.k, tuple) else (self.k,) * len(shape)
        if len(cells) != len(shape):
            raise GlasError(f"Grid{cells} has {len(cells)} axes, the volume has {len(shape)}: {tuple(shape)}")
        if any(k > n for k, n in zip(cells, shape, strict=True)):
            raise GlasError(f"a grid cannot have more cells than voxels: k={self.k} on a volume of {tuple(shape)}")
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
        ``(m,)`` label values, one a segment, unique.
    points
        ``(m, ndim)`` float64 voxel coordinates.
    """

    labels: np.ndarray
    index: np.ndarray
    points: np.ndarray

    @classmethod
    def from_labels(
        cls,
        labels: np.ndarray,
        index: Sequence[int] | np.ndarray | None = None,
        *,
        point: Literal["centroid", "medoid"] = "centroid",
    ) -> Segments:
        """Segments of a label volume, leaving out those of ``index`` that own no voxel.

        Parameters
        ----------
        labels
            Integers of shape ``(*spatial)``; 0 is background.
        index
            Label values to use, in this order; None: all that occur, ascending, without 0.
        point
            ``"centroid"``: the mean voxel coordinate, which may lie outside its segment (the paper's);
            ``"medoid"``: the segment's voxel nearest to that mean.

        Raises
        ------
        GlasError
            Labels that are not whole numbers, or no segment at all.
        """
        labels = np.asarray(labels)
        if labels.dtype.kind not in "iub" and not np.array_equal(labels, np.rint(labels)):
            raise GlasError(f"segment labels must be whole numbers, got {labels.dtype} values with fractions")
        if point not in ("centroid", "medoid"):
            raise GlasError(f'point must be "centroid" or "medoid", got {point!r}')
        labels = labels.astype(np.int64)
        present, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        wanted = present[present != 0] if index is None else np.asarray(index, dtype=np.int64)
        if len(np.unique(wanted)) != len(wanted):
            raise GlasError("every segment needs a label value of its own, got one twice")
        kept = wanted[np.isin(wanted, present)]
        if kept.size == 0:
            raise GlasError(f"no segment lies in the volume of {labels.shape}: none of its labels was asked for")
        coordinates = np.indices(labels.shape).reshape(labels.ndim, -1)
        inverse = inverse.ravel()
        means = np.stack([np.bincount(inverse, weights=c) / counts for c in coordinates], axis=1)
        points = means[np.searchsorted(present, kept)]
        if point == "medoid":
            for i, value in enumerate(kept):
                own = coordinates[:, inverse == np.searchsorted(present, value)].T
                points[i] = own[np.argmin(((own - points[i]) ** 2).sum(axis=1))]
        return cls(labels, kept, points)

    @property
    def n_voxels(self) -> np.ndarray:
        """``(m,)`` voxels a segment."""
        counts = dict(zip(*np.unique(self.labels, return_counts=True), strict=True))  # one pass, not one a segment
        return np.array([counts.get(value, 0) for value in self.index])

    def paint(self, values: np.ndarray) -> np.ndarray:
        """Give every voxel the value of its segment; voxels of no segment get 0.

        Parameters
        ----------
        values
            ``(..., m)``, one a segment.

        Returns
        -------
        ``(..., *spatial)`` float32.
        """
        return paint(self.labels, self.index, values)


def paint(labels: np.ndarray, index: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`Segments.paint` for a label volume on any grid: ``(..., m)`` to ``(..., *labels.shape)`` float32."""
    order = np.argsort(index)
    position = np.searchsorted(index[order], labels).clip(max=len(index) - 1)
    owned = index[order][position] == labels
    painted = np.where(owned, np.asarray(values)[..., order][..., position], 0.0)
    return painted.astype(np.float32)


Search = Grid | Segments | np.ndarray


def resolve(search: Search | Sequence[Sequence[float]], shape: Sequence[int]) -> tuple[np.ndarray, Segments | None]:
    """The points of a search on a volume, and its segments when it has any.

    Parameters
    ----------
    search
        A `Grid`, `Segments`, an integer label volume of exactly ``shape``, or ``(m, ndim)`` voxel
        coordinates.

    Raises
    ------
    GlasError
        Something else, points outside the volume, or a label volume of another shape.
    """
    shape = tuple(shape)
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
            came = f"an array of {array.shape}" if array.dtype != object else type(search).__name__
            raise GlasError(
                f"search must be a Grid, segments or (m, {len(shape)}) voxel coordinates on a volume of {shape}, "
                f"got {came}"
            )
    if search.labels.shape != shape:
        raise GlasError(f"segments must be on the volume's grid: labels {search.labels.shape}, volume {shape}")
    return search.points, search
