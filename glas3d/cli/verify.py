"""``glas3d verify``: are results what was written, and can they be had again?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from glas3d.cli import terminal
from glas3d.cli.derived import command_options, given_options, in_group
from glas3d.cli.messages import Messages
from glas3d.counts import counted
from glas3d.errors import GlasError
from glas3d.study.cohort.options import Selection

if TYPE_CHECKING:
    from glas3d.verify import Repetition, VerifiedFiles

_LISTED = 20
CohortCommand: Any = command_options("CohortCommand", Selection, without=("on_error",))

verify = App(
    name="verify",
    usage="Usage: glas3d verify OUT [--bids-dir BIDS_DIR --models DIR | --model M] [OPTIONS]\n"
    "       glas3d verify OUT [--scan SCAN ...] [--model M] [OPTIONS]",
)


@verify.default
def verify_results(
    out: Path,
    /,
    *,
    bids_dir: Annotated[Path | None, in_group("Input")] = None,
    scan: Annotated[tuple[Path, ...], in_group("Input", consume_multiple=1)] = (),
    models: Annotated[Path | None, in_group("Model")] = None,
    model: Annotated[str | None, in_group("Model")] = None,
    trust: Annotated[bool, in_group("Model")] = False,
    sample: Annotated[int, in_group("Participants")] = 1,
    seed: Annotated[int, in_group("Participants")] = 0,
    scans: Annotated[CohortCommand, Parameter(name="*")] = CohortCommand(),  # noqa: B008 (frozen)
    device: Annotated[str, in_group("Speed")] = "auto",
    json: Annotated[bool, in_group("Output")] = False,
    messages: Annotated[Messages, Parameter(name="*")] = Messages(),  # noqa: B008 (frozen)
) -> None:
    """Hash the maps, tables and sidecars of results again, and explain scans again.

    Files that are missing, changed or extra are named, participants of a study and its group level among them.
    Pictures, viewers and the report may be deleted, but not be changed. The exit status is 0 only if all
    is well: all files with a hash are as they were written, and scans that are explained again have the same bits by
    the same software, or values within 1e-4 of their range by other versions or engines.

    Parameters
    ----------
    out
        Folder of results: of a study, or of glas3d explain or compare.
    bids_dir
        Data set of the study, to explain participants again. Default: compare the files alone.
    scan
        The scans that were explained by glas3d explain, to explain them again. Default with --model: where the folder
        records that they were.
    models
        Models of the study, as glas3d train wrote them.
    model
        The model of a study that had one model for every participant, or of glas3d explain. Default with --scan: the
        shipped model that is recorded.
    trust
        Allow the configuration of a bundle to run any code of its author: calls of functions, expressions and imports.
    sample
        Number of scans to explain again, drawn at random. Default: 1.
    seed
        Seed of the draw. Default: 0.
    device
        Where the models run: auto, cpu or cuda.
    json
        Write the result to standard output as JSON, for other programs.
    """
    from glas3d.study.cohort.bids import read_cohort
    from glas3d.study.derivatives import is_study
    from glas3d.verify import explain_again, explain_scans_again, verify_files

    chosen, of_study = models if models is not None else model, is_study(out)
    if of_study and scan:
        raise GlasError("--scan is for results of glas3d explain: for a study give --bids-dir, and --models or --model")
    if of_study and ((bids_dir is None) != (chosen is None) or (models is not None and model is not None)):
        raise GlasError("to explain participants again give --bids-dir, and --models or --model; got one alone")
    verified = verify_files(out)
    if not of_study and (bids_dir is not None or models is not None):
        raise GlasError(f"--bids-dir and --models are for a study, {out} is none: for results of explain give --scan")
    repeated: list[Repetition] = []
    if not of_study and (scan or model is not None):
        with terminal.progress("scans") as progress:
            repeated = explain_scans_again(out, scan, model, trust=trust, device=device, progress=progress)
    if bids_dir is not None and chosen is not None:
        cohort = read_cohort(bids_dir, on_error="skip", **given_options(scans))
        with terminal.progress("scans") as progress:
            repeated = explain_again(
                out, cohort, chosen, sample=sample, seed=seed, trust=trust, device=device, progress=progress
            )
    if json:
        content = vars(verified) | {"folder": str(verified.folder), "well": verified.well}
        terminal.write_json(content | {"again": [vars(each) | {"well": each.well} for each in repeated]})
    else:
        _report(verified, repeated, _advice(out, of_study=of_study))
    problems = [name for name in ("missing", "changed", "extra") if getattr(verified, name)]
    if others := [each.name for each in repeated if not each.well and not each.error]:
        problems.append(f"others when explained again: {', '.join(others)}")
    failed = ", ".join(each.name for each in repeated if each.error)
    if problems:
        rest = f"; not explained again: {failed}" if failed else ""
        raise GlasError(f"the results in {out} are not as they were written: {', '.join(problems)}{rest}")
    if failed:
        raise GlasError(f"not all results in {out} could be explained again: {failed}")


def _advice(out: Path, *, of_study: bool) -> str:
    """Return which options explain the scans of a folder again; empty where there are none to explain."""
    from glas3d.verify.scan_again import explained_scans, is_shipped

    if of_study:
        return "give --bids-dir, and --models or --model"
    shipped = [is_shipped(content["Model"]) for _, content in explained_scans(out)]
    if not shipped:
        return ""
    return "give --scan" if all(shipped) else "give --scan and --model"


def _report(verified: VerifiedFiles, repeated: list[Repetition], advice: str) -> None:
    files, results = counted(verified.n_files, "file"), counted(verified.n_results, "result")
    terminal.write(f"{files} of {results} in {verified.folder}")
    for what in ("missing", "changed", "extra"):
        names = getattr(verified, what)
        for name in names[:_LISTED]:
            terminal.write(f"  {what}: {name}")
        if len(names) > _LISTED:
            terminal.write(f"  {what}: {len(names) - _LISTED} more")
    if verified.well:
        terminal.write("Every file with a hash is there, as it was written.")
    if not verified.listed:
        terminal.write("The study has no list of its results, so that a participant who was removed is not noticed.")
    if verified.unhashed:
        terminal.write(f"Not compared, as they have no hash: {', '.join(verified.unhashed)}")
    for each in repeated:
        terminal.write(f"Explained again: {each.name}: {_outcome(each)}")
    if advice and not repeated:
        terminal.write(f"Nothing was explained again: {advice}.")


def _outcome(repetition: Repetition) -> str:
    if repetition.error:
        return f"it could not be: {repetition.error}"
    if repetition.same_bits:
        return "the same, bit for bit"
    software = "the same" if repetition.same_software else "other"
    return (
        f"the largest difference is {repetition.largest:.2g} of a range, in {repetition.file}, by {software} versions, "
        "models and inputs"
    )
