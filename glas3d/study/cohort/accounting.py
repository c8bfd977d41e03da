"""Account for every participant of a study: explained, finished, of other groups, or left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from glas3d.counts import counted
from glas3d.errors import listed

# Names that different studies give to one group, without blanks and in lower case.
_SYNONYMS = (
    {"ad", "alzheimer", "alzheimers", "alzheimerdisease", "alzheimersdisease", "dat", "dementia", "demented"},
    {"nc", "cn", "hc", "nl", "con", "ctl", "ctr", "ctrl", "control", "controls", "healthy", "healthycontrol"}
    | {"healthycontrols", "normal", "normals", "normalcontrol", "normalcontrols", "cognitivelynormal", "nondemented"},
    {"mci", "mildcognitiveimpairment"},
)


@dataclass(frozen=True, kw_only=True)
class Accounting:
    """The number of scans of each fate; together they are all scans of the participants.

    A participant without a scan counts as one scan.

    Attributes
    ----------
    explained
        Scans that were explained now, or would be, by group.
    finished
        Scans whose results existed already.
    other_groups
        Scans of other groups than case and control, by group; empty where these are explained too.
    left_out
        Scans that cannot be explained, participants without a scan, and scans without a group.
    not_selected
        Participants with neither a scan nor a group, or with no scan of the selected sessions.
    participants
        Number of participants in the table; of those selected, where labels were given.
    not_in_table
        Number of other participants, who have scans but no row in the table.
    """

    explained: Mapping[str, int]
    finished: int
    other_groups: Mapping[str, int]
    left_out: int
    not_selected: int
    participants: int
    not_in_table: int

    @property
    def total(self) -> int:
        """Number of scans of all fates."""
        by_group = sum(self.explained.values()) + sum(self.other_groups.values())
        return by_group + self.finished + self.left_out + self.not_selected

    def __str__(self) -> str:
        parts = [_counts(self.explained), f"finished: {self.finished}", f"other groups: {_counts(self.other_groups)}"]
        parts += [f"left out: {self.left_out}"]
        if self.not_selected:
            parts.append(f"without scan or group: {self.not_selected}")
        of_whom = f"{counted(self.participants, 'participant')} in the table"
        if self.not_in_table:
            of_whom += f" and {self.not_in_table} not in it"
        return "; ".join([*parts, f"in all: {self.total}, of {of_whom}"])

    def record(self) -> dict[str, Any]:
        """Return the numbers for JSON."""
        return {**vars(self), "total": self.total}


def _counts(groups: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in groups.items()) or "none"


def count_groups(groups: Iterable[object]) -> dict[str, int]:
    """Return how often each group occurs, sorted by name."""
    return dict(sorted(Counter(map(str, groups)).items()))


def similar_group(name: str, wanted: str) -> bool:
    """Return whether a group's name may be another spelling of the one that is wanted.

    Examples
    --------
    >>> similar_group("ad", "AD"), similar_group("CN", "NC"), similar_group("1.0", "1"), similar_group("MCI", "AD")
    (True, True, True, False)
    """
    if name == wanted:
        return False
    a, b = ("".join(character for character in each.casefold() if character.isalnum()) for each in (name, wanted))
    return (bool(a) and a == b) or _same_number(name, wanted) or any({a, b} <= names for names in _SYNONYMS)


def _same_number(a: str, b: str) -> bool:
    try:
        return float(a) == float(b)
    except ValueError:
        return False


def similar_groups(groups: Mapping[str, int], wanted: Iterable[str]) -> list[str]:
    """Return a sentence for each group whose name may be another spelling of a group that is wanted.

    Parameters
    ----------
    groups
        Number of participants of each group.
    wanted
        The groups that are compared.
    """
    chosen = tuple(wanted)
    return [
        f"group {name!r} ({counted(n, 'participant')}) is neither {' nor '.join(chosen)}, "
        f"is it another spelling of {listed(meant)}?"
        for name, n in groups.items()
        if name not in chosen and (meant := [each for each in chosen if similar_group(name, each)])
    ]
