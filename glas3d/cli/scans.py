"""``glas3d explain``: one participant's scan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from glas3d.cli.options import FLAG, SEVERAL, class_of
from glas3d.cli.terminal import print_table, progress, say
from glas3d.errors import GlasError


def explain(
    *scan: Path,
    model: str,
    target: str,
    out: Path,
    atlas: str | None = None,
    atlas_space: Literal["MNI"] | None = None,
    grid: Annotated[tuple[float, ...], SEVERAL] = (),
    coordinates: Path | None = None,
    mask: Path | None = None,
    brain_mask: Path | None = None,
    versus: str | None = None,
    sigma_light: float | None = None,
    sigma_shadow: float | None = None,
    sigma_spatial: float | None = None,
    unit: Literal["mm", "voxel"] | None = None,
    kernel: Literal["gaussian", "exponential", "ellipsoid", "segment"] | None = None,
    distance: Literal["euclidean", "squared"] | None = None,
    fusion: Literal["product", "light", "shadow"] | None = None,
    gamma: float | None = None,
    background: Annotated[tuple[str, ...], SEVERAL] = ("auto",),
    scales: Annotated[tuple[float, ...], SEVERAL] = (),
    channels: Literal["together", "each"] = "together",
    covariate: Annotated[tuple[str, ...], SEVERAL] = (),
    covariate_reference: Annotated[tuple[str, ...], SEVERAL] = (),
    point: Literal["centroid", "medoid"] = "centroid",
    batch_size: int | None = None,
    engine: str = "auto",
    recursive: Annotated[bool, FLAG] = False,
    floor: float | None = None,
    transform: Annotated[tuple[Path, ...], SEVERAL] = (),
    inverse: Annotated[tuple[Path, ...], SEVERAL] = (),
    register: Literal["affine", "SyN"] | None = None,
    assume_space: Literal["MNI"] | None = None,
    activation: Literal["softmax", "sigmoid", "none"] | None = None,
) -> None:
    """Explain a model's answer to one scan: maps on the scan's grid and a ranked table.

    Parameters
    ----------
    scan
        A 3D volume nibabel can read (NIfTI, mgz), in MNI space unless the atlas is the scan's own. For a model of
        several inputs as many of them, in the order of its channels; maps come back on the first one's grid.
    model
        A shipped model's name, a MONAI bundle folder, a .pt2 or .onnx file, or package.module:factory.
    target
        Class name, or index from 0.
    out
        Folder for the results.
    atlas
        A shipped atlas (default: AAL), or the path of a label image with its .tsv table beside it.
    atlas_space
        The space of such a label image; unless it is said, that of the scan.
    grid
        Look at the centres of K cells an axis (one number, or three) instead of an atlas.
    coordinates
        Look at places: tab-separated text with the columns x y z in mm, and perhaps name.
    mask
        Look only inside this image, in the scan's space.
    brain_mask
        Show the model only what is inside this image, in the scan's space; default: all, or with --register the brain.
    versus
        A second class: what speaks for the target over it.
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
        What replaces tissue: auto (default: the model's reference, else 0), a number, blur, or an image. Several:
        what they agree on, and each one's own.
    scales
        Factors on both sigmas, such as 0.5 1 2: all together, and each one's own maps.
    channels
        Of several inputs: also each alone.
    covariate
        Numbers the model takes beside the scan, as name=value; ranked beside the regions.
    covariate_reference
        What replaces each of them, as name=value.
    point
        Where a region is looked at.
    batch_size
        Scans a forward; default: by their size.
    engine
        What runs the network: auto (the fastest that pays), eager, openvino, onnx, compile, channels_last; on CUDA
        also cudagraphs and autocast.
    recursive
        Put out what was found and look again, for several pieces of evidence; the map of every round is kept.
        With two classes the paper's rule may go on after the evidence is gone: see --floor.
    floor
        End the recursion once the probability has fallen to this, such as 0.5.
    transform
        The scan is in its native space, and this brings it to the template; maps come home. A 4 x 4 matrix as text
        (native to template, mm), or ITK or ANTs files in the order of antsApplyTransforms.
    inverse
        The way home of each warp, where its file does not lie beside it.
    register
        The scan is a raw T1 in its native space: find the way to the template, show the model the brain alone, and
        bring the maps home. Needs antspyx: pip install "glas3d[register]".
    assume_space
        The scan is in this space: do not check.
    activation
        Makes the model's answers probabilities; for .pt2 and .onnx files, and bundles that state none.
    """
    from glas3d.core.search import Grid
    from glas3d.explain import ScanExplanation, explain_img
    from glas3d.imaging.atlas import Atlas
    from glas3d.imaging.coordinates import Coordinates
    from glas3d.imaging.transform import load_transform
    from glas3d.predict.bundle import load_model

    if not scan:
        raise GlasError("there must be at least one scan, got none")
    ways = {"--atlas": atlas, "--grid": " ".join(f"{k:g}" for k in grid), "--coordinates": coordinates}
    chosen = [f"{name} {value}" for name, value in ways.items() if value]
    if len(chosen) > 1:
        raise GlasError(f"look at an atlas, at a grid or at places, got {' and '.join(chosen)}")
    if floor is not None and not recursive:
        raise GlasError("--floor ends a recursion: say --recursive too")
    where: Any
    if grid:
        where = Grid(grid)  # type: ignore[arg-type]  # refuses fractions
    else:
        where = (
            Coordinates.from_file(coordinates, space="MNI")
            if coordinates
            else Atlas.named(atlas or "AAL", space=atlas_space)
        )
    others: dict[str, Any] = {"kernel": kernel, "distance": distance, "fusion": fusion, "gamma": gamma}
    if inverse and not transform:
        raise GlasError("--inverse is the way home of a --transform: give that too")
    bring = load_transform(transform, inverse or None) if transform else None
    predict = load_model(model, activation=activation)
    with progress("forwards") as tick:
        result = explain_img(
            list(scan) if len(scan) > 1 else scan[0],
            predict,
            class_of(target),
            where,
            versus=None if versus is None else class_of(versus),
            mask_img=mask,
            brain_mask=brain_mask,
            transform=bring,
            register=register,
            scales=scales or None,
            channels=channels,
            covariates=_named(covariate, "--covariate"),
            covariate_reference=_named(covariate_reference, "--covariate-reference"),
            sigma_light=sigma_light,
            sigma_shadow=sigma_shadow,
            sigma_spatial=sigma_spatial,
            unit=unit,
            background=_number(background[0]) if len(background) == 1 else [_number(one) for one in background],
            point=point,
            batch_size=batch_size,
            engine=engine,
            assume_space=assume_space,
            recursive={"floor": floor} if recursive else False,
            progress=tick,
            **{name: value for name, value in others.items() if value is not None},
        )
    assert isinstance(result, ScanExplanation)
    written = result.save(out)
    said, against = (result.provenance.get(key, {}).get("class") for key in ("Target", "Against"))
    answer = f"P({said}) = {result.explanation.probability:.3f}"
    if against is not None:
        answer = f"{said} over {against}: P({said}) - P({against}) = {result.explanation.probability:.3f}"
    print_table(result.table, f"{scan[0].name}: {answer}, ten best regions")
    for number, one in enumerate(result.provenance.get("Recursion", {}).get("rounds", []), start=1):
        say(
            f"round {number}: P({said}) {one['probability_before']:.3f} -> {one['probability_after']:.3f}, "
            f"put out and removed: {', '.join(map(str, one['removed'][:6]))}{' ...' if len(one['removed']) > 6 else ''}"
        )
    own = [path.name for path in written if path.name.startswith(result.stem + "_") and path.suffix != ".json"]
    rounds = [f"and the maps of {len(result.round_imgs)} rounds"] if result.round_imgs else []
    parts = [f"and those of {', '.join(result.parts)}"] if result.parts else []
    say(f"Written to {out}: {', '.join([*own, *rounds, *parts])}")


def _named(pairs: tuple[str, ...], option: str) -> dict[str, float] | None:
    """Of ``name=value`` texts."""
    found: dict[str, float] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        number = _number(value)
        if not (name and equals) or isinstance(number, str) or name in found:
            raise GlasError(f"{option} takes name=number, each name once, got {pair!r}")
        found[name] = number
    return found or None


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
