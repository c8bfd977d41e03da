"""Correlation of a group's saliency with columns of its participants, and with the change of its regions' volumes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from glas3d.bids_names import bids_id, bids_label
from glas3d.errors import GlasError, GlasWarning, listed
from glas3d.statistics.choices import FEWEST_DRAWS, covariate_column
from glas3d.statistics.correlation import change_correlation, correlate
from glas3d.study.group.files import GroupFiles
from glas3d.study.group.group_difference import check_column, with_covariates
from glas3d.study.group.options import VOLUME_CHANGE, GroupOptions
from glas3d.study.group.participants import GroupScores
from glas3d.tables import read_table

_LONG = ["participant_id", "name", "change"]

# One column of the participants, or one column a region.
_OtherSide = pd.Series | pd.DataFrame


def read_changes(groups: Mapping[str, GroupScores], options: GroupOptions, *, by_region: bool) -> pd.DataFrame | None:
    """Return the changes of volume of the options, participants by regions; None where none are wanted.

    Raises
    ------
    GlasError
        Everyone was explained on a grid, not ``by_region``; see `read_volume_change`.
    """
    if options.volume_change is None:
        return None
    if not by_region:
        raise GlasError("volumes change in regions: everyone must be explained with an atlas, not on a grid")
    return read_volume_change(options.volume_change, next(iter(groups.values())).values.columns.tolist())


def check_correlations(groups: Mapping[str, GroupScores], change: pd.DataFrame | None, options: GroupOptions) -> None:
    """Refuse correlations that cannot be had, before any map is made.

    Raises
    ------
    GlasError
        What `correlate_groups` refuses.
    """
    few = replace(options, n_perm=FEWEST_DRAWS, n_boot=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GlasWarning)  # the correlations themselves warn
        for what, sides in _sides(groups, change, options):
            refusals = []
            for name, scores in groups.items():
                try:
                    _correlation(*_fixed(scores, sides[name], what, options), few)
                except GlasError as error:
                    refusals.append(error)
            _refuse_all(refusals, groups, what)


def _sides(
    groups: Mapping[str, GroupScores], change: pd.DataFrame | None, options: GroupOptions
) -> Iterator[tuple[str, Mapping[str, _OtherSide]]]:
    """Yield what is correlated with the scores, and its values in each group."""
    for column in options.correlate:
        yield column, {name: number_column(scores.design, column) for name, scores in groups.items()}
    if change is not None:
        yield VOLUME_CHANGE, {name: change.reindex(scores.values.index) for name, scores in groups.items()}


def _refuse_all(refusals: Sequence[GlasError], groups: Mapping[str, GroupScores], what: str) -> None:
    if len(refusals) == len(groups):
        raise GlasError(f"nothing can be correlated with {what} in any group: {refusals[0]}")


def correlate_groups(
    files: GroupFiles, groups: Mapping[str, GroupScores], change: pd.DataFrame | None, options: GroupOptions
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Correlate each group's saliency with the columns and the volume changes of the options, and write the tables.

    Each group is correlated on its own: over all of them, what differs between groups would correlate with all else
    that does. Covariates that are the same for a whole group are left out of its correlations.

    Parameters
    ----------
    files
        Writer into the group folder.
    groups
        Each group's participants, by the group's name.
    change
        Changes of volume, see `read_changes`.
    options
        Columns, and options of the tests.

    Yields
    ------
    A name, such as ``MMSE in AD``, and the table of `glas3d.statistics.correlation.correlate`.

    Raises
    ------
    GlasError
        A column that does not exist or holds text, or that cannot be correlated in any group.

    Warns
    -----
    GlasWarning
        Participants without a value, and groups in which nothing can be correlated.
    """
    for what, sides in _sides(groups, change, options):
        yield from _correlate_each(files, groups, what, sides, options)


