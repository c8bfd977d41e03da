"""`explain_cohort`: explain each scan of a study by models not trained on the participant, and resume runs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from glas3d.display import fields_repr
from glas3d.errors import GlasError, GlasWarning
from glas3d.explain.notes import count_notes, statement_of
from glas3d.explain.options import ExplainOptions, UnsetSettings
from glas3d.imaging.atlas import Atlas
from glas3d.options import accepts
from glas3d.study.cohort.accounting import Accounting, count_groups
from glas3d.study.cohort.cohort import Cohort
from glas3d.study.derivatives import (
    STUDY,
    check_study_folder,
    differences,
    list_results,
    missing_results,
    participant_folder,
    read_study,
    record_name,
    refuse_other_study,
    start_study,
    write_failed,
)
from glas3d.study.regions import SharedRegions
from glas3d.study.running.options import StudyOptions, StudyRequest
from glas3d.study.running.participant import Outcome, ScanTask, explain_participant, load_search_of
from glas3d.study.running.plan import StudyPlan, bundles_for, manifest_of, resolve_plan
from glas3d.study.training.manifest import Manifest
from glas3d.study.workers import ThisProcess, WorkerProcesses, workers

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class CohortResult:
    """The outcome of every scan of a cohort.

    Attributes
    ----------
    folder
        The study's folder.
    outcomes
        One row for each scan, in the cohort's order: ``participant_id session status error``, the status one of
        ``explained``, ``kept`` (from an earlier run) and ``failed``. Scans that the cohort left out come last, as
        failed.
    accounting
        The number of scans of each fate, those of other groups among them.
    notes
        Notes on the results of the scans, one sentence for each, with the number of scans that it is about. Those that
        were given as warnings are not repeated.
    """

    folder: Path
    outcomes: pd.DataFrame
    accounting: Accounting
    notes: tuple[str, ...] = ()

    __repr__ = fields_repr

    def count(self, status: str) -> int:
        """Return the number of scans of a status."""
        return int((self.outcomes["status"] == status).sum())

    @property
    def failed(self) -> pd.DataFrame:
        """``participant_id session error`` of the scans that failed."""
        failed = self.outcomes[self.outcomes["status"] == "failed"]
        return failed[["participant_id", "session", "error"]].reset_index(drop=True)


@accepts(StudyOptions, UnsetSettings, ExplainOptions, unset=[UnsetSettings])
def explain_cohort(
    cohort: Cohort,
    out: str | os.PathLike[str],
    models: str | os.PathLike[str],
    *,
    progress: Progress = lambda done, total: None,
    announce: Callable[[str], None] = lambda dashboard: None,
    **options: Any,
) -> CohortResult:
    """Explain the scans of a cohort into a BIDS derivatives folder, ``out/sub-01/[ses-M00/]anat`` and so on.

    A scan whose folder already exists, from the same scan, model, settings and versions, is not explained again: a run
    that was killed resumes where it stopped, and leaves the same bytes as one that was not. Results of another target,
    other models, search or settings are replaced only with ``overwrite``. Batch size, engine, threads and device are
    resolved by the first run and kept in ``out/study.json``.

    Of the options of `explain_img`, files (``search``, ``mask_img``, ``brain_mask``, ``transform``, ``inverse``,
    ``background``) are the same for all participants; with ``{participant_id}`` or ``{session_id}`` in their path,
    which is then relative to the cohort's folder, they are each participant's own. ``covariates`` names columns of the
    participants' table.

    Parameters
    ----------
    cohort
        The scans, and the groups of their participants (see `read_cohort`).
    out
        The study's folder.
    models
        A folder that `train_folds` wrote: each participant is explained by the fold that was not trained on them,
        participants of other data sets by all folds (the mean, with its spread for each region). Or one model; if it
        does not record which participants trained it, every output says so.
    progress
        Called with the scans done and in all.
    announce
        Called with the address of Dask's dashboard, where there is one.
    **options
        The options of `StudyOptions`, the settings of the method, and the options of `ExplainOptions`.

    Raises
    ------
    GlasError
        No scan to explain, results of another study in ``out``, a participant that trained all models, options with
        which no participant can be explained,
        or (with ``on_error="fail"``) the error of the first participant that failed.
    TypeError
        A keyword that is none of the above.

    Warns
    -----
    GlasWarning
        It is not recorded which participants trained the model; the warnings of `explain_img`, once each.
    """
    request = StudyRequest.of(options, "explain_cohort")
    out = Path(out)
    check_study_folder(out)
    study = request.study
    rows = scan_rows(cohort, out, study.everyone)
    with workers(study.n_workers, study.scheduler, study.threads, separate=study.time_limit is not None) as pool:
        target = cohort.case if study.target is None else study.target
        plan = resolve_plan(out, models, Path(rows[0]["path"]), request, target, pool=pool, n_scans=len(rows))
        if not study.overwrite:
            refuse_other_study(out, plan.record())
        manifest = training_manifest(plan)
        tasks, incomplete = scan_tasks(plan, cohort, rows)
        if study.on_error == "fail":
            _refuse(incomplete)
            for task in tasks:
                bundles_for(plan, manifest, task.participant_id)
        start_study(out, f"GLAS explanations of {cohort.case} and {cohort.control}", plan.record(), plan.search_files())
        if pool.dashboard is not None:
            announce(pool.dashboard)
        outcomes = incomplete + _explain_each(pool, plan, tasks, study, progress)
    outcomes = _checked(plan, f"GLAS explanations of {cohort.case} and {cohort.control}", outcomes)
    list_results(out)
    return _result(out, cohort, rows, outcomes, study)


def scan_rows(cohort: Cohort, out: Path, everyone: bool) -> list[dict[str, Any]]:
    """Return the rows of the scans to explain.

    Raises
    ------
    GlasError
        There are no scans, or an id would lead out of the folder of results.
    """
    table = cohort.everyone if everyone else cohort.table
    rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    if not rows:
        raise GlasError(f"a cohort needs scans, {cohort.root} has none of {cohort.case} or {cohort.control}")
    for row in rows:
        participant_folder(out, row["participant_id"], row["session"])
    return rows


def scan_tasks(plan: StudyPlan, cohort: Cohort, rows: Sequence[dict[str, Any]]) -> tuple[list[ScanTask], list[Outcome]]:
    """Return the scans with each participant's own settings, and the outcomes of those that lack a setting.

    Participants' own parcellations must name their regions alike.
    """
    tasks, incomplete = [], []
    regions = SharedRegions()
    for row in rows:
        name, session = row["participant_id"], row["session"]
        try:
            task = ScanTask(name, session, Path(row["path"]).resolve(), plan.own_settings(cohort.root, row))
            if plan.parcellation is not None:
                regions.add(task.name, parcellation_regions(plan, task))
        except GlasError as problem:
            incomplete.append(Outcome(name, session, "failed", str(problem)))
        else:
            tasks.append(task)
    return tasks, incomplete


def parcellation_regions(plan: StudyPlan, task: ScanTask) -> pd.DataFrame:
    """Return the regions of a participant's own parcellation, ``index name hemisphere``, that have a voxel in it.

    Raises
    ------
    GlasError
        The parcellation cannot be used.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GlasWarning)  # explaining warns
        atlas: Atlas = load_search_of(plan, task)
    return atlas.table[atlas.table["index"].isin(np.unique(np.asarray(atlas.labels_img.dataobj)))]


