"""The group level of a study: from everyone's results to maps, comparisons and correlations in ``out/group``."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import pandas as pd

from glas3d.bids_names import have_distinct_labels
from glas3d.display import Drawn, Summary
from glas3d.errors import GlasError, GlasWarning
from glas3d.explain.notes import count_notes
from glas3d.imaging.atlas import Atlas
from glas3d.options import accepts, parse
from glas3d.output import Columns, generated_by, new_folder, refuse_links, remove_leftovers, sealed, to_json, write_json
from glas3d.reading import read_json_object
from glas3d.study.derivatives import (
    AUDITS,
    GROUP,
    PROVENANCE,
    Record,
    differences,
    list_results,
    read_records,
    read_study,
    stored_search,
)
from glas3d.study.group.comparison import compare_groups, group_pairs, write_strata
from glas3d.study.group.correlation import check_correlations, correlate_groups, read_changes
from glas3d.study.group.files import GroupFiles
from glas3d.study.group.group_difference import Groups, check_groups
from glas3d.study.group.group_map import GroupMap
from glas3d.study.group.group_sums import GroupSums
from glas3d.study.group.options import GroupOptions
from glas3d.study.group.participants import GroupScores, ParticipantResults, group_scores, read_participants
from glas3d.study.group.reproducibility import compare_runs, read_runs
from glas3d.study.group.slopes import check_slopes, compare_slopes, session_times
from glas3d.study.group.summary import write_summary
from glas3d.study.group.voxel_map import ParcellationMap, VoxelMap
from glas3d.study.group.voxelwise import VoxelwiseResult, check_voxels, compare_voxels
from glas3d.study.running.plan import load_search

_SHOWN = 10  # rows in a notebook
_SIGNIFICANT = 0.05

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False, repr=False)
class GroupResult(Drawn):
    """The result of a study's group level.

    Attributes
    ----------
    folder
        The folder written.
    groups
        Number of participants of each group.
    tables
        Ranked regions of each group.
    statistics
        The comparison of case and control (see `glas3d.statistics.two_groups.compare`); None without.
    tests
        The table of every test of regions, by names such as ``AD against NC`` and ``MMSE in AD``.
    voxels
        Every voxelwise comparison in short, by the same names.
    notes
        Notes on the participants' results (see `glas3d.explain.notes`), with the number of participants by group.
    accounts
        How much of the effect the regions of each group account for; without groups where that is not known.
    columns
        The description and the units of each column of the tables, by group.
    """

    folder: Path
    groups: dict[str, int]
    tables: dict[str, pd.DataFrame]
    statistics: pd.DataFrame | None
    tests: dict[str, pd.DataFrame] = field(default_factory=dict)
    voxels: dict[str, VoxelwiseResult] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    columns: dict[str, Columns] = field(default_factory=dict)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {n}" for name, n in self.groups.items())
        said = "; ".join([counts, *self._highest(), *self._findings()])
        return f"GroupResult({self.folder}: {said})" + "".join(f"\nnote: {note}" for note in self.notes)

    def _highest(self) -> list[str]:
        """Return the highest-scoring region of each group."""
        ranked = {name: table.dropna(subset=["rank"]).sort_values("rank") for name, table in self.tables.items()}
        return [f"highest in {name}: {table['name'].iloc[0]}" for name, table in ranked.items() if len(table)]

    def _findings(self) -> list[str]:
        """Return how many regions each test tells apart from chance."""
        return [
            f"{name}: {int((table['p_fwe'] < _SIGNIFICANT).sum())} of {len(table)} regions with corrected p < 0.05"
            for name, table in self.tests.items()
            if "p_fwe" in table
        ]

    def _summary(self) -> Summary:
        facts: dict[str, object] = {
            "participants": ", ".join(f"{name} {n}" for name, n in self.groups.items()),
            "folder": str(self.folder),
        }
        facts |= {f"test {number}": finding for number, finding in enumerate(self._findings(), start=1)}
        ranked = {name: table.dropna(subset=["rank"]).sort_values("rank") for name, table in self.tables.items()}
        shown = min(_SHOWN, max((len(table) for table in ranked.values()), default=0))
        rows = [
            [
                i + 1,
                *(f"{t['name'].iloc[i]} ({t['score'].iloc[i]:z.2f})" if i < len(t) else "" for t in ranked.values()),
            ]
            for i in range(shown)
        ]
        caption = "The highest-scoring regions of each group, with their scores"
        return Summary("Groups of a study", facts, ("rank", *ranked), rows, caption=caption, notes=self.notes)


@dataclass(frozen=True, eq=False)
class _Study:
    """A study's results and participants, read for the group level.

    Attributes
    ----------
    out
        The study's folder.
    settings
        What the participant level recorded of the study.
    table
        The table of participants with their groups.
    case, control
        The two groups that are compared.
    participants
        Those that have results and a group.
    names
        The groups, sorted.
    atlas
        The atlas that everyone was explained with; None for a grid, and for participants' own parcellations.
    parcellation
        The name of participants' own parcellations; None where they have none.
    in_sample
        Whether a participant was explained by a model trained on them; ``"unknown"`` without a manifest.
    """

    out: Path
    settings: Mapping[str, Any]
    table: pd.DataFrame
    case: str
    control: str
    participants: Sequence[ParticipantResults]
    names: Sequence[str]
    atlas: Atlas | None
    parcellation: str | None
    in_sample: bool | str

    @property
    def notes(self) -> list[str]:
        """The notes on the participants' results, counted by group."""
        groups = {each.participant_id: each.group for each in self.participants}
        return count_notes({each.participant_id: each.notes for each in self.participants}, groups, what="participants")


