"""The folder of a study as audits meet it: its records, tables and provenance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from glas3d.errors import GlasError
from glas3d.evaluate.audits.audit import Audited
from glas3d.evaluate.audits.audited_result import AuditedResult, read_sidecar
from glas3d.evaluate.audits.checks import AuditOptions
from glas3d.explain.notes import count_notes
from glas3d.explain.result import searched_in_mni
from glas3d.imaging.atlas import Atlas
from glas3d.output import generated_by
from glas3d.study.derivatives import GROUP, STUDY, Record, is_study, read_records, read_study
from glas3d.study.group.files import group_stem
from glas3d.study.group.level import atlas_of


@dataclass(frozen=True, eq=False)
class AuditedStudy(Audited):
    """The results of a study.

    Attributes
    ----------
    out
        Its folder.
    options
        The options of audits.
    study
        The content of ``study.json``.
    records
        The records of all participants and sessions.
    """

    out: Path
    options: AuditOptions
    study: dict[str, Any]
    records: list[Record]

    @classmethod
    def read(cls, out: Path, options: AuditOptions) -> AuditedStudy:
        """Read a study.

        Raises
        ------
        GlasError
            It is not the folder of a study, or has no results of participants.
        """
        if not out.is_dir() or not is_study(out):
            raise GlasError(f"audits of a study need its folder, with {STUDY} or participants' records, got {out}")
        return cls(out, options, read_study(out), read_records(out))

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The table of each participant, by index; the first of several sessions."""
        tables: dict[str, pd.DataFrame] = {}
        for record in self.records:
            if record.participant_id not in tables:
                tables[record.participant_id] = record.table().set_index("index").sort_index()
        return tables

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Scores, participants by regions, of regions that all participants have."""
        return pd.DataFrame({name: table["score"] for name, table in self.tables.items()}).T.dropna(axis="columns")

    @cached_property
    def probabilities(self) -> dict[str, float]:
        """The probability of the explained class, by participant."""
        return {record.participant_id: float(record.content["Probability"]) for record in reversed(self.records)}

    @property
    def volumes(self) -> np.ndarray | None:
        """``(m,)`` voxels of each region, in the order of the scores; None for points."""
        if "atlas" not in self.method["Search"]:
            return None
        first = next(iter(self.tables.values()))
        return first.loc[self.scores.columns, "n_voxels"].to_numpy(dtype=np.float64)

    @cached_property
    def atlas(self) -> Atlas | None:
        """The atlas that all participants were explained with; None for a grid and for their own parcellations."""
        if "parcellations" in self.method["Search"]:
            return None
        return atlas_of(self.out, self.study, self.records[0])

    def is_in_mni(self) -> bool:
        """Return whether the maps are known to be in MNI space: it was stated, or is known of every scan."""
        if self.study.get("AssumeSpace") is not None:
            return True
        paths = [record.folder / f"{record.content['Stem']}_regions.json" for record in self.records]
        return all(searched_in_mni(read_sidecar(path)) for path in paths)

    def group_result(self) -> AuditedResult | None:
        """Return the map of the case group; None where the group level has not been run.

        Raises
        ------
        GlasError
            A file of the group level is damaged.
        """
        folder = self.out / GROUP
        path = folder / "provenance.json"
        if not path.is_file():
            return None
        stem = group_stem(self.method["Search"].get("atlas"), read_sidecar(path, "Case")["Case"])
        return AuditedResult.read(folder / f"{stem}_stat-saliency_statmap.nii.gz", self.options)

    def fold_means(self) -> pd.DataFrame:
        """Return the mean scores of the participants that each fold's model explained, a row a fold."""
        folds = {record.participant_id: record.content["Folds"] for record in reversed(self.records)}
        of_fold = pd.Series({name: fold[0] for name, fold in folds.items() if len(fold) == 1}, dtype=object)
        known = self.scores.loc[[name for name in self.scores.index if name in of_fold.index]]
        return known.groupby(of_fold.reindex(known.index)).mean()

    def others(self) -> list[tuple[int, AuditedStudy]]:
        """Return the other runs that the options name, with their numbers from 1."""
        return [(i, self.read(Path(run), self.options)) for i, run in enumerate(self.options.runs, start=1)]

    def in_sample_run(self) -> AuditedStudy | None:
        """Return the in-sample run that the options name, if they do."""
        return None if self.options.in_sample is None else self.read(Path(self.options.in_sample), self.options)

    @property
    def method(self) -> dict[str, Any]:
        """What all participants were explained with: ``Target Settings Model Search``."""
        return dict(self.records[0].content["Method"])

    def provenance_of(self, check: str) -> dict[str, Any]:
        """Return what tells audits apart, and all that was used, ready for JSON; known before the audit is made."""
        inputs = {record.name: record.content["Key"] for record in self.records}
        method = self.method
        notes = count_notes({record.name: record.content.get("Notes", []) for record in self.records})
        return {
            **method,
            **({"Notes": notes} if notes else {}),
            "Input": {"name": "study", "keys": inputs},
            "Settings": method.get("Settings", {}) | self.options.record_of(check),
            "GeneratedBy": generated_by(),
        }

    @property
    def search_label(self) -> str:
        """The search in names of files, such as ``seg-AAL_desc-``."""
        search = self.method["Search"]
        return f"seg-{search['atlas']}_desc-" if "atlas" in search else "desc-grid" if "grid" in search else "desc-"

    def file(self, check: str) -> str:
        """Return the name of the file of an audit."""
        return f"study_{self.search_label}{check}_audit.json"
