"""The clock by which ``engine="auto"`` decides, and how to give it another one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Clock = Callable[[], float]

_current: list[Clock] = [time.perf_counter]


def current_clock() -> Clock:
    """Return the clock in use: seconds from any start, as `time.perf_counter` unless `use_clock` gave another one."""
    return _current[-1]


@contextmanager
def use_clock(clock: Clock) -> Iterator[None]:
    """Let ``engine="auto"`` measure time by another clock, for as long as the block lasts.

    By a clock that stands still no engine ever pays, so that ``"auto"`` is the network itself, on every machine:

    >>> with use_clock(lambda: 0.0):
    ...     current_clock()()
    0.0

    Parameters
    ----------
    clock
        Returns seconds from any start. The block applies to all threads of this process.
    """
    _current.append(clock)
    try:
        yield
    finally:
        _current.remove(clock)
