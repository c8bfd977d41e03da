"""Read the table of participants, ``participants.tsv`` or one like it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from glas3d.bids_names import PARTICIPANT_ID, SESSION_ID, bids_id
from glas3d.errors import GlasError
from glas3d.tables import read_table

_WHAT = "a table of participants"
_RESERVED = ("session", "path", "sha256", "in_sessions_tsv", "group")


def read_participants(
    path: str | os.PathLike[str], group_column: str = "group", covariates: Sequence[str] = ()
) -> pd.DataFrame:
    """Read the participants of a study and their groups.

    Values that differ between sessions are given in a table with one row for each session, or in BIDS's
    ``sub-01/sub-01_sessions.tsv`` next to the table, whose values replace the participant's.

    Parameters
    ----------
    path
        Tab-separated text with a column ``participant_id``, and ``session_id`` if each row is a session; missing values
        are empty or ``n/a``. Ids may be given without ``sub-`` and ``ses-``.
    group_column
        Becomes the column ``group``.
    covariates
        Columns that the table must have.

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
    if "session_id" in table:
        table["session_id"] = _ids(table, path, "session_id", "ses")
    else:
        candidates = {name: path.parent / name / f"{name}_sessions.tsv" for name in table["participant_id"].unique()}
        sessions_tsv = {name: file for name, file in candidates.items() if file.is_file()}
        table = _with_sessions(table, sessions_tsv)
    for column in dict.fromkeys([group_column, *covariates]):
        _require_column(table, path, column, f" with {len(sessions_tsv)} sessions.tsv" if sessions_tsv else "")
    participants = pd.DataFrame({"participant_id": table["participant_id"], "session": table["session_id"]})
    participants["group"] = table[group_column]
    participants["in_sessions_tsv"] = table["participant_id"].isin(list(sessions_tsv))
    if (repeated := participants.duplicated(["participant_id", "session"])).any():
        first = " ".join(participants.loc[repeated, ["participant_id", "session"]].iloc[0]).strip()
        raise GlasError(f"every participant needs one row, {first} has two in {path}")
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


def _require_column(table: pd.DataFrame, path: Path, column: str, more: str = "") -> None:
    if column not in table:
        raise GlasError(f"participants need a column {column}, {path} has {', '.join(table.columns)}{more}")


def _ids(table: pd.DataFrame, path: Path, column: str, entity: Literal["sub", "ses"]) -> pd.Series:
    ids = table[column].fillna("").map(lambda label: bids_id(label, entity))
    if (impossible := ~ids.str.fullmatch(PARTICIPANT_ID if entity == "sub" else SESSION_ID)).any():
        came = table.loc[impossible, column].iloc[0]
        raise GlasError(f"a {column} must be {entity}- with letters and digits after it, got {came!r} in {path}")
    return ids


def _numbers(values: pd.Series) -> pd.Series:
    """Return numbers if each value that is not missing is one, and the text as it is otherwise."""
    numbers = pd.to_numeric(values, errors="coerce")
    return numbers if numbers.notna().eq(values.notna()).all() and values.notna().any() else values
