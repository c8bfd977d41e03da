"""Change over sessions: the slope of each participant's saliency over time, in each group and between groups."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.errors import GlasError, GlasWarning, listed
from glas3d.statistics.one_group import mean_test
from glas3d.statistics.regions import region_values
from glas3d.statistics.slopes import session_slopes
from glas3d.study.derivatives import Record
from glas3d.study.group.comparison import compare_groups
from glas3d.study.group.files import SCALES, GroupFiles
from glas3d.study.group.group_difference import Groups, check_column, check_groups
from glas3d.study.group.options import GroupOptions
from glas3d.study.group.participants import GroupScores, ParticipantResults
from glas3d.tables import MISSING

_DAYS = 365.25

# The sessions of a participant with their times, by participant.
Times = Mapping[str, Sequence[tuple[Record, float]]]


def session_times(
    participants: Sequence[ParticipantResults], table: pd.DataFrame, column: str, on_missing: str
) -> tuple[Times, str]:
    """Return the sessions of each participant that has two at different times, and the unit of time.

    Parameters
    ----------
    participants
        Those that have results and a group.
    table
        ``participant_id session`` and the column.
    column
        Numbers, such as years, or dates, which become years.
    on_missing
        ``"fail"`` or ``"skip"``: what happens if a session has no time.

    Raises
    ------
    GlasError
        A column that does not exist, or holds neither numbers nor dates; a session without a time, unless those are
        skipped; nobody has two sessions at different times.

    Warns
    -----
    GlasWarning
        Participants that are left out, and sessions without a time.
    """
    check_column(table, column)
    records = [record for each in participants for record in each.records]
    if "session" not in table or not any(record.session for record in records):
        raise GlasError(f"slopes over {column} need sessions, the results and their table have none")
    numbers, unit = _times(table, column)
    by_session = dict(zip(zip(table["participant_id"], table["session"], strict=True), numbers, strict=True))
    time_of = {record.name: by_session[record.participant_id, record.session] for record in records}
    lacking = [name for name, time in time_of.items() if not np.isfinite(time)]
    if lacking and on_missing == "fail":
        raise GlasError(f"every session needs a value of {column}, these have none: {listed(lacking)}")
    if lacking:
        message = f"without {column}, and left out of the slopes: {listed(lacking)}"
        warnings.warn(message, GlasWarning, stacklevel=3)
    found = {}
    for each in participants:
        own = [(record, time_of[record.name]) for record in each.records if np.isfinite(time_of[record.name])]
        if len({time for _, time in own}) > 1:
            found[each.participant_id] = own
    without = [each.participant_id for each in participants if each.participant_id not in found]
    if not found:
        raise GlasError(f"a slope over {column} needs two sessions at different times, nobody has them")
    if without:
        message = f"without two sessions at different times, and left out of the slopes: {listed(without)}"
        warnings.warn(message, GlasWarning, stacklevel=3)
    return found, unit


def _times(table: pd.DataFrame, column: str) -> tuple[np.ndarray, str]:
    """Return a column as numbers, ``(rows,)``, and their unit; NaN where there is no value."""
    values = table[column].mask(table[column].isin(MISSING))
    numbers = pd.to_numeric(values, errors="coerce")
    if (numbers.notna() == values.notna()).all():
        return numbers.to_numpy(dtype=float), f"the unit of {column}"
    dates = pd.to_datetime(values, errors="coerce", format="ISO8601", utc=True)
    if (wrong := dates.isna() & values.notna()).any():
        raise GlasError(
            f"times of sessions must be numbers, or dates such as 2019-05-31, {column} has {values[wrong].iloc[0]!r}"
        )
    days = (dates - dates.min()).dt.total_seconds().to_numpy(dtype=float) / 86400
    return np.asarray(days / _DAYS), "years"


def with_slopes(scores: GroupScores, times: Times) -> GroupScores:
    """Return the participants that have a slope."""
    return scores.select(np.array([each.participant_id in times for each in scores.participants], dtype=bool))


def check_slopes(scores: GroupScores, times: Times, comparisons: Sequence[Groups], options: GroupOptions) -> None:
    """Refuse comparisons of slopes that cannot be made, before anything is computed."""
    for groups in comparisons:
        check_groups(with_slopes(scores.of_groups(*groups), times), groups, options)


def compare_slopes(
    files: GroupFiles,
    scores: GroupScores,
    times: Times,
    unit: str,
    comparisons: Sequence[Groups],
    pattern: nib.Nifti1Image,
    options: GroupOptions,
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Test the mean slope of each group, compare the groups' slopes, and write tables and maps.

    Parameters
    ----------
    files
        Writer into the group folder.
    scores
        The participants of all groups.
    times, unit
        Their sessions, and the unit of time (see `session_times`).
    comparisons
        The groups to compare.
    pattern
        An image on the participants' grid.
    options
        Options of the tests; covariates are means over a participant's sessions.

    Yields
    ------
    A name, such as ``slope over years, AD against NC``, and the table of the test.
    """
    column = options.slope_over
    kept = with_slopes(scores, times)
    values = _slopes(kept, times, options)
    scale = f"{SCALES[options.normalise]}, per {'year' if unit == 'years' else unit}"
    record: dict[str, Any] = {
        "SlopeOver": column,
        "Unit": scale,
        "Sessions": {name: [session.session for session, _ in times[name]] for name in values.index},
    }
    for group in dict.fromkeys(each.group for each in kept.participants):
        own = values.loc[[each.participant_id for each in kept.participants if each.group == group]]
        table = mean_test(own, n_perm=options.n_perm, seed=options.seed)
        table.insert(0, "index", kept.region_index)
        null = {
            **options.sidecar("normalise", "n_perm", "seed"),
            "Statistic": "Student's t of the mean slope",
            "DegreesOfFreedom": len(own) - 1,
            "NullHypothesis": "the mean slope is 0; slopes are symmetric about their mean",
            "NullDistribution": "signs of participants' slopes flipped at random, largest |t| of each flip",
            "Exchangeable": "the signs of the participants' slopes",
        }
        description = f"Slopes of the regions' scores over {column}, {group}"
        mean = {"mean": ("mean slope over participants", scale)}
        stem = files.stem(group, desc="slope")
        files.write_table(stem, "regions", table, description, mean, scale=scale, **record, **null)
        yield f"slope over {column} in {group}", table
    n_pairs = sum(len(groups) == 2 for groups in comparisons)
    for groups in comparisons:
        members = kept.of_groups(*groups)
        name = " against ".join(groups)
        yield (
            f"slope over {column}, {name}",
            compare_groups(
                files,
                groups,
                members,
                pattern,
                options,
                n_pairs if len(groups) == 2 else 1,
                desc="slope",
                values=values,
                what=f"Slopes of scores over {column}, {name}",
                **record,
            ),
        )


def _slopes(scores: GroupScores, times: Times, options: GroupOptions) -> pd.DataFrame:
    """Return the slopes of normalised scores, participants by regions."""
    tables = [
        record.table()[["index", "name", "score"]].sort_values("index").assign(participant_id=record.name)
        for each in scores.participants
        for record, _ in times[each.participant_id]
    ]
    values = region_values(pd.concat(tables, ignore_index=True), normalise=options.normalise)
    ids = [each.participant_id for each in scores.participants for _ in times[each.participant_id]]
    moments = [time for each in scores.participants for _, time in times[each.participant_id]]
    return session_slopes(values, ids, moments)
