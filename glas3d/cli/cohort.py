"""``glas3d cohort``: explain the participants of a study, then map and compare its groups."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from glas3d.cli import terminal
from glas3d.cli.derived import command_options, given_options, in_group
from glas3d.cli.explain_options import CohortCommandOptions, explain_keywords, search_of
from glas3d.cli.interruption import if_interrupted
from glas3d.cli.messages import Messages
from glas3d.cli.parameters import class_of
from glas3d.cli.report import look_at, written_report
from glas3d.counts import counted
from glas3d.errors import GlasError, GlasWarning
from glas3d.explain.options import COVARIATES
from glas3d.statistics.choices import covariate_column
from glas3d.study.cohort.options import Selection
from glas3d.study.group.options import GroupOptions
from glas3d.study.running.options import StudyOptions

if TYPE_CHECKING:
    import pandas as pd

    from glas3d.study.cohort.cohort import Cohort
    from glas3d.study.group.level import GroupResult
    from glas3d.study.running.runner import CohortResult

CohortCommand: Any = command_options("CohortCommand", Selection)
StudyCommand: Any = command_options("StudyCommand", StudyOptions)
GroupCommand: Any = command_options("GroupCommand", GroupOptions)

cohort = App(
    name="cohort",
    usage="Usage: glas3d cohort BIDS_DIR OUT participant --models DIR [OPTIONS]\n"
    "       glas3d cohort BIDS_DIR OUT group [OPTIONS]",
    help_epilogue="Both levels take the options of Output, Input, Participants, Scans and Messages. Groups whose "
    "title ends in (group level) are for that level; all others are for the participant level.",
)


@cohort.default
def explain_study(
    bids_dir: Path,
    out: Path,
    level: Literal["participant", "group"],
    /,
    *,
    models: Annotated[Path | None, in_group("Model")] = None,
    model: Annotated[str | None, in_group("Model")] = None,
    target: Annotated[str | None, in_group("Model")] = None,
    model_covariates: Annotated[tuple[str, ...], in_group(COVARIATES, consume_multiple=1)] = (),
    scans: Annotated[CohortCommand, Parameter(name="*")] = CohortCommand(),  # noqa: B008 (frozen)
    options: Annotated[CohortCommandOptions, Parameter(name="*")] = CohortCommandOptions(),  # noqa: B008 (frozen)
    study: Annotated[StudyCommand, Parameter(name="*")] = StudyCommand(),  # noqa: B008 (frozen)
    groups: Annotated[GroupCommand, Parameter(name="*")] = GroupCommand(),  # noqa: B008 (frozen)
    skip_bids_validation: Annotated[bool, in_group("Input")] = False,
    no_report: Annotated[bool, in_group("Output")] = False,
    dry_run: Annotated[bool, in_group("Output")] = False,
    json: Annotated[bool, in_group("Output")] = False,
    config: Annotated[Path | None, in_group("Input")] = None,
    messages: Annotated[Messages, Parameter(name="*")] = Messages(),  # noqa: B008 (frozen)
) -> None:
    """Explain the participants of a study with models that were not trained on them, then map and compare its groups.

    First the participant level, then the group level. A run that was stopped resumes when it is started again.

    A file that belongs to each participant (--atlas, --mask, --brain-mask, --transform, --inverse, --background) is
    given by its path relative to BIDS_DIR, with {participant_id} (sub-01) and {session_id} (ses-M00) where they belong,
    and * for any other text.

    Parameters
    ----------
    bids_dir
        BIDS data set, raw or derivative, with participants.tsv.
    out
        Folder of the results, a BIDS derivative. A run that was stopped is resumed in it.
    level
        participant: explain the scans. group: read the results of the participant level, map and compare the groups.
    models
        Folder that glas3d train wrote, with one model for each fold: each participant is explained with the model that
        was not trained on them, participants of other data sets with all models.
    model
        One model for every participant: the name of a shipped model, a bundle, a .pt2 or .onnx file, or
        package.module:factory, which is code.
    target
        Class to explain in every participant. Default: the case.
    model_covariates
        Columns of participants.tsv that the models take next to the scan; they are ranked next to the regions.
    skip_bids_validation
        Accepted because callers of BIDS Apps give it. It changes nothing: the scans and tables that are read are always
        checked, and the rest of the data set never is.
    no_report
        Do not write OUT/report.html, which shows the groups in a browser. Group level only.
    dry_run
        Report which participants would be explained, and the time and memory that it would take, estimated from the
        first model evaluations, and write nothing. Participant level only.
    json
        Write the result to standard output as JSON, for other programs.
    config
        TOML file with any of these options; options of the command line come first.
    """
    if_interrupted(lambda: _kept(out, level))
    from glas3d.study.cohort.bids import read_cohort

    selected = given_options(scans)
    native = bool(options.transform) or options.register is not None
    if native:
        selected["same_grid"] = False
    given = given_options(groups)
    given.setdefault("on_missing", selected.get("on_error", Selection.on_error))
    GroupOptions(**given)  # those that do not fit together are refused before scans are read, on both levels
    if level == "group":
        columns = [*map(covariate_column, given.get("covariates", ())), *given.get("correlate", ())]
        columns += [given[name] for name in ("site", "slope_over") if name in given]
        given["overwrite"] = study.overwrite
        everyone = read_cohort(bids_dir, covariates=columns, **selected)
        _summarise(everyone, out, options.atlas, given, as_json=json, with_report=not no_report)
        return
    if (models is None) == (model is None):
        raise GlasError(
            "give --models DIR (from glas3d train) or --model M" + (", got both" if models is not None else "")
        )
    keywords = explain_keywords(options) | given_options(study)
    keywords["search"] = search_of(options, atlas_space=study.atlas_space, atlas_table=study.atlas_table)
    if target is not None:
        groups_named = (selected.get("control", Selection.control), selected.get("case", Selection.case))
        keywords["target"] = class_of(target, groups_named)
    if model_covariates:
        keywords["covariates"] = model_covariates
    columns = [*map(covariate_column, groups.covariates), *model_covariates]
    chosen = str(models) if models is not None else str(model)
    if dry_run:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GlasWarning)  # the estimate lists the participants left out
            participants = read_cohort(bids_dir, covariates=columns, **{**selected, "on_error": "skip"})
        stops = selected.get("on_error", Selection.on_error) == "fail"
        _estimate(participants, out, chosen, keywords, stops=stops, has_folds=models is not None, as_json=json)
        return
    participants = read_cohort(bids_dir, covariates=columns, **selected)
    _explain(participants, out, chosen, keywords, has_folds=models is not None, as_json=json)


def _estimate(
    participants: Cohort,
    out: Path,
    model: str,
    keywords: dict[str, Any],
    *,
    stops: bool,
    has_folds: bool,
    as_json: bool,
) -> None:
    """Report what the participant level would do and what it would take."""
    from glas3d.study.running.forecast import estimate_cohort
    from glas3d.study.training.manifest import Manifest

    if has_folds:
        Manifest.load(model)
    estimate = estimate_cohort(participants, out, model, **keywords)
    if as_json:
        content = vars(estimate) | {"scan": estimate.scan and vars(estimate.scan), "seconds": estimate.seconds}
        content |= {"accounting": estimate.accounting.record(), "similar_groups": participants.similar_groups()}
        terminal.write_json(content | {"failed": [vars(outcome) for outcome in estimate.failed]})
        return
    terminal.write(f"Scans to explain: {estimate.accounting}")
    for sentence in participants.similar_groups():
        terminal.write(f"note: {sentence}")
    for outcome in estimate.failed:
        terminal.write_message(f"left out: {outcome.name}: ", outcome.error)
    if estimate.failed and stops:
        terminal.write("They end the work, unless --on-error skip is given.")
    workers = keywords.get("n_workers", 1)
    if estimate.scan is not None:
        terminal.write(terminal.cost_text(estimate.scan))
        on_workers = f" on {workers} workers, if each has a core" if workers > 1 else ""
        total = terminal.duration(estimate.seconds / max(1, workers))
        terminal.write(f"All of them: {estimate.evaluations} model evaluations, {total}{on_workers}")
    terminal.write("Nothing was written.")


def _explain(
    participants: Cohort, out: Path, model: str, keywords: dict[str, Any], *, has_folds: bool, as_json: bool
) -> None:
    """Run the participant level and report what became of every scan."""
    from glas3d.study.running.runner import explain_cohort
    from glas3d.study.training.manifest import Manifest

    if has_folds:
        Manifest.load(model)  # the folder must record which participants trained its models
    with terminal.progress("scans") as progress:
        result: CohortResult = explain_cohort(
            participants,
            out,
            model,
            progress=progress,
            announce=lambda dashboard: terminal.write(f"Dashboard: {dashboard}"),
            on_error=participants.on_error,
            **keywords,
        )
    terminal.show_notes(result.notes)
    failed = result.failed
    if as_json:
        scans = result.outcomes.to_dict("records")
        terminal.write_json({"out": str(out), "scans": scans, "accounting": result.accounting.record()})
    else:
        kept = result.count("kept")
        terminal.write(
            f"Written to {out}: {counted(result.count('explained'), 'scan')} explained"
            + (f", {kept} kept" if kept else "")
        )
        terminal.write(f"Scans explained: {result.accounting}")
        for row in failed.head(20).to_dict("records"):
            name = f"{row['participant_id']} {row['session']}".strip()
            terminal.write_message(f"failed: {name}: ", row["error"])
    if len(failed):
        listed = out / "participants_failed.tsv"
        raise GlasError(f"{len(failed)} of {len(result.outcomes)} scans could not be explained, see {listed}")


def _kept(out: Path, level: str) -> str:
    """Return what an interrupted level has kept."""
    n = len(list(out.glob("sub-*/**/*_record.json")))  # nothing is imported: an import may have been interrupted
    scans = f"the results of {counted(n, 'scan')} are kept in {out}"
    if level == "group":
        return f"the group level was not written, and {scans}"
    return f"{scans}: the same command resumes with the others"


def _summarise(
    participants: Cohort, out: Path, atlas: str | None, given: dict[str, Any], *, as_json: bool, with_report: bool
) -> None:
    """Run the group level and report the highest-scoring regions and the tests."""
    from glas3d.study.group.level import summarise_groups

    with terminal.progress("steps") as progress:
        result = summarise_groups(
            out,
            participants.everyone,
            case=participants.case,
            control=participants.control,
            atlas=atlas,
            progress=progress,
            **given,
        )
    if_interrupted(f"the group level is in {result.folder}")
    shown = written_report(out) if with_report else None
    terminal.show_notes(result.notes)
    if as_json:
        tables = {name: table.to_dict("records") for name, table in result.tables.items()}
        tests = {name: table.to_dict("records") for name, table in result.tests.items()}
        terminal.write_json({"out": str(result.folder), "groups": result.groups, "regions": tables, "tests": tests})
    else:
        _report_groups(result, participants.case, look_at(shown, out))


def _rows(table: pd.DataFrame) -> str:
    """Return what the rows of a table are, for messages: regions, or search points of a grid."""
    return "search points" if table["name"].str.startswith("point-").all() else "regions"


def _report_groups(result: GroupResult, case: str, last: str) -> None:
    from glas3d.statistics.corrected import smallest_p_text

    if case in result.tables:
        rows = _rows(result.tables[case])
        title = f"The ten highest-scoring {rows} of {case}, {counted(result.groups[case], 'participant')}"
        terminal.write_table(result.tables[case], title, result.columns[case])
    for comparison, table in result.tests.items():
        if table["p_fwe"].isna().all():
            terminal.write(f"{comparison}: no fold has enough participants of both groups for a test")
            continue
        rows = _rows(table)
        below = int((table["p_fwe"] <= 0.05).sum())
        effect = "differ" if " against " in comparison else "correlate"
        effect = "change" if comparison.startswith("slope over ") and effect == "correlate" else effect
        terminal.write(
            f"{comparison}: {below} of {len(table)} {rows} {effect} (corrected p <= 0.05); "
            + smallest_p_text(table["p_fwe"].to_numpy(), table["name"].tolist(), rows)
        )
    for comparison, voxels in result.voxels.items():
        peak = f"at {' '.join(f'{value:z.0f}' for value in voxels.peak)} mm"
        terminal.write(
            f"{comparison}: {voxels.n_below} of {voxels.n_voxels} voxels differ (corrected p <= 0.05); "
            + smallest_p_text([voxels.p], [peak])
        )
    groups = ", ".join(f"{name} {n}" for name, n in result.groups.items())
    terminal.write(f"Written to {result.folder}: {groups} participants")
    account = "" if case not in result.accounts else terminal.account_text(result.accounts[case], result.tables[case])
    if account or last:
        terminal.write(f"{account}{last}".strip())
