"""Train a classifier by folds, so that every participant is tested and explained by a model that never saw them."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from glas3d.display import fields_repr
from glas3d.errors import GlasError, GlasWarning
from glas3d.imaging.space import mni_grid
from glas3d.options import accepts, parse
from glas3d.output import (
    DESCRIPTION,
    dataset_description,
    described_table,
    refuse_links,
    remove_leftovers,
    remove_unfinished,
    write_json,
    write_together,
)
from glas3d.predict import Recipe
from glas3d.predict.interface import Transform
from glas3d.study.cohort.cohort import Cohort
from glas3d.study.cohort.layout import is_simulated
from glas3d.study.training.folds import Split, derived_seed, split_participants
from glas3d.study.training.importable import import_callable, importable_name, name_of
from glas3d.study.training.manifest import PARTS, FoldManifest, FoldScan, fold_folders
from glas3d.study.training.one_fold import (
    LEARNING,
    PAPER_NETWORK,
    PREDICTIONS,
    FoldTask,
    blank_sessions,
    train_fold,
)
from glas3d.study.training.options import TrainingOptions
from glas3d.study.training.performance import (
    COLUMNS,
    OF_A_CASE,
    POOLED,
    chance_warning,
    measure,
    pooled_performance,
    summarise,
)
from glas3d.study.training.stored_scans import StoredScans, store_scans
from glas3d.study.workers import require_dask, workers
from glas3d.tables import read_table

Progress = Callable[[int, int], None]

_ON_SIMULATED = "the model was trained on simulated scans: its output for a real person's scan means nothing"

# What validators of BIDS skip: they know no models and no tables of metrics.
_IGNORED = "fold-*\nmetrics.*\nsummary.*\npooled.*\npredictions.*\n.cache\n"


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The result of `train_folds`.

    Attributes
    ----------
    folder
        The folder of the models.
    folds
        The folders of the bundles, in order.
    trained
        Numbers of the folds that were trained now; the others existed already.
    metrics
        One row for each fold: ``fold n_train n_validation n_test`` (numbers of scans) and the metrics on its test
        scans.
    summary
        One row for each metric: ``metric mean low high n``, the mean over the folds.
    predictions
        One row for each scan: ``participant_id session group fold p predicted``. ``p`` is the probability of being a
        case by the model that never saw the participant.
    pooled
        One row for each metric of all participants together: ``metric value low high p n``, with 95 % intervals.
    """

    folder: Path
    folds: tuple[Path, ...]
    trained: tuple[int, ...]
    metrics: pd.DataFrame
    summary: pd.DataFrame
    predictions: pd.DataFrame
    pooled: pd.DataFrame

    __repr__ = fields_repr


@accepts(TrainingOptions)
def train_folds(
    cohort: Cohort,
    out: Path,
    *,
    recipe: Recipe | None = None,
    progress: Progress = lambda done, total: None,
    **options: Any,
) -> CrossValidation:
    """Train one model for each fold, and write each as a bundle: ``out/fold-1``, ``out/fold-2`` and so on.

    Standardisation, control mean, pre-training and augmentation use the training scans of a fold only. Its validation
    scans decide which epoch is best; its test scans are evaluated once, at the end. A fold that exists already, from
    the same settings and scans, is not trained again.

    Parameters
    ----------
    cohort
        The participants, see `glas3d.study.read_cohort`.
    out
        Folder of the models.
    recipe
        How each network is trained; its seed is not used. Default: `glas3d.predict.Recipe` with a patience of
        15 epochs.
    progress
        Called with the number of scans read and of all scans, then with the number of epochs done and of all epochs.
    **options
        The fields of `TrainingOptions`.

    Returns
    -------
    The folders of the models, their predictions and their metrics.

    Raises
    ------
    GlasError
        Options outside their range, too few participants, folds of other settings or scans in ``out``, or what
        `store_scans` and `glas3d.predict.train` refuse.
    TypeError
        A keyword that is not an option.
    """
    (given,) = parse(options, TrainingOptions, caller="train_folds")
    out = Path(out)
    recipe = recipe or Recipe(patience=15)
    recipe = replace(
        recipe,
        pretraining=recipe.pretraining if given.pretrain else 0,
        augmented=recipe.augmented if given.augment else 0.0,
    )
    network = PAPER_NETWORK if given.factory is None else importable_name(given.factory, "factory")
    transform = _transform(given)
    grid = None if given.resolution is None else mni_grid(given.resolution)
    split_participants(cohort.table, given)  # refuse folds that are impossible before scans are read
    cache = out / ".cache" if given.cache is None else Path(given.cache)
    cohort, scans = store_scans(
        cohort, cache, grid, assume_space=given.assume_space, intensities=given.intensities, progress=progress
    )
    settings = _recorded_settings(given, recipe, network, cohort, scans)
    tasks = []
    for split in split_participants(cohort.table, given):
        manifest = _manifest(split, given, settings, cohort.table)
        tasks.append(
            FoldTask(
                folder=out / f"fold-{split.fold}",
                manifest=manifest,
                table=cohort.table,
                scans=scans,
                recipe=replace(recipe, seed=manifest.seed),
                groups=(cohort.control, cohort.case),
                network=network,
                transform=transform,
                preset=given.preset or {},
                threads=given.threads,
                device=_device(given.device),
                overwrite=given.overwrite,
                caution=_ON_SIMULATED if is_simulated(cohort.root) else "",
            )
        )
    unfinished = _unfinished(out, tasks, given.overwrite)
    _train(unfinished, given.n_workers, progress)
    return _collect(out, tasks, [task.manifest.fold for task in unfinished])


