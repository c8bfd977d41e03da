"""Estimate what explaining a cohort takes; nothing is written."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from glas3d.errors import GlasError
from glas3d.explain.cost import CostEstimate, estimate_cost
from glas3d.study.cohort.accounting import Accounting, count_groups
from glas3d.study.cohort.cohort import Cohort
from glas3d.study.derivatives import (
    check_study_folder,
    is_finished,
    participant_folder,
    record_name,
    refuse_other_study,
)
from glas3d.study.running.options import StudyRequest
from glas3d.study.running.participant import Outcome, PreparedScan, ScanTask, explain_participant, limited, prepare
from glas3d.study.running.plan import StudyPlan, resolve_plan
from glas3d.study.running.runner import left_out, scan_rows, scan_tasks, training_manifest
from glas3d.study.workers import ThisProcess

# Seconds of model evaluations below which a whole scan is timed: reading and writing it may take longer than they do.
_SHORT = 10.0
_TIMED = 3  # scans; the first of them loads the model


@dataclass(frozen=True, eq=False)
class CohortEstimate:
    """What explaining a cohort takes.

    Attributes
    ----------
    groups
        Number of scans that would be explained, by group.
    finished
        Number of scans whose results already exist.
    failed
        Outcomes of the scans that cannot be explained, with the error of each.
    scan
        What the explanation of one scan by one model takes; None when all are finished.
    evaluations
        Number of model evaluations for all scans and all models of each.
    accounting
        The number of scans of each fate, those of other groups among them.
    seconds_per_scan
        Wall-clock time of a whole scan, from reading it to writing its results, where that is short enough to be
        measured; None: its model evaluations take longer than anything else.
    """

    groups: Mapping[str, int]
    finished: int
    failed: list[Outcome]
    scan: CostEstimate | None
    evaluations: int
    accounting: Accounting
    seconds_per_scan: float | None = None

    @property
    def seconds(self) -> float:
        """Wall-clock time of one worker."""
        if self.seconds_per_scan is not None:
            return sum(self.groups.values()) * self.seconds_per_scan
        return 0.0 if self.scan is None else self.evaluations * self.scan.seconds_per_evaluation


def estimate_cohort(
    cohort: Cohort, out: str | os.PathLike[str], models: str | os.PathLike[str], **options: Any
) -> CohortEstimate:
    """Estimate what `explain_cohort` takes with the same arguments.

    The first scan that is not finished is started, and stopped after some batches. Where its model evaluations take
    less than 10 s, the first scans are also explained as a whole, into a temporary folder.

    Raises
    ------
    GlasError
        `explain_cohort` would refuse the arguments, or the scan that was started fails.
    """
    request = StudyRequest.of(options, "estimate_cohort")
    out = Path(out)
    check_study_folder(out)
    rows = scan_rows(cohort, out, request.study.everyone)
    target = cohort.case if request.study.target is None else request.study.target
    plan = resolve_plan(out, models, Path(rows[0]["path"]), request, target, pool=ThisProcess(), n_scans=len(rows))
    if not request.study.overwrite:
        refuse_other_study(out, plan.record())
    training_manifest(plan)
    tasks, failed = scan_tasks(plan, cohort, rows)
    unfinished: list[PreparedScan] = []
    finished = 0
    for task in tasks:
        try:
            prepared = prepare(plan, task)
        except GlasError as problem:
            failed.append(Outcome(task.participant_id, task.session, "failed", str(problem)))
            continue
        folder = participant_folder(out, task.participant_id, task.session)
        if is_finished(folder, record_name(task.participant_id, task.session), prepared.key):
            finished += 1
        else:
            unfinished.append(prepared)
    cost = None
    if unfinished:
        first = unfinished[0]
        with limited(plan.threads):
            cost = estimate_cost(
                lambda progress: first.explain(first.bundles[0], progress), plan.settings.get("recursive", False)
            )
    per_scan = None
    if cost is not None and len(first.bundles) * cost.evaluations * cost.seconds_per_evaluation < _SHORT:
        per_scan = _seconds_per_scan(plan, [scan.task for scan in unfinished[:_TIMED]])
    evaluations = 0 if cost is None else cost.evaluations * sum(len(scan.bundles) for scan in unfinished)
    group_of = {(row["participant_id"], row["session"]): str(row["group"]) for row in rows}
    groups = count_groups(group_of[scan.task.participant_id, scan.task.session] for scan in unfinished)
    everyone = request.study.everyone
    failed += left_out(cohort, everyone=everyone)
    accounting = cohort.account(groups, finished, len(failed), everyone=everyone)
    return CohortEstimate(groups, finished, failed, cost, evaluations, accounting, per_scan)


def _seconds_per_scan(plan: StudyPlan, tasks: Sequence[ScanTask]) -> float | None:
    """Return the shortest time in which one of some scans was explained and written; None if none can be explained."""
    seconds = []
    for task in tasks:
        with TemporaryDirectory() as folder:
            start = time.perf_counter()
            outcome = explain_participant(replace(plan, out=Path(folder)), task)
            if outcome.status == "explained":
                seconds.append(time.perf_counter() - start)
    return min(seconds, default=None)
