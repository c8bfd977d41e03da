"""Designs of tests: which groups are compared, what is held fixed, and which participants may be exchanged."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from glas3d.display import fields_repr
from glas3d.errors import GlasError, GlasWarning, listed
from glas3d.statistics.choices import covariate_column

# So few different whole numbers may be codes of categories.
_FEW_LEVELS = 5


@dataclass(frozen=True, eq=False)
class NuisanceDesign:
    """The covariates and sites that a test holds fixed.

    Attributes
    ----------
    covariates
        ``(n, k)`` orthonormal and centred: the covariates and, with several sites, the sites; without intercept.
    blocks
        ``(n,)`` int: only participants of the same block may be exchanged.
    """

    covariates: np.ndarray
    blocks: np.ndarray

    __repr__ = fields_repr

    @property
    def basis(self) -> np.ndarray:
        """``(n, k + 1)`` orthonormal: intercept and covariates."""
        n = len(self.blocks)
        return np.hstack([np.full((n, 1), 1 / math.sqrt(n)), self.covariates])

    @property
    def dof(self) -> int:
        """Degrees of freedom of the residuals, once one more column is tested."""
        return len(self.blocks) - int(self.covariates.shape[1]) - 2


@dataclass(frozen=True, eq=False)
class TwoGroupDesign(NuisanceDesign):
    """Case against control with covariates, ready for a linear model.

    Attributes
    ----------
    rows
        ``(participants,)`` bool: which participants are in one of the two groups; ``n`` are.
    case
        ``(n,)`` bool: which of those are cases.
    tested
        ``(n,)``: the residuals of ``case`` on intercept and covariates.
    """

    rows: np.ndarray
    case: np.ndarray
    tested: np.ndarray

    __repr__ = fields_repr


@dataclass(frozen=True, eq=False)
class GroupsDesign(NuisanceDesign):
    """Two or more groups with covariates, ready for a linear model.

    Attributes
    ----------
    rows
        ``(participants,)`` bool: which participants are in one of the groups; ``n`` are.
    members
        ``(n, groups)`` bool: which of those are in each group.
    """

    rows: np.ndarray
    members: np.ndarray


def groups_design(
    participants: pd.DataFrame,
    groups: Sequence[object],
    *,
    group: str = "group",
    covariates: Sequence[str] = (),
    site: str | None = None,
) -> GroupsDesign:
    """Read several groups, their covariates and their sites from a table of participants.

    Parameters
    ----------
    participants
        One row a participant.
    groups
        Values of the column ``group``, two or more; participants of other groups are left out.
    group, covariates, site
        See `two_group_design`.

    Raises
    ------
    GlasError
        A column that is missing, holds numbers and text, is constant or has gaps; a group of fewer than two; a
        participant in two rows; groups that covariates or sites separate; more covariates than participants allow.

    Warns
    -----
    GlasWarning
        Sites with one of the groups only; see also `nuisance_design`.
    """
    _check_column(participants, group)
    labels = participants[group].astype(str)
    names = [str(name) for name in groups]
    if len(set(names)) < max(2, len(names)):
        raise GlasError(f"groups to compare must be two or more, each once, got {', '.join(names) or 'none'}")
    _check_sizes(labels, names)
    rows = labels.isin(names).to_numpy()
    table = participants.loc[rows]
    members = np.column_stack([(labels[rows] == name).to_numpy() for name in names])
    if site is not None:
        _check_sites(members.argmax(axis=1), *_sites(table, site), site)
    nuisance = nuisance_design(table, covariates, site)
    apart = orthonormal(members.astype(float))
    left = apart - nuisance.covariates @ (nuisance.covariates.T @ apart)
    if np.linalg.norm(left, ord=-2) < 1e-6:
        fixed = ", ".join([*covariates, *([site] if site else [])])
        raise GlasError(f"{', '.join(names)} are told apart by {fixed} alone: no difference is left to test")
    return GroupsDesign(nuisance.covariates, nuisance.blocks, rows, members)


def two_group_design(
    participants: pd.DataFrame,
    case: object,
    control: object,
    *,
    group: str = "group",
    covariates: Sequence[str] = (),
    site: str | None = None,
) -> TwoGroupDesign:
    """Read two groups, their covariates and their sites from a table of participants.

    Parameters
    ----------
    participants
        One row a participant.
    case, control
        Values of the column ``group``; participants of other groups are left out.
    group
        The column of groups.
    covariates
        Columns of numbers, or of categories (sex, scanner), each of which but the first becomes a column of 0 and 1.
        ``C(name)`` takes numbers as codes of categories.
    site
        The column of sites: participants are exchanged within a site, and the sites' means are held fixed.
        Default: one site.

    Raises
    ------
    GlasError
        A column that is missing, holds numbers and text, is constant or has gaps; a group of fewer than two; a
        participant in two rows; groups that covariates or sites separate; more covariates than participants allow.

    Warns
    -----
    GlasWarning
        Sites with one of the groups only; see also `nuisance_design`.
    """
    _check_column(participants, group)
    labels = participants[group].astype(str)
    if str(case) == str(control):
        raise GlasError(f"case and control must be two groups, both are {case}")
    _check_sizes(labels, [str(case), str(control)])
    rows = labels.isin([str(case), str(control)]).to_numpy()
    table = participants.loc[rows]
    is_case = (labels[rows] == str(case)).to_numpy()
    if site is not None:
        _check_sites(is_case, *_sites(table, site), site)
    nuisance = nuisance_design(table, covariates, site)
    tested = _residual(is_case.astype(float), nuisance.covariates)
    if np.linalg.norm(tested) < 1e-6:
        names = ", ".join([*covariates, *([site] if site else [])])
        raise GlasError(f"{case} and {control} are told apart by {names} alone: no difference is left to test")
    return TwoGroupDesign(nuisance.covariates, nuisance.blocks, rows, is_case, tested)


def nuisance_design(
    participants: pd.DataFrame, covariates: Sequence[str] = (), site: str | None = None
) -> NuisanceDesign:
    """Read covariates and sites from a table of participants.

    Parameters
    ----------
    participants, covariates, site
        See `two_group_design`.

    Raises
    ------
    GlasError
        A column that is missing, holds numbers and text, is constant or has gaps; a participant in two rows; more
        covariates than participants allow.

    Warns
    -----
    GlasWarning
        A covariate of three to five whole numbers, which may be codes of categories.
    """
    if "participant_id" in participants and (twice := participants["participant_id"].duplicated()).any():
        name = participants.loc[twice, "participant_id"].iloc[0]
        raise GlasError(f"every participant must have one row, {name} has two: average its sessions first")
    columns = [column for name in covariates for column in _covariate(participants, name)]
    blocks = np.zeros(len(participants), dtype=int)
    if site is not None:
        blocks, sites = _sites(participants, site)
        columns += [(blocks == code).astype(float) for code in range(1, len(sites))]
    basis = orthonormal(np.stack(columns, axis=1)) if columns else np.zeros((len(participants), 0))
    design = NuisanceDesign(basis, blocks)
    if design.dof < 1:
        raise GlasError(
            f"a test with {basis.shape[1]} covariates (each site but one is one) needs at least "
            f"{basis.shape[1] + 3} participants, got {len(participants)}"
        )
    return design


def orthonormal(columns: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis ``(n, k)`` of columns ``(n, m)`` after centring, without those that add nothing."""
    centred = columns - columns.mean(axis=0)
    norm = np.linalg.norm(centred, axis=0)
    varied = norm > 1e-12 * np.linalg.norm(columns, axis=0)
    if not varied.any():
        return np.zeros((len(columns), 0))
    left, size, _ = np.linalg.svd(centred[:, varied] / norm[varied], full_matrices=False)
    basis = left[:, size > 1e-8 * size[0]]
    return np.ascontiguousarray(basis - basis.mean(axis=0))


