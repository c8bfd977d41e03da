"""Interleaved timing: every round runs every entry once, so that a slow minute slows all entries."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from glas3d.predict import use_clock

Entry = Callable[[], object]


@dataclass(frozen=True)
class Spread:
    """The median, the lowest and the highest of some repeats."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True)
class Times:
    """The seconds of every entry, one value for each round."""

    seconds: Mapping[str, list[float]]

    def of(self, entry: str, per: float = 1.0) -> Spread:
        """Return the seconds of an entry, divided by the units of its work."""
        return Spread.of([s / per for s in self.seconds[entry]])

    def ratio(self, above: str, below: str, per_above: float = 1.0, per_below: float = 1.0) -> Spread:
        """Return the ratio of two entries' times **in the same round**, each divided by the units of its own work."""
        pairs = zip(self.seconds[above], self.seconds[below], strict=True)
        return Spread.of([(a / per_above) / (b / per_below) for a, b in pairs])


def time_in_rounds(entries: Mapping[str, Entry], repeats: int, clock: Callable[[], float] = time.perf_counter) -> Times:
    """Time every entry ``repeats`` times, in rounds; the order within a round alternates.

    The caller has run every entry once before, when it checked that the entry does its work.
    """
    seconds: dict[str, list[float]] = {name: [] for name in entries}
    order = list(entries)
    enabled = gc.isenabled()
    gc.disable()
    try:
        for round_number in range(repeats):
            gc.collect()
            for name in order if round_number % 2 == 0 else reversed(order):
                start = clock()
                entries[name]()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                seconds[name].append(clock() - start)
    finally:
        if enabled:
            gc.enable()
    return Times(seconds)


def engine_clock(quick: bool) -> AbstractContextManager[None]:
    """Stop the clock of ``engine="auto"`` in a smoke test: it compiles every network to find out whether that pays."""
    return use_clock(lambda: 0.0) if quick else nullcontext()
