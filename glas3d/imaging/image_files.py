"""The files of an image, checked before a library opens them: what they are, and how many bytes they hold."""

from __future__ import annotations

import bz2
import gzip
import math
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.imageclasses import all_image_classes

from glas3d.errors import GlasError, reason
from glas3d.reading import check_regular, open_regular

MOST_INFLATION = 200
"""How many times larger than a compressed file its content may be, where it is large."""

_SMALL = 2**29  # below this many bytes, inflation does no harm
_MOST_HEADER = 2**26  # bytes before the voxels, or in a file of their own
_MOST_MATRIX = 2**16  # of SPM's .mat, whose parts may be compressed once more
_COMPRESSED: dict[bytes, Callable[[BinaryIO], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
# Bytes of the header, by which NIfTI-1 and -2 are known; how the position of the voxels is stored, and where.
_NIFTI = {348: ("f", 108), 540: ("q", 168)}


def files_of(path: Path) -> dict[str, Path]:
    """Return the files that nibabel may open for an image, by what they are to it: header, image, and SPM's matrix."""
    files: dict[str, Path] = {}
    for kind in all_image_classes:
        try:
            parts = kind.filespec_to_file_map(path)
        except ImageFileError:
            continue
        files |= {key: file for key, part in parts.items() if os.path.exists(file := Path(str(part.filename)))}
    return files or {"image": path}


def check_files(path: Path, what: str) -> dict[str, Path]:
    """Refuse an image of which a file is no regular file, or has more before the voxels than any image needs.

    Parameters
    ----------
    path
        The file that is named.
    what
        What messages call an image of its kind.

    Returns
    -------
    See `files_of`.

    Raises
    ------
    GlasError
        See `glas3d.reading.open_regular`; or a header, or a matrix of SPM, is too large.
    """
    files = files_of(path)
    for key, file in files.items():
        check_regular(file, what)
        if key not in ("image", "mat", "header") or (key == "header" and file == files.get("image")):
            continue
        if key == "image":
            start = _voxels_begin(file)
            if start > _MOST_HEADER:
                raise GlasError(
                    f"the voxels of {what} must begin within {_MOST_HEADER:,} bytes, "
                    f"the header of {file} states {start:,.0f}"
                )
            continue
        most = _MOST_MATRIX if key == "mat" else _MOST_HEADER
        if content_size(file, what, most) > most:
            raise GlasError(f"the header of {what} must have at most {most:,} bytes, {file} has more")
    return files


def content_size(path: Path, what: str, most: int | None = None) -> int:
    """Return how many bytes a file holds, inflated if it is compressed.

    A compressed file is read to its end, where the checksum is; nibabel stops before, and would read damaged
    intensities.

    Parameters
    ----------
    path, what
        See `check_files`.
    most
        A number of bytes after which it is not read further. Default: it is read as far as it may inflate.

    Raises
    ------
    GlasError
        The file is damaged, or inflates beyond `MOST_INFLATION`.
    """
    stored = path.stat().st_size
    with open_regular(path) as file:
        inflate = _inflating(file)
        if inflate is None:
            return stored
        size, allowed = 0, max(_SMALL, MOST_INFLATION * stored)
        try:
            with inflate(file) as content:
                while (most is None or size <= most) and (read := len(content.read(2**18))):
                    size += read
                    if size > allowed:
                        raise GlasError(
                            f"{what} must not be more than {MOST_INFLATION} times larger than its file, {path} has "
                            f"{stored:,} bytes and inflates to more than {allowed:,}"
                        )
        except (OSError, EOFError, zlib.error) as error:
            raise GlasError(f"{what} must be complete, {path} is truncated or damaged: {reason(error)}") from None
    return size


def check_stated_size(image: Any, path: Path, size: int, what: str) -> None:
    """Refuse a header that states more voxels than the file has bytes for, before memory is taken for them.

    Parameters
    ----------
    image
        The image, whose voxels were not read yet.
    path
        The file of its voxels.
    size
        The bytes that it holds, see `content_size`.
    what
        See `check_files`.

    Raises
    ------
    GlasError
        It states more. Of formats that compress voxels themselves, that is more than `MOST_INFLATION` times the size.
    """
    stored = image.dataobj
    stated = math.prod(map(int, image.shape)) * image.get_data_dtype().itemsize
    if isinstance(stored, ArrayProxy):
        stated = stored.offset + math.prod(map(int, stored.shape)) * stored.dtype.itemsize
    elif stated <= max(_SMALL, MOST_INFLATION * size):
        return
    if stated > size:
        raise GlasError(
            f"{what} must be complete, {path} is truncated or damaged: "
            f"its header states {stated:,} bytes, it has {size:,}"
        )


def _inflating(file: BinaryIO) -> Callable[[BinaryIO], Any] | None:
    """Return what inflates an open file; None if it is not compressed."""
    start = file.read(3)
    file.seek(0)
    return next((opener for magic, opener in _COMPRESSED.items() if start.startswith(magic)), None)


def _voxels_begin(path: Path) -> float:
    """Return at which byte of a NIfTI file its header says that voxels begin; 0 for other files."""
    with open_regular(path) as file:
        inflate = _inflating(file)
        try:
            with inflate(file) if inflate else file as content:
                header = content.read(max(_NIFTI))
        except (OSError, EOFError, zlib.error):  # which reading it all will report
            return 0
    for order in "<>":
        form, position = _NIFTI.get(struct.unpack(f"{order}i", header[:4].ljust(4))[0], ("", 0))
        if form and len(header) >= position + struct.calcsize(form):
            return float(struct.unpack_from(f"{order}{form}", header, position)[0])
    return 0
