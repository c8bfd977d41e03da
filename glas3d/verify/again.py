"""Explain some participants of a study again, and compare every file with the one that was written."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from glas3d.checks import whole_number
from glas3d.errors import GlasError, GlasWarning
from glas3d.explain.options import ExplainOptions
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
from glas3d.verify.differences import Repetition, compared, failed


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
                repetitions.append(failed(record.name, f"{cohort.root} has no scan of {record.name}"))
                continue
            if plan is None:
                first = Path(row["path"])
                plan = resolve_plan(out, models, first, request, stored["Target"], pool=ThisProcess(), n_scans=number)
                plan = replace(plan, out=Path(scratch))
            tasks, incomplete = scan_tasks(plan, cohort, [row])
            outcome = incomplete[0] if incomplete else explain_participant(plan, tasks[0])
            if outcome.error:
                repetitions.append(failed(record.name, outcome.error))
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


def _compare(record: Record, again: Record) -> Repetition:
    """Compare the maps and tables of two folders of a participant."""
    files = sorted(set(record.content["Files"]) | set(again.content["Files"]))
    same_software = record.content["Key"] == again.content["Key"]
    return compared(
        record.name, record.folder, again.folder, {name: name for name in files}, same_software=same_software
    )
