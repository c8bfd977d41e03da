"""From a study's folder to its groups: maps, comparisons, ranks, sides, strata and stability, all in ``out/group``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from glas3d.errors import GlasError, GlasWarning
from glas3d.explain import ScanExplanation
from glas3d.imaging.atlas import Atlas
from glas3d.output import bids_label, generated_by, new_folder, remove_leftovers, write_json, write_table
from glas3d.study.derivatives import GROUP, Record, read_records, read_study
from glas3d.study.design import strata
from glas3d.study.group import GroupMap, Statistic, painted
from glas3d.study.members import Participant, design_of, members_of, values_of
from glas3d.study.plan import searched
from glas3d.study.points import PointMap
from glas3d.study.regions import density, laterality
from glas3d.study.stability import bootstrap_ranks, run_stability
from glas3d.study.statistics import compare

_PROVENANCE = "provenance.json"
_STATISTICS: tuple[Statistic, ...] = ("mean", "variance", "overlap")


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
        The comparison of case and control (see `compare`); None without.
    """

    place: Path
    groups: dict[str, int]
    tables: dict[str, pd.DataFrame]
    statistics: pd.DataFrame | None


def summarise_groups(
    out: str | os.PathLike[str],
    people: pd.DataFrame,
    *,
    case: str,
    control: str,
    atlas: str | None = None,
    covariates: Sequence[str] = (),
    site: str | None = None,
    n_perm: int = 10_000,
    n_boot: int = 1000,
    top: float = 5.0,
    k: int = 10,
    seed: int = 0,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> GroupResult:
    """Read everyone's results and write ``out/group``; it appears whole, in place of an earlier one.

    A participant counts once, by the mean over sessions. Per group: the map and table of `GroupMap`, how participants
    vary, ranks with intervals over participants, sides, density, and stability over the folds' mean maps. Of case and
    control: `compare` of the scores, each participant's min-max normalised, its t and corrected p painted on the
    regions, and what was right and wrong (tp, fp, tn, fn). On a grid there are no regions: maps are summed voxel by
    voxel.

    Parameters
    ----------
    people
        ``participant_id group`` and covariates; ``session`` where groups belong to sessions.
    case, control
        Groups compared; the comparison is left out, with a warning, where one has fewer than two participants.
    atlas
        Name or path of the atlas everyone was explained with, when it is no more where it was.
    covariates, site, n_perm, n_boot, seed
        See `compare`.
    top
        See `GroupMap`.
    k
        Regions that stability takes for the top (fewer, where there are fewer regions).

    Raises
    ------
    GlasError
        No results, none of a participant of a group; results that are damaged, on different grids or explained
        differently; what `compare` refuses.

    Warns
    -----
    GlasWarning
        Participants without results or group, in-sample results, comparisons left out.
    """
    out = Path(out)
    members = list(members_of(read_records(out), people, case, control))
    study = read_study(out)
    looked_at = _atlas(atlas or study.get("Search"), members[0].records[0])
    groups = {name: [one for one in members if one.group == name] for name in sorted({one.group for one in members})}
    place = out / GROUP
    remove_leftovers(place)
    tables: dict[str, pd.DataFrame] = {}
    maps: dict[str, GroupMap | PointMap] = {}
    statistics: pd.DataFrame | None = None
    steps, total = 0, len(members) + 2
    with new_folder(place, lambda there: (there / _PROVENANCE).is_file()) as scratch:
        for name, ones in groups.items():
            group: GroupMap | PointMap
            group = PointMap(name, top=top) if looked_at is None else GroupMap(bids_label(name), looked_at, top=top)
            for one in ones:
                if isinstance(group, PointMap):
                    group.add(list(one.reads()))
                else:
                    for number, read in enumerate(one.reads()):
                        if number == 0:
                            group.add(cast(ScanExplanation, read))
                        else:  # their table is in the mean already: only refuse what does not fit
                            group.check(cast(ScanExplanation, read))
                steps += 1
                tick(steps, total)
            group.save(scratch)
            maps[name], tables[name] = group, group.table()
            _describe(scratch, f"group-{bids_label(name)}", ones, group, looked_at, n_boot, k, seed)
        tick(len(members) + 1, total)
        if _can_compare(groups, case, control):
            _check_alike(maps[case], maps[control])
            stem = f"group-{bids_label(case)}vs{bids_label(control)}"
            both = [one for one in members if one.group in (case, control)]
            values = values_of(both)
            design = design_of(both, people)
            statistics = compare(
                values,
                design,
                case,
                control,
                covariates=covariates,
                site=site,
                n_perm=n_perm,
                n_boot=n_boot,
                seed=seed,
            )
            statistics.insert(0, "index", both[0].table.sort_values("index")["index"].to_numpy())
            write_table(statistics)(scratch / f"{stem}_{_label(looked_at)}_statistics.tsv")
            if looked_at is not None:
                for column, short in (("t", "t"), ("neglog10p_fwe", "neglog10pfwe")):
                    img = painted(
                        looked_at, next(both[0].reads()).saliency_img, statistics["index"], statistics[column]
                    )
                    img.to_filename(scratch / f"{stem}_{_label(looked_at)}_stat-{short}_statmap.nii.gz")
            _strata(scratch, stem, both, values, case, control, looked_at)
        write_json(
            {
                "Description": "Groups of a study: maps, comparisons, ranks, laterality, density, strata, stability",
                "Groups": {name: [one.participant_id for one in ones] for name, ones in groups.items()},
                "Case": case,
                "Control": control,
                "Covariates": list(covariates),
                "Site": site,
                "Permutations": n_perm,
                "Resamples": n_boot,
                "Top": top,
                "K": k,
                "Seed": seed,
                "Study": study,
                "InSample": _in_sample(members),
                "Inputs": {one.name: one.content["Files"] for each in members for one in each.records},
                "GeneratedBy": generated_by(),
            }
        )(scratch / _PROVENANCE)
    tick(total, total)
    return GroupResult(place, {name: len(ones) for name, ones in groups.items()}, tables, statistics)


def _label(atlas: Atlas | None, description: str = "") -> str:
    """The entities of a file's name that say where was looked, and what it holds."""
    if atlas is None:
        return f"desc-grid{description}"
    return f"seg-{atlas.name}" + (f"_desc-{description}" if description else "")


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


def _can_compare(groups: Mapping[str, list[Participant]], case: str, control: str) -> bool:
    few = [f"{name} {len(groups.get(name, []))}" for name in (case, control) if len(groups.get(name, [])) < 2]
    if few:
        message = f"no comparison: it needs at least 2 participants with results a group, got {' and '.join(few)}"
        warnings.warn(message, GlasWarning, stacklevel=3)
    return not few


def _describe(
    place: Path,
    stem: str,
    members: Sequence[Participant],
    group: GroupMap | PointMap,
    atlas: Atlas | None,
    n_boot: int,
    k: int,
    seed: int,
) -> None:
    """Everything about one group beside its map and table."""
    table = group.table()
    write_table(group.variation())(place / f"{stem}_{_label(atlas, 'variation')}_regions.tsv")
    for statistic in _STATISTICS:
        if statistic != "variance" or len(members) > 1:
            group.statistic_img(statistic).to_filename(
                place / f"{stem}_{_label(atlas)}_stat-{statistic}_statmap.nii.gz"
            )
    write_table(density(table))(place / f"{stem}_{_label(atlas, 'density')}_regions.tsv")
    if atlas is not None and table["name"].str.endswith("_L").any():
        write_table(laterality(table))(place / f"{stem}_{_label(atlas, 'laterality')}_regions.tsv")
    if len(members) < 2:
        return
    values = values_of(members)
    if n_boot:
        write_table(bootstrap_ranks(values, n_boot, seed))(place / f"{stem}_{_label(atlas, 'ranks')}_regions.tsv")
    folds = sorted({one.folds for one in members if len(one.folds) == 1})
    if len(folds) > 1:
        means = pd.DataFrame(
            {f"fold-{fold}": values[[one.folds == (fold,) for one in members]].mean() for (fold,) in folds}
        ).T
        found = run_stability(means, min(k, values.notna().all().sum() - 1))
        write_table(found.pairs)(place / f"{stem}_{_label(atlas, 'foldpairs')}_stability.tsv")
        write_table(found.summary)(place / f"{stem}_{_label(atlas, 'folds')}_stability.tsv")


def _strata(
    place: Path,
    stem: str,
    members: Sequence[Participant],
    values: pd.DataFrame,
    case: str,
    control: str,
    atlas: Atlas | None,
) -> None:
    """Who was called what, and the mean map of each; for the case as the class explained."""
    target = members[0].records[0].content["Method"]["Target"]["class"]
    if target not in (case, control):
        return
    other = control if target == case else case
    called = [target if one.probability > 0.5 else other for one in members]
    kinds = strata([one.group for one in members], called, case)
    rows = pd.DataFrame(
        {
            "participant_id": [one.participant_id for one in members],
            "group": [one.group for one in members],
            "p": [one.probability for one in members],
            "predicted": called,
            "stratum": kinds,
            "n_sessions": [len(one.records) for one in members],
            "folds": [" ".join(map(str, one.folds)) for one in members],
        }
    )
    write_table(rows.assign(folds=rows["folds"].where(rows["folds"] != "")))(
        place / f"{stem}_{_label(atlas, 'strata')}_predictions.tsv"
    )
    means = [
        pd.DataFrame({"stratum": kind, "n": int((kinds == kind).sum()), "name": values.columns, "mean": one.to_numpy()})
        for kind in ("tp", "fp", "tn", "fn")
        if (kinds == kind).any() and (one := values[kinds == kind].mean()) is not None
    ]
    write_table(pd.concat(means, ignore_index=True))(place / f"{stem}_{_label(atlas, 'strata')}_regions.tsv")


def _in_sample(members: Sequence[Participant]) -> Any:
    """Whether anyone's results are in-sample, or nobody knows; with a warning."""
    said = {one.content["InSample"] for each in members for one in each.records}
    if True in said:
        seen = [one.name for each in members for one in each.records if one.content["InSample"] is True]
        message = f"scans explained by models trained on them: {len(seen)}, such as that of {seen[0]}"
        warnings.warn(message, GlasWarning, stacklevel=3)
        return True
    return "unknown" if "unknown" in said else False
