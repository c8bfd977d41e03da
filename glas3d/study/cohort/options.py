"""The options by which the scans of a cohort are selected, declared once for Python, commands and config files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from glas3d.errors import GlasError
from glas3d.options import option

OnError = Literal["fail", "skip"]

SCANS, PARTICIPANTS = "Scans", "Participants"

_LABEL = re.compile(r"[0-9A-Za-z]+")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which scans of a BIDS folder make a cohort, and which groups of participants it compares.

    Parameters
    ----------
    participant_label
        Use only these participants, such as 01 02. Default: all.
    participants_tsv
        Table of the participants. Default: participants.tsv of the data set, or of the one in whose ``derivatives`` it
        lies.
    group_column
        Column of that table with the group of each participant. Default: group.
    case
        Value of that column for the cases. Default: AD.
    control
        Value of that column for the controls. Default: NC.
    covariates
        Columns that the table must have. Default: none.
    suffix
        Suffix in the names of the scans (in Python None means any). Default: T1w.
    space
        Label of the entity space in the names of the scans, such as MNI152NLin2009cAsym; none for scans without it,
        such as those of fMRIPrep in native space. Default: any.
    session
        Use only these sessions, such as M00. Default: all.
    desc
        Label of the entity desc in the names of the scans, such as preproc; none for scans without it. Default: any.
    res
        Label of the entity res in the names of the scans; none for scans without it. Default: any.
    entities
        Labels of other entities in the names of the scans, such as label=GM run=1 (in Python a mapping). Default: any.
    extension
        Extensions of the scans. Default: .nii.gz and .nii.
    prefix
        Text before sub- in the names of the scans, such as CAT12's mwp1. Default: none.
    same_grid
        Whether all scans must have one grid. Otherwise each is resampled from its own. Default: yes.
    on_error
        What happens if a participant cannot be used: ``fail`` ends the work, ``skip`` leaves the participant out with
        a warning. Default: fail.

    Raises
    ------
    GlasError
        A label that is not made of letters and digits, one group as case and control, or another ``on_error``.
    """

    participant_label: str | Sequence[str] = option((), group=PARTICIPANTS, command=tuple[str, ...])
    participants_tsv: str | os.PathLike[str] | None = option(None, group=PARTICIPANTS, command=Path)
    group_column: str = option("group", group=PARTICIPANTS)
    case: str = option("AD", group=PARTICIPANTS)
    control: str = option("NC", group=PARTICIPANTS)
    covariates: str | Sequence[str] = option(())
    suffix: str | None = option("T1w", group=SCANS, command=str)
    space: str | None = option(None, group=SCANS, command=str)
    session: str | Sequence[str] = option((), group=SCANS, command=tuple[str, ...], alias="session-label")
    desc: str | None = option(None, group=SCANS, command=str)
    res: str | None = option(None, group=SCANS, command=str)
    entities: Mapping[str, str] | Sequence[str] = option((), group=SCANS, command=tuple[str, ...], name="entity")
    extension: str | Sequence[str] = option((".nii.gz", ".nii"), group=SCANS, command=tuple[str, ...])
    prefix: str = option("", group=SCANS)
    same_grid: bool = option(True, group=SCANS, name="any-grid")
    on_error: OnError = option("fail", group=PARTICIPANTS)

    def __post_init__(self) -> None:
        for name, prefix in (("session", "ses-"), ("participant_label", "sub-"), ("extension", ""), ("covariates", "")):
            labels = _several(getattr(self, name))
            object.__setattr__(self, name, tuple(label.removeprefix(prefix) for label in labels))
        for name in ("session", "participant_label"):
            for label in getattr(self, name):
                if not _LABEL.fullmatch(label):
                    raise GlasError(f"{name} must be letters and digits, got {label!r}")
        object.__setattr__(self, "entities", _labels_by_entity(self.entities))
        if self.case == self.control:
            raise GlasError(f"case and control must be two groups, both are {self.case}")
        if self.on_error not in ("fail", "skip"):
            raise GlasError(f'on_error must be "fail" or "skip", got {self.on_error!r}')

    @property
    def labels(self) -> dict[str, str]:
        """The labels that the name of a scan must have, by entity."""
        labels = {"space": self.space, "desc": self.desc, "res": self.res, **_labels_by_entity(self.entities)}
        return {entity: str(label) for entity, label in labels.items() if label is not None}


def _several(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(map(str, value))


def _labels_by_entity(entities: Any) -> dict[str, Any]:
    """Return a mapping of labels, also from texts such as ``label=GM``."""
    if isinstance(entities, Mapping):
        return dict(entities)
    labels: dict[str, Any] = {}
    for text in _several(entities):
        entity, equals, label = text.partition("=")
        if not (entity and equals) or entity in labels:
            raise GlasError(f"entities must be name=value, each name once, got {text!r}")
        labels[entity] = label
    return labels
