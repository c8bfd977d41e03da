"""The result of one audit: a verdict, one sentence, and the numbers behind it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from glas3d.errors import GlasError
from glas3d.evaluate.audits.checks import AuditOptions
from glas3d.explain.outputs import refuse_other_results
from glas3d.output import Writer, sealed, write_json, write_together

Verdict = Literal["pass", "warn", "fail", "n/a"]


@dataclass(frozen=True)
class Number:
    """A number of an audit.

    Attributes
    ----------
    name
        A short name, unique within the audit.
    value
        The number, or a text such as the name of a region; NaN where it is not known.
    units
        Its unit of measure or scale, such as ``mm`` or ``share``; empty for a text.
    description
        What it is, in words.
    """

    name: str
    value: float | str
    units: str
    description: str

    def record(self) -> dict[str, Any]:
        """Return the entry of the file; a number that is not known is None."""
        if isinstance(self.value, str):
            return {**vars(self)}
        known = self.value == self.value
        return {**vars(self), "value": self.value + 0 if known else None}  # of -0.0 and 0 the sum is 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """One page of numbers with a plain verdict.

    Attributes
    ----------
    check
        Name of the check, see `CHECKS`.
    verdict
        ``"pass"``; ``"warn"``: read the statement before you trust the map; ``"fail"``: do not trust it;
        ``"n/a"``: no verdict, and the statement says why.
    statement
        The finding and what follows from it, in one or two sentences.
    numbers
        The numbers behind the verdict.
    provenance
        Every setting, version and hash, ready for JSON.
    file
        Name of the file that `save` writes.
    """

    check: str
    verdict: Verdict
    statement: str
    numbers: tuple[Number, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""

    def __repr__(self) -> str:
        return f"Audit({self.check}: {self.verdict}. {self.statement})"

    def __getitem__(self, name: str) -> float | str:
        """Return the value of a number by its name."""
        for number in self.numbers:
            if number.name == name:
                return number.value
        raise KeyError(f"the audit {self.check} has no number {name!r}")

    def record(self) -> dict[str, Any]:
        """Return the content of the file."""
        return {
            "check": self.check,
            "verdict": self.verdict,
            "statement": self.statement,
            "numbers": [number.record() for number in self.numbers],
            **self.provenance,
        }


class Audited(ABC):
    """What can be audited: a scan, a study, or a result in a folder."""

    options: AuditOptions

    @abstractmethod
    def file(self, check: str) -> str:
        """Return the name of the file of an audit."""

    @abstractmethod
    def provenance_of(self, check: str) -> dict[str, Any]:
        """Return what tells audits apart, and all that was used, ready for JSON; known before the audit is made."""

    def for_check(self, check: str) -> Audited:
        """Return it as an audit takes it, such as with another reference."""
        return self

    @property
    def measured(self) -> dict[str, Any]:
        """What else is recorded, which is known once the model was evaluated."""
        return {}

    def audit(self, check: str, verdict: Verdict, statement: str, numbers: Iterable[Number] = ()) -> Audit:
        """Return an audit with its provenance."""
        return Audit(
            check=check,
            verdict=verdict,
            statement=statement,
            numbers=tuple(numbers),
            provenance=self.provenance_of(check) | self.measured,
            file=self.file(check),
        )


def save_audits(audits: Iterable[Audit], folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
    """Write one JSON file an audit; all or none.

    Parameters
    ----------
    audits
        The audits.
    folder
        Where to write.
    overwrite
        Replace audits of another input, target, model or settings.

    Returns
    -------
    The paths written.

    Raises
    ------
    GlasError
        The folder has audits of the same names that were made otherwise, or cannot be written.
    """
    files: dict[str, Writer] = {}
    for audit in audits:
        if not audit.file:
            raise GlasError(f"the audit {audit.check} was made in memory and has no name of a file")
        if not overwrite:
            refuse_other_audit(Path(folder), audit.file, audit.provenance)
        files[audit.file] = sealed(write_json(audit.record()), others=False)
    return write_together(Path(folder), files)


def refuse_other_audit(folder: Path, file: str, provenance: Mapping[str, Any]) -> None:
    """Refuse a folder that has the same audit of another input, target, model or settings.

    Raises
    ------
    GlasError
        There is one; the message names what differs.
    """
    stem, _, rest = file.removesuffix(".json").partition("_")
    refuse_other_results(folder, stem, provenance, rest)
