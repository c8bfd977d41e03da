"""The one error and the one warning this package raises on purpose."""

from __future__ import annotations

from collections.abc import Iterable


class GlasError(ValueError):
    """Something the caller gave cannot be used.

    The message is one sentence: what was required, what came and, for files, which file.
    The commands print it after ``error:`` and end with status 2.
    """


class GlasWarning(UserWarning):
    """The work goes on, but the caller should know what was assumed or left out."""


class SpaceWarning(GlasWarning):
    """A scan does not look like a brain in the space its atlas or model is in. The commands refuse it."""


def reason(error: BaseException) -> str:
    """What another library's error says, for a message of ours: its first line, or its kind."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def listed(names: Iterable[object]) -> str:
    """The first five, for a message of ours, and how many there are more.

    Examples
    --------
    >>> listed(["a", "b"])
    'a, b'
    >>> listed(range(1, 8))
    '1, 2, 3, 4, 5 and 2 more'
    """
    found = [str(one) for one in names]
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
