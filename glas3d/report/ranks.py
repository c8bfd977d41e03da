"""The highest-scoring regions as a label image, in the five colours of the paper's figure 12."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.spatialimages import SpatialImage

from glas3d.errors import GlasError
from glas3d.imaging.space import voxel_to_world

COLOURS = ("red", "green", "blue", "yellow", "purple")  # the colours of ranks 1 to 5, as in the paper
_BALL_MM = 5.0


def highest_rows(table: pd.DataFrame, n: int = len(COLOURS)) -> pd.DataFrame:
    """Return the rows of the ranks 1 to ``n``, in this order; of points and regions, not of covariates."""
    placed = table if "x" not in table else table.dropna(subset=["x", "y", "z"])
    return placed.dropna(subset=["rank"]).sort_values("rank").head(n)


def ranks_img(map_img: SpatialImage, table: pd.DataFrame, n: int = len(COLOURS)) -> nib.Nifti1Image:
    """Return a label image of the highest-scoring regions on the grid of their map: 1 the highest, 0 elsewhere.

    A region is where the map holds its score, which is how maps of regions are painted; a point is a ball of 5 mm.

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
        The map is not that of the table, or several regions share one of these scores.
    """
    values = np.asarray(map_img.dataobj, dtype=np.float32)
    highest = highest_rows(table, n)
    labels = np.zeros(values.shape, dtype=np.uint8)
    is_painted = len(np.unique(values)) <= len(table) + 1  # one value a region, and 0
    for rank, row in reversed(list(enumerate(highest.to_dict("records"), start=1))):
        if is_painted:
            if (table["score"].astype(np.float32) == np.float32(row["score"])).sum() > 1:
                raise GlasError(f"regions must have scores of their own to be told apart, {row['name']} shares its own")
            inside = values == np.float32(row["score"])
        else:
            inside = _ball(map_img, [row[axis] for axis in "xyz"])
        if not inside.any():
            raise GlasError(f"a map must hold the scores of its table, this one has no voxel of {row['name']}")
        labels[inside] = rank
    img = nib.Nifti1Image(labels, map_img.affine)
    header = map_img.header
    if isinstance(header, nib.Nifti1Header):
        img.set_sform(map_img.affine, code=int(header["sform_code"]))
        img.set_qform(map_img.affine, code=int(header["qform_code"]))
    img.header.set_xyzt_units("mm")
    img.header.set_intent("label", (), name="ranks")
    img.header["cal_min"], img.header["cal_max"] = 0, max(len(highest), 1)
    img.header["descrip"] = b"glas3d ranks, 1 the highest score"
    return img


def _ball(img: SpatialImage, centre: list[float]) -> np.ndarray:
    """Return the voxels within 5 mm of a position, at least the nearest one."""
    index = np.argwhere(np.ones(img.shape, dtype=bool))
    distance = np.linalg.norm(voxel_to_world(index, img.affine) - np.asarray(centre), axis=1)
    inside: np.ndarray = (distance <= max(_BALL_MM, float(distance.min()))).reshape(img.shape)
    return inside
