"""The commands. Nothing heavy is imported before a command runs, so that ``--help`` is instant."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from glas3d import __version__
from glas3d.errors import GlasError, GlasWarning, SpaceWarning

if TYPE_CHECKING:
    import pandas as pd

    from glas3d.imaging.atlas import Atlas

app = App(
    name="glas3d",
    version=__version__,
    help="Which anatomy made a 3D classifier say so? Gaussian light and shadow explanations of brain scans. "
    "For research only; no medical device.",
    suppress_keyboard_interrupt=False,
)
atlas_app = App(name="atlas", help="Look at the shipped atlases.")
app.command(atlas_app)

out = Console()
err = Console(stderr=True)


def main() -> None:
    """Run the command line: bad use ends in one ``error:`` line and status 2."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other libraries' notes are not for the user of a command
            warnings.simplefilter("always", GlasWarning)
            warnings.simplefilter("error", SpaceWarning)
            warnings.showwarning = _show_warning
            app(arguments, exit_on_error=False, print_error=False, result_action="return_none")
    except SpaceWarning as problem:
        return _fail(f"{problem}; if it is, say --assume-space MNI")
    except (GlasError, CycloptsError) as problem:
        return _fail(str(problem))
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as problem:
        if os.environ.get("GLAS3D_TRACEBACK"):
            raise
        first = str(problem).strip().splitlines()[0] if str(problem).strip() else ""
        return _fail(f"unexpected {type(problem).__name__}: {first} (set GLAS3D_TRACEBACK=1 to see where)", 1)
    return 0


