"""Compare the files in a folder of results with the hashes that were written with them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from glas3d.errors import GlasError
from glas3d.output import DESCRIPTION, check_seal
from glas3d.study.derivatives import ATLAS, FAILED, STUDY, is_study

# Files that glas3d writes or updates next to results, and that belong to no single one of them.
_SHARED = (STUDY, DESCRIPTION, FAILED, "participants_failed.json", ".bidsignore", "report.html")
# Folders of pictures and viewers, which can be made from results again, and of the study's copy of its atlas.
_MADE_FROM_RESULTS = {"figures", "viewers", ATLAS}


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
    """

    folder: Path
    n_files: int
    n_results: int
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def well(self) -> bool:
        """Whether all files are there, as they were written, and no others."""
        return not (self.missing or self.changed or self.extra)


def verify_files(folder: str | os.PathLike[str]) -> VerifiedFiles:
    """Hash every file of a folder of results again, and compare it with the hash that was written with it.

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
    there = {path for path in root.rglob("*") if path.is_file() or path.is_symlink()}
    known, missing, changed = set(), set(), set()
    n_results, of_study = 0, is_study(root)
    for path in sorted(there):
        if path.suffix != ".json" or path.is_symlink():
            continue
        if of_study and _is_participants(path, root) and not path.name.endswith("_record.json"):
            continue  # a scan of a study without its record is no result
        seal = check_seal(path)
        if seal is None:
            continue
        n_results += 1
        known |= set(seal.files)
        missing |= set(seal.missing)
        changed |= set(seal.changed)
    if not known:
        raise GlasError(f"{root} has no results with hashes: it is not of glas3d, or of a version before 0.2")
    if of_study and not (root / STUDY).is_file():
        missing.add(root / STUDY)
    extra = {path for path in there - known if not _is_shared(path, root)}

    def names(paths: set[Path]) -> tuple[str, ...]:
        return tuple(sorted(path.relative_to(root).as_posix() for path in paths))

    return VerifiedFiles(root, len(known), n_results, names(missing), names(changed), names(extra))


def _is_participants(path: Path, root: Path) -> bool:
    """Return whether a file is a participant's in a study, whose record seals it."""
    return path.relative_to(root).parts[0].startswith("sub-") and len(path.relative_to(root).parts) > 1


def _is_shared(path: Path, root: Path) -> bool:
    *folders, name = path.relative_to(root).parts
    return bool({*folders} & _MADE_FROM_RESULTS) or (not folders and (name in _SHARED or path.suffix == ".log"))
