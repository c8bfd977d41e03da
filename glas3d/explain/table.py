"""The ranked table: one row for each region or point, and for each covariate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from glas3d.core.explanation import Explanation
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import VoxelGrid, voxel_to_world
from glas3d.output import Columns

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
    "direction",
]
"""The columns of every table of regions or points, in their order."""

EVIDENCE = ["evidence", "density"]
"""Further columns of tables whose model was evaluated on both ends and on the background."""


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
        **evidence_columns(explanation),
    )
    if atlas is not None:
        table = atlas.table.merge(scored, on="index", how="left", validate="one_to_one")
        table["n_voxels"] = table["n_voxels"].fillna(0).astype("int64")
    else:
        sides = np.where(scored["x"] < 0, "L", np.where(scored["x"] > 0, "R", "midline"))
        kind = "point" if segments is None else "segment"
        table = scored.assign(name=row_names(index, kind) if names is None else list(names), hemisphere=sides)
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
                **({} if covariates.evidence is None else {"evidence": covariates.evidence, "density": np.nan}),
            }
        )
        table = pd.concat([table.astype({"index": "Int64"}), rows], ignore_index=True)
    return ranked(table, explanation.settings.get("fusion", ""))


def evidence_columns(explanation: Explanation) -> dict[str, np.ndarray]:
    """Return the columns of `EVIDENCE` that an explanation has, ``(m,)`` each."""
    values = {name: getattr(explanation, name) for name in EVIDENCE}
    return {name: column for name, column in values.items() if column is not None}


def row_names(index: np.ndarray, kind: str) -> list[str]:
    """Return the names of points or segments that have none.

    Examples
    --------
    >>> row_names(np.array([7, 12]), "segment")
    ['segment-07', 'segment-12']
    """
    width = len(str(index.max()))
    return [f"{kind}-{i:0{width}d}" for i in index]


def ranked(table: pd.DataFrame, fusion: str = "") -> pd.DataFrame:
    """Return the table with its ``rank`` by ``score`` and its ``direction``, in this order of columns.

    Rank 1 is the highest score; a score that more than half of all regions have gets no rank. What the direction is,
    `direction_text` says.
    """
    columns = [*COLUMNS, *(name for name in EVIDENCE if name in table)]
    signed = table["evidence" if fusion == "mean" and "evidence" in table else "drop"]
    return table.assign(rank=ranks(table["score"]), direction=directions(signed))[columns]


def ranks(score: pd.Series) -> pd.Series:
    """Return ranks of scores, 1 the highest; missing for a score that more than half of all have."""
    tied = score.map(score.value_counts()) > max(1, score.notna().sum() / 2)
    return score.rank(ascending=False, method="first").mask(tied).astype("Int64")


def directions(drop: pd.Series) -> pd.Series:
    """Return ``for`` where a drop is above 0, ``against`` where it is below, and a missing value elsewhere."""
    return pd.Series(np.select([drop > 0, drop < 0], ["for", "against"], default=""), drop.index).replace("", None)


_PROBABILITY, _COUNT = "probability", "count"
DESCRIPTIONS = {
    "index": ("Index of the region in the atlas, or number of the point, from 1", "index"),
    "name": ("Name of the region or point", ""),
    "hemisphere": ("Side: L, R, or midline", ""),
    "x": ("Coordinate of the search point, left to right, in the space that was searched", "mm"),
    "y": ("Coordinate of the search point, posterior to anterior", "mm"),
    "z": ("Coordinate of the search point, inferior to superior", "mm"),
    "row": ("Row of the search point in the image", "pixels"),
    "column": ("Column of the search point in the image", "pixels"),
    "n_voxels": ("Voxels of the region on the grid of the model", "voxels"),
    "n_pixels": ("Pixels of the segment in the image", "pixels"),
    "light": ("Probability of the target when only the region is kept (Eq. 1)", _PROBABILITY),
    "shadow": ("Absolute change of the probability when the region is removed, plus gamma (Eq. 2)", _PROBABILITY),
    "drop": ("Probability of the intact input minus that without the region, signed", _PROBABILITY),
    "score": ("Score of the region, from light and shadow as Settings.fusion says", ""),
    "evidence": (
        "Mean of what the region adds to the background alone and of what the whole loses without it, signed",
        "probability",
    ),
    "density": ("Score made of light and shadow, each divided by the sum of its mask over voxels", "per voxel"),
    "rank": ("Rank by score, 1 the highest; n/a for a score that more than half of all have", "rank"),
    "direction": ("for: the region speaks for the target, against: against it", ""),
    "evaluated": ("1 where the model was evaluated by itself, 0 where light and shadow were estimated", "0 or 1"),
    "together": (
        "How many regions were masked together, this one included; their joint effect is divided among them in "
        "proportion to their voxels",
        _COUNT,
    ),
    "score_error": ("Standard deviation of the estimate of the score", ""),
    "scale": ("Factor on the sigmas at which the region scores highest", "factor"),
    "sign": ("Sign of the drop or evidence on which most references agree", "-1, 0 or 1"),
    "agreement": ("Share of the references that agree on the sign", "share, 0 to 1"),
    "n_models": ("Number of models that were averaged", _COUNT),
    "n_sessions": ("Number of sessions that were averaged", _COUNT),
}


def table_columns(names: Iterable[str], provenance: Mapping[str, Any]) -> Columns:
    """Return the description and the units of each column of a table of regions or points.

    Parameters
    ----------
    names
        The columns.
    provenance
        What the table was made with, which decides on which scale its numbers are.
    """
    known = dict(DESCRIPTIONS)
    logit = provenance.get("Settings", {}).get("link") == "logit"
    names, scales = list(names), scales_of(provenance)
    scales["score_error"] = scales["score"]
    for name, units in scales.items():
        text = DESCRIPTIONS[name][0]
        known[name] = (
            text.replace("Probability", "Log-odds").replace("probability", "log-odds") if logit else text,
            units,
        )
    if "Against" in provenance:
        for name, text in _DIFFERENCES.items():
            known[name] = (text, known[name][1])
    known["direction"] = (direction_text(names, provenance), "")
    return {name: _described(name, known) for name in names}


_DIFFERENCES = {
    "light": "P(target) minus P(other class) when only the region is kept",
    "shadow": "Absolute value of the drop",
    "drop": "Difference of the two classes' drops, signed",
    "score": "Score for the target minus score for the other class",
}


def direction_text(names: Iterable[str], provenance: Mapping[str, Any], mean: str = "") -> str:
    """Return what the column ``direction`` of a table of regions or points says.

    Parameters
    ----------
    names
        The columns of the table: it has ``evidence``, or it has not.
    provenance
        What the table was made with; ``Against`` is its second class.
    mean
        ``"mean "`` where the numbers are means.

    Examples
    --------
    >>> direction_text(["drop"], {})
    'Sign of the drop: for where the output falls when the region is removed, against where it rises'
    """
    fusion = provenance.get("Settings", {}).get("fusion", "product")
    if fusion == "light":
        return "n/a, because light alone has no sign"
    if fusion == "mean" and "evidence" in names:
        return f"Sign of the {mean}evidence: for above 0, against below; the drop alone may have the other sign"
    output = "difference of the two classes' outputs" if "Against" in provenance else "output"
    return f"Sign of the {mean}drop: for where the {output} falls when the region is removed, against where it rises"


def scales_of(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return the scale of light, shadow, drop and score, in tables as in maps.

    Parameters
    ----------
    provenance
        That of a result; ``Against`` is its second class, ``Recursion`` its rounds.
    """
    settings = provenance.get("Settings", {})
    outputs = "difference of probabilities" if "Against" in provenance else _PROBABILITY
    if settings.get("link") == "logit":
        outputs = "log-odds"
    score = "product of two probabilities" if settings.get("fusion", "product") == "product" else outputs
    density = f"{score}, per voxel"
    if settings.get("density"):
        score = density
    if "Recursion" in provenance:
        score = "0 to 1, all rounds fused and normalised"
    elif "consensus" in settings:
        score = f"share, {settings['consensus']}"
    elif "scales" in settings:
        score = "standard deviations over the points, mean of the scales"
    return {
        "light": outputs,
        "shadow": outputs,
        "drop": outputs,
        "evidence": outputs,
        "density": density,
        "score": score,
    }


def _described(column: str, known: Columns) -> tuple[str, str]:
    if column.endswith("_sd"):
        text, units = known.get(column.removesuffix("_sd"), (column, ""))
        return f"Standard deviation over models of: {text}", units
    if column.startswith("drop_"):
        return f"Drop with the reference {column.removeprefix('drop_')}", known["drop"][1]
    return known.get(column, (f"Score by {column.replace('_', ' ')}", known["score"][1]))
