"""Participants of a study with their results read back: sessions joined, groups known, all explained alike."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.errors import GlasError, GlasWarning, listed
from glas3d.explain import ranked
from glas3d.statistics.choices import Normalise
from glas3d.statistics.regions import region_values
from glas3d.study.derivatives import FAILED, Record
from glas3d.study.group.group_sums import keeps_zero
from glas3d.study.group.sessions import average_sessions

_REGION = ["index", "name"]
# Columns of a cohort's table that `read_cohort` adds to those of participants.tsv.
_OF_SCANS = ("session", "path", "in_sessions_tsv", "sha256", "voxels_sha256")


@dataclass(frozen=True, eq=False)
class SessionResult:
    """One session of a participant, read back as a `glas3d.study.group.group_sums.GroupInput`.

    Attributes
    ----------
    stem
        The participant and session, for messages.
    table
        The participant's table of regions, the mean over sessions.
    saliency_img
        The session's map; its voxels are read when they are first used.
    provenance
        The method, and the session's input.
    probability
        The model's probability of the explained class, the mean over the participant's sessions.
    """

    stem: str
    table: pd.DataFrame
    saliency_img: nib.Nifti1Image
    provenance: Mapping[str, Any]
    probability: float


@dataclass(frozen=True, eq=False)
class ParticipantResults:
    """The results of one participant of a group, over all sessions.

    Attributes
    ----------
    participant_id, group
        The participant's name and group.
    records
        One record a session.
    regions
        ``index name`` of every region, by index; shared by participants that have the same.
    scores
        ``(regions,)`` in their order, the mean over sessions.
    n_voxels
        ``(regions,)``: the number of voxels of each region. No more of a participant's numbers is kept in memory,
        so that thousands of participants fit.
    """

    participant_id: str
    group: str
    records: tuple[Record, ...]
    regions: pd.DataFrame
    scores: np.ndarray
    n_voxels: np.ndarray

    @property
    def table(self) -> pd.DataFrame:
        """The table of regions, the mean over sessions; read from disk at each use."""
        return _joined_table(self.participant_id, self.records)

    @property
    def probability(self) -> float:
        """The model's probability of the explained class, the mean over sessions."""
        return float(np.mean([record.content["Probability"] for record in self.records]))

    @property
    def predicted(self) -> str | None:
        """The class with the highest output, the mean over sessions; None where outputs or names are not known."""
        classes = self.records[0].content["Method"]["Model"].get("classes")
        outputs = [record.content.get("Outputs") for record in self.records]
        if not classes or any(each is None or len(each) != len(classes) for each in outputs):
            return None
        return str(classes[int(np.mean(np.array(outputs, dtype=float), axis=0).argmax())])

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds whose models explained this participant."""
        return tuple(sorted({fold for record in self.records for fold in record.content["Folds"]}))

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes on the results of all sessions."""
        return tuple(note for record in self.records for note in record.content.get("Notes", []))

    def sessions(self) -> Iterator[SessionResult]:
        """Read each session, with the table of the participant."""
        table = self.table
        for record in self.records:
            content = record.content
            provenance = {
                **content["Method"],
                "Input": {**content["Input"], "participant_id": self.participant_id, "InSample": content["InSample"]},
                "Notes": content.get("Notes", []),
                "Account": content.get("Account"),
            }
            yield SessionResult(record.name, table, record.map_img(), provenance, self.probability)


@dataclass(frozen=True, eq=False)
class GroupScores:
    """Participants with their scores and covariates, one row each in the same order.

    Attributes
    ----------
    participants
        The participants' results.
    values
        Scores normalised as group maps normalise them, participants by regions.
    design
        The participants' rows of ``participants.tsv``.
    """

    participants: tuple[ParticipantResults, ...]
    values: pd.DataFrame
    design: pd.DataFrame

    def __len__(self) -> int:
        return len(self.participants)

    @property
    def region_index(self) -> np.ndarray:
        """``(regions,)`` int: the regions' index, in the order of the columns of ``values``."""
        return self.participants[0].regions["index"].to_numpy()

    def normalised(self, normalise: Normalise) -> pd.DataFrame:
        """Return the scores on another scale, participants by regions."""
        return score_matrix(self.participants, normalise)

    @property
    def unnormalised(self) -> pd.DataFrame:
        """The scores as they are, participants by regions."""
        return score_matrix(self.participants, "none")

    @property
    def n_voxels(self) -> np.ndarray:
        """``(participants, regions)``: the number of voxels of each region of each participant."""
        return np.stack([each.n_voxels for each in self.participants])

    def of_groups(self, *groups: str) -> GroupScores:
        """Return the participants of some groups, in the same order."""
        return self.select(np.array([each.group in groups for each in self.participants], dtype=bool))

    def select(self, rows: np.ndarray) -> GroupScores:
        """Return some of the participants; ``rows`` is ``(n,)`` bool."""
        chosen = tuple(each for each, kept in zip(self.participants, rows, strict=True) if kept)
        return GroupScores(chosen, self.values[rows], self.design[rows].reset_index(drop=True))


def group_scores(participants: Sequence[ParticipantResults], table: pd.DataFrame) -> GroupScores:
    """Join participants' normalised scores with their rows of a table of participants (see `design_rows`)."""
    return GroupScores(tuple(participants), score_matrix(participants), design_rows(participants, table))


