"""What a group map needs of one participant's explanation, and what group maps by region and by voxel share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.bids_names import PARTICIPANT_ID
from glas3d.core.account import Account
from glas3d.core.explanation import COMPUTATION_SETTINGS
from glas3d.counts import counted
from glas3d.display import Drawn, Summary
from glas3d.errors import GlasError
from glas3d.explain import EVIDENCE, ranked
from glas3d.explain.notes import count_notes
from glas3d.explain.table import DESCRIPTIONS, direction_text, scales_of
from glas3d.imaging.space import VoxelGrid
from glas3d.output import Columns, described_table, generated_by, write_json, write_together
from glas3d.statistics.map_sums import MapSums, combination

Statistic = Literal["mean", "variance", "overlap"]

# Columns whose group value is the plain mean over participants, where tables have them.
_SHOWN = 10  # rows in a notebook
_MEASURES = ("light", "shadow", "drop", *EVIDENCE)
# Parts of the provenance that must be the same for all participants of a group.
_METHOD = ("Target", "Settings", "Model", "Search", "Options")


def keeps_zero(method: Mapping[str, Any]) -> bool:
    """Return whether a group's scores are signed evidence, whose zero must stay where it is."""
    return bool(method.get("Settings", {}).get("fusion") == "mean")


class GroupInput(Protocol):
    """One participant's explanation, as far as a group map needs it.

    `glas3d.explain.ScanExplanation` is one, and so is a result that was read back from a study's folder.
    """

    @property
    def stem(self) -> str:
        """Start of the names of its files, for messages."""

    @property
    def table(self) -> pd.DataFrame:
        """One row a region or point, with the columns of the contract."""

    @property
    def saliency_img(self) -> nib.Nifti1Image:
        """The saliency map."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """``Target Settings Model Search``, which must be the same in the whole group; ``Input``; ``Notes`` if any."""

    @property
    def probability(self) -> float:
        """The model's probability of the explained class for the unchanged scan."""


