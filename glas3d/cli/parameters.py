"""What options of several commands share."""

from __future__ import annotations

from cyclopts import Parameter

from glas3d.errors import GlasError

SEVERAL = Parameter(consume_multiple=True, negative=(), show_default=False)
FLAG = Parameter(negative=(), show_default=False)


def class_of(text: str) -> int | str:
    """A class by its index from 0, or by its name."""
    return int(text) if text.isdecimal() else text


def pairs(texts: tuple[str, ...], option: str, what: str = "value") -> dict[str, str]:
    """Of ``name=value`` texts, each name once."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals) or name in found or (what == "number" and isinstance(number(value), str)):
            raise GlasError(f"{option} takes name={what}, each name once, got {text!r}")
        found[name] = value
    return found


def named(texts: tuple[str, ...], option: str) -> dict[str, float] | None:
    """Of ``name=number`` texts; None for none."""
    return {name: float(value) for name, value in pairs(texts, option, "number").items()} or None


def number(text: str) -> float | str:
    """As a number where it is one."""
    try:
        return float(text)
    except ValueError:
        return text
