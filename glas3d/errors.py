"""The error and the warnings that this package raises on purpose, and helpers for their messages."""

from __future__ import annotations

from collections.abc import Iterable


class GlasError(ValueError):
    """An input cannot be used.

    The message is one sentence: what was required, what came and, for files, which file. The commands print it after
    ``error:`` and end with status 2.
    """


class GlasWarning(UserWarning):
    """The work continues, but something was assumed or left out."""


class SpaceWarning(GlasWarning):
    """A scan does not look like a brain in the space of its atlas or model; the commands refuse it."""


class SkullWarning(GlasWarning):
    """A scan holds more than a brain, and its model wants a brain alone; the commands refuse it."""


def reason(error: BaseException) -> str:
    """Return the first line of another library's error, or its type if it has no text, for a message of ours.

    Of an error of the file system it is what the system says, without its number and the path.

    Examples
    --------
    >>> reason(OSError(21, "Is a directory", "/data"))
    'is a directory'
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def listed(names: Iterable[object]) -> str:
    """Return the first five names, and how many more there are, for a message.

    Examples
    --------
    >>> listed(["a", "b"])
    'a, b'
    >>> listed(range(1, 8))
    '1, 2, 3, 4, 5 and 2 more'
    """
    texts = [str(name) for name in names]
    return ", ".join(texts[:5]) + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")