def _transform(options: TrainingOptions) -> Transform | None:
    """Return what is applied to training scans, and refuse what cannot be sent to worker processes."""
    transform = options.intensity_transform
    change: Transform | None = (
        import_callable(transform, "intensity_transform") if isinstance(transform, str) else transform
    )
    if options.n_workers > 1:
        require_dask()
        try:
            pickle.dumps(change)
        except Exception as error:  # what pickle raises depends on the object
            raise GlasError(
                f"intensity_transform must be sent to other processes, {name_of(change)} cannot: {error}"
            ) from None
    return change


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _recorded_settings(
    options: TrainingOptions, recipe: Recipe, network: str, cohort: Cohort, scans: StoredScans
) -> dict[str, Any]:
    """Return everything that decides the models of all folds, as JSON will have it."""
    settings = options.recorded() | {
        "case": cohort.case,
        "control": cohort.control,
        "grid": {"shape": list(scans.grid.shape), "affine": np.asarray(scans.grid.affine).tolist()},
        "recipe": {key: value for key, value in asdict(recipe).items() if key != "seed"},
        "network": network,
        "intensities": scans.intensities,
    }
    as_json: dict[str, Any] = json.loads(json.dumps(settings))
    return as_json


def _manifest(split: Split, options: TrainingOptions, settings: dict[str, Any], table: pd.DataFrame) -> FoldManifest:
    rows = table[["participant_id", "session", "group", "sha256", "voxels_sha256"]].itertuples(index=False, name=None)
    scans = [FoldScan(*map(str, row)) for row in rows]
    parts = {part: tuple(scan for scan in scans if scan.participant_id in set(getattr(split, part))) for part in PARTS}
    return FoldManifest(
        fold=split.fold,
        folds=options.folds,
        seed=derived_seed(options.seed, split.fold),
        settings=settings | {"stratified_by": list(split.stratified_by)},
        **parts,
    )


def _unfinished(out: Path, tasks: Sequence[FoldTask], overwrite: bool) -> list[FoldTask]:
    """Return the folds to train; links are refused, existing folds of other settings or scans refused or removed."""
    for folder in {*(task.folder for task in tasks), *(fold_folders(out) if out.is_dir() else ())}:
        refuse_links(out, folder)
    task_of = {task.folder: task for task in tasks}
    finished: set[Path] = set()
    surplus: list[Path] = []
    for folder in fold_folders(out) if out.is_dir() else []:
        task = task_of.get(folder)
        difference = _difference(folder, task)
        if difference is None:
            finished.add(folder)
        elif not overwrite:
            raise GlasError(
                f"{folder} was trained otherwise ({difference}): give another folder, or the same settings and scans, "
                "or overwrite"
            )
        elif task is None:
            surplus.append(folder)
    for folder in surplus:
        shutil.rmtree(folder)
    for task in tasks:
        remove_leftovers(task.folder)
    remove_unfinished(out)
    return [task for task in tasks if task.folder not in finished]


