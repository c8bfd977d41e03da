"""Writing results: JSON sidecars, several files at once or none, and folders that appear when they are complete.

Everything is written under a temporary name in the folder, or next to it, brought to the disk (fsync) and renamed.
Files and folders get the permissions that the umask leaves, and the group of a folder whose setgid bit is set.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import torch

from glas3d.errors import GlasError
from glas3d.hashing import file_sha256, text_sha256
from glas3d.reading import parse_json, read_bytes, read_json
from glas3d.tables import write_table
from glas3d.version import __version__

DESCRIPTION = "dataset_description.json"
REPORT = "report.html"
HASHES = "hashes.json"

Writer = Callable[[Path], object]
# Description and units by the name of the column.
Columns = Mapping[str, tuple[str, str]]

_UNFINISHED = ".unfinished-"
_PAGE_SEAL = "<!-- sha256: "
_INTACT = "then repeat the command; earlier results are as they were"
# What NumPy says where a disk is full, without the number of the error.
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
_ADVICE = {
    errno.ENOSPC: f"free some, {_INTACT}",
    errno.EDQUOT: f"free some of your quota, {_INTACT}",
    errno.EROFS: "give a folder that can be written to",
    errno.EACCES: "give a folder that you may write to",
    errno.EPERM: "give a folder that you may write to",
    errno.ENAMETOOLONG: "give a shorter path",
}


def generated_by() -> list[dict[str, Any]]:
    """Return the software and its versions in the form of BIDS's ``GeneratedBy``."""
    versions = {"torch": torch.__version__, "numpy": np.__version__, "nibabel": nib.__version__}
    return [{"Name": "glas3d", "Version": __version__, "Python": platform.python_version(), **versions}]


def dataset_description(name: str, **more: Any) -> dict[str, Any]:
    """Return the content of ``dataset_description.json`` for a BIDS derivative that this package writes.

    Parameters
    ----------
    name
        Title of the data set.
    **more
        Further keys, such as ``SourceDatasets``.
    """
    return {
        "Name": name,
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": generated_by(),
        **more,
    }


def describe_columns(names: Iterable[str], columns: Columns) -> dict[str, dict[str, Any]]:
    """Return the entries of a table's sidecar that describe its columns, as BIDS has them.

    Parameters
    ----------
    names
        The columns of the table.
    columns
        Description and units of columns; a number without a unit of measure has its scale, such as ``count`` or
        ``probability``, and text has none. Further columns may be described.

    Examples
    --------
    >>> describe_columns(["p", "group"], {"p": ("Probability of AD", "probability"), "group": ("Diagnosis", "")})
    {'p': {'Description': 'Probability of AD', 'Units': 'probability'}, 'group': {'Description': 'Diagnosis'}}
    """
    described: dict[str, dict[str, Any]] = {}
    for name in names:
        text, units = columns.get(name, (name, ""))
        described[name] = {"Description": text} | ({"Units": units} if units else {})
    return described


def described_table(stem: str, table: pd.DataFrame, columns: Columns, **record: Any) -> dict[str, Writer]:
    """Return the writers of a table and of its sidecar, for `write_together`.

    Parameters
    ----------
    stem
        The files are ``<stem>.tsv`` and ``<stem>.json``.
    table
        The table.
    columns
        See `describe_columns`.
    **record
        Further entries of the sidecar.
    """
    described = describe_columns(map(str, table.columns), columns)
    return {f"{stem}.tsv": write_table(table), f"{stem}.json": write_json({**described, **record})}


def write_each(folder: Path, files: Mapping[str, Writer]) -> None:
    """Write files into a folder that appears as a whole, such as that of `new_folder`."""
    for name, write in files.items():
        write(folder / name)


def write_json(content: dict[str, Any]) -> Callable[[Path], object]:
    """Return a writer for `write_together`: JSON as `to_json` makes it."""
    return lambda path: path.write_text(to_json(content), encoding="utf-8")


def sealed(write: Writer, *, others: bool = True) -> Writer:
    """Return a writer of JSON that also has the hash of each file next to it and below, and of its own content.

    Give it last to `write_together`, or call it when the other files of a folder are written. `check_seal` reads it.

    Parameters
    ----------
    write
        Writes the JSON itself.
    others
        Whether the files next to it belong to it; else it has the hash of its own content alone.
    """

    def write_sealed(path: Path) -> None:
        write(path)
        content = json.loads(path.read_text(encoding="utf-8"))
        there = path.parent.rglob("*") if others else ()
        files = sorted(file for file in there if file.is_file() and file != path)
        hashes = {file.relative_to(path.parent).as_posix(): file_sha256(file) for file in files}
        path.write_text(_sealed_json(content, hashes), encoding="utf-8")

    return write_sealed