def strata(truth: Sequence[object], predicted: Sequence[object], case: object) -> np.ndarray:
    """Return ``"tp"``, ``"fp"``, ``"tn"`` or ``"fn"`` for each participant.

    Parameters
    ----------
    truth, predicted
        Labels, one a participant.
    case
        The label that is positive.

    Raises
    ------
    GlasError
        Lengths that differ, a gap, more than two labels, or no participant labelled ``case``.

    Examples
    --------
    >>> strata(["AD", "AD", "NC", "NC"], ["AD", "NC", "NC", "AD"], "AD").tolist()
    ['tp', 'fn', 'tn', 'fp']
    """
    true, called = pd.Series(list(truth), dtype=object), pd.Series(list(predicted), dtype=object)
    if len(true) != len(called):
        raise GlasError(f"strata need a truth and a prediction a participant, got {len(true)} and {len(called)}")
    if true.isna().any() or called.isna().any():
        first = int((true.isna() | called.isna()).to_numpy().argmax())
        raise GlasError(f"strata need a truth and a prediction a participant, number {first + 1} has a gap")
    labels = sorted({*true, *called, case}, key=str)
    if len(labels) > 2 or case not in {*true, *called}:
        raise GlasError(f"strata need two labels, one of them {case}, got {', '.join(map(str, {*true, *called}))}")
    positive, correct = (called == case).to_numpy(), (true == called).to_numpy()
    return np.where(correct, np.where(positive, "tp", "tn"), np.where(positive, "fp", "fn"))


