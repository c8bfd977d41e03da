"""What explaining a cohort would do and cost; nothing is written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glas3d.errors import GlasError
from glas3d.explain.cost import CostEstimate, estimate_cost
from glas3d.study.cohort.cohort import Cohort
from glas3d.study.derivatives import check_study, is_finished, participant_folder, record_name
from glas3d.study.running.participant import Outcome, Prepared, limited, prepare
from glas3d.study.running.plan import make_plan
from glas3d.study.running.runner import problems_of, scans_of, whom, with_own


@dataclass(frozen=True, eq=False)
class CohortForecast:
    """What explaining a cohort would do.

    Attributes
    ----------
    groups
        Scans that would be explained, by group.
    finished
        Scans whose results are there already.
    failed
        Those that cannot be explained, and why.
    one
        What one model's answer about one scan costs; None when all are finished.
    forwards
        Inputs in all, over scans and the models of each.
    """

    groups: Mapping[str, int]
    finished: int
    failed: list[Outcome]
    one: CostEstimate | None
    forwards: int

    @property
    def seconds(self) -> float:
        """Of one worker."""
        return 0.0 if self.one is None else self.forwards * self.one.seconds


def forecast_cohort(
    cohort: Cohort,
    out: str | os.PathLike[str],
    models: str | os.PathLike[str],
    *,
    target: int | str | None = None,
    everyone: bool = False,
    **plan_options: Any,
) -> CohortForecast:
    """See what `explain_cohort` would do with the same arguments.

    The first scan that is not finished is begun for it, and stopped after some batches.

    Parameters
    ----------
    plan_options
        Others of `glas3d.study.running.plan.make_plan`.

    Raises
    ------
    GlasError
        What `explain_cohort` refuses before it begins, and what is wrong with the scan that was begun.
    """
    out = Path(out)
    check_study(out)
    rows = scans_of(cohort, out, everyone)
    chosen = cohort.case if target is None else target
    plan = make_plan(out, models, Path(rows[0]["path"]), target=chosen, **plan_options)
    whom(plan)
    todo, failed = with_own(plan, cohort, rows)
    groups = {(row["participant_id"], row["session"]): str(row["group"]) for row in rows}
    left: list[Prepared] = []
    finished = 0
    for one in todo:
        try:
            begun = prepare(plan, one)
        except GlasError as problem:
            failed.append(Outcome(one.participant_id, one.session, "failed", str(problem)))
            continue
        place = participant_folder(out, one.participant_id, one.session)
        if is_finished(place, record_name(one.participant_id, one.session), begun.key):
            finished += 1
        else:
            left.append(begun)
    cost = None
    if left:
        with limited(plan.threads):
            first = left[0]
            cost = estimate_cost(lambda tick: first.ask(first.bundles[0], tick), plan.settings.get("recursive", False))
    forwards = 0 if cost is None else cost.evaluations * sum(len(one.bundles) for one in left)
    counted = Counter(groups[begun.one.participant_id, begun.one.session] for begun in left)
    return CohortForecast(dict(sorted(counted.items())), finished, failed + problems_of(cohort), cost, forwards)
