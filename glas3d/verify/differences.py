"""How far results that were computed again differ from those that were written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from glas3d.hashing import file_sha256
from glas3d.imaging.scan import read_image
from glas3d.tables import read_table

TOLERANCE = 1e-4
"""How far a value may be from the one that was written, as a share of the range of its column or map, where versions,
engine or machine differ. The same versions and engine give the same bits."""

_COMPARED = (".nii.gz", ".tsv")  # sidecars name versions


@dataclass(frozen=True)
class Repetition:
    """One scan that was explained again.

    Attributes
    ----------
    name
        The participant and the session, or the start of the names of a result's files.
    same_bits
        Whether every map and table is the same, bit for bit.
    same_software
        Whether versions, engine and all else that decides a result are those that were recorded, so that the bits must
        be the same.
    largest
        The largest difference of a value, as a share of the range of its column or map.
    file
        The file that it is in; empty where all bits are the same.
    error
        Why the scan could not be explained again; else empty.
    """

    name: str
    same_bits: bool
    same_software: bool
    largest: float
    file: str
    error: str = ""

    @property
    def well(self) -> bool:
        """Whether the results are the same: bit for bit by the same software, else within `TOLERANCE`."""
        return not self.error and (self.same_bits or (not self.same_software and self.largest <= TOLERANCE))


def failed(name: str, error: str) -> Repetition:
    """Return that a scan could not be explained again."""
    return Repetition(name, False, False, float("nan"), "", error)


def compared(name: str, here: Path, there: Path, files: Mapping[str, str], *, same_software: bool) -> Repetition:
    """Compare the maps and tables of two folders.

    Parameters
    ----------
    name
        See `Repetition`.
    here, there
        The folder of the results that were written, and that of the new ones.
    files
        The name of each file in ``there`` by its name in ``here``; sidecars, which name versions, are passed over.
    same_software
        See `Repetition`.
    """
    largest, worst, same_bits = 0.0, "", True
    for own, new in sorted(files.items()):
        if not own.endswith(_COMPARED):
            continue
        first, second = here / own, there / new
        if not first.is_file() or not second.is_file():
            return failed(name, f"{own} is there only once")
        if file_sha256(first) == file_sha256(second):
            continue
        same_bits = False
        difference = (
            _difference_of_maps(first, second) if own.endswith(".nii.gz") else _difference_of_tables(first, second)
        )
        if not difference <= largest:
            largest, worst = difference, own
    return Repetition(name, same_bits, same_software, largest, worst)


def _difference_of_maps(here: Path, there: Path) -> float:
    images: list[Any] = [read_image(path, "a map") for path in (here, there)]
    first, second = (np.asarray(image.dataobj, dtype=np.float64) for image in images)
    return _difference(first, second)


def _difference_of_tables(here: Path, there: Path) -> float:
    first, second = (
        read_table(path, text=("name", "hemisphere", "direction"), missing=("n/a",)) for path in (here, there)
    )
    if list(first.columns) != list(second.columns) or len(first) != len(second):
        return float("inf")
    order = "index" if first["index"].notna().all() else "name"  # ranks may differ where scores nearly do
    first, second = (table.sort_values(order).reset_index(drop=True) for table in (first, second))
    numbers = [name for name in first.columns if pd.api.types.is_numeric_dtype(first[name]) and name != "rank"]
    if not first[["name"]].equals(second[["name"]]):
        return float("inf")
    return max(
        (_difference(first[name].to_numpy(float), second[name].to_numpy(float)) for name in numbers), default=0.0
    )


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest difference as a share of the range of the first; infinity for other shapes or gaps."""
    if first.shape != second.shape or not np.array_equal(np.isnan(first), np.isnan(second)):
        return float("inf")
    known = ~np.isnan(first)
    if not known.any():
        return 0.0
    scale = np.ptp(first[known]) or np.abs(first[known]).max() or 1.0
    return float(np.abs(first - second)[known].max() / scale)
