"""What options of several commands share."""

from __future__ import annotations

from cyclopts import Parameter

from glas3d.errors import GlasError

SEVERAL = Parameter(consume_multiple=True, negative=(), show_default=False)
FLAG = Parameter(negative=(), show_default=False)


def class_of(text: str) -> int | str:
    """A class by its index from 0, or by its name."""
    return int(text) if text.isdecimal() else text


def named(pairs: tuple[str, ...], option: str) -> dict[str, float] | None:
    """Of ``name=value`` texts; None for none."""
    found: dict[str, float] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        value = number(text)
        if not (name and equals) or isinstance(value, str) or name in found:
            raise GlasError(f"{option} takes name=number, each name once, got {pair!r}")
        found[name] = value
    return found or None


def number(text: str) -> float | str:
    """As a number where it is one."""
    try:
        return float(text)
    except ValueError:
        return text
