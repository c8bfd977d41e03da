"""Comparison of groups whose maps come from the models of several folds, which are exchangeable within a fold only."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from glas3d.counts import counted
from glas3d.errors import GlasError, GlasWarning, listed
from glas3d.statistics.corrected import smallest_p
from glas3d.statistics.omnibus import compare_all
from glas3d.statistics.resampling import false_discovery
from glas3d.statistics.two_groups import compare

_CORRECTED = ("p_uncorrected", "p_fwe", "p_tfce_fwe")
_FEWEST = 19  # draws of a test whose p-values are not used


def compare_within_folds(
    values: np.ndarray | pd.DataFrame,
    participants: pd.DataFrame,
    case: object,
    control: object,
    folds: Sequence[object] | pd.Series | np.ndarray,
    *,
    group: str = "group",
    seed: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """Compare two groups within each fold, and take a region's smallest p-value times the number of folds.

    The labels of the participants of one fold trained the models of the other folds. Over all folds, maps are therefore
    not exchangeable between the groups, not even with the fold held fixed: tests of them reject too often
    (documentation: "How often the tests of groups err"). Within a fold, all maps are by one model, whose training knew
    none of their labels.

    Parameters
    ----------
    values, participants, case, control, group, seed
        See `glas3d.statistics.two_groups.compare`.
    folds
        ``(participants,)``, the fold of each participant.
    **options
        Other options of `glas3d.statistics.two_groups.compare`.

    Returns
    -------
    The table of `glas3d.statistics.two_groups.compare` over all participants, which describes the difference, with
    ``n_folds``, the number of folds tested, and with p-values of the tests within folds. A fold with fewer than two
    participants of a group is not tested; without any fold to test, p-values are NaN.

    Raises
    ------
    GlasError
        See `glas3d.statistics.two_groups.compare`; folds that are not one a participant.

    Warns
    -----
    GlasWarning
        Folds that cannot be tested, or tests so small that no p-value can reach 0.05; see also
        `glas3d.statistics.two_groups.compare`.
    """

    def test(values: Any, participants: pd.DataFrame, **chosen: Any) -> pd.DataFrame:
        return compare(values, participants, case, control, group=group, **chosen)

    labels = participants[group].astype(str).to_numpy()
    return _within_folds(test, values, participants, folds, labels, [case, control], seed, options)


def compare_all_within_folds(
    values: np.ndarray | pd.DataFrame,
    participants: pd.DataFrame,
    groups: Sequence[object],
    folds: Sequence[object] | pd.Series | np.ndarray,
    *,
    group: str = "group",
    seed: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """Test several groups together within each fold, and take a region's smallest p-value times the number of folds.

    See `compare_within_folds`; the test is `glas3d.statistics.omnibus.compare_all`, whose options it takes.
    """

    def test(values: Any, participants: pd.DataFrame, **chosen: Any) -> pd.DataFrame:
        return compare_all(values, participants, groups, group=group, **chosen)

    labels = participants[group].astype(str).to_numpy()
    return _within_folds(test, values, participants, folds, labels, groups, seed, options)


def _within_folds(
    test: Callable[..., pd.DataFrame],
    values: np.ndarray | pd.DataFrame,
    participants: pd.DataFrame,
    folds: Sequence[object] | pd.Series | np.ndarray,
    labels: np.ndarray,
    groups: Sequence[object],
    seed: int,
    options: dict[str, Any],
) -> pd.DataFrame:
    """Return the table of all with the smallest p-values of the folds; ``labels`` is each participant's group."""
    fold_of = np.asarray(folds)
    if fold_of.shape != (len(participants),):
        raise GlasError(f"a fold a participant is needed, got {fold_of.shape} for {len(participants)} participants")
    table = test(values, participants, seed=seed, **options | {"n_perm": _FEWEST})
    tests: list[pd.DataFrame] = []
    refused: dict[str, list[str]] = {}
    least = np.inf
    names = [str(name) for name in groups]
    for number, fold in enumerate(sorted(set(fold_of[np.isin(labels, names)]))):
        rows = fold_of == fold
        own = values[rows] if isinstance(values, np.ndarray) else values.loc[rows]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", GlasWarning)  # the table of all has warned of what regards them
                tests.append(test(own, participants.loc[rows], seed=seed + number, **options))
        except GlasError as error:
            refused.setdefault(str(error), []).append(str(fold))
            continue
        sizes = [int((labels[rows] == name).sum()) for name in names]
        least = min(least, smallest_p([sizes], options.get("null", "sign-flip")))
    if refused:
        reasons = listed(f"{', '.join(alike)} ({reason})" for reason, alike in refused.items())
        message = f"folds without a test, for too few participants or values that do not vary: {reasons}"
        warnings.warn(message, GlasWarning, stacklevel=3)
    if tests and least * len(tests) > 0.05:
        larger = "an independent sample has" if len(tests) < 3 else "fewer folds, or an independent sample, have"
        message = (
            f"tests within {counted(len(tests), 'fold')} of groups so small give no corrected p-value below "
            f"{min(1.0, least * len(tests)):.2g}, so that none can reach 0.05: {larger} larger groups"
        )
        warnings.warn(message, GlasWarning, stacklevel=3)
    return _joined(table, tests)


def _joined(table: pd.DataFrame, tests: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the table of all with the p-values of the folds' tests."""
    joined = table.copy()
    for column in _CORRECTED:
        if column in joined:
            joined[column] = _smallest_times_count([test[column].to_numpy() for test in tests], len(joined))
            if f"neglog10{column}" in joined:
                joined[f"neglog10{column}"] = -np.log10(joined[column])
    joined["p_fdr"] = false_discovery(joined["p_uncorrected"].to_numpy())
    joined.insert(list(joined).index("p_uncorrected"), "n_folds", len(tests))
    return joined


def _smallest_times_count(columns: Sequence[np.ndarray], n: int) -> np.ndarray:
    """Return Bonferroni's combination over folds, ``(n,)``; NaN where a region has no test in any fold."""
    if not columns:
        return np.full(n, np.nan)
    stacked = np.stack(columns)
    smallest = np.where(np.isnan(stacked), np.inf, stacked).min(axis=0)
    return np.where(np.isinf(smallest), np.nan, np.minimum(smallest * len(columns), 1.0))
