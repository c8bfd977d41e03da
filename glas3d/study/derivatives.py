"""Write and read the folder of a study: each participant's results with their record, whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import pandas as pd
from nibabel.orientations import io_orientation, ornt_transform

from glas3d.bids_names import PARTICIPANT_ID, SESSION_ID
from glas3d.errors import GlasError, GlasWarning
from glas3d.hashing import file_sha256, text_sha256
from glas3d.imaging.scan import open_image, read_image
from glas3d.imaging.space import VoxelGrid, mni_grid, resample
from glas3d.output import (
    DESCRIPTION,
    HASHES,
    REPORT,
    dataset_description,
    described_table,
    is_as_sealed,
    new_folder,
    refuse_links,
    remove_leftovers,
    remove_unfinished,
    sealed,
    to_json,
    write_json,
    write_together,
    write_with_hashes,
)
from glas3d.reading import read_bytes, read_json, read_json_object
from glas3d.study.regions import SharedRegions
from glas3d.tables import read_table

STUDY = "study.json"
AUDITS = "study_*_audit.json"  # of the results of participants, among those of the group
FAILED = "participants_failed.tsv"
GROUP = "group"
PROVENANCE = "provenance.json"  # in the folder of the group level
ATLAS = "atlas"

# What tells the results of two studies apart, and the entries of study.json that hold it.
_TOLD_APART_BY = {
    "target": ("Target",),
    "models": ("Models", "Activation", "ValueRange"),
    "search": ("Search", "SearchSha256", "AtlasSpace"),
    "settings": ("Settings",),
}
_PART = "anat"
_LISTED_IN = "ListedIn"  # the entry of study.json that names the file with the list of results
_TEMPLATE_MM = 2.0
# The folders of an absolute path, which are of this machine and its user.
_FOLDERS = re.compile(r"(?<![\w.~/\\])(?:file:)?(?:[A-Za-z]:)?[/\\]{1,3}(?:[^/\\\n'\",;:]+[/\\])+")
_FAILED_COLUMNS = {
    "participant_id": ("Identifier of the participant", ""),
    "session": ("Session of the scan; n/a where there are none", ""),
    "error": ("Why the scan was not explained", ""),
}
_IGNORED = (
    STUDY,
    FAILED,
    "participants_failed.json",
    HASHES,
    GROUP,
    ATLAS,
    REPORT,
    "*_statmap.*",
    "*_regions.tsv",
    "*_regions.json",
    "*_record.json",
)


@dataclass(frozen=True)
class Record:
    """The record of the results of a participant, or of one session.

    Attributes
    ----------
    participant_id, session
        ``session`` is empty if there are none.
    folder
        The folder of the files.
    content
        ``Key Input Probability InSample Folds Method Files`` (see `write_participant`), and ``Map``, the name of the
        map on the template's grid, if the scan's own maps are in its native space.
    grid
        The voxel grid to which `map_img` brings the map; None where all maps of the study share theirs.
    regions
        The regions to which `table` brings the rows; None where all tables of the study share theirs.
    """

    participant_id: str
    session: str
    folder: Path
    content: Mapping[str, Any]
    grid: VoxelGrid | None = None
    regions: SharedRegions | None = None

    @property
    def name(self) -> str:
        """The participant and the session, for messages."""
        return f"{self.participant_id} {self.session}".strip()

    def table(self) -> pd.DataFrame:
        """Read the ranked table of regions or points, without rows that have no index, such as those of covariates.

        Of participants' own parcellations it has a row for each region of the study, by index.

        Raises
        ------
        GlasError
            The file does not exist, or is not the one that was written.
        """
        path = self._undamaged(f"{self.content['Stem']}_regions.tsv")
        table = read_table(path, text=(), missing=("n/a",))
        table = table[table["index"].notna()].astype({"index": "int64"}).reset_index(drop=True)
        return table if self.regions is None else self.regions.align(table)

    def map_path(self) -> Path:
        """Return the path of the saliency map on the grid that all participants of a group share.

        Raises
        ------
        GlasError
            The file does not exist, or is not the one that was written.
        """
        return self._undamaged(self._map_name)

    def map_img(self) -> nib.Nifti1Image:
        """Return the saliency map on the grid that all participants of the study share.

        A map on another grid is turned, where only the orders and directions of the axes differ, or else resampled.

        Raises
        ------
        GlasError
            The file does not exist, or is not the one that was written.
        """
        img = cast(nib.Nifti1Image, read_image(self.map_path(), "a map"))
        if self.grid is None or _grid_of(img).same_as(self.grid):
            return img
        turned: nib.Nifti1Image = img.as_reoriented(
            ornt_transform(io_orientation(img.affine), io_orientation(self.grid.affine))
        )
        if _grid_of(turned).same_as(self.grid):
            return turned
        resampled = nib.Nifti1Image(resample(img, self.grid), self.grid.affine)
        resampled.set_sform(self.grid.affine, code=4)
        resampled.set_qform(self.grid.affine, code=4)
        resampled.header.set_xyzt_units("mm")
        return resampled

    def map_grid(self) -> VoxelGrid | None:
        """Return the grid of the map as it was written; None if its header cannot be read."""
        try:
            return _grid_of(open_image(self.folder / self._map_name, "a map"))
        except Exception:  # a header may be of any kind; `map_path` names the file that is damaged
            return None

    @property
    def _map_name(self) -> str:
        return str(self.content.get("Map", f"{self.content['Stem']}_stat-saliency_statmap.nii.gz"))

    def _undamaged(self, name: str) -> Path:
        path = self.folder / name
        if self.content["Files"].get(path.name) != _hash_of(path):
            raise GlasError(f"{path} is damaged or does not exist: explain {self.name} again")
        return path


def participant_folder(out: Path, participant_id: str, session: str = "") -> Path:
    """Return the folder of a participant's results, ``out/sub-01/[ses-M00/]anat``.

    Raises
    ------
    GlasError
        An impossible id, such as one that leads out of the folder; or a link in its place.
    """
    if not PARTICIPANT_ID.fullmatch(participant_id):
        raise GlasError(f"a participant must be sub- with letters and digits after it, got {participant_id!r}")
    if session and not SESSION_ID.fullmatch(session):
        raise GlasError(f"a session must be ses- with letters and digits after it, or nothing, got {session!r}")
    folder = out / participant_id / session / _PART
    refuse_links(out, folder)
    return folder


def record_name(participant_id: str, session: str) -> str:
    """Return the name of the record, which lies next to a participant's maps and lists them."""
    return "_".join(filter(None, [participant_id, session, "record.json"]))


