"""Tables as text: BIDS's tab-separated files, read and written in one way by all rooms."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

import pandas as pd

from glas3d.errors import GlasError, reason

MISSING = ("", "n/a", "N/A", "nan", "NaN")


def read_table(
    path: str | os.PathLike[str],
    what: str = "a table",
    *,
    text: Collection[str] | None = None,
    missing: Collection[str] = MISSING,
) -> pd.DataFrame:
    """Read a tab-separated table, or a comma-separated one where the file's name ends in ``.csv``.

    Blanks around cells of text and around the names of columns are dropped.

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

    Returns
    -------
    One row a line after the first.

    Raises
    ------
    GlasError
        The file does not exist, is not such text, or has rows with more cells than columns.
    """
    path = Path(path)
    comma = path.suffix.lower() == ".csv"
    kind = f"{'comma' if comma else 'tab'}-separated text"
    try:
        table = pd.read_csv(
            path,
            sep="," if comma else "\t",
            dtype=str if text is None else dict.fromkeys(text, str),
            encoding="utf-8-sig",
            keep_default_na=False,
            na_values=list(missing),
        )
    except FileNotFoundError:
        raise GlasError(f"no such file: {path}") from None
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors, as are those of the encoding
        raise GlasError(f"{what} must be {kind}, {path} is not: {reason(error)}") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas took the first cells for labels of the rows
        raise GlasError(f"{what} must be {kind}, {path} is not: rows have more cells than columns")
    table.columns = table.columns.str.strip()
    for column in table.columns if text is None else table.columns.intersection(list(text)):
        stripped = table[column].str.strip()
        table[column] = stripped.mask(stripped.isin(list(missing)))
    return table


def write_table(table: pd.DataFrame) -> Callable[[Path], object]:
    """Return a writer for `glas3d.output.write_together`: tab-separated, every digit, ``n/a`` for what is missing."""
    return lambda path: table.to_csv(path, sep="\t", index=False, na_rep="n/a", lineterminator="\n")
