"""``glas3d verify``: are results what was written, and can they be had again?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from glas3d.cli import terminal
from glas3d.cli.derived import command_options, given_options, in_group
from glas3d.cli.messages import Messages
from glas3d.errors import GlasError
from glas3d.study.cohort.options import Selection

if TYPE_CHECKING:
    from glas3d.verify import Repetition, VerifiedFiles

_LISTED = 20
CohortCommand: Any = command_options("CohortCommand", Selection, without=("on_error",))

verify = App(name="verify", usage="Usage: glas3d verify OUT [--bids-dir BIDS_DIR --models DIR | --model M] [OPTIONS]")


@verify.default
def verify_results(
    out: Path,
    /,
    *,
    bids_dir: Annotated[Path | None, in_group("Input")] = None,
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
    """Hash every file of a folder of results again, and explain participants of a study again.

    Files that are missing, changed or extra are named. The exit status is 0 only if all is well: all files are as they
    were written, and participants that are explained again have the same bits by the same software, or values within
    1e-4 of their range by other versions or engines.

    Parameters
    ----------
    out
        Folder of results: of a study, or of glas3d explain or compare.
    bids_dir
        Data set of the study, to explain participants again. Default: compare the files alone.
    models
        Models of the study, as glas3d train wrote them.
    model
        The model of a study that had one model for every participant.
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
    from glas3d.verify import explain_again, verify_files

    chosen = models if models is not None else model
    if (bids_dir is None) != (chosen is None) or (models is not None and model is not None):
        raise GlasError("to explain participants again give --bids-dir, and --models or --model; got one alone")
    verified = verify_files(out)
    repeated: list[Repetition] = []
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
        _report(verified, repeated)
    problems = [name for name in ("missing", "changed", "extra") if getattr(verified, name)]
    if failed := [each.name for each in repeated if not each.well]:
        problems.append(f"not had again: {', '.join(failed)}")
    if problems:
        raise GlasError(f"the results in {out} are not as they were written: {', '.join(problems)}")


def _report(verified: VerifiedFiles, repeated: list[Repetition]) -> None:
    terminal.write(f"{verified.n_files} files of {verified.n_results} results in {verified.folder}")
    for what in ("missing", "changed", "extra"):
        names = getattr(verified, what)
        for name in names[:_LISTED]:
            terminal.write(f"  {what}: {name}")
        if len(names) > _LISTED:
            terminal.write(f"  {what}: {len(names) - _LISTED} more")
    if verified.well:
        terminal.write("All files are there, as they were written, and no others.")
    for each in repeated:
        terminal.write(f"Explained again: {each.name}: {_outcome(each)}")
    if not repeated:
        terminal.write("Nothing was explained again: give --bids-dir, and --models or --model.")


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
