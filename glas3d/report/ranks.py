"""The highest-scoring regions as a label image, in the five colours of the paper's figure 12."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.spatialimages import SpatialImage

from glas3d.errors import GlasError
from glas3d.imaging.space import voxel_to_world

COLOURS = ("red", "green", "blue", "yellow", "purple")  # the colours of ranks 1 to 5, as in the paper
_BALL_MM = 5.0
_NAMED = 3  # regions of equal score, by name


def highest_rows(table: pd.DataFrame, n: int = len(COLOURS)) -> pd.DataFrame:
    """Return the rows of the ranks 1 to ``n``, in this order; of points and regions, not of covariates."""
    placed = table if "x" not in table else table.dropna(subset=["x", "y", "z"])
    return placed.dropna(subset=["rank"]).sort_values("rank").head(n)


@dataclass(frozen=True, eq=False)
class Place:
    """One place among the highest scores, which regions or points of equal score share.

    Attributes
    ----------
    rank
        From 1, the highest; the first of those that are shared.
    rows
        The rows of the table with this score, also those whose own rank is beyond the last that is shown.
    """

    rank: int
    rows: pd.DataFrame

    @property
    def names(self) -> str:
        """The names, as ``A``, or ``A, B (equal scores)``; of many the first three."""
        names = self.rows["name"].astype(str).tolist()
        if len(names) == 1:
            return names[0]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return f"{', '.join(names[:_NAMED])}{more} (equal scores)"


def highest_places(table: pd.DataFrame, n: int = len(COLOURS)) -> list[Place]:
    """Return the places of the ranks 1 to ``n``; scores that a map cannot tell apart, in float32, are equal."""
    highest = highest_rows(table, n)
    located = table if "x" not in table else table.dropna(subset=["x", "y", "z"])
    scores = located["score"].astype(np.float32)
    places: list[Place] = []
    for rank, score in enumerate(highest["score"].astype(np.float32), start=1):
        if not places or score != np.float32(places[-1].rows["score"].iloc[0]):
            places.append(Place(rank, located[scores == score].sort_values("rank")))
    return places


def ranks_img(map_img: SpatialImage, table: pd.DataFrame, n: int = len(COLOURS)) -> nib.Nifti1Image:
    """Return a label image of the highest-scoring regions on the grid of their map: 1 the highest, 0 elsewhere.

    A region is where the map holds its score, which is how maps of regions are painted; a point is a ball of 5 mm.
    Regions of equal score have the label of the first of their ranks.

    Parameters
    ----------
    map_img
        The map of the scores.
    table
        The regions or points of the map, with ``score``, ``rank``, and ``x``, ``y``, ``z`` in mm.
    n
        How many ranks.

    Raises
    ------
    GlasError
        The map is not that of the table.
    """
    values = np.asarray(map_img.dataobj, dtype=np.float32)
    places = highest_places(table, n)
    labels = np.zeros(values.shape, dtype=np.uint8)
    is_painted = len(np.unique(values)) <= len(table) + 1  # one value a region, and 0
    for place in reversed(places):
        if is_painted:
            inside = values == np.float32(place.rows["score"].iloc[0])
        else:
            inside = np.zeros(values.shape, dtype=bool)
            for row in place.rows.to_dict("records"):
                inside |= _ball(map_img, [row[axis] for axis in "xyz"])
        if not inside.any():
            raise GlasError(f"a map must hold the scores of its table, this one has no voxel of {place.names}")
        labels[inside] = place.rank
    img = nib.Nifti1Image(labels, map_img.affine)
    header = map_img.header
    if isinstance(header, nib.Nifti1Header):
        img.set_sform(map_img.affine, code=int(header["sform_code"]))
        img.set_qform(map_img.affine, code=int(header["qform_code"]))
    img.header.set_xyzt_units("mm")
    img.header.set_intent("label", (), name="ranks")
    img.header["cal_min"], img.header["cal_max"] = 0, max([1, *(place.rank for place in places)])
    img.header["descrip"] = b"glas3d ranks, 1 the highest score"
    return img


def _ball(img: SpatialImage, centre: list[float]) -> np.ndarray:
    """Return the voxels within 5 mm of a position, at least the nearest one."""
    index = np.argwhere(np.ones(img.shape, dtype=bool))
    distance = np.linalg.norm(voxel_to_world(index, img.affine) - np.asarray(centre), axis=1)
    inside: np.ndarray = (distance <= max(_BALL_MM, float(distance.min()))).reshape(img.shape)
    return inside
