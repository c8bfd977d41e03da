"""Results onto disk: sidecars, tables, and several files at once or none."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from glas3d.errors import GlasError
from glas3d.version import __version__

_UNFINISHED = ".unfinished-"


def generated_by() -> list[dict[str, Any]]:
    """Software and versions, as BIDS wants them."""
    versions = {"torch": torch.__version__, "numpy": np.__version__, "nibabel": nib.__version__}
    return [{"Name": "glas3d", "Version": __version__, "Python": platform.python_version(), **versions}]


def write_json(content: dict[str, Any]) -> Callable[[Path], object]:
    """A writer for `write_together`; what JSON cannot say (infinity, NumPy's numbers) becomes text or a number."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        if isinstance(value, np.generic):
            value = value.item()
        return str(value) if isinstance(value, float) and not np.isfinite(value) else value

    return lambda path: path.write_text(json.dumps(plain(content), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_together(folder: Path, files: dict[str, Callable[[Path], object]]) -> list[Path]:
    """Write several files so that all of them appear, or none.

    Parameters
    ----------
    folder
        Made when it is missing.
    files
        Name, and what writes it to the path it is given.

    Raises
    ------
    GlasError
        The folder cannot be written to.
    """
    made: list[Path] = []
    try:
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for name in files:
            if (folder / name).is_dir():
                raise GlasError(f"cannot write {folder / name}: it is a folder")
        with tempfile.TemporaryDirectory(dir=folder, prefix=_UNFINISHED) as scratch:
            for name, write in files.items():
                write(Path(scratch) / name)
            for name in files:
                os.replace(Path(scratch) / name, folder / name)
    except BaseException as error:
        _remove_empty(made)
        if isinstance(error, OSError):
            raise GlasError(f"cannot write to {folder}: {error.strerror or error}") from None
        raise
    return [folder / name for name in files]


def remove_unfinished(folder: Path) -> None:
    """Remove what killed runs of `write_together` left in a folder."""
    _remove(folder, _UNFINISHED)


def _remove_empty(folders: list[Path]) -> None:
    """Undo the making of folders, the deepest first; those that hold something by now stay."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def new_folder(place: Path, replaces: Callable[[Path], bool] = lambda place: False) -> Iterator[Path]:
    """A folder that appears at ``place`` when the block ends well, and not at all otherwise.

    What a process leaves that is killed meanwhile lies beside ``place``, for `remove_leftovers`.

    Parameters
    ----------
    place
        New or empty.
    replaces
        Whether a folder with content may be replaced.

    Yields
    ------
    The folder to write into, on the same disk.

    Raises
    ------
    GlasError
        ``place`` has content, is a file, or cannot be written.
    """
    made: list[Path] = []
    scratch: Path | None = None
    aside: Path | None = None
    try:
        place = place.resolve()
        if place.exists() and not place.is_dir():
            raise GlasError(f"the folder must be new or empty, {place} is a file")
        old = place.is_dir() and any(place.iterdir())
        if old and not replaces(place):
            raise GlasError(f"the folder must be new or empty, {place} has content")
        made = [parent for parent in place.parents if not parent.exists()]
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=place.parent, prefix=_beside(place)))
        yield scratch
        scratch.chmod(0o755)
        if old:  # in one step: a kill leaves the old folder, the new one, or for a moment none, but never half of one
            aside = Path(tempfile.mkdtemp(dir=place.parent, prefix=_beside(place)))
            os.replace(place, aside / place.name)
        if place.exists():  # and empty when the work began: kept, someone may stand in it
            if any(place.iterdir()):
                raise GlasError(f"the folder must be new or empty, {place} has got content meanwhile")
            for child in scratch.iterdir():
                os.replace(child, place / child.name)
            scratch.rmdir()
        else:
            os.replace(scratch, place)
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
    except BaseException as error:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        if aside is not None:
            with contextlib.suppress(OSError):  # the new one is there already
                os.replace(aside / place.name, place)
            shutil.rmtree(aside, ignore_errors=True)
        _remove_empty(made)
        if isinstance(error, OSError):
            raise GlasError(f"cannot write {place}: {error.strerror or error}") from None
        raise


def remove_leftovers(place: Path) -> None:
    """Remove what killed runs of `new_folder` left beside a folder."""
    _remove(place.parent, _beside(place))


def _remove(folder: Path, prefix: str) -> None:
    """Remove folders in a folder whose names begin so.

    Each is moved away in one step first: who still writes there fails, and does not see it emptied, perhaps under its
    final name.
    """
    for path in list(folder.glob(f"{prefix}*")):
        with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as gone:
            os.replace(path, Path(gone) / path.name)


def _beside(place: Path) -> str:
    """How the names of folders begin that are on their way to a place, or from it."""
    return f".{place.name[:40]}-"
