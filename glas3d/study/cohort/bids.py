"""Participants and their scans from BIDS folders: who is there, in which group, and what is wrong with whom."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import nibabel as nib
import pandas as pd

from glas3d.errors import GlasError, reason
from glas3d.imaging.space import VoxelGrid
from glas3d.study.cohort.cohort import Cohort, OnError, count_participants, frame, settled
from glas3d.study.cohort.participants_tsv import read_participants

_WITHOUT = "none"
_LABEL = re.compile(r"[0-9A-Za-z]+")
_AT_ONCE = 500  # files: the time that ancpbids takes grows with the square of a data set


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which scans of a BIDS folder make a cohort, and whom it compares.

    Labels are given without their key: ``session="M00"``, ``space="MNI152NLin2009cAsym"``.

    Parameters
    ----------
    suffix, space, desc, res
        Of the file's name; None: any; ``"none"``: files whose name has no space, desc or res, such as fMRIPrep's in
        native space.
    session
        One or several; none: all there are.
    extension
        One or several.
    prefix
        What stands before ``sub-``, such as CAT12's ``mwp1``.
    entities
        Others, such as ``{"label": "GM"}`` or ``{"run": "1"}``.
    participant_label
        Only these participants; none: everyone.
    participants_tsv
        Table of the participants (see `read_participants`);
        None: ``participants.tsv`` of the folder, or of the data set whose ``derivatives/`` it lies in.
    group_column
        The column that says whom a participant belongs to.
    case, control
        Its two values to compare; participants of other groups are kept for `Cohort.pair`.
    covariates
        Columns that must be there.
    same_grid
        Whether all scans must share one grid. Without it each is resampled from its own.
    on_error
        What becomes of participants without a scan or a group, of two files for one session, and of files
        that are no image or on another grid: the work ends (``"fail"``), or they are left out with a warning.

    Raises
    ------
    GlasError
        A label that none can be, or ``case`` and ``control`` that are one.
    """

    suffix: str | None = "T1w"
    space: str | None = None
    session: str | Sequence[str] = ()
    desc: str | None = None
    res: str | None = None
    extension: str | Sequence[str] = (".nii.gz", ".nii")
    prefix: str = ""
    entities: Mapping[str, str] = field(default_factory=dict)
    participant_label: str | Sequence[str] = ()
    participants_tsv: Path | None = None
    group_column: str = "group"
    case: str = "AD"
    control: str = "NC"
    covariates: str | Sequence[str] = ()
    same_grid: bool = True
    on_error: OnError = "fail"

    def __post_init__(self) -> None:
        for name in ("session", "extension", "participant_label", "covariates"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(map(str, value)))
        object.__setattr__(self, "session", tuple(one.removeprefix("ses-") for one in self.session))
        object.__setattr__(self, "participant_label", tuple(p.removeprefix("sub-") for p in self.participant_label))
        for name in ("session", "participant_label"):
            for label in getattr(self, name):
                if not _LABEL.fullmatch(label):
                    raise GlasError(f"{name} must be letters and digits, got {label!r}")
        if self.case == self.control:
            raise GlasError(f"case and control must be two groups, both are {self.case}")
        if self.on_error not in ("fail", "skip"):
            raise GlasError(f'on_error must be "fail" or "skip", got {self.on_error!r}')

    @property
    def wanted(self) -> dict[str, str]:
        """The entities a file must have, by the keys of its name."""
        short = {"space": self.space, "desc": self.desc, "res": self.res}
        return {key: str(value) for key, value in {**short, **self.entities}.items() if value is not None}