def _correlate_each(
    files: GroupFiles,
    groups: Mapping[str, GroupScores],
    what: str,
    sides: Mapping[str, _OtherSide],
    options: GroupOptions,
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Correlate each group with its side, such as MMSE; at least one group must have a correlation."""
    refusals: list[GlasError] = []
    for name, all_scores in groups.items():
        try:
            scores, side = _fixed(all_scores, sides[name], what, options)
            table = _correlate_group(files, name, what, scores, side, options)
        except GlasError as error:
            refusals.append(error)
            warnings.warn(f"no correlation with {what} in {name}: {error}", GlasWarning, stacklevel=3)
            continue
        if isinstance(side, pd.DataFrame):
            try:
                _correlate_over_regions(files, name, scores, side, options)
            except GlasError as error:  # too few regions, for instance
                message = f"no correlation with {what} over the regions of each of {name}: {error}"
                warnings.warn(message, GlasWarning, stacklevel=3)
        yield f"{what} in {name}", table
    _refuse_all(refusals, groups, what)


def _fixed(
    all_scores: GroupScores, side: _OtherSide, what: str, options: GroupOptions
) -> tuple[GroupScores, _OtherSide]:
    """Return the participants that have a value, and every covariate where the others are left out."""
    scores, side = _with_value(all_scores, side, what)
    fixed = with_covariates(scores, options)
    return fixed, side.loc[fixed.values.index]


def _with_value(scores: GroupScores, side: _OtherSide, what: str) -> tuple[GroupScores, _OtherSide]:
    """Return the participants that have a value, with their values; warn of the others."""
    known = np.asarray(pd.DataFrame(side).notna().any(axis=1))
    if not known.any():
        raise GlasError("no participant has a value")
    if not known.all():
        lacking = [each.participant_id for each, has in zip(scores.participants, known, strict=True) if not has]
        message = f"without {what}, and left out of its correlation: {listed(lacking)}"
        warnings.warn(message, GlasWarning, stacklevel=4)
    return scores.select(known), side[known]


def read_volume_change(path: str | os.PathLike[str], regions: Sequence[str]) -> pd.DataFrame:
    """Read how much each region's volume changed in each participant.

    Parameters
    ----------
    path
        Tab-separated: ``participant_id`` and a column a region, called by its name; or, long, ``participant_id name
        change``, a row a participant and region. ``n/a`` where a change is not known.
    regions
        Their names, in the order wanted.

    Returns
    -------
    Participants by regions, float64; NaN where a change is not known.

    Raises
    ------
    GlasError
        The table cannot be read, text in place of a number, a participant's region twice, or no known region.

    Warns
    -----
    GlasWarning
        Columns or names that are no region of the atlas.
    """
    table = _participants_by_regions(_read_with_ids(path), path)
    unknown = [str(name) for name in table.columns if name not in regions]
    if len(unknown) == len(table.columns):
        wanted = "participant_id and a column a region, or participant_id name change"
        raise GlasError(f"changes of volume need {wanted}, {path} has no region such as {regions[0]}")
    if unknown:
        message = f"{path} has columns that are no region of the atlas, and are not used: {listed(unknown)}"
        warnings.warn(message, GlasWarning, stacklevel=3)
    table = table.reindex(columns=list(regions))
    numbers: pd.DataFrame = table.apply(pd.to_numeric, errors="coerce").astype(float)
    if (wrong := numbers.isna() & table.notna()).to_numpy().any():
        row, column = np.argwhere(wrong.to_numpy())[0]
        raise GlasError(
            f"changes of volume must be numbers, {regions[column]} of {table.index[row]} is "
            f"{table.iloc[row, column]!r} in {path}"
        )
    return numbers


def _read_with_ids(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table, all of it text, whose ``participant_id`` may come without ``sub-``."""
    table = read_table(path, "a table of volume changes")
    if "participant_id" not in table:
        raise GlasError(f"changes of volume need a column participant_id, {path} has {', '.join(table.columns)}")
    ids = [bids_id(label, "sub") for label in table["participant_id"].fillna("")]
    return table.assign(participant_id=ids)


def _participants_by_regions(table: pd.DataFrame, path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return a table of changes, wide or long, as participants by regions."""
    if set(_LONG) <= set(table.columns):
        if (twice := table.duplicated(["participant_id", "name"])).any():
            named = " ".join(table.loc[twice, ["participant_id", "name"]].iloc[0].astype(str))
            raise GlasError(f"a participant's region must have one row, {named} has two in {path}")
        return table.pivot(index="participant_id", columns="name", values="change")
    if (twice := table["participant_id"].duplicated()).any():
        name = table.loc[twice, "participant_id"].iloc[0]
        raise GlasError(f"every participant needs one row, {name} has two in {path}")
    return table.set_index("participant_id")


def number_column(design: pd.DataFrame, column: str) -> pd.Series:
    """Return a column of the participants as numbers, by participant; NaN where there is no value."""
    check_column(design, column)
    numbers: pd.Series = pd.to_numeric(design[column], errors="coerce").astype(float).rename(column)
    if (wrong := numbers.isna() & design[column].notna()).any():
        row = design[wrong].iloc[0]
        raise GlasError(
            f"to correlate with, a column must hold numbers, {column} of {row['participant_id']} is {row[column]!r}"
        )
    return numbers.set_axis(design["participant_id"])


def _correlate_group(
    files: GroupFiles, group: str, what: str, scores: GroupScores, side: _OtherSide, options: GroupOptions
) -> pd.DataFrame:
    """Correlate one group's saliency with its side over the participants, and write the table."""
    table, covariates = _correlation(scores, side, options)
    table.insert(0, "index", scores.region_index)
    record: dict[str, Any] = {
        "Group": group,
        "N": len(scores),
        "With": what,
        "Method": options.correlation,
        "DegreesOfFreedom": int(table["dof"].max()),
        "Statistic": "z, the correlation over a standard error that allows unequal spread (DiCiccio & Romano 2017)",
        "NullHypothesis": "the correlation is 0; the spread of scores may depend on the column",
        "NullDistribution": "permutations of the participants (Freedman and Lane's), largest |z| of each",
        "Exchangeable": "the participants" + (f" within {options.site}" if options.site else ""),
        **options.sidecar("normalise", "site", "n_perm", "n_boot", "seed"),
        "Covariates": covariates,
    }
    description = f"Correlation of the regions' scores with {what} over the participants of {group}"
    files.write_table(files.stem(group, desc=bids_label(what)), "correlation", table, description, **record)
    return table


def _correlation(scores: GroupScores, side: _OtherSide, options: GroupOptions) -> tuple[pd.DataFrame, list[str]]:
    """Return the correlation of a group's saliency with its side, and the covariates that differ in the group."""
    design = scores.design
    columns = {name: covariate_column(name) for name in options.covariates}
    covariates = [name for name, column in columns.items() if column not in design or design[column].nunique() > 1]
    table = correlate(
        scores.normalised(options.normalise),
        side,
        participants=design,
        covariates=covariates,
        site=options.site,
        method=options.correlation,
        n_perm=options.n_perm,
        n_boot=options.n_boot,
        seed=options.seed,
    )
    return table, covariates


def _correlate_over_regions(
    files: GroupFiles, group: str, scores: GroupScores, change: pd.DataFrame, options: GroupOptions
) -> None:
    """Correlate each participant's saliency with the change of volume over the regions, and write the table."""
    result = change_correlation(
        scores.normalised(options.normalise), change, n_perm=options.n_perm, n_boot=options.n_boot, seed=options.seed
    )
    record = {
        "Group": group,
        "N": len(scores),
        "Method": "pearson",
        "Statistic": "the correlation over the regions",
        "NullHypothesis": "score and change of a region are independent, and regions can be exchanged",
        "NullDistribution": "permutations of the regions, alike in all participants; neighbours are alike, so that "
        "p-values are smaller than they should be",
        "Exchangeable": "the regions",
        **options.sidecar("normalise", "n_perm", "n_boot", "seed"),
        "Mean": result.mean,
        "Low": result.low,
        "High": result.high,
        "P": result.p,
    }
    description = f"Correlation of scores with {VOLUME_CHANGE} over the regions of each participant of {group}"
    stem = files.stem(group, desc=bids_label(VOLUME_CHANGE))
    files.write_table(stem, "participants", result.participants, description, **record)
