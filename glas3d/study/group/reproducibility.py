"""Other runs of a study, explained by models that were trained from other seeds: how alike the groups' scores are."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from glas3d.errors import GlasError, GlasWarning, listed
from glas3d.study.derivatives import Record, read_records
from glas3d.study.group.files import GroupFiles
from glas3d.study.group.options import GroupSettings
from glas3d.study.group.participants import Scores, differing, members_of, values_of
from glas3d.study.group.summary import write_stability


def compare_runs(
    files: GroupFiles,
    out: Path,
    groups: Mapping[str, Scores],
    people: pd.DataFrame,
    case: str,
    control: str,
    settings: GroupSettings,
) -> None:
    """Write how alike each group's mean scores are in this run and the others.

    Means are of the participants that all runs have, so that what differs are the models and not the people.

    Parameters
    ----------
    out
        This run's folder.
    groups
        Its participants, by group.

    Raises
    ------
    GlasError
        A run twice, without results, or explained otherwise than by other models; no participant in all of them.

    Warns
    -----
    GlasWarning
        Participants that some run lacks.
    """
    if not settings.other_run:
        return
    names = _names([out, *settings.other_run])
    pattern = next(iter(groups.values())).members[0].records[0]
    others = {}
    for name, place in zip(names[1:], settings.other_run, strict=True):
        records = read_records(Path(place))
        _check_alike(records, pattern, name)
        others[name] = values_of(list(members_of(records, people, case, control)))
    left_out: list[str] = []
    shared_by_all = 0
    for group, scores in groups.items():
        shared = [one for one in scores.values.index if all(one in values.index for values in others.values())]
        left_out += sorted(set(scores.values.index) - set(shared))
        shared_by_all += len(shared)
        if shared:
            means = {names[0]: scores.values.loc[shared].mean()}
            means |= {name: values.loc[shared].mean() for name, values in others.items()}
            write_stability(files, group, "run", means, settings, Group=group, N=len(shared), Runs=names)
    if not shared_by_all:
        raise GlasError(f"runs must share participants to be compared, {', '.join(names)} share none")
    if left_out:
        message = f"not in every run, and left out of how alike they are: {listed(left_out)}"
        warnings.warn(message, GlasWarning, stacklevel=3)


def _check_alike(records: Sequence[Record], pattern: Record, name: str) -> None:
    """Refuse what differs in more than the model."""
    own = pattern.content["Method"]
    for one in records:
        different = [part for part in differing(own, one.content["Method"]) if not part.startswith("Model")]
        if different:
            raise GlasError(
                f"runs to be compared must be explained alike but for their models, {one.name} of {name} and "
                f"{pattern.name} differ in {', '.join(different)}"
            )


def _names(places: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The shortest ends of the folders' paths that tell them apart."""
    paths = [Path(place).resolve() for place in places]
    if len(set(paths)) < len(paths):
        twice = next(path for i, path in enumerate(paths) if path in paths[:i])
        raise GlasError(f"other runs must be other folders, {twice} is there twice")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]
