"""Who is compared with whom, what is held fixed, and who may be exchanged with whom."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from glas3d.errors import GlasError, GlasWarning, listed

_LEAST_ARRANGEMENTS = 20  # with fewer, no p-value can be below 0.05


@dataclass(frozen=True, eq=False)
class Fixed:
    """What is held fixed, and who may be exchanged with whom.

    Attributes
    ----------
    covariates
        ``(n, k)`` orthonormal and centred: the covariates and, with several sites, which site; without intercept.
    blocks
        ``(n,)`` int: only participants of the same block are exchanged.
    """

    covariates: np.ndarray
    blocks: np.ndarray

    @property
    def nuisance(self) -> np.ndarray:
        """``(n, k + 1)`` orthonormal: intercept and covariates."""
        n = len(self.blocks)
        return np.hstack([np.full((n, 1), 1 / math.sqrt(n)), self.covariates])

    @property
    def dof(self) -> int:
        """Degrees of freedom of the residuals, once one more column is tested."""
        return len(self.blocks) - int(self.covariates.shape[1]) - 2


@dataclass(frozen=True, eq=False)
class Contrast(Fixed):
    """Case against control with covariates, ready for a linear model.

    Attributes
    ----------
    rows
        ``(participants,)`` bool: who is in one of the two groups.
    case
        ``(n,)`` bool, of those: who is a case.
    tested
        ``(n,)``: ``case`` without what intercept and covariates say of it.
    """

    rows: np.ndarray
    case: np.ndarray
    tested: np.ndarray


def contrast(
    participants: pd.DataFrame,
    case: object,
    control: object,
    *,
    group: str = "group",
    covariates: Sequence[str] = (),
    site: str | None = None,
) -> Contrast:
    """Read two groups, their covariates and their sites from a table of participants.

    Parameters
    ----------
    participants
        One row a participant, as in ``participants.tsv``.
    case, control
        Values of the column ``group``; participants of other groups are left out.
    covariates
        Columns of numbers, or of two values (sex), coded 0 and 1.
    site
        Column; participants are exchanged within a site, and the sites' means are held fixed.

    Raises
    ------
    GlasError
        A column that is missing, not numeric, constant or has gaps; a group of fewer than two; a participant
        there twice; groups that covariates or sites tell apart; more covariates than participants allow.

    Warns
    -----
    GlasWarning
        Sites with one of the groups only, or so few participants that no p-value can be small.
    """
    _need(participants, group)
    label = participants[group].astype(str)
    if str(case) == str(control):
        raise GlasError(f"case and control must be two groups, both are {case}")
    rows = label.isin([str(case), str(control)]).to_numpy()
    for one in (case, control):
        count = int((label == str(one)).sum())
        if count < 2:
            counts = ", ".join(f"{name} {n}" for name, n in label.value_counts().sort_index().items())
            raise GlasError(f"a comparison needs at least 2 participants a group, {one} has {count} ({counts})")
    table = participants.loc[rows]
    cases = (label[rows] == str(case)).to_numpy()
    if site is not None:
        _check_sites(cases, *_sites(table, site), site)
    fixed = held_fixed(table, covariates, site)
    blocks = fixed.blocks
    tested = _residual(cases.astype(float), fixed.covariates)
    if np.linalg.norm(tested) < 1e-6:
        raise GlasError(
            f"{case} and {control} are told apart by {', '.join([*covariates, *([site] if site else [])])} alone: "
            "no difference is left to test"
        )
    found = Contrast(fixed.covariates, blocks, rows, cases, tested)
    ways = math.prod(math.comb(int((blocks == b).sum()), int(cases[blocks == b].sum())) for b in np.unique(blocks))
    if ways < _LEAST_ARRANGEMENTS:
        message = f"the groups can be dealt out in {ways} ways only: p-values below {1 / ways:.2g} mean nothing"
        warnings.warn(message, GlasWarning, stacklevel=2)
    return found


def held_fixed(participants: pd.DataFrame, covariates: Sequence[str] = (), site: str | None = None) -> Fixed:
    """Covariates and sites of a table of participants.

    Parameters
    ----------
    participants, covariates, site
        See `contrast`.

    Raises
    ------
    GlasError
        A column that is missing, not numeric, constant or has gaps; a participant there twice; more covariates than
        participants allow.
    """
    if "participant_id" in participants and (twice := participants["participant_id"].duplicated()).any():
        name = participants.loc[twice, "participant_id"].iloc[0]
        raise GlasError(f"every participant must be there once, {name} is twice: average its sessions first")
    columns = [_covariate(participants, name) for name in covariates]
    blocks = np.zeros(len(participants), dtype=int)
    if site is not None:
        blocks, sites = _sites(participants, site)
        columns += [(blocks == code).astype(float) for code in range(1, len(sites))]
    basis = orthonormal(np.stack(columns, axis=1)) if columns else np.zeros((len(participants), 0))
    found = Fixed(basis, blocks)
    if found.dof < 1:
        raise GlasError(
            f"a test with {basis.shape[1]} covariates (each site but one is one) needs at least "
            f"{basis.shape[1] + 3} participants, got {len(participants)}"
        )
    return found


def orthonormal(columns: np.ndarray) -> np.ndarray:
    """Orthonormal basis ``(n, k)`` of columns ``(n, m)`` once they are centred; those that add nothing are dropped."""
    centred = columns - columns.mean(axis=0)
    norm = np.linalg.norm(centred, axis=0)
    varied = norm > 1e-12 * np.linalg.norm(columns, axis=0)
    if not varied.any():
        return np.zeros((len(columns), 0))
    left, size, _ = np.linalg.svd(centred[:, varied] / norm[varied], full_matrices=False)
    basis = left[:, size > 1e-8 * size[0]]
    return np.ascontiguousarray(basis - basis.mean(axis=0))


def strata(truth: Sequence[object], predicted: Sequence[object], case: object) -> np.ndarray:
    """Who was called what: ``"tp"``, ``"fp"``, ``"tn"`` or ``"fn"`` a participant.

    Parameters
    ----------
    truth, predicted
        Labels, one a participant.
    case
        The label that is positive.

    Raises
    ------
    GlasError
        Lengths that differ, a gap, more than two labels, or nobody labelled ``case``.

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
    positive, hit = (called == case).to_numpy(), (true == called).to_numpy()
    return np.where(hit, np.where(positive, "tp", "tn"), np.where(positive, "fp", "fn"))


