"""Code of others, which may fail in any way: what it raises becomes one sentence that says what failed where."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from glas3d.core.model import CannotRecompute
from glas3d.errors import GlasError, GlasWarning

_PACKAGE = Path(__file__).parent.parent
# Frames of these are left out where there are others: what went wrong lies in the code that called them.
_LIBRARIES = (_PACKAGE, Path(torch.__file__).parent)
_OWN = (GlasError, GlasWarning, CannotRecompute)


@contextmanager
def failures_of(task: str) -> Iterator[None]:
    """Raise what other people's code raises as a `GlasError` that names the error and the line it is from.

    Code that ends the program (``sys.exit``) has failed, too. What says that memory is exhausted is raised as it is,
    because a smaller batch may succeed. The block must not yield.

    Parameters
    ----------
    task
        What could not be done, for the start of the message.

    Examples
    --------
    >>> with failures_of("the model does not take a batch"):
    ...     {}["weights"]
    Traceback (most recent call last):
    glas3d.errors.GlasError: the model does not take a batch: KeyError: 'weights' (<doctest ...>, line 2)
    """
    try:
        yield
    except _OWN:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also sys.exit
        if is_out_of_memory(error):
            raise
        raise GlasError(f"{task}: {described(error)}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is exhausted, so that a smaller batch may succeed."""
    message = _text(error)
    return isinstance(error, MemoryError) or "out of memory" in message or "allocate memory" in message


def described(error: BaseException) -> str:
    """Return an error's type, the first line of its text, and the function and line that it is from."""
    lines = _text(error).strip().splitlines()
    text = f": {lines[0][:200]}" if lines else ""
    return f"{type(error).__name__}{text}{_origin(error)}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an error may fail to say what it is
        return ""


def _origin(error: BaseException) -> str:
    """Return the innermost line that is not in a library, else the innermost line, by the name of its file alone."""
    frames = traceback.extract_tb(error.__traceback__)
    others = [frame for frame in frames if not any(Path(frame.filename).is_relative_to(p) for p in _LIBRARIES)]
    outside = [frame for frame in frames if not Path(frame.filename).is_relative_to(_PACKAGE)]
    if not outside:
        return ""
    frame = (others or outside)[-1]
    function = "" if frame.name.startswith("<") else f", in {frame.name}"
    return f" ({Path(frame.filename).name}, line {frame.lineno}{function})"
