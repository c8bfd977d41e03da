"""Who trains and who is tested: folds that keep a participant's sessions together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from glas3d.checks import whole_number
from glas3d.errors import GlasError
from glas3d.study.cohort.cohort import count


@dataclass(frozen=True)
class Split:
    """One fold.

    Attributes
    ----------
    fold
        From 1.
    train, validation, test
        Ids of participants, sorted; nobody is in two of them.
    stratified_by
        Columns whose values are spread evenly over the folds.
    """

    fold: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    stratified_by: tuple[str, ...]


def split_participants(
    table: pd.DataFrame, *, folds: int = 5, seed: int = 0, validation: float = 0.15, site: str = "site"
) -> list[Split]:
    """Deal participants into folds; each is tested once.

    Groups are spread evenly over the folds and, where every site has at least ``folds`` participants of each of
    its groups, sites too. The order of the rows does not matter.

    Parameters
    ----------
    table
        A row a scan: ``participant_id group`` and maybe ``site``.
    validation
        About this share of the participants who are not tested does not train, but says when to stop; 0: none.
    site
        Name of the column, which need not be there.

    Raises
    ------
    GlasError
        Numbers outside their range, or a group with fewer participants than folds.
    """
    folds = whole_number("folds", folds, least=2)
    if seed < 0:
        raise GlasError(f"seed must be 0 or more, got {seed}")
    if not 0 <= validation <= 0.5:
        raise GlasError(f"validation must be a share from 0 to 0.5, got {validation}")
    rows = table.reset_index(drop=True)
    fewest = _fewest(rows, ["group"])
    if fewest < folds or rows["group"].nunique() < 2:
        counts = ", ".join(f"{name} {n}" for name, n in count(rows).items())
        raise GlasError(f"{folds} folds need two groups of at least {folds} participants, got {counts or 'nobody'}")
    found = []
    for number, (rest, tested, by) in enumerate(_deal(rows, folds, seed, site), 1):
        train, held = rest, rest.iloc[:0]
        if validation:
            train, held = _hold_out(rest, validation, [seed, number], site)
        for part, name in ((train, "train"), (tested, "test")):
            if part["group"].nunique() < rows["group"].nunique():
                raise GlasError(f"fold {number} of {folds} has no participants of every group to {name} with")
        found.append(Split(number, _ids(train), _ids(held), _ids(tested), by))
    return found


def _deal(
    rows: pd.DataFrame, parts: int, seed: int, site: str
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]]:
    """Each part once beside the rest."""
    from sklearn.model_selection import StratifiedGroupKFold

    by = ["group"]
    if site in rows and rows[site].nunique(dropna=False) > 1 and _fewest(rows, ["group", site]) >= parts:
        by.append(site)
    strata = rows.groupby(by, dropna=False).ngroup()
    dealer = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    for rest, part in dealer.split(rows, strata, rows["participant_id"]):
        yield rows.iloc[rest], rows.iloc[part], tuple(by)


def _hold_out(rows: pd.DataFrame, share: float, seeds: list[int], site: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    parts = min(max(2, round(1 / share)), _fewest(rows, ["group"]))
    if parts < 2:
        raise GlasError("a validation part needs two participants of each group to train with: give validation=0")
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    train, held, _ = next(_deal(rows, parts, seed, site))
    return train, held


def _fewest(rows: pd.DataFrame, by: list[str]) -> int:
    """Participants in the smallest stratum."""
    counts = rows.groupby(by, dropna=False)["participant_id"].nunique()
    return int(counts.min()) if len(counts) else 0


def _ids(rows: pd.DataFrame) -> tuple[str, ...]:
    return tuple(sorted(set(rows["participant_id"])))
