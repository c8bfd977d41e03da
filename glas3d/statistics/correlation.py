"""What saliency goes with: a clinical score, or the change of a region's volume."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from glas3d.errors import GlasError, GlasWarning, listed
from glas3d.statistics.design import Fixed, held_fixed, orthonormal
from glas3d.statistics.regions import complete, matrix
from glas3d.statistics.resampling import check_counts, interval, p_values, reached, shuffles

Method = Literal["pearson", "spearman"]

# Relative to values: what is left of them below this is rounding.
_LEAST = 1e-12


@dataclass(frozen=True, eq=False)
class ChangeCorrelation:
    """How well each participant's saliency follows the change of volume over the regions.

    Attributes
    ----------
    participants
        One row a participant: ``participant_id n_regions r low high p``.
    mean, low, high
        Mean of ``r`` over participants, with its 95 % bootstrap interval over participants (NaN without).
    p
        Of that mean.
    """

    participants: pd.DataFrame
    mean: float
    low: float
    high: float
    p: float


def correlate(
    values: np.ndarray | pd.DataFrame,
    against: pd.Series | pd.DataFrame | np.ndarray,
    *,
    participants: pd.DataFrame | None = None,
    covariates: Sequence[str] = (),
    site: str | None = None,
    method: Method = "pearson",
    n_perm: int = 10_000,
    n_boot: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate every region's saliency with a column of the participants, or with a column of its own.

    With covariates it is the partial correlation: of what intercept and covariates leave of both sides. The null is
    Freedman and Lane's, as in `glas3d.statistics.two_groups.compare`: participants are permuted, all regions together
    and within their site only, and family-wise p-values count the permutations whose largest ``|r|`` over the regions
    reaches a region's own. Two-sided; exact without covariates.

    Parameters
    ----------
    values
        ``(participants, regions)``.
    against
        ``(participants,)``, such as MMSE, or ``(participants, regions)``, such as the change of each region's
        volume; in the same order.
    participants
        ``participants.tsv``, in the same order; needed for covariates and sites.
    covariates
        Columns of numbers, or of two values (sex), held fixed on both sides.
    site
        Column of sites: participants are exchanged within them, and the sites' means are held fixed.
    method
        Pearson's r or Spearman's rho (of midranks; the covariates' numbers are taken as they are).
    n_boot
        Resamples of participants for the interval; 0 leaves it out.

    Returns
    -------
    One row a region: ``name n r low high p_uncorrected p_fwe neglog10p_fwe``. Regions without a value in
    every participant, or whose values do not differ once covariates are held fixed, have NaN.

    Raises
    ------
    GlasError
        Other participants or regions on the two sides, fewer than 4 participants, or a column that has gaps, is
        not numeric, is constant or is told by the covariates; see also `glas3d.statistics.design.held_fixed`.
    """
    check_counts(n_perm, n_boot)
    check_method(method)
    data, names = matrix(values, participants)
    other = _partner(against, values, data.shape)
    if len(data) < 4:
        raise GlasError(f"a correlation over participants needs at least 4, got {len(data)}")
    fixed = _fixed(participants, covariates, site, len(data))
    known = complete(data, names) & complete(other, names)
    data, other = data[:, known], np.broadcast_to(other, (len(data), len(names)))[:, known]
    left, right = (_unit(_ranks(one) if method == "spearman" else one, fixed.covariates) for one in (data, other))
    if not np.isfinite(right).any() and np.isfinite(left).any():
        told = (
            f", once {', '.join([*covariates, *([site] if site else [])])} is held fixed" if covariates or site else ""
        )
        raise GlasError(f"no region can be correlated: what it is correlated with does not differ{told}")
    r = (left * right).sum(axis=0)
    varied = np.isfinite(r)
    if not varied.any():
        raise GlasError("no region can be correlated: none has values that differ between participants")
    data, other, left, right, r = (one[..., varied] for one in (data, other, left, right, r))

    largest, at_least = np.empty(n_perm), np.zeros(len(r))
    for i, order in enumerate(shuffles(fixed.blocks, n_perm, np.random.default_rng([seed, 0]))):
        # reordering what is held fixed with the column, in place of the values, is the same
        rest = 1 - ((fixed.covariates[order].T @ left) ** 2).sum(axis=0)
        permuted = (left * right[order]).sum(axis=0) / np.sqrt(np.maximum(rest, _LEAST))
        largest[i] = np.abs(permuted).max()
        at_least += reached(r, permuted)
    result = {"r": r}
    if n_boot:
        ends = interval(
            lambda a, b, c: _correlation(a, b, method, orthonormal(c)),
            [[data, other, fixed.covariates]],
            n_boot,
            np.random.default_rng([seed, 1]),
        )
        result |= dict(zip(("low", "high"), ends, strict=True))
    result |= {"p_uncorrected": (1 + at_least) / (1 + n_perm), "p_fwe": p_values(r, largest)}
    result["neglog10p_fwe"] = -np.log10(result["p_fwe"])
    rows = np.flatnonzero(known)[varied]
    table = pd.DataFrame(result, index=rows).reindex(range(len(names)))
    table.insert(0, "name", names)
    table.insert(1, "n", len(data))
    return table


