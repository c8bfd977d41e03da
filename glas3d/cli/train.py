"""``glas3d train``: the models of a study, one for each fold."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from glas3d.cli import terminal
from glas3d.cli.derived import command_options, given_options, in_group
from glas3d.cli.interruption import if_interrupted
from glas3d.cli.messages import Messages
from glas3d.counts import counted
from glas3d.study.cohort.options import Selection
from glas3d.study.training.options import TrainingOptions

if TYPE_CHECKING:
    from glas3d.study.training.crossvalidation import CrossValidation

CohortCommand: Any = command_options("CohortCommand", Selection)
TrainingCommand: Any = command_options("TrainingCommand", TrainingOptions)

train = App(name="train", usage="Usage: glas3d train BIDS_DIR OUT [OPTIONS]")


@train.default
def train_models(
    bids_dir: Path,
    out: Path,
    /,
    *,
    cohort: Annotated[CohortCommand, Parameter(name="*")] = CohortCommand(),  # noqa: B008 (frozen)
    options: Annotated[TrainingCommand, Parameter(name="*")] = TrainingCommand(),  # noqa: B008 (frozen)
    epochs: Annotated[int | None, in_group("Training")] = None,
    patience: Annotated[int, in_group("Training")] = 15,
    json: Annotated[bool, in_group("Output")] = False,
    config: Annotated[Path | None, in_group("Input")] = None,
    messages: Annotated[Messages, Parameter(name="*")] = Messages(),  # noqa: B008 (frozen)
) -> None:
    """Train a classifier of two groups for each fold: every participant has a model that was not trained on them.

    Parameters
    ----------
    bids_dir
        BIDS data set, raw or derivative, with participants.tsv; the scans are in MNI space.
    out
        Folder of the models. Folds in it that were trained with the same options and scans are kept.
    epochs
        Largest number of epochs. Default: that of the recipe.
    patience
        Stop after this many epochs without improvement. Default: 15.
    json
        Write the metrics to standard output as JSON, for other programs.
    config
        TOML file with any of these options; options of the command line come first.
    """
    if_interrupted(lambda: _kept(out))
    from glas3d.predict import Recipe
    from glas3d.study.cohort.bids import read_cohort
    from glas3d.study.training.crossvalidation import train_folds

    recipe = Recipe(patience=patience) if epochs is None else Recipe(patience=patience, epochs=epochs)
    with terminal.progress("steps") as progress:
        models = train_folds(
            read_cohort(bids_dir, **given_options(cohort)),
            out,
            recipe=recipe,
            progress=progress,
            **given_options(options),
        )
    if json:
        folders = [str(folder) for folder in models.folds]
        written = {"folds": folders, "trained": models.trained, "metrics": models.summary.to_dict("records")}
        terminal.write_json(written | {"pooled": models.pooled.to_dict("records")})
        return
    _write_metrics(models)
    kept = len(models.folds) - len(models.trained)
    terminal.write(
        f"Written to {out}: {counted(len(models.trained), 'fold')} trained" + (f", {kept} kept" if kept else "")
    )


def _write_metrics(models: CrossValidation) -> None:
    """Write each metric twice: its mean over the folds, and that of all participants together, with 95 % intervals."""
    over_folds = {row["metric"]: _with_interval(row["mean"], row) for row in models.summary.to_dict("records")}
    together = {row["metric"]: _with_interval(row["value"], row) for row in models.pooled.to_dict("records")}
    rows = [(name, over_folds.get(name, ""), together[name]) for name in together]
    n = models.predictions["participant_id"].nunique()
    columns = ("metric", f"mean over {counted(len(models.folds), 'fold')}", f"all {counted(n, 'participant')} together")
    title = "Performance on scans that the models never saw, with 95 % intervals"
    terminal.write_rows(columns, rows, title, left=columns)


def _with_interval(value: float, row: Mapping[Hashable, Any]) -> str:
    """Return a metric with its interval, where it has one."""
    if value != value:
        return "n/a"
    return f"{value:.3f}" + (f" ({row['low']:.3f} to {row['high']:.3f})" if row["low"] == row["low"] else "")


def _kept(out: Path) -> str:
    """Return what interrupted training has kept."""
    n = len(list(out.glob("fold-*")))  # nothing is imported: an import may have been interrupted
    folds = counted(n, "finished fold", "finished folds")
    return f"{folds} and the scans that were read are kept in {out}: the same command resumes with the others"
