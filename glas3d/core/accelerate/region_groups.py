"""Groups of neighbouring regions, which are masked together, and divided where they have an effect.

The model is evaluated on a few large groups first. A group that matters is divided in two, and its halves are evaluated
by themselves; what no region of a group does need not be evaluated region by region. Hierarchical games explain images
in this way (Teneggi, Luster & Sulam 2022, "Fast hierarchical games for image explanations").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glas3d.core.explanation import Explanation
from glas3d.core.search import Segments


@dataclass(frozen=True, eq=False)
class Group:
    """Regions that are masked together.

    Attributes
    ----------
    members
        Numbers of the regions, counted from 0.
    light, drop
        What the group does when it comes first, the output under its light above that of the background, and when it
        comes last; NaN for an end that is not evaluated.
    """

    members: np.ndarray
    light: float
    drop: float

    @property
    def size(self) -> float:
        """How much the group does: the size of its evidence, or of its drop where that alone is evaluated."""
        return abs(self.drop if np.isnan(self.light) else self.light + self.drop)


class RegionGroups:
    """Disjoint groups that hold all regions of an atlas together, and what each of them does to the output.

    Parameters
    ----------
    segments
        The ``m`` regions.
    positions
        ``(m, ndim)``, where they are, in the unit by which distances count.
    """

    def __init__(self, segments: Segments, positions: np.ndarray) -> None:
        self._segments, self._positions = segments, positions
        self._groups: list[Group] = []

    def first(self, count: int) -> list[np.ndarray]:
        """Return the members of ``count`` groups of about as many regions each, to be evaluated."""
        groups = [np.arange(len(self._positions))]
        while len(groups) < count:
            largest = max(range(len(groups)), key=lambda number: len(groups[number]))
            groups[largest : largest + 1] = self._halves(groups[largest])
        return groups

    def add(self, groups: Sequence[np.ndarray], part: Explanation) -> None:
        """Keep what groups do, from the explanation of them as segments."""
        light = part.light - part.bare
        self._groups += [Group(*each) for each in zip(groups, light, part.drop, strict=True)]

    def divided(self, count: int) -> list[np.ndarray]:
        """Take out the ``count`` groups that do most, and return the members of their halves, to be evaluated."""
        most = sorted(self._divisible, key=lambda group: -group.size)[:count]
        self._groups = [group for group in self._groups if group not in most]
        return [half for group in most for half in self._halves(group.members)]

    @property
    def _divisible(self) -> list[Group]:
        return [group for group in self._groups if len(group.members) > 1]

    @property
    def largest(self) -> float:
        """How much the group does that does most."""
        return max(group.size for group in self._groups)

    @property
    def largest_divisible(self) -> float:
        """How much that one does of the groups of several regions that does most; 0 if there is none."""
        return max((group.size for group in self._divisible), default=0.0)

    def _halves(self, members: np.ndarray) -> list[np.ndarray]:
        """Return two groups of neighbours: a group is cut across the axis on which it is longest.

        One region more comes to the half to which it is nearer, so that a flipped atlas has the same groups.
        """
        positions = self._positions[members]
        along = positions[:, np.ptp(positions, axis=0).argmax()]
        order = np.argsort(along, kind="stable")
        at = len(order) // 2
        if len(order) % 2 and len(order) > 1:
            gaps = np.diff(along[order])
            at += int(gaps[at] > gaps[at - 1])
        return [np.sort(members[order[:at]]), np.sort(members[order[at:]])]

    def as_segments(self, groups: Sequence[np.ndarray]) -> Segments:
        """Return groups as segments, so that each is masked as one region is."""
        numbers = np.zeros(len(self._positions), dtype=np.int64)
        for number, members in enumerate(groups, start=1):
            numbers[members] = number
        return Segments.from_labels(self._segments.paint(numbers), range(1, len(groups) + 1))

    def shared(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what every region does at each end, ``(m,)``: its share of what its group does, by voxels."""
        light, drop = np.empty(len(self._positions)), np.empty(len(self._positions))
        n_voxels = self._segments.n_voxels
        for group in self._groups:
            share = n_voxels[group.members] / n_voxels[group.members].sum()
            light[group.members], drop[group.members] = group.light * share, group.drop * share
        return light, drop

    @property
    def together(self) -> np.ndarray:
        """``(m,)``, how many regions there are in the group of each; 1: it was evaluated by itself."""
        counts = np.empty(len(self._positions), dtype=np.int64)
        for group in self._groups:
            counts[group.members] = len(group.members)
        return counts
