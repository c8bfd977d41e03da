"""``glas3d audit``: should the map of a scan, or results in a folder, be believed?"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from glas3d.cli import terminal
from glas3d.cli.derived import command_options, given_options, help_text, in_group
from glas3d.cli.explain_options import SearchOptions, explain_keywords
from glas3d.cli.messages import Messages
from glas3d.cli.parameters import LoadingOptions, class_of
from glas3d.cli.report import look_at
from glas3d.errors import GlasError
from glas3d.evaluate.audits.checks import AUDIT, AuditOptions, chosen_checks, listed_checks
from glas3d.explain.options import ExplainOptions, ModeOptions

if TYPE_CHECKING:
    from glas3d.evaluate.audits import Audit
    from glas3d.predict import Predictor

# Audits have settings of their own, and audit a scan alone.
_MODES = {mode.name for mode in fields(ModeOptions)}
AuditCommandOptions: Any = command_options(
    "AuditCommandOptions",
    SearchOptions,
    AuditOptions,
    ExplainOptions,
    without=(*_MODES, "grid", "coordinates"),
)
_CHECKS = help_text(f"Audits to make, by name. Default: all of a scan, of a study, or of results. {listed_checks()}.")

audit = App(
    name="audit",
    usage="Usage: glas3d audit SCAN --model M --target T --out DIR [OPTIONS]\n       glas3d audit OUT [OPTIONS]",
    help_epilogue="An option that takes several values takes everything up to the next option: give SCAN or OUT first. "
    "The exit status is 1 if an audit fails, and 2 for bad use.",
)


@audit.default
def audit_results(
    *scan: Path,
    checks: Annotated[tuple[str, ...], in_group(AUDIT, consume_multiple=1, help=_CHECKS)] = (),
    model: Annotated[str | None, in_group("Model")] = None,
    target: Annotated[str | None, in_group("Model")] = None,
    out: Annotated[Path | None, in_group("Output")] = None,
    options: Annotated[AuditCommandOptions, Parameter(name="*")] = AuditCommandOptions(),  # noqa: B008 (frozen)
    loading: Annotated[LoadingOptions, Parameter(name="*")] = LoadingOptions(),  # noqa: B008 (frozen)
    overwrite: Annotated[bool, in_group("Output")] = False,
    json: Annotated[bool, in_group("Output")] = False,
    messages: Annotated[Messages, Parameter(name="*")] = Messages(),  # noqa: B008 (frozen)
) -> int:
    """Audit a model on one scan, or results in a folder: one verdict and one page of numbers for each check.

    Parameters
    ----------
    scan
        A scan as glas3d explain takes it, with --model and --target, best one that the model takes for the target.
        Or OUT, the folder of a study that glas3d cohort wrote, or of results that glas3d explain or demo wrote.
    checks
        Audits to make.
    model
        Name of a shipped model, a MONAI bundle folder, a .pt2 or .onnx file, or package.module:factory; for a scan.
    target
        Class to explain, by its name or its index from 0; for a scan.
    out
        Folder for the results. Default: for a study and the demo their folder group, for other results
        their own; a scan needs one.
    overwrite
        Replace audits of another input, target or settings that have the same names. Default: refuse.
    json
        Write the result to standard output as JSON, for other programs.
    """
    from glas3d.study.derivatives import is_study

    if not scan:
        raise GlasError(
            "SCAN or OUT is missing; an option that takes several values takes everything that follows it: "
            "give it first, as in glas3d audit OUT --checks accounted"
        )
    wanted, folder = checks or None, out
    if scan[0].is_dir():
        audits, folder = _of_folder(scan, model, target, out, options, wanted, overwrite=overwrite)
    elif not scan[0].exists():
        raise GlasError(f"no such scan, or folder of results: {scan[0]}")
    else:
        missing = [name for name, value in (("--model", model), ("--target", target), ("--out", out)) if value is None]
        if missing:
            raise GlasError(f"to audit a scan, give {', '.join(missing)}")
        chosen_checks(wanted, "scan")
        predict = loading.load(str(model))
        audits = _of_scan(scan, predict, str(target), out, options, wanted, overwrite=overwrite)
    terminal.show_notes(dict.fromkeys(note for each in audits for note in each.provenance.get("Notes", ())))
    if json:
        terminal.write_json({"audits": [each.record() for each in audits]})
    else:
        _report(audits, scan[0].name, folder)
        if scan[0].is_dir() and not checks and not is_study(scan[0]):
            terminal.write("Most audits evaluate the model: glas3d audit SCAN --model M --target T --out DIR")
        if last := look_at(None, scan[0] if scan[0].is_dir() else folder).strip():
            terminal.write(last)
    return int(any(each.verdict == "fail" for each in audits))


def _of_scan(
    scan: tuple[Path, ...],
    predict: Predictor,
    target: str,
    out: Path | None,
    options: Any,
    checks: tuple[str, ...] | None,
    *,
    overwrite: bool,
) -> tuple[Audit, ...]:
    """Return the audits of a scan, which are saved."""
    from glas3d.evaluate.audits import audit_scan
    from glas3d.explain.dataset import describe_dataset
    from glas3d.imaging.atlas import Atlas

    with terminal.progress("audits") as progress:
        audits = audit_scan(
            list(scan) if len(scan) > 1 else scan[0],
            predict,
            class_of(target, predict.classes),
            checks,
            Atlas.load(options.atlas or "AAL", space=options.atlas_space),
            progress=progress,
            folder=out,
            overwrite=overwrite,
            **explain_keywords(options),
        )
    if out is not None:
        describe_dataset(out, scan)
    return audits


def _of_folder(
    paths: tuple[Path, ...],
    model: str | None,
    target: str | None,
    out: Path | None,
    options: Any,
    checks: tuple[str, ...] | None,
    *,
    overwrite: bool,
) -> tuple[tuple[Audit, ...], Path]:
    """Return the audits of a study or of results, and the folder in which they are saved."""
    from glas3d.evaluate.audits import audit_results, audit_study
    from glas3d.output import refuse_links
    from glas3d.study.derivatives import GROUP, is_study

    folder = paths[0]
    if len(paths) > 1:
        raise GlasError(f"give the folder of one study, or one scan, got {len(paths)} paths")
    of_study = is_study(folder)
    own = {declared.name for declared in fields(AuditOptions)}
    given = {**given_options(options), **({"model": model} if model else {}), **({"target": target} if target else {})}
    if others := [name for name in given if name not in own]:
        raise GlasError(
            f"the results in a folder are audited as they are, got --{others[0].replace('_', '-')}: give the scan in "
            "place of the folder to evaluate the model"
        )
    group = folder / GROUP
    results = group if of_study or group.is_dir() else folder  # the demo has the map of a group, and is no study
    saved = out or results
    if saved == group:
        refuse_links(folder, group)
    with terminal.progress("audits") as progress:
        keywords: dict[str, Any] = {"progress": progress, "folder": saved, "overwrite": overwrite, **given}
        audits = audit_study(folder, checks, **keywords) if of_study else audit_results(results, checks, **keywords)
    return audits, saved


def _report(audits: tuple[Audit, ...], name: str, folder: Path | None) -> None:
    """Write the verdict and the statement of each audit, and which files were written."""
    rows = [(each.check, each.verdict, each.statement) for each in audits]
    columns = ("check", "verdict", "statement")
    terminal.write_rows(columns, rows, f"{name}: audits", left=columns, wrapped=("statement",))
    terminal.write(f"Written to {folder}: {', '.join(each.file for each in audits)}")
