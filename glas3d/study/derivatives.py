"""A study's folder: where a participant's results lie, what makes them final, and what a killed run left behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from glas3d.bids_names import PARTICIPANT_ID, SESSION_ID
from glas3d.errors import GlasError
from glas3d.hashing import file_sha256, text_sha256
from glas3d.output import generated_by, new_folder, remove_leftovers, remove_unfinished, write_json, write_together
from glas3d.tables import read_table, write_table

STUDY = "study.json"
FAILED = "participants_failed.tsv"
GROUP = "group"

_PART = "anat"
_IGNORED = (STUDY, FAILED, GROUP, "*_statmap.*", "*_regions.tsv", "*_record.json")


@dataclass(frozen=True)
class Record:
    """What a participant's folder says about itself.

    Attributes
    ----------
    participant_id, session
        ``session`` is empty where there is none.
    folder
        Where the files are.
    content
        ``Key Input Probability InSample Folds Method Files`` (see `write_participant`); ``Map`` where the map that
        groups share a grid in is not the scan's own, which is in its native space.
    """

    participant_id: str
    session: str
    folder: Path
    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.participant_id} {self.session}".strip()

    def table(self) -> pd.DataFrame:
        """The ranked table of regions or points, without those it was fused from, and without covariates.

        Raises
        ------
        GlasError
            It is not there, or not what was written.
        """
        path = self._whole(f"{self.content['Stem']}_regions.tsv")
        table = read_table(path, text=(), missing=("n/a",))
        return table[table["index"].notna()].astype({"index": "int64"}).reset_index(drop=True)

    def map_path(self) -> Path:
        """The path of the saliency map that groups share a grid in; see `table`."""
        return self._whole(self.content.get("Map", f"{self.content['Stem']}_stat-saliency_statmap.nii.gz"))

    def _whole(self, name: str) -> Path:
        path = self.folder / name
        if self.content["Files"].get(path.name) != _digest(path):
            raise GlasError(f"{path} is damaged or not there: explain {self.name} again")
        return path


def participant_folder(out: Path, participant_id: str, session: str = "") -> Path:
    """``out/sub-01/[ses-M00/]anat``.

    Raises
    ------
    GlasError
        Ids that are none, such as one that leads out of the folder.
    """
    if not PARTICIPANT_ID.fullmatch(participant_id):
        raise GlasError(f"a participant must be sub- with letters and digits after it, got {participant_id!r}")
    if session and not SESSION_ID.fullmatch(session):
        raise GlasError(f"a session must be ses- with letters and digits after it, or nothing, got {session!r}")
    return out / participant_id / session / _PART


def record_name(participant_id: str, session: str) -> str:
    """Name of the file beside a participant's maps that says that they are whole."""
    return "_".join(filter(None, [participant_id, session, "record.json"]))