@accepts(GroupOptions)
def summarise_groups(
    out: str | os.PathLike[str],
    participants: pd.DataFrame,
    *,
    case: str,
    control: str,
    atlas: str | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    **options: Any,
) -> GroupResult:
    """Read everyone's results and write ``out/group``, which appears whole, in place of earlier ones made alike.

    A participant counts once, by the mean over sessions. Each group gets a map and a table, how participants vary,
    ranks with intervals over participants, laterality, relative density, and stability over the folds' mean maps.
    Case and control are compared (see `glas3d.statistics.two_groups.compare`): t and corrected p, region by region
    and as maps, and mean scores of true and false positives and negatives. On a grid there are no regions: maps are
    summed voxel by voxel. Every file has a sidecar, and ``provenance.json`` names everything that went in.

    Parameters
    ----------
    out
        The study's folder, with the results of the participant level.
    participants
        ``participant_id group`` and covariates; ``session`` where groups belong to sessions.
    case, control
        Groups to compare; the comparison is left out, with a warning, where one has fewer than two participants.
    atlas
        Name or path of the atlas everyone was explained with. Default: the study's own copy.
    overwrite
        Replace results of other groups, options or explanations, or of participants who are not among these. Default:
        refuse them, before anything is computed.
    progress
        A function that is called with the number of steps done and the number of all steps.
    **options
        See `glas3d.study.group.options.GroupOptions`.

    Raises
    ------
    GlasError
        No results, or none of a participant of a group; results that are damaged, on different grids or explained
        differently; results in ``out/group`` that were made otherwise; options that
        `glas3d.study.group.options.GroupOptions`, `glas3d.statistics.two_groups.compare`,
        `glas3d.study.group.voxelwise.compare_voxels`, `glas3d.study.group.correlation.correlate_groups` or
        `glas3d.study.group.reproducibility.read_runs` refuse.

    Warns
    -----
    GlasWarning
        Participants without results or group, in-sample results, comparisons left out.
    """
    (chosen,) = parse(options, GroupOptions, caller="summarise_groups")
    study = _read_study(Path(out), participants, case, control, atlas)
    scores = group_scores(study.participants, study.table)
    groups = {name: scores.of_groups(name) for name in study.names}
    pairs = _pairs_to_compare(study, chosen.all_pairs or chosen.omnibus)
    everyone = _groups_of_omnibus(pairs) if chosen.omnibus else None
    comparisons = [*([everyone] if everyone else []), *pairs]
    folder = study.out / GROUP
    provenance = _provenance(study, groups, chosen)
    if not overwrite:
        _refuse_other_results(folder, provenance, chosen)
    _check_tests(scores, comparisons, chosen)
    times = (
        session_times(study.participants, study.table, chosen.slope_over, chosen.on_missing)
        if chosen.slope_over
        else None
    )
    if times is not None:
        check_slopes(scores, times[0], comparisons, chosen)
    refuse_links(study.out, folder)
    pattern = next(study.participants[0].sessions()).saliency_img
    if chosen.voxelwise:
        check_voxels(study.atlas, pattern, [scores.of_groups(*compared) for compared in comparisons], chosen)
    by_region = study.atlas is not None or study.parcellation is not None
    change = read_changes(groups, chosen, by_region=by_region)
    check_correlations(groups, change, chosen)
    runs = read_runs(study.out, groups, study.table, case, control, chosen)
    remove_leftovers(folder)
    n_steps = len(study.participants) + 2
    with new_folder(folder, _may_be_replaced) as scratch:
        for audit in folder.glob(AUDITS):  # these are of the participants' results, and stay
            shutil.copy2(audit, scratch)
        files = GroupFiles(scratch, study.atlas, _common_sidecar(study), study.parcellation)
        maps = _map_groups(study, files, chosen, lambda done: progress(done, n_steps))
        for name in study.names:
            write_summary(files, name, maps[name], groups[name], chosen)
        progress(n_steps - 1, n_steps)
        tests, voxels = _compare_pairs(study, files, maps, scores, comparisons, pattern, chosen)
        tests |= correlate_groups(files, groups, change, chosen)
        if times is not None:
            tests |= compare_slopes(files, scores, *times, comparisons, pattern, chosen)
        compare_runs(files, groups, runs, chosen)
        sealed(write_json(provenance))(scratch / PROVENANCE)
    list_results(study.out)
    progress(n_steps, n_steps)
    return GroupResult(
        folder,
        {name: len(group) for name, group in groups.items()},
        {name: group_map.table() for name, group_map in maps.items()},
        tests.get(_against((case, control))),
        tests,
        voxels,
        tuple(study.notes),
        {name: account.record() for name, each in maps.items() if (account := each.account()) is not None},
        {name: group_map.columns() for name, group_map in maps.items()},
    )