def key_of(**parts: Any) -> str:
    """Return one hash of everything that decides a result.

    Examples
    --------
    >>> key_of(a=1, b=[2.0]) == key_of(b=(2.0,), a=1) != key_of(a=1, b=[3.0])
    True
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return text_sha256(text)


def is_finished(folder: Path, name: str, key: str) -> bool:
    """Return whether a folder holds the results of a key, and every file is as it was written.

    Parameters
    ----------
    folder
        A participant's folder.
    name
        Name of the record, see `record_name`.
    key
        See `key_of`.
    """
    content = read_record(folder / name)
    return bool(content) and content["Key"] == key and not damaged_files(folder, content)


def damaged_files(folder: Path, content: Mapping[str, Any]) -> list[str]:
    """Return the names of the files of a record that do not exist, or are not as they were written."""
    return [name for name, digest in content["Files"].items() if _hash_of(folder / name) != digest]


def write_participant(folder: Path, name: str, save: Callable[[Path], object], record: Mapping[str, Any]) -> None:
    """Write a participant's folder, which appears whole or not at all.

    Parameters
    ----------
    folder
        The participant's folder; earlier results in it are replaced.
    name
        Name of the record, see `record_name`.
    save
        Called with a folder, into which it writes all other files.
    record
        Content of the record; the hash of every file is added as ``Files``, that of the record as ``Sha256``.

    Raises
    ------
    GlasError
        The folder has other content than a participant's results, or cannot be written.
    """
    if folder.is_dir():
        if any(folder.iterdir()) and not read_record(folder / name):
            raise GlasError(f"{folder} has content that is no participant's results: give another folder, or move it")
        with suppress(OSError):  # an empty folder would be filled file by file
            folder.rmdir()

    def write() -> None:
        with new_folder(folder, lambda existing: True) as scratch:
            save(scratch)
            sealed(write_json(dict(record)))(scratch / name)

    _write_repeatedly(write)
    remove_leftovers(folder)


def start_study(out: Path, name: str, study: Mapping[str, Any], search_files: Sequence[Path] = ()) -> None:
    """Make the folder of a study, or resume one.

    It writes the settings of the study, the description of the data set, the list of files that validators skip, and
    copies of the atlas or the coordinates that are searched, so that the study needs no path of this machine; and the
    hashes of these files to ``hashes.json``, to which `list_results` adds.

    Parameters
    ----------
    out
        The folder.
    name
        Title of the data set.
    study
        Content of ``study.json``.
    search_files
        The files of an atlas or of coordinates that are not shipped.

    Raises
    ------
    GlasError
        The folder has other content than a study, or cannot be written.
    """
    check_study_folder(out)
    files: dict[str, Callable[[Path], object]] = {  # in this order: a killed run recognises its folder by the first
        STUDY: write_json({**study, _LISTED_IN: HASHES}),
        DESCRIPTION: write_json(dataset_description(name)),
        ".bidsignore": lambda path: path.write_text("\n".join(_IGNORED) + "\n", encoding="utf-8"),
    }

    def write() -> None:
        remove_unfinished(out)
        if search_files:
            refuse_links(out, out / ATLAS)
        changed = any(_hash_of(out / ATLAS / path.name) != _hash_of(path) for path in search_files)
        copies = {f"{ATLAS}/{path.name}": partial(shutil.copyfile, path) for path in search_files if changed}
        write_with_hashes(out, files | copies)

    _write_repeatedly(write)


def list_results(out: Path) -> None:
    """Add all results that are there to the list in ``hashes.json``, by which a later loss of a whole one is noticed.

    They are the records of participants, the provenance of the group level, and the study's own files. What is listed
    stays listed: a participant who is removed on purpose leaves the list when ``hashes.json`` is removed and a level is
    run again.

    Raises
    ------
    GlasError
        The folder cannot be written to.
    """

    def write() -> None:
        own = [out / STUDY, out / DESCRIPTION, out / ".bidsignore", *(out / ATLAS).glob("*")]
        there = (path for path in (*own, *_record_paths(out), out / GROUP / PROVENANCE) if path.is_file())
        write_with_hashes(out, {}, [path.relative_to(out).as_posix() for path in there])

    _write_repeatedly(write)


def _write_repeatedly(write: Callable[[], None]) -> None:
    """Write, up to three times: another process that writes the same may remove our unfinished files as leftovers."""
    for _ in range(2):
        with suppress(GlasError):
            return write()
    write()


def check_study_folder(out: Path) -> None:
    """Refuse a folder that is neither new, nor empty, nor that of a study.

    Raises
    ------
    GlasError
        It has other content, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise GlasError(f"a study's results need a folder, {out} is a file")
    if out.is_dir():
        content = sorted(path.name for path in out.iterdir() if not path.name.startswith(".unfinished-"))
        if content and not is_study(out):  # in this order: another process may start it at this moment
            raise GlasError(f"the folder must be new, empty or an earlier study's, {out} holds {content[0]}")


