"""Resolve settings of a study that name files: one for everyone, or each participant's own, found by a pattern."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from glas3d.bids_names import bids_label
from glas3d.errors import GlasError
from glas3d.hashing import file_sha256

NAMING_FILES = ("search", "background", "mask_img", "brain_mask", "transform", "inverse")
"""The options of `explain_img` that may name files (``search``: an atlas; ``inverse``: of `load_transform`)."""

# What these settings may be besides files.
_WORDS = {"background": ("auto", "reference", "matched", "blur"), "brain_mask": ("auto",)}
# What messages call a setting.
_CALLED = {"search": "atlas"}
_PLACEHOLDERS = ("{participant_id}", "{session_id}")


def storable(name: str, value: Any) -> Any:
    """Return a setting in a form that workers and JSON can take; paths of existing files become absolute.

    Parameters
    ----------
    name
        Name of the setting.
    value
        A number, a text, a path, or lists and mappings of these.

    Raises
    ------
    GlasError
        The value is of another type.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): storable(name, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(name, item) for item in value]
    if not isinstance(value, str | int | float | bool | None):
        raise GlasError(f"settings of a study must be numbers, texts or files, {name} is a {type(value).__name__}")
    if name in NAMING_FILES and isinstance(value, str) and not is_pattern(value) and Path(value).exists():
        return str(Path(value).resolve())
    return value


def is_pattern(value: Any) -> bool:
    """Return whether a text names each participant's own file, by ``{participant_id}`` or ``{session_id}``."""
    return isinstance(value, str) and any(placeholder in value for placeholder in _PLACEHOLDERS)


def has_pattern(value: Any) -> bool:
    """Return whether any text in a setting is a pattern."""
    return any(map(is_pattern, _texts(value)))


def label_of_pattern(pattern: str) -> str:
    """Return what file names call the parcellations that a pattern names: their ``atlas``, ``seg`` or ``desc``.

    Where the file's name has none of these entities, it is what the names of all participants share.

    Examples
    --------
    >>> label_of_pattern("{participant_id}/anat/{participant_id}_space-T1w_desc-aparcaseg_dseg.nii.gz")
    'aparcaseg'
    >>> label_of_pattern("freesurfer/{participant_id}/mri/aparc+aseg.mgz"), label_of_pattern("{participant_id}.nii")
    ('aparcaseg', 'own')
    """
    parts = Path(pattern).name.partition(".")[0].split("_")
    for key in ("atlas", "seg", "desc"):
        for part in parts:
            if part.startswith(f"{key}-") and (label := bids_label(part.removeprefix(f"{key}-"))):
                return label
    for placeholder in _PLACEHOLDERS:
        pattern = pattern.replace(placeholder, "")
    shared = Path(pattern).name.partition(".")[0].split("_")
    of_grid = ("space-", "res-", "den-")
    return bids_label("".join(part for part in shared if part != "dseg" and not part.startswith(of_grid))) or "own"


def file_hashes(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of every file that the settings name, by its path."""
    texts = (text for name in NAMING_FILES for text in _texts(settings.get(name)))
    return {text: file_sha256(Path(text)) for text in texts if Path(text).is_file()}


def check_files(settings: Mapping[str, Any]) -> None:
    """Refuse files that do not exist; patterns are resolved later, for each participant.

    Raises
    ------
    GlasError
        A mask, a transform or a background that is not a file.
    """
    for name in NAMING_FILES:
        for text in _texts(settings.get(name)):
            if not (is_pattern(text) or Path(text).exists() or text in _WORDS.get(name, ())):
                raise GlasError(f"no such file: {text}, as {name}")


def recordable(settings: Mapping[str, Any], hashes: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings for a record, in which files have names and hashes but no folders.

    Parameters
    ----------
    settings
        The settings, see `storable`.
    hashes
        Hashes of files by their paths, see `file_hashes`.
    """

    def name_and_hash(text: str) -> str:
        if text in hashes:
            return f"{Path(text).name} sha256:{hashes[text]}"
        return Path(text).name if os.path.isabs(text) else text

    return {
        name: _with_texts(value, name_and_hash) if name in NAMING_FILES else value for name, value in settings.items()
    }


def participant_settings(settings: Mapping[str, Any], root: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are a participant's own: files found by patterns, and covariates.

    Parameters
    ----------
    settings
        The settings of the study; ``covariates`` names columns of the participants' table.
    root
        The folder of the data set, in which patterns are searched.
    row
        The participant's row of the cohort's table: ``participant_id``, ``session`` and the columns of covariates.

    Raises
    ------
    GlasError
        No file or several files match a pattern, or a covariate is not a number.
    """
    own: dict[str, Any] = {}
    for name in NAMING_FILES:
        if has_pattern(settings.get(name)):
            own[name] = _with_texts(settings[name], lambda text, name=name: _match(name, text, root, row))  # type: ignore[misc]
    if "covariates" in settings:
        own["covariates"] = {column: _covariate(column, row) for column in settings["covariates"]}
    return own


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return a setting with each of its texts changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _with_texts(item, change) for key, item in value.items()}
    return [_with_texts(item, change) for item in value] if isinstance(value, list) else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _match(name: str, pattern: str, root: Path, row: Mapping[str, Any]) -> str:
    """Return the one file that matches a pattern for a participant, in the folder of the data set."""
    if not is_pattern(pattern):
        return pattern
    name = _CALLED.get(name, name)
    text = pattern.replace("{participant_id}", row["participant_id"]).replace("{session_id}", row["session"])
    folder = root.resolve()
    if not Path(os.path.normpath(folder / text)).is_relative_to(folder):
        raise GlasError(f"the {name} of each participant must lie in the folder of the data set, {root}, got {pattern}")
    matches = glob.glob(os.path.join(glob.escape(str(folder)), text))
    paths = sorted(Path(os.path.normpath(match)) for match in matches)
    if len(paths) != 1:
        came = " and ".join(path.name for path in paths[:3]) if paths else "none"
        raise GlasError(f"the {name} of a participant must be one file, {text} in {root} matches {came}")
    return str(paths[0])


def _covariate(column: str, row: Mapping[str, Any]) -> float:
    value = row.get(column)
    if isinstance(value, str) or value is None or value != value:
        came = f"is {value!r}" if isinstance(value, str) else "is missing"
        raise GlasError(f"the covariates of a model must be numbers, {column} of {row['participant_id']} {came}")
    return float(value)
