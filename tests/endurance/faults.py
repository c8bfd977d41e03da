"""What long suites count: how much was tried, and what was wrong."""

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass
class Faults:
    """What was tried, and what became of it.

    Attributes
    ----------
    suite
        The name of the suite.
    kinds
        What may be wrong: the attributes that list it, in the order of the record.
    tried
        How much was tried, by what it was done to.
    resumed
        How many commands were started again afterwards.
    """

    suite: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]] = ("hangs", "crashes", "lost", "other_bits")

    tried: Counter = field(default_factory=Counter)
    resumed: int = 0
    hangs: list = field(default_factory=list)
    crashes: list = field(default_factory=list)
    lost: list = field(default_factory=list)
    other_bits: list = field(default_factory=list)

    @property
    def n(self):
        return self.tried.total()

    @property
    def problems(self):
        return [problem for kind in self.kinds for problem in getattr(self, kind)]

    def in_words(self):
        """Return what was tried."""
        raise NotImplementedError

    def row(self):
        """Return the row of the record."""
        counts = {kind: len(getattr(self, kind)) for kind in self.kinds}
        return {"suite": self.suite, "tried": f"{self.in_words()}, {self.resumed} commands resumed", **counts}
