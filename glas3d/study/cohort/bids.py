"""Read a cohort from a BIDS folder: the scans, the groups of their participants, and the problems there are."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from glas3d.errors import GlasError, GlasWarning
from glas3d.imaging.files import no_image
from glas3d.imaging.scan import open_image
from glas3d.imaging.space import VoxelGrid
from glas3d.options import accepts, parse
from glas3d.study.cohort.accounting import similar_group
from glas3d.study.cohort.cohort import Cohort, count_participants, problem_table
from glas3d.study.cohort.layout import unread_files
from glas3d.study.cohort.options import Selection
from glas3d.study.cohort.participants_tsv import read_participants
from glas3d.study.cohort.scan_files import find_scans

_SCAN = ["participant_id", "session"]

Problem = dict[str, Any]


@accepts(Selection)
def read_cohort(bids_dir: str | os.PathLike[str], selection: Selection | None = None, **options: Any) -> Cohort:
    """Find the scans of a BIDS raw or derivative data set and the groups of their participants.

    The layouts of BIDS (raw and derivative, such as fMRIPrep's), CAT12 (with ``prefix``) and the CAPS of ClinicaDL are
    read (see `glas3d.study.cohort.layout.dataset_files`). Other folders of a data set are not: of its ``derivatives``,
    give the path of the folder wanted. Only the headers of the scans are read.

    Parameters
    ----------
    bids_dir
        The data set.
    selection
        Which scans make the cohort, as one object in place of the keywords.
    **options
        The fields of `Selection`.

    Returns
    -------
    The scans of all groups, and the problems of those that cannot be used.

    Raises
    ------
    GlasError
        The folder or the table of participants does not exist, no scan matches, a column is missing, an id is
        impossible, or a group has no participants. If ``on_error`` is ``"fail"``: a participant without a scan or a
        group, two scans for one session, or a file that is no image or has another grid.
    TypeError
        A keyword that is not an option.

    Warns
    -----
    GlasWarning
        Scans are left out; it names them and the reasons. Or the name of another group is similar to case or control,
        such as ``ad`` or ``CN``.
    """
    if selection is not None and options:
        raise GlasError(f"give a selection or its fields as keywords, got both: {', '.join(options)}")
    (given,) = (selection,) if selection is not None else parse(options, Selection, caller="read_cohort")
    root = Path(bids_dir)
    if not root.is_dir():
        raise GlasError(
            f"a BIDS data set must be a folder, {root} {'is a file' if root.exists() else 'does not exist'}"
        )
    participants = _read_groups(root, given)
    scans, problems = find_scans(root, given)
    if given.participant_label:
        participants, scans, problems = _restricted(root, given, participants, scans, problems)
    problems += _missing(root, participants, scans, problems, given)
    rows = _with_participants(scans, participants.drop(columns="in_sessions_tsv"))
    rows = rows.sort_values([*_SCAN, "path"])
    problems += _ungrouped(rows)
    rows = rows[rows["group"].notna()].drop(columns="listed")
    problems += _duplicated(rows, root)
    rows = rows[~rows.duplicated(_SCAN, keep=False)]
    unusable = list(_unusable(rows, given.same_grid))
    rows = rows[~rows["path"].isin([problem["path"] for problem in unusable])].reset_index(drop=True)
    first = [*_SCAN, "path", "group"]
    everyone = rows[[*first, *(name for name in rows if name not in first)]]
    group_of = dict(zip(participants["participant_id"], participants["group"], strict=True))
    table = problem_table([{"group": group_of.get(each["participant_id"])} | each for each in [*problems, *unusable]])
    listed = tuple(participants["participant_id"].unique())
    cohort = Cohort(root, everyone, table, given.case, given.control, given.on_error, listed)
    for sentence in cohort.similar_groups():
        warnings.warn(sentence, GlasWarning, stacklevel=2)
    return cohort.checked()


def _read_groups(root: Path, options: Selection) -> pd.DataFrame:
    """Read the table of participants, which must hold both groups."""
    path = options.participants_tsv or _participants_tsv(root)
    participants = read_participants(
        path, options.group_column, options.covariates, groups=(options.case, options.control)
    )
    for group in (options.case, options.control):
        if group not in set(participants["group"]):
            counts = ", ".join(f"{name} {n}" for name, n in count_participants(participants).items())
            similar = [name for name in dict.fromkeys(participants["group"].dropna()) if similar_group(name, group)]
            role = "case" if group == options.case else "control"
            advice = f"; did you mean {' or '.join(f'{role}={name!r}' for name in similar)}?" if similar else ""
            raise GlasError(
                f"no participant is of group {group}, {options.group_column} has {counts or 'no value'}{advice}"
            )
    return participants


def _participants_tsv(root: Path) -> Path:
    """Return the table of a data set, or of the one in whose derivatives it lies."""
    parent = root.resolve().parent
    for folder in (root, *([parent.parent] if parent.name == "derivatives" else [])):
        if (folder / "participants.tsv").is_file():
            return folder / "participants.tsv"
    raise GlasError(f"a cohort needs a table of its participants, {root} has no participants.tsv: give its path")


def _restricted(
    root: Path, options: Selection, participants: pd.DataFrame, scans: pd.DataFrame, problems: list[Problem]
) -> tuple[pd.DataFrame, pd.DataFrame, list[Problem]]:
    """Return the rows and problems of the participants that are selected by their labels."""
    wanted = [f"sub-{label}" for label in options.participant_label]
    known = {*participants["participant_id"], *scans["participant_id"]}
    if unknown := [participant_id for participant_id in wanted if participant_id not in known]:
        raise GlasError(f"no such participant in {root}: {', '.join(unknown)}")
    return (
        participants[participants["participant_id"].isin(wanted)],
        scans[scans["participant_id"].isin(wanted)],
        [problem for problem in problems if problem["participant_id"] in wanted],
    )


def _with_participants(scans: pd.DataFrame, participants: pd.DataFrame) -> pd.DataFrame:
    """Return each scan with the row of its session, or else of its participant; ``listed`` says if there is one."""
    of_all_sessions = participants["session"] == ""
    by_participant = scans["participant_id"].isin(participants.loc[of_all_sessions, "participant_id"])
    parts = [
        scans[by_participant].merge(
            participants[of_all_sessions].drop(columns="session"), on="participant_id", how="left", indicator="listed"
        ),
        scans[~by_participant].merge(participants[~of_all_sessions], on=_SCAN, how="left", indicator="listed"),
    ]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _missing(
    root: Path, participants: pd.DataFrame, scans: pd.DataFrame, problems: list[Problem], options: Selection
) -> list[Problem]:
    """Return the participants with a group, or their sessions that are wanted, that have no file."""
    existing = {*zip(scans["participant_id"], scans["session"], strict=True)}
    existing |= {(problem["participant_id"], problem["session"]) for problem in problems}
    with_files = {participant_id for participant_id, _ in existing}
    selected = [f"ses-{label}" for label in options.session]
    missing: list[Problem] = []
    for row in participants[participants["group"].notna()].to_dict("records"):
        participant_id, session = row["participant_id"], row["session"]
        if not session:
            wanted = selected or ([] if participant_id in with_files else [""])
        elif row["in_sessions_tsv"] and not selected and participant_id in with_files:
            wanted = []  # a sessions.tsv may list sessions without a scan
        else:
            wanted = [session] if not selected or session in selected else []
        missing += [
            {
                "participant_id": participant_id,
                "session": absent,
                "group": row["group"],
                "problem": "missing",
                "detail": ""
                if participant_id in with_files
                else unread_files(root / participant_id, root, tuple(options.extension)),
            }
            for absent in wanted
            if (participant_id, absent) not in existing
        ]
    return missing


def _ungrouped(rows: pd.DataFrame) -> Iterator[Problem]:
    for row in rows[rows["group"].isna()].to_dict("records"):
        detail = "not in the participants' table" if row["listed"] == "left_only" else ""
        yield {key: row[key] for key in _SCAN} | {"group": None, "problem": "no group", "detail": detail}


def _duplicated(rows: pd.DataFrame, root: Path) -> Iterator[Problem]:
    repeated = rows[rows.duplicated(_SCAN, keep=False)]
    for (participant_id, session), files in repeated.groupby(_SCAN, sort=False):
        yield {
            "participant_id": participant_id,
            "session": session,
            "group": files["group"].iloc[0],
            "problem": "duplicated",
            "detail": " and ".join(path.relative_to(root).as_posix() for path in files["path"]),
        }


def _unusable(rows: pd.DataFrame, same_grid: bool) -> Iterator[Problem]:
    """Yield the scans that are no 3D image and, if all must share one grid, those on another grid than most."""
    grids: list[tuple[Problem, VoxelGrid]] = []
    for row in rows.to_dict("records"):
        scan = {key: row[key] for key in (*_SCAN, "group", "path")}
        if detail := no_image(row["path"]):
            yield scan | {"problem": "unreadable", "detail": detail}
            continue
        try:
            img = open_image(row["path"])
        except GlasError as error:
            yield scan | {"problem": "unreadable", "detail": f"{row['path']} is no image that can be read: {error}"}
            continue
        shape, affine = tuple(int(n) for n in img.shape), np.asarray(img.affine)
        if len(shape) < 3 or any(n != 1 for n in shape[3:]):
            detail = f"{row['path']} has shape {shape}, no 3D volume"
            yield scan | {"problem": "unreadable", "detail": detail}
            continue
        grids.append((scan, VoxelGrid(shape[:3], affine)))
    usual = _usual_grid([grid for _, grid in grids]) if same_grid else None
    if usual is None:
        return
    for scan, grid in grids:
        if not grid.same_as(usual):
            detail = f"scans must share one grid, its is {_described(grid)} and most are {_described(usual)}"
            yield scan | {"problem": "grid", "detail": detail}


def _usual_grid(grids: list[VoxelGrid]) -> VoxelGrid | None:
    """Return the most frequent of several different grids, the first of those that are equally frequent."""
    counts: list[tuple[VoxelGrid, int]] = []
    for grid in grids:
        i = next((i for i, (known, _) in enumerate(counts) if known.same_as(grid)), len(counts))
        counts[i : i + 1] = [(grid, 1 + (counts[i][1] if i < len(counts) else 0))]
    return max(counts, key=lambda count: count[1])[0] if len(counts) > 1 else None


def _described(grid: VoxelGrid) -> str:
    size, first = (" x ".join(f"{v:.3g}" for v in values) for values in (grid.spacing, grid.affine[:3, 3]))
    return f"{' x '.join(map(str, grid.shape))} of {size} mm from {first}"