def training_manifest(plan: StudyPlan) -> Manifest | None:
    """Return the record of the participants that trained the models, and warn where there is none."""
    manifest = manifest_of(plan.models)
    if manifest is None:
        message = (
            f"The training participants of the model {plan.models} are not recorded: check that no participant of this "
            "study was used to train it"
        )
        warnings.warn(message, GlasWarning, stacklevel=3)
    return manifest


def left_out(cohort: Cohort, *, everyone: bool = False) -> list[Outcome]:
    """Return the outcomes of scans that the cohort left out: of the two groups or an unknown one, or of any group."""
    problems = cohort.concerned(everyone=everyone)
    return [
        Outcome(
            row["participant_id"],
            row["session"] or "",
            "failed",
            ": ".join(filter(None, [row["problem"], row["detail"]])),
        )
        for row in problems.to_dict("records")
    ]


def _explain_each(
    pool: ThisProcess | WorkerProcesses,
    plan: StudyPlan,
    tasks: Sequence[ScanTask],
    options: StudyOptions,
    progress: Progress,
) -> list[Outcome]:
    """Explain the scans, all of them or, if the first failure ends the work, until then."""
    outcomes: list[Outcome] = []
    progress(0, len(tasks))
    for outcome in pool.run(explain_participant, plan, tasks, _lost, options.time_limit):
        outcomes.append(outcome)
        progress(len(outcomes), len(tasks))
        if outcome.status == "failed" and options.on_error == "fail":
            break
    return outcomes


