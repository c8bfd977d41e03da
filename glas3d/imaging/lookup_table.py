"""Look-up tables: which label of an atlas is which region, and on which side of the brain it lies."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from glas3d.errors import GlasError, GlasWarning, reason
from glas3d.imaging.space import voxel_to_world
from glas3d.tables import read_table

TableLike = str | os.PathLike[str] | pd.DataFrame

_COLOURS = (".txt", ".lut", ".label", ".ctbl")
_SIDES = {"l": "L", "lh": "L", "left": "L", "r": "R", "rh": "R", "right": "R"}
_MIDDLE = ("m", "b", "mid", "midline", "bilateral", "both")


def read_lookup_table(table: TableLike, present: Iterable[int] = ()) -> pd.DataFrame:
    """A look-up table, row by row as it was given.

    Parameters
    ----------
    table
        A BIDS ``*_dseg.tsv`` or the same as ``.csv`` or DataFrame (columns ``index`` and ``name``), or a
        colour table (``.txt``, ``.lut``, ``.label``, ``.ctbl``) of FreeSurfer, ITK-SNAP or MRIcron: a label
        and its name a line, no header.
    present
        The labels of the atlas. A colour table names all labels there can be, and only these are kept.

    Returns
    -------
    ``index`` int64, ``name`` str and, where given, ``hemisphere``.

    Raises
    ------
    GlasError
        No such file, not a table, without these columns, an index that is no whole number or there twice, or
        a region without a name.
    """
    if isinstance(table, pd.DataFrame):
        return _checked(table.reset_index() if table.index.name == "index" else table, "the table")
    path = Path(table)
    if path.suffix.lower() in _COLOURS and "index" not in " ".join((lines := _lines(path))[:1]).split():
        rows = _checked(_colours(lines, path), str(path))
        return rows[rows["index"].isin(list(present))].reset_index(drop=True)
    return _checked(read_table(path, "an atlas table", missing=()), str(path))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise GlasError(f"no such file: {path}") from None
    except (ValueError, OSError) as error:
        raise GlasError(f"an atlas table must be text, {path} is not: {reason(error)}") from None


def _colours(lines: Sequence[str], path: Path) -> pd.DataFrame:
    rows = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        quoted = re.search(r'"([^"]*)"\s*$', line)  # ITK-SNAP's names come last
        if not words[0].isdigit() or len(words) < 2:
            raise GlasError(f"line {number} of {path} must be a label and its name, it is {line.strip()[:40]!r}")
        rows.append((str(int(words[0])), quoted[1] if quoted else words[1]))
    return pd.DataFrame(rows, columns=["index", "name"])


def _checked(rows: pd.DataFrame, source: str) -> pd.DataFrame:
    if not {"index", "name"} <= set(rows.columns):
        has = ", ".join(map(str, rows.columns))
        raise GlasError(f"an atlas table must have the columns index and name, {source} has {has}")
    rows = rows.reset_index(drop=True)
    try:
        numbers = pd.to_numeric(rows["index"])
        if not (numbers == np.rint(numbers)).all():
            raise ValueError
        rows["index"] = numbers.astype("int64")
    except (ValueError, TypeError):
        raise GlasError(f"the column index of an atlas table must hold whole numbers, {source} does not") from None
    rows["name"] = [text(name) for name in rows["name"]]
    twice = rows.loc[rows["index"].duplicated(), "index"]
    if len(twice):
        raise GlasError(f"every index of an atlas table must be there once, {source} has {twice.iloc[0]} twice")
    nameless = rows.loc[(rows["name"] == "") & (rows["index"] != 0), "index"]
    if len(nameless):
        raise GlasError(f"every region of an atlas must have a name, index {nameless.iloc[0]} of {source} has none")
    return rows[[column for column in ("index", "name", "hemisphere") if column in rows]]


def text(name: object) -> str:
    """A name as text, whatever a fetcher made of it; what is missing is empty."""
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    missing = name is None or name is pd.NA or (isinstance(name, float) and np.isnan(name))
    return "" if missing else str(name).strip()


def unique_names(names: Sequence[str], index: Sequence[int]) -> list[str]:
    """Names that are there once: a name that is there again carries its label.

    Examples
    --------
    >>> unique_names(["insula", "pole", "insula"], [3, 5, 40])
    ['insula 3', 'pole', 'insula 40']
    """
    found = list(names)
    while len(set(found)) < len(found):
        times = Counter(found)
        found = [f"{name} {i}" if times[name] > 1 else name for name, i in zip(found, index, strict=True)]
    return found


def side_in_name(name: str) -> str | None:
    """``L`` or ``R`` where a name says so, else None.

    Examples
    --------
    >>> [side_in_name(n) for n in ("Hippocampus_L", "7Networks_RH_Vis_1", "Left Pallidum", "Vermis_3", "Lingual")]
    ['L', 'R', 'L', None, None]
    """
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name) if word]
    sides = {_SIDES[word.lower()] for word in words if len(word) > 1 and word.lower() in _SIDES}
    if not sides:  # a single letter says it at either end only
        sides = {word for word in (words[:1] + words[-1:]) if word in ("L", "R")}
    return sides.pop() if len(sides) == 1 else None


def hemispheres(table: pd.DataFrame, labels: np.ndarray, affine: np.ndarray, *, warn: bool) -> list[str]:
    """The side of each region: as given, else as its name says, else where at least three quarters of it lie.

    Parameters
    ----------
    table
        As of `read_lookup_table`.
    labels, affine
        The atlas: ``(x, y, z)`` integers, and where they are.
    warn
        Whether x = 0 is known to be the middle of the brain, so that a name on the wrong side is a mistake.

    Returns
    -------
    ``L``, ``R`` or ``midline``, one a row.

    Warns
    -----
    GlasWarning
        Regions that lie on the side their name does not say.
    """
    given = [text(said).lower() for said in table.get("hemisphere", [""] * len(table))]
    sides = [_SIDES.get(word) or ("midline" if word in _MIDDLE else None) for word in given]
    if None not in sides:
        return [side for side in sides if side]
    placed = _places(labels, affine, table["index"].to_numpy())
    named = [None if side else side_in_name(name) for side, name in zip(sides, table["name"], strict=True)]
    astray = [n for n, said, place in zip(table["name"], named, placed, strict=True) if {said, place} == {"L", "R"}]
    if warn and astray:
        some = ", ".join(astray[:5]) + (" ..." if len(astray) > 5 else "")
        message = f"{len(astray)} regions do not lie on the side their name says (flipped, or names mixed up?): {some}"
        warnings.warn(message, GlasWarning, stacklevel=4)
    return [side or said or place for side, said, place in zip(sides, named, placed, strict=True)]


def _places(labels: np.ndarray, affine: np.ndarray, index: np.ndarray) -> list[str]:
    where = np.nonzero(labels)
    values, member = np.unique(labels[where], return_inverse=True)
    left = voxel_to_world(np.stack(where, axis=1), affine)[:, 0] < 0
    share = dict(zip(values.tolist(), np.bincount(member, weights=left) / np.bincount(member), strict=True))
    found = [share.get(int(i), 0.5) for i in index]
    return ["L" if s >= 0.75 else "R" if s <= 0.25 else "midline" for s in found]
