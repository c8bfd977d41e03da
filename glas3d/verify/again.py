"""Explain some participants of a study again, and compare every file with the one that was written."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.checks import whole_number
from glas3d.errors import GlasError, GlasWarning
from glas3d.explain.options import ExplainOptions
from glas3d.hashing import file_sha256
from glas3d.study.cohort.cohort import Cohort
from glas3d.study.cohort.file_patterns import NAMING_FILES
from glas3d.study.derivatives import (
    Record,
    participant_folder,
    read_record,
    read_records,
    read_study,
    record_name,
    stored_search,
)
from glas3d.study.running.options import StudyRequest
from glas3d.study.running.participant import explain_participant
from glas3d.study.running.plan import resolve_plan
from glas3d.study.running.runner import scan_rows, scan_tasks
from glas3d.study.workers import ThisProcess
from glas3d.tables import read_table

TOLERANCE = 1e-4
"""How far a value may be from the one that was written, as a share of the range of its column or map, where versions,
engine or machine differ. The same versions and engine give the same bits."""

_COMPARED = (".nii.gz", ".tsv")  # sidecars name versions


@dataclass(frozen=True)
class Repetition:
    """One scan that was explained again.

    Attributes
    ----------
    name
        The participant and the session.
    same_bits
        Whether every map and table is the same, bit for bit.
    same_software
        Whether versions, engine and all else that decides a result are those that were recorded, so that the bits must
        be the same.
    largest
        The largest difference of a value, as a share of the range of its column or map.
    file
        The file that it is in; empty where all bits are the same.
    error
        Why the scan could not be explained again; else empty.
    """

    name: str
    same_bits: bool
    same_software: bool
    largest: float
    file: str
    error: str = ""

    @property
    def well(self) -> bool:
        """Whether the results are the same: bit for bit by the same software, else within `TOLERANCE`."""
        return not self.error and (self.same_bits or (not self.same_software and self.largest <= TOLERANCE))


def explain_again(
    out: str | os.PathLike[str],
    cohort: Cohort,
    models: str | os.PathLike[str],
    *,
    sample: int = 1,
    seed: int = 0,
    trust: bool = False,
    device: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Repetition]:
    """Explain some participants of a study again with the settings that it recorded, and compare maps and tables.

    Parameters
    ----------
    out
        The study's folder, with the results of the participant level.
    cohort
        The participants, as the study had them.
    models
        The models, as the study had them (see `explain_cohort`).
    sample
        How many scans; they are drawn at random.
    seed
        Seed of the draw.
    trust
        See `glas3d.load_model`.
    device
        Where the models run.
    progress
        Called with the scans done and in all.

    Returns
    -------
    A comparison for each scan.

    Raises
    ------
    GlasError
        No results of a study, a study of files that are not recorded with their folders (masks, transforms,
        backgrounds, an atlas that has moved), or models of another study.
    """
    out = Path(out)
    records, stored = read_records(out), read_study(out)
    number = min(whole_number("sample", sample, least=1), len(records))
    drawn = sorted(np.random.default_rng(seed).choice(len(records), number, replace=False).tolist())
    request = StudyRequest.of(_options(out, stored) | {"trust": trust, "device": device}, "explain_again")
    rows = {(row["participant_id"], row["session"]): row for row in scan_rows(cohort, out, everyone=True)}
    repetitions: list[Repetition] = []
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="glas3d-") as scratch:
        warnings.simplefilter("ignore", GlasWarning)  # the study gave them
        plan = None
        for record in (records[index] for index in drawn):
            row = rows.get((record.participant_id, record.session))
            if row is None:
                repetitions.append(_failed(record, f"{cohort.root} has no scan of {record.name}"))
                continue
            if plan is None:
                first = Path(row["path"])
                plan = resolve_plan(out, models, first, request, stored["Target"], pool=ThisProcess(), n_scans=number)
                plan = replace(plan, out=Path(scratch))
            tasks, incomplete = scan_tasks(plan, cohort, [row])
            outcome = incomplete[0] if incomplete else explain_participant(plan, tasks[0])
            if outcome.error:
                repetitions.append(_failed(record, outcome.error))
            else:
                repetitions.append(_compare(record, _record_in(Path(scratch), record)))
            progress(len(repetitions), number)
    return repetitions


def _record_in(out: Path, record: Record) -> Record:
    """Return the record of the same scan in another folder."""
    folder = participant_folder(out, record.participant_id, record.session)
    content = read_record(folder / record_name(record.participant_id, record.session))
    return Record(record.participant_id, record.session, folder, content)


def _options(out: Path, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a study as they were given, from what it recorded."""
    settings = dict(stored["Settings"])
    for name in NAMING_FILES:
        if " sha256:" in str(settings.get(name)):
            raise GlasError(
                f"a study is explained again from what it recorded; it used a file as {name}, whose folder is not "
                f"recorded: {settings[name]}"
            )
    search = stored_search(out, stored["Search"])
    options = {
        "target": stored["Target"],
        "search": tuple(search) if isinstance(search, list) else search,
        "atlas_space": stored["AtlasSpace"],
        "atlas_table": stored_search(out, stored.get("AtlasTable")),
        "in_sample": stored["InSample"],
    }
    known = set(ExplainOptions.__dataclass_fields__)
    if stored.get("AssumeSpace") is not None and "assume_space" in known:
        options["assume_space"] = stored["AssumeSpace"]
    return options | settings