def _sealed_json(content: Mapping[str, Any], hashes: Mapping[str, str | None]) -> str:
    content = {**content, "Files": hashes}
    return to_json(content | {"Sha256": text_sha256(to_json(content))})


def with_seal(files: Mapping[str, Writer], name: str) -> dict[str, Writer]:
    """Return the writers of files, of which the JSON file of a name seals the others (see `sealed`)."""
    others = {file: write for file, write in files.items() if file != name}
    return {**others, name: sealed(files[name])}


def write_with_hashes(folder: Path, files: Mapping[str, Writer], listed: Iterable[str] = ()) -> list[Path]:
    """Write files together, and their hashes to ``hashes.json`` in the same folder.

    Hashes of earlier files stay. They are read while no other process may write, so that none is lost.

    Parameters
    ----------
    folder, files
        See `write_together`.
    listed
        Further files, which are there already, as paths relative to the folder. Those of JSON that is sealed itself
        (see `sealed`) are listed without a hash, so that they may be written again on their own; the hash of a file
        that is listed already stays as it is.

    Returns
    -------
    The paths of the files, without that of the hashes.

    Raises
    ------
    GlasError
        The folder cannot be written to.
    """

    def write_hashes(path: Path) -> None:
        earlier = (read_sealed(folder / HASHES) or {"Files": {}})["Files"]
        new: dict[str, str | None] = {name: file_sha256(path.parent / name) for name in files}
        for name in listed:
            if name not in earlier and name not in new:
                file = folder / name
                new[name] = None if read_sealed(file) is not None else file_sha256(file)
        path.write_text(_sealed_json({}, earlier | new), encoding="utf-8")

    return write_together(folder, dict(files), {HASHES: write_hashes})[:-1]


def sealed_page(text: str) -> str:
    """Return a page of HTML with the hash of its text in a comment at its end, which `is_page_as_written` reads.

    Examples
    --------
    >>> print(sealed_page("<p>A page</p>")[:37])
    <p>A page</p><!-- sha256: 084dcd22106
    """
    return f"{text}{_PAGE_SEAL}{text_sha256(text)} -->\n"


def is_page_as_written(path: Path) -> bool | None:
    """Return whether a page has the text whose hash is at its end; None for a page without one."""
    try:
        text, seal, digest = read_bytes(path, "a page", None).decode().rpartition(_PAGE_SEAL)
    except UnicodeDecodeError:
        return False
    return f"{text_sha256(text)} -->\n" == digest if seal else None


@dataclass(frozen=True)
class Seal:
    """What a sealed JSON file says of the files next to it, and what is found.

    Attributes
    ----------
    files
        The files, and the JSON file itself.
    missing, changed
        Those of them that are not there, and those that are not as they were written.
    """

    files: tuple[Path, ...]
    missing: tuple[Path, ...]
    changed: tuple[Path, ...]


def check_seal(path: Path) -> Seal | None:
    """Compare the files of a sealed JSON file with their hashes; None for JSON of another kind.

    Raises
    ------
    GlasError
        The file cannot be read.
    """
    written = read_bytes(path, "a sidecar")
    try:
        content = parse_json(written)
    except ValueError:
        return Seal((path,), (), (path,))
    if not isinstance(content, dict) or not isinstance(content.get("Files"), dict):
        return None
    named = {name: digest for name, digest in content["Files"].items() if _is_below(name)}
    as_written = named == content["Files"] and is_as_sealed(content)
    changed = [] if as_written else [path]
    missing, files = [], [path]
    for name, digest in named.items():
        file = path.parent / name
        files.append(file)
        try:
            if digest is not None:
                changed += [file] if file_sha256(file) != digest else []
            elif not (os.path.islink(file) or os.path.isfile(file)):  # it is sealed itself
                missing.append(file)
        except OSError:
            missing.append(file)
    return Seal(tuple(files), tuple(missing), tuple(changed))


def is_as_sealed(content: Mapping[str, Any]) -> bool:
    """Return whether the content of a JSON file has the hash that it states of itself; files may state none."""
    rest = {key: value for key, value in content.items() if key != "Sha256"}
    return content.get("Sha256") in (None, text_sha256(to_json(rest)))