def refuse_other_study(out: Path, study: Mapping[str, Any]) -> None:
    """Refuse a folder whose results of participants were made with another target, models, search or settings.

    Parameters
    ----------
    out
        The folder of a study.
    study
        The content that its ``study.json`` would get.

    Raises
    ------
    GlasError
        There are such results; the message names what differs.
    """
    differing = differences(read_study(out), study)
    if differing and next(_record_paths(out), None) is not None:
        raise GlasError(
            f"the results in {out} were made with other {' and '.join(differing)}: give another folder, or --overwrite "
            "(overwrite=True) to replace them"
        )


def stored_search(out: Path, search: Any) -> Any:
    """Return what a study searched, from its ``study.json``: a path of the study's own copy, a name or a grid."""
    copy = out / ATLAS / Path(search).name if isinstance(search, str) else None
    return str(copy) if copy is not None and copy.is_file() else search


def differences(stored: Mapping[str, Any], study: Mapping[str, Any]) -> list[str]:
    """Return in what two studies differ: target, models, search or settings.

    Parameters
    ----------
    stored
        The content of a ``study.json``, see `read_study`.
    study
        The content that ``study.json`` would get.
    """
    new = json.loads(to_json(dict(study)))
    if stored.get("Search") != new.get("Search") and os.path.isabs(str(stored.get("Search"))):
        stored = {**stored, "Search": Path(stored["Search"]).name}  # earlier versions stored a path
    return [
        what
        for what, names in _TOLD_APART_BY.items()
        if any(name in stored and stored[name] != new.get(name) for name in names)
    ]