def read_cohort(bids_dir: Path, selection: Selection | None = None) -> Cohort:
    """Find the scans of a BIDS raw or derivative data set and the groups of their participants.

    Any folder whose files follow BIDS names will do: fMRIPrep's, CAT12's (with ``prefix``), or ClinicaDL's CAPS.
    A data set's own ``derivatives/`` is not searched: name the folder in it. Of the files only headers are read.

    Raises
    ------
    GlasError
        No such folder, no file that matches, no participants' table or not the columns asked for, ids that are
        none, a group nobody is in; problems of participants unless they are to be skipped.

    Warns
    -----
    GlasWarning
        Who is left out, and why.
    """
    selection = selection or Selection()
    root = Path(bids_dir)
    if not root.is_dir():
        raise GlasError(f"a BIDS data set must be a folder, {root} is {'a file' if root.exists() else 'not there'}")
    people = read_participants(
        selection.participants_tsv or _table_of(root), selection.group_column, selection.covariates
    )
    for group in (selection.case, selection.control):
        if group not in set(people["group"]):
            there = ", ".join(f"{name} {n}" for name, n in count_participants(people).items())
            raise GlasError(f"no participant is of group {group}, {selection.group_column} has {there or 'no value'}")
    scans, problems = _scans(root, selection)
    asked = [f"sub-{label}" for label in selection.participant_label]
    if asked:
        known = {*people["participant_id"], *scans["participant_id"]}
        if unknown := [name for name in asked if name not in known]:
            raise GlasError(f"no such participant in {root}: {', '.join(unknown)}")
        people, scans = (one[one["participant_id"].isin(asked)] for one in (people, scans))
        problems = [one for one in problems if one["participant_id"] in asked]

    problems += _missing(people, scans, problems, selection)
    joined = _joined(scans, people.drop(columns="described"))
    joined = joined.sort_values(["participant_id", "session", "path"])
    problems += _ungrouped(joined)
    joined = joined[joined["group"].notna()].drop(columns="known")
    problems += _duplicated(joined)
    joined = joined[~joined.duplicated(["participant_id", "session"], keep=False)]
    problems += (bad := list(_misread(joined, selection.same_grid)))
    everyone = joined[~joined["path"].isin([one["path"] for one in bad])].reset_index(drop=True)
    first = ["participant_id", "session", "path", "group"]
    everyone = everyone[[*first, *(name for name in everyone if name not in first)]]

    group_of = dict(zip(people["participant_id"], people["group"], strict=True))
    problems = [{"group": group_of.get(one["participant_id"])} | one for one in problems]
    return settled(Cohort(root, everyone, frame(problems), selection.case, selection.control, selection.on_error))


def _table_of(root: Path) -> Path:
    above = root.resolve().parent
    places = [root, *([above.parent] if above.name == "derivatives" else [])]
    for place in places:
        if (place / "participants.tsv").is_file():
            return place / "participants.tsv"
    raise GlasError(f"a cohort needs a table of its participants, {root} has no participants.tsv: give its path")