def _read_study(out: Path, table: pd.DataFrame, case: str, control: str, atlas: str | None) -> _Study:
    """Read a study's results, and check that its groups can be summarised."""
    participants = list(read_participants(read_records(out), table, case, control))
    settings = read_study(out)
    parcellation = _parcellation(participants[0].records[0], atlas)
    chosen_atlas = None if parcellation else atlas_of(out, settings, participants[0].records[0], atlas)
    names = sorted({each.group for each in participants})
    if not have_distinct_labels(names):
        raise GlasError(f"groups need letters or digits that tell their files apart, got {', '.join(names)}")
    in_sample = _in_sample(participants)
    return _Study(out, settings, table, case, control, participants, names, chosen_atlas, parcellation, in_sample)


def _map_groups(
    study: _Study, files: GroupFiles, options: GroupOptions, progress: Callable[[int], None]
) -> dict[str, GroupSums]:
    """Sum each group's explanations, one participant at a time, and write map and table."""
    maps: dict[str, GroupSums] = {}
    done = 0
    for name in study.names:
        group_map: GroupSums = VoxelMap(name, top=options.top)
        if study.atlas is not None:
            group_map = GroupMap(name, study.atlas, top=options.top)
        elif study.parcellation is not None:
            group_map = ParcellationMap(name, study.parcellation, top=options.top)
        for participant in study.participants:
            if participant.group == name:
                group_map.add(*participant.sessions())
                done += 1
                progress(done)
        group_map.save(files.folder)
        maps[name] = group_map
    return maps


