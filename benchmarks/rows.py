"""What one figure is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from benchmarks.contest import Spread
from benchmarks.subjects import Subject

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure.

    Attributes
    ----------
    kind
        Which question it answers, a heading of the table.
    net, shape
        What was explained.
    what, against
        The two things whose ratio this is.
    better
        `"lower"`: the ratio is a cost, 1 is free. `"higher"`: above 1 we are ahead, below 1 we lose.
        `"flat"`: 1 means that it makes no difference.
    ratio, low, high, repeats
        Median, lowest and highest over the repeats.
    value, unit
        The median of the thing in question itself.
    work
        How much of it was done, in words.
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
    kind: str, subject: Subject, what: str, against: str, better: str, ratio: Spread, value: float, **rest: str
) -> Row:
    spread = asdict(ratio)
    return Row(
        kind=kind, net=subject.name, shape=subject.size, what=what, against=against,
        better=better, ratio=spread["median"], low=spread["low"], high=spread["high"], repeats=spread["repeats"],
        value=value, unit=rest.get("unit", "ms a forward"), work=rest["work"],
    )  # fmt: skip
