"""From a study's folder to its groups: maps, comparisons, ranks, sides, strata and stability, all in ``out/group``."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas as pd

from glas3d.bids_names import bids_label, have_distinct_labels
from glas3d.errors import GlasError, GlasWarning
from glas3d.explain import ScanExplanation
from glas3d.imaging.atlas import Atlas
from glas3d.output import generated_by, new_folder, remove_leftovers, write_json
from glas3d.study.derivatives import GROUP, Record, read_records, read_study
from glas3d.study.group.comparison import Pair, compare_groups, pairs_of, write_strata
from glas3d.study.group.correlation import correlate_groups
from glas3d.study.group.files import GroupFiles
from glas3d.study.group.group_map import GroupMap
from glas3d.study.group.options import GroupSettings
from glas3d.study.group.participants import Participant, members_of, scores_of
from glas3d.study.group.reproducibility import compare_runs
from glas3d.study.group.summary import describe
from glas3d.study.group.voxel_map import PointMap
from glas3d.study.group.voxelwise import VoxelResult, compare_voxels
from glas3d.study.running.plan import searched

_PROVENANCE = "provenance.json"


@dataclass(frozen=True, eq=False)
class GroupResult:
    """What the groups of a study say.

    Attributes
    ----------
    place
        The folder written.
    groups
        Participants a group.
    tables
        Ranked regions a group.
    statistics
        The comparison of case and control (see `glas3d.statistics.two_groups.compare`); None without.
    tests
        Every test of regions that was made, such as ``AD against NC`` or ``MMSE in AD``: its table.
    voxels
        What comparisons voxel by voxel say, by the same names.
    """

    place: Path
    groups: dict[str, int]
    tables: dict[str, pd.DataFrame]
    statistics: pd.DataFrame | None
    tests: dict[str, pd.DataFrame] = field(default_factory=dict)
    voxels: dict[str, VoxelResult] = field(default_factory=dict)


def summarise_groups(
    out: str | os.PathLike[str],
    people: pd.DataFrame,
    *,
    case: str,
    control: str,
    atlas: str | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
    **settings: Any,
) -> GroupResult:
    """Read everyone's results and write ``out/group``; it appears whole, in place of an earlier one.

    A participant counts once, by the mean over sessions. Per group: the map and table of `GroupMap`, how participants
    vary, ranks with intervals over participants, sides, density, and stability over the folds' mean maps. Of case and
    control: `compare` of the scores, each participant's as shares of their sum, its t and corrected p painted on the
    regions, and what was right and wrong (tp, fp, tn, fn). On a grid there are no regions: maps are summed voxel by
    voxel. Every file has a sidecar, and ``provenance.json`` names everything that went in.

    Parameters
    ----------
    people
        ``participant_id group`` and covariates; ``session`` where groups belong to sessions.
    case, control
        Groups compared; the comparison is left out, with a warning, where one has fewer than two participants.
    atlas
        Name or path of the atlas everyone was explained with, when it is no more where it was.
    settings
        See `GroupSettings`: covariates, permutations, comparisons of all pairs and of voxels, correlations, other runs.

    Raises
    ------
    GlasError
        No results, none of a participant of a group; results that are damaged, on different grids or explained
        differently; what `GroupSettings`, `glas3d.statistics.two_groups.compare`,
        `glas3d.study.group.voxelwise.compare_voxels`, `glas3d.study.group.correlation.correlate_groups` and
        `glas3d.study.group.reproducibility.compare_runs` refuse.

    Warns
    -----
    GlasWarning
        Participants without results or group, in-sample results, comparisons left out.
    """
    asked = GroupSettings(**settings)
    out = Path(out)
    members = list(members_of(read_records(out), people, case, control))
    study = read_study(out)
    looked_at = _atlas(atlas or study.get("Search"), members[0].records[0])
    names = sorted({one.group for one in members})
    if not have_distinct_labels(names):
        raise GlasError(f"groups need letters or digits that tell their files apart, got {', '.join(names)}")
    place = out / GROUP
    remove_leftovers(place)
    maps: dict[str, GroupMap | PointMap] = {}
    tests: dict[str, pd.DataFrame] = {}
    voxels: dict[str, VoxelResult] = {}
    steps, total = 0, len(members) + 2
    in_sample = _in_sample(members)
    facts = {
        **members[0].records[0].content["Method"],
        "InSample": in_sample,
        "Sources": [_PROVENANCE],
        "GeneratedBy": generated_by(),
    }
    with new_folder(place, lambda there: (there / _PROVENANCE).is_file()) as scratch:
        files = GroupFiles(scratch, looked_at, facts)
        for name in names:
            group: GroupMap | PointMap
            group = (
                PointMap(name, top=asked.top)
                if looked_at is None
                else GroupMap(bids_label(name), looked_at, top=asked.top)
            )
            for one in members:
                if one.group == name:
                    _add(group, one)
                    steps += 1
                    tick(steps, total)
            group.save(scratch)
            maps[name] = group
        scores = scores_of(members, people)
        for name, group in maps.items():
            describe(files, name, group, scores.of(name), asked)
        tick(len(members) + 1, total)
        pairs = _pairs(members, case, control, asked.all_pairs)
        for pair in pairs:
            _check_alike(*(maps[name] for name in pair))
            pattern = next(members[0].reads()).saliency_img
            both, said = scores.of(*pair), " against ".join(pair)
            tests[said] = compare_groups(files, pair, both, pattern, asked, len(pairs))
            if asked.voxelwise:
                voxels[said] = compare_voxels(files, pair, both, pattern, asked)
            if pair == (case, control):
                write_strata(files, pair, both)
        groups = {name: scores.of(name) for name in names}
        tests |= correlate_groups(files, groups, asked)
        compare_runs(files, out, groups, people, case, control, asked)
        write_json(
            {
                "Description": "Groups of a study: maps, comparisons, ranks, laterality, density, strata, stability",
                "Groups": {name: [one.participant_id for one in group.members] for name, group in groups.items()},
                "Case": case,
                "Control": control,
                **asked.record(),
                "Study": study,
                "InSample": in_sample,
                "Inputs": {one.name: one.content["Files"] for each in members for one in each.records},
                "GeneratedBy": generated_by(),
            }
        )(scratch / _PROVENANCE)
    tick(total, total)
    return GroupResult(
        place,
        {name: len(group) for name, group in groups.items()},
        {name: group.table() for name, group in maps.items()},
        tests.get(f"{case} against {control}"),
        tests,
        voxels,
    )


def _add(group: GroupMap | PointMap, one: Participant) -> None:
    """Add a participant to its group's sums."""
    if isinstance(group, PointMap):
        group.add(list(one.reads()))
        return
    for number, read in enumerate(one.reads()):
        if number == 0:
            group.add(cast(ScanExplanation, read))
        else:  # their table is in the mean already: only refuse what does not fit
            group.check(cast(ScanExplanation, read))


