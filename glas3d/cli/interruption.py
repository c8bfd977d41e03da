"""Ctrl-C and SIGTERM: a command ends with one line that says what it kept, and with the status that shells expect."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption(KeyboardInterrupt):
    """A signal that ends the command.

    Attributes
    ----------
    number
        The signal, ``SIGINT`` or ``SIGTERM``.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.number = number


@contextmanager
def signals_end_the_command() -> Iterator[None]:
    """Let the first SIGINT or SIGTERM raise `Interruption`, and the second end the process at once.

    A signal that is ignored, as in a background job of a shell or under ``nohup``, stays ignored.
    """
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        raise Interruption(number)

    handled = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    previous = [(number, signal.signal(number, end)) for number in handled]
    try:
        yield
    finally:
        for number, handler in previous:
            signal.signal(number, handler)


class _State:
    """What an interruption leaves; one object, because a process runs one command at a time."""

    kept: Callable[[], str] | None = None


def if_interrupted(kept: Callable[[], str] | str | None) -> None:
    """Say from now on, when the command is interrupted, what was kept and how to go on.

    Parameters
    ----------
    kept
        The sentence, or a function that returns it when the interruption comes; None: there is nothing to say.
    """
    _State.kept = (lambda: kept) if isinstance(kept, str) else kept


def message_and_status(interruption: KeyboardInterrupt) -> tuple[str, int]:
    """Return the line about an interruption, and the exit status: 128 and the number of the signal."""
    number = interruption.number if isinstance(interruption, Interruption) else signal.SIGINT
    message = "terminated" if number == signal.SIGTERM else "interrupted"
    if _State.kept is not None:
        message += f"; {_State.kept()}"
    return message, 128 + int(number)
