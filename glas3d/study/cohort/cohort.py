"""Hold the scans of participants of known groups, and the problems of those that are left out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from glas3d.display import fields_repr
from glas3d.errors import GlasError, GlasWarning
from glas3d.study.cohort.accounting import Accounting, count_groups, similar_groups
from glas3d.study.cohort.options import OnError

_PROBLEM_COLUMNS = ("participant_id", "session", "group", "problem", "detail")


@dataclass(frozen=True, eq=False)
class Cohort:
    """The scans of participants of known groups.

    Attributes
    ----------
    root
        The folder that holds them.
    everyone
        One row for each scan of any group, sorted: ``participant_id session path group`` and the other columns of the
        participants' table. ``session`` is empty if the file's name has none.
    problems
        One row for each scan that cannot be used: ``participant_id session group problem detail``. The problem is one
        of ``missing``, ``duplicated``, ``unreadable``, ``no group`` and ``grid``.
    case, control
        The two groups compared.
    on_error
        What happens if a participant cannot be used, see `Selection`.
    listed
        Ids of the participants in the table, or of those selected from it.
    """

    root: Path
    everyone: pd.DataFrame
    problems: pd.DataFrame
    case: str
    control: str
    on_error: OnError = "fail"
    listed: tuple[str, ...] = ()

    __repr__ = fields_repr

    @property
    def table(self) -> pd.DataFrame:
        """The rows of `everyone` that belong to the two groups."""
        return self.everyone[self.everyone["group"].isin([self.case, self.control])].reset_index(drop=True)

    @property
    def groups(self) -> dict[str, int]:
        """Number of participants with a scan, by group."""
        return count_participants(self.everyone)

    def __len__(self) -> int:
        return len(self.table)

    def account(self, explained: Mapping[str, int], finished: int, left_out: int, *, everyone: bool) -> Accounting:
        """Return the account of all participants, given what became of the scans to explain.

        Parameters
        ----------
        explained
            Number of scans explained, by group.
        finished, left_out
            Number of scans whose results existed already, and of those that cannot be explained.
        everyone
            Whether participants of other groups are explained too.
        """
        with_scan = {*self.everyone["participant_id"], *self.problems["participant_id"]}
        groups = pd.concat([self.everyone["group"], self.problems["group"].dropna()])
        others = [] if everyone else groups[~groups.isin([self.case, self.control])]
        return Accounting(
            explained=explained,
            finished=finished,
            other_groups=count_groups(others),
            left_out=left_out,
            not_selected=len({*self.listed} - with_scan),
            participants=len({*self.listed}),
            not_in_table=len(with_scan - {*self.listed}),
        )

    def similar_groups(self) -> list[str]:
        """Return a sentence for each other group whose name may be another spelling of case or control."""
        problems = self.problems[self.problems["group"].notna()]
        columns = ["participant_id", "group"]
        counts = count_participants(pd.concat([self.everyone[columns], problems[columns]]))
        return similar_groups(counts, [self.case, self.control])

    def concerned(self, *, everyone: bool = False) -> pd.DataFrame:
        """Return the rows of `problems` that belong to the two groups, or to no known group; with everyone all."""
        if everyone:
            return self.problems
        group = self.problems["group"]
        return self.problems[group.isin([self.case, self.control]) | group.isna()]

    def checked(self) -> Cohort:
        """Return the cohort if its two groups have no problems, or if `on_error` is ``"skip"``.

        Raises
        ------
        GlasError
            They have problems, and `on_error` is ``"fail"``.

        Warns
        -----
        GlasWarning
            Scans are left out.
        """
        problems = self.concerned()
        if problems.empty:
            return self
        message = f"{_summary(problems)} in {self.root}"
        if self.on_error == "fail":
            raise GlasError(f'a cohort must be whole, got {message}: on_error="skip" leaves them out')
        warnings.warn(f"left out: {message}", GlasWarning, stacklevel=3)
        return self

    def without(self, problems: Sequence[Mapping[str, Any]]) -> Cohort:
        """Return the cohort without scans that turned out to be unusable.

        Parameters
        ----------
        problems
            ``participant_id session problem detail`` of each.

        Raises
        ------
        GlasError
            There are any, and `on_error` is ``"fail"``.

        Warns
        -----
        GlasWarning
            They are left out.
        """
        if not problems:
            return self
        unusable = {(problem["participant_id"], problem["session"]) for problem in problems}
        scans = list(zip(self.everyone["participant_id"], self.everyone["session"], strict=True))
        group_of = dict(zip(scans, self.everyone["group"], strict=True))
        rows = problem_table(
            [dict(problem) | {"group": group_of[problem["participant_id"], problem["session"]]} for problem in problems]
        )
        usable = self.everyone[[scan not in unusable for scan in scans]].reset_index(drop=True)
        replace(self, problems=rows).checked()  # the earlier problems were reported before
        return replace(self, everyone=usable, problems=pd.concat([self.problems, rows], ignore_index=True))


def _summary(problems: pd.DataFrame) -> str:
    """Return how many scans have each kind of problem, with the first participants and the first detail of each."""
    parts = []
    for kind, rows in problems.groupby("problem", sort=False):
        names = [f"{p}{' ' + s if s else ''}" for p, s in zip(rows["participant_id"], rows["session"], strict=True)]
        names = list(dict.fromkeys(names))
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        detail = f": {rows['detail'].iloc[0]}" if rows["detail"].iloc[0] else ""
        parts.append(f"{len(names)} {kind} ({', '.join(names[:3])}{more}{detail})")
    return ", ".join(parts)


def count_participants(table: pd.DataFrame) -> dict[str, int]:
    """Return the number of participants in each group of a table ``participant_id group``."""
    counts = table.groupby("group")["participant_id"].nunique().sort_index()
    return {str(name): int(n) for name, n in counts.items()}


def problem_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return problems as a table with the columns of `Cohort.problems`; a value that a row lacks is None."""
    columns = list(_PROBLEM_COLUMNS)
    return pd.DataFrame([[row.get(column) for column in columns] for row in rows], columns=columns, dtype=object)
