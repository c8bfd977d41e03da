"""`audit_scan`, `audit_study` and `audit_results`: any of the audits of each, and their files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

from glas3d.core.score import Target
from glas3d.errors import GlasError
from glas3d.evaluate.audits.audit import Audit, Audited, refuse_other_audit, save_audits
from glas3d.evaluate.audits.audited_result import AuditedResult
from glas3d.evaluate.audits.audited_scan import AuditedScan
from glas3d.evaluate.audits.audited_study import AuditedStudy
from glas3d.evaluate.audits.checks import CHECKS, AuditOptions, Of, chosen_checks, listed_checks
from glas3d.evaluate.subject import ScanSubject, options_of, resolve_subject
from glas3d.explain.options import ExplainOptions
from glas3d.options import parse
from glas3d.output import check_folder

Progress = Callable[[int, int], None]


def audit_scan(
    img: Any,
    predict: Any,
    target: Target = 1,
    checks: Iterable[str] | None = None,
    search: Any = None,
    *,
    progress: Progress = lambda done, total: None,
    folder: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> tuple[Audit, ...]:
    """Audit a model on one scan: should the map of its regions be believed?

    Parameters
    ----------
    img
        A scan as `glas3d.explain_img` takes it, best one that the model takes for the class that is explained.
    predict
        A `Predictor`, or any callable ``(n, c, x, y, z)`` to ``(n, classes)`` probabilities.
    target
        Class index or name.
    checks
        Names of audits. None: all that audit a scan. {checks}
    search
        The regions: the name of an atlas or an `Atlas`. None: AAL.
    progress
        Called with the audits done and in all.
    folder
        Where to save the audits too; None: they are not saved.
    overwrite
        Replace audits of another input, target or settings in ``folder``. Default: refuse, before work is spent.
    **options
        The options of `AuditOptions`, and those of the input (``background``, ``assume_space``, ...; see
        `glas3d.explain_img`).

    Returns
    -------
    One `Audit` for each check, in their order.

    Raises
    ------
    GlasError
        A check that does not exist, or input that does not fit.
    TypeError
        A keyword that is none of the above.
    """
    names = chosen_checks(checks, "scan")
    if options_of(img) is not ExplainOptions:
        raise GlasError(f"audits need a scan (a path or nibabel image), got {type(img).__name__}")
    own, _ = parse(options, AuditOptions, ExplainOptions, caller="audit_scan")
    mine = {declared.name for declared in fields(AuditOptions)}
    of_input = {name: value for name, value in options.items() if name not in mine}
    subject = resolve_subject(img, predict, target, search, of_input, own.batch_size)
    assert isinstance(subject, ScanSubject)
    scan = AuditedScan(subject, own, img, search, of_input)
    return _audited(names, "scan", [scan], progress, folder, overwrite)


def audit_study(
    out: str | os.PathLike[str],
    checks: Iterable[str] | None = None,
    *,
    progress: Progress = lambda done, total: None,
    folder: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> tuple[Audit, ...]:
    """Audit the results of a study.

    Parameters
    ----------
    out
        Folder of the study, which ``glas3d cohort`` or `glas3d.study.explain_cohort` wrote.
    checks
        Names of audits. None: all that audit a study. {checks}
    progress, folder, overwrite
        As for `audit_scan`.
    **options
        The options of `AuditOptions`.

    Returns
    -------
    One `Audit` for each check, in their order.

    Raises
    ------
    GlasError
        A check that does not exist, or a folder without results of a study.
    TypeError
        A keyword that is no option.
    """
    names = chosen_checks(checks, "study")
    (own,) = parse(options, AuditOptions, caller="audit_study")
    study = AuditedStudy.read(Path(out), own)
    return _audited(names, "study", [study], progress, folder, overwrite)


def audit_results(
    out: str | os.PathLike[str],
    checks: Iterable[str] | None = None,
    *,
    progress: Progress = lambda done, total: None,
    folder: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> tuple[Audit, ...]:
    """Audit the results of scans in a folder, without their models.

    Parameters
    ----------
    out
        Folder of the results, which ``glas3d explain`` or `glas3d.explain.ScanExplanation.save` wrote.
    checks
        Names of audits. None: all that audit results. {checks}
    progress, folder, overwrite
        As for `audit_scan`.
    **options
        The options of `AuditOptions`.

    Returns
    -------
    One `Audit` for each result and check.

    Raises
    ------
    GlasError
        A check that does not exist, or a folder without results.
    TypeError
        A keyword that is no option.
    """
    names = chosen_checks(checks, "results")
    (own,) = parse(options, AuditOptions, caller="audit_results")
    return _audited(names, "results", AuditedResult.all_in(Path(out), own), progress, folder, overwrite)


for _function in (audit_scan, audit_study, audit_results):
    _function.__doc__ = (_function.__doc__ or "").replace("{checks}", listed_checks())


def _audited(
    names: Iterable[str],
    of: Of,
    subjects: Sequence[Audited],
    progress: Progress,
    folder: str | os.PathLike[str] | None,
    overwrite: bool,
) -> tuple[Audit, ...]:
    """Return the audits, saved where a folder is given, which is checked before work is spent."""
    every = [(subject.for_check(name), name) for subject, name in product(subjects, names)]
    if folder is not None:
        check_folder(Path(folder))
        for subject, name in () if overwrite else every:
            refuse_other_audit(Path(folder), subject.file(name), subject.provenance_of(name))
    progress(0, len(every))
    audits: list[Audit] = []
    for subject, name in every:
        audits.append(_function_of(name, of)(subject))
        progress(len(audits), len(every))
    if folder is not None:
        save_audits(audits, folder, overwrite=overwrite)
    return tuple(audits)


def _function_of(name: str, of: Of) -> Callable[[Any], Audit]:
    """Return the function of an audit, which is imported when it is needed."""
    module, _, function = getattr(CHECKS[name], of).partition(".")
    audit_of: Callable[[Any], Audit] = getattr(import_module(f"{__package__}.{module}"), function)
    return audit_of
