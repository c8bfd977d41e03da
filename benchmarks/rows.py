"""One figure of the benchmarks: a row of the tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from benchmarks.timing import Spread
from benchmarks.workloads import Workload

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure: the ratio of two things, and how it was measured.

    Attributes
    ----------
    kind
        Which comparison it belongs to; each has a table with a heading.
    net, shape
        What was explained.
    what, against
        The two things that are compared: time or memory of the first over those of the second.
    better
        ``"lower"``: the ratio is a cost, 1 is free. ``"higher"``: above 1 GLAS is ahead, below 1 it is behind.
        ``"flat"``: 1 means no difference.
    ratio, low, high, repeats
        Median, lowest and highest over the repeats.
    value, unit
        The median of ``what`` itself.
    work
        How much work was done, in words.
    """

    kind: str
    net: str
    shape: str
    what: str
    against: str
    better: str
    ratio: float
    low: float
    high: float
    repeats: int
    value: float
    unit: str
    work: str


def row(
    kind: str, workload: Workload, what: str, against: str, better: str, ratio: Spread, value: float, **rest: str
) -> Row:
    """Return a row from the spread of its ratio; ``rest`` holds ``work`` and, unless it is milliseconds, ``unit``."""
    spread = asdict(ratio)
    return Row(
        kind=kind, net=workload.name, shape=workload.size, what=what, against=against,
        better=better, ratio=spread["median"], low=spread["low"], high=spread["high"], repeats=spread["repeats"],
        value=value, unit=rest.get("unit", "ms an evaluation"), work=rest["work"],
    )  # fmt: skip
