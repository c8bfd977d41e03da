"""The ranked table: one row a region or point, and one a covariate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from glas3d.core.explanation import Explanation
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import VoxelGrid, world

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
    """One row a region or point; regions without a voxel keep their row, without values; covariates have no place."""
    segments = explanation.segments
    place = world(explanation.points, grid.affine)
    index = np.arange(1, len(place) + 1) if segments is None else segments.index
    found = pd.DataFrame(place, columns=["x", "y", "z"]).assign(
        index=index,
        n_voxels=1 if segments is None else segments.n_voxels,
        light=explanation.light,
        shadow=explanation.shadow,
        drop=explanation.drop,
        score=explanation.score,
    )
    if atlas is not None:
        table = atlas.table.merge(found, on="index", how="left", validate="one_to_one")
        table["n_voxels"] = table["n_voxels"].fillna(0).astype("int64")
    else:
        width = len(str(index.max()))
        kind = "point" if segments is None else "segment"
        sides = np.where(found["x"] < 0, "L", np.where(found["x"] > 0, "R", "midline"))
        own = [f"{kind}-{i:0{width}d}" for i in index] if names is None else list(names)
        table = found.assign(name=own, hemisphere=sides)
    if explanation.covariates is not None:
        beside = explanation.covariates
        rows = pd.DataFrame(
            {
                "name": beside.names,
                "n_voxels": 0,
                "light": beside.light,
                "shadow": beside.shadow,
                "drop": beside.drop,
                "score": beside.score,
            }
        )
        table = pd.concat([table.astype({"index": "Int64"}), rows], ignore_index=True)
    return ranked(table)


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its ``rank`` by ``score``, 1 highest, in the contract's columns."""
    rank = table["score"].rank(ascending=False, method="first").astype("Int64")
    return table.assign(rank=rank)[COLUMNS]
