"""SHA-256 of files, texts and arrays, as sidecars, keys and manifests record them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from glas3d.reading import open_regular


def bytes_sha256(parts: Iterable[bytes | memoryview]) -> str:
    """Return the SHA-256 of several pieces of bytes, one after the other.

    Examples
    --------
    >>> bytes_sha256([b"sub-", b"01"]) == text_sha256("sub-01")
    True
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def text_sha256(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8."""
    return bytes_sha256([text.encode()])


def arrays_sha256(*arrays: np.ndarray) -> str:
    """Return the SHA-256 of the values of arrays in C order, one array after the other.

    Shapes and types are not part of it: give them with `bytes_sha256` where they can differ.
    """
    return bytes_sha256(array.tobytes() for array in arrays)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises
    ------
    OSError
        The file cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
