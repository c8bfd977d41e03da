"""Tests of one group: means over participants with intervals and p-values, laterality and relative density."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from glas3d.errors import GlasError, GlasWarning
from glas3d.statistics.choices import check_counts
from glas3d.statistics.regions import CLR_FLOOR, as_matrix, complete_regions
from glas3d.statistics.resampling import TAIL, as_extreme, false_discovery, p_values

# Numbers in one block of flipped means.
_BLOCK = 2**18


def mean_test(values: np.ndarray | pd.DataFrame, *, n_perm: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Test whether each column's mean over participants is 0.

    The signs of whole participants are flipped at random, which is exact where values are symmetric about 0 under the
    null hypothesis; family-wise p-values count the flips whose largest ``|t|`` over the columns reaches a column's own.

    Parameters
    ----------
    values
        ``(participants, columns)``.
    n_perm
        Number of flips.
    seed
        Seed of the flips.

    Returns
    -------
    One row a column: ``name n mean low high t p_uncorrected p_fdr p_fwe``, with the 95 % interval of Student's t. For
    one participant, and for columns that some participants lack or that do not vary, only the mean is known.

    Raises
    ------
    GlasError
        Values that are not participants by columns.

    Warns
    -----
    GlasWarning
        Columns that some participants lack, or so few participants that no p-value can reach 0.05.

    Examples
    --------
    >>> values = np.array([[1.0], [2.0], [1.5], [0.5], [1.0], [1.5]])
    >>> mean_test(values, n_perm=999)[["mean", "low", "high"]].round(2).values.tolist()
    [[1.25, 0.7, 1.8]]
    """
    from scipy.stats import t as student

    check_counts(n_perm, 0)
    data, names = as_matrix(values)
    n = len(data)
    known = complete_regions(data, names)
    mean = np.where(known, data.mean(axis=0), np.nan)
    table = pd.DataFrame({"name": names, "n": n, "mean": mean})
    columns = ("low", "high", "t", "p_uncorrected", "p_fdr", "p_fwe")
    table[list(columns)] = np.nan
    varied = known & (np.ptp(data, axis=0) > 0)
    if n < 2 or not varied.any():
        return table
    least = min(1.0, 2.0 ** (1 - n))
    if least > 0.05:
        message = f"the signs of {n} participants can be flipped in {2 ** (n - 1)} ways: no p-value can reach 0.05"
        warnings.warn(message, GlasWarning, stacklevel=2)
    tested = data[:, varied]
    squares = (tested**2).sum(axis=0)
    t = _t_of_means(tested.mean(axis=0), squares, n)
    rng, p = np.random.default_rng([seed, 0]), tested.shape[1]
    largest, n_as_extreme = [], np.zeros(p)
    block = max(1, _BLOCK // p)
    for start in range(0, n_perm, block):
        signs = rng.integers(2, size=(min(block, n_perm - start), n)) * 2.0 - 1.0
        flipped = _t_of_means(signs @ tested / n, squares, n)
        largest.append(np.abs(flipped).max(axis=1))
        n_as_extreme += as_extreme(t, flipped).sum(axis=0)
    half = student.ppf(1 - TAIL, n - 1) * tested.std(axis=0, ddof=1) / np.sqrt(n)
    uncorrected = np.maximum((1 + n_as_extreme) / (1 + n_perm), least)
    corrected = np.maximum(p_values(t, np.concatenate(largest)), least)
    found = (mean[varied] - half, mean[varied] + half, t, uncorrected, false_discovery(uncorrected), corrected)
    table.loc[varied, list(columns)] = np.column_stack(found)
    return table


def laterality_test(values: pd.DataFrame, *, signed: bool = False, n_perm: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Test how far the saliency of a group leans to the left, from each participant's unnormalised scores.

    A participant's laterality of a pair of regions is ``(L - R) / (|L| + |R|)``, 1 all left, -1 all right; of signed
    evidence it is ``L - R``.

    Parameters
    ----------
    values
        Participants by regions; pairs are known by their names, ``<region>_L`` and ``<region>_R``.
    signed
        Whether the scores are evidence, with its sign.
    n_perm, seed
        See `mean_test`.

    Returns
    -------
    One row a pair: ``name n left right laterality low high t p_uncorrected p_fdr p_fwe``; ``left`` and ``right`` are
    means of the scores, ``laterality`` is the mean over participants, and 0 of a participant where both sides are 0.

    Raises
    ------
    GlasError
        No pair.
    """
    names = [str(name) for name in values.columns]
    pairs = [name[:-2] for name in names if name.endswith("_L") and name[:-2] + "_R" in names]
    if not pairs:
        raise GlasError("laterality needs regions whose names end in _L and _R, there is no such pair")
    data = values.to_numpy(dtype=float)
    left, right = (data[:, [names.index(pair + end) for pair in pairs]] for end in ("_L", "_R"))
    size = np.abs(left) + np.abs(right)
    leaning = left - right
    if not signed:
        leaning = np.divide(leaning, size, out=np.where(np.isnan(size), np.nan, 0.0), where=size > 0)
    table = mean_test(pd.DataFrame(leaning, columns=pairs), n_perm=n_perm, seed=seed)
    table = table.rename(columns={"mean": "laterality"})
    table.insert(2, "left", left.mean(axis=0))
    table.insert(3, "right", right.mean(axis=0))
    return table


def relative_density_test(
    values: pd.DataFrame, n_voxels: np.ndarray, *, n_perm: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """Test whether regions have more saliency than their volume, from each participant's unnormalised scores.

    A participant's relative density is the region's share of the positive scores over its share of the volume. The
    group's is the geometric mean, and its logarithm is tested; scores of less than
    `glas3d.statistics.regions.CLR_FLOOR` times the participant's largest, and negative ones, count as that.

    Parameters
    ----------
    values
        Participants by regions; regions that some participant lacks have none.
    n_voxels
        ``(regions,)``, or ``(participants, regions)`` where they differ.
    n_perm, seed
        See `mean_test`.

    Returns
    -------
    One row a region: ``name n saliency_share volume_share relative_density low high t p_uncorrected p_fdr p_fwe``.
    """
    data, names = as_matrix(values)
    voxels = np.broadcast_to(np.asarray(n_voxels, dtype=float), data.shape)
    known = complete_regions(data, names) & (voxels > 0).all(axis=0)
    sizes = np.where(known, np.maximum(data, 0), np.nan)
    sizes = np.maximum(sizes, CLR_FLOOR * np.nanmax(sizes, axis=1, keepdims=True)) if known.any() else sizes
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = sizes / np.nansum(sizes, axis=1, keepdims=True)
        voxels = np.where(known, voxels, np.nan)
        volume = voxels / np.nansum(voxels, axis=1, keepdims=True)
        logarithms = np.log(shares / volume)
    logarithms[~np.isfinite(logarithms)] = np.nan
    table = mean_test(pd.DataFrame(logarithms, columns=names), n_perm=n_perm, seed=seed)
    table[["mean", "low", "high"]] = np.exp(table[["mean", "low", "high"]])
    table = table.rename(columns={"mean": "relative_density"})
    table.insert(2, "saliency_share", shares.mean(axis=0))
    table.insert(3, "volume_share", volume.mean(axis=0))
    return table


def _t_of_means(mean: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    """Return Student's t of means, from the sums of squares about 0, which flips leave as they are."""
    variance = (squares - n * mean**2) / (n - 1)
    variance = np.where(variance > 1e-12 * squares, variance, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = mean / np.sqrt(variance / n)
    return np.asarray(np.nan_to_num(t, nan=0.0, posinf=np.inf, neginf=-np.inf))
