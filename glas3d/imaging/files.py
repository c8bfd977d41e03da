"""Files that stand where an image is expected: DICOM, pointers to content that was not fetched, wrong endings."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Literal

from glas3d.reading import open_regular

_FILES_SEARCHED = 50
_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
_NIFTI_HEADERS = tuple(size.to_bytes(4, order) for size in (348, 540) for order in _ORDERS)


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, by its preamble."""
    try:
        with open_regular(path) as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def not_fetched(path: Path) -> str:
    """Return what stands in the place of a file whose content is elsewhere, and how to get it; empty for other files.

    git-annex and DataLad leave a link that leads nowhere or a short text, Git LFS a short text.
    """
    if path.is_symlink() and not path.exists():
        if "annex" in os.readlink(path):
            return f"{path} is a link of git-annex without its content: fetch it with datalad get (or git annex get)"
        return f"{path} is a link to {os.readlink(path)}, which does not exist"
    try:
        with open_regular(path) as file:
            start = file.read(64)
    except OSError:
        return ""
    if start.startswith(b"/annex/objects/"):
        return f"{path} is a pointer of git-annex without its content: fetch it with datalad get (or git annex get)"
    if start.startswith(b"version https://git-lfs"):
        return f"{path} is a pointer of Git LFS without its content: fetch it with git lfs pull"
    return ""


def no_image(path: Path) -> str:
    """Return why a file or folder is no image that can be read, and what helps; empty where nothing is known of it."""
    if path.is_dir():
        inside = islice((Path(folder) / name for folder, _, names in os.walk(path) for name in names), _FILES_SEARCHED)
        dicom = any(is_dicom(file) for file in inside)
        return f"{path} is a folder" + (" of DICOM files, which dcm2niix converts to NIfTI" if dicom else "")
    if pointer := not_fetched(path):
        return pointer
    if is_dicom(path):
        return f"{path} is a DICOM file: dcm2niix converts its series to NIfTI"
    if path.name.lower().endswith((".gii", ".gii.gz")):
        return f"{path} is a surface (GIFTI), which has no voxels"
    if _starts_with(path, b"\x89HDF"):
        return f"{path} is an HDF5 file, as those of MINC 2 are: mnc2nii converts it to NIfTI"
    if path.suffix.lower() == ".zst":
        return f"{path} is compressed by Zstandard: compress it by gzip"
    if path.suffix.lower() in (".nii", ".hdr", ".img", ".mgh") and _starts_with(path, b"\x1f\x8b"):
        return f"{path} is gzipped: rename it to {path.name}.gz"
    if path.name.lower().endswith(".nii.gz") and any(_starts_with(path, size) for size in _NIFTI_HEADERS):
        return f"{path} is not gzipped: rename it to {path.name[:-3]}"
    return ""


def _starts_with(path: Path, start: bytes) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(start)) == start
    except OSError:
        return False
