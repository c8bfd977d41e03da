"""Settings of a study that name files: the same for everyone, or each participant's own, found by a pattern."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from glas3d.errors import GlasError
from glas3d.hashing import file_sha256

NAMING_FILES = ("background", "mask_img", "brain_mask", "transform", "inverse")
"""The settings of `explain_img` that may name files (``inverse``: of `load_transform`)."""

_BACKGROUNDS = ("auto", "blur")
_PLACES = ("{participant_id}", "{session_id}")


def plain(name: str, value: Any) -> Any:
    """A setting as every worker and JSON can have it: paths of files that are there are whole.

    Raises
    ------
    GlasError
        It is neither number nor text nor file, nor a list or mapping of those.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): plain(name, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(name, one) for one in value]
    if not isinstance(value, str | int | float | bool | None):
        raise GlasError(f"settings of a study must be numbers, texts or files, {name} is a {type(value).__name__}")
    if name in NAMING_FILES and isinstance(value, str) and not is_pattern(value) and Path(value).exists():
        return str(Path(value).resolve())
    return value


def is_pattern(value: Any) -> bool:
    """Whether a text names each participant's own file: it holds ``{participant_id}`` or ``{session_id}``."""
    return isinstance(value, str) and any(place in value for place in _PLACES)


def has_pattern(value: Any) -> bool:
    """Whether there is a pattern anywhere in a setting."""
    return any(map(is_pattern, _texts(value)))


def files_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of every file the settings name, by its path."""
    texts = (text for name in NAMING_FILES for text in _texts(settings.get(name)))
    return {text: file_sha256(Path(text)) for text in texts if Path(text).is_file()}


def check_files(settings: Mapping[str, Any]) -> None:
    """Refuse files that are not there; of patterns, those are told by participant.

    Raises
    ------
    GlasError
        A mask, a transform or a background that is no file.
    """
    for name in NAMING_FILES:
        for text in _texts(settings.get(name)):
            if not (is_pattern(text) or Path(text).exists() or (name == "background" and text in _BACKGROUNDS)):
                raise GlasError(f"no such file: {text}, as {name}")


def said(settings: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """The settings for a record, which names no place: files by name and hash."""

    def named(text: str) -> str:
        if text in files:
            return f"{Path(text).name} sha256:{files[text]}"
        return Path(text).name if os.path.isabs(text) else text

    return {name: mapped(value, named) if name in NAMING_FILES else value for name, value in settings.items()}


def own_of(settings: Mapping[str, Any], root: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in which a participant differs from the others.

    Parameters
    ----------
    root
        The data set's folder, from which patterns lead on.
    row
        Of the cohort's table: ``participant_id``, ``session`` and the columns that ``covariates`` names.

    Raises
    ------
    GlasError
        A pattern that no file matches, or several do; a covariate that is no number.
    """
    own: dict[str, Any] = {}
    for name in NAMING_FILES:
        if has_pattern(settings.get(name)):
            own[name] = mapped(settings[name], lambda text, name=name: _found(name, text, root, row))  # type: ignore[misc]
    if "covariates" in settings:
        own["covariates"] = {column: _number(column, row) for column in settings["covariates"]}
    return own


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A setting with each of its texts changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: mapped(one, change) for key, one in value.items()}
    return [mapped(one, change) for one in value] if isinstance(value, list) else value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(one)


def _found(name: str, pattern: str, root: Path, row: Mapping[str, Any]) -> str:
    if not is_pattern(pattern):
        return pattern
    names = {"participant_id": row["participant_id"], "session_id": row["session"]}
    text = pattern
    for place, value in names.items():
        text = text.replace(f"{{{place}}}", value)
    found = glob.glob(os.path.join(glob.escape(str(root.resolve())), text))
    paths = sorted(Path(os.path.normpath(one)) for one in found)
    if len(paths) != 1:
        came = " and ".join(path.name for path in paths[:3]) if paths else "none"
        raise GlasError(f"the {name} of a participant must be one file, {text} in {root} matches {came}")
    return str(paths[0])


def _number(column: str, row: Mapping[str, Any]) -> float:
    value = row.get(column)
    if isinstance(value, str) or value is None or value != value:
        came = f"is {value!r}" if isinstance(value, str) else "is missing"
        raise GlasError(f"the covariates of a model must be numbers, {column} of {row['participant_id']} {came}")
    return float(value)