def read_study(out: Path) -> dict[str, Any]:
    """Read the settings that `start_study` wrote, or those in the records if that file was lost; empty without both.

    Raises
    ------
    GlasError
        The file is damaged.
    """
    path = out / STUDY
    if not path.is_file():
        return _study_of_records(out)
    content = read_json_object(path, "the settings of a study")
    content.pop(_LISTED_IN, None)
    return content


def has_list(out: Path) -> bool:
    """Return whether the folder of a study has a list of its results (see `list_results`), or had one that is lost."""
    return (out / HASHES).is_file() or f'"{_LISTED_IN}": "{HASHES}"' in _text_of(out / STUDY)


def lost_participants(out: Path) -> list[Path]:
    """Return the records that are not there of participants who are in the results of the group level."""
    try:
        inputs = read_json_object(out / GROUP / PROVENANCE, "the record of the group level")["Inputs"]
        names = [(*str(name).split(" "), "")[:2] for name in inputs]
    except (GlasError, KeyError, TypeError):
        return []
    paths = [
        out / name / session / _PART / record_name(name, session)
        for name, session in names
        if PARTICIPANT_ID.fullmatch(name) and (not session or SESSION_ID.fullmatch(session))
    ]
    return [path for path in paths if not os.path.isfile(path)]


def _text_of(path: Path) -> str:
    try:
        return read_bytes(path, "the settings of a study").decode(errors="replace")
    except GlasError:
        return ""


def is_study(out: Path) -> bool:
    """Return whether a folder is that of a study: by its ``study.json``, or by a record where that file was lost."""
    return (out / STUDY).is_file() or bool(_study_of_records(out))


def _study_of_records(out: Path) -> dict[str, Any]:
    """Return the settings of the study that a participant's record holds; empty if there is none."""
    found = (read_record(path).get("Study") for path in _record_paths(out))
    return next((study for study in found if isinstance(study, dict)), {})


def missing_results(folder: Path, name: str) -> bool:
    """Return whether a participant's record or one of its files is not there, without reading the files."""
    content = read_record(folder / name)
    return not content or not all(os.path.isfile(folder / file) for file in content["Files"])


def read_records(out: Path) -> list[Record]:
    """Return the records of all participants and sessions in the folder of a study, sorted.

    Where maps lie on different voxel grids, all are brought to one when they are read (see `Record.map_img`): that of
    the first, if only the orders and directions of axes differ, and else the template's, with voxels of 2 mm. Where
    participants have parcellations of their own, all tables get the same rows (see `Record.table`).

    Raises
    ------
    GlasError
        The folder is not that of a study, has no results, has a record that is damaged, or has participants' own
        parcellations that name regions differently.

    Warns
    -----
    GlasWarning
        Maps will be resampled to the template's grid.
    """
    if not is_study(out):
        raise GlasError(f"no results of participants in {out}: it has no {STUDY}; run the participant level first")
    records = list(_records(out))
    if not records:
        raise GlasError(f"no results of participants in {out}: run the participant level first")
    grid, regions = _shared_grid(records), _shared_regions(records)
    return [replace(record, grid=grid, regions=regions) for record in records]


