"""Tables as text: BIDS's tab-separated files, read and written in one way by all rooms."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Collection
from pathlib import Path

import pandas as pd

from glas3d.errors import GlasError, reason
from glas3d.reading import MOST_TABLE_BYTES, read_bytes

MISSING = ("", "n/a", "N/A", "nan", "NaN")


def read_table(
    path: str | os.PathLike[str],
    what: str = "a table",
    *,
    text: Collection[str] | None = None,
    missing: Collection[str] = MISSING,
    separator: str | None = None,
) -> pd.DataFrame:
    """Read a tab-separated table, or a comma-separated one where the file's name ends in ``.csv``.

    Blanks around cells of text and around the names of columns are dropped, as are rows without any content.

    Parameters
    ----------
    path
        Text in UTF-8, with or without a byte-order mark; the first line names the columns.
    what
        What messages call the table, such as ``"a table of participants"``.
    text
        Columns that stay text; the others become numbers where all their values are. None (default): all stay text.
    missing
        Cells with exactly this content are missing values. By default nothing, ``n/a``, ``N/A``, ``nan`` and ``NaN``.
    separator
        What separates cells. None (default): a comma where the file's name ends in ``.csv``, else a tab.

    Returns
    -------
    One row a line after the first.

    Raises
    ------
    GlasError
        The file does not exist, is not such text, has a quotation mark that is not closed in its cell, or has rows with
        more cells than columns.
    """
    path = Path(path)
    comma = path.suffix.lower() == ".csv"
    kind = f"{'comma' if comma else 'tab'}-separated text"
    separator = separator or ("," if comma else "\t")
    try:
        content = read_bytes(path, what, MOST_TABLE_BYTES).decode("utf-8-sig")
        _refuse_open_quotes(content, separator)
        table = pd.read_csv(
            io.StringIO(_without_blank_rows(content, separator)),
            sep=separator,
            dtype=str if text is None else dict.fromkeys(text, str),
            keep_default_na=False,
            na_values=list(missing),
        )
    except GlasError:
        raise
    except ValueError as error:  # pandas' parser errors are ValueErrors, as are those of the encoding
        raise GlasError(f"{what} must be {kind}, {path} is not: {reason(error)}") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas took the first cells for labels of the rows
        raise GlasError(f"{what} must be {kind}, {path} is not: rows have more cells than columns")
    table.columns = table.columns.str.strip()
    for column in table.columns if text is None else table.columns.intersection(list(text)):
        stripped = table[column].str.strip()
        table[column] = stripped.mask(stripped.isin(list(missing)))
    return table


def _without_blank_rows(text: str, separator: str) -> str:
    """Return a table without the lines that hold nothing but separators and blanks, as spreadsheets append them."""
    return "\n".join(line for line in text.split("\n") if line.replace(separator, "").strip())


def _refuse_open_quotes(text: str, separator: str) -> None:
    """Refuse a quotation mark at the beginning of a cell that is not closed at its end: it would swallow what follows.

    Raises
    ------
    ValueError
        There is one; it names the line.
    """
    if '"' not in text:
        return
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 0
    try:
        for _ in rows:
            if rows.line_num > line + 1:
                raise ValueError(f"a quotation mark in line {line + 1} is not closed in that line")
            line = rows.line_num
    except csv.Error:
        raise ValueError(f"a quotation mark in line {line + 1} is not closed at the end of its cell") from None


def write_table(table: pd.DataFrame) -> Callable[[Path], object]:
    """Return a writer for `glas3d.output.write_together`: tab-separated, every digit, ``n/a`` for what is missing."""
    return lambda path: table.to_csv(path, sep="\t", index=False, na_rep="n/a", lineterminator="\n")
