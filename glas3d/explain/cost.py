"""What an explanation will cost, told from its first batches: they are asked, and the rest is not."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch

from glas3d.core.glas import Progress
from glas3d.core.rglas import RGLAS

_BATCHES = 3  # the first, which warms the model up, and two that are timed


@dataclass(frozen=True)
class Forecast:
    """What asking one model about one scan costs.

    Attributes
    ----------
    forwards
        Inputs the model is asked about; of a recursion the most there can be.
    batch_size
        Inputs a forward takes at once.
    seconds
        An input, by the clock.
    memory
        Bytes the process had at its highest, on the GPU where the model is there; None: the system does not say.
    """

    forwards: int
    batch_size: int
    seconds: float
    memory: int | None


def forecast(ask: Callable[[Progress], object], recursive: Any = False) -> Forecast:
    """Begin an explanation and stop it when it has shown what it takes.

    Parameters
    ----------
    ask
        Explains, with the progress it is given.
    recursive
        As of `explain_img`.

    Raises
    ------
    GlasError
        What the explanation itself would be refused for.
    """
    ticks: list[tuple[float, int, int]] = [(time.perf_counter(), 0, 0)]

    def tick(done: int, total: int) -> None:
        ticks.append((time.perf_counter(), done, total))
        if len(ticks) > _BATCHES:
            raise _Enough

    with suppress(_Enough):
        ask(tick)
    first, last = ticks[1 if len(ticks) > 2 else 0], ticks[-1]
    return Forecast(
        forwards=last[2] * _rounds(recursive),
        batch_size=ticks[1][1],
        seconds=(last[0] - first[0]) / max(1, last[1] - first[1]),
        memory=_memory(),
    )


class _Enough(Exception):
    """Ends an explanation that was only begun."""


def _rounds(recursive: Any) -> int:
    if recursive is False or recursive is None:
        return 1
    settings = {} if recursive is True else dict(recursive)
    return int(settings.get("max_iterations", signature(RGLAS).parameters["max_iterations"].default))


def _memory() -> int | None:
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else 1024 * highest
