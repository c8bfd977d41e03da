"""What options of several commands share."""

from __future__ import annotations

from cyclopts import Parameter

SEVERAL = Parameter(consume_multiple=True, negative=(), show_default=False)
FLAG = Parameter(negative=(), show_default=False)


def class_of(text: str) -> int | str:
    """A class by its index from 0, or by its name."""
    return int(text) if text.isdecimal() else text
