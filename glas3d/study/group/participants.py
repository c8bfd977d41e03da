"""Participants of a study with their results read back: sessions joined, groups known, all explained alike."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.errors import GlasError, GlasWarning, listed
from glas3d.explain import ranked
from glas3d.statistics.regions import Normalise, average_sessions, region_values
from glas3d.study.derivatives import FAILED, Record

_REGION = ["index", "name"]


class Answer(NamedTuple):
    """As much of an explanation as a group map takes."""

    probability: float


@dataclass(frozen=True, eq=False)
class Read:
    """A participant's explanation as a group map takes it, read back from files.

    Attributes
    ----------
    saliency_img
        Its voxels are not read before they are asked for.
    """

    stem: str
    table: pd.DataFrame
    saliency_img: nib.Nifti1Image
    provenance: Mapping[str, Any]
    explanation: Answer


@dataclass(frozen=True, eq=False)
class Participant:
    """One participant of a group, with every session.

    Attributes
    ----------
    records
        One a session.
    regions
        ``index name`` of every region, by index; shared by participants that have the same.
    scores
        ``(regions,)`` in their order, the mean over sessions. All that is kept of a participant's numbers, so that
        thousands of them fit in memory.
    """

    participant_id: str
    group: str
    records: tuple[Record, ...]
    regions: pd.DataFrame
    scores: np.ndarray

    @property
    def table(self) -> pd.DataFrame:
        """Regions, the mean over sessions; read again each time it is asked for."""
        return _joined(self.participant_id, self.records)

    @property
    def probability(self) -> float:
        """Of the explained class, mean over sessions."""
        return float(np.mean([one.content["Probability"] for one in self.records]))

    @property
    def folds(self) -> tuple[int, ...]:
        """Folds that explained it."""
        return tuple(sorted({fold for one in self.records for fold in one.content["Folds"]}))

    def reads(self) -> Iterator[Read]:
        """Each session, with the table of the participant."""
        table = self.table
        for record in self.records:
            content = record.content
            provenance = {
                **content["Method"],
                "Input": {**content["Input"], "participant_id": self.participant_id, "InSample": content["InSample"]},
            }
            img = cast(nib.Nifti1Image, nib.load(record.map_path()))
            yield Read(record.name, table, img, provenance, Answer(self.probability))


@dataclass(frozen=True, eq=False)
class Scores:
    """Participants and their numbers, a row each in the same order.

    Attributes
    ----------
    members
        The participants.
    values
        Scores normalised as group maps do, participants by regions.
    design
        Their rows of ``participants.tsv``.
    """

    members: tuple[Participant, ...]
    values: pd.DataFrame
    design: pd.DataFrame

    def __len__(self) -> int:
        return len(self.members)

    def scaled(self, normalise: Normalise) -> pd.DataFrame:
        """Their scores on another scale."""
        return values_of(self.members, normalise)

    def of(self, *groups: str) -> Scores:
        """Those of some groups, in the same order."""
        return self.where(np.array([one.group in groups for one in self.members], dtype=bool))

    def where(self, which: np.ndarray) -> Scores:
        """Some of them, ``(n,)`` bool."""
        members = tuple(one for one, kept in zip(self.members, which, strict=True) if kept)
        return Scores(members, self.values[which], self.design[which].reset_index(drop=True))


def scores_of(members: Sequence[Participant], people: pd.DataFrame) -> Scores:
    """Participants with their normalised scores and their rows of a table (see `design_of`)."""
    return Scores(tuple(members), values_of(members), design_of(members, people))


def members_of(records: list[Record], people: pd.DataFrame, case: str, control: str) -> Iterator[Participant]:
    """Participants with results and a group, their sessions joined; one's table in memory at a time."""
    by_session = "session" in people and people["session"].astype(bool).any()
    keys = list(zip(people["participant_id"], people["session"] if by_session else [""] * len(people), strict=True))
    groups = dict(zip(keys, people["group"], strict=True))
    of: dict[str, list[tuple[Record, str]]] = {}
    strangers = []
    for record in records:
        group = groups.get((record.participant_id, record.session if by_session else ""))
        if group is None or pd.isna(group):
            strangers.append(record.name)
        else:
            of.setdefault(record.participant_id, []).append((record, str(group)))
    if not of:
        raise GlasError(f"no participant with results has a group: {', '.join(strangers[:3])} have none")
    absent = sorted({one for (one, _), group in groups.items() if group in (case, control)} - set(of))
    for what, who in ((f"no results, see {FAILED}", absent), ("results but no group", strangers)):
        if who:
            message = f"not among the groups, {len(who)} with {what}: {listed(who)}"
            warnings.warn(message, GlasWarning, stacklevel=3)
    first = next(iter(of.values()))[0][0]
    regions = pd.DataFrame()
    for name, sessions in sorted(of.items()):
        belongs = {group for _, group in sessions}
        if len(belongs) > 1:
            raise GlasError(
                f"a participant must be of one group, {name} is {' and '.join(sorted(belongs))}: one session"
            )
        for one, _ in sessions:
            if one.content["Method"] != first.content["Method"]:
                raise GlasError(
                    f"everyone must be explained alike, {one.name} and {first.name} differ in "
                    f"{', '.join(differing(first.content['Method'], one.content['Method']))}: run participants again"
                )
        own = tuple(one for one, _ in sessions)
        table = _joined(name, own).sort_values("index", ignore_index=True)
        if not table[_REGION].equals(regions):
            regions = table[_REGION].copy()
        yield Participant(name, belongs.pop(), own, regions, table["score"].to_numpy(dtype=float, copy=True))


def _joined(participant_id: str, records: Sequence[Record]) -> pd.DataFrame:
    """A participant's table of regions, the mean over sessions."""
    tables = [one.table().assign(participant_id=participant_id, session_id=one.session) for one in records]
    if len(tables) > 1:
        return ranked(average_sessions(pd.concat(tables, ignore_index=True)))
    return tables[0].drop(columns=["participant_id", "session_id"])


def values_of(members: Sequence[Participant], normalise: Normalise = "minmax") -> pd.DataFrame:
    """Normalised scores, participants by regions; those of group maps unless another scale is wanted."""
    tables = [one.regions.assign(score=one.scores, participant_id=one.participant_id) for one in members]
    return region_values(pd.concat(tables, ignore_index=True), normalise=normalise)


def design_of(members: Sequence[Participant], people: pd.DataFrame) -> pd.DataFrame:
    """A row a participant, in order; of several sessions, the means of numbers and the first of the others."""
    has = {(one.participant_id, record.session) for one in members for record in one.records}
    rows = people
    if "session" in people and people["session"].astype(bool).any():
        rows = people[[key in has for key in zip(people["participant_id"], people["session"], strict=True)]]
    grouped = rows.groupby("participant_id", sort=False)
    numeric = [name for name in rows.select_dtypes("number").columns if name != "participant_id"]
    design = grouped.first().assign(**{name: grouped[name].mean() for name in numeric})
    return design.loc[[one.participant_id for one in members]].reset_index()


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Which parts of two methods differ, in words."""
    found = []
    for part in sorted({*one, *other}):
        a, b = one.get(part), other.get(part)
        if a != b and isinstance(a, dict) and isinstance(b, dict):
            found += [f"{part} {name}" for name in sorted({*a, *b}) if a.get(name) != b.get(name)]
        elif a != b:
            found.append(part)
    return found
