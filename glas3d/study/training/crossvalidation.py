"""Train a classifier by folds: every participant is answered for by a model that never saw them."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from glas3d.checks import whole_number
from glas3d.errors import GlasError
from glas3d.imaging.space import mni_grid
from glas3d.output import generated_by, remove_leftovers, remove_unfinished, write_json, write_together
from glas3d.predict.training import Change, Recipe
from glas3d.study.cohort.cohort import Cohort
from glas3d.study.training.folds import Split, split_participants
from glas3d.study.training.manifest import FoldManifest, Seen, fold_folders
from glas3d.study.training.one_fold import (
    LEARNING,
    PAPER,
    PREDICTIONS,
    FoldTask,
    blank_sessions,
    named,
    resolve,
    train_fold,
)
from glas3d.study.training.performance import measure, summarise
from glas3d.study.training.stored_scans import StoredScans, store_scans
from glas3d.study.workers import require_dask, workers
from glas3d.tables import read_table, write_table

Factory = Callable[..., nn.Module]


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What `train_folds` found.

    Attributes
    ----------
    place
        The folder written.
    folds
        Bundle folders, in order.
    trained
        Numbers of the folds that were not there already.
    metrics
        A row a fold: ``fold n_train n_validation n_test`` (scans) and the metrics on its test scans.
    summary
        A row a metric: ``metric mean low high n``.
    predictions
        A row a scan: ``participant_id session group fold p predicted``, ``p`` of being a case by the model that
        never saw them.
    """

    place: Path
    folds: tuple[Path, ...]
    trained: tuple[int, ...]
    metrics: pd.DataFrame
    summary: pd.DataFrame
    predictions: pd.DataFrame


