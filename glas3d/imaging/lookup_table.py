"""Look-up tables of atlases: the name of each label, and the side of the brain that its region lies on."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from glas3d.checks import refuse_formulas
from glas3d.counts import counted
from glas3d.errors import GlasError, GlasWarning, listed
from glas3d.imaging.lookup_dialects import read_lines, read_xml
from glas3d.imaging.space import voxel_to_world
from glas3d.reading import read_text
from glas3d.tables import read_table

TableLike = str | os.PathLike[str] | pd.DataFrame

_WITHOUT_HEADER = (".txt", ".lut", ".label", ".ctbl")
TABLE_ENDINGS = (".tsv", ".csv", *_WITHOUT_HEADER, ".xml")
"""The endings of files that hold a look-up table, in the order in which they are looked for."""

_COLUMNS = {"roiid": "index", "roiname": "name"}  # CAT12's
_SIDES = {"l": "L", "lh": "L", "left": "L", "r": "R", "rh": "R", "right": "R"}
_ENOUGH, _APART_MM, _LARGE = 3, 5.0, 1_000_000
_MIDDLE = ("m", "b", "mid", "midline", "bilateral", "both")


def read_lookup_table(table: TableLike, present: Iterable[int] = ()) -> pd.DataFrame:
    """Read a look-up table, with its rows in their order.

    Parameters
    ----------
    table
        A BIDS ``*_dseg.tsv`` or the same as ``.csv`` or DataFrame (columns ``index`` and ``name``, in any case); a
        ``.csv`` of CAT12 (``ROIid;ROIabbr;ROIname``); an ``.xml`` of FSL; or a table without named columns (``.txt``,
        ``.lut``, ``.label``, ``.ctbl``) of FreeSurfer, FSL, ITK-SNAP, MRtrix, MRIcron or SPM, or of a label and its
        name on each line.
    present
        The labels of the atlas. A table without named columns holds all possible labels, of which these are kept.

    Returns
    -------
    ``index`` int64, ``name`` str and, where given, ``hemisphere``.

    Raises
    ------
    GlasError
        The file does not exist or is no table, a column is missing, an index is no whole number or occurs twice,
        or a region has no name.
    """
    if isinstance(table, pd.DataFrame):
        return _checked(table.reset_index() if _column(table.index.name) == "index" else table, "the table")
    path, present = Path(table), set(present)
    suffix = path.suffix.lower()
    if suffix == ".xml" or (suffix in _WITHOUT_HEADER and not _has_header(lines := _lines(path))):
        entries = read_xml(path) if suffix == ".xml" else read_lines(lines, path, present)
        rows = _checked(pd.DataFrame(entries, columns=["index", "name"]), str(path))
        return rows[rows["index"].isin(present)].reset_index(drop=True)
    return _checked(read_table(path, "an atlas table", missing=(), separator=_separator(path)), str(path))


def _has_header(lines: Sequence[str]) -> bool:
    return "index" in " ".join(lines[:1]).lower().split()


def _separator(path: Path) -> str | None:
    """Return the semicolon for the tables of CAT12; None where the name's ending says which separator it is."""
    if path.suffix.lower() != ".csv":
        return None
    return ";" if ";" in (_lines(path) or [""])[0] else None


def _lines(path: Path) -> list[str]:
    return read_text(path, "an atlas table").splitlines()


def _checked(rows: pd.DataFrame, source: str) -> pd.DataFrame:
    rows = rows.rename(columns=_column)
    several = sorted(set(rows.columns[rows.columns.duplicated()]) & {"index", "name", "hemisphere"})
    if several:
        raise GlasError(f"an atlas table must have one column {several[0]}, {source} has several")
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
    rows["name"] = [as_text(name) for name in rows["name"]]
    twice = rows.loc[rows["index"].duplicated(), "index"]
    if len(twice):
        raise GlasError(f"every index of an atlas table must occur once, {source} has {twice.iloc[0]} twice")
    nameless = rows.loc[(rows["name"] == "") & (rows["index"] != 0), "index"]
    if len(nameless):
        raise GlasError(f"every region of an atlas must have a name, index {nameless.iloc[0]} of {source} has none")
    refuse_formulas(f"the name of a region in {source}", rows["name"])
    return rows[[column for column in ("index", "name", "hemisphere") if column in rows]]


def _column(name: object) -> object:
    """Return the name of a column as it is used here: in lower case, and BIDS's for CAT12's."""
    lower = str(name).strip().lower()
    return _COLUMNS.get(lower, lower if lower in ("index", "name", "hemisphere") else name)


def as_text(name: object) -> str:
    """Return a name as text, from the types that nilearn's fetchers use; empty for a missing value."""
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    missing = name is None or name is pd.NA or (isinstance(name, float) and np.isnan(name))
    return "" if missing else str(name).strip()


