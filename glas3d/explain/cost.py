"""Estimate what an explanation takes from its first batches, without evaluating the rest."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from glas3d.core.settings import RecursionSettings
from glas3d.progress import Progress

_BATCHES = 3  # the first, which warms the model up, and two that are timed


@dataclass(frozen=True)
class CostEstimate:
    """What the explanation of one scan by one model takes.

    Attributes
    ----------
    evaluations
        Number of model evaluations; for a recursion the largest number possible.
    batch_size
        Number of inputs in one forward pass.
    seconds_per_evaluation
        Wall-clock time of one model evaluation.
    memory
        Highest memory use of the process so far in bytes, on the GPU where the model runs there; None: unknown.
    """

    evaluations: int
    batch_size: int
    seconds_per_evaluation: float
    memory: int | None


def estimate_cost(explain: Callable[[Progress], object], recursive: Any = False) -> CostEstimate:
    """Start an explanation and stop it when its first batches have been timed.

    Parameters
    ----------
    explain
        Function that explains, and reports its progress to the callable that it is given.
    recursive
        The option of `explain_img`; a recursion may repeat the explanation in every round.

    Raises
    ------
    GlasError
        The explanation itself would be refused.
    """
    times: list[tuple[float, int, int]] = [(time.perf_counter(), 0, 0)]

    def record(done: int, total: int) -> None:
        times.append((time.perf_counter(), done, total))
        if len(times) > _BATCHES:
            raise _EnoughTimed

    with suppress(_EnoughTimed):
        explain(record)
    first, last = times[1 if len(times) > 2 else 0], times[-1]
    return CostEstimate(
        evaluations=last[2] * _rounds(recursive),
        batch_size=times[1][1],
        seconds_per_evaluation=(last[0] - first[0]) / max(1, last[1] - first[1]),
        memory=_memory(),
    )


class _EnoughTimed(Exception):
    """The signal that ends an explanation which was started only to be timed."""


def _rounds(recursive: Any) -> int:
    """Return the largest number of rounds that the option ``recursive`` allows."""
    if recursive is False or recursive is None:
        return 1
    return RecursionSettings(**({} if recursive is True else dict(recursive))).max_iterations


def _memory() -> int | None:
    """Return the highest memory use of the process so far, in bytes; None where the system does not report it."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else 1024 * highest