def read_participants(
    records: Sequence[Record], table: pd.DataFrame, case: str, control: str
) -> Iterator[ParticipantResults]:
    """Read the participants that have results and a group, sorted, with one's table in memory at a time.

    Parameters
    ----------
    records
        The records of a study (see `glas3d.study.derivatives.read_records`).
    table
        ``participant_id group``, and ``session`` where groups belong to sessions.
    case, control
        The groups whose participants without results are named in a warning.

    Raises
    ------
    GlasError
        No participant with results has a group, a participant is of two groups, or two were explained differently.

    Warns
    -----
    GlasWarning
        Participants without results, and results of participants without a group.
    """
    sessions_of = _group_members(records, table, case, control)
    first = next(iter(sessions_of.values()))[0][0]
    regions = pd.DataFrame()
    for name, sessions in sorted(sessions_of.items()):
        groups = {group for _, group in sessions}
        if len(groups) > 1:
            raise GlasError(
                f"a participant must be of one group, {name} is {' and '.join(sorted(groups))}: one session"
            )
        own_records = tuple(record for record, _ in sessions)
        for record in own_records:
            _check_method(record, first)
        joined = _joined_table(name, own_records).sort_values("index", ignore_index=True)
        if not joined[_REGION].equals(regions):
            regions = joined[_REGION].copy()
        scores = joined["score"].to_numpy(dtype=float, copy=True)
        n_voxels = joined["n_voxels"].to_numpy(copy=True)
        yield ParticipantResults(name, groups.pop(), own_records, regions, scores, n_voxels)


def _group_members(
    records: Sequence[Record], table: pd.DataFrame, case: str, control: str
) -> dict[str, list[tuple[Record, str]]]:
    """Return each participant's sessions that have a group, with the group; warn of those left out."""
    by_session = "session" in table and table["session"].astype(bool).any()
    keys = list(zip(table["participant_id"], table["session"] if by_session else [""] * len(table), strict=True))
    groups = dict(zip(keys, table["group"], strict=True))
    members: dict[str, list[tuple[Record, str]]] = {}
    without_group = []
    for record in records:
        group = groups.get((record.participant_id, record.session if by_session else ""))
        if group is None or pd.isna(group):
            without_group.append(record.name)
        else:
            members.setdefault(record.participant_id, []).append((record, str(group)))
    if not members:
        raise GlasError(f"no participant with results has a group: {', '.join(without_group[:3])} have none")
    without_results = sorted({name for (name, _), group in groups.items() if group in (case, control)} - set(members))
    for what, names in ((f"no results, see {FAILED}", without_results), ("results but no group", without_group)):
        if names:
            message = f"not among the groups, {len(names)} with {what}: {listed(names)}"
            warnings.warn(message, GlasWarning, stacklevel=4)
    return members


def _check_method(record: Record, first: Record) -> None:
    """Refuse a participant who was explained differently from the first."""
    if record.content["Method"] != first.content["Method"]:
        raise GlasError(
            f"everyone must be explained alike, {record.name} and {first.name} differ in "
            f"{', '.join(differing_parts(first.content['Method'], record.content['Method']))}: run participants again"
        )


def _joined_table(participant_id: str, records: Sequence[Record]) -> pd.DataFrame:
    """Return a participant's table of regions, the mean over sessions."""
    tables = [record.table().assign(participant_id=participant_id, session_id=record.session) for record in records]
    if len(tables) > 1:
        fusion = records[0].content["Method"]["Settings"].get("fusion", "")
        return ranked(average_sessions(pd.concat(tables, ignore_index=True)), fusion)
    return tables[0].drop(columns=["participant_id", "session_id"])


def score_matrix(participants: Sequence[ParticipantResults], normalise: Normalise | None = None) -> pd.DataFrame:
    """Return normalised scores, participants by regions; on the scale of group maps unless another is wanted.

    That is min-max, or for signed evidence the scores as they are.
    """
    if normalise is None:
        normalise = "none" if keeps_zero(participants[0].records[0].content["Method"]) else "minmax"
    tables = [each.regions.assign(score=each.scores, participant_id=each.participant_id) for each in participants]
    return region_values(pd.concat(tables, ignore_index=True), normalise=normalise)


def design_rows(participants: Sequence[ParticipantResults], table: pd.DataFrame) -> pd.DataFrame:
    """Return one row of a table a participant, in their order, without the columns of scans.

    Of several sessions that have results, numbers are averaged and other values are those of the first.
    """
    with_results = {(each.participant_id, record.session) for each in participants for record in each.records}
    rows = table
    if "session" in table and table["session"].astype(bool).any():
        keys = zip(table["participant_id"], table["session"], strict=True)
        rows = table[[key in with_results for key in keys]]
    grouped = rows.groupby("participant_id", sort=False)
    numeric = [name for name in rows.select_dtypes("number").columns if name != "participant_id"]
    design = grouped.first().assign(**{name: grouped[name].mean() for name in numeric})
    design = design.drop(columns=list(_OF_SCANS), errors="ignore")
    return design.loc[[each.participant_id for each in participants]].reset_index()


def differing_parts(method: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return which parts of two methods differ, such as ``Settings sigma_light``."""
    parts = []
    for part in sorted({*method, *other}):
        a, b = method.get(part), other.get(part)
        if a != b and isinstance(a, dict) and isinstance(b, dict):
            parts += [f"{part} {name}" for name in sorted({*a, *b}) if a.get(name) != b.get(name)]
        elif a != b:
            parts.append(part)
    return parts
