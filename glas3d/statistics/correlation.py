"""Correlation of saliency with a clinical score, or with the change of a region's volume."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from glas3d.display import fields_repr
from glas3d.errors import GlasError, GlasWarning, listed
from glas3d.statistics.choices import CorrelationMethod, check_counts, check_method
from glas3d.statistics.design import NuisanceDesign, nuisance_design, orthonormal
from glas3d.statistics.regions import as_matrix, complete_regions
from glas3d.statistics.resampling import as_extreme, bootstrap_interval, false_discovery, p_values, shuffles

# Relative to values: residuals below this are rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class ChangeCorrelation:
    """How well each participant's saliency follows the change of volume over the regions.

    Attributes
    ----------
    participants
        One row a participant: ``participant_id n_regions r low high p_uncorrected``.
    mean, low, high
        Mean of ``r`` over participants, with its 95 % bootstrap interval over participants (NaN without).
    p
        The p-value of that mean.
    """

    participants: pd.DataFrame
    mean: float
    low: float
    high: float
    p: float

    __repr__ = fields_repr


def correlate(
    values: np.ndarray | pd.DataFrame,
    against: pd.Series | pd.DataFrame | np.ndarray,
    *,
    participants: pd.DataFrame | None = None,
    covariates: Sequence[str] = (),
    site: str | None = None,
    method: CorrelationMethod = "pearson",
    n_perm: int = 10_000,
    n_boot: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate every region's saliency with a column of the participants, or with a column of its own.

    With covariates it is the partial correlation, that of the residuals of both sides on intercept and covariates.
    The null hypothesis is that the correlation is 0; the spread of saliency may depend on the column. What is tested
    is therefore ``z``, r over a standard error that holds then, too (DiCiccio & Romano 2017), and not r itself. The
    null distribution is Freedman and Lane's: participants are permuted, all regions together and within their site
    only, and family-wise p-values count the permutations whose largest ``|z|`` over the regions reaches a region's
    own. Two-sided; exact without covariates where the two sides are independent.

    Parameters
    ----------
    values
        ``(participants, regions)``.
    against
        ``(participants,)``, such as MMSE, or ``(participants, regions)``, such as the change of each region's
        volume; in the same order.
    participants
        Table of the participants, in the same order; needed for covariates and sites.
    covariates
        Columns of numbers or of categories (sex, scanner), held fixed on both sides.
    site
        Column of sites: participants are exchanged within them, and the sites' means are held fixed.
        Default: one site.
    method
        Pearson's r or Spearman's rho (of midranks; the covariates' numbers are not ranked).
    n_perm
        Number of permutations; no p-value is below ``1 / (n_perm + 1)``.
    n_boot
        Number of resamples of participants for the interval; 0 leaves it out.
    seed
        Seed of permutations and resamples.

    Returns
    -------
    One row a region: ``name n r z dof low high p_uncorrected p_fdr p_fwe neglog10p_fwe``; ``dof`` are the degrees of
    freedom of the residuals. Regions without a value in
    every participant, or whose values do not differ once covariates are held fixed, have NaN.

    Raises
    ------
    GlasError
        Other participants or regions on the two sides, fewer than 4 participants, or a column that has gaps, is
        not numeric, is constant or follows from the covariates; see also `glas3d.statistics.design.nuisance_design`.

    Warns
    -----
    GlasWarning
        Regions that some participants lack; so few participants in each site that no p-value can reach 0.05.
    """
    check_counts(n_perm, n_boot)
    check_method(method)
    data, names = as_matrix(values, participants)
    other = _other_side(against, values, data.shape)
    if len(data) < 4:
        raise GlasError(f"a correlation over participants needs at least 4, got {len(data)}")
    nuisance = _nuisance(participants, covariates, site, len(data))
    known = complete_regions(data, names) & complete_regions(other, names)
    data, other = data[:, known], np.broadcast_to(other, (len(data), len(names)))[:, known]
    left, right = (_unit(_ranks(side) if method == "spearman" else side, nuisance.covariates) for side in (data, other))
    r = (left * right).sum(axis=0)
    varied = np.isfinite(r)
    if not varied.any():
        raise GlasError(_nothing_varies(left, right, [*covariates, *([site] if site else [])]))
    data, other, left, right, r = (array[..., varied] for array in (data, other, left, right, r))

    least = _smallest_p(nuisance.blocks)
    z = _studentised(r, (left**2 * right**2).sum(axis=0))
    largest, n_as_extreme = np.empty(n_perm), np.zeros(len(r))
    for i, order in enumerate(shuffles(nuisance.blocks, n_perm, np.random.default_rng([seed, 0]))):
        # reordering what is held fixed with the column, in place of the values, is the same
        fixed, other_side = nuisance.covariates[order], right[order]
        rest = left - fixed @ (fixed.T @ left) if fixed.shape[1] else left
        permuted = _studentised((rest * other_side).sum(axis=0), (rest**2 * other_side**2).sum(axis=0))
        largest[i] = np.abs(permuted).max()
        n_as_extreme += as_extreme(z, permuted)
    columns = {"r": r, "z": z, "dof": np.full(len(r), float(nuisance.dof))}
    if n_boot:
        columns["low"], columns["high"] = bootstrap_interval(
            lambda a, b, c: _correlation(a, b, method, orthonormal(c)),
            [[data, other, nuisance.covariates]],
            n_boot,
            np.random.default_rng([seed, 1]),
        )
    uncorrected = np.maximum((1 + n_as_extreme) / (1 + n_perm), least)
    columns |= {"p_uncorrected": uncorrected, "p_fdr": false_discovery(uncorrected)}
    columns["p_fwe"] = np.maximum(p_values(z, largest), least)
    columns["neglog10p_fwe"] = -np.log10(columns["p_fwe"])
    rows = np.flatnonzero(known)[varied]
    table = pd.DataFrame(columns, index=rows).reindex(range(len(names)))
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
    corrected. It assumes that regions can be exchanged. Neighbours and the two sides of the brain are alike, so
    that p-values are smaller than they should be.

    Parameters
    ----------
    values, change
        ``(participants, regions)``, the same rows and columns.
    n_perm
        Number of permutations of the regions.
    n_boot
        Number of resamples of regions for each ``r``, and of participants for the mean; 0 leaves the intervals out.
    seed
        Seed of permutations and resamples.

    Raises
    ------
    GlasError
        Other participants or regions on the two sides, fewer than 4 regions that all participants have, or
        no participant whose values differ between regions.

    Warns
    -----
    GlasWarning
        Regions that some participants lack are left out; participants whose values are the same in all regions
        have no correlation.
    """
    check_counts(n_perm, n_boot)
    data, names = as_matrix(values)
    other = _other_side(change, values, data.shape)
    if other.shape != data.shape:
        raise GlasError("change must be participants by regions, got one value a participant")
    known = complete_regions(data, names) & complete_regions(other, names)
    if known.sum() < 4:
        raise GlasError(f"a correlation over regions needs at least 4, got {known.sum()}")
    left, right = data[:, known].T, other[:, known].T  # regions first: they are permuted
    r = _correlation(left, right)
    varied = np.isfinite(r)
    ids = values.index.to_numpy() if isinstance(values, pd.DataFrame) else np.arange(1, len(data) + 1)
    if not varied.any():
        raise GlasError("no participant has values that differ between regions")
    if not varied.all():
        flat = ", ".join(str(name) for name in ids[~varied][:5])
        warnings.warn(f"the same in all regions, and not counted: {flat}", GlasWarning, stacklevel=2)
    left, right, r = left[:, varied], right[:, varied], r[varied]

    a, b = _unit(left), _unit(right)
    n_as_extreme, means = np.zeros(len(r)), np.empty(n_perm)
    for i, order in enumerate(shuffles(np.zeros(len(a)), n_perm, np.random.default_rng([seed, 0]))):
        permuted = (a * b[order]).sum(axis=0)
        n_as_extreme += as_extreme(r, permuted)
        means[i] = permuted.mean()
    mean = float(r.mean())
    columns = {"r": r}
    low = high = float("nan")
    if n_boot:
        rng = np.random.default_rng([seed, 1])
        columns["low"], columns["high"] = bootstrap_interval(_correlation, [[left, right]], n_boot, rng)
        if len(r) > 1:
            low, high = (float(end) for end in bootstrap_interval(_mean, [[r]], n_boot, rng))
    columns["p_uncorrected"] = (1 + n_as_extreme) / (1 + n_perm)
    table = pd.DataFrame(columns, index=np.flatnonzero(varied)).reindex(range(len(data)))
    table.insert(0, "participant_id", ids)
    table.insert(1, "n_regions", int(known.sum()))
    return ChangeCorrelation(table, mean, low, high, float(p_values(np.array([mean]), np.abs(means))[0]))


def _studentised(product: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return a correlation over its standard error, ``sum(ab) / sqrt(sum(a^2 b^2))`` of residuals; 0 where both are."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nan_to_num(product / np.sqrt(squares), nan=0.0, posinf=np.inf, neginf=-np.inf))


def _smallest_p(blocks: np.ndarray) -> float:
    """Return the smallest p-value that permutations within blocks can give; warn where it exceeds 0.05."""
    ways = math.prod(math.factorial(int(count)) for count in np.unique(blocks, return_counts=True)[1])
    if 1 / ways > 0.05:
        message = f"participants can be permuted in {ways} ways only, so that no p-value can reach 0.05"
        warnings.warn(message, GlasWarning, stacklevel=3)
    return 1 / ways


def _mean(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.mean())


def _other_side(against: object, values: np.ndarray | pd.DataFrame, shape: tuple[int, ...]) -> np.ndarray:
    """Return the other side, ``(n, 1)`` or ``(n, p)``; one column must be complete, several may lack regions."""
    column = np.asarray(against)
    if column.shape not in ((shape[0],), shape):
        raise GlasError(
            f"to correlate with, one value a participant is needed or one a region, for values of {shape} got "
            f"{column.shape}"
        )
    _check_same_labels(against, values)
    if column.ndim == 1:
        labelled = [side.index for side in (against, values) if isinstance(side, pd.Series | pd.DataFrame)]
        ids = next((index for index in labelled if not isinstance(index, pd.RangeIndex)), np.arange(1, shape[0] + 1))
        return _complete_column(column, getattr(against, "name", None) or "the column", np.asarray(ids))
    try:
        return column.astype(float)
    except (TypeError, ValueError):
        raise GlasError("to correlate with, values must be numbers") from None


def _check_same_labels(against: object, values: object) -> None:
    """Refuse sides whose participants or regions have other names; a side without names is taken as it is."""
    for axis, what in (("index", "participants"), ("columns", "regions")):
        labels, other = getattr(values, axis, None), getattr(against, axis, None)
        if labels is None or other is None or isinstance(labels, pd.RangeIndex) or isinstance(other, pd.RangeIndex):
            continue
        if not labels.equals(other):
            raise GlasError(f"the two sides of a correlation must have the same {what} in the same order")


def _complete_column(column: np.ndarray, name: object, ids: np.ndarray) -> np.ndarray:
    """Return one value a participant as ``(n, 1)`` numbers."""
    numbers = pd.to_numeric(pd.Series(column), errors="coerce").to_numpy(dtype=float)
    wrong = ~np.isfinite(numbers)
    if wrong.any():
        lacking = [str(participant) for participant in ids[wrong]]
        raise GlasError(f"every participant needs a number of {name}, these have none: {listed(lacking)}")
    if np.ptp(numbers) == 0:
        raise GlasError(f"to correlate with, a column must differ between participants, {name} is {numbers[0]:g}")
    return np.asarray(numbers[:, None])


def _nothing_varies(left: np.ndarray, right: np.ndarray, fixed_names: Sequence[str]) -> str:
    """Return the message about sides, ``(n, p)`` each, of which one is constant in every region."""
    if np.isfinite(left).any() and not np.isfinite(right).any():
        held = f", once {', '.join(fixed_names)} is held fixed" if fixed_names else ""
        return f"no region can be correlated: what it is correlated with does not differ{held}"
    return "no region can be correlated: none has values that differ between participants"


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.asarray(rankdata(values, axis=0))


def _nuisance(participants: pd.DataFrame | None, covariates: Sequence[str], site: str | None, n: int) -> NuisanceDesign:
    """Return the design of covariates and sites; without a table of participants there are none."""
    if participants is None:
        if covariates or site:
            raise GlasError("covariates and sites are columns of the table of participants, got no table")
        return NuisanceDesign(np.zeros((n, 0)), np.zeros(n, dtype=int))
    return nuisance_design(participants, covariates, site)


def _unit(values: np.ndarray, covariates: np.ndarray | None = None) -> np.ndarray:
    """Return columns' residuals on intercept and orthonormal covariates, at unit norm; NaN where none are left."""
    rest = values - values.mean(axis=0)
    if covariates is not None and covariates.shape[1]:
        rest = rest - covariates @ (covariates.T @ rest)
    norm = np.linalg.norm(rest, axis=0)
    nothing = norm <= _ROUNDING * np.linalg.norm(values, axis=0)
    return np.asarray(rest / np.where(nothing, np.nan, norm))


def _correlation(
    left: np.ndarray, right: np.ndarray, method: CorrelationMethod = "pearson", covariates: np.ndarray | None = None
) -> np.ndarray:
    """Correlate column by column, ``(n, p)`` twice to ``(p,)``."""
    if method == "spearman":
        left, right = _ranks(left), _ranks(right)
    return np.asarray((_unit(left, covariates) * _unit(right, covariates)).sum(axis=0))
