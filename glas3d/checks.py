"""Checks of numbers that callers give, with one wording for all rooms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from glas3d.errors import GlasError


def whole_number(name: str, value: Any, least: int) -> int:
    """Return a value as an int if it is a whole number that is large enough.

    Parameters
    ----------
    name
        What the message calls the value, usually the name of the argument.
    value
        A Python or NumPy integer; booleans and floats are refused.
    least
        The smallest value allowed.

    Raises
    ------
    GlasError
        The value is something else, or below ``least``.

    Examples
    --------
    >>> whole_number("batch_size", 8, least=1)
    8
    >>> whole_number("batch_size", 0, least=1)
    Traceback (most recent call last):
    glas3d.errors.GlasError: batch_size must be a whole number of at least 1, got 0
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise GlasError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number, of Python or NumPy; booleans are not numbers.

    Examples
    --------
    >>> is_number(0.5), is_number(True), is_number(float("nan")), is_number("1")
    (True, False, False, False)
    """
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def refuse_formulas(what: str, texts: Iterable[str]) -> None:
    """Refuse names that a spreadsheet would take for formulas when it opens a table that they are written to.

    Parameters
    ----------
    what
        What messages call the names.
    texts
        The names; numbers may begin with a sign, which may also stand alone.

    Examples
    --------
    >>> refuse_formulas("the name of a region", ["Hippocampus_L", "-1"])
    >>> refuse_formulas("the name of a region", ["=cmd|'calc'!A0"])
    Traceback (most recent call last):
    glas3d.errors.GlasError: the name of a region must not begin as a formula does (=, +, -, @), got "=cmd|'calc'!A0"
    """
    for text in texts:
        if len(text) > 1 and text[0] in ("=", "+", "-", "@") and not _is_number_text(text):
            raise GlasError(f"{what} must not begin as a formula does (=, +, -, @), got {text[:80]!r}")


def _is_number_text(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
    ...     Path("/").read_bytes()
    Traceback (most recent call last):
    glas3d.errors.GlasError: a table must be a file that you may read, / is not: is a directory
    """
    try:
        yield
    except FileNotFoundError:
        raise GlasError(f"no such file: {path}") from None
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise GlasError(f"{what} must be a file that you may read, {path} is not: {why}") from None
