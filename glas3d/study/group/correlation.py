"""What a group's saliency goes with: columns of its participants, and the change of its regions' volumes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from glas3d.bids_names import bids_id, bids_label
from glas3d.errors import GlasError, GlasWarning, listed
from glas3d.statistics.correlation import change_correlation, correlate
from glas3d.study.group.files import GroupFiles
from glas3d.study.group.options import VOLUME_CHANGE, GroupSettings
from glas3d.study.group.participants import Scores
from glas3d.tables import read_table

_LONG = ["participant_id", "name", "change"]


def correlate_groups(
    files: GroupFiles, groups: dict[str, Scores], settings: GroupSettings
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Correlate each group's saliency with what was asked, and write a table each.

    Groups are correlated one by one: over all of them, what differs between groups would go with all else that does.
    Covariates that are the same for a whole group are left out of its correlations.

    Parameters
    ----------
    groups
        By name.

    Yields
    ------
    What was correlated, such as ``MMSE in AD``, and the table of `glas3d.statistics.correlation.correlate`.

    Raises
    ------
    GlasError
        A column that is not there or holds no numbers, a table of changes that is none, or what cannot be correlated
        in any group.

    Warns
    -----
    GlasWarning
        Participants without a value, and groups in which there is nothing to correlate.
    """
    for column in settings.correlate:
        columns = {name: _column(scores.design, column) for name, scores in groups.items()}
        yield from _each(files, groups, column, columns, settings)
    if settings.volume_change is not None:
        if files.atlas is None:
            raise GlasError("volumes change in regions: everyone must be explained with an atlas, not on a grid")
        change = read_change(settings.volume_change, files.atlas.table["name"].tolist())
        changes = {name: change.reindex(scores.values.index) for name, scores in groups.items()}
        yield from _each(files, groups, VOLUME_CHANGE, changes, settings)


def _each(
    files: GroupFiles,
    groups: dict[str, Scores],
    what: str,
    sides: Mapping[str, pd.DataFrame | pd.Series],
    settings: GroupSettings,
) -> Iterator[tuple[str, pd.DataFrame]]:
    """One thing in every group that has it."""
    refused: list[GlasError] = []
    for name, scores in groups.items():
        other = sides[name]
        known = np.asarray(pd.DataFrame(other).notna().any(axis=1))
        if known.any() and not known.all():
            lacking = [one.participant_id for one, has in zip(scores.members, known, strict=True) if not has]
            message = f"without {what}, and left out of its correlation: {listed(lacking)}"
            warnings.warn(message, GlasWarning, stacklevel=3)
        try:
            if not known.any():
                raise GlasError("nobody has a value")
            table = _correlate(files, name, what, scores.where(known), other[known], settings)
        except GlasError as error:
            refused.append(error)
            warnings.warn(f"no correlation with {what} in {name}: {error}", GlasWarning, stacklevel=3)
            continue
        if isinstance(other, pd.DataFrame):
            try:
                _over_regions(files, name, scores.where(known), other[known], settings)
            except GlasError as error:  # too few regions, for instance
                message = f"no correlation with {what} over the regions of each of {name}: {error}"
                warnings.warn(message, GlasWarning, stacklevel=3)
        yield f"{what} in {name}", table
    if len(refused) == len(groups):
        raise GlasError(f"nothing can be correlated with {what} in any group: {refused[0]}")


