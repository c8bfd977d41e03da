"""``glas3d cohort``: everyone of a study explained, then its groups."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from glas3d.cli.options import FLAG, SEVERAL, class_of
from glas3d.cli.terminal import print_table, progress, say
from glas3d.cli.who import Who, from_file
from glas3d.errors import GlasError

if TYPE_CHECKING:
    from glas3d.study.cohort import Cohort

_SPOKEN = {
    'on_error="skip"': "--on-error skip",
    "ask for in_sample": "say --in-sample",
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
    atlas: str | None = None,
    grid: Annotated[tuple[int, ...], SEVERAL] = (),
    target: str | None = None,
    sigma_light: float | None = None,
    sigma_shadow: float | None = None,
    sigma_spatial: float | None = None,
    unit: Literal["mm", "voxel"] | None = None,
    kernel: Literal["gaussian", "exponential", "ellipsoid", "segment"] | None = None,
    fusion: Literal["product", "light", "shadow"] | None = None,
    background: Literal["auto", "0", "blur"] | None = None,
    everyone: Annotated[bool, FLAG] = False,
    in_sample: Annotated[bool, FLAG] = False,
    assume_space: Literal["MNI"] | None = None,
    n_workers: int = 1,
    scheduler: str | None = None,
    threads: int | None = None,
    batch_size: int | None = None,
    engine: str = "auto",
    device: str = "auto",
    covariates: Annotated[tuple[str, ...], SEVERAL] = (),
    site: str | None = None,
    n_perm: int = 10_000,
    n_boot: int = 1000,
    top: float = 5.0,
    seed: int = 0,
    config: Path | None = None,
) -> None:
    """Explain everyone of a study by models that never saw them, then map and compare its groups.

    Participants first, then groups. A run that was stopped goes on where it was when it is started again.

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
    atlas
        A shipped atlas (default: AAL), or the path of a label image with its .tsv table beside it.
    grid
        Look at the centres of K cells an axis (one number, or three) instead of an atlas.
    target
        Class to explain in everyone; default: the case.
    sigma_light
        Standard deviation of the light; default: chosen with the models, else 20 mm.
    sigma_shadow
        Standard deviation of the shadow; default: chosen with the models, else 30 mm.
    sigma_spatial
        Reach of a grid point in the map.
    unit
        Of the sigmas given; default: voxel.
    kernel
        Shape of the spot; default: chosen with the models, else gaussian.
    fusion
        Light times shadow, or one of them alone; default: product.
    background
        What replaces tissue; default: the models' reference, else 0.
    everyone
        Explain participants of other groups, too.
    in_sample
        Explain participants by models that were trained on them, and say so in every output.
    assume_space
        The scans are in this space: do not check.
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
    covariates
        Columns of participants.tsv to hold fixed in the comparison, such as age sex.
    site
        Column of sites; participants are exchanged within their site only.
    n_perm
        Permutations of the comparison.
    n_boot
        Resamples for intervals; 0: none.
    top
        Overlap counts who has a region among their highest top % of voxels.
    seed
        Of permutations and resamples.
    config
        TOML file with any of these options; what is given here comes first.
    """
    if level == "participant":
        if (models is None) == (model is None):
            raise GlasError(f"participants need --models DIR or --model M, got {'none' if model is None else 'both'}")
        if atlas is not None and grid:
            raise GlasError(f"look at an atlas or at a grid, got --atlas {atlas} and --grid")
        given = {
            "sigma_light": sigma_light,
            "sigma_shadow": sigma_shadow,
            "sigma_spatial": sigma_spatial,
            "unit": unit,
            "kernel": kernel,
            "fusion": fusion,
            "background": 0.0 if background == "0" else background,
        }
        _participants(
            who.read(bids_dir, covariates),
            out,
            models,
            model,
            on_error=who.on_error,
            search=grid or atlas or "AAL",
            target=None if target is None else class_of(target),
            settings={name: value for name, value in given.items() if value is not None},
            everyone=everyone,
            in_sample=in_sample,
            assume_space=assume_space,
            n_workers=n_workers,
            scheduler=scheduler,
            threads=threads,
            batch_size=batch_size,
            engine=engine,
            device=device,
        )
        return
    from glas3d.study.group_level import summarise_groups

    people = who.read(bids_dir, (*covariates, *([site] if site else []))).everyone
    with progress("steps") as tick:
        found = summarise_groups(
            out,
            people,
            case=who.case,
            control=who.control,
            atlas=atlas,
            covariates=covariates,
            site=site,
            n_perm=n_perm,
            n_boot=n_boot,
            top=top,
            seed=seed,
            tick=tick,
        )
    if who.case in found.tables:
        print_table(found.tables[who.case], f"Ten best regions of {who.case}, {found.groups[who.case]} participants")
    if found.statistics is not None:
        best = found.statistics.sort_values("p_fwe").iloc[0]
        below = int((found.statistics["p_fwe"] <= 0.05).sum())
        say(
            f"{who.case} against {who.control}: {below} of {len(found.statistics)} differ at p <= 0.05 corrected; "
            f"the smallest p is {best['p_fwe']:.3g}, of {best['name']}"
        )
    say(f"Written to {found.place}: {', '.join(f'{name} {n}' for name, n in found.groups.items())} participants")


def _participants(cohort: Cohort, out: Path, models: Path | None, model: str | None, **options: Any) -> None:
    """The participant level, told to the user."""
    from glas3d.study.manifest import Manifest
    from glas3d.study.runner import explain_cohort

    if models is not None:
        Manifest.load(models)  # with --models everyone must be known
    try:
        with progress("scans") as tick:
            result = explain_cohort(
                cohort,
                out,
                str(models) if models is not None else str(model),
                tick=tick,
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
