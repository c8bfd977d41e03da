"""``glas3d explain``: one participant's scan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from glas3d.cli.atlases import named_atlas
from glas3d.cli.terminal import print_table, progress, say
from glas3d.errors import GlasError


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
    where = Grid(grid) if grid else named_atlas(atlas or "AAL")  # type: ignore[arg-type]  # Grid refuses fractions
    others: dict[str, Any] = {"kernel": kernel, "distance": distance, "fusion": fusion, "gamma": gamma}
    predict = load_model(model, activation=activation)
    with progress("forwards") as tick:
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
    print_table(result.table, f"{scan.name}: P({said}) = {result.explanation.probability:.3f}, ten best regions")
    for number, one in enumerate(result.provenance.get("Recursion", {}).get("rounds", []), start=1):
        say(
            f"round {number}: P({said}) {one['probability_before']:.3f} -> {one['probability_after']:.3f}, "
            f"put out and removed: {', '.join(map(str, one['removed'][:6]))}{' ...' if len(one['removed']) > 6 else ''}"
        )
    named = [path.name for path in written if path.suffix != ".json"]
    rounds = len(result.round_imgs)
    named = [*named[:3], named[-1]] + ([f"and the maps of {rounds} rounds"] if rounds else [])
    say(f"Written to {out}: {', '.join(named)}")


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
