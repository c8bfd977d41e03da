"""Keep the scans of a cohort on the grid of the models: each is read once, and memory-mapped from then on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from glas3d.errors import GlasError
from glas3d.hashing import file_sha256, text_sha256
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import VoxelGrid, check_space, grid_of, resample_scan
from glas3d.output import check_seal, read_sealed, remove_unfinished, with_seal, write_json, write_together
from glas3d.predict.intensity import Intensities, scaled
from glas3d.study.cohort.cohort import Cohort
from glas3d.study.training.scan_identity import voxels_sha256

# The array of a scan in its folder, and the record that has the hash of the array and that of the scan's voxels.
_ARRAY, _RECORD = "scan.npy", "scan.json"

# Names of maps of one tissue: those of BIDS and CAPS, and those of SPM and CAT12, which are smoothed (s), modulated
# (m), warped (w), imported for DARTEL (r), and numbered by tissue.
_TISSUE_MAP = re.compile(r".*_(probseg|probability)\.nii(\.gz)?|(s\d*)?(m0?)?w?r?[cp][1-6]sub-.*")

ScanKey = tuple[str, str]
"""The id of a participant and of a session, which is empty if there is none."""


@dataclass(frozen=True, eq=False)
class StoredScans:
    """Scans on disk, ready for training, which are indexed like a tensor ``(n, 1, *grid.shape)``.

    Attributes
    ----------
    files
        One ``.npy`` file for each scan.
    grid
        The grid of all scans.
    intensities
        ``"relative"``: the scans were divided by their brightness; ``"absolute"``: they are as their files have them.
    """

    files: tuple[Path, ...]
    grid: VoxelGrid
    intensities: Intensities = "relative"

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, 1, *grid.shape)``."""
        return (len(self.files), 1, *self.grid.shape)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Read the scans of some rows, ``(k, 1, *grid.shape)`` float32."""
        batch = torch.empty((len(rows), *self.shape[1:]))
        for i, row in enumerate(rows):
            batch[i, 0].numpy()[...] = np.load(self.files[int(row)], mmap_mode="r")
        return batch

    def subset(self, rows: Sequence[int]) -> StoredScans:
        """Return the scans of some rows, without reading them."""
        return replace(self, files=tuple(self.files[row] for row in rows))


def store_scans(
    cohort: Cohort,
    folder: Path,
    grid: VoxelGrid | None = None,
    *,
    assume_space: str | None = None,
    intensities: Literal["auto", "relative", "absolute"] = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Cohort, StoredScans]:
    """Resample the scans of the cohort's two groups to one grid, and divide each by its brightness if it is relative.

    A scan that is stored already, under the hash of its file, is not read again, unless its array is not as it was
    written: a power cut may have left zeros in its place.

    Parameters
    ----------
    cohort
        The participants and the paths of their scans.
    folder
        Folder of the arrays.
    grid
        Grid of the arrays. Default: that of the first scan.
    assume_space
        ``"MNI"``: the scans are in MNI space, do not check it. Default: check it.
    intensities
        See `TrainingOptions`.
    progress
        Called with the number of scans done and of all scans.

    Returns
    -------
    The cohort without the scans that cannot be used, with columns ``sha256`` (of the file) and ``voxels_sha256``, and
    the scans of its `table`.

    Raises
    ------
    GlasError
        The folder cannot be written to. If the cohort's ``on_error`` is ``"fail"``: a scan is damaged or not in MNI
        space, or two participants have the same voxels.

    Warns
    -----
    GlasWarning
        Scans are left out; it names them and the reasons.
    """
    if assume_space not in (None, "MNI"):
        raise GlasError(f'assume_space must be "MNI" or None, got {assume_space!r}')
    table = cohort.table
    if table.empty:
        raise GlasError(f"a cohort needs scans, {cohort.root} has none of {cohort.case} or {cohort.control}")
    grid = grid or grid_of(load_scan(table["path"].iloc[0]))
    kept = _intensities(table["path"]) if intensities == "auto" else intensities
    contents = f"2 {grid.shape} {np.round(grid.affine, 3).tolist()} {assume_space}"
    contents += "" if kept == "relative" else f" {kept}"
    folder = folder / text_sha256(contents)[:12]
    problems: list[dict[str, Any]] = []
    hashes: dict[ScanKey, str] = {}
    voxels: dict[ScanKey, str] = {}
    for done, row in enumerate(table.to_dict("records"), 1):
        key = (row["participant_id"], row["session"])
        unreadable = {"participant_id": key[0], "session": key[1], "problem": "unreadable"}
        try:
            hashes[key] = file_sha256(row["path"])
            voxels[key] = _store(Path(row["path"]), folder / hashes[key], grid, kept, check=assume_space is None)
        except _UnwritableError as error:
            raise GlasError(str(error)) from None
        except GlasError as error:
            problems.append(unreadable | {"detail": str(error)})
        except OSError as error:
            problems.append(unreadable | {"detail": f"{row['path']} cannot be read: {error.strerror or error}"})
        progress(done, len(table))
    refused = {(problem["participant_id"], problem["session"]) for problem in problems}
    problems += _shared_scans({key: digest for key, digest in voxels.items() if key not in refused})
    usable = cohort.without(problems)
    keys = list(zip(usable.everyone["participant_id"], usable.everyone["session"], strict=True))
    everyone = usable.everyone.assign(
        sha256=[hashes.get(key, "") for key in keys], voxels_sha256=[voxels.get(key, "") for key in keys]
    )
    usable = replace(usable, everyone=everyone)
    return usable, StoredScans(tuple(folder / digest / _ARRAY for digest in usable.table["sha256"]), grid, kept)


def _intensities(paths: Iterable[Path]) -> Intensities:
    """Return how the intensities of scans are to be read, by the names of their files."""
    return "absolute" if all(_TISSUE_MAP.fullmatch(Path(path).name) for path in paths) else "relative"


def _shared_scans(hashes: dict[ScanKey, str]) -> list[dict[str, Any]]:
    """Return the scans whose voxels are also another participant's, by the hashes of their voxels.

    Such a scan would be trained on under one participant's name and tested under another's.
    """
    keys_of: dict[str, list[ScanKey]] = {}
    for key, digest in hashes.items():
        keys_of.setdefault(digest, []).append(key)
    problems = []
    for keys in keys_of.values():
        participants = list(dict.fromkeys(participant_id for participant_id, _ in keys))
        if len(participants) > 1:
            detail = f"one scan for {' and '.join(participants)}"
            problems += [
                {"participant_id": participant_id, "session": session, "problem": "duplicated", "detail": detail}
                for participant_id, session in keys
            ]
    return problems


def _store(source: Path, folder: Path, grid: VoxelGrid, intensities: Intensities, *, check: bool) -> str:
    """Write a scan on the grid, scaled if relative, unless it is there; ``check`` that it is in MNI space."""
    if (digest := _stored_voxels(folder)) is not None:
        return digest
    scan = load_scan(source)
    if check and (problem := check_space(scan).problem):
        raise GlasError(
            f"{source} does not look like a brain in MNI space: {problem}. Models are trained on scans in MNI space: "
            'give assume_space="MNI" (--assume-space MNI) only if you know that this one is'
        )
    digest = voxels_sha256(scan)
    volume = scaled(resample_scan(scan, grid), intensities).astype(np.float32)
    files = {_ARRAY: lambda path: np.save(path, volume), _RECORD: write_json({"VoxelsSha256": digest})}
    try:
        write_together(folder, with_seal(files, _RECORD))
        remove_unfinished(folder)  # what runs that were killed left
    except GlasError as error:
        if _stored_voxels(folder) is None:  # else it is by another run, which removed our unfinished files
            raise _UnwritableError(str(error)) from None
    return digest


class _UnwritableError(Exception):
    """The folder of the arrays cannot be written to, which is no fault of the scan."""


def _stored_voxels(folder: Path) -> str | None:
    """Return the hash of the voxels of a scan that is stored in a folder; None if it is not there, or is damaged."""
    record = folder / _RECORD
    try:
        seal, content = check_seal(record), read_sealed(record)
    except GlasError:
        return None
    if seal is None or content is None or seal.missing or seal.changed:
        return None
    return str(content["VoxelsSha256"])
