"""Find the files that belong to a data set, by the folders in which BIDS, CAPS and CAT12 put them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from glas3d.bids_names import PARTICIPANT_ID, SESSION_ID
from glas3d.errors import GlasError
from glas3d.imaging.files import is_dicom
from glas3d.reading import read_json_object

DESCRIPTION = "dataset_description.json"

_DATATYPES = frozenset(
    ("anat", "beh", "dwi", "eeg", "emg", "fmap", "func", "ieeg", "meg", "micr", "motion", "mrs", "nirs", "perf", "pet")
)
_CAPS_SUBJECTS = "subjects"
_CAPS_PIPELINE = re.compile(r"(t1|t2|flair|pet|dwi|fmri)([_-]\w*)?")
_CAT12_FOLDER = "mri"
_NOT_OF_CAPS = frozenset(("derivatives", "sourcedata", "code", "stimuli"))
_SIMULATED = re.compile(r"\b(simulated|synthetic)\b", re.IGNORECASE)
_FOLDERS_SEARCHED = 2000  # for a message only: a data set may hold millions of files


def dataset_files(root: Path, endings: tuple[str, ...], *, prefixed: bool = False) -> Iterator[str]:
    """Yield the files that belong to a data set, as paths relative to it with ``/``, sorted within each folder.

    These lie in ``sub-<label>/[ses-<label>/]<datatype>/`` (BIDS, raw or derivative), or in
    ``[subjects/]sub-<label>/ses-<label>/<pipeline>/`` with folders below it (CAPS). Files elsewhere do not belong to
    the data set: those in ``sourcedata``, ``code``, ``stimuli`` and ``derivatives``, in hidden folders such as
    ``.git``, or in what a converter left.

    Parameters
    ----------
    root
        The data set.
    endings
        Endings of the names of the files.
    prefixed
        Whether the names have a prefix before ``sub-``. Folders ``mri`` of CAT12 are read only then, in the data set,
        in a participant's or session's folder, and in that of a data type.

    Raises
    ------
    OSError
        A folder cannot be read.
    """
    for folder in _scan_folders(root, prefixed):
        relative = folder.relative_to(root)
        yield from ((relative / name).as_posix() for name in _names(folder, files=True) if name.endswith(endings))


def _scan_folders(root: Path, prefixed: bool) -> Iterator[Path]:
    """Yield the folders that may hold scans."""
    folders = _names(root)
    if prefixed and _CAT12_FOLDER in folders:
        yield root / _CAT12_FOLDER
    participants = [root / name for name in folders if PARTICIPANT_ID.fullmatch(name)]
    if _CAPS_SUBJECTS in folders:
        subjects = root / _CAPS_SUBJECTS
        participants += [subjects / name for name in _names(subjects) if PARTICIPANT_ID.fullmatch(name)]
    for participant in participants:
        yield from _folders_of_visit(participant, prefixed)
        for name in _names(participant):
            if SESSION_ID.fullmatch(name):
                yield from _folders_of_visit(participant / name, prefixed)
                yield from _caps_folders(participant / name)


def _folders_of_visit(folder: Path, prefixed: bool) -> Iterator[Path]:
    """Yield the folders of data types in the folder of a participant or a session."""
    for name in _names(folder):
        if name in _DATATYPES or (prefixed and name == _CAT12_FOLDER):
            yield folder / name
        if prefixed and name in _DATATYPES and _CAT12_FOLDER in _names(folder / name):
            yield folder / name / _CAT12_FOLDER


def _caps_folders(session: Path) -> Iterator[Path]:
    """Yield the folders of CAPS's pipelines in the folder of a session, and all below them."""
    for name in _names(session):
        if not _CAPS_PIPELINE.fullmatch(name) or name in _DATATYPES:
            continue
        for folder, subfolders, _ in os.walk(session / name, onerror=_raise, followlinks=True):
            subfolders[:] = sorted(each for each in subfolders if each[0] != "." and each not in _NOT_OF_CAPS)
            yield Path(folder)


def _names(folder: Path, *, files: bool = False) -> list[str]:
    """Return the sorted names of a folder's subfolders, or of all that are none."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() != files)


def check_description(root: Path) -> None:
    """Refuse a data set whose description is damaged; a data set may lack one.

    Raises
    ------
    GlasError
        ``dataset_description.json`` is not JSON, holds no object, or its ``BIDSVersion`` is no text.
    """
    path = root / DESCRIPTION
    if not os.path.lexists(path):
        return
    content = read_json_object(path, "the description of a data set")
    if not isinstance(content.get("BIDSVersion", ""), str):
        raise GlasError(f"a data set's BIDSVersion must be a text, {path} has {content['BIDSVersion']!r}")


def is_simulated(root: Path) -> bool:
    """Return whether a data set, or the one in whose derivatives it lies, is named as simulated in its description."""
    parent = root.resolve().parent
    for folder in (root, *([parent.parent] if parent.name == "derivatives" else [])):
        try:
            content = read_json_object(folder / DESCRIPTION, "the description of a data set")
        except GlasError:
            continue
        if _SIMULATED.search(str(content.get("Name", ""))):
            return True
    return False


def unread_files(folder: Path, root: Path, endings: tuple[str, ...]) -> str:
    """Return what a folder holds that is not read, for messages: DICOM files, or images; empty if neither is found.

    Parameters
    ----------
    folder
        The folder, such as that of a participant.
    root
        The data set, relative to which paths are given.
    endings
        Endings of the names of images.
    """
    if not folder.is_dir():
        return ""
    image = ""
    for current, subfolders, files in islice(os.walk(folder), _FOLDERS_SEARCHED):
        subfolders.sort()
        relative = Path(current).relative_to(root).as_posix()
        if any(is_dicom(Path(current) / name) for name in sorted(files)[:3]):
            return f"{relative} holds DICOM files, which dcm2niix converts to NIfTI"
        if not image and (names := [name for name in files if name.endswith(endings) and "sub-" in name]):
            image = f"{relative} holds {min(names)}, but scans are read from sub-<label>/[ses-<label>/]<datatype>/ only"
    return image


def _raise(error: OSError) -> None:
    raise error