def _compare_pairs(
    study: _Study,
    files: GroupFiles,
    maps: Mapping[str, GroupSums],
    scores: GroupScores,
    comparisons: Sequence[Groups],
    pattern: nib.Nifti1Image,
    options: GroupOptions,
) -> tuple[dict[str, pd.DataFrame], dict[str, VoxelwiseResult]]:
    """Compare case and control, or every two groups and all together, by region and by voxel, and write the files."""
    tests: dict[str, pd.DataFrame] = {}
    voxels: dict[str, VoxelwiseResult] = {}
    n_pairs = sum(len(compared) == 2 for compared in comparisons)
    for compared in comparisons:
        _check_same_grid([maps[name] for name in compared])
        members = scores.of_groups(*compared)
        n_alike = n_pairs if len(compared) == 2 else 1
        tests[_against(compared)] = compare_groups(files, compared, members, pattern, options, n_alike)
        if options.voxelwise:
            voxels[_against(compared)] = compare_voxels(files, compared, members, pattern, options)
        if compared == (study.case, study.control):
            write_strata(files, compared, members)
    return tests, voxels


def _check_tests(scores: GroupScores, comparisons: Sequence[Groups], options: GroupOptions) -> None:
    """Refuse comparisons that cannot be made, before any map is made."""
    for compared in comparisons:
        check_groups(scores.of_groups(*compared), compared, options)


def _pairs_to_compare(study: _Study, all_pairs: bool) -> list[Groups]:
    """Return the pairs of groups with two participants or more each; warn of groups that have fewer."""
    counts = {study.case: 0, study.control: 0} | Counter(each.group for each in study.participants)
    wanted = list(counts) if all_pairs else [study.case, study.control]
    too_few = [f"{name} {counts[name]}" for name in wanted if counts[name] < 2]
    if too_few:
        message = f"no comparison: it needs at least 2 participants with results a group, got {' and '.join(too_few)}"
        warnings.warn(message, GlasWarning, stacklevel=4)
    return group_pairs([name for name in wanted if counts[name] >= 2], study.case, study.control)


def _groups_of_omnibus(pairs: Sequence[Groups]) -> Groups:
    """Return the groups that are tested together, the case first and the control last."""
    groups = tuple(dict.fromkeys(name for pair in pairs for name in pair))
    if len(groups) < 3:
        raise GlasError(
            "an omnibus test (omnibus=True, --omnibus) needs at least 3 groups of at least 2 participants with "
            f"results, got {' and '.join(groups) or 'none'}"
        )
    return groups


def _against(groups: Groups) -> str:
    return " against ".join(groups)


def _common_sidecar(study: _Study) -> dict[str, Any]:
    """Return what the sidecars of all files record."""
    return {
        **study.participants[0].records[0].content["Method"],
        **({"Notes": study.notes} if study.notes else {}),
        "InSample": study.in_sample,
        "Sources": [PROVENANCE],
        "GeneratedBy": generated_by(),
    }


def _provenance(study: _Study, groups: Mapping[str, GroupScores], options: GroupOptions) -> dict[str, Any]:
    """Return everything that went into the group level, for JSON."""
    records = [record for each in study.participants for record in each.records]
    return {
        "Description": "Groups of a study: maps, comparisons, ranks, laterality, relative density, strata, stability",
        "Groups": {name: [each.participant_id for each in group.participants] for name, group in groups.items()},
        "Case": study.case,
        "Control": study.control,
        **options.sidecar(),
        "Study": study.settings,
        "InSample": study.in_sample,
        "Inputs": {record.name: record.content["Files"] for record in records},
        "GeneratedBy": generated_by(),
    }