def _scans(root: Path, selection: Selection) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Files that match, ``participant_id session path``, and those whose place contradicts their name."""
    key = f"{selection.prefix}sub"
    files = [one for one in _images(root, selection.extension) if key in getattr(one, "entities", ())]
    rows, problems = [], []
    for file in files:
        names = {name: str(value) for name, value in file.entities.items()}
        session = names.get("ses", "")
        if selection.suffix not in (None, file.suffix) or (selection.session and session not in selection.session):
            continue
        if any(not _is(names.get(name, _WITHOUT), value) for name, value in selection.wanted.items()):
            continue
        path = Path(file.get_absolute_path())
        row = {"participant_id": f"sub-{names[key]}", "session": session and f"ses-{session}", "path": path}
        folders = {part for part in path.relative_to(root).parts[:-1] if part.startswith("sub-")}
        if not path.name.startswith(f"{key}-{names[key]}_") or folders - {row["participant_id"]}:
            problems.append(row | {"problem": "unreadable", "detail": f"{path.name} does not lie where its name says"})
        else:
            rows.append(row)
    if not rows and not problems:
        asked = {"suffix": selection.suffix, **selection.wanted, "session": "/".join(selection.session)}
        words = " ".join(f"{name} {value}" for name, value in asked.items() if value)
        there = f", such as {min(one.name for one in files)}" if files else ""
        raise GlasError(f"no scan in {root} has {words}, it has {len(files)} images with {key}- in their names{there}")
    return pd.DataFrame(rows, columns=["participant_id", "session", "path"]), problems


def _is(label: str, wanted: str) -> bool:
    """Whether it is the label wanted; an index such as that of a run is a number, ``02`` as ``2``."""
    return label == wanted or (label.isdecimal() and wanted.isdecimal() and int(label) == int(wanted))


def _joined(scans: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
    """Each scan with its session's row, or its participant's; ``known`` says whether there is one."""
    of_all = people["session"] == ""
    whole = scans["participant_id"].isin(people.loc[of_all, "participant_id"])
    parts = [
        scans[whole].merge(people[of_all].drop(columns="session"), on="participant_id", how="left", indicator="known"),
        scans[~whole].merge(people[~of_all], on=["participant_id", "session"], how="left", indicator="known"),
    ]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _images(root: Path, extension: Sequence[str]) -> list[Any]:
    """Files with these extensions, as ancpbids knows them."""
    try:
        from ancpbids import DatasetOptions, load_dataset
    except ImportError:
        raise GlasError('reading BIDS folders needs ancpbids: pip install "glas3d[study]"') from None
    options = DatasetOptions(ignore_pickle_file=True)  # a pickle can run any code
    found: list[Any] = []
    try:
        names = _names(root, (*extension, "dataset_description.json"))  # which is refused where it is damaged
        while some := list(islice(names, _AT_ONCE)):
            found += load_dataset(str(root), options, paths=some).query(scope="raw", extension=list(extension))
    except Exception as error:
        raise GlasError(f"the BIDS folder {root} cannot be read: {reason(error)}") from error
    return found


def _names(root: Path, endings: tuple[str, ...]) -> Iterator[str]:
    """Files below a folder, but not below its ``derivatives``, with ``/`` between the names."""

    def unreadable(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(root, onerror=unreadable, followlinks=True):
        within = Path(place).relative_to(root)
        folders[:] = sorted(one for one in folders if (within / one).as_posix() != "derivatives")
        yield from ((within / name).as_posix() for name in sorted(files) if name.endswith(endings))


def _missing(
    people: pd.DataFrame, scans: pd.DataFrame, problems: list[dict[str, Any]], selection: Selection
) -> list[dict[str, Any]]:
    """Participants of a group, or sessions of theirs that were asked for, without a file."""
    there = {*zip(scans["participant_id"], scans["session"], strict=True)}
    there |= {(one["participant_id"], one["session"]) for one in problems}
    anyone = {name for name, _ in there}
    asked = [f"ses-{label}" for label in selection.session]
    found: list[dict[str, Any]] = []
    for row in people[people["group"].notna()].to_dict("records"):
        name = row["participant_id"]
        if row["session"]:
            told = row["described"] and not asked and name in anyone
            wanted = [row["session"]] if not told and (not asked or row["session"] in asked) else []
        else:
            wanted = asked or ([] if name in anyone else [""])
        absent = [one for one in wanted if (name, one) not in there]
        same = {"participant_id": name, "group": row["group"], "problem": "missing", "detail": ""}
        found += [same | {"session": session} for session in absent]
    return found


def _ungrouped(joined: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in joined[joined["group"].isna()].to_dict("records"):
        detail = "not in the participants' table" if row["known"] == "left_only" else ""
        yield {key: row[key] for key in ("participant_id", "session")} | {"problem": "no group", "detail": detail}


def _duplicated(joined: pd.DataFrame) -> Iterator[dict[str, Any]]:
    twice = joined[joined.duplicated(["participant_id", "session"], keep=False)]
    for (name, session), rows in twice.groupby(["participant_id", "session"], sort=False):
        yield {
            "participant_id": name,
            "session": session,
            "group": rows["group"].iloc[0],
            "problem": "duplicated",
            "detail": " and ".join(path.name for path in rows["path"]),
        }


def _misread(joined: pd.DataFrame, same_grid: bool) -> Iterator[dict[str, Any]]:
    """Files nibabel cannot open, and those on another grid than most."""
    grids: list[tuple[dict[str, Any], VoxelGrid]] = []
    kinds: list[tuple[VoxelGrid, int]] = []
    for row in joined.to_dict("records"):
        one = {key: row[key] for key in ("participant_id", "session", "group", "path")}
        try:
            img: Any = nib.load(row["path"])
            shape, affine = tuple(int(n) for n in img.shape), img.affine
        except Exception as error:  # nibabel has many of its own
            yield one | {
                "problem": "unreadable",
                "detail": f"{row['path']} is no image nibabel can read: {reason(error)}",
            }
            continue
        if len(shape) < 3 or any(n != 1 for n in shape[3:]):
            yield one | {"problem": "unreadable", "detail": f"{row['path']} has shape {shape}, no 3D volume"}
            continue
        grid = VoxelGrid(shape[:3], affine)
        grids.append((one, grid))
        kind = next((i for i, (known, _) in enumerate(kinds) if known.same_as(grid)), len(kinds))
        kinds[kind : kind + 1] = [(grid, 1 + (kinds[kind][1] if kind < len(kinds) else 0))]
    if not same_grid or len(kinds) < 2:
        return
    pattern, _ = max(kinds, key=lambda kind: kind[1])
    for one, grid in grids:
        if not grid.same_as(pattern):
            detail = f"scans must share one grid, its is {_words(grid)} and most are {_words(pattern)}"
            yield one | {"problem": "grid", "detail": detail}


def _words(grid: VoxelGrid) -> str:
    size, first = (" x ".join(f"{v:.3g}" for v in values) for values in (grid.spacing, grid.affine[:3, 3]))
    return f"{' x '.join(map(str, grid.shape))} of {size} mm from {first}"
