"""Whether a result comes out again: ranks over participants, and maps over folds and seeds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import rankdata, t

from glas3d.display import fields_repr
from glas3d.errors import GlasError
from glas3d.statistics.regions import as_matrix, complete_regions
from glas3d.statistics.resampling import TAIL


@dataclass(frozen=True, eq=False)
class Stability:
    """How alike the maps of several runs are.

    Attributes
    ----------
    pairs
        One row a pair of runs: ``first second spearman jaccard``.
    summary
        One row a measure: ``measure n_runs n_pairs mean low high``.
    """

    pairs: pd.DataFrame
    summary: pd.DataFrame

    __repr__ = fields_repr


def bootstrap_ranks(values: np.ndarray | pd.DataFrame, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Return the rank of each region's mean over participants, with a 95 % interval.

    Participants are drawn with replacement; the interval holds the middle 95 % of the ranks they give.

    Parameters
    ----------
    values
        ``(participants, regions)``, one row a participant: of several sessions, their mean.
    n_boot
        Number of resamples.
    seed
        Seed of the resamples.

    Returns
    -------
    One row a region: ``name mean rank low high``; rank 1 is highest, as in tables of regions. Regions without
    a value in every participant have none.

    Raises
    ------
    GlasError
        Fewer than two participants, a participant in two rows, or no resample.

    Examples
    --------
    >>> far_apart = pd.DataFrame({"a": [1.0, 1.1, 0.9], "b": [3.0, 3.1, 2.9], "c": [2.0, 2.1, 1.9]})
    >>> bootstrap_ranks(far_apart, 100)[["name", "rank", "low", "high"]].values.tolist()
    [['a', 3, 3, 3], ['b', 1, 1, 1], ['c', 2, 2, 2]]
    """
    data, names = as_matrix(values)
    if len(data) < 2:
        raise GlasError(f"an interval over participants needs at least 2, got {len(data)}")
    if n_boot < 1:
        raise GlasError(f"n_boot must be at least 1, got {n_boot}")
    if isinstance(values, pd.DataFrame) and values.index.has_duplicates:
        twice = values.index[values.index.duplicated()][0]
        raise GlasError(f"every participant must have one row, {twice} has two: average its sessions first")
    known = complete_regions(data, names)
    data = data[:, known]
    rng = np.random.default_rng(seed)
    drawn = np.stack([_ranks(data[rng.integers(len(data), size=len(data))].mean(axis=0)) for _ in range(n_boot)])
    # whole ranks that came up, not numbers between them
    low, high = np.quantile(drawn, [TAIL, 1 - TAIL], axis=0, method="inverted_cdf")
    table = pd.DataFrame(index=range(len(names)))
    table["name"] = names
    table.loc[known, "mean"] = data.mean(axis=0)
    for column, ranks in (("rank", _ranks(data.mean(axis=0))), ("low", low), ("high", high)):
        table[column] = pd.Series(ranks, index=np.flatnonzero(known)).reindex(table.index).astype("Int64")
    return table


def run_stability(maps: np.ndarray | pd.DataFrame, k: int = 10) -> Stability:
    """Compare the maps of folds or of seeds, pair by pair.

    Spearman's correlation over all regions, and the Jaccard index of the ``k`` regions that are highest:
    ``|A and B| / |A or B|``. The pairs share runs and are not independent, so the mean's 95 % interval comes from
    leaving out a run at a time (the jackknife, Student's t with one degree of freedom less than runs); it
    needs three runs and is wide for few.

    Parameters
    ----------
    maps
        ``(runs, regions)``; the index of a DataFrame names the runs.
    k
        Number of regions that count as highest.

    Returns
    -------
    The pairs and their summary. A map that is the same everywhere has no order: its pairs are NaN, and do not count.

    Raises
    ------
    GlasError
        Fewer than two runs, a run's name twice, or ``k`` not below the number of regions.

    Examples
    --------
    >>> runs = pd.DataFrame([[4.0, 3.0, 2.0, 1.0], [4.0, 3.0, 1.0, 2.0], [3.0, 4.0, 2.0, 1.0]])
    >>> run_stability(runs, k=3).pairs
       first  second  spearman  jaccard
    0      0       1       0.8      0.5
    1      0       2       0.8      1.0
    2      1       2       0.6      0.5
    """
    data, names = as_matrix(maps)
    runs = list(maps.index) if isinstance(maps, pd.DataFrame) else list(range(1, len(data) + 1))
    if len(data) < 2:
        raise GlasError(f"stability needs the maps of at least 2 runs, got {len(data)}")
    if len(set(runs)) < len(runs):
        raise GlasError(f"runs need names of their own, got {', '.join(map(str, runs))}")
    data = data[:, complete_regions(data, names)]
    if not 1 <= k < data.shape[1]:
        raise GlasError(f"k must be at least 1 and below the number of regions, {data.shape[1]}, got {k}")
    flat = np.ptp(data, axis=1) == 0
    spearman, jaccard = _spearman(data, flat), _jaccard(data, flat, k)
    pairs = pd.DataFrame(
        [(runs[i], runs[j], spearman[i, j], jaccard[i, j]) for i, j in combinations(range(len(runs)), 2)],
        columns=["first", "second", "spearman", "jaccard"],
    )
    kept = np.flatnonzero(~flat)
    counts = {"n_runs": len(kept), "n_pairs": len(kept) * (len(kept) - 1) // 2}
    summary = [
        {"measure": name, **counts, **_jackknife(square[np.ix_(kept, kept)], least)}
        for name, square, least in (("spearman", spearman, -1.0), (f"jaccard_top{k}", jaccard, 0.0))
    ]
    return Stability(pairs, pd.DataFrame(summary))


def _spearman(data: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of every two rows, ``(r, r)``; NaN where one is flat."""
    centred = rankdata(data, axis=1) - (data.shape[1] + 1) / 2
    with np.errstate(invalid="ignore"):
        unit = centred / np.where(flat, np.nan, np.linalg.norm(centred, axis=1))[:, None]
    return np.asarray(unit @ unit.T)


def _jaccard(data: np.ndarray, flat: np.ndarray, k: int) -> np.ndarray:
    """Return the Jaccard index of the ``k`` highest of every two rows, ``(r, r)``; NaN where one is flat."""
    top = np.stack([_ranks(row) <= k for row in data])
    shared = (top[:, None] & top).sum(axis=2)
    return np.where(flat[:, None] | flat, np.nan, shared / (2 * k - shared))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks, 1 for the highest; of equals, the first is higher."""
    return np.asarray(rankdata(-values, method="ordinal"), dtype=int)


def _jackknife(square: np.ndarray, least: float) -> dict[str, float]:
    """Return the mean over the pairs of ``(r, r)`` and its interval within ``least`` and 1, by leaving out each run."""
    r = len(square)
    if r < 2:
        return dict.fromkeys(("mean", "low", "high"), float("nan"))
    off_diagonal = square - np.diag(np.diag(square))
    mean = float(off_diagonal.sum() / (r * (r - 1)))
    if r < 3:
        return {"mean": mean, "low": float("nan"), "high": float("nan")}
    without = (off_diagonal.sum() - 2 * off_diagonal.sum(axis=1)) / ((r - 1) * (r - 2))
    error = np.sqrt((r - 1) / r * ((without - without.mean()) ** 2).sum())
    half = float(t.ppf(1 - TAIL, r - 1) * error)
    return {"mean": mean, "low": max(mean - half, least), "high": min(mean + half, 1.0)}