def _fail(message: str, status: int = 2) -> int:
    err.print(f"error: {' '.join(message.split())}", style="red", markup=False, highlight=False, soft_wrap=True)
    return status


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    err.print(f"note: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)


@app.command
def explain(
    scan: Path,
    *,
    model: str,
    target: str,
    out: Path,
    atlas: str | None = None,
    grid: Annotated[tuple[float, ...], Parameter(consume_multiple=True, negative=(), show_default=False)] = (),
    sigma_light: float | None = None,
    sigma_shadow: float | None = None,
    sigma_spatial: float | None = None,
    unit: Literal["mm", "voxel"] | None = None,
    kernel: Literal["gaussian", "exponential"] | None = None,
    distance: Literal["euclidean", "squared"] | None = None,
    fusion: Literal["product", "light", "shadow"] | None = None,
    gamma: float | None = None,
    background: str = "auto",
    point: Literal["centroid", "medoid"] = "centroid",
    batch_size: int | None = None,
    recursive: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    assume_space: Literal["MNI"] | None = None,
    activation: Literal["softmax", "sigmoid", "none"] | None = None,
) -> None:
    """Explain a model's answer to one scan: maps on the scan's grid and a ranked table.

    Parameters
    ----------
    scan
        A 3D volume nibabel can read (NIfTI, mgz), in MNI space unless the atlas is the scan's own.
    model
        A shipped model's name, a MONAI bundle folder, a .pt2 or .onnx file, or package.module:factory.
    target
        Class name, or index from 0.
    out
        Folder for the results.
    atlas
        A shipped atlas (default: AAL), or the path of a label image with its .tsv table beside it.
    grid
        Look at the centres of K cells an axis (one number, or three) instead of an atlas.
    sigma_light
        Standard deviation of the light; default: chosen with the model, else 20 mm.
    sigma_shadow
        Standard deviation of the shadow; default: chosen with the model, else 30 mm.
    sigma_spatial
        Reach of a grid point in the map.
    unit
        Of the sigmas given; default: voxel.
    kernel
        Shape of the spot; default: chosen with the model, else gaussian.
    distance
        D of Eq. 3, for grids; default: euclidean.
    fusion
        Light times shadow, or one of them alone; default: product.
    gamma
        Added to the shadow score; default: 1e-5.
    background
        What replaces tissue: auto (the model's reference, else 0), a number, blur, or an image.
    point
        Where a region is looked at.
    batch_size
        Scans a forward; default: by their size.
    recursive
        Put out what was found and look again, for several pieces of evidence; the map of every round is kept.
        With two classes the paper's rule may go on after the evidence is gone: look at each round's probability.
    assume_space
        The scan is in this space: do not check.
    activation
        Makes the model's answers probabilities; for .pt2 and .onnx files, and bundles that state none.
    """
    from glas3d.core.search import Grid
    from glas3d.explain import ScanExplanation, explain_img
    from glas3d.predict.bundle import load_model

    if grid and atlas:
        raise GlasError(f"look at an atlas or at a grid, got --atlas {atlas} and --grid {' '.join(map(str, grid))}")
    where = Grid(grid) if grid else _atlas(atlas or "AAL")  # type: ignore[arg-type]  # Grid refuses fractions
    others: dict[str, Any] = {"kernel": kernel, "distance": distance, "fusion": fusion, "gamma": gamma}
    predict = load_model(model, activation=activation)
    with _progress("forwards") as tick:
        result = explain_img(
            scan,
            predict,
            int(target) if target.isdecimal() else target,
            where,
            sigma_light=sigma_light,
            sigma_shadow=sigma_shadow,
            sigma_spatial=sigma_spatial,
            unit=unit,
            background=_number(background),
            point=point,
            batch_size=batch_size,
            assume_space=assume_space,
            recursive=recursive,
            progress=tick,
            **{name: value for name, value in others.items() if value is not None},
        )
    assert isinstance(result, ScanExplanation)
    written = result.save(out)
    said = result.provenance["Target"]["class"]
    _print_table(result.table, f"{scan.name}: P({said}) = {result.explanation.probability:.3f}, ten best regions")
    for number, one in enumerate(result.provenance.get("Recursion", {}).get("rounds", []), start=1):
        _say(
            f"round {number}: P({said}) {one['probability_before']:.3f} -> {one['probability_after']:.3f}, "
            f"put out and removed: {', '.join(map(str, one['removed'][:6]))}{' ...' if len(one['removed']) > 6 else ''}"
        )
    named = [path.name for path in written if path.suffix != ".json"]
    rounds = len(result.round_imgs)
    named = [*named[:3], named[-1]] + ([f"and the maps of {rounds} rounds"] if rounds else [])
    _say(f"Written to {out}: {', '.join(named)}")


@app.command
def simulate(
    bids_dir: Path,
    *,
    participants: int = 20,
    seed: int = 0,
    resolution: float = 4.0,
    severity: tuple[float, float] = (0.3, 0.7),
    deformation: float = 1.5,
    bias: float = 0.05,
    noise: float = 0.02,
) -> None:
    """Simulate participants with known disease, as a BIDS derivative data set.

    Parameters
    ----------
    bids_dir
        New folder for the data set.
    participants
        How many, half AD and half NC.
    seed
        Of everything random; the same seed gives the same participants.
    resolution
        Voxel size in mm: 4, 2, 1 or others.
    severity
        Lowest and highest share of grey matter lost in AD (0.6 times that in the inferior temporal gyrus).
    deformation
        Of anatomy, in mm (root mean square).
    bias
        Of the bias field.
    noise
        Relative to the brightest tissue.
    """
    from glas3d.study.dataset import write_dataset
    from glas3d.study.simulate import Simulation

    simulation = Simulation(
        participants=participants,
        seed=seed,
        resolution=resolution,
        severity=severity,
        deformation=deformation,
        bias=bias,
        noise=noise,
    )
    with _progress("participants") as tick:
        write_dataset(bids_dir, simulation, tick)
    _say(f"Written to {bids_dir}: {participants} participants, their truth in {bids_dir / 'truth'}")


@atlas_app.command(name="list")
def atlas_list() -> None:
    """Name the shipped atlases."""
    from glas3d.imaging.atlas import Atlas

    for name in Atlas.names():
        loaded = Atlas.load(name)
        _say(f"{name}: {len(loaded.table)} regions, {loaded.space} space")


@atlas_app.command
def show(name: str) -> None:
    """Print an atlas's regions and their centroids as tab-separated text.

    Parameters
    ----------
    name
        A shipped atlas, or the path of a label image with its .tsv table beside it.
    """
    table = _atlas(name).centroids()
    sys.stdout.write(table.to_csv(sep="\t", index=False, float_format="%.1f", na_rep="n/a"))


@app.command
def demo(*, out: Path = Path("glas3d-demo"), participants: int = 24, seed: int = 2020) -> None:
    """Simulate participants, explain every AD one, and map the group: the whole way on made data.

    Parameters
    ----------
    out
        Folder for the results; those of an earlier demo in it are replaced.
    participants
        How many to simulate, half of them AD; none was seen in training.
    seed
        Of the simulation.
    """
    from glas3d.demo import run_demo

    with _progress("participants") as tick:
        result = run_demo(out, participants=participants, seed=seed, tick=tick)
    _say(result.summary)
    _print_table(result.table, "Ten best regions of the AD group, beside the planted truth", planted=result.planted)
    _say(f"{result.found} of the {len(result.planted)} planted regions are among the first 8.")
    _say(f"Written to {out}; look at {result.figure}")


def _atlas(name: str) -> Atlas:
    from glas3d.imaging.atlas import Atlas

    path = Path(name)
    if name in Atlas.names() or not path.exists():
        return Atlas.load(name)
    table = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".tsv")
    return Atlas.from_files(path, table)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _say(text: str) -> None:
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def _print_table(table: pd.DataFrame, title: str, planted: tuple[str, ...] | None = None) -> None:
    """The ten best rows, narrow enough for 80 columns."""
    from rich.table import Table

    out.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    shown = Table(box=None, pad_edge=False, header_style="dim")
    shown.add_column("rank", justify="right", no_wrap=True)
    shown.add_column("region", no_wrap=True)
    for column in ("x y z, mm", "light", "shadow", "drop", "score"):
        shown.add_column(column, justify="right", no_wrap=True)
    if planted is not None:
        shown.add_column("planted", justify="center", no_wrap=True)
    for row in table.dropna(subset=["rank"]).sort_values("rank").head(10).to_dict("records"):
        cells = [f"{row['rank']}", f"{row['name']}", " ".join(f"{round(row[axis]):3d}" for axis in "xyz")]
        cells += [f"{row['light']:.3f}", f"{row['shadow']:.2g}", f"{row['drop']:+.2g}", f"{row['score']:.3g}"]
        shown.add_row(*cells, *([] if planted is None else ["yes" if row["name"] in planted else ""]))
    out.print(shown)


@contextmanager
def _progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error with speed and time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{unit}, {task.speed:.1f}/s" if task.speed else unit)

    if not err.is_terminal:
        yield lambda done, total: None
        return
    columns = (BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(unit, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
