"""Divide participants into folds that keep all sessions of a participant together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from glas3d.errors import GlasError
from glas3d.study.cohort.cohort import count_participants
from glas3d.study.training.options import TrainingOptions


@dataclass(frozen=True)
class Split:
    """The participants of one fold.

    Attributes
    ----------
    fold
        The fold's number, from 1.
    train, validation, test
        Sorted ids of the participants who train the model, decide when training stops, and test it. Nobody is in two
        of them.
    stratified_by
        Columns whose values are spread evenly over the folds.
    """

    fold: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    stratified_by: tuple[str, ...]


def split_participants(table: pd.DataFrame, options: TrainingOptions | None = None) -> list[Split]:
    """Divide participants into folds, each of which tests other participants.

    Groups are spread evenly over the folds; sites too, if every site has at least as many participants of each of its
    groups as there are folds. The order of the rows does not matter.

    Parameters
    ----------
    table
        One row for each scan: ``participant_id group`` and, if known, the column of sites.
    options
        Its ``folds``, ``seed``, ``validation`` and ``site`` are used. Default: those of `TrainingOptions`.

    Raises
    ------
    GlasError
        A group has too few participants for the folds, or for a validation part.
    """
    options = options or TrainingOptions()
    folds, site = options.folds, options.site
    rows = table.reset_index(drop=True)
    smallest = _smallest_stratum(rows, ["group"])
    if smallest < folds or rows["group"].nunique() < 2:
        counts = ", ".join(f"{name} {n}" for name, n in count_participants(rows).items())
        fewer = f": give folds={smallest}" if smallest > 1 and rows["group"].nunique() > 1 else ""
        raise GlasError(
            f"{folds} folds need two groups of at least {folds} participants, got {counts or 'nobody'}{fewer}"
        )
    splits = []
    for fold, (rest, tested, stratified_by) in enumerate(_deal(rows, folds, options.seed, site), 1):
        train, held_out = rest, rest.iloc[:0]
        if options.validation:
            if _smallest_stratum(rest, ["group"]) < 2:
                left = ", ".join(f"{name} {n}" for name, n in count_participants(rest).items())
                more = f"more folds (at most {smallest}), or " if smallest > max(folds, 2) else ""
                raise GlasError(
                    f"a validation part needs at least two participants of each group to train with, fold {fold} of "
                    f"{folds} has {left}: give {more}validation=0"
                )
            train, held_out = _hold_out(rest, options.validation, [options.seed, fold], site)
        for part, name in ((train, "train"), (tested, "test")):
            if part["group"].nunique() < rows["group"].nunique():
                raise GlasError(f"fold {fold} of {folds} has no participants of every group to {name} with")
        splits.append(Split(fold, _ids(train), _ids(held_out), _ids(tested), stratified_by))
    return splits


def _deal(
    rows: pd.DataFrame, parts: int, seed: int, site: str
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]]:
    """Yield the rows of all other parts, those of one part, and the columns the parts are stratified by."""
    from sklearn.model_selection import StratifiedGroupKFold

    by = ["group"]
    if site in rows and rows[site].nunique(dropna=False) > 1 and _smallest_stratum(rows, ["group", site]) >= parts:
        by.append(site)
    strata = rows.groupby(by, dropna=False).ngroup()
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    for rest, part in splitter.split(rows, strata, rows["participant_id"]):
        yield rows.iloc[rest], rows.iloc[part], tuple(by)


def _hold_out(rows: pd.DataFrame, share: float, seeds: list[int], site: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    parts = min(max(2, round(1 / share)), _smallest_stratum(rows, ["group"]))
    train, held_out, _ = next(_deal(rows, parts, derived_seed(*seeds), site))
    return train, held_out


def derived_seed(*seeds: int) -> int:
    """Return a seed for a part of the work, from the study's seed and the number of the part."""
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])


def _smallest_stratum(rows: pd.DataFrame, by: list[str]) -> int:
    """Return how many participants the smallest stratum has."""
    counts = rows.groupby(by, dropna=False)["participant_id"].nunique()
    return int(counts.min()) if len(counts) else 0


def _ids(rows: pd.DataFrame) -> tuple[str, ...]:
    return tuple(sorted(set(rows["participant_id"])))