class GroupSums(Drawn):
    """Sums over the participants of a group, in memory that does not grow with them.

    Parameters
    ----------
    group
        Name of the group, for messages and file names.
    top
        Overlap counts the participants that have a region or voxel among their highest ``top`` %.

    Raises
    ------
    GlasError
        ``top`` is not above 0 and at most 100.
    """

    _row_kind: ClassVar[str]
    _averaged: ClassVar[tuple[str, ...]] = _MEASURES

    def __init__(self, group: str, *, top: float = 5.0) -> None:
        self.group, self.top = group, top
        self._scores = MapSums((0,), top)
        self._measures: list[str] = []
        self._measure_sums = np.zeros((0, 0))
        self._inputs: list[dict[str, Any]] = []
        self._accounts: list[dict[str, Any]] = []
        self._notes: dict[str, list[str]] = {}
        self._method: dict[str, Any] = {}
        self._rows: pd.DataFrame | None = None
        self._pattern: nib.Nifti1Image | None = None
        self._table: pd.DataFrame | None = None

    def __len__(self) -> int:
        return len(self._scores)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.group}: {counted(len(self), 'participant')}{self._highest()})"

    def _highest(self) -> str:
        """Return the highest-scoring region or point, once there is a participant."""
        ranked = self.table().dropna(subset=["rank"]).sort_values("rank") if len(self) else pd.DataFrame()
        return f", {len(self.table())} {self._row_kind}, highest {ranked['name'].iloc[0]}" if len(ranked) else ""

    def _summary(self) -> Summary:
        facts = {"participants": len(self), "explained": self.target}
        if not len(self):
            return Summary(f"Map of the group {self.group}", facts)
        ranked = self.table().dropna(subset=["rank"]).sort_values("rank").head(_SHOWN)
        rows = [
            (row["rank"], row["name"], f"{row['drop']:+z.3g}", row["direction"] or "", f"{row['score']:.3g}")
            for row in ranked.to_dict("records")
        ]
        shares = [max(float(score), 0.0) for score in ranked["score"]]
        columns = ("rank", "name", "mean drop", "direction", "score")
        caption = f"The {len(rows)} highest-scoring {self._row_kind}"
        return Summary(f"Map of the group {self.group}", facts, columns, rows, shares, caption)

    @property
    def target(self) -> str:
        """The class that is explained."""
        target = self._method.get("Target", {})
        return str(target.get("class", f"class {target.get('index', 'unknown')}"))

    @property
    def units(self) -> dict[str, str]:
        """The scale of each column of the table."""
        return {name: units for name, (_, units) in self.columns().items()}

    def add(self, result: GroupInput, *other_sessions: GroupInput) -> None:
        """Add one participant, who counts once however many sessions there are.

        Parameters
        ----------
        result
            The participant's explanation. Of several sessions it is the first, with the table of their means.
        other_sessions
            The participant's explanations of the other sessions.

        Raises
        ------
        GlasError
            Other regions, another grid or another method than the participants before; nothing is added then.
        """
        sessions = (result, *other_sessions)
        if len(self) == 0:
            self._begin(result)
        for session in sessions:
            self._check_alike(session)
        table = self._ordered(result.table)
        participant = PARTICIPANT_ID.match(result.stem)
        name = participant.group() if participant and participant.group() not in self._notes else result.stem
        self._notes[name] = [note for session in sessions for note in session.provenance.get("Notes", ())]
        self._add_measures(table[self._measures].to_numpy(dtype=float).T)
        self._add_values(table["score"].to_numpy(dtype=float), sessions)
        self._add_account(table, sessions)
        self._table = None

    @property
    def grid(self) -> VoxelGrid:
        """The grid that all participants share.

        Raises
        ------
        GlasError
            No participant was added.
        """
        _, pattern = self._filled()
        return VoxelGrid(pattern.shape, pattern.affine)

    def table(self) -> pd.DataFrame:
        """Return one row a region or point, ranked by the normalised sum.

        Raises
        ------
        GlasError
            No participant was added.
        """
        if self._table is None:
            rows, _ = self._filled()
            means = dict(zip(self._measures, self._measure_means(), strict=True))
            rows = rows.assign(**means, score=self._combined_scores())
            self._table = ranked(rows, self._method["Settings"].get("fusion", ""))
        return self._table.copy()

    def variation(self) -> pd.DataFrame:
        """Return how participants differ: ``index name hemisphere n mean variance overlap``, one row a region or point.

        The values are of the normalised scores. ``variance`` is the sample's (n - 1) and NaN for one participant;
        ``overlap`` is the share of participants that have the region or point among their highest ``top`` %.

        Raises
        ------
        GlasError
            No participant was added.
        """
        rows, _ = self._filled()
        sums = self._scores
        rows = rows[["index", "name", "hemisphere"]].assign(n=len(self))
        return rows.assign(mean=sums.mean, variance=sums.variance, overlap=sums.overlap)

    @property
    def keeps_zero(self) -> bool:
        """Whether the scores are signed evidence."""
        return keeps_zero(self._method)

    def account(self) -> Account | None:
        """Return how much of the effect the regions account for: the sums over participants of evidence and of effects.

        None where a participant's evidence or effect is not known.

        Raises
        ------
        GlasError
            No participant was added.
        """
        if len(self._accounts) < len(self):
            return None
        table = self.table()
        return Account.joined(self._accounts, table["evidence"].dropna().to_numpy()) if self._accounts else None

    @abstractmethod
    def saliency_img(self) -> nib.Nifti1Image:
        """Return the group's map on the participants' grid, float32, in [0, 1]; of evidence in [-1, 1]."""

    @abstractmethod
    def statistic_img(self, statistic: Statistic) -> nib.Nifti1Image:
        """Return mean, variance or overlap over participants on their grid, float32."""

    def save(self, folder: Path) -> list[Path]:
        """Write map, table and their sidecars into ``folder``, all of them or none."""
        stem = self._stem()
        sidecar = {
            "Statistic": "mean evidence, divided by its largest absolute value"
            if keeps_zero(self._method)
            else "linear combination of min-max normalised saliency, min-max normalised",
            "Group": self.group,
            "GeneratedBy": generated_by(),
            **self._method,
        }
        if notes := count_notes(self._notes, what="participants"):
            sidecar["Notes"] = notes
        if (account := self.account()) is not None:
            sidecar["Account"] = account.record()
        return write_together(
            folder,
            {
                f"{stem}_stat-saliency_statmap.nii.gz": self.saliency_img().to_filename,
                f"{stem}_stat-saliency_statmap.json": write_json(
                    sidecar | {"Units": _combined(self._method), "Participants": self._inputs}
                ),
                **described_table(
                    f"{stem}_regions",
                    self.table(),
                    self.columns(),
                    **sidecar,
                    Sources=[f"{stem}_stat-saliency_statmap.nii.gz"],
                ),
            },
        )

    @abstractmethod
    def _stem(self) -> str:
        """Return the start of the files' names."""

    @abstractmethod
    def _prepare(self, rows: pd.DataFrame, shape: tuple[int, ...]) -> None:
        """Make empty sums for the first participant's regions or points, and for maps of its shape."""

    @abstractmethod
    def _add_values(self, scores: np.ndarray, sessions: Sequence[GroupInput]) -> None:
        """Add a participant's scores, ``(regions,)``, and maps, and record the inputs."""

    @abstractmethod
    def _combined_scores(self) -> np.ndarray:
        """Return the normalised sum of the participants' scores, ``(regions,)``."""

    def _add_measures(self, values: np.ndarray) -> None:
        """Add a participant's measures, ``(measures, regions)``."""
        self._measure_sums += values

    def _measure_means(self) -> np.ndarray:
        """Return the means of the measures over participants, ``(measures, regions)``."""
        return np.asarray(self._measure_sums / len(self))

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        """Return a participant's values as they are summed: min-max normalised; evidence as it is. NaN stays."""
        return values.copy() if self.keeps_zero else combination(values)

    def _add_account(self, table: pd.DataFrame, sessions: Sequence[GroupInput]) -> None:
        """Keep the mean effect of a participant's sessions, and record how much of it the evidence accounts for."""
        accounts = [session.provenance.get("Account") for session in sessions]
        if "evidence" not in table or any(account is None for account in accounts):
            return
        known: list[dict[str, Any]] = [account for account in accounts if account is not None]
        record = Account.joined(known, table["evidence"].dropna().to_numpy(dtype=float)).record()
        self._accounts.append(record)
        self._inputs[-1]["account"] = record

    def columns(self) -> Columns:
        """Return the description and the units of the columns of the group's table."""
        return group_columns(self._method, self._measures)

    def _record_input(self, session: GroupInput) -> None:
        self._inputs.append({**session.provenance["Input"], "probability": session.probability})

    def _ordered(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a participant's table in the order in which tables are summed."""
        return table

    def _filled(self) -> tuple[pd.DataFrame, nib.Nifti1Image]:
        """Return the first participant's rows, and an empty image on the participants' grid."""
        if self._rows is None or self._pattern is None or len(self) == 0:
            raise GlasError(f"a group map needs at least one participant, {self.group} has none")
        return self._rows, self._pattern

    def _begin(self, result: GroupInput) -> None:
        """Take the first participant's regions, grid and method as those of the group."""
        rows, img = self._ordered(result.table), result.saliency_img
        self._rows, self._method = rows, _method(result)
        self._pattern = nib.Nifti1Image(np.zeros(img.shape, np.float32), img.affine, img.header)
        self._measures = [name for name in self._averaged if name in rows]
        self._measure_sums = np.zeros((len(self._measures), len(rows)))
        self._prepare(rows, img.shape)

    def _check_alike(self, session: GroupInput) -> None:
        """Refuse an explanation that cannot be summed with those before."""
        assert self._rows is not None
        assert self._pattern is not None
        index, img, pattern = self._ordered(session.table)["index"].tolist(), session.saliency_img, self._pattern
        same_grid = VoxelGrid(pattern.shape, pattern.affine).same_as(VoxelGrid(img.shape, img.affine))
        if not same_grid or index != self._rows["index"].tolist():
            raise GlasError(
                f"a group's participants must share grid and {self._row_kind}: {session.stem} is on {img.shape} with "
                f"{len(index)} {self._row_kind}, those before on {pattern.shape} with {len(self._rows)}"
            )
        if _method(session) != self._method:
            raise GlasError(
                f"a group's participants must be explained alike, {session.stem} differs in target, settings or model"
            )


def _combined(method: Mapping[str, Any]) -> str:
    """Return the scale of a group's scores."""
    if keeps_zero(method):
        return "-1 to 1, mean evidence over its largest absolute value"
    return "0 to 1, sum of each participant's min-max normalised scores, min-max normalised"


def group_columns(method: Mapping[str, Any], names: Iterable[str]) -> Columns:
    """Return the description and the units of the columns of a group's table.

    Parameters
    ----------
    method
        What is the same for all participants.
    names
        The columns that hold means over participants.
    """
    scales = scales_of(method)
    means = {name: (f"Mean over participants of: {DESCRIPTIONS[name][0]}", scales[name]) for name in _MEASURES}
    return {
        **DESCRIPTIONS,
        **means,
        "score": ("Normalised sum of the participants' scores", _combined(method)),
        "direction": (direction_text(names, method, mean="mean "), ""),
    }


def _method(result: GroupInput) -> dict[str, Any]:
    """Return what must be the same for all participants; device, engine and batch size need not be."""
    same = {key: result.provenance[key] for key in _METHOD if key in result.provenance}
    same["Settings"] = {k: v for k, v in same["Settings"].items() if k not in COMPUTATION_SETTINGS}
    if isinstance(model := same.get("Model"), Mapping):  # networks of one name in memory are the folds of one model
        same["Model"] = {k: v for k, v in model.items() if k != "weights_sha256"}
    return same
