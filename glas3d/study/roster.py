"""The table of participants, ``participants.tsv`` or one like it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from glas3d.errors import GlasError, reason

PARTICIPANT_ID = re.compile(r"sub-[0-9A-Za-z]+")
SESSION_ID = re.compile(r"ses-[0-9A-Za-z]+")
_OWN = ("session", "path", "sha256")


def read_participants(path: Path, group_column: str = "group", covariates: Sequence[str] = ()) -> pd.DataFrame:
    """Read who takes part and in which group.

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
    ``participant_id group``, ``session`` where rows are sessions, and the other columns, numbers where all
    values are. A column whose name is taken (``session``, ``path``, ``sha256``, another ``group``) gets an
    underscore after it.

    Raises
    ------
    GlasError
        No such file, not a table, a column that is not there, an id that is none, or a participant (a
        session) with two rows.
    """
    try:
        table = pd.read_csv(
            path,
            sep="\t",
            dtype=str,
            encoding="utf-8-sig",
            keep_default_na=False,
            na_values=["", "n/a", "N/A", "nan", "NaN"],
        )
    except FileNotFoundError:
        raise GlasError(f"no such file: {path}") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors, as are those of the encoding
        raise GlasError(f"a table of participants must be tab-separated text, {path} is not: {reason(error)}") from None
    table.columns = table.columns.str.strip()
    for column in dict.fromkeys(["participant_id", group_column, *covariates]):
        if column not in table:
            raise GlasError(f"participants need a column {column}, {path} has {', '.join(table.columns)}")
    ids = _prefixed(table["participant_id"], "sub-")
    if (wrong := ~ids.str.fullmatch(PARTICIPANT_ID)).any():
        came = table.loc[wrong, "participant_id"].iloc[0]
        raise GlasError(f"a participant_id must be sub- with letters and digits after it, got {came!r} in {path}")
    people = pd.DataFrame({"participant_id": ids, "group": table[group_column].str.strip()})
    keys = ["participant_id"]
    if "session_id" in table:
        sessions = _prefixed(table["session_id"], "ses-")
        if (wrong := ~sessions.str.fullmatch(SESSION_ID)).any():
            came = table.loc[wrong, "session_id"].iloc[0]
            raise GlasError(f"a session_id must be ses- with letters and digits after it, got {came!r} in {path}")
        people["session"] = sessions
        keys.append("session")
    if (twice := people.duplicated(keys)).any():
        named = " ".join(people.loc[twice, keys].iloc[0])
        raise GlasError(f"every participant needs one row, {named} has two in {path}")
    for column in table.columns:
        if column in ("participant_id", "session_id", group_column):
            continue
        name = f"{column}_" if column in (*_OWN, "group") else column
        people[name] = _numbers(table[column])
    return people


def _prefixed(labels: pd.Series, prefix: str) -> pd.Series:
    text = labels.fillna("").str.strip()
    return text.where(text.str.startswith(prefix), prefix + text)


def _numbers(values: pd.Series) -> pd.Series:
    """As numbers where each value is one; all else stays text."""
    numbers = pd.to_numeric(values, errors="coerce")
    return numbers if numbers.notna().eq(values.notna()).all() and values.notna().any() else values
