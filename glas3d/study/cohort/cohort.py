"""Scans of participants of known groups, and what is wrong with the others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from glas3d.errors import GlasError, GlasWarning

OnError = Literal["fail", "skip"]

_PROBLEMS = ("participant_id", "session", "group", "problem", "detail")


@dataclass(frozen=True, eq=False)
class Cohort:
    """Scans of participants of known groups.

    Attributes
    ----------
    root
        The folder they come from.
    everyone
        A row a scan: ``participant_id session path group`` and the other columns of the participants' table;
        ``session`` is empty where a file names none. Sorted, and of every group.
    problems
        A row for each that is not among them: ``participant_id session group problem detail``, the problem
        one of ``missing``, ``duplicated``, ``unreadable``, ``no group`` and ``grid``.
    case, control
        The two groups compared.
    on_error
        See `Selection`.
    """

    root: Path
    everyone: pd.DataFrame
    problems: pd.DataFrame
    case: str
    control: str
    on_error: OnError = "fail"

    @property
    def table(self) -> pd.DataFrame:
        """The rows of `everyone` of the two groups."""
        return self.everyone[self.everyone["group"].isin([self.case, self.control])].reset_index(drop=True)

    @property
    def groups(self) -> dict[str, int]:
        """Participants with a scan, by group."""
        return count_participants(self.everyone)

    def __len__(self) -> int:
        return len(self.table)

    def listed(self, problem: str) -> list[str]:
        """Participants of the two groups, or of none, that have a problem."""
        found = self._concerned()
        return list(dict.fromkeys(found.loc[found["problem"] == problem, "participant_id"]))

    def pair(self, case: str, control: str) -> Cohort:
        """The same folder with two other groups compared.

        Raises
        ------
        GlasError
            A group nobody is in, or a problem with its participants where problems end the work.
        """
        if case == control:
            raise GlasError(f"case and control must be two groups, both are {case}")
        for group in (case, control):
            if group not in self.groups:
                there = ", ".join(f"{name} {n}" for name, n in self.groups.items())
                raise GlasError(f"no participant with a scan is of group {group}, {self.root} has {there or 'none'}")
        return settled(replace(self, case=case, control=control))

    def pairs(self) -> list[tuple[str, str]]:
        """Every two groups as case and control; `control` stands last wherever it is one of them."""
        names = sorted(self.groups, key=lambda name: (name == self.control, name))
        return list(combinations(names, 2))

    def without(self, problems: Sequence[Mapping[str, Any]]) -> Cohort:
        """Leave out scans in which a problem was found later.

        Parameters
        ----------
        problems
            ``participant_id session problem detail`` each.

        Raises
        ------
        GlasError
            Where problems end the work.
        """
        if not problems:
            return self
        bad = {(one["participant_id"], one["session"]) for one in problems}
        scans = list(zip(self.everyone["participant_id"], self.everyone["session"], strict=True))
        groups = dict(zip(scans, self.everyone["group"], strict=True))
        rows = frame([dict(one) | {"group": groups[one["participant_id"], one["session"]]} for one in problems])
        kept = self.everyone[[scan not in bad for scan in scans]].reset_index(drop=True)
        settled(replace(self, problems=rows))  # the others have been told of
        return replace(self, everyone=kept, problems=pd.concat([self.problems, rows], ignore_index=True))

    def _concerned(self) -> pd.DataFrame:
        group = self.problems["group"]
        return self.problems[group.isin([self.case, self.control]) | group.isna()]


def settled(cohort: Cohort) -> Cohort:
    """The cohort, if its problems are none or may be skipped.

    Raises
    ------
    GlasError
        They may not.

    Warns
    -----
    GlasWarning
        They are skipped.
    """
    found = cohort._concerned()
    if found.empty:
        return cohort
    parts = []
    for kind, rows in found.groupby("problem", sort=False):
        named = [f"{p}{' ' + s if s else ''}" for p, s in zip(rows["participant_id"], rows["session"], strict=True)]
        named = list(dict.fromkeys(named))
        more = f" and {len(named) - 3} more" if len(named) > 3 else ""
        detail = f": {rows['detail'].iloc[0]}" if rows["detail"].iloc[0] else ""
        parts.append(f"{len(named)} {kind} ({', '.join(named[:3])}{more}{detail})")
    told = f"{', '.join(parts)} in {cohort.root}"
    if cohort.on_error == "fail":
        raise GlasError(f'a cohort must be whole, got {told}: on_error="skip" leaves them out')
    warnings.warn(f"left out: {told}", GlasWarning, stacklevel=3)
    return cohort


def count_participants(table: pd.DataFrame) -> dict[str, int]:
    """Participants by group."""
    counts = table.groupby("group")["participant_id"].nunique().sort_index()
    return {str(name): int(n) for name, n in counts.items()}


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Problems as a table; what a row lacks is None."""
    columns = list(_PROBLEMS)
    return pd.DataFrame([[row.get(key) for key in columns] for row in rows], columns=columns, dtype=object)
