"""Counts in sentences: "1 file", "3 files"."""

from __future__ import annotations


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    Parameters
    ----------
    n
        The number.
    noun
        The noun for one, which may have words after it that stay as they are: ``"file"``, ``"region of AAL"``.
    plural
        The noun for any other number. Default: an ``s`` after its first word.

    Examples
    --------
    >>> counted(1, "file"), counted(0, "file"), counted(2, "region of AAL"), counted(3, "axis", "axes")
    ('1 file', '0 files', '2 regions of AAL', '3 axes')
    """
    first, space, rest = noun.partition(" ")
    return f"{n} {noun if n == 1 else plural or f'{first}s{space}{rest}'}"
