"""The folder that ``glas3d explain`` writes into, as a BIDS derivative data set of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from glas3d.errors import GlasError
from glas3d.hashing import file_sha256
from glas3d.output import DESCRIPTION, REPORT, dataset_description, write_json, write_together
from glas3d.reading import read_json_object

NAME = "GLAS explanations of scans"
# How many leading parts of two paths say nothing: the root, and folders such as /home or /data.
_TOP_LEVEL = 2
# The validator knows neither statistical maps nor tables of regions yet, and no audits or reports.
_IGNORED = ("*_statmap.*", "*_regions.*", "*_audit.json", REPORT)


def describe_dataset(folder: Path, scans: Sequence[Path]) -> list[Path]:
    """Write ``dataset_description.json``, and what validators skip, next to the results of scans.

    The data sets of earlier scans in the folder stay among the sources. Nothing is written into a folder that belongs
    to a data set already: one with the description of another tool, or inside a described data set.

    Parameters
    ----------
    folder
        The folder of the results, which exists.
    scans
        The scans that were explained.

    Returns
    -------
    The paths written.

    Raises
    ------
    GlasError
        The folder cannot be written to.
    """
    existing = _description_of(folder)
    if existing is None or (not existing and _root_of(folder.resolve().parent) is not None):
        return []
    sources = list(existing.get("SourceDatasets", []))
    for scan in scans:
        source = _source(scan, folder)
        if source not in sources:
            sources.append(source)
    files: dict[str, Callable[[Path], object]] = {
        DESCRIPTION: write_json(dataset_description(NAME, SourceDatasets=sources))
    }
    if not (folder / ".bidsignore").exists():
        files[".bidsignore"] = lambda path: path.write_text("\n".join(_IGNORED) + "\n", encoding="utf-8")
    return write_together(folder, files)


def find_source(folder: Path, name: str, digest: str) -> Path | None:
    """Return the file of a name and hash in the data sets that a folder records as its sources; None if it is gone."""
    if not name or Path(name).name != name:
        return None
    try:
        description = read_json_object(folder / DESCRIPTION, "a description")
        urls = [str(source["URL"]) for source in description.get("SourceDatasets", [])]
    except (GlasError, KeyError, TypeError, AttributeError):
        return None
    participant = name.partition("_")[0]
    for url in urls:
        root = folder / url
        below = root / participant if participant.startswith("sub-") and (root / participant).is_dir() else root
        candidates = below.rglob(name) if below != root else iter([root / name])
        for path in candidates:
            if path.is_file() and file_sha256(path) == digest:
                return path
    return None


def _description_of(folder: Path) -> dict[str, Any] | None:
    """Return the description that this module wrote into a folder, empty if there is none; None if it is another's."""
    path = folder / DESCRIPTION
    if not os.path.lexists(path):
        return {}
    try:
        content = read_json_object(path, "a description")
    except GlasError:
        return None
    return content if content.get("Name") == NAME else None


def _source(scan: Path, folder: Path) -> dict[str, str]:
    """Return where a scan comes from, relative to the folder of the results: its data set, else its folder.

    Where the two have hardly a folder in common, or the path between them leads through a folder that is named for the
    user, it would hold the names of users and disks: then it is the name of the data set alone, or that of the scan
    where it lies in the user's folder itself.
    """
    path = scan.resolve()
    root = _root_of(path.parent)
    data, results = root or path.parent, folder.resolve()
    try:
        common = Path(os.path.commonpath([data, results]))
    except ValueError:  # on different disks of Windows
        common = Path()
    users = _users_of(data)
    apart = len(common.parts) <= _TOP_LEVEL or not users.isdisjoint(data.relative_to(common).parts)
    name = path.name if data.name in users else data.name
    source = {"URL": name if apart else Path(os.path.relpath(data, results)).as_posix()}
    try:
        doi = read_json_object((root or path.parent) / DESCRIPTION, "a description").get("DatasetDOI")
    except GlasError:
        doi = None
    return source | ({"DOI": doi} if isinstance(doi, str) else {})


def _users_of(folder: Path) -> set[str]:
    """Return the names of the user and of the owner of a folder, as far as they are known."""
    users = {Path.home().name}
    for user in (getpass.getuser, folder.owner):
        with contextlib.suppress(OSError, KeyError, ImportError, NotImplementedError):  # no such user, or Windows
            users.add(user())
    return users


def _root_of(folder: Path) -> Path | None:
    """Return the data set that a folder belongs to; None if to none. A folder ``derivatives`` begins data sets anew."""
    for parent in (folder, *folder.parents):
        if (parent / DESCRIPTION).is_file():
            return parent
        if parent.name == "derivatives":
            return None
    return None
