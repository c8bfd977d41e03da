"""Estimate what an explanation takes from its first batches, without evaluating the rest."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from glas3d.core.glas import Progress
from glas3d.core.settings import RecursionSettings

_BATCHES = 3  # the first, which warms the model up, and two that are timed


@dataclass(frozen=True)
class CostEstimate:
    """What the explanation of one scan by one model takes.

    Attributes
    ----------
    evaluations
        Model evaluations; of a recursion the most there can be.
    batch_size
        Inputs in one forward pass.
    seconds
        Wall-clock time of one model evaluation.
    memory
        Bytes: the highest memory use of the process so far, on the GPU where the model is there; None: unknown.
    """

    evaluations: int
    batch_size: int
    seconds: float
    memory: int | None


def estimate_cost(explain: Callable[[Progress], object], recursive: Any = False) -> CostEstimate:
    """Start an explanation and stop it when its first batches have been timed.

    Parameters
    ----------
    explain
        Explains, with the progress it is given.
    recursive
        The option of `explain_img`.

    Raises
    ------
    GlasError
        What the explanation itself would be refused for.
    """
    ticks: list[tuple[float, int, int]] = [(time.perf_counter(), 0, 0)]

    def tick(done: int, total: int) -> None:
        ticks.append((time.perf_counter(), done, total))
        if len(ticks) > _BATCHES:
            raise _EnoughTimed

    with suppress(_EnoughTimed):
        explain(tick)
    first, last = ticks[1 if len(ticks) > 2 else 0], ticks[-1]
    return CostEstimate(
        evaluations=last[2] * _rounds(recursive),
        batch_size=ticks[1][1],
        seconds=(last[0] - first[0]) / max(1, last[1] - first[1]),
        memory=_memory(),
    )


class _EnoughTimed(Exception):
    """Ends an explanation that was started only to be timed."""


def _rounds(recursive: Any) -> int:
    if recursive is False or recursive is None:
        return 1
    return RecursionSettings(**({} if recursive is True else dict(recursive))).max_iterations


def _memory() -> int | None:
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else 1024 * highest