def change_correlation(
    values: np.ndarray | pd.DataFrame,
    change: np.ndarray | pd.DataFrame,
    *,
    n_perm: int = 10_000,
    n_boot: int = 1000,
    seed: int = 0,
) -> ChangeCorrelation:
    """Correlate saliency with the change of volume over the regions, a participant at a time.

    The mean over participants is the brain volume change score of Zhang et al. (2024, arXiv 2407.08546). The
    null permutes regions, alike in all participants; p-values are two-sided and, a participant each, not
    corrected. It takes regions for exchangeable. Neighbours and the two sides of the brain are alike, so
    that p-values are smaller than they should be.

    Parameters
    ----------
    values, change
        ``(participants, regions)``, the same rows and columns.
    n_boot
        Resamples of regions for each ``r``, and of participants for the mean; 0 leaves the intervals out.

    Raises
    ------
    GlasError
        Other participants or regions on the two sides, fewer than 4 regions that all participants have, or
        nobody whose values differ between regions.

    Warns
    -----
    GlasWarning
        Regions that some participants lack are left out; participants whose values are the same in all regions
        have no correlation.
    """
    check_counts(n_perm, n_boot)
    data, names = matrix(values)
    other = _partner(change, values, data.shape)
    if other.shape != data.shape:
        raise GlasError("change must be participants by regions, got one value a participant")
    known = complete(data, names) & complete(other, names)
    if known.sum() < 4:
        raise GlasError(f"a correlation over regions needs at least 4, got {known.sum()}")
    left, right = data[:, known].T, other[:, known].T  # regions first: they are what is permuted
    r = _correlation(left, right)
    varied = np.isfinite(r)
    ids = values.index.to_numpy() if isinstance(values, pd.DataFrame) else np.arange(1, len(data) + 1)
    if not varied.any():
        raise GlasError("no participant has values that differ between regions")
    if not varied.all():
        flat = ", ".join(str(one) for one in ids[~varied][:5])
        warnings.warn(f"the same in all regions, and not counted: {flat}", GlasWarning, stacklevel=2)
    left, right, r = left[:, varied], right[:, varied], r[varied]

    a, b = _unit(left), _unit(right)
    at_least, means = np.zeros(len(r)), np.empty(n_perm)
    for i, order in enumerate(shuffles(np.zeros(len(a)), n_perm, np.random.default_rng([seed, 0]))):
        permuted = (a * b[order]).sum(axis=0)
        at_least += reached(r, permuted)
        means[i] = permuted.mean()
    mean = float(r.mean())
    found = {"r": r}
    low = high = float("nan")
    if n_boot:
        rng = np.random.default_rng([seed, 1])
        ends = interval(_correlation, [[left, right]], n_boot, rng)
        found |= dict(zip(("low", "high"), ends, strict=True))
        if len(r) > 1:
            low, high = (float(end) for end in interval(_mean, [[r]], n_boot, rng))
    found["p"] = (1 + at_least) / (1 + n_perm)
    table = pd.DataFrame(found, index=np.flatnonzero(varied)).reindex(range(len(data)))
    table.insert(0, "participant_id", ids)
    table.insert(1, "n_regions", int(known.sum()))
    return ChangeCorrelation(table, mean, low, high, float(p_values(np.array([mean]), np.abs(means))[0]))


