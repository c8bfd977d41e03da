"""Several sessions of a participant become one table of regions."""

from __future__ import annotations

import pandas as pd

from glas3d.errors import GlasError
from glas3d.explain.table import EVIDENCE
from glas3d.statistics.regions import check_columns

_MEASURES = ["light", "shadow", "drop", "score"]


def average_sessions(table: pd.DataFrame) -> pd.DataFrame:
    """Return means over each participant's sessions, so that every participant counts once.

    Parameters
    ----------
    table
        Tables of regions one under the other, with the columns ``participant_id`` and, where there are
        several, ``session_id``.

    Returns
    -------
    One row a participant and region: ``light``, ``shadow``, ``drop``, ``score`` and evidence are means over the
    sessions that have a value, as are ``x y z`` and ``n_voxels`` where they differ between sessions, ``rank`` is that
    of the mean score, ``n_sessions`` how many there were; other columns are the first session's.

    Raises
    ------
    GlasError
        A missing column, a region that is twice in a session, or sessions with different regions.
    """
    check_columns(table, "participant_id", "index", *_MEASURES)
    by_session = ["participant_id", *(["session_id"] if "session_id" in table else []), "index"]
    twice = table.duplicated(by_session)
    if twice.any():
        row = table.loc[twice, by_session].iloc[0].tolist()
        raise GlasError(f"a region must be in a session's table once, {', '.join(map(str, row))} is twice")
    grouped = table.groupby(["participant_id", "index"], sort=False)
    measures = [*_MEASURES, *(name for name in EVIDENCE if name in table)]
    joined = grouped.first().assign(**_regions(table), **grouped[measures].mean(), n_sessions=grouped.size())
    joined = joined.reset_index()
    sessions = joined.groupby("participant_id", sort=False)["n_sessions"]
    fewer = sessions.transform("max") != joined["n_sessions"]
    if fewer.any():
        name = joined.loc[fewer, "participant_id"].iloc[0]
        raise GlasError(f"all sessions of a participant must have the same regions, those of {name} differ")
    if "rank" in table:
        scores = joined.groupby("participant_id", sort=False)["score"]
        joined["rank"] = scores.rank(ascending=False, method="first").astype("Int64")
    kept = [column for column in table.columns if column != "session_id"]
    return joined[[*kept, "n_sessions"]]


def _regions(table: pd.DataFrame) -> pd.DataFrame:
    """Return coordinates and sizes of each participant's regions, over the sessions in which they have a voxel."""
    columns = [name for name in ("x", "y", "z", "n_voxels") if name in table]
    values = table[columns].astype(float)
    if "n_voxels" in columns:
        values = values.mask(table["n_voxels"] == 0)
    grouped = values.assign(participant_id=table["participant_id"], index=table["index"]).groupby(
        ["participant_id", "index"], sort=False
    )
    means = grouped.mean().where(grouped.nunique() > 1, grouped.first())
    if "n_voxels" in columns:
        means["n_voxels"] = means["n_voxels"].fillna(0)
        if (means["n_voxels"] % 1 == 0).all():
            means = means.astype({"n_voxels": table["n_voxels"].dtype})
    return means