def _atlas(search: Any, record: Record) -> Atlas | None:
    """The atlas everyone was explained with; None for a grid."""
    said = record.content["Method"]["Search"]
    if "atlas" not in said:
        return None
    atlas = cast(Atlas, searched(str(search)))
    if atlas.sha256 != said["sha256"]:
        raise GlasError(f"the atlas {atlas.name} is not the one {record.name} was explained with: it has changed")
    return atlas


def _check_alike(one: GroupMap | PointMap, other: GroupMap | PointMap) -> None:
    """Refuse groups on different grids, or of different regions."""
    if not one.grid.same_as(other.grid):
        raise GlasError(f"groups to be compared must share a grid, they are on {one.grid.shape} and {other.grid.shape}")


def _pairs(members: Sequence[Participant], case: str, control: str, every: bool) -> list[Pair]:
    """Groups to compare, of two participants or more each; with a warning about those that are not."""
    counts = {case: 0, control: 0} | Counter(one.group for one in members)
    wanted = list(counts) if every else [case, control]
    few = [f"{name} {counts[name]}" for name in wanted if counts[name] < 2]
    if few:
        message = f"no comparison: it needs at least 2 participants with results a group, got {' and '.join(few)}"
        warnings.warn(message, GlasWarning, stacklevel=3)
    enough = [name for name in wanted if counts[name] >= 2]
    return pairs_of(enough, case, control)


def _in_sample(members: Sequence[Participant]) -> Any:
    """Whether anyone's results are in-sample, or nobody knows; with a warning."""
    said = {one.content["InSample"] for each in members for one in each.records}
    if True in said:
        seen = [one.name for each in members for one in each.records if one.content["InSample"] is True]
        message = f"scans explained by models trained on them: {len(seen)}, such as that of {seen[0]}"
        warnings.warn(message, GlasWarning, stacklevel=3)
        return True
    return "unknown" if "unknown" in said else False
