"""The table of participants, ``participants.tsv`` or one like it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from glas3d.bids_names import PARTICIPANT_ID, SESSION_ID, bids_id
from glas3d.errors import GlasError
from glas3d.tables import read_table

_WHAT = "a table of participants"
_OWN = ("session", "path", "sha256", "described")


def read_participants(path: Path, group_column: str = "group", covariates: Sequence[str] = ()) -> pd.DataFrame:
    """Read who takes part and in which group.

    What differs by session may be in rows of sessions, or in BIDS's ``sub-01/sub-01_sessions.tsv`` beside the table:
    the values there come before the participant's own.

    Parameters
    ----------
    path
        Tab-separated with a column ``participant_id``, and ``session_id`` where rows are sessions; ``n/a`` or
        nothing where a value is missing. Ids may come without ``sub-`` and ``ses-``.
    group_column
        Becomes the column ``group``.
    covariates
        Columns that must be there.

    Returns
    -------
    ``participant_id session group described`` (``session`` is empty where a row is of all sessions; ``described``:
    the row is of a ``sessions.tsv``, which may tell of sessions without a scan) and the other columns, numbers where
    all values are. A column whose name is taken (``session``, ``path``, ``sha256``,
    ``described``, another ``group``) gets an underscore after it.

    Raises
    ------
    GlasError
        No such file, not a table, a column that is not there, an id that is none, or a participant (a
        session) with two rows.
    """
    table = read_table(path, _WHAT)
    _need(table, path, "participant_id")
    table["participant_id"] = _ids(table, path, "participant_id", "sub")
    there: dict[str, Path] = {}
    if "session_id" in table:
        table["session_id"] = _ids(table, path, "session_id", "ses")
    else:
        beside = {name: path.parent / name / f"{name}_sessions.tsv" for name in table["participant_id"].unique()}
        there = {name: file for name, file in beside.items() if file.is_file()}
        table = _with_sessions(table, there)
    for column in dict.fromkeys([group_column, *covariates]):
        _need(table, path, column, f" with {len(there)} sessions.tsv" if there else "")
    people = pd.DataFrame({"participant_id": table["participant_id"], "session": table["session_id"]})
    people["group"] = table[group_column]
    people["described"] = table["participant_id"].isin(list(there))
    if (twice := people.duplicated(["participant_id", "session"])).any():
        named = " ".join(people.loc[twice, ["participant_id", "session"]].iloc[0]).strip()
        raise GlasError(f"every participant needs one row, {named} has two in {path}")
    for column in table.columns:
        if column in ("participant_id", "session_id", group_column):
            continue
        name = f"{column}_" if column in (*_OWN, "group") else column
        people[name] = _numbers(table[column])
    return people


def _with_sessions(table: pd.DataFrame, files: Mapping[str, Path]) -> pd.DataFrame:
    """A row a session of those who have a table of sessions; the others' row is of all sessions."""
    rows = [table[~table["participant_id"].isin(list(files))].assign(session_id="")]
    for name, file in files.items():
        sessions = read_table(file, _WHAT)
        _need(sessions, file, "session_id")
        sessions["session_id"] = _ids(sessions, file, "session_id", "ses")
        own = table[table["participant_id"] == name].merge(sessions, how="cross", suffixes=("_of_all", ""))
        for column in sessions.columns.intersection(table.columns):
            own[column] = own[column].fillna(own.pop(f"{column}_of_all"))
        rows.append(own)
    return pd.concat(rows, ignore_index=True)


def _need(table: pd.DataFrame, path: Path, column: str, more: str = "") -> None:
    if column not in table:
        raise GlasError(f"participants need a column {column}, {path} has {', '.join(table.columns)}{more}")


def _ids(table: pd.DataFrame, path: Path, column: str, entity: Literal["sub", "ses"]) -> pd.Series:
    ids = table[column].fillna("").map(lambda label: bids_id(label, entity))
    if (wrong := ~ids.str.fullmatch(PARTICIPANT_ID if entity == "sub" else SESSION_ID)).any():
        came = table.loc[wrong, column].iloc[0]
        raise GlasError(f"a {column} must be {entity}- with letters and digits after it, got {came!r} in {path}")
    return ids


def _numbers(values: pd.Series) -> pd.Series:
    """As numbers where each value is one; all else stays text."""
    numbers = pd.to_numeric(values, errors="coerce")
    return numbers if numbers.notna().eq(values.notna()).all() and values.notna().any() else values