_mean: Callable[..., np.ndarray] = lambda r: np.asarray(r.mean())  # noqa: E731


def _partner(against: object, values: np.ndarray | pd.DataFrame, shape: tuple[int, ...]) -> np.ndarray:
    """The other side, ``(n, 1)`` or ``(n, p)``; one column must be whole, several may lack regions."""
    column = np.asarray(against)
    if column.shape not in ((shape[0],), shape):
        raise GlasError(
            f"to correlate with, one value a participant is needed or one a region, for values of {shape} got "
            f"{column.shape}"
        )
    for axis in ("index", "columns"):
        one, other = getattr(values, axis, None), getattr(against, axis, None)
        if one is None or other is None or any(isinstance(labels, pd.RangeIndex) for labels in (one, other)):
            continue  # one side has no names
        if not one.equals(other):
            what = "participants" if axis == "index" else "regions"
            raise GlasError(f"the two sides of a correlation must have the same {what} in the same order")
    named = [side.index for side in (against, values) if isinstance(side, pd.Series | pd.DataFrame)]
    labels = next((one for one in named if not isinstance(one, pd.RangeIndex)), np.arange(1, shape[0] + 1))
    name = getattr(against, "name", None) or "the column"
    if column.ndim == 1:
        numbers = pd.to_numeric(pd.Series(column), errors="coerce").to_numpy(dtype=float)
        wrong = ~np.isfinite(numbers)
        if wrong.any():
            who = [str(one) for one in np.asarray(labels)[wrong]]
            raise GlasError(f"every participant needs a number of {name}, these have none: {listed(who)}")
        if np.ptp(numbers) == 0:
            raise GlasError(f"to correlate with, a column must differ between participants, {name} is {numbers[0]:g}")
        return numbers[:, None]
    try:
        return column.astype(float)
    except (TypeError, ValueError):
        raise GlasError("to correlate with, values must be numbers") from None


def check_method(method: str) -> None:
    """Refuse other correlations than the two there are."""
    if method not in ("pearson", "spearman"):
        raise GlasError(f'method must be "pearson" or "spearman", got {method!r}')


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.asarray(rankdata(values, axis=0))


def _fixed(participants: pd.DataFrame | None, covariates: Sequence[str], site: str | None, n: int) -> Fixed:
    if participants is None:
        if covariates or site:
            raise GlasError("covariates and sites are columns of the participants, of whom there is no table")
        return Fixed(np.zeros((n, 0)), np.zeros(n, dtype=int))
    return held_fixed(participants, covariates, site)


def _unit(values: np.ndarray, covariates: np.ndarray | None = None) -> np.ndarray:
    """Columns, centred and without what orthonormal covariates say of them, at unit norm; NaN where nothing is left."""
    rest = values - values.mean(axis=0)
    if covariates is not None and covariates.shape[1]:
        rest = rest - covariates @ (covariates.T @ rest)
    norm = np.linalg.norm(rest, axis=0)
    nothing = norm <= _LEAST * np.linalg.norm(values, axis=0)
    return np.asarray(rest / np.where(nothing, np.nan, norm))


def _correlation(
    left: np.ndarray, right: np.ndarray, method: Method = "pearson", covariates: np.ndarray | None = None
) -> np.ndarray:
    """Column by column, ``(n, p)`` twice to ``(p,)``."""
    if method == "spearman":
        left, right = _ranks(left), _ranks(right)
    return np.asarray((_unit(left, covariates) * _unit(right, covariates)).sum(axis=0))