def _may_be_replaced(folder: Path) -> bool:
    """Return whether a folder has results of a group, or nothing but audits of participants' results."""
    return (folder / PROVENANCE).is_file() or all(path.match(AUDITS) for path in folder.iterdir())


def _refuse_other_results(folder: Path, provenance: Mapping[str, Any], options: GroupOptions) -> None:
    """Refuse a folder of results of other groups, options or explanations, or of participants who are left out now."""
    if not os.path.lexists(folder / PROVENANCE):
        return
    try:
        stored = read_json_object(folder / PROVENANCE, "the record of the group level")
    except GlasError:
        stored = {}
    new = json.loads(to_json(dict(provenance)))
    differing = [name.lower() for name in ("Case", "Control") if stored.get(name) != new[name]]
    differing += differences(stored.get("Study", {}), new["Study"])
    earlier = {(name, each) for name, group in stored.get("Groups", {}).items() for each in group}
    if earlier - {(name, each) for name, group in new["Groups"].items() for each in group}:
        differing.append("participants")
    differing += [name for name, key in options.sidecar_keys().items() if stored.get(key) != new[key]]
    if differing:
        raise GlasError(
            f"the results in {folder} were made with other {' and '.join(differing)}: move them, or give "
            "--overwrite (overwrite=True) to replace them"
        )


def _parcellation(record: Record, atlas: str | None) -> str | None:
    """Return the name of participants' own parcellations; None where everyone has the same search."""
    recorded = record.content["Method"]["Search"]
    if "parcellations" not in recorded:
        return None
    if atlas is not None and atlas != recorded["parcellations"]:
        raise GlasError(
            f"participants were explained on their own parcellations, {recorded['parcellations']}, which the group "
            f"level does not read: leave --atlas (atlas) out, got {atlas}"
        )
    return str(recorded["atlas"])


def atlas_of(out: Path, settings: Mapping[str, Any], record: Record, given: str | None = None) -> Atlas | None:
    """Return the atlas everyone was explained with; None for a grid.

    Parameters
    ----------
    out, settings, record
        The folder of the study, the content of its ``study.json``, and the record of a participant.
    given
        Name or path of the atlas. Default: the study's own copy.

    Raises
    ------
    GlasError
        The atlas does not exist, or is not the one that the participant was explained with.
    """
    recorded = record.content["Method"]["Search"]
    if "atlas" not in recorded:
        return None
    table = None if given else stored_search(out, settings.get("AtlasTable"))
    search = given or str(stored_search(out, settings.get("Search")))
    atlas = cast(Atlas, load_search(search, settings.get("AtlasSpace"), table))
    if atlas.sha256 != recorded["sha256"]:
        raise GlasError(f"the atlas {atlas.name} is not the one {record.name} was explained with: it has changed")
    return atlas


def _check_same_grid(groups: Sequence[GroupSums]) -> None:
    """Refuse to compare groups on different grids."""
    first, *others = groups
    for other in others:
        if first.grid.same_as(other.grid):
            continue
        shapes = f"{first.grid.shape} and {other.grid.shape}"
        raise GlasError(f"groups to be compared must share a grid, they are on {shapes}")


def _in_sample(participants: Sequence[ParticipantResults]) -> bool | str:
    """Return whether anyone's results are in-sample, with a warning; ``"unknown"`` where it was not recorded."""
    records = [record for each in participants for record in each.records]
    recorded = {record.content["InSample"] for record in records}
    if True in recorded:
        names = [record.name for record in records if record.content["InSample"] is True]
        message = f"scans explained by models trained on them: {len(names)}, such as that of {names[0]}"
        warnings.warn(message, GlasWarning, stacklevel=4)
        return True
    return "unknown" if "unknown" in recorded else False
