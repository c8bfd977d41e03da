"""Reproducibility: how alike a group's mean scores are over folds, and over runs with models from other seeds."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from glas3d.errors import GlasError, GlasWarning, listed
from glas3d.statistics.stability import run_stability
from glas3d.study.derivatives import Record, read_records
from glas3d.study.group.files import GroupFiles
from glas3d.study.group.options import GroupOptions
from glas3d.study.group.participants import GroupScores, differing_parts, read_participants, score_matrix


def write_fold_stability(files: GroupFiles, group: str, scores: GroupScores, k: int) -> None:
    """Write how alike a group's mean scores are over the folds of cross-validation.

    Participants explained by the models of several folds belong to no fold and are left out.

    Parameters
    ----------
    files
        Writer into the group folder.
    group
        The group's name.
    scores
        The group's participants.
    k
        Number of highest regions to compare.
    """
    folds = [each.folds for each in scores.participants]
    single_folds = sorted({fold for fold in folds if len(fold) == 1})
    means = {f"fold-{fold}": scores.values[[each == (fold,) for each in folds]].mean() for (fold,) in single_folds}
    _write_stability(files, group, "fold", means, k, Group=group, N=len(scores))


@dataclass(frozen=True, eq=False)
class Runs:
    """A run of a study and others of the same participants.

    Attributes
    ----------
    names
        Short names of the runs, that of the first run first.
    others
        Scores of the other runs, participants by regions, by their names.
    """

    names: list[str]
    others: Mapping[str, pd.DataFrame]

    def shared(self, scores: GroupScores) -> list[str]:
        """Return the participants that all runs have."""
        return [name for name in scores.values.index if all(name in values.index for values in self.others.values())]


def read_runs(
    out: Path,
    groups: Mapping[str, GroupScores],
    table: pd.DataFrame,
    case: str,
    control: str,
    options: GroupOptions,
) -> Runs | None:
    """Read the other runs of the options; None where there are none.

    Parameters
    ----------
    out
        This run's folder.
    groups
        This run's participants, by the group's name.
    table
        The table of participants with their groups.
    case, control
        The groups whose participants without results are named in a warning.
    options
        The other runs.

    Raises
    ------
    GlasError
        A run twice, without results, or explained differently other than by the models; no participant in all runs.

    Warns
    -----
    GlasWarning
        Participants that some run lacks.
    """
    if not options.other_run:
        return None
    names = _short_names([out, *options.other_run])
    pattern = next(iter(groups.values())).participants[0].records[0]
    others = {}
    for name, folder in zip(names[1:], options.other_run, strict=True):
        records = read_records(folder)
        _check_same_method(records, pattern, name)
        others[name] = score_matrix(list(read_participants(records, table, case, control)))
    runs = Runs(names, others)
    shared = {group: set(runs.shared(scores)) for group, scores in groups.items()}
    if not any(shared.values()):
        raise GlasError(f"runs must share participants to be compared, {', '.join(names)} share none")
    left_out = [name for group, scores in groups.items() for name in sorted(set(scores.values.index) - shared[group])]
    if left_out:
        message = f"not in every run, and left out of the stability over runs: {listed(left_out)}"
        warnings.warn(message, GlasWarning, stacklevel=4)
    return runs


def compare_runs(
    files: GroupFiles, groups: Mapping[str, GroupScores], runs: Runs | None, options: GroupOptions
) -> None:
    """Write how alike each group's mean scores are in this run and in others.

    Means are of the participants that all runs have, so that only the models differ and not the participants.

    Parameters
    ----------
    files
        Writer into the group folder.
    groups
        This run's participants, by the group's name.
    runs
        The other runs, see `read_runs`; None: nothing is written.
    options
        The number of highest regions to compare.
    """
    if runs is None:
        return
    for group, scores in groups.items():
        if shared := runs.shared(scores):
            means = {runs.names[0]: scores.values.loc[shared].mean()}
            means |= {name: values.loc[shared].mean() for name, values in runs.others.items()}
            _write_stability(files, group, "run", means, options.k, Group=group, N=len(shared), Runs=runs.names)


def _write_stability(
    files: GroupFiles, group: str, kind: str, means: Mapping[str, pd.Series], k: int, **record: Any
) -> None:
    """Write how alike mean scores of folds or runs are, pair by pair and over all pairs; nothing for one alone."""
    if len(means) < 2:
        return
    runs = pd.DataFrame(means).T
    k = min(k, int(runs.notna().all().sum()) - 1)
    stability = run_stability(runs, k)
    description = f"Spearman's correlation and Jaccard index of the top {k} of {kind}s' mean scores"
    stem = files.stem(group, desc=f"{kind}pairs")
    files.write_table(stem, "stability", stability.pairs, f"{description}, pair by pair", K=k, **record)
    stem = files.stem(group, desc=f"{kind}s")
    mean = {"mean": ("mean over the pairs", "that of the measure")}
    description = f"{description}, over all pairs, with the jackknife's 95 % interval"
    files.write_table(stem, "stability", stability.summary, description, mean, K=k, **record)


def _check_same_method(records: Sequence[Record], pattern: Record, run: str) -> None:
    """Refuse records of a run that differ from the pattern in more than the model."""
    method = pattern.content["Method"]
    for record in records:
        parts = [part for part in differing_parts(method, record.content["Method"]) if not part.startswith("Model")]
        if parts:
            raise GlasError(
                f"runs to be compared must be explained alike but for their models, {record.name} of {run} and "
                f"{pattern.name} differ in {', '.join(parts)}"
            )


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the folders' paths that tell them apart."""
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        twice = next(path for i, path in enumerate(paths) if path in paths[:i])
        raise GlasError(f"other runs must be other folders, {twice} is given twice")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]