def key_of(**parts: Any) -> str:
    """One hash over everything that decides a result.

    Examples
    --------
    >>> key_of(a=1, b=[2.0]) == key_of(b=(2.0,), a=1) != key_of(a=1, b=[3.0])
    True
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return text_sha256(text)


def is_finished(place: Path, name: str, key: str) -> bool:
    """Whether a folder holds whole results of a key: every file is what was written."""
    content = _read(place / name)
    return bool(content) and content["Key"] == key and not damaged_files(place, content)


def damaged_files(place: Path, content: Mapping[str, Any]) -> list[str]:
    """Files of a record that are not there, or not what was written."""
    return [name for name, digest in content["Files"].items() if _digest(place / name) != digest]


def write_participant(place: Path, name: str, save: Callable[[Path], object], record: Mapping[str, Any]) -> None:
    """Write a participant's folder: it appears whole, or not at all.

    Parameters
    ----------
    name
        Of the record (see `record_name`), whose ``Files`` will hold the hash of every file.
    save
        Writes the others into the folder it is given.

    Raises
    ------
    GlasError
        The folder has content that is not a participant's results, or cannot be written.
    """
    if place.is_dir():
        if any(place.iterdir()) and not _read(place / name):
            raise GlasError(f"{place} has content that is no participant's results: give another folder, or move it")
        with suppress(OSError):  # an empty one would be filled file by file
            place.rmdir()

    def write() -> None:
        with new_folder(place, lambda there: True) as scratch:
            save(scratch)
            files = {path.name: file_sha256(path) for path in sorted(scratch.iterdir())}
            write_json({**record, "Files": files})(scratch / name)

    _tried_again(write)
    remove_leftovers(place)


def begin(out: Path, name: str, study: Mapping[str, Any]) -> None:
    """Make a study's folder, or go on with it: description, what validators skip, and the study's settings.

    Raises
    ------
    GlasError
        It is not a study's and has content, or cannot be written.
    """
    check_study(out)
    description = {
        "Name": name,
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": generated_by(),
    }
    files: dict[str, Callable[[Path], object]] = {  # in this order: by the first a killed run knows its own
        STUDY: write_json(dict(study)),
        "dataset_description.json": write_json(description),
        ".bidsignore": lambda path: path.write_text("\n".join(_IGNORED) + "\n", encoding="utf-8"),
    }

    def write() -> None:
        remove_unfinished(out)
        write_together(out, files)

    _tried_again(write)


def _tried_again(write: Callable[[], None]) -> None:
    """Write; up to three times, for others that write the same at this moment take our scratch for a leftover."""
    for _ in range(2):
        with suppress(GlasError):
            return write()
    write()


def check_study(out: Path) -> None:
    """Refuse a place that is neither new, nor empty, nor a study's.

    Raises
    ------
    GlasError
        It holds something else.
    """
    if out.exists() and not out.is_dir():
        raise GlasError(f"a study's results need a folder, {out} is a file")
    if out.is_dir():
        there = sorted(path.name for path in out.iterdir() if not path.name.startswith(".unfinished-"))
        if there and not (out / STUDY).is_file():  # in this order: others may begin it at this moment
            raise GlasError(f"the folder must be new, empty or an earlier study's, {out} holds {there[0]}")


def read_study(out: Path) -> dict[str, Any]:
    """What `begin` wrote; empty when nothing was.

    Raises
    ------
    GlasError
        It is damaged.
    """
    path = out / STUDY
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GlasError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise GlasError(f"{path} is damaged: it holds no JSON object")
    return content


def read_records(out: Path) -> list[Record]:
    """Every participant's (session's) record in a study's folder, sorted.

    Raises
    ------
    GlasError
        No such folder, or nobody's results in it.
    """
    if not (out / STUDY).is_file():
        raise GlasError(f"no results of participants in {out}: it has no {STUDY}; run the participant level first")
    found = list(_records(out))
    if not found:
        raise GlasError(f"no results of participants in {out}: run the participant level first")
    return found


def _records(out: Path) -> Iterator[Record]:
    methods: dict[str, Any] = {}
    for path in sorted([*out.glob(f"sub-*/{_PART}/*_record.json"), *out.glob(f"sub-*/ses-*/{_PART}/*_record.json")]):
        folders = path.relative_to(out).parts
        session = folders[1] if len(folders) == 4 else ""
        content = _read(path)
        if not content or path.name != record_name(folders[0], session):
            raise GlasError(f"{path} is damaged: remove {path.parent} and explain {folders[0]} again")
        method = content.get("Method")  # nearly always that of the others: kept once
        content["Method"] = methods.setdefault(json.dumps(method, sort_keys=True), method)
        yield Record(folders[0], session, path.parent, content)


def write_failed(out: Path, failed: pd.DataFrame, asked: set[tuple[str, str]]) -> None:
    """Bring ``participants_failed.tsv`` up to date; it is gone when nobody failed.

    Parameters
    ----------
    failed
        ``participant_id session error``.
    asked
        ``(participant_id, session)`` of this run; of others, what was there is kept.
    """
    path = out / FAILED
    rows = failed[["participant_id", "session", "error"]]
    if path.is_file():
        before = read_table(path).fillna("")
        kept = [key not in asked for key in zip(before["participant_id"], before["session"], strict=True)]
        rows = pd.concat([before[kept], rows], ignore_index=True)
    if rows.empty:
        path.unlink(missing_ok=True)
        return
    rows = rows.sort_values(["participant_id", "session"])
    write_together(out, {FAILED: write_table(rows.assign(session=rows["session"].where(rows["session"] != "")))})


def _read(path: Path) -> dict[str, Any]:
    """A record; empty when there is none, or it is no record."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(content, dict) and isinstance(content.get("Files"), dict) and "Key" in content
    return content if whole else {}


def _digest(path: Path) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return None
