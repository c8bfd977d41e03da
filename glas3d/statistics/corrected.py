"""P-values of many regions or voxels from draws of the null distribution, and enhancement of clusters of voxels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from glas3d.errors import GlasError
from glas3d.statistics.choices import Null
from glas3d.statistics.resampling import as_extreme, false_discovery, p_values

Enhance = Callable[[np.ndarray], np.ndarray]

# Statistics of the null distribution are limited to this before clusters are enhanced: a group may be all alike.
_LARGEST = 1e4
# Sign flips of so few residuals reject too often: 3 against 10 with normal values 14 % of 300 data sets, 33 % where the
# 3 spread twice as much.
_TOO_FEW_FOR_SPREAD = 3


def corrected_columns(
    statistic: np.ndarray, draws: Iterator[np.ndarray], n_perm: int, least: float, enhance: Enhance | None = None
) -> dict[str, np.ndarray]:
    """Return the columns of p-values ``(p,)`` of a statistic, and those of cluster enhancement.

    Parameters
    ----------
    statistic
        ``(p,)``; those further from 0 are more extreme.
    draws
        Blocks ``(draws, p)`` of the statistic under the null hypothesis, ``n_perm`` draws in all.
    n_perm
        Number of draws.
    least
        No p-value is below this.
    enhance
        Function of a map that enhances clusters. Default: it is not tested.

    Returns
    -------
    ``p_uncorrected p_fdr p_fwe neglog10p_fwe``, with ``tfce p_tfce_fwe neglog10p_tfce_fwe`` where clusters are
    enhanced.

    Raises
    ------
    GlasError
        Clusters cannot be enhanced, because the statistic is infinite in some voxel.
    """
    if enhance is not None and not np.isfinite(statistic).all():
        raise GlasError("TFCE needs finite statistics, in some voxel all of a group are alike")
    tfce = None if enhance is None else enhance(statistic)
    largest, largest_tfce, n_as_extreme = [], [], np.zeros(len(statistic))
    for block in draws:
        largest.append(np.abs(block).max(axis=1))
        n_as_extreme += as_extreme(statistic, block).sum(axis=0)
        if enhance is not None:
            largest_tfce += [np.abs(enhance(np.clip(each, -_LARGEST, _LARGEST))).max() for each in block]
    uncorrected = np.maximum((1 + n_as_extreme) / (1 + n_perm), least)
    columns = {
        "p_uncorrected": uncorrected,
        "p_fdr": false_discovery(uncorrected),
        **_family_wise("p_fwe", statistic, np.concatenate(largest), least),
    }
    if tfce is not None:
        columns |= {"tfce": tfce, **_family_wise("p_tfce_fwe", tfce, np.array(largest_tfce), least)}
    return columns


def _family_wise(name: str, statistic: np.ndarray, largest: np.ndarray, least: float) -> dict[str, np.ndarray]:
    """Return columns of the family-wise p-value and its negative logarithm."""
    p = np.maximum(p_values(statistic, largest), least)
    return {name: p, f"neglog10{name}": -np.log10(p)}


def smallest_p(sizes: Sequence[Sequence[int]], null: Null) -> float:
    """Return the smallest two-sided p-value that groups of this size can give.

    It is that of the exact test that exchanges participants; arrangements that only exchange whole groups count as one.
    Where spreads may differ, two or three participants of a group tell nothing of its spread: their residuals have 2 or
    4 patterns of signs, and p is not below 1 in as many.

    Parameters
    ----------
    sizes
        Numbers of participants of each group that may be exchanged: of each site, or of all.
    null
        How the null distribution is made.

    Examples
    --------
    >>> smallest_p([(3, 3)], "permutation"), smallest_p([(3, 3)], "sign-flip")
    (0.1, 0.25)
    >>> smallest_p([(2, 2, 2)], "permutation") == 6 / 90
    True
    """
    ways = math.prod(math.factorial(sum(site)) // math.prod(map(math.factorial, site)) for site in sizes)
    alike = Counter(zip(*sizes, strict=True))  # groups that have the same size in every site
    least = min(1.0, math.prod(map(math.factorial, alike.values())) / ways)
    fewest = min(sum(group) for group in zip(*sizes, strict=True))
    if null != "permutation" and 1 <= fewest <= _TOO_FEW_FOR_SPREAD:
        least = max(least, 0.5 ** (fewest - 1))
    return least


def smallest_p_text(p: Sequence[float] | np.ndarray, names: Sequence[str], rows: str = "regions") -> str:
    """Return the smallest corrected p-value in words, with the name of the region if only one region has it.

    Parameters
    ----------
    p
        ``(n,)`` corrected p-values; NaN where there is no test.
    names
        ``(n,)`` names of the regions.
    rows
        What is tested, in the plural.

    Examples
    --------
    >>> smallest_p_text([0.5, 0.0125, math.nan], ["a", "b", "c"])
    'smallest corrected p: 0.0125 (b)'
    >>> smallest_p_text([0.5, 0.02, 0.02], ["a", "b", "c"])
    'smallest corrected p: 0.02 (of 2 regions)'
    >>> smallest_p_text([1.0, 1.0, 1.0], ["a", "b", "c"])
    'no corrected p is below 1'
    """
    values = np.asarray(p, dtype=float)
    smallest = np.flatnonzero(values == np.nanmin(values))
    if values[smallest[0]] >= 1:
        return "no corrected p is below 1"
    which = names[smallest[0]] if len(smallest) == 1 else f"of {len(smallest)} {rows}"
    return f"smallest corrected p: {values[smallest[0]]:.3g} ({which})"


def scattered(where: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return values of some regions, those ``where`` is true, among NaN for the others."""
    everywhere = np.full(len(where), np.nan)
    everywhere[where] = values
    return everywhere


def enhancement(mask: np.ndarray, varied: np.ndarray) -> Enhance:
    """Return the function that enhances clusters in values of the voxels that can be tested; faces make neighbours.

    Parameters
    ----------
    mask
        A volume, bool, whose voxels inside are those of the columns of the values.
    varied
        ``(columns,)`` bool: which of them can be tested.

    Raises
    ------
    GlasError
        The mask does not fit the columns.
    """
    from tfce import tfce

    inside = np.asarray(mask, dtype=bool)
    if inside.ndim != 3 or int(inside.sum()) != len(varied):
        raise GlasError(
            f"the mask must be a volume whose voxels are the columns of the values, got {inside.sum()} voxels in "
            f"{inside.shape} for {len(varied)} columns"
        )
    kept = np.zeros(inside.shape, dtype=bool)
    kept[inside] = varied

    def enhance(values: np.ndarray) -> np.ndarray:
        volume = np.zeros(kept.shape, np.float32)
        volume[kept] = values
        return np.asarray(tfce(volume, connectivity=6, E=0.5, H=2.0)[kept], dtype=float)

    return enhance