def _checked(plan: StudyPlan, title: str, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes with those as failed whose results are gone; write the study's own files again if they are.

    Raises
    ------
    GlasError
        Another run has made the folder that of another study meanwhile.
    """
    checked = []
    for outcome in outcomes:
        folder = participant_folder(plan.out, outcome.participant_id, outcome.session)
        if outcome.status != "failed" and missing_results(folder, record_name(outcome.participant_id, outcome.session)):
            checked.append(replace(outcome, status="failed", error=f"its results in {folder} were removed meanwhile"))
        else:
            checked.append(outcome)
    record = plan.record()
    if not (plan.out / STUDY).is_file():
        start_study(plan.out, title, record, plan.search_files())
    elif differing := differences(read_study(plan.out), record):
        raise GlasError(
            f"another run with other {' and '.join(differing)} wrote to {plan.out} meanwhile: give each study its own "
            "folder"
        )
    return checked


def _result(
    out: Path, cohort: Cohort, rows: Sequence[dict[str, Any]], outcomes: list[Outcome], options: StudyOptions
) -> CohortResult:
    """Sort the outcomes in the order of the cohort, list those that failed, and give the warnings once each."""
    by_scan = {(outcome.participant_id, outcome.session): outcome for outcome in outcomes}
    ordered = [by_scan[key] for row in rows if (key := (row["participant_id"], row["session"])) in by_scan]
    ordered += left_out(cohort, everyone=options.everyone)
    given = count_notes({outcome.name: outcome.warnings for outcome in by_scan.values()})
    for message in given:
        warnings.warn(message, GlasWarning, stacklevel=3)
    warned = {statement_of(message) for message in given}
    explained_now = {outcome.name: outcome.notes for outcome in by_scan.values() if outcome.status != "failed"}
    notes = [note for note in count_notes(explained_now) if statement_of(note) not in warned]
    table = pd.DataFrame(
        [[outcome.participant_id, outcome.session, outcome.status, outcome.error] for outcome in ordered]
    )
    table.columns = pd.Index(["participant_id", "session", "status", "error"])
    status = table["status"].value_counts()
    group_of = {(row["participant_id"], row["session"]): row["group"] for row in rows}
    explained = [
        group_of[outcome.participant_id, outcome.session] for outcome in ordered if outcome.status == "explained"
    ]
    accounting = cohort.account(
        count_groups(explained), int(status.get("kept", 0)), int(status.get("failed", 0)), everyone=options.everyone
    )
    result = CohortResult(out, table, accounting, tuple(notes))
    attempted = {(outcome.participant_id, outcome.session) for outcome in ordered}
    write_failed(out, result.failed, attempted, cohort.root)
    if options.on_error == "fail":
        _refuse([outcome for outcome in by_scan.values() if outcome.status == "failed"])
    return result


def _refuse(failed: Sequence[Outcome]) -> None:
    for outcome in failed:
        raise GlasError(
            f'{outcome.name} cannot be explained: {outcome.error}; on_error="skip" continues with the others'
        )


def _lost(task: ScanTask, reason: str) -> Outcome:
    return Outcome(task.participant_id, task.session, "failed", reason)
