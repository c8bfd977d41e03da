"""A limit on the time that a piece of work may take, after which it counts as one that hangs."""

import signal
import threading
from contextlib import contextmanager


class OutOfTime(BaseException):
    """The work took longer than it may; no handler of errors is meant to keep it."""


@contextmanager
def time_limit(seconds):
    """Raise `OutOfTime` in the block after so many seconds; yield a function that lets the time begin anew.

    Where there are no alarms (Windows, or another thread than the first), there is no limit.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def ring(number, frame):
        raise OutOfTime(f"it takes longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield lambda: signal.setitimer(signal.ITIMER_REAL, seconds)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
