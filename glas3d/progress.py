"""One line of progress: on standard error in a terminal, in the output of the cell in a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = bool | Callable[[int, int], None]
Report = Callable[[int, int], None]

_WIDTH = 30


def notebook() -> Any:
    """Return IPython's display module where this runs in a notebook, else None; nothing is imported for it."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return sys.modules.get("IPython.display") if hasattr(shell, "kernel") else None


@contextmanager
def reported(progress: Progress | None, unit: str = "model evaluations") -> Iterator[Report]:
    """Give what is called with the number of steps done and of all steps.

    Parameters
    ----------
    progress
        True draws one line; a callable is called itself; None draws the line in a notebook alone.
    unit
        What is counted, in the plural.
    """
    display = notebook()
    if progress is None:
        progress = display is not None
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda done, total: None
    elif display is not None:
        with _cell(display, unit) as report:
            yield report
    else:
        with _terminal(unit) as report:
            yield report


@contextmanager
def _terminal(unit: str) -> Iterator[Report]:
    start = time.monotonic()
    longest = 0

    def report(done: int, total: int) -> None:
        nonlocal longest
        line = progress_line(done, total, unit, time.monotonic() - start)
        longest = max(longest, len(line))
        sys.stderr.write(f"\r{line:<{longest}}")
        sys.stderr.flush()

    try:
        yield report
    finally:
        sys.stderr.write("\n")


@contextmanager
def _cell(display: Any, unit: str) -> Iterator[Report]:
    """Draw the line in the output of a cell; it is taken away at the end, as the result follows it."""
    start = time.monotonic()
    handle: Any = None

    def report(done: int, total: int) -> None:
        nonlocal handle
        line = {"text/plain": progress_line(done, total, unit, time.monotonic() - start)}
        if handle is None:
            handle = display.DisplayHandle()
            handle.display(line, raw=True)
        else:
            handle.update(line, raw=True)

    try:
        yield report
    finally:
        if handle is not None:
            handle.update({"text/plain": ""}, raw=True)


def progress_line(done: int, total: int, unit: str, seconds: float) -> str:
    """Return a bar, the steps, how many a second, and the time left.

    Examples
    --------
    >>> progress_line(100, 400, "scans", 20)
    '[=======                       ] 100/400 scans, 5.0/s, 1 min left'
    >>> progress_line(400, 400, "scans", 80)
    '[==============================] 400/400 scans, 5.0/s, 80 s'
    """
    filled = _WIDTH * done // max(total, 1)
    line = f"[{'=' * filled}{' ' * (_WIDTH - filled)}] {done}/{total} {unit}"
    if not done or seconds <= 0:
        return line
    left = seconds * (total - done) / done
    shown = f"{_duration(left)} left" if done < total else _duration(seconds)
    return f"{line}, {rate(done / seconds)}, {shown}"


def rate(per_second: float) -> str:
    """Return how fast steps are done, in the unit of time in which that is a number above 1.

    Examples
    --------
    >>> rate(12.34), rate(0.1), rate(0.01)
    ('12.3/s', '6.0/min', '36.0/h')
    """
    for unit, seconds in (("s", 1), ("min", 60)):
        if per_second * seconds >= 0.95:
            return f"{per_second * seconds:.1f}/{unit}"
    return f"{per_second * 3600:.1f}/h"


def _duration(seconds: float) -> str:
    if seconds < 60 or (seconds % 60 and seconds < 100):
        return f"{seconds:z.0f} s"
    return f"{seconds / 60:z.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
