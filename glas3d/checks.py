"""Checks of numbers that callers give, with one wording for all rooms."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
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
