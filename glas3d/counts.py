"""Write counts and lists as parts of sentences, such as "1 file", "3 files" and "one, two and three"."""

from __future__ import annotations

from collections.abc import Sequence


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    Parameters
    ----------
    n
        The number.
    noun
        The noun in the singular. Words that follow it are not changed: ``"file"``, ``"region of AAL"``.
    plural
        The noun in the plural. Default: an ``s`` after its first word.

    Examples
    --------
    >>> counted(1, "file"), counted(0, "file"), counted(2, "region of AAL"), counted(3, "axis", "axes")
    ('1 file', '0 files', '2 regions of AAL', '3 axes')
    """
    first, space, rest = noun.partition(" ")
    return f"{n} {noun if n == 1 else plural or f'{first}s{space}{rest}'}"


def enumerated(items: Sequence[str]) -> str:
    """Return items separated by commas, the last one by "and".

    Examples
    --------
    >>> enumerated(["target"]), enumerated(["target", "model"]), enumerated(["input", "target", "model"])
    ('target', 'target and model', 'input, target and model')
    """
    *first, last = items or [""]
    return f"{', '.join(first)} and {last}" if first else last