def _difference(folder: Path, task: FoldTask | None) -> str | None:
    """Return in words how an existing fold differs from the one that is wanted; None if it is that one, and whole."""
    try:
        manifest = FoldManifest.read(folder)
        difference = f"one of {manifest.folds} folds" if task is None else manifest.difference(task.manifest)
    except GlasError as error:
        raise GlasError(f"{folder} is in the way: {error}") from None
    if difference is None and not all((folder / name).is_file() for name in (PREDICTIONS, LEARNING)):
        return "not whole"
    return difference


def _train(tasks: Sequence[FoldTask], n_workers: int, progress: Progress) -> None:
    """Train the folds, in this process or in at most as many workers as there are folds."""
    if not tasks:
        return
    if n_workers == 1:
        _train_here(tasks, progress)
        return
    total = sum(_epochs(task) for task in tasks)
    progress(0, total)
    # a fold may take hours: it is not repeated where its worker died before the user knows of it
    with workers(min(n_workers, len(tasks)), threads=tasks[0].threads, allowed_deaths=0) as pool:
        for done, problem in enumerate(pool.run(_train_in_worker, None, tasks, _worker_lost), 1):
            if problem is not None:
                raise problem
            progress(done * total // len(tasks), total)


def _train_here(tasks: Sequence[FoldTask], progress: Progress) -> None:
    """Train the folds one after another, and report every epoch."""
    total = sum(_epochs(task) for task in tasks)
    done = 0
    for task in tasks:

        def report(stage: str, epoch: int, loss: float, task: FoldTask = task, done: int = done) -> None:
            if stage != "validation":
                progress(done + epoch + (task.recipe.pretraining if stage == "classifier" else 0), total)

        train_fold(task, report)
        done += _epochs(task)
        progress(done, total)


def _epochs(task: FoldTask) -> int:
    return task.recipe.pretraining + task.recipe.epochs


def _train_in_worker(_: None, task: FoldTask) -> Exception | None:
    """Train a fold and return the error if it fails: Dask would repeat a call that raises one."""
    try:
        train_fold(task)
    except Exception as problem:
        return problem
    return None


def _worker_lost(task: FoldTask, reason: str) -> GlasError:
    return GlasError(f"fold {task.manifest.fold} was not trained, {reason}; started again, finished folds are kept")


def _collect(out: Path, tasks: Sequence[FoldTask], trained: Sequence[int]) -> CrossValidation:
    """Read the predictions of every fold, measure them, and write the tables of the study."""
    control, case = tasks[0].groups
    tested = [_read_predictions(task.folder) for task in tasks]
    metrics = pd.DataFrame(
        [
            {"fold": task.manifest.fold}
            | {f"n_{part}": len(getattr(task.manifest, part)) for part in PARTS}
            | measure((table["group"] == case).to_numpy(), table["p"].to_numpy(dtype=float))
            for task, table in zip(tasks, tested, strict=True)
        ]
    )
    predictions = pd.concat(tested).sort_values(["participant_id", "session"]).reset_index(drop=True)
    summary = summarise(metrics)
    by_participant = predictions.groupby(["participant_id", "group"], sort=False)["p"].mean().reset_index()
    pooled = pooled_performance((by_participant["group"] == case).to_numpy(), by_participant["p"].to_numpy(dtype=float))
    if message := chance_warning(pooled):
        warnings.warn(message, GlasWarning, stacklevel=3)
    write_together(
        out,
        {
            **described_table("metrics", metrics, COLUMNS),
            **described_table("summary", summary, COLUMNS),
            **described_table("pooled", pooled, COLUMNS | POOLED),
            **described_table("predictions", blank_sessions(predictions), COLUMNS | OF_A_CASE),
            DESCRIPTION: write_json(dataset_description(f"{case} against {control}: models by folds")),
            ".bidsignore": lambda path: path.write_text(_IGNORED, encoding="utf-8"),
        },
    )
    folders = tuple(task.folder for task in tasks)
    return CrossValidation(out, folders, tuple(trained), metrics, summary, predictions, pooled)


def _read_predictions(folder: Path) -> pd.DataFrame:
    names = ("participant_id", "session", "group", "predicted")
    table = read_table(folder / PREDICTIONS, text=names, missing=("n/a",))
    return table.assign(session=table["session"].fillna(""))
