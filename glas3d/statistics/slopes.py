"""Slopes of saliency over time: one for each participant and region, from their sessions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from glas3d.errors import GlasError, listed
from glas3d.statistics.regions import as_matrix


def session_slopes(
    values: np.ndarray | pd.DataFrame, participants: Sequence[str], times: Sequence[float] | np.ndarray
) -> pd.DataFrame:
    """Return the slope over time of each participant and region, by least squares over the participant's sessions.

    Every participant has one slope, so that tests of slopes exchange participants and not sessions. Slopes over more
    sessions or a longer time are more exact; all count alike in such tests, which allow errors of different size.

    Parameters
    ----------
    values
        ``(sessions, regions)``, one row a session of a participant; the columns of a DataFrame name the regions.
    participants
        ``(sessions,)``: whose session each row is.
    times
        ``(sessions,)``: its time, such as years. Slopes are per unit of it.

    Returns
    -------
    Indexed by ``participant_id``, in the order in which they come, a column a region; NaN where a session of the
    participant has no value.

    Raises
    ------
    GlasError
        Rows, participants and times of different numbers, a time that is no number, or a participant without two
        sessions at different times.

    Examples
    --------
    >>> scores = np.array([[1.0], [2.0], [5.0], [7.0]])
    >>> session_slopes(scores, ["sub-1", "sub-1", "sub-2", "sub-2"], [0, 1, 0, 4])["1"].tolist()
    [1.0, 0.5]
    """
    data, names = as_matrix(values)
    ids, time = np.asarray(participants, dtype=object), np.asarray(times, dtype=float)
    if ids.shape != (len(data),) or time.shape != ids.shape:
        shapes = f"{ids.shape} and {time.shape} for {len(data)} rows"
        raise GlasError(f"every row needs a participant and a time, got {shapes}")
    if (unknown := ~np.isfinite(time)).any():
        raise GlasError(f"every session needs a time, these participants have one without: {listed(ids[unknown])}")
    found = {}
    for participant in dict.fromkeys(ids):
        rows = ids == participant
        centred = time[rows] - time[rows].mean()
        if not (centred**2).sum() > 0:
            raise GlasError(f"a slope needs two sessions at different times, {participant} has none")
        found[participant] = centred @ data[rows] / (centred @ centred)
    return pd.DataFrame.from_dict(found, orient="index", columns=names).rename_axis("participant_id")
