"""Where does a map point, and is that on the object? Pointing game, distance to a landmark, overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import center_of_mass, distance_transform_edt, label

from glas3d.checks import is_number
from glas3d.core.saliency import minmax
from glas3d.errors import GlasError
from glas3d.evaluate.metrics.paired import finite_array, paired, require_truth

Box = Sequence[tuple[int, int]]
_SMALL = 0.25  # share of the image that the box of a small object fills at most (Oh et al. 2020)


def highest_point(saliency: Any, level: float | None = None) -> np.ndarray:
    """Return the point that a map points at, ``(ndim,)`` voxel coordinates.

    Parameters
    ----------
    saliency
        ``(*spatial)``.
    level
        None: the highest voxel, the first in C order of several (Zhang et al. 2018). A number such as 0.95: the
        centroid of the largest connected blob in which the map, scaled to [0, 1], is above it (Oh et al. 2020); voxels
        that share a side or a face are connected, and of blobs of one size that with the higher sum counts.

    Raises
    ------
    GlasError
        The map is flat or not finite, or the level is not from 0 to below 1.

    Examples
    --------
    >>> saliency = [[0, 9, 9], [0, 9, 9], [10, 0, 0]]
    >>> highest_point(saliency), highest_point(saliency, 0.8)
    (array([2., 0.]), array([0.5, 1.5]))
    """
    array = finite_array(saliency, "a map")
    if np.ptp(array) == 0:
        raise GlasError(f"a map that points somewhere must not be flat, all of {array.size} values are the same")
    if level is None:
        return np.array(np.unravel_index(int(array.argmax()), array.shape), dtype=np.float64)
    if not (is_number(level) and 0 <= level < 1):
        raise GlasError(f"level must be from 0 to below 1, got {level!r}")
    scaled = minmax(array)
    blobs, n = label(scaled > level)
    sizes = np.bincount(blobs.ravel(), minlength=n + 1)[1:]
    sums = np.bincount(blobs.ravel(), weights=scaled.ravel(), minlength=n + 1)[1:]
    largest = max(range(n), key=lambda i: (sizes[i], sums[i])) + 1
    return np.array(center_of_mass(blobs == largest), dtype=np.float64)


@dataclass(frozen=True)
class Pointing:
    """Whether a map points at an object.

    Attributes
    ----------
    point
        Where it points, voxel coordinates.
    hit
        Whether the object is there, or no farther away than the tolerance.
    small
        Whether the boxes of the object, or the box around its mask, fill less than a quarter of the image.
    """

    point: tuple[float, ...]
    hit: bool
    small: bool


def pointing(saliency: Any, target: Any, *, level: float | None = None, tolerance: float = 0.0) -> Pointing:
    """Play one round of the pointing game (Zhang et al. 2018): is the point of a map on the object?

    Parameters
    ----------
    saliency
        ``(*spatial)``.
    target
        The object: a box, first voxel and end along each axis; several boxes ``(n, ndim, 2)``; or a mask
        ``(*spatial)``.
    level
        How the point is found, see `highest_point`: None as by Zhang et al., 0.95 as by Oh et al.
    tolerance
        How far from the object a hit may be, in voxels; Zhang et al. allow 15 pixels.

    Raises
    ------
    GlasError
        A box outside the map, an empty mask, one on another grid, or a flat map.
    """
    array = finite_array(saliency, "a map")
    inside, boxes = _object(target, array.shape)
    if not (is_number(tolerance) and tolerance >= 0):
        raise GlasError(f"tolerance must be 0 or a positive number of voxels, got {tolerance!r}")
    point = highest_point(array, level)
    voxel = tuple(np.rint(point).astype(int))
    away = 0.0 if inside[voxel] else float(distance_transform_edt(~inside)[voxel])
    size = inside.sum() if boxes else np.prod([np.ptp(axis) + 1 for axis in np.nonzero(inside)])
    small = bool(size < _SMALL * array.size)
    return Pointing(tuple(point.tolist()), away <= tolerance, small)


@dataclass(frozen=True)
class PointingGame:
    """The pointing game over many maps.

    Attributes
    ----------
    accuracy
        The share of hits; with classes the mean of the classes' shares, as by Zhang et al.
    accuracy_small
        The same of small objects alone; NaN without any.
    n, n_small
        How many maps, and how many of small objects.
    """

    accuracy: float
    accuracy_small: float
    n: int
    n_small: int


def pointing_game(rounds: Iterable[Pointing], classes: Sequence[Any] | None = None) -> PointingGame:
    """Return the accuracy of many rounds of the pointing game.

    Parameters
    ----------
    rounds
        Results of `pointing`.
    classes
        The class of each; None: all count alike.

    Raises
    ------
    GlasError
        There is no round, or not one class for each.

    Examples
    --------
    >>> hit, miss = Pointing((0, 0), True, True), Pointing((0, 0), False, False)
    >>> pointing_game([hit, miss])
    PointingGame(accuracy=0.5, accuracy_small=1.0, n=2, n_small=1)
    >>> pointing_game([hit, miss, miss], ["cat", "cat", "dog"]).accuracy
    0.25
    """
    played = list(rounds)
    names = [0] * len(played) if classes is None else list(classes)
    if not played or len(names) != len(played):
        raise GlasError(f"a pointing game needs rounds and one class for each, got {len(played)} and {len(names)}")

    def accuracy(chosen: list[tuple[Pointing, Any]]) -> float:
        hits: dict[Any, list[bool]] = {}
        for one, name in chosen:
            hits.setdefault(name, []).append(one.hit)
        return float(np.mean([np.mean(each) for each in hits.values()])) if hits else float("nan")

    pairs = list(zip(played, names, strict=True))
    small = [(one, name) for one, name in pairs if one.small]
    return PointingGame(accuracy(pairs), accuracy(small), len(played), len(small))


def landmark_distance(
    saliency: Any, landmark: Sequence[float], *, spacing: Sequence[float] | None = None, level: float | None = None
) -> float:
    """Return the distance from the point of a map to a known landmark (Oh et al. 2020, table 1).

    Parameters
    ----------
    saliency
        ``(*spatial)``.
    landmark
        Voxel coordinates, one for each axis.
    spacing
        Size of a voxel along each axis; None: the distance is in voxels.
    level
        How the point is found, see `highest_point`; None: the highest voxel.

    Raises
    ------
    GlasError
        Not one coordinate or spacing for each axis, or a flat map.

    Examples
    --------
    >>> landmark_distance([[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], (3, 1), spacing=(2.0, 5.0))
    6.0
    """
    point = highest_point(saliency, level)
    where = finite_array(landmark, "a landmark")
    size = np.ones(len(point)) if spacing is None else finite_array(spacing, "a spacing")
    if where.shape != point.shape or size.shape != point.shape:
        raise GlasError(f"a landmark and a spacing must have {len(point)} numbers, got {where.shape} and {size.shape}")
    return float(np.linalg.norm((point - where) * size))


def intersection_over_union(
    saliency: Any, truth: Any, thresholds: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9)
) -> np.ndarray:
    """Return the overlap of a map above each threshold with a truth, ``(t,)`` float64 (Oh et al. 2020, table 4).

    Parameters
    ----------
    saliency, truth
        Two arrays or two images on one grid, see `glas3d.evaluate.metrics.paired`. What is not 0 in the truth is true.
    thresholds
        Of the map scaled to [0, 1]; a voxel above it counts.

    Raises
    ------
    GlasError
        The two do not fit, a truth that is 0 everywhere, or thresholds outside [0, 1].

    Examples
    --------
    >>> intersection_over_union([[0, 2, 4, 4]], [[0, 0, 1, 1]], (0.1, 0.9))
    array([0.66666667, 1.        ])
    """
    pair = paired(saliency, truth)
    true, scaled = pair.truth != 0, minmax(pair.values)
    if not true.all():  # an object may fill the image
        require_truth(true)
    levels = finite_array(thresholds, "thresholds")
    if ((levels < 0) | (levels > 1)).any():
        raise GlasError(f"thresholds must be from 0 to 1, got {levels.tolist()}")
    return np.array([(true & (scaled > level)).sum() / (true | (scaled > level)).sum() for level in levels.ravel()])


def _object(target: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, bool]:
    """Return the voxels of an object, ``shape`` bool, and whether they were given as boxes."""
    array = np.asarray(target)
    if array.shape == shape and array.shape != (len(shape), 2):
        return require_truth(finite_array(array, "a mask")), False
    if array.shape[-2:] == (len(shape), 2) and array.ndim in (2, 3) and len(array) and array.dtype.kind in "iu":
        inside = np.zeros(shape, dtype=bool)
        for box in array.reshape(-1, len(shape), 2):
            if not all(0 <= low < end <= n for (low, end), n in zip(box, shape, strict=True)):
                raise GlasError(f"a box must hold first voxel and end along each axis of {shape}, got {box.tolist()}")
            inside[tuple(slice(low, end) for low, end in box)] = True
        return inside, True
    raise GlasError(f"an object must be a box, boxes or a mask on the map's grid {shape}, got {array.shape}")