def _shared_regions(records: list[Record]) -> SharedRegions | None:
    """Return the regions of participants' own parcellations; None where all have the same atlas or grid."""
    own = [record for record in records if "parcellations" in (record.content.get("Method") or {}).get("Search", {})]
    if not own:
        return None
    regions = SharedRegions()
    tables = {record.name: record.table() for record in own}
    for name, table in tables.items():
        regions.add(name, table[table["n_voxels"] > 0])
    for name, table in tables.items():  # those that no participant has a voxel of keep their row, too
        regions.add(name, table[[index not in regions for index in table["index"]]])
    return regions


def _shared_grid(records: list[Record]) -> VoxelGrid | None:
    """Return the grid for the maps of a study; None where they share theirs."""
    grids: list[VoxelGrid] = []
    for record in records:
        grid = record.map_grid()
        if grid is not None and not any(grid.same_as(known) for known in grids):
            grids.append(grid)
    if len(grids) <= 1:
        return None
    empty = [nib.Nifti1Image(np.broadcast_to(np.uint8(0), grid.shape), grid.affine) for grid in grids]
    turned = [_grid_of(nib.as_closest_canonical(img)) for img in empty]
    if all(grid.same_as(turned[0]) for grid in turned):
        return grids[0]
    message = f"maps lie on {len(grids)} different voxel grids, they are resampled to the template's of 2 mm"
    warnings.warn(message, GlasWarning, stacklevel=3)
    return mni_grid(_TEMPLATE_MM)


def _grid_of(img: Any) -> VoxelGrid:
    return VoxelGrid(tuple(int(n) for n in img.shape[:3]), img.affine)


def _records(out: Path) -> Iterator[Record]:
    methods: dict[str, Any] = {}
    for path in sorted(_record_paths(out)):
        folders = path.relative_to(out).parts
        session = folders[1] if len(folders) == 4 else ""
        content = read_record(path)
        if not content or path.name != record_name(folders[0], session):
            raise GlasError(f"{path} is damaged: remove {path.parent} and explain {folders[0]} again")
        method = content.get("Method")  # nearly always the same for all, and then held in memory once
        content["Method"] = methods.setdefault(json.dumps(method, sort_keys=True), method)
        content.pop("Study", None)  # the same for all
        yield Record(folders[0], session, path.parent, content)


def _record_paths(out: Path) -> Iterator[Path]:
    yield from out.glob(f"sub-*/{_PART}/*_record.json")
    yield from out.glob(f"sub-*/ses-*/{_PART}/*_record.json")


def write_failed(out: Path, failed: pd.DataFrame, attempted: set[tuple[str, str]], *folders: Path) -> None:
    """Update ``participants_failed.tsv``, which is removed if nobody failed.

    Parameters
    ----------
    out
        The folder of the study.
    failed
        The scans that failed in this run: ``participant_id session error``.
    attempted
        ``(participant_id, session)`` of all scans of this run; earlier rows of other scans are kept.
    *folders
        Where scans and models lie. Errors are written without the folders of absolute paths.
    """
    path = out / FAILED
    rows = failed[["participant_id", "session", "error"]]
    rows = rows.assign(error=[_without_folders(error, (out, *folders)) for error in rows["error"]])
    if path.is_file():
        earlier = read_table(path).fillna("")
        kept = [key not in attempted for key in zip(earlier["participant_id"], earlier["session"], strict=True)]
        rows = pd.concat([earlier[kept], rows], ignore_index=True)
    if rows.empty:
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        return
    rows = rows.sort_values(["participant_id", "session"])
    rows = rows.assign(session=rows["session"].where(rows["session"] != ""))
    write_together(out, described_table(path.stem, rows, _FAILED_COLUMNS))


def _without_folders(text: str, known: Iterable[Path]) -> str:
    """Return a message without the folders of absolute paths; those known may have any characters in their names."""
    for folder in known:
        for path in (folder.absolute(), folder.resolve()):
            text = text.replace(f"{path}{os.sep}", "")
    return _FOLDERS.sub("", text)


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of a record; empty if the file does not exist, or is no record as it was written."""
    try:
        content = read_json(path, "a record")
    except GlasError:
        return {}
    is_record = isinstance(content, dict) and isinstance(content.get("Files"), dict) and "Key" in content
    return content if is_record and is_as_sealed(content) else {}


def _hash_of(path: Path) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return None