def unique_names(names: Sequence[str], index: Sequence[int]) -> list[str]:
    """Return unique names: each of several equal names gets its label appended.

    Examples
    --------
    >>> unique_names(["insula", "pole", "insula"], [3, 5, 40])
    ['insula 3', 'pole', 'insula 40']
    """
    unique = list(names)
    while len(set(unique)) < len(unique):
        times = Counter(unique)
        unique = [f"{name} {i}" if times[name] > 1 else name for name, i in zip(unique, index, strict=True)]
    return unique


def side_in_name(name: str) -> str | None:
    """Return the side that a name states, ``L`` or ``R``, else None.

    Examples
    --------
    >>> [side_in_name(n) for n in ("Hippocampus_L", "7Networks_RH_Vis_1", "Left Pallidum", "Vermis_3", "Lingual")]
    ['L', 'R', 'L', None, None]
    """
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name) if word]
    sides = {_SIDES[word.lower()] for word in words if len(word) > 1 and word.lower() in _SIDES}
    if not sides:  # a single letter counts only at either end
        sides = {word for word in (words[:1] + words[-1:]) if word in ("L", "R")}
    return sides.pop() if len(sides) == 1 else None


def hemispheres(table: pd.DataFrame, labels: np.ndarray, affine: np.ndarray, *, warn: bool) -> list[str]:
    """Return the side of each region: as given, else as in its name, else where at least three quarters of it lie.

    Parameters
    ----------
    table
        The rows of `read_lookup_table`.
    labels, affine
        The label image: ``(x, y, z)`` integers, and its affine.
    warn
        Whether x = 0 is known to be the middle of the brain, so that a name on the wrong side is a mistake.

    Returns
    -------
    ``L``, ``R`` or ``midline`` for each row.

    Warns
    -----
    GlasWarning
        Regions do not lie on the side that their names state, or those of the left lie to the right of the others.
    """
    given = [as_text(word).lower() for word in table.get("hemisphere", [""] * len(table))]
    sides = [_SIDES.get(word) or ("midline" if word in _MIDDLE else None) for word in given]
    named = [None if side else side_in_name(name) for side, name in zip(sides, table["name"], strict=True)]
    stated = [side or name for side, name in zip(sides, named, strict=True)]
    swapped = _are_swapped(stated, labels, affine, table["index"].to_numpy())
    if swapped:
        message = "the left regions lie to the right of the right ones: is the atlas mirrored, or are names swapped?"
        warnings.warn(message, GlasWarning, stacklevel=4)
    if None not in sides:
        return [side for side in sides if side]
    located = _sides_of_voxels(labels, affine, table["index"].to_numpy())
    wrong = [n for n, *both in zip(table["name"], named, located, strict=True) if set(both) == {"L", "R"}]
    if warn and wrong and not swapped:
        which = listed(wrong)
        lie = f"{counted(len(wrong), 'region')} {'does' if len(wrong) == 1 else 'do'} not lie"
        message = f"{lie} on the side their name says (flipped, or names mixed up?): {which}"
        warnings.warn(message, GlasWarning, stacklevel=4)
    return [side or name or voxels for side, name, voxels in zip(sides, named, located, strict=True)]


def _are_swapped(stated: Sequence[str | None], labels: np.ndarray, affine: np.ndarray, index: np.ndarray) -> bool:
    """Return whether the regions of the left lie, on average, to the right of those of the right, in any space.

    Three regions of each side are needed: a few may be misnamed, or lie anywhere in a space of their own.
    """
    if min(stated.count("L"), stated.count("R")) < _ENOUGH:
        return False
    step = 2 if labels.size > _LARGE else 1  # large atlases are looked at in every second voxel
    where = np.nonzero(labels[::step, ::step, ::step])
    values, member = np.unique(labels[::step, ::step, ::step][where], return_inverse=True)
    x = voxel_to_world(np.stack(where, axis=1) * step, affine)[:, 0]
    mean_x = dict(zip(values.tolist(), np.bincount(member, weights=x) / np.bincount(member), strict=True))
    pairs = [(side, mean_x[i]) for i, side in zip(index.tolist(), stated, strict=True) if i in mean_x]
    of = {side: [x for stated_side, x in pairs if stated_side == side] for side in "LR"}
    if min(len(of["L"]), len(of["R"])) < _ENOUGH:
        return False
    return float(np.mean(of["L"]) - np.mean(of["R"])) > _APART_MM


def _sides_of_voxels(labels: np.ndarray, affine: np.ndarray, index: np.ndarray) -> list[str]:
    """Return the side that at least three quarters of each label's voxels lie on, else ``midline``."""
    where = np.nonzero(labels)
    values, member = np.unique(labels[where], return_inverse=True)
    left = voxel_to_world(np.stack(where, axis=1), affine)[:, 0] < 0
    share = dict(zip(values.tolist(), np.bincount(member, weights=left) / np.bincount(member), strict=True))
    shares = [share.get(int(i), 0.5) for i in index]
    return ["L" if s >= 0.75 else "R" if s <= 0.25 else "midline" for s in shares]
