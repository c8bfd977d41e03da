"""What scans and pictures share when answers come home: parts, provenance, file names, and files."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd

from glas3d.core.explanation import Explanation
from glas3d.explain.modes import Answer
from glas3d.output import bids_label, have_labels, write_json, write_table, write_together

STATISTICS = ("saliency", "light", "shadow")

Writer = Callable[[Path], object]


class Saved(ABC):
    """A result that goes to files: a map and sidecar a statistic, the maps of rounds, the table, and its parts."""

    stem: str
    table: pd.DataFrame
    provenance: dict[str, Any]
    parts: Mapping[str, Any]
    _ending: str

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write the maps (NIfTI of a scan, 32-bit float TIFF of a picture), the table and the sidecars; all or none.

        Parameters
        ----------
        folder
            Made when it is missing; files of the same names are replaced.

        Returns
        -------
        The paths written.
        """
        return write_together(Path(folder), self._files())

    @abstractmethod
    def _map(self, statistic: str) -> Writer:
        """What writes the map of a statistic."""

    @abstractmethod
    def _rounds(self) -> list[Writer]:
        """What writes the map of each round of a recursion."""

    def _files(self) -> dict[str, Writer]:
        files: dict[str, Writer] = {}
        for statistic in STATISTICS:
            name = f"{self.stem}_stat-{statistic}_statmap"
            files[f"{name}{self._ending}"] = self._map(statistic)
            files[f"{name}.json"] = write_json({"Statistic": statistic} | self.provenance)
        for number, writer in enumerate(self._rounds(), start=1):
            files[f"{self.stem.removesuffix('recursive')}round{number}_stat-saliency_statmap{self._ending}"] = writer
        files[f"{self.stem}_regions.tsv"] = write_table(self.table)
        for part in self.parts.values():
            files |= part._files()
        return files


R = TypeVar("R")


class Home(ABC, Generic[R]):
    """Brings answers home, with names and provenance.

    Attributes
    ----------
    shared
        The provenance that all answers share.
    """

    shared: Mapping[str, Any]

    def result(self, answer: Answer, *, several: bool) -> R:
        """One answer; ``several``: its files lie beside those of other classes, and say theirs."""
        whole: Any = self._one(answer.explanation, answer.fused, answer, several)
        parts = {
            # two classes are told apart by their label, other parts by their own name
            name: self._one(part, "" if answer.against is not None else bids_label(name), None, several)
            for name, part in answer.parts.items()
        }
        found: R = replace(whole, parts=parts)
        return found

    @abstractmethod
    def _one(self, explanation: Explanation, fused: str, answer: Answer | None, several: bool) -> R:
        """An explanation at home: the whole one with its ``answer``, or a part, which has none."""

    def _provenance(self, explanation: Explanation, answer: Answer | None) -> dict[str, Any]:
        found = {
            **self.shared,
            "Target": self._class(explanation.target),
            "Probability": explanation.probability,
            "Settings": explanation.settings | self.shared["Settings"],
        }
        if answer is not None and answer.against is not None:
            found["Against"] = self._class(answer.against)
        return found

    def _stem(self, start: str, explanation: Explanation, several: bool) -> str:
        """Start of the files' names; of several classes it says which."""
        if not several:
            return start
        return f"{start}_label-{class_label(explanation.target, self.shared['Model']['classes'])}"

    def _class(self, target: int) -> dict[str, Any]:
        classes = self.shared["Model"]["classes"]
        return {"index": target, "class": classes[target] if classes else str(target)}


def class_label(target: int, classes: Sequence[str] | None) -> str:
    """A BIDS label of a class, alphanumeric and its own: the name where that will do, else the index."""
    # indices for all, or an index could be another's name
    return bids_label(classes[target]) if classes and have_labels(classes) else f"class{target}"
