"""Scans of a cohort on the model's grid, read once and kept as memory-mapped arrays."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glas3d.errors import GlasError
from glas3d.hashing import file_sha256, text_sha256
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import VoxelGrid, check_space, grid_of, resample_scan
from glas3d.predict.intensity import intensity_scale
from glas3d.study.cohort.cohort import Cohort


@dataclass(frozen=True, eq=False)
class StoredScans:
    """Scaled scans on disk, indexed like a tensor ``(n, 1, *grid.shape)``.

    Attributes
    ----------
    files
        One ``.npy`` a scan.
    grid
        Of all of them.
    """

    files: tuple[Path, ...]
    grid: VoxelGrid

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n, 1, *grid.shape)``."""
        return (len(self.files), 1, *self.grid.shape)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: torch.Tensor | Sequence[int]) -> torch.Tensor:
        """Some scans, ``(k, 1, *grid.shape)`` float32."""
        batch = torch.empty((len(rows), *self.shape[1:]))
        for i, row in enumerate(rows):
            batch[i, 0].numpy()[...] = np.load(self.files[int(row)], mmap_mode="r")
        return batch


def store_scans(
    cohort: Cohort,
    place: Path,
    grid: VoxelGrid | None = None,
    *,
    assume_space: str | None = None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Cohort, StoredScans]:
    """Bring the cohort's two groups to a grid and scale each scan by its brightness.

    A scan that is there already, known by its file's hash, is not read again.

    Parameters
    ----------
    place
        Folder for the arrays.
    grid
        None: that of the first scan.
    assume_space
        ``"MNI"``: take the scans to be in MNI space without looking.
    tick
        Called with scans done and in all.

    Returns
    -------
    The cohort without what could not be read, its rows with a column ``sha256``; the scans of its `table`.

    Raises
    ------
    GlasError
        The folder cannot be written to; unless problems are to be skipped, a scan that is damaged or not in
        MNI space, and one file for two participants.

    Warns
    -----
    GlasWarning
        Who is left out, and why.
    """
    if assume_space not in (None, "MNI"):
        raise GlasError(f'assume_space must be "MNI" or None, got {assume_space!r}')
    table = cohort.table
    if table.empty:
        raise GlasError(f"a cohort needs scans, {cohort.root} has none of {cohort.case} or {cohort.control}")
    grid = grid or grid_of(load_scan(table["path"].iloc[0]))
    where = f"1 {grid.shape} {np.round(grid.affine, 3).tolist()} {assume_space}"
    folder = place / text_sha256(where)[:12]
    problems: list[dict[str, Any]] = []
    hashes: dict[tuple[str, str], str] = {}
    for done, row in enumerate(table.to_dict("records"), 1):
        key = (row["participant_id"], row["session"])
        found = {"participant_id": key[0], "session": key[1], "problem": "unreadable"}
        try:
            hashes[key] = file_sha256(row["path"])
            _store(Path(row["path"]), folder / f"{hashes[key]}.npy", grid, assume_space is None)
        except _UnwritableError as error:
            raise GlasError(str(error)) from None
        except GlasError as error:
            problems.append(found | {"detail": str(error)})
        except OSError as error:
            problems.append(found | {"detail": f"{row['path']} cannot be read: {error.strerror or error}"})
        tick(done, len(table))
    problems += _shared(hashes, {(one["participant_id"], one["session"]) for one in problems})
    left = cohort.without(problems)
    keys = zip(left.everyone["participant_id"], left.everyone["session"], strict=True)
    left = replace(left, everyone=left.everyone.assign(sha256=[hashes.get(key, "") for key in keys]))
    return left, StoredScans(tuple(folder / f"{one}.npy" for one in left.table["sha256"]), grid)


def _shared(hashes: dict[tuple[str, str], str], bad: set[tuple[str, str]]) -> list[dict[str, Any]]:
    """One file that is two participants' would be trained on under one name and tested under the other."""
    owners: dict[str, list[tuple[str, str]]] = {}
    for key, digest in hashes.items():
        if key not in bad:
            owners.setdefault(digest, []).append(key)
    found = []
    for keys in owners.values():
        people = list(dict.fromkeys(name for name, _ in keys))
        if len(people) > 1:
            detail = f"one file for {' and '.join(people)}"
            found += [
                {"participant_id": name, "session": session, "problem": "duplicated", "detail": detail}
                for name, session in keys
            ]
    return found


def _store(source: Path, target: Path, grid: VoxelGrid, check: bool) -> None:
    if _whole(target, grid):
        return
    scan = load_scan(source)
    if check and (problem := check_space(scan).problem):
        raise GlasError(f'{source} does not look like a brain in MNI space: {problem}; assume_space="MNI" takes it')
    volume = resample_scan(scan, grid)
    volume = volume / np.float32(intensity_scale(volume))
    scratch = target.with_name(f".{target.stem}-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch.open("wb") as file:
            np.save(file, volume.astype(np.float32))
        os.replace(scratch, target)
        for left in target.parent.glob(f".{target.stem}-*"):  # by runs that were killed
            left.unlink(missing_ok=True)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        if _whole(target, grid):  # by another run, which took our scratch for a leftover
            return
        raise _UnwritableError(f"cannot write to {target.parent}: {error.strerror or error}") from None


class _UnwritableError(Exception):
    """The disk's fault, not the scan's."""


def _whole(path: Path, grid: VoxelGrid) -> bool:
    try:
        found = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    return bool(found.shape == grid.shape and found.dtype == np.float32)