def _is_below(name: str) -> bool:
    """Return whether a name in a list of files stays in the folder of the list."""
    return bool(name) and not Path(name).is_absolute() and ".." not in Path(name).parts


def read_sealed(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file that has the hashes of the files next to it; None for any other file."""
    try:
        content = read_json(path, "a sidecar")
    except GlasError:
        return None
    return content if isinstance(content, dict) and isinstance(content.get("Files"), dict) else None


def to_json(content: dict[str, Any]) -> str:
    """Return JSON with sorted keys.

    Numbers of NumPy become plain numbers; infinity and NaN, which JSON does not know, become text.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(k): plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        if isinstance(value, np.generic):
            value = value.item()
        return str(value) if isinstance(value, float) and not np.isfinite(value) else value

    return json.dumps(plain(content), indent=2, sort_keys=True) + "\n"


def write_together(folder: Path, files: dict[str, Writer], last: Mapping[str, Writer] | None = None) -> list[Path]:
    """Write several files so that all of them appear, or none.

    Parameters
    ----------
    folder
        Where to write; created if it does not exist.
    files
        For each name a function that writes the file to the path it is given. A name may lead into a subfolder.
    last
        Files that depend on those in the folder: they are written when no other process may put files in place.

    Returns
    -------
    The paths of the files.

    Raises
    ------
    GlasError
        The folder cannot be written to.
    """
    last = last or {}
    every = [*files, *last]
    created: list[Path] = []
    try:
        targets = {folder, *((folder / name).parent for name in every)}
        parts = {path for target in targets for path in (target, *target.parents) if not path.exists()}
        created = sorted(parts, key=lambda path: len(path.parts), reverse=True)
        folder.mkdir(parents=True, exist_ok=True)
        for name in every:
            if (folder / name).is_dir():
                raise GlasError(f"cannot write {folder / name}: it is a folder")
        with _scratch_folder(folder, _UNFINISHED) as scratch:
            for name, write in files.items():
                (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                write(scratch / name)
            _settle(scratch)
            with _locked(folder):
                for name, write in last.items():
                    write(scratch / name)
                if last:
                    _settle(scratch)
                for name in every:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(scratch / name, folder / name)
                for target in targets:
                    _sync(target)
    except BaseException as error:
        _remove_empty(created)
        if isinstance(error, OSError):
            raise GlasError(f"cannot write to {folder}: {why_not_written(error)}") from None
        raise
    return [folder / name for name in every]


def why_not_written(error: OSError) -> str:
    """Return why something could not be written, and what helps, for the end of a message.

    Examples
    --------
    >>> why_not_written(OSError(errno.ENOSPC, "No space left on device"))
    'No space left on device: free some, then repeat the command; earlier results are as they were'
    """
    number = errno.ENOSPC if _SHORT_WRITE.fullmatch(str(error)) else error.errno or 0
    text = os.strerror(number) if number else str(error)
    advice = _ADVICE.get(number)
    return text if advice is None else f"{text}: {advice}"


def check_folder(folder: Path) -> None:
    """Refuse a folder that results cannot be written to, before they are computed.

    Raises
    ------
    GlasError
        It is a file or below one, or it cannot be written to or created.
    """
    try:
        for path in (folder, *folder.resolve().parents):
            if path.is_symlink() and not path.exists():
                raise GlasError(f"results need a folder, {path} is a link to {os.readlink(path)}, which does not exist")
            if path.exists():
                if not path.is_dir():
                    raise GlasError(f"results need a folder, {path} is a file")
                if not os.access(path, os.W_OK | os.X_OK):
                    raise GlasError(f"cannot write to {folder}: {path} allows no writing")
                return
    except OSError as error:
        raise GlasError(f"cannot write to {folder}: {why_not_written(error)}") from None


def refuse_links(root: Path, folder: Path) -> None:
    """Refuse a folder of results that a link within ``root`` would put elsewhere; ``root`` itself may be a link.

    Raises
    ------
    GlasError
        A part of the path below ``root`` is a link.
    """
    for part in (folder, *folder.parents):
        if part == root:
            return
        if part.is_symlink():
            raise GlasError(f"a folder within results must not be a link, {part} leads to {os.readlink(part)}")


def remove_unfinished(folder: Path) -> None:
    """Remove what `write_together` left in a folder when its process was killed."""
    _remove_subfolders(folder, _UNFINISHED)


@contextlib.contextmanager
def new_folder(folder: Path, replaces: Callable[[Path], bool] = lambda folder: False) -> Iterator[Path]:
    """Yield a scratch folder that becomes ``folder`` when the block ends without an error, and else disappears.

    When the process is killed, the scratch folder stays next to ``folder``, for `remove_leftovers`.

    Parameters
    ----------
    folder
        A folder that is new or empty.
    replaces
        Whether a folder with content may be replaced. Default: none may.

    Yields
    ------
    The folder to write into, on the same disk.

    Raises
    ------
    GlasError
        ``folder`` has content, is a file, or cannot be written.
    """
    created: list[Path] = []
    scratch: Path | None = None
    try:
        folder = folder.resolve()
        if folder.exists() and not folder.is_dir():
            raise GlasError(f"the folder must be new or empty, {folder} is a file")
        has_content = folder.is_dir() and any(folder.iterdir())
        if has_content and not replaces(folder):
            raise GlasError(f"the folder must be new or empty, {folder} has content")
        created = [parent for parent in folder.parents if not parent.exists()]
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = _made(folder.parent, _scratch_prefix(folder))
        yield scratch
        _settle(scratch)
        with _locked(folder.parent):
            _put_in_place(scratch, folder, replace=has_content)
            _sync(folder.parent)
    except BaseException as error:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        _remove_empty(created)
        if isinstance(error, OSError):
            raise GlasError(f"cannot write {folder}: {why_not_written(error)}") from None
        raise


def _put_in_place(scratch: Path, folder: Path, *, replace: bool) -> None:
    """Rename a finished folder to its final name; the content of the old folder comes back if that fails.

    Each step is one rename: a kill leaves the old folder, the new one, or for a moment none, but never half of one.
    """
    old: Path | None = None
    try:
        if replace:
            old = _made(folder.parent, _scratch_prefix(folder))
            os.replace(folder, old / folder.name)
        if folder.exists():  # it was empty at first; it is kept, since it may be a shell's current folder
            if any(folder.iterdir()):
                raise GlasError(f"the folder must be new or empty, {folder} was filled meanwhile")
            for child in scratch.iterdir():
                os.replace(child, folder / child.name)
            scratch.rmdir()
        else:
            os.replace(scratch, folder)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        if old is not None:
            with contextlib.suppress(OSError):  # fails if the new folder has its name already
                os.replace(old / folder.name, folder)
            shutil.rmtree(old, ignore_errors=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what `new_folder` left next to a folder when its process was killed."""
    _remove_subfolders(folder.parent, _scratch_prefix(folder))


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders that were created, the deepest first, unless they have content by now."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _remove_subfolders(folder: Path, prefix: str) -> None:
    """Remove the folders in a folder whose names begin with a prefix.

    Each is renamed first, in one step: a process that still writes into it fails, instead of completing a folder that
    was half emptied.
    """
    for path in list(folder.glob(f"{prefix}*")):
        with contextlib.suppress(OSError), _scratch_folder(folder, prefix) as removed:
            os.replace(path, removed / path.name)


def _made(folder: Path, prefix: str) -> Path:
    """Make a folder of a new name, with the permissions and the group of any folder that is made there."""
    while True:
        made = folder / f"{prefix}{secrets.token_hex(6)}"
        with contextlib.suppress(FileExistsError):
            made.mkdir()
            return made


@contextlib.contextmanager
def _scratch_folder(folder: Path, prefix: str) -> Iterator[Path]:
    scratch = _made(folder, prefix)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _settle(scratch: Path) -> None:
    """Give every file the permissions of the umask, whatever library wrote it, and bring all to the disk."""
    permissions = stat.S_IMODE(scratch.stat().st_mode) & 0o666
    for parent, _, names in os.walk(scratch):
        for name in names:
            file = Path(parent) / name
            file.chmod(permissions)
            _sync(file)
        _sync(Path(parent))


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk; some file systems cannot, and then it is left to them."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time put files in place in a folder.

    The lock is on the folder itself and ends with its process, however that ends. Over NFS it holds among the processes
    of one machine; where a file system has no locks, there is none.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _scratch_prefix(folder: Path) -> str:
    """Return how the names of the scratch folders of a folder begin."""
    return f".{folder.name[:40]}-"
