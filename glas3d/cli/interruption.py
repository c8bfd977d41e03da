"""Ctrl-C, SIGTERM and ``os._exit``: one line says why a command ends, with the status that shells expect."""

from __future__ import annotations

import os
import signal
import sys
import threading
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_end_process = os._exit
_AGAIN_AFTER = 0.02  # seconds after which a signal that came while an object was freed is raised again


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

    A signal that is ignored, as in a background job of a shell or under ``nohup``, stays ignored. Python drops what is
    raised while it frees an object: an interruption that came then is raised again shortly afterwards.
    """
    received: list[int] = []
    ended = threading.Event()
    main_thread, report_unraisable = threading.get_ident(), sys.unraisablehook

    def end(number: int, frame: FrameType | None) -> None:
        if received:
            _end_process(128 + number)
        received.append(number)
        raise Interruption(number)

    def dropped(unraisable: sys.UnraisableHookArgs) -> None:
        if isinstance(unraisable.exc_value, Interruption):
            # starts without waiting, as `Thread.start` does: what is raised in this function is dropped, too
            start_new_thread(again, (unraisable.exc_value.number,))
        else:
            report_unraisable(unraisable)

    def again(number: int) -> None:
        if not ended.wait(_AGAIN_AFTER):
            received.clear()
            signal.pthread_kill(main_thread, number)  # which also ends a call that waits

    handled = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    previous = [(number, signal.signal(number, end)) for number in handled]
    sys.unraisablehook = dropped
    try:
        yield
    finally:
        ended.set()
        sys.unraisablehook = report_unraisable
        for number, handler in previous:
            signal.signal(number, handler)


@contextmanager
def exits_are_noticed() -> Iterator[None]:
    """Let ``os._exit``, which a model may call, raise `SystemExit` as ``sys.exit`` does.

    It would end the process with the status that it is given, which may be 0, without a message and without results.
    Processes that were forked end as they want to. In a thread, where the exception would be lost, an error is written
    and the status is not 0. Native code that ends the process is not noticed.
    """
    process = os.getpid()

    def leave(status: int) -> NoReturn:
        if os.getpid() != process:
            _end_process(status)
        if threading.current_thread() is threading.main_thread():
            raise SystemExit(status)
        message = f"error: the model, or code that it runs, ended the program with exit status {status}\n"
        os.write(2, message.encode())
        _end_process(status or 2)

    os._exit = leave
    try:
        yield
    finally:
        os._exit = _end_process


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