def train_folds(
    cohort: Cohort,
    out: Path,
    *,
    folds: int = 5,
    seed: int = 0,
    resolution: float | None = 4.0,
    recipe: Recipe | None = None,
    validation: float = 0.15,
    pretrain: bool = True,
    augment: bool = True,
    site: str = "site",
    factory: str | Factory | None = None,
    transform: str | Change | None = None,
    preset: Mapping[str, Any] | None = None,
    assume_space: str | None = None,
    cache: Path | None = None,
    threads: int = 1,
    n_workers: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> CrossValidation:
    """Train one model a fold and write each as a bundle, ``out/fold-1`` and so on.

    Standardisation, control mean, pre-training and augmentation come from a fold's training scans alone; its
    validation scans say which epoch is best; its test scans are answered once, at the end. A fold that is there
    already, with the same settings and inputs, is not trained again.

    Parameters
    ----------
    folds, validation, site
        See `glas3d.study.training.folds.split_participants`.
    seed
        Of everything random; each fold draws its own from it.
    resolution
        Voxel size in mm of the MNI grid the models work on; None: the scans' own grid.
    recipe
        How each network is trained; its seed is not used. None: `Recipe` with a patience of 15 epochs.
    pretrain
        Whether an autoencoder comes first, as in the paper.
    augment
        Whether training scans are lit and shaded towards the control mean.
    factory
        Makes another network than the paper's: a function or its ``package.module:name``, called with ``shape``
        (voxels an axis), ``channels`` and ``classes``; it must be importable, for the bundle names it.
    transform
        Applied to each scaled training scan ``(1, *shape)``: a callable, such as one of MONAI's transforms, or
        its ``package.module:name``. When resuming it is known by its name alone.
    preset
        Settings of `GLAS` to go with the models, such as ``{"sigma_light": 20, "sigma_shadow": 30, "unit": "mm"}``.
    assume_space
        ``"MNI"``: take the scans to be in MNI space without looking.
    cache
        Folder for the scans on the models' grid; None: ``out/.cache``.
    threads
        Of torch, a fold. One is best where cores are shared: with two, these small convolutions wait for each
        other, up to eightfold. Results are the same, bit for bit, for the same number.
    n_workers
        Processes that train folds at the same time, by Dask (``pip install "glas3d[study]"``); 0 or 1: this process.
        A script that sets more needs an ``if __name__ == "__main__":`` block.
    device
        ``"auto"``: CUDA where there is one, or the CPU.
    overwrite
        Whether folds of other settings or inputs are replaced.
    tick
        Called with scans read and in all, then with epochs done and in all.

    Raises
    ------
    GlasError
        Too few participants, settings that cannot be, folds there of other settings or inputs, and what
        `store_scans` and `train` refuse.
    """
    out = Path(out)
    threads = whole_number("threads", threads, least=1)
    n_workers = whole_number("n_workers", n_workers, least=0)
    recipe = recipe or Recipe(patience=15)
    recipe = replace(
        recipe,
        pretraining=recipe.pretraining if pretrain else 0,
        augmented=recipe.augmented if augment else 0.0,
    )
    network = named(factory, "factory") if factory is not None else PAPER
    change: Change | None = resolve(transform, "transform") if isinstance(transform, str) else transform
    if n_workers > 1:
        require_dask()
        if change is not None:
            _picklable(change)
    grid = None if resolution is None else mni_grid(resolution)
    split_participants(cohort.table, folds=folds, seed=seed, validation=validation, site=site)  # refuse early
    cohort, scans = store_scans(cohort, cache or out / ".cache", grid, assume_space=assume_space, tick=tick)
    table = cohort.table
    settings = {
        "seed": seed,
        "case": cohort.case,
        "control": cohort.control,
        "grid": {"shape": list(scans.grid.shape), "affine": np.asarray(scans.grid.affine).tolist()},
        "recipe": {key: value for key, value in asdict(recipe).items() if key != "seed"},
        "validation": validation,
        "network": network,
        "transform": _name(transform),
        "preset": dict(preset or {}),
        "threads": threads,
    }
    settings = json.loads(json.dumps(settings))  # as it will be read again
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    tasks = []
    for split in split_participants(table, folds=folds, seed=seed, validation=validation, site=site):
        manifest = _manifest(split, folds, seed, settings, table)
        tasks.append(
            FoldTask(
                place=out / f"fold-{split.fold}",
                manifest=manifest,
                table=table,
                scans=scans,
                recipe=replace(recipe, seed=manifest.seed),
                groups=(cohort.control, cohort.case),
                network=network,
                change=change,
                preset=preset or {},
                threads=threads,
                device=chosen,
                overwrite=overwrite,
            )
        )
    left = _unfinished(out, tasks, overwrite)
    _run(left, n_workers, tick)
    return _collected(out, tasks, [task.manifest.fold for task in left], scans)


def _manifest(split: Split, folds: int, seed: int, settings: dict[str, Any], table: pd.DataFrame) -> FoldManifest:
    rows = table[["participant_id", "session", "group", "sha256"]].itertuples(index=False, name=None)
    scans = [Seen(*map(str, row)) for row in rows]
    train, validation, test = (
        tuple(one for one in scans if one.participant_id in who)
        for who in map(set, (split.train, split.validation, split.test))
    )
    drawn = int(np.random.SeedSequence([seed, split.fold]).generate_state(1)[0])
    settings = settings | {"stratified_by": list(split.stratified_by)}
    return FoldManifest(split.fold, folds, drawn, settings, train, validation, test)


def _name(transform: str | Change | None) -> str | None:
    if transform is None or isinstance(transform, str):
        return transform
    thing = transform if hasattr(transform, "__qualname__") else type(transform)
    return f"{thing.__module__}:{thing.__qualname__}"


def _picklable(change: Change) -> None:
    try:
        pickle.dumps(change)
    except Exception as error:  # what pickle raises depends on the object
        raise GlasError(f"a transform must go to other processes, {_name(change)} cannot: {error}") from None


def _unfinished(out: Path, tasks: list[FoldTask], overwrite: bool) -> list[FoldTask]:
    """Folds to train; those of other settings or inputs are refused, or removed."""
    expected = {task.place: task for task in tasks}
    done: set[Path] = set()
    stale: list[Path] = []
    for place in fold_folders(out) if out.is_dir() else []:
        task = expected.get(place)
        try:
            found = FoldManifest.read(place)
            problem = found.difference(task.manifest) if task else f"one of {found.folds} folds"
        except GlasError as error:
            raise GlasError(f"{place} is in the way: {error}") from None
        if problem is None and not all((place / name).is_file() for name in (PREDICTIONS, LEARNING)):
            problem = "not whole"
        if problem is None:
            done.add(place)
        elif not overwrite:
            raise GlasError(
                f"{place} was trained otherwise ({problem}): give another folder, or the same settings and scans, "
                "or overwrite"
            )
        elif task is None:
            stale.append(place)
    for place in stale:
        shutil.rmtree(place)
    for task in tasks:
        remove_leftovers(task.place)
    remove_unfinished(out)
    return [task for task in tasks if task.place not in done]


def _run(tasks: list[FoldTask], n_workers: int, tick: Callable[[int, int], None]) -> None:
    """Train the folds, in this process or in as many workers as there are folds for."""
    if not tasks:
        return
    epochs = [task.recipe.pretraining + task.recipe.epochs for task in tasks]
    total = sum(epochs)
    if n_workers <= 1:
        for i, task in enumerate(tasks):
            before = sum(epochs[:i])

            def report(stage: str, epoch: int, loss: float, task: FoldTask = task, before: int = before) -> None:
                if stage != "validation":
                    tick(before + epoch + (task.recipe.pretraining if stage == "classifier" else 0), total)

            train_fold(task, report)
            tick(sum(epochs[: i + 1]), total)
        return
    # a fold may take hours: one whose worker died is not trained again before the user knows of it
    with workers(min(n_workers, len(tasks)), threads=tasks[0].threads, allowed_deaths=0) as pool:
        for done, problem in enumerate(pool.run(_train_in_worker, None, tasks, _worker_lost), 1):
            if problem is not None:
                raise problem
            tick(done * total // len(tasks), total)


def _train_in_worker(_: None, task: FoldTask) -> Exception | None:
    """Train a fold and return what went wrong, which Dask would otherwise try again."""
    try:
        train_fold(task)
    except Exception as problem:
        return problem
    return None


def _worker_lost(task: FoldTask, reason: str) -> GlasError:
    return GlasError(f"fold {task.manifest.fold} was not trained, {reason}; started again, finished folds are kept")


def _collected(out: Path, tasks: list[FoldTask], trained: list[int], scans: StoredScans) -> CrossValidation:
    """Every fold's answers, measured and written beside them."""
    predictions, metrics = [], []
    for task in tasks:
        found = read_table(task.place / PREDICTIONS, text=("session",), missing=("n/a",))
        found["session"] = found["session"].fillna("")
        predictions.append(found)
        parts = {f"n_{part}": len(getattr(task.manifest, part)) for part in ("train", "validation", "test")}
        answered = measure((found["group"] == task.groups[1]).to_numpy(), found["p"].to_numpy(dtype=float))
        metrics.append({"fold": task.manifest.fold, **parts, **answered})
    everyone = pd.concat(predictions).sort_values(["participant_id", "session"]).reset_index(drop=True)
    measured = pd.DataFrame(metrics)
    summary = summarise(measured)
    description = {
        "Name": f"{tasks[0].groups[1]} against {tasks[0].groups[0]}: models by folds",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": generated_by(),
    }
    write_together(
        out,
        {
            "metrics.tsv": write_table(measured),
            "summary.tsv": write_table(summary),
            "predictions.tsv": write_table(blank_sessions(everyone)),
            "dataset_description.json": write_json(description),
            ".bidsignore": lambda path: path.write_text("fold-*\n*.tsv\n.cache\n", encoding="utf-8"),
        },
    )
    places = tuple(task.place for task in tasks)
    return CrossValidation(out, places, tuple(trained), measured, summary, everyone)
