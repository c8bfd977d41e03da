"""Tables of regions: from sessions to participants to a matrix, and what a table says of sides and volume."""

from __future__ import annotations

import warnings
from typing import Literal, get_args

import numpy as np
import pandas as pd

from glas3d.core.saliency import minmax
from glas3d.errors import GlasError, GlasWarning, listed

_MEASURES = ["light", "shadow", "drop", "score"]

Normalise = Literal["share", "minmax", "none"]


def normalised(values: np.ndarray, how: Normalise) -> np.ndarray:
    """One participant's values brought to a scale that participants share; NaN stays.

    Parameters
    ----------
    how
        ``"share"``: of the sum of their sizes, so that what is compared is how much of the evidence lies in a place.
        ``"minmax"``: to [0, 1], as group maps do; the highest is 1 in everyone, and all others are measured by it.
        ``"none"``: as they are, how much evidence there is among it.

    Examples
    --------
    >>> normalised(np.array([1.0, 2.0, 5.0]), "share").tolist()
    [0.125, 0.25, 0.625]
    >>> normalised(np.array([1.0, 2.0, 5.0]), "minmax").tolist()
    [0.0, 0.25, 1.0]
    """
    if how not in get_args(Normalise):
        raise GlasError(f"normalise must be one of {', '.join(get_args(Normalise))}, got {how!r}")
    found = np.array(values, dtype=float)
    known = np.isfinite(found)
    if how == "minmax" and known.any():
        found[known] = minmax(found[known])
    if how == "share":
        total = np.abs(found[known]).sum()
        found[known] = found[known] / total if total > 0 else 0.0
    return found


def average_sessions(table: pd.DataFrame) -> pd.DataFrame:
    """Means over a participant's sessions, so that every participant counts once.

    Parameters
    ----------
    table
        Tables of regions one under the other, with the columns ``participant_id`` and, where there are
        several, ``session_id``.

    Returns
    -------
    One row a participant and region: ``light``, ``shadow``, ``drop`` and ``score`` are means over the
    sessions that have a value, ``rank`` is that of the mean score, ``n_sessions`` how many there were; other
    columns are the first session's.

    Raises
    ------
    GlasError
        A missing column, a region twice in a session, or sessions of other regions.
    """
    _need(table, "participant_id", "index", *_MEASURES)
    by_session = ["participant_id", *(["session_id"] if "session_id" in table else []), "index"]
    twice = table.duplicated(by_session)
    if twice.any():
        row = table.loc[twice, by_session].iloc[0].tolist()
        raise GlasError(f"a region must be there once a session, {', '.join(map(str, row))} is twice")
    key = ["participant_id", "index"]
    grouped = table.groupby(key, sort=False)
    found = grouped.first().assign(**grouped[_MEASURES].mean(), n_sessions=grouped.size()).reset_index()
    sessions = found.groupby("participant_id", sort=False)["n_sessions"]
    if (sessions.transform("max") != found["n_sessions"]).any():
        who = found.loc[sessions.transform("max") != found["n_sessions"], "participant_id"].iloc[0]
        raise GlasError(f"all sessions of a participant must have the same regions, those of {who} have not")
    if "rank" in table:
        scores = found.groupby("participant_id", sort=False)["score"]
        found["rank"] = scores.rank(ascending=False, method="first").astype("Int64")
    kept = [column for column in table.columns if column != "session_id"]
    return found[[*kept, "n_sessions"]]


def region_values(table: pd.DataFrame, column: str = "score", *, normalise: Normalise = "none") -> pd.DataFrame:
    """Participants by regions, the shape statistics take.

    Parameters
    ----------
    table
        One row a participant and region, as of `average_sessions`.
    column
        Which value.
    normalise
        Each participant's, see `normalised`.

    Returns
    -------
    Indexed by ``participant_id``, a column a region by ``name``, both in the table's order.

    Raises
    ------
    GlasError
        A missing column, a participant's region twice, regions that share a name, or participants of other
        regions.
    """
    _need(table, "participant_id", "index", "name", column)
    if table.duplicated(["participant_id", "index"]).any():
        raise GlasError("a participant's region must be there once: average the sessions first")
    names = table.drop_duplicates("index").set_index("index")["name"]
    if names.duplicated().any():
        raise GlasError(f"regions need names of their own, two are called {names[names.duplicated()].iloc[0]}")
    wide = table.pivot(index="participant_id", columns="index", values=column)
    wide = wide.loc[table["participant_id"].unique(), names.index]
    rows = table.groupby("participant_id", sort=False).size()
    if (rows != len(names)).any():
        who = rows.index[rows != len(names)][0]
        raise GlasError(f"participants must have the same regions, {who} has {rows[who]} of {len(names)}")
    values = wide.to_numpy(dtype=float, copy=True)
    for row in values:
        row[:] = normalised(row, normalise)
    return pd.DataFrame(values, index=wide.index, columns=pd.Index(names.to_numpy(), name="name"))


