"""The ranked table: one row for each region or point, and for each covariate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from glas3d.core.explanation import Explanation
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import VoxelGrid, voxel_to_world

COLUMNS = [
    "index",
    "name",
    "hemisphere",
    "x",
    "y",
    "z",
    "n_voxels",
    "light",
    "shadow",
    "drop",
    "score",
    "rank",
]


def region_table(
    explanation: Explanation, grid: VoxelGrid, atlas: Atlas | None, names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return one row for each region or point, ranked by score.

    Regions without a voxel keep their row, without values. Covariates follow the regions, without coordinates.

    Parameters
    ----------
    explanation
        The result of `GLAS` on ``grid``.
    grid
        The grid of the model.
    atlas
        The atlas whose regions were searched, if an atlas was searched.
    names
        Names of the points, where they have any.
    """
    segments = explanation.segments
    coordinates = voxel_to_world(explanation.points, grid.affine)
    index = np.arange(1, len(coordinates) + 1) if segments is None else segments.index
    scored = pd.DataFrame(coordinates, columns=["x", "y", "z"]).assign(
        index=index,
        n_voxels=1 if segments is None else segments.n_voxels,
        light=explanation.light,
        shadow=explanation.shadow,
        drop=explanation.drop,
        score=explanation.score,
    )
    if atlas is not None:
        table = atlas.table.merge(scored, on="index", how="left", validate="one_to_one")
        table["n_voxels"] = table["n_voxels"].fillna(0).astype("int64")
    else:
        width = len(str(index.max()))
        kind = "point" if segments is None else "segment"
        sides = np.where(scored["x"] < 0, "L", np.where(scored["x"] > 0, "R", "midline"))
        row_names = [f"{kind}-{i:0{width}d}" for i in index] if names is None else list(names)
        table = scored.assign(name=row_names, hemisphere=sides)
    if explanation.covariates is not None:
        covariates = explanation.covariates
        rows = pd.DataFrame(
            {
                "name": covariates.names,
                "n_voxels": 0,
                "light": covariates.light,
                "shadow": covariates.shadow,
                "drop": covariates.drop,
                "score": covariates.score,
            }
        )
        table = pd.concat([table.astype({"index": "Int64"}), rows], ignore_index=True)
    return ranked(table)


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its ``rank`` by ``score``, 1 the highest, in the columns of `COLUMNS`."""
    rank = table["score"].rank(ascending=False, method="first").astype("Int64")
    return table.assign(rank=rank)[COLUMNS]
