"""``glas3d train``: models of a study by folds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from glas3d.cli.cohort_options import Who, from_file
from glas3d.cli.parameters import FLAG
from glas3d.cli.terminal import progress, say

train = App(name="train", config=from_file)


@train.default
def train_models(
    bids_dir: Path,
    out: Path,
    *,
    who: Annotated[Who, Parameter(name="*")] = Who(),
    folds: int = 5,
    seed: int = 0,
    resolution: float = 4.0,
    validation: float = 0.15,
    epochs: int | None = None,
    patience: int = 15,
    no_pretrain: Annotated[bool, FLAG] = False,
    no_augment: Annotated[bool, FLAG] = False,
    factory: str | None = None,
    site: str = "site",
    assume_space: Literal["MNI"] | None = None,
    threads: int = 1,
    n_workers: int = 0,
    device: str = "auto",
    overwrite: Annotated[bool, FLAG] = False,
    config: Path | None = None,
) -> None:
    """Train a classifier of two groups by folds, so that everyone can be explained by a model that never saw them.

    Parameters
    ----------
    bids_dir
        BIDS data set, raw or derivative, with participants.tsv; scans in MNI space.
    out
        Folder of the models; folds that are there already, trained alike, are kept.
    folds
        How many; each participant is tested once.
    seed
        Of everything random.
    resolution
        Voxel size in mm of the models' grid.
    validation
        Share of the others who say when to stop.
    epochs
        At most so many.
    patience
        Stop after so many epochs without a better one.
    no_pretrain
        Leave out the autoencoder that comes first.
    no_augment
        Do not light and shade training scans.
    factory
        package.module:function that makes another network than the paper's.
    site
        Column whose values are spread over the folds, where it is there.
    assume_space
        The scans are in this space: do not check.
    threads
        Of each process; other numbers round differently.
    n_workers
        Processes that train side by side; 0: this one.
    device
        auto: CUDA where there is one.
    overwrite
        Replace folds that were trained otherwise.
    config
        TOML file with any of these options; what is given here comes first.
    """
    from glas3d.predict import Recipe
    from glas3d.study.training.crossvalidation import train_folds

    recipe = Recipe(patience=patience) if epochs is None else Recipe(patience=patience, epochs=epochs)
    with progress("steps") as tick:
        found = train_folds(
            who.read(bids_dir),
            out,
            folds=folds,
            seed=seed,
            resolution=resolution,
            recipe=recipe,
            validation=validation,
            pretrain=not no_pretrain,
            augment=not no_augment,
            site=site,
            factory=factory,
            assume_space=assume_space,
            threads=threads,
            n_workers=n_workers,
            device=device,
            overwrite=overwrite,
            progress=tick,
        )
    say(f"Metrics of {len(found.folds)} folds, mean and 95 % interval:")
    for row in found.summary.to_dict("records"):
        say(f"  {row['metric']:<18} {row['mean']:.3f}  {row['low']:.3f} to {row['high']:.3f}")
    kept = len(found.folds) - len(found.trained)
    say(f"Written to {out}: {len(found.trained)} folds trained" + (f", {kept} kept" if kept else ""))
