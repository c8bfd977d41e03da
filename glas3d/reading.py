"""Reading users' files: regular ones only, of a stated size; whatever is wrong with one is a sentence that names it.

A named pipe would be waited for without end, and a device never ends: what is read is checked by its descriptor, so
that the file that was checked is the one that is read.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from glas3d.errors import GlasError, reason

MOST_BYTES = 2**26
"""The most bytes of a file of JSON, TOML or other text."""

MOST_TABLE_BYTES = 2**30
"""The most bytes of a table."""

_MOST_TOML_BYTES = 2**16  # reading takes time that grows with the square of the size
_MOST_DEPTH = 100
_MOST_WHOLE = 10**300  # larger ones are no floats
_KINDS = {
    stat.S_IFIFO: "is a named pipe",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
    stat.S_IFSOCK: "is a socket",
}


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file for reading bytes, if it is a regular file; a link leads to one.

    Raises
    ------
    OSError
        There is none, it may not be read, no file can have the name, or it is a folder, a named pipe, a device or a
        socket.

    Examples
    --------
    >>> open_regular("/dev/zero")
    Traceback (most recent call last):
    OSError: [Errno 6] is a device: '/dev/zero'
    """
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        file = open(path, "rb", opener=lambda name, mode: os.open(name, mode | flags))  # noqa: SIM115 (it is returned)
    except ValueError as error:  # NUL, or half of a character
        raise OSError(errno.EINVAL, "no file can have such a name") from error
    except OSError as error:
        if error.errno == errno.ENXIO:  # sockets cannot even be opened
            raise OSError(errno.ENXIO, _KINDS[stat.S_IFSOCK], os.fspath(path)) from None
        raise
    kind = stat.S_IFMT(os.fstat(file.fileno()).st_mode)
    if kind != stat.S_IFREG:
        file.close()
        raise OSError(errno.ENXIO, _KINDS.get(kind, "is no regular file"), os.fspath(path))
    return file


@contextmanager
def file_access(path: Path, what: str) -> Iterator[None]:
    """Raise what the file system refuses in the block as a `GlasError` that names the file.

    Parameters
    ----------
    path
        The file that is read.
    what
        What messages call a file of its kind.

    Examples
    --------
    >>> with file_access(Path("/"), "a table"):
    ...     open_regular("/")
    Traceback (most recent call last):
    glas3d.errors.GlasError: a table must be a file that you may read, / is not: is a directory
    """
    try:
        yield
    except FileNotFoundError:
        raise GlasError(f"no such file: {path}") from None
    except OSError as error:
        raise GlasError(f"{what} must be a file that you may read, {path} is not: {reason(error)}") from None


def check_regular(path: Path, what: str) -> None:
    """Refuse what is no regular file, or may not be read, before a library opens it by its name.

    Raises
    ------
    GlasError
        See `open_regular`.
    """
    with file_access(path, what), open_regular(path):
        pass


def read_bytes(path: Path, what: str, most: int | None = MOST_BYTES) -> bytes:
    """Return the content of a file.

    Parameters
    ----------
    path
        The file.
    what
        What messages call a file of its kind.
    most
        How many bytes it may have; None: any number.

    Raises
    ------
    GlasError
        See `open_regular`; or it has more bytes.
    """
    with file_access(path, what), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if most is not None and size > most else file.read(-1 if most is None else most + 1)
    if most is not None and max(size, len(content)) > most:
        raise GlasError(f"{what} must have at most {most:,} bytes, {path} has {max(size, len(content)):,}")
    return content


def read_text(path: Path, what: str, most: int = MOST_BYTES) -> str:
    """Return the content of a text file in UTF-8, without the byte-order mark that it may begin with.

    Parameters
    ----------
    path, what, most
        See `read_bytes`.

    Raises
    ------
    GlasError
        See `read_bytes`; or it is no text in UTF-8.
    """
    try:
        return read_bytes(path, what, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise GlasError(f"{what} must be text in UTF-8, {path} is not: {reason(error)}") from None


def read_json(path: Path, what: str) -> Any:
    """Return what a file of JSON holds.

    Parameters
    ----------
    path, what
        See `read_bytes`.

    Raises
    ------
    GlasError
        See `read_bytes` and `parse_json`.
    """
    content = read_bytes(path, what)
    try:
        return parse_json(content)
    except ValueError as error:
        raise GlasError(f"{what} must be JSON in UTF-8, {path} is not: {reason(error)}") from None


def read_json_object(path: Path, what: str) -> dict[str, Any]:
    """Return the object that a file of JSON holds.

    Parameters
    ----------
    path, what
        See `read_bytes`.

    Raises
    ------
    GlasError
        See `read_json`; or it holds something else.
    """
    content = read_json(path, what)
    if not isinstance(content, dict):
        came = {list: "a list", str: "a text", type(None): "null"}.get(type(content), "a number or truth value")
        raise GlasError(f"{what} must be a JSON object, {path} holds {came}")
    return content


def parse_json(content: bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Return what JSON holds, nested at most 100 deep.

    Parameters
    ----------
    content
        JSON in UTF-8.
    pairs
        Makes an object of its keys and values. Default: a dictionary.

    Raises
    ------
    ValueError
        It is no JSON, is nested deeper, or holds whole numbers of more than 300 digits or halves of characters.

    Examples
    --------
    >>> parse_json(b"[" * 100_000)
    Traceback (most recent call last):
    ValueError: it is nested more than 100 deep
    """
    tree = _parsed(lambda text: json.loads(text, object_pairs_hook=pairs), content)
    if b"\\ud" in content.lower():
        json.dumps(tree, ensure_ascii=False).encode()
    return tree


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return what a file of TOML holds.

    Parameters
    ----------
    path, what
        See `read_bytes`.

    Raises
    ------
    GlasError
        See `read_bytes`; or it is no TOML, is nested more than 100 deep, or has numbers of more than 300 digits.
    """
    content = read_bytes(path, what, _MOST_TOML_BYTES)
    try:
        if max(piece.count(b".") for piece in re.split(rb"[,\n]", content)) > _MOST_DEPTH:  # minutes to read
            raise ValueError(f"it has a key of more than {_MOST_DEPTH} parts")
        tree: dict[str, Any] = _parsed(tomllib.loads, content)
    except ValueError as error:
        raise GlasError(f"{what} must be TOML, {path} is not: {reason(error)}") from None
    return tree


def _parsed(parse: Callable[[str], Any], content: bytes) -> Any:
    """Return the tree that a parser makes of text, checked."""
    text = content.decode("utf-8-sig")
    try:
        tree = parse(text)
    except RecursionError:
        raise ValueError(f"it is nested more than {_MOST_DEPTH} deep") from None
    except (json.JSONDecodeError, tomllib.TOMLDecodeError):
        raise
    except ValueError:  # Python's limit for the digits of a number
        raise ValueError("it holds a number of too many digits") from None
    level = [tree]
    for _ in range(_MOST_DEPTH + 1):
        if any(type(value) is int and abs(value) > _MOST_WHOLE for value in level):
            raise ValueError("it holds a number of too many digits")
        level = [
            value
            for node in level
            if isinstance(node, dict | list)
            for value in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return tree
    raise ValueError(f"it is nested more than {_MOST_DEPTH} deep")
