"""Explain everyone of a study, each by the model that never saw them; go on where an earlier run ended."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from glas3d.core.search import Grid
from glas3d.errors import GlasError, GlasWarning
from glas3d.study.cohort.cohort import Cohort, OnError
from glas3d.study.cohort.file_patterns import own_of
from glas3d.study.derivatives import begin, check_study, participant_folder, write_failed
from glas3d.study.environment import device_here
from glas3d.study.running.participant import Outcome, ToExplain, explain_participant
from glas3d.study.running.plan import Plan, bundles_for, make_plan, manifest_of
from glas3d.study.training.manifest import Manifest
from glas3d.study.workers import workers


@dataclass(frozen=True, eq=False)
class CohortResult:
    """What became of everyone.

    Attributes
    ----------
    place
        The study's folder.
    outcomes
        A row a scan, in the cohort's order: ``participant_id session status error``, the status one of ``explained``,
        ``kept`` (from an earlier run) and ``failed``. Scans that the cohort left out come last, as failed.
    """

    place: Path
    outcomes: pd.DataFrame

    def count(self, status: str) -> int:
        """Scans of a status."""
        return int((self.outcomes["status"] == status).sum())

    @property
    def failed(self) -> pd.DataFrame:
        """``participant_id session error`` of those that failed."""
        found = self.outcomes[self.outcomes["status"] == "failed"]
        return found[["participant_id", "session", "error"]].reset_index(drop=True)


def explain_cohort(
    cohort: Cohort,
    out: str | os.PathLike[str],
    models: str | os.PathLike[str],
    *,
    target: int | str | None = None,
    search: str | os.PathLike[str] | Grid | int | tuple[int, ...] = "AAL",
    atlas_space: str | None = None,
    settings: Mapping[str, Any] | None = None,
    everyone: bool = False,
    in_sample: bool = False,
    assume_space: str | None = None,
    batch_size: int | None = None,
    engine: str = "auto",
    threads: int | None = None,
    device: str = "auto",
    n_workers: int = 1,
    scheduler: str | None = None,
    on_error: OnError = "fail",
    tick: Callable[[int, int], None] = lambda done, total: None,
    announce: Callable[[str], None] = lambda dashboard: None,
) -> CohortResult:
    """Explain the scans of a cohort into a BIDS derivatives folder, ``out/sub-01/[ses-M00/]anat`` and so on.

    Whose folder is there already, from the same scan, model, settings and versions, is not explained again: a run
    that was killed goes on where it was, and leaves the same bytes as one that was not. Batch size, engine,
    threads and device are resolved by the first run and kept in ``out/study.json``.

    Parameters
    ----------
    models
        What `glas3d.study.training.crossvalidation.train_folds` wrote: each participant is explained by the fold that
        never saw them, participants from elsewhere by all folds (the mean, with its spread a region). Or one model: of
        those that do not say whom they were trained on every output says so.
    target
        Class to explain in everyone; None: the cohort's case.
    search
        Name of a shipped atlas, or path of a label image or of probabilities with its .tsv beside it; path of a .tsv
        of places (see `Coordinates`); a `Grid`.
    atlas_space
        ``"MNI"``: the space of an atlas that is a file, where scans are brought to the template.
    settings
        Others of `explain_img`, such as ``sigma_light``, ``recursive`` or ``scales``, and ``inverse`` of
        `load_transform`. Files (``mask_img``, ``brain_mask``, ``transform``, ``inverse``, ``background``) are the same
        for everyone, or with ``{participant_id}`` or ``{session_id}`` in their path, which then leads on from the
        cohort's folder, each participant's own. ``covariates`` names columns of the participants' table.
    everyone
        Whether participants of other groups than the two compared are explained, too.
    in_sample
        Explain participants of the study by the models that were trained on them, and say so in every output.
    assume_space
        ``"MNI"``: take scans to be in MNI space without looking.
    batch_size, engine, threads, device
        See `glas3d.study.running.plan.make_plan`.
    n_workers, scheduler
        See `glas3d.study.workers.workers`.
    on_error
        What becomes of the others when one participant cannot be explained: the work ends (``"fail"``), or goes
        on. Those that failed are listed in ``out/participants_failed.tsv`` either way.
    tick
        Called with scans done and in all.
    announce
        Called with the address of Dask's dashboard, where there is one.

    Raises
    ------
    GlasError
        Nobody to explain, a participant whose models have all seen them, what the plan refuses, or (with
        ``on_error="fail"``) what is wrong with the first participant that failed.

    Warns
    -----
    GlasWarning
        Nothing says whom the model was trained on; what `explain_img` warns of, once.
    """
    if on_error not in ("fail", "skip"):
        raise GlasError(f'on_error must be "fail" or "skip", got {on_error!r}')
    out = Path(out)
    check_study(out)
    rows = scans_of(cohort, out, everyone)
    with workers(n_workers, scheduler, threads) as pool:
        plan = make_plan(
            out,
            models,
            Path(rows[0]["path"]),
            target=cohort.case if target is None else target,
            search=search,
            atlas_space=atlas_space,
            settings=settings,
            in_sample=in_sample,
            assume_space=assume_space,
            batch_size=batch_size,
            engine=engine,
            engine_there=pool.call,
            scans=len(rows),
            threads=threads,
            device=device,
            device_there=lambda: pool.call(device_here),
        )
        manifest = whom(plan)
        todo, lacking = with_own(plan, cohort, rows)
        if on_error == "fail":
            _refuse(lacking)
            for one in todo:
                bundles_for(plan, manifest, one.participant_id)
        begin(out, f"GLAS explanations of {cohort.case} and {cohort.control}", plan.record())
        if pool.dashboard is not None:
            announce(pool.dashboard)
        tick(0, len(todo))
        done = {(one.participant_id, one.session): one for one in lacking}
        for outcome in pool.run(explain_participant, plan, todo, _lost):
            done[outcome.participant_id, outcome.session] = outcome
            tick(len(done) - len(lacking), len(todo))
            if outcome.status == "failed" and on_error == "fail":
                break
    ended = [done[key] for row in rows if (key := (row["participant_id"], row["session"])) in done]
    ended += problems_of(cohort)
    for note in dict.fromkeys(note for one in done.values() for note in one.notes):
        warnings.warn(note, GlasWarning, stacklevel=2)
    outcomes = pd.DataFrame([[one.participant_id, one.session, one.status, one.error] for one in ended])
    outcomes.columns = pd.Index(["participant_id", "session", "status", "error"])
    result = CohortResult(out, outcomes)
    write_failed(out, result.failed, {(one.participant_id, one.session) for one in ended})
    if on_error == "fail":
        _refuse([one for one in done.values() if one.status == "failed"])
    return result


def scans_of(cohort: Cohort, out: Path, everyone: bool) -> list[dict[str, Any]]:
    """Rows of the scans to explain.

    Raises
    ------
    GlasError
        There are none, or ids that lead out of the folder of results.
    """
    table = cohort.everyone if everyone else cohort.table
    rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    if not rows:
        raise GlasError(f"a cohort needs scans, {cohort.root} has none of {cohort.case} or {cohort.control}")
    for row in rows:
        participant_folder(out, row["participant_id"], row["session"])
    return rows


def with_own(plan: Plan, cohort: Cohort, rows: Sequence[Mapping[str, Any]]) -> tuple[list[ToExplain], list[Outcome]]:
    """The scans with each participant's own settings, and those that lack one."""
    todo, lacking = [], []
    for row in rows:
        name, session = row["participant_id"], row["session"]
        try:
            own = own_of(plan.settings, cohort.root, row)
        except GlasError as problem:
            lacking.append(Outcome(name, session, "failed", str(problem)))
        else:
            todo.append(ToExplain(name, session, Path(row["path"]).resolve(), own))
    return todo, lacking


def whom(plan: Plan) -> Manifest | None:
    """Whom the models were trained on; a warning where nothing says it."""
    manifest = manifest_of(plan.models)
    if manifest is None:
        message = (
            f"nothing says whom the model {plan.models} was trained on: make sure that it was nobody of the cohort"
        )
        warnings.warn(message, GlasWarning, stacklevel=3)
    return manifest


def _refuse(failed: Sequence[Outcome]) -> None:
    for one in failed:
        raise GlasError(f'{one.name} cannot be explained: {one.error}; on_error="skip" goes on with the others')


def problems_of(cohort: Cohort) -> list[Outcome]:
    """Scans of the two groups, or of nobody known, that the cohort left out."""
    found = cohort.problems[
        cohort.problems["group"].isin([cohort.case, cohort.control]) | cohort.problems["group"].isna()
    ]
    rows = found.to_dict("records")
    return [
        Outcome(
            row["participant_id"],
            row["session"] or "",
            "failed",
            ": ".join(filter(None, [row["problem"], row["detail"]])),
        )
        for row in rows
    ]


def _lost(one: ToExplain, reason: str) -> Outcome:
    return Outcome(one.participant_id, one.session, "failed", reason)
