"""Atlases from what nilearn's fetchers return: bunches differ between versions in how they state labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from nibabel.spatialimages import SpatialImage

from glas3d.errors import GlasError
from glas3d.imaging.lookup_table import TableLike, as_text, read_lookup_table
from glas3d.imaging.scan import ImageLike

# Columns that a fetcher may name its regions in; the first that exists is used.
_NAMES = ("name", "difumo_names", "label", "region")
_BACKGROUND = ("background", "*", "???", "clear label")


@dataclass(frozen=True, eq=False)
class FetchedAtlas:
    """The parts of a fetched atlas.

    Attributes
    ----------
    maps
        Path or image: labels, or one map per volume.
    names
        The names of regions or volumes in order; None when the bunch has none.
    table
        The name of each label, where the bunch states it.
    space
        ``"MNI"``, ``"Talairach"``, or another space that the bunch states.
    stem
        A name for the atlas, from its file; empty without a file.
    """

    maps: ImageLike
    names: list[str] | None
    table: TableLike | None
    space: str
    stem: str

    def volume_names(self, n: int) -> list[str]:
        """Return the names of ``n`` maps, without background.

        Raises
        ------
        GlasError
            There are neither ``n`` names nor, with a background first, one more.
        """
        if self.names is None:
            return [f"component-{i:0{len(str(n))}d}" for i in range(1, n + 1)]
        names = self.names[1:] if len(self.names) == n + 1 and _is_background(self.names[0]) else self.names
        if len(names) != n:
            raise GlasError(f"an atlas of {n} maps must have {n} names, the one fetched has {len(names)}")
        return names

    def label_table(self, present: Sequence[int]) -> pd.DataFrame:
        """Return the look-up table of an atlas of labels.

        Parameters
        ----------
        present
            The labels of the image, ascending, without 0.

        Raises
        ------
        GlasError
            The bunch does not state which label has which name, and counting does not tell.
        """
        if self.table is not None:
            return read_lookup_table(self.table, present)
        highest = max(present, default=0)
        if self.names is None:
            width = len(str(highest))
            return pd.DataFrame({"index": present, "name": [f"region-{i:0{width}d}" for i in present]})
        if self.names and _is_background(self.names[0]):
            return read_lookup_table(pd.DataFrame({"index": range(len(self.names)), "name": self.names}))
        if len(self.names) != highest:  # the first could be that of 0 or of 1: all could be one off
            raise GlasError(
                f"which of the labels (up to {highest}) has which of the {len(self.names)} names is unknown: "
                "the atlas must come with a lut, or with Background as its first name"
            )
        return read_lookup_table(pd.DataFrame({"index": range(1, highest + 1), "name": self.names}))


def parse_fetched(fetched: Any, key: str) -> FetchedAtlas:
    """Return the parts of the atlas that a ``fetch_atlas_*`` function of nilearn returned.

    Parameters
    ----------
    fetched
        A bunch, or a dictionary with the same fields.
    key
        The field of the image.

    Raises
    ------
    GlasError
        It is not a bunch, holds coordinates or a surface, or has not exactly one image in that field.
    """
    if not isinstance(fetched, Mapping):
        raise GlasError(f"an atlas must be what a fetch_atlas_* function returned, got {type(fetched).__name__}")
    if "rois" in fetched:
        raise GlasError("fetched coordinates have no regions: use glas3d.imaging.Coordinates.from_nilearn(fetched)")
    if "map_left" in fetched:
        raise GlasError("an atlas must be a volume, the one fetched is on a surface")
    maps = fetched.get(key)
    if maps is None:
        images = [name for name, value in fetched.items() if _is_image(value)]
        if not images:
            raise GlasError(f"an atlas must have an image in {key!r}, the one fetched has {', '.join(fetched)}")
        raise GlasError(
            f"one of several images must be chosen, as in maps={images[0]!r}: there are {', '.join(images)}"
        )
    if not isinstance(maps, str | os.PathLike | SpatialImage):
        kind = "is on a surface" if hasattr(maps, "mesh") else f"is a {type(maps).__name__}"
        raise GlasError(f"an atlas must be one volume, {key!r} of the one fetched {kind}")
    names, table = _labels(fetched, key)
    return FetchedAtlas(maps, names, table, _space(fetched), file_stem(maps, fetched.get("filename")))


def _labels(fetched: Mapping[str, Any], key: str) -> tuple[list[str] | None, TableLike | None]:
    if key != "maps":  # older bunches of several images have no labels, but some have a colour table or networks
        table = fetched.get("colors_" + key.rsplit("_", 1)[-1])
        networks = fetched.get("rsn_indices") if key == "rsn28" else None
        return ([f"{network} {i}" for network, numbers in networks for i in numbers] if networks else None), table
    labels, indices = fetched.get("labels"), fetched.get("indices")
    if labels is None or len(labels) == 0:
        return None, fetched.get("lut")
    names, numbers = _names(labels)
    if indices is not None and len(indices) == len(names):
        # preferred to a lut: for AAL nilearn sorts the labels of the lut but not its names
        return names, pd.DataFrame({"index": [as_text(i) for i in indices], "name": names})
    if fetched.get("lut") is not None:
        return names, fetched["lut"]
    return names, None if numbers is None else pd.DataFrame({"index": numbers, "name": names})


def _names(labels: Any) -> tuple[list[str], list[Any] | None]:
    """Return names and, if the labels are a table with an index, their numbers."""
    if isinstance(labels, np.ndarray) and labels.dtype.names:
        labels = pd.DataFrame.from_records(labels)
    if not isinstance(labels, pd.DataFrame):
        return [as_text(label) for label in labels], None
    if labels.index.name == "index":
        labels = labels.reset_index()
    column = next((c for c in _NAMES if c in labels), None)
    if column is None:
        raise GlasError(f"the labels fetched must have a column {_NAMES[0]}, they have {', '.join(map(str, labels))}")
    return [as_text(label) for label in labels[column]], list(labels["index"]) if "index" in labels else None


def _is_background(name: str) -> bool:
    return name.lower() in _BACKGROUND


def _is_image(value: Any) -> bool:
    if isinstance(value, str | os.PathLike):
        return Path(value).name.endswith((".nii", ".nii.gz", ".img", ".hdr"))
    return isinstance(value, SpatialImage)


def _space(fetched: Mapping[str, Any]) -> str:
    """Return the space of a bunch: MNI for all volumes of nilearn (MNI305 for fsaverage), except Talairach's."""
    space = as_text(fetched.get("template"))
    if not space:
        space = "Talairach" if "talairach" in as_text(fetched.get("description"))[:300].lower() else "MNI"
    return "MNI" if "MNI" in space or space == "fsaverage" else space


def file_stem(img: ImageLike, default: Any = None) -> str:
    """Return the name of an image's file without its ending, else that of the path ``default``, else nothing."""
    path = (img.get_filename() if isinstance(img, SpatialImage) else img) or default
    return Path(path).name.split(".nii")[0] if path else ""