def _failed(record: Record, error: str) -> Repetition:
    return Repetition(record.name, False, False, float("nan"), "", error)


def _compare(record: Record, again: Record) -> Repetition:
    """Compare the maps and tables of two folders of a participant."""
    files = record.content["Files"]
    largest, worst, same_bits = 0.0, "", True
    for name in sorted(set(files) | set(again.content["Files"])):
        if not name.endswith(_COMPARED):
            continue
        here, there = record.folder / name, again.folder / name
        if not here.is_file() or not there.is_file():
            return _failed(record, f"{name} is there only once")
        if file_sha256(here) == file_sha256(there):
            continue
        same_bits = False
        difference = (
            _difference_of_maps(here, there) if name.endswith(".nii.gz") else _difference_of_tables(here, there)
        )
        if not difference <= largest:
            largest, worst = difference, name
    return Repetition(record.name, same_bits, record.content["Key"] == again.content["Key"], largest, worst)


def _difference_of_maps(here: Path, there: Path) -> float:
    images: list[Any] = [nib.load(path) for path in (here, there)]
    first, second = (np.asarray(image.dataobj, dtype=np.float64) for image in images)
    return _difference(first, second)


def _difference_of_tables(here: Path, there: Path) -> float:
    first, second = (
        read_table(path, text=("name", "hemisphere", "direction"), missing=("n/a",)) for path in (here, there)
    )
    if list(first.columns) != list(second.columns) or len(first) != len(second):
        return float("inf")
    order = "index" if first["index"].notna().all() else "name"  # ranks may differ where scores nearly do
    first, second = (table.sort_values(order).reset_index(drop=True) for table in (first, second))
    numbers = [name for name in first.columns if pd.api.types.is_numeric_dtype(first[name]) and name != "rank"]
    if not first[["name"]].equals(second[["name"]]):
        return float("inf")
    return max(
        (_difference(first[name].to_numpy(float), second[name].to_numpy(float)) for name in numbers), default=0.0
    )


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest difference as a share of the range of the first; infinity for other shapes or gaps."""
    if first.shape != second.shape or not np.array_equal(np.isnan(first), np.isnan(second)):
        return float("inf")
    known = ~np.isnan(first)
    if not known.any():
        return 0.0
    scale = np.ptp(first[known]) or np.abs(first[known]).max() or 1.0
    return float(np.abs(first - second)[known].max() / scale)