def laterality(table: pd.DataFrame, column: str = "score") -> pd.DataFrame:
    """How far saliency leans to the left: ``(L - R) / (L + R)``, 1 all left, -1 all right.

    Parameters
    ----------
    table
        Regions, of one participant or (with ``participant_id``) of many; pairs are told by their names,
        ``<region>_L`` and ``<region>_R``.
    column
        Which value; must not be negative.

    Returns
    -------
    One row a pair: ``name left right laterality`` (NaN where both sides are 0), after ``participant_id`` where
    the table has it; ordered as the left regions are.

    Raises
    ------
    GlasError
        A missing column, a negative value, a region twice, or no pair.

    Examples
    --------
    >>> pairs = pd.DataFrame({"name": ["Amygdala_L", "Amygdala_R", "Vermis_3"], "score": [0.3, 0.1, 0.5]})
    >>> laterality(pairs).round(6).to_dict("records")
    [{'name': 'Amygdala', 'left': 0.3, 'right': 0.1, 'laterality': 0.5}]
    """
    _need(table, "name", column)
    values = table[column].to_numpy(dtype=float)
    if (values < 0).any():
        raise GlasError(f"laterality needs values of 0 or more, {column} has {np.nanmin(values):g}")
    who = ["participant_id"] if "participant_id" in table else []
    if table.duplicated([*who, "name"]).any():
        raise GlasError("laterality needs a region once a participant: average the sessions first")
    sides = []
    for side, end in (("left", "_L"), ("right", "_R")):
        one = table.loc[table["name"].str.endswith(end), [*who, "name", column]]
        sides.append(one.assign(name=one["name"].str.removesuffix(end)).rename(columns={column: side}))
    pairs = sides[0].merge(sides[1], on=[*who, "name"])
    if pairs.empty:
        raise GlasError("laterality needs regions whose names end in _L and _R, there is no such pair")
    both = (pairs["left"] + pairs["right"]).to_numpy(dtype=float)
    lean = (pairs["left"] - pairs["right"]).to_numpy(dtype=float)
    return pairs.assign(laterality=np.divide(lean, both, out=np.full(len(both), np.nan), where=both != 0))


def density(table: pd.DataFrame, column: str = "score") -> pd.DataFrame:
    """A region's share of the saliency beside its share of the volume.

    ``density = saliency_share / volume_share``: above 1, a region is more salient than it is large. Shares are
    of the regions that have a value, a participant at a time where the table has ``participant_id``.

    Parameters
    ----------
    table
        Regions with ``n_voxels``.
    column
        Which value; must not be negative.

    Returns
    -------
    The table with ``saliency_share``, ``volume_share`` and ``density``; NaN where there is no value, or no
    saliency at all.

    Raises
    ------
    GlasError
        A missing column or a negative value.

    Examples
    --------
    >>> two = pd.DataFrame({"name": ["Amygdala_L", "Fusiform_L"], "n_voxels": [10, 90], "score": [0.3, 0.1]})
    >>> density(two)["density"].round(3).tolist()
    [7.5, 0.278]
    """
    _need(table, "n_voxels", column)
    values = table[column].astype(float)
    if (values < 0).any():
        raise GlasError(f"density needs values of 0 or more, {column} has {values.min():g}")
    voxels = table["n_voxels"].astype(float).where(values.notna() & (table["n_voxels"] > 0))
    values = values.where(voxels.notna())
    who = table["participant_id"] if "participant_id" in table else pd.Series(0, index=table.index)
    sums = [one.groupby(who).transform("sum").replace(0, np.nan) for one in (values, voxels)]
    saliency, volume = values / sums[0], voxels / sums[1]
    return table.assign(saliency_share=saliency, volume_share=volume, density=saliency / volume)


def matrix(values: np.ndarray | pd.DataFrame, participants: pd.DataFrame | None = None) -> tuple[np.ndarray, list[str]]:
    """Values as ``(participants, regions)`` float64, and the regions' names.

    Parameters
    ----------
    values
        The columns of a DataFrame are names; an array's regions are called by number from 1.
    participants
        Whose they are, in the same order.

    Raises
    ------
    GlasError
        Not two axes, or rows that are not the participants'.
    """
    data = np.asarray(values, dtype=float)
    if data.ndim != 2 or not data.size:
        raise GlasError(f"values must be participants by regions, got an array of {data.shape}")
    if participants is not None:
        if len(data) != len(participants):
            raise GlasError(f"values must have a row a participant, got {len(data)} for {len(participants)}")
        if isinstance(values, pd.DataFrame) and values.index.name == "participant_id":
            ids = participants.get("participant_id", participants.index)
            for number, (one, other) in enumerate(zip(values.index, ids, strict=True), start=1):
                if one != other:
                    raise GlasError(
                        f"the rows of the values must be the participants in order, row {number} is {one}, "
                        f"the participant {other}"
                    )
    names = values.columns if isinstance(values, pd.DataFrame) else range(1, data.shape[1] + 1)
    return data, [str(name) for name in names]


def complete(data: np.ndarray, names: list[str]) -> np.ndarray:
    """Which regions have a value in every row; warns of those that have one in some rows only."""
    known = np.isfinite(data)
    some = known.any(axis=0) & ~known.all(axis=0)
    if some.any():
        lacking = [f"{names[i]} ({int((~known[:, i]).sum())} of {len(data)})" for i in np.flatnonzero(some)]
        message = f"regions without a value in every participant are left out: {listed(lacking)}"
        warnings.warn(message, GlasWarning, stacklevel=3)
    return np.asarray(known.all(axis=0))


def _need(table: pd.DataFrame, *columns: str) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        have = ", ".join(map(str, table.columns))
        raise GlasError(f"a table of regions needs the columns {', '.join(columns)}, it has {have}")
