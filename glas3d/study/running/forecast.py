"""Estimate what explaining a cohort takes; nothing is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
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
from glas3d.study.running.participant import Outcome, PreparedScan, limited, prepare
from glas3d.study.running.plan import resolve_plan
from glas3d.study.running.runner import left_out, scan_rows, scan_tasks, training_manifest
from glas3d.study.workers import ThisProcess


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
    """

    groups: Mapping[str, int]
    finished: int
    failed: list[Outcome]
    scan: CostEstimate | None
    evaluations: int
    accounting: Accounting

    @property
    def seconds(self) -> float:
        """Wall-clock time of one worker."""
        return 0.0 if self.scan is None else self.evaluations * self.scan.seconds_per_evaluation


def estimate_cohort(
    cohort: Cohort, out: str | os.PathLike[str], models: str | os.PathLike[str], **options: Any
) -> CohortEstimate:
    """Estimate what `explain_cohort` takes with the same arguments.

    The first scan that is not finished is started, and stopped after some batches.

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
    evaluations = 0 if cost is None else cost.evaluations * sum(len(scan.bundles) for scan in unfinished)
    group_of = {(row["participant_id"], row["session"]): str(row["group"]) for row in rows}
    groups = count_groups(group_of[scan.task.participant_id, scan.task.session] for scan in unfinished)
    everyone = request.study.everyone
    failed += left_out(cohort, everyone=everyone)
    accounting = cohort.account(groups, finished, len(failed), everyone=everyone)
    return CohortEstimate(groups, finished, failed, cost, evaluations, accounting)
