"""Is a participant's map that participant's own? Rescans of one participant against other participants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import rankdata

from glas3d.errors import GlasError
from glas3d.evaluate.metrics.paired import finite_array


@dataclass(frozen=True)
class Repeatability:
    """How alike maps of one participant are, and how alike those of different participants.

    Attributes
    ----------
    within, between
        Mean correlation of two scans of one participant, and of two scans of different participants.
    identified
        The share of scans, of participants with several, whose most similar other scan is of the same participant
        (Finn et al. 2015).
    chance
        That share for maps that know nothing of the participant.
    n_scans, n_participants
        How many scans and participants.
    """

    within: float
    between: float
    identified: float
    chance: float
    n_scans: int
    n_participants: int


def repeatability(
    values: Any, participants: Sequence[Any], *, method: Literal["pearson", "spearman"] = "pearson"
) -> Repeatability:
    """Return how alike the maps of rescans are, against those of other participants.

    Parameters
    ----------
    values
        ``(n, m)``: the values of ``m`` regions, or of the voxels, of ``n`` scans.
    participants
        ``(n,)``: whose scan each is.
    method
        The correlation over regions: Pearson's, or Spearman's of the ranks.

    Raises
    ------
    GlasError
        Not one participant for each scan, fewer than two participants, no participant with two scans, or a scan whose
        values are all the same.

    Examples
    --------
    >>> values = [[1, 2, 3, 4], [1, 2, 3, 5], [4, 3, 2, 1], [5, 3, 2, 1]]
    >>> repeatability(values, ["a", "a", "b", "b"]).identified
    1.0
    """
    array = finite_array(values, "values")
    owners = np.asarray(participants)
    if array.ndim != 2 or owners.shape != (len(array),):
        raise GlasError(
            f"values must be (scans, regions) with one participant a scan, got {array.shape}, {owners.shape}"
        )
    if method not in ("pearson", "spearman"):
        raise GlasError(f"method must be pearson or spearman, got {method!r}")
    names, owner = np.unique(owners, return_inverse=True)
    counts = np.bincount(owner)
    if len(names) < 2 or counts.max() < 2:
        raise GlasError(
            "repeatability needs two participants, and two scans of one of them, "
            f"got {len(array)} scans of {len(names)}"
        )
    flat = np.flatnonzero(np.ptp(array, axis=1) == 0)
    if len(flat):
        raise GlasError(f"a correlation needs values that differ, those of scan {flat[0]} are all the same")
    correlation = np.corrcoef(array if method == "pearson" else rankdata(array, axis=1))
    same, other = owner[:, None] == owner, ~np.eye(len(array), dtype=bool)
    repeated = counts[owner] > 1
    alike = np.where(other, correlation, -np.inf)
    highest = alike == alike.max(axis=1, keepdims=True)
    hits = (highest & same).sum(axis=1) / highest.sum(axis=1)  # scans that tie share
    return Repeatability(
        float(correlation[same & other].mean()),
        float(correlation[~same].mean()),
        float(hits[repeated].mean()),
        float(((counts[owner] - 1) / (len(array) - 1))[repeated].mean()),
        len(array),
        len(names),
    )
