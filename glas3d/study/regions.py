"""The regions that the participants of a study share, where each has a parcellation of their own."""

from __future__ import annotations

from typing import Any

import pandas as pd

from glas3d.errors import GlasError

# What tells regions apart, in tables of regions and in look-up tables.
_REGION = ["index", "name", "hemisphere"]


class SharedRegions:
    """Collects the regions of participants one by one; a region has the same name and side in all of them.

    A participant may lack regions that others have. A side that was taken from where the voxels lie may be unclear in
    one participant: the region then is of the midline.
    """

    def __init__(self) -> None:
        self._rows: dict[int, tuple[str, str]] = {}
        self._first: dict[int, str] = {}
        self._index_of: dict[str, int] = {}

    def add(self, participant: str, rows: pd.DataFrame) -> None:
        """Add the regions of a participant, ``index name hemisphere``, or none of them if one is refused.

        Raises
        ------
        GlasError
            A region has another name or the other side than in a participant before, or its name another index.
        """
        regions = [(int(row["index"]), str(row["name"]), str(row["hemisphere"])) for row in rows.to_dict("records")]
        for index, name, side in regions:
            known, known_side = self._rows.get(index, (name, side))
            other = self._index_of.get(name, index)
            if known != name or {known_side, side} == {"L", "R"} or other != index:
                first = self._first[index if index in self._rows else other]
                text = self._text(index if index in self._rows else other)
                raise GlasError(
                    f"participants' parcellations must name their regions alike, {index} of {participant} is {name} "
                    f"({side}), of {first} {text}: give them one look-up table, as with --atlas-table (atlas_table)"
                )
        for index, name, side in regions:
            _, known_side = self._rows.setdefault(index, (name, side))
            self._rows[index] = (name, side if side == known_side else "midline")
            self._first.setdefault(index, participant)
            self._index_of[name] = index

    def _text(self, index: int) -> str:
        name, side = self._rows[index]
        return f"{index} is {name} ({side})"

    def table(self) -> pd.DataFrame:
        """Return the regions of all participants, ``index name hemisphere``, by index."""
        rows: list[tuple[Any, ...]] = [(index, *self._rows[index]) for index in sorted(self._rows)]
        return pd.DataFrame(rows, columns=_REGION).astype({"index": "int64"})

    def __contains__(self, index: int) -> bool:
        return index in self._rows

    def align(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a participant's table with a row for each region of all participants, by index.

        Regions that the participant lacks have no voxels and no other values.
        """
        values = table.drop(columns=["name", "hemisphere"])
        aligned = self.table().merge(values, on="index", how="left", validate="one_to_one")
        aligned["n_voxels"] = aligned["n_voxels"].fillna(0).astype("int64")
        return aligned[list(table.columns)]