def read_change(path: str | os.PathLike[str], regions: Sequence[str]) -> pd.DataFrame:
    """Read how much each region's volume changed.

    Parameters
    ----------
    path
        Tab-separated: ``participant_id`` and a column a region, called by its name; or, long, ``participant_id name
        change``, a row a participant and region. ``n/a`` where nothing is known.
    regions
        Their names, in the order wanted.

    Returns
    -------
    Participants by regions, float64; NaN where nothing is known.

    Raises
    ------
    GlasError
        No such table, text in place of a number, a participant's region twice, or no region that is known.

    Warns
    -----
    GlasWarning
        Names that are no region's.
    """
    table = _table(path)
    if set(_LONG) <= set(table.columns):
        if (twice := table.duplicated(["participant_id", "name"])).any():
            named = " ".join(table.loc[twice, ["participant_id", "name"]].iloc[0].astype(str))
            raise GlasError(f"a participant's region must be there once, {named} is twice in {path}")
        table = table.pivot(index="participant_id", columns="name", values="change")
    else:
        if (twice := table["participant_id"].duplicated()).any():
            named = table.loc[twice, "participant_id"].iloc[0]
            raise GlasError(f"every participant needs one row, {named} has two in {path}")
        table = table.set_index("participant_id")
    strange = [str(name) for name in table.columns if name not in regions]
    if len(strange) == len(table.columns):
        wide = "participant_id and a column a region, or participant_id name change"
        raise GlasError(f"changes of volume need {wide}, {path} has no region such as {regions[0]}")
    if strange:
        message = f"{path} holds what is no region, and is not looked at: {listed(strange)}"
        warnings.warn(message, GlasWarning, stacklevel=3)
    found = table.reindex(columns=list(regions))
    numbers: pd.DataFrame = found.apply(pd.to_numeric, errors="coerce").astype(float)
    if (wrong := numbers.isna() & found.notna()).to_numpy().any():
        row, column = np.argwhere(wrong.to_numpy())[0]
        came = found.iloc[row, column]
        raise GlasError(
            f"changes of volume must be numbers, {regions[column]} of {found.index[row]} is {came!r} in {path}"
        )
    return numbers


def _table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Tab-separated text with a column ``participant_id``, all of it still text."""
    table = read_table(path, "a table of volume changes")
    if "participant_id" not in table:
        raise GlasError(f"changes of volume need a column participant_id, {path} has {', '.join(table.columns)}")
    table["participant_id"] = [bids_id(label, "sub") for label in table["participant_id"].fillna("")]
    return table


def _column(design: pd.DataFrame, column: str) -> pd.Series:
    """Numbers of the participants."""
    if column not in design:
        raise GlasError(f"participants need a column {column}, the table has {', '.join(map(str, design.columns))}")
    numbers: pd.Series = pd.to_numeric(design[column], errors="coerce").astype(float).rename(column)
    if (wrong := numbers.isna() & design[column].notna()).any():
        row = design[wrong].iloc[0]
        raise GlasError(
            f"to correlate with, a column must hold numbers, {column} of {row['participant_id']} is {row[column]!r}"
        )
    return numbers.set_axis(design["participant_id"])


def _correlate(
    files: GroupFiles, group: str, what: str, scores: Scores, other: pd.Series | pd.DataFrame, settings: GroupSettings
) -> pd.DataFrame:
    """One group's correlation with one thing, written."""
    varied = [name for name in settings.covariates if name not in scores.design or scores.design[name].nunique() > 1]
    table = correlate(
        scores.scaled(settings.normalise),
        other,
        participants=scores.design,
        method=settings.correlation,
        n_boot=settings.n_boot,
        **settings.test | {"covariates": varied},
    )
    table.insert(0, "index", scores.members[0].regions["index"].to_numpy())
    facts: dict[str, Any] = {
        "Group": group,
        "N": len(scores),
        "With": what,
        "Method": settings.correlation,
        "Normalise": settings.normalise,
        "Covariates": varied,
        "Site": settings.site,
        "Permutations": settings.n_perm,
        "Resamples": settings.n_boot,
        "Seed": settings.seed,
    }
    said = f"Correlation of the regions' scores with {what} over the participants of {group}"
    files.table(files.name(group, desc=bids_label(what)), "correlation", table, said, **facts)
    return table


def _over_regions(files: GroupFiles, group: str, scores: Scores, change: pd.DataFrame, settings: GroupSettings) -> None:
    """Each participant's correlation of saliency with the change of volume, over the regions."""
    counts = {"n_perm": settings.n_perm, "n_boot": settings.n_boot, "seed": settings.seed}
    found = change_correlation(scores.scaled(settings.normalise), change, **counts)
    mean = {"Mean": found.mean, "Low": found.low, "High": found.high, "P": found.p}
    said = f"Correlation of scores with {VOLUME_CHANGE} over the regions of each participant of {group}"
    more = {"Group": group, "Permutations": settings.n_perm, "Resamples": settings.n_boot, "Seed": settings.seed}
    files.table(
        files.name(group, desc=bids_label(VOLUME_CHANGE)), "participants", found.participants, said, **mean, **more
    )
