"""``glas3d cohort``: everyone of a study explained, then its groups."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from glas3d.cli.cohort_options import Who, from_file
from glas3d.cli.explain_options import Asking
from glas3d.cli.group_options import Groups
from glas3d.cli.parameters import FLAG, SEVERAL, class_of
from glas3d.cli.terminal import cost, duration, progress, say
from glas3d.errors import GlasError, GlasWarning

if TYPE_CHECKING:
    from glas3d.study.cohort.cohort import Cohort

_SPOKEN = {
    'on_error="skip"': "--on-error skip",
    "set in_sample": "give --in-sample",
    "assume_space MNI": "--assume-space MNI",
}

cohort = App(name="cohort", config=from_file)


@cohort.default
def explain_everyone(
    bids_dir: Path,
    out: Path,
    level: Literal["participant", "group"],
    *,
    models: Path | None = None,
    model: str | None = None,
    who: Annotated[Who, Parameter(name="*")] = Who(),
    how: Annotated[Asking, Parameter(name="*")] = Asking(),  # noqa: B008 (frozen)
    target: str | None = None,
    model_covariates: Annotated[tuple[str, ...], SEVERAL] = (),
    everyone: Annotated[bool, FLAG] = False,
    in_sample: Annotated[bool, FLAG] = False,
    n_workers: int = 1,
    scheduler: str | None = None,
    threads: int | None = None,
    batch_size: int | None = None,
    engine: str = "auto",
    device: str = "auto",
    dry_run: Annotated[bool, FLAG] = False,
    groups: Annotated[Groups, Parameter(name="*")] = Groups(),
    config: Path | None = None,
) -> None:
    """Explain everyone of a study by models that never saw them, then map and compare its groups.

    Participants first, then groups. A run that was stopped goes on where it was when it is started again.

    A file that is each participant's own (--mask, --brain-mask, --transform, --inverse, --background) is given by its
    path from BIDS_DIR on, with {participant_id} (sub-01) and {session_id} (ses-M00) where they belong, and * for what
    differs otherwise.

    Parameters
    ----------
    bids_dir
        BIDS data set, raw or derivative, with participants.tsv.
    out
        Folder of the results, a BIDS derivative; that of an earlier run is gone on with.
    level
        participant: explain scans. group: read what was written, and compare.
    models
        Folder of folds as glas3d train writes it: each participant is explained by the fold that never saw them,
        participants from elsewhere by all folds.
    model
        One model for everyone: a shipped name, a bundle, a .pt2 or .onnx file, or package.module:factory.
    target
        Class to explain in everyone; default: the case.
    model_covariates
        Columns of participants.tsv that the models take beside the scan; ranked beside the regions.
    everyone
        Explain participants of other groups, too.
    in_sample
        Explain participants by models that were trained on them, and say so in every output.
    n_workers
        Processes side by side; 1: this one. With CUDA one a GPU is best.
    scheduler
        Address of a running Dask scheduler instead, such as tcp://10.0.0.1:8786; its workers have one thread each.
    threads
        Of each process; default: 1, or what an earlier run took. Other numbers round differently.
    batch_size
        Inputs a forward; default: by the scans' size, or what an earlier run took.
    engine
        What runs the networks, as of glas3d explain; auto: the fastest that pays, or what an earlier run took.
    device
        auto: CUDA where there is one, or what an earlier run took.
    dry_run
        Say who would be explained and what it would take, from the first forwards, and write nothing.
    config
        TOML file with any of these options; what is given here comes first.
    """
    if level == "participant":
        if (models is None) == (model is None):
            raise GlasError(f"participants need --models DIR or --model M, got {'none' if model is None else 'both'}")
        settings = how.settings() | ({"covariates": model_covariates} if model_covariates else {})
        settings["assume_space"] = how.assume_space
        plan = {
            "search": how.where(),
            "atlas_space": how.atlas_space,
            "target": None if target is None else class_of(target),
            **settings,
            "everyone": everyone,
            "in_sample": in_sample,
            "threads": threads,
            "batch_size": batch_size,
            "engine": engine,
            "device": device,
        }
        columns = (*groups.covariates, *model_covariates)
        if dry_run:
            read = partial(replace(who, on_error="skip").read, bids_dir, columns, native=how.native)
            _foresee(read, out, models, model, n_workers, ends=who.on_error == "fail", **plan)
            return
        _participants(
            who.read(bids_dir, columns, native=how.native),
            out,
            models,
            model,
            on_error=who.on_error,
            n_workers=n_workers,
            scheduler=scheduler,
            **plan,
        )
        return
    groups.summarise(bids_dir, out, who, how.atlas, native=how.native)


def _foresee(
    read: Callable[[], Cohort],
    out: Path,
    models: Path | None,
    model: str | None,
    n_workers: int,
    *,
    ends: bool,
    **options: Any,
) -> None:
    """What the participant level would do, told to the user."""
    from glas3d.study.running.forecast import estimate_cohort
    from glas3d.study.training.manifest import Manifest

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GlasWarning)  # who is left out is told below
        cohort = read()
    if models is not None:
        Manifest.load(models)
    try:
        found = estimate_cohort(cohort, out, str(models) if models is not None else str(model), **options)
    except GlasError as error:
        raise GlasError(_spoken(str(error))) from None
    groups = ", ".join(f"{name} {n}" for name, n in found.groups.items()) or "none"
    say(f"Scans to explain: {groups}; finished: {found.finished}; left out: {len(found.failed)}")
    for one in found.failed:
        say(_spoken(f"left out: {one.name}: {one.error}"))
    if found.failed and ends:
        say("They end the work, unless it is told --on-error skip.")
    if found.scan is not None:
        say(cost(found.scan))
        side = f" on {n_workers} workers, if each has a core" if n_workers > 1 else ""
        say(f"All of them: {found.evaluations} model evaluations, {duration(found.seconds / max(1, n_workers))}{side}")
    say("Nothing was written.")


def _participants(cohort: Cohort, out: Path, models: Path | None, model: str | None, **options: Any) -> None:
    """The participant level, told to the user."""
    from glas3d.study.running.runner import explain_cohort
    from glas3d.study.training.manifest import Manifest

    if models is not None:
        Manifest.load(models)  # with --models everyone must be known
    try:
        with progress("scans") as tick:
            result = explain_cohort(
                cohort,
                out,
                str(models) if models is not None else str(model),
                progress=tick,
                announce=lambda dashboard: say(f"Dashboard: {dashboard}"),
                **options,
            )
    except GlasError as error:
        raise GlasError(_spoken(str(error))) from None
    kept = result.count("kept")
    say(f"Written to {out}: {result.count('explained')} scans explained" + (f", {kept} kept" if kept else ""))
    failed = result.failed
    for row in failed.head(20).to_dict("records"):
        name = f"{row['participant_id']} {row['session']}".strip()
        say(_spoken(f"failed: {name}: {row['error']}"))
    if len(failed):
        listed = out / "participants_failed.tsv"
        raise GlasError(f"{len(failed)} of {len(result.outcomes)} scans could not be explained, see {listed}")


def _spoken(text: str) -> str:
    """Advice in the words of the command line."""
    for python, option in _SPOKEN.items():
        text = text.replace(python, option)
    return text
