"""Compare the files in a folder of results with the hashes that were written with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from glas3d.counts import enumerated
from glas3d.errors import GlasError, listed, reason
from glas3d.output import DESCRIPTION, HASHES, REPORT, check_seal, is_page_as_written
from glas3d.reading import read_json_object
from glas3d.study.derivatives import ATLAS, FAILED, STUDY, has_list, is_study, lost_participants

# Files that glas3d writes or updates next to results, and that belong to no single one of them.
_SHARED = (STUDY, DESCRIPTION, FAILED, "participants_failed.json", ".bidsignore", REPORT)
# Folders of pictures and viewers, which can be made from results again.
_MADE_FROM_RESULTS = {"figures", "viewers"}


@dataclass(frozen=True)
class VerifiedFiles:
    """The files of a folder of results, compared with what was written.

    Attributes
    ----------
    folder
        The folder.
    n_files, n_results
        How many files have a hash, and how many results they belong to: participants' scans, explanations of a scan,
        and the group level.
    missing, changed, extra
        Files that are not there any more, that are not as they were written, and that belong to no result; relative to
        the folder, sorted.
    unhashed
        Files that describe a folder as a whole, such as ``participants_failed.tsv``, or that were made by a version
        without hashes for them. They are not compared; folders of such files are named as a whole.
    listed
        Whether there is nothing to list, or the folder lists its results, so that a whole one that was removed is
        missing. Versions before 0.2.0 wrote no such list of a study.
    """

    folder: Path
    n_files: int
    n_results: int
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    extra: tuple[str, ...]
    unhashed: tuple[str, ...] = ()
    listed: bool = True

    @property
    def well(self) -> bool:
        """Whether all files with a hash are there, as they were written, and no file of another origin."""
        return not (self.missing or self.changed or self.extra)


def verify_files(folder: str | os.PathLike[str]) -> VerifiedFiles:
    """Hash the maps, tables and sidecars of results again, and compare them with the hashes in the sidecars.

    Pictures, viewers and the report are compared where they are there: they can be made from results again. A study's
    participants and group level are compared with the list in its ``hashes.json``, which also has the hashes of
    ``study.json``, of the description of the data set and of the atlas.

    Parameters
    ----------
    folder
        A folder that `explain_img`, `compare`, `explain_cohort` or `summarise_groups` wrote to.

    Raises
    ------
    GlasError
        The folder does not exist, or has no results with hashes.
    """
    root = Path(folder)
    if not root.is_dir():
        raise GlasError(f"no such folder: {root}")
    there = {path for path in root.rglob("*") if path.is_symlink() or not path.is_dir()}
    known, missing, changed = set(), set(), set()
    n_results, of_study = 0, is_study(root)
    for path in sorted(there):
        if path.suffix != ".json" or path.is_symlink() or not path.is_file():
            continue
        if of_study and _is_participants(path, root) and not path.name.endswith("_record.json"):
            continue  # a scan of a study without its record is no result
        seal = check_seal(path)
        if seal is None:
            continue
        changed |= set(seal.changed)
        if _is_made_from_results(path, root):  # these may be deleted at any time
            known |= set(seal.files) - set(seal.missing)
            continue
        n_results += path != root / HASHES
        known |= set(seal.files)
        missing |= set(seal.missing)
    listed = has_list(root)
    if of_study:
        own = [root / STUDY, *([root / HASHES] if listed else [])]
        missing |= {path for path in own if not path.is_file()} | set(lost_participants(root))
    if not n_results and not missing:
        raise GlasError(f"{root} has no results with hashes: {_why_none(root)}")
    if (as_written := is_page_as_written(root / REPORT) if root / REPORT in there else None) is not None:
        known.add(root / REPORT)
        changed |= set() if as_written else {root / REPORT}
    shared = {path for path in there - known if _is_shared(path, root, listed=listed)}
    extra = there - known - shared

    def names(paths: set[Path]) -> tuple[str, ...]:
        return tuple(sorted(path.relative_to(root).as_posix() for path in paths))

    unhashed = dict.fromkeys(_shown(path.relative_to(root)) for path in sorted(shared))
    compared = (names(missing), names(changed), names(extra), tuple(unhashed))
    return VerifiedFiles(root, len(known), n_results, *compared, listed=listed or not of_study)


@contextmanager
def damage_named(folder: Path) -> Iterator[None]:
    """Raise what reading results leads to as a `GlasError` that names the files that are not as they were written.

    A file that was changed may hold anything, and anything may come of it. Where all files are as they were written,
    the error is not theirs and passes.
    """
    try:
        yield
    except GlasError:
        raise
    except Exception as error:
        try:
            changed = verify_files(folder).changed
        except GlasError:
            changed = ()
        if not changed:
            raise
        raise GlasError(
            f"results must be as they were written, in {folder} these are not: {listed(changed)} ({reason(error)})"
        ) from error


def _why_none(root: Path) -> str:
    """Return why a folder has no results with hashes, as far as its description says."""
    try:
        description = read_json_object(root / DESCRIPTION, "a description")
        makers = [str(each["Name"]) for each in description["GeneratedBy"]]
        title = str(description["Name"])
    except (GlasError, KeyError, TypeError):
        return "glas3d wrote no results here, or a version did that wrote no hashes"
    if "glas3d" not in makers:
        return f"{enumerated(makers)} made it"
    return f"glas3d made it ({title}), and gives hashes to results of explain, compare, audit, cohort and demo alone"


def _shown(path: Path) -> str:
    """Return the name of a file without a hash, or the folder of such files that it is in."""
    for number, part in enumerate(path.parts[:-1], start=1):
        if part in {*_MADE_FROM_RESULTS, ATLAS}:
            return f"{Path(*path.parts[:number]).as_posix()}/"
    return path.as_posix()


def _is_participants(path: Path, root: Path) -> bool:
    """Return whether a file is a participant's in a study, whose record seals it."""
    return path.relative_to(root).parts[0].startswith("sub-") and len(path.relative_to(root).parts) > 1


def _is_made_from_results(path: Path, root: Path) -> bool:
    return bool({*path.relative_to(root).parts[:-1]} & _MADE_FROM_RESULTS)


def _is_shared(path: Path, root: Path, *, listed: bool) -> bool:
    if _is_made_from_results(path, root):
        return True
    *folders, name = path.relative_to(root).parts
    if folders == [ATLAS] and not listed:
        return True
    return not folders and (name in _SHARED or path.suffix == ".log")