def _names(participants: pd.DataFrame, rows: np.ndarray | pd.Series) -> str:
    """Return the names of some participants, for a message."""
    ids = np.asarray(participants.get("participant_id", participants.index))
    return listed(ids[np.asarray(rows)])


def _check_sizes(labels: pd.Series, names: Sequence[str]) -> None:
    """Refuse a group of fewer than two participants."""
    for name in names:
        count = int((labels == name).sum())
        if count < 2:
            counts = ", ".join(f"{label} {n}" for label, n in labels.value_counts().sort_index().items())
            raise GlasError(f"a comparison needs at least 2 participants a group, {name} has {count} ({counts})")


def _check_column(table: pd.DataFrame, column: str) -> None:
    if column not in table:
        raise GlasError(f"participants need a column {column}, the table has {', '.join(map(str, table.columns))}")


def _filled(table: pd.DataFrame, column: str) -> pd.Series:
    """Return a column, which must have no gaps."""
    _check_column(table, column)
    values = table[column]
    gaps = values.isna() | values.astype(str).isin(["", "n/a"])
    if gaps.any():
        raise GlasError(f"every participant needs a value of {column}, these have none: {_names(table, gaps)}")
    return values


def _covariate(table: pd.DataFrame, covariate: str) -> list[np.ndarray]:
    """Return a covariate as columns ``(n,)`` of numbers: itself, or 0 and 1 for each category but the first."""
    column = covariate_column(covariate)
    values = _filled(table, column)
    if values.nunique() == 1:
        raise GlasError(f"a covariate must differ between participants, {column} is {values.iloc[0]} for all")
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float)
    wrong = ~np.isfinite(numbers)
    if column != covariate or wrong.all() or isinstance(values.dtype, pd.CategoricalDtype):
        return _categories(values, column)
    if wrong.any():
        raise GlasError(
            f"a covariate must hold numbers only, or categories only, {column} is {values[wrong].iloc[0]} "
            f"for {_names(table, wrong)}"
        )
    levels = np.unique(numbers)
    if 2 < len(levels) <= _FEW_LEVELS < len(numbers) and (levels % 1 == 0).all():
        message = (
            f"the covariate {column} has {len(levels)} whole numbers and is held fixed as an amount: if they are codes "
            f"of categories, write C({column})"
        )
        warnings.warn(message, GlasWarning, stacklevel=4)
    return [numbers]


def _categories(values: pd.Series, column: str) -> list[np.ndarray]:
    """Return 0 and 1 for each category but the first, in alphabetical order; a category is of two at least."""
    names = values.astype(str)
    categories = sorted(names.unique())
    if len(categories) == len(names) > 2:
        raise GlasError(
            f"a covariate of categories must have participants in common, in {column} each has a category of their own"
        )
    return [(names == name).to_numpy(dtype=float) for name in categories[1:]]


def _sites(table: pd.DataFrame, column: str) -> tuple[np.ndarray, list[str]]:
    """Return the number of each participant's site, ``(n,)``, and the sites' names."""
    codes, sites = pd.factorize(_filled(table, column).astype(str), sort=True)
    return np.asarray(codes), [str(site) for site in sites]


def _check_sites(group_of: np.ndarray, blocks: np.ndarray, sites: list[str], column: str) -> None:
    """Refuse sites that have one group each, and warn of some that have; ``group_of`` is each participant's group."""
    one_group = [name for code, name in enumerate(sites) if len(set(group_of[blocks == code])) == 1]
    if len(one_group) == len(sites):
        several = "both" if len(set(group_of)) == 2 else "several"
        raise GlasError(
            f"no {column} has participants of {several} groups: what differs between the groups cannot be told from "
            "what differs between sites, and no participants can be exchanged"
        )
    if one_group:
        message = f"these sites have one of the groups only and add nothing to the difference: {', '.join(one_group)}"
        warnings.warn(message, GlasWarning, stacklevel=3)


def _residual(values: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return what an intercept and an orthonormal, centred basis leave of values ``(n,)``."""
    centred = values - values.mean()
    return np.asarray(centred - basis @ (basis.T @ centred))
