"""Does a map find what is true? Ranking, mass and distance against a truth map or table."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import wasserstein_distance_nd
from sklearn.metrics import average_precision_score, roc_auc_score

from glas3d.checks import whole_number
from glas3d.errors import GlasError
from glas3d.evaluate.metrics.paired import Pair, finite_array, paired, require_truth

# Points of each distribution of the earth mover's distance: the linear programme then takes a second or two.
_MOST_POINTS = 200


@dataclass(frozen=True)
class Detection:
    """How well values tell what is true from what is not.

    Attributes
    ----------
    average_precision
        Mean precision over the recall of the true voxels or regions, in the order of the values (scikit-learn).
    auroc
        The probability that something true has a higher value than something that is not; ties count one half.
    precision
        The share of the ``k`` highest values that is true: precision at ``k``, for ``k`` the number of true values the
        relevance rank accuracy (Arras et al. 2022). Where values tie at the ``k``-th, its expectation over their order.
    k
        How many of the highest values ``precision`` is about.
    mass
        The share of the sum of all positive values that lies where the truth is: mass precision, relevance mass
        accuracy (Arras et al. 2022). NaN where no value is positive.
    chance
        The share of the voxels or regions that is true: the average precision, precision and mass of values that know
        nothing.
    """

    average_precision: float
    auroc: float
    precision: float
    k: int
    mass: float
    chance: float


def detection(
    values: Any, truth: Any, *, k: int | None = None, score: str = "score", effect: str = "planted"
) -> Detection:
    """Return how well a map, or the values of regions, tell what is true from what is not.

    Parameters
    ----------
    values, truth
        Two arrays, two images or two tables, see `glas3d.evaluate.metrics.paired`. What is not 0 in the truth is true.
    k
        How many of the highest values the precision is about. None: as many as are true.
    score, effect
        The columns of tables.

    Raises
    ------
    GlasError
        The two do not fit, a truth that is 0 everywhere or nowhere, or ``k`` beyond the number of values.

    Examples
    --------
    >>> found = detection([0.9, 0.1, 0.4, 0.2], [1, 0, 0, 1])
    >>> found.auroc, found.precision, found.k, round(found.mass, 4), found.chance
    (0.75, 0.5, 2, 0.6875, 0.5)
    """
    pair = paired(values, truth, score=score, effect=effect)
    true, flat = require_truth(pair.truth).ravel(), pair.values.ravel()
    k = int(true.sum()) if k is None else whole_number("k", k, least=1)
    if k > flat.size:
        raise GlasError(f"k must be at most the number of values, {flat.size}, got {k}")
    positive = flat.clip(min=0)
    total = positive.sum()
    return Detection(
        float(average_precision_score(true, flat)),
        float(roc_auc_score(true, flat)),
        _precision(flat, true, k),
        k,
        float(positive[true].sum() / total) if total > 0 else float("nan"),
        float(true.mean()),
    )


def _precision(values: np.ndarray, true: np.ndarray, k: int) -> float:
    """Return the share of the ``k`` highest values that is true, expected over the order of those that tie."""
    last = np.partition(values, -k)[-k]
    above, tied = values > last, values == last
    return float((true[above].sum() + (k - above.sum()) * true[tied].mean()) / k)


@dataclass(frozen=True)
class Transport:
    """The earth mover's distance between a map and a truth.

    Attributes
    ----------
    distance
        How far the mass of the map has to move on average to become the truth: in mm for images and for positions in
        mm, in voxels for arrays.
    largest
        The largest distance of two voxels or regions.
    """

    distance: float
    largest: float

    @property
    def score(self) -> float:
        """One minus the share of the largest distance: 1 for a map equal to the truth (Clark et al. 2024, XAI-TRIS)."""
        return 1 - self.distance / self.largest


def earth_movers(
    values: Any, truth: Any, *, positions: Any = None, score: str = "score", effect: str = "planted"
) -> Transport:
    """Return the earth mover's distance between the positive values of a map and the size of a truth.

    Both are scaled to a sum of 1. Maps of many voxels are summed over blocks first, each at the centre of its mass, so
    that no more than 200 points remain: the distance is then right to about the size of a block.

    Parameters
    ----------
    values, truth
        Two arrays, two images or two tables, see `glas3d.evaluate.metrics.paired`.
    positions
        ``(m, d)`` positions of the regions, for tables and for arrays ``(m,)``, such as the columns ``x y z`` in mm;
        for tables in the order of their ``index``.
    score, effect
        The columns of tables.

    Raises
    ------
    GlasError
        The two do not fit, the truth is 0 everywhere or nowhere, no value is positive, or there are no positions.

    Examples
    --------
    >>> earth_movers([[0, 0, 1.0, 0]], [[1, 0, 0, 0]]).distance
    2.0
    """
    pair = paired(values, truth, score=score, effect=effect)
    require_truth(pair.truth)
    if not (pair.values > 0).any():
        raise GlasError("the earth mover's distance needs a map with positive values, got none")
    where, largest = _positions(pair, positions)
    points, mass = _condensed(where, pair.values.clip(min=0))
    true_points, true_mass = _condensed(where, np.abs(pair.truth))
    distance = float(wasserstein_distance_nd(points, true_points, mass, true_mass))
    return Transport(max(distance, 0.0), largest)


def _positions(pair: Pair, positions: Any) -> tuple[np.ndarray, float]:
    """Return the position of each value, ``(*shape, d)``, and the largest distance of two."""
    if pair.spacing is None:
        if positions is None:
            raise GlasError("the earth mover's distance of regions needs their positions")
        where = finite_array(positions, "positions")
        if where.ndim != 2 or len(where) != len(pair.values):
            raise GlasError(f"positions must be ({len(pair.values)}, d), one for each region, got {where.shape}")
        return where, max(float(np.linalg.norm(where - each, axis=1).max()) for each in where)
    spacing = np.asarray(pair.spacing)
    where = np.moveaxis(np.indices(pair.values.shape), 0, -1) * spacing
    return where, float(np.linalg.norm((np.array(pair.values.shape) - 1) * spacing))


def _condensed(where: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return at most 200 points and their masses: those of single voxels, or of blocks at the centre of their mass."""
    if mass.ndim == 1:
        return where[mass > 0], mass[mass > 0]
    for size in itertools.count(1):
        blocks = np.indices(mass.shape) // size
        counts = [-(-n // size) for n in mass.shape]
        number = np.ravel_multi_index(tuple(blocks), counts).ravel()
        total = np.bincount(number, weights=mass.ravel())
        if (total > 0).sum() <= _MOST_POINTS:
            break
    kept = total > 0
    sums = [np.bincount(number, weights=(mass * axis).ravel()) for axis in np.moveaxis(where, -1, 0)]
    return np.stack([each[kept] / total[kept] for each in sums], axis=1), total[kept]