def _names(participants: pd.DataFrame, which: np.ndarray | pd.Series) -> str:
    """Participants by name, for a message."""
    ids = np.asarray(participants.get("participant_id", participants.index))
    return listed(ids[np.asarray(which)])


def _need(table: pd.DataFrame, column: str) -> None:
    if column not in table:
        raise GlasError(f"participants need a column {column}, the table has {', '.join(map(str, table.columns))}")


def _filled(table: pd.DataFrame, column: str) -> pd.Series:
    """A column without gaps."""
    _need(table, column)
    values = table[column]
    gaps = values.isna() | values.astype(str).isin(["", "n/a"])
    if gaps.any():
        raise GlasError(f"every participant needs a value of {column}, these have none: {_names(table, gaps)}")
    return values


def _covariate(table: pd.DataFrame, column: str) -> np.ndarray:
    values = _filled(table, column)
    if values.nunique() == 1:
        raise GlasError(f"a covariate must differ between participants, {column} is {values.iloc[0]} for all")
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float)
    wrong = ~np.isfinite(numbers)
    if wrong.any():
        if wrong.all() and values.nunique() == 2:
            return np.asarray(values == values.max(), dtype=float)
        raise GlasError(
            f"a covariate must hold numbers or two values, {column} is {values[wrong].iloc[0]} "
            f"for {_names(table, wrong)}"
        )
    return numbers


def _sites(table: pd.DataFrame, column: str) -> tuple[np.ndarray, list[str]]:
    codes, sites = pd.factorize(_filled(table, column).astype(str), sort=True)
    return np.asarray(codes), [str(one) for one in sites]


def _check_sites(cases: np.ndarray, blocks: np.ndarray, sites: list[str], column: str) -> None:
    alone = [name for code, name in enumerate(sites) if len(set(cases[blocks == code])) == 1]
    if len(alone) == len(sites):
        raise GlasError(
            f"no {column} has participants of both groups: what differs between the groups cannot be told from "
            "what differs between sites, and nobody can be exchanged"
        )
    if alone:
        message = f"these sites have one of the groups only and say nothing of the difference: {', '.join(alone)}"
        warnings.warn(message, GlasWarning, stacklevel=3)


def _residual(values: np.ndarray, basis: np.ndarray) -> np.ndarray:
    centred = values - values.mean()
    return np.asarray(centred - basis @ (basis.T @ centred))
