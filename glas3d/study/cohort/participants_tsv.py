"""Read the table of participants, ``participants.tsv`` or one like it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from glas3d.bids_names import PARTICIPANT_ID, SESSION_ID, bids_id
from glas3d.checks import refuse_formulas
from glas3d.errors import GlasError
from glas3d.tables import read_table

_WHAT = "a table of participants"
_MISSING_ELSEWHERE = ("NA", "<NA>", "#N/A", "#NA", "NaT", "NULL", "null", ".")  # besides those of `MISSING`
_RESERVED = ("session", "path", "sha256", "voxels_sha256", "in_sessions_tsv", "group")


def read_participants(
    path: str | os.PathLike[str],
    group_column: str = "group",
    covariates: Sequence[str] = (),
    *,
    groups: Sequence[str] = (),
) -> pd.DataFrame:
    """Read the participants of a study and their groups.

    Values that differ between sessions are given in a table with one row for each session, or in BIDS's
    ``sub-01/sub-01_sessions.tsv`` next to the table, whose values replace the participant's.

    Parameters
    ----------
    path
        Tab-separated text with a column ``participant_id``, and ``session_id`` if each row is a session; missing values
        are empty, ``n/a``, or what R, pandas and spreadsheets write for them, such as ``NA``. Ids may be given without
        ``sub-`` and ``ses-``. A row without any content does not count.
    group_column
        Becomes the column ``group``.
    covariates
        Columns that the table must have.
    groups
        Names of groups, which are never missing values, even if one is ``NA``.

    Returns
    -------
    The columns ``participant_id session group in_sessions_tsv``, followed by the other columns, which are numbers if
    all their values are. ``session`` is empty if a row belongs to all sessions. ``in_sessions_tsv`` is true if the row
    comes from a ``sessions.tsv``, which may list sessions without a scan. An underscore is added to the name of a
    column that is used otherwise: ``session``, ``path``, ``sha256``, ``in_sessions_tsv``, or another ``group``.

    Raises
    ------
    GlasError
        The file does not exist or is no such table, lacks a column, holds an id that is impossible, or has two rows for
        one participant (or one session).
    """
    path = Path(path)
    table = read_table(path, _WHAT)
    _require_column(table, path, "participant_id")
    table["participant_id"] = _ids(table, path, "participant_id", "sub")
    sessions_tsv: dict[str, Path] = {}
    has_sessions = "session_id" in table
    if has_sessions:
        table["session_id"] = _ids(table, path, "session_id", "ses")
    else:
        candidates = {name: path.parent / name / f"{name}_sessions.tsv" for name in table["participant_id"].unique()}
        sessions_tsv = {name: file for name, file in candidates.items() if file.is_file()}
        table = _with_sessions(table, sessions_tsv)
    own = table if sessions_tsv or has_sessions else table.drop(columns="session_id")  # as the files have them
    for column in dict.fromkeys([group_column, *covariates]):
        _require_column(own, path, column, f" with {len(sessions_tsv)} sessions.tsv" if sessions_tsv else "")
    participants = pd.DataFrame({"participant_id": table["participant_id"], "session": table["session_id"]})
    for column in table.columns.difference(["participant_id", "session_id"]):
        unknown = table[column].isin([text for text in _MISSING_ELSEWHERE if text not in groups])
        table[column] = table[column].mask(unknown)
    refuse_formulas(f"a group in {path}", table[group_column].dropna().astype(str).unique())
    participants["group"] = table[group_column]
    participants["in_sessions_tsv"] = table["participant_id"].isin(list(sessions_tsv))
    if (repeated := participants.duplicated(["participant_id", "session"])).any():
        first = " ".join(participants.loc[repeated, ["participant_id", "session"]].iloc[0]).strip()
        raise GlasError(f"every participant needs one row, {first} has two in {path}")
    _refuse_mixed_rows(participants, path)
    for column in table.columns:
        if column not in ("participant_id", "session_id", group_column):
            participants[f"{column}_" if column in _RESERVED else column] = _numbers(table[column])
    return participants


def _with_sessions(table: pd.DataFrame, files: Mapping[str, Path]) -> pd.DataFrame:
    """Return one row for each session of the participants who have a table of sessions, and one for each of the others.

    The row of a participant without such a table belongs to all sessions.
    """
    rows = [table[~table["participant_id"].isin(list(files))].assign(session_id="")]
    for participant_id, file in files.items():
        sessions = read_table(file, _WHAT)
        _require_column(sessions, file, "session_id")
        sessions["session_id"] = _ids(sessions, file, "session_id", "ses")
        own = table[table["participant_id"] == participant_id]
        own = own.merge(sessions, how="cross", suffixes=("_of_all", ""))
        for column in sessions.columns.intersection(table.columns):
            own[column] = own[column].fillna(own.pop(f"{column}_of_all"))
        rows.append(own)
    return pd.concat(rows, ignore_index=True)


def _refuse_mixed_rows(participants: pd.DataFrame, path: Path) -> None:
    """Refuse a participant with a row for all sessions next to rows of single sessions, which may contradict it."""
    of_all = participants.groupby("participant_id", sort=False)["session"].agg(lambda sessions: (sessions == "").sum())
    rows = participants.groupby("participant_id", sort=False).size()
    if (mixed := (of_all > 0) & (rows > of_all)).any():
        raise GlasError(
            f"the rows of a participant must all have a session_id or none, {mixed.idxmax()} has both in {path}"
        )


def _require_column(table: pd.DataFrame, path: Path, column: str, more: str = "") -> None:
    if column not in table:
        raise GlasError(f"participants need a column {column}, {path} has {', '.join(table.columns)}{more}")


def _ids(table: pd.DataFrame, path: Path, column: str, entity: Literal["sub", "ses"]) -> pd.Series:
    ids = table[column].fillna("").map(lambda label: bids_id(label, entity))
    if (absent := table[column].isna()).any() and entity == "sub":
        row = ", ".join(table[absent].iloc[0].dropna()) or "missing values only"
        raise GlasError(f"every participant needs a {column}, {path} has a row without one: {row}")
    ids = ids.mask(absent, "")  # a row without a session belongs to all sessions
    if (impossible := ~absent & ~ids.str.fullmatch(PARTICIPANT_ID if entity == "sub" else SESSION_ID)).any():
        came = table.loc[impossible, column].iloc[0]
        raise GlasError(f"a {column} must be {entity}- with letters and digits after it, got {came!r} in {path}")
    return ids


def _numbers(values: pd.Series) -> pd.Series:
    """Return numbers if each value that is not missing is one, and the text as it is otherwise."""
    numbers = pd.to_numeric(values, errors="coerce")
    return numbers if numbers.notna().eq(values.notna()).all() and values.notna().any() else values
