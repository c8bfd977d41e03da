"""``glas3d explain``: one participant's scan."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from glas3d.cli.explain_options import Asking
from glas3d.cli.parameters import FLAG, SEVERAL, class_of, named
from glas3d.cli.terminal import cost, print_table, progress, say
from glas3d.errors import GlasError, GlasWarning


def explain(
    *scan: Path,
    model: str,
    target: str,
    out: Path,
    how: Annotated[Asking, Parameter(name="*")] = Asking(),  # noqa: B008 (frozen)
    supervoxels: int | None = None,
    channels: Literal["together", "each"] = "together",
    covariate: Annotated[tuple[str, ...], SEVERAL] = (),
    batch_size: int | None = None,
    engine: str = "auto",
    keep_memory: Annotated[bool, FLAG] = False,
    activation: Literal["softmax", "sigmoid", "none"] | None = None,
    dry_run: Annotated[bool, FLAG] = False,
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
    supervoxels
        Look at about so many pieces of one brightness that the scan is cut into (SLIC), instead of an atlas.
    channels
        Of several inputs: also each alone.
    covariate
        Numbers the model takes beside the scan, as name=value; ranked beside the regions.
    batch_size
        Scans a forward; default: by their size.
    engine
        What runs the network: auto (the fastest that pays), eager, openvino, onnx, compile, channels_last; on CUDA
        also cudagraphs and autocast.
    keep_memory
        Give memory back to the system at the end, not after every layer: up to twice as fast where the network itself
        is asked (eager), by a process that stays as large as its largest forward.
    activation
        Makes the model's answers probabilities; for .pt2 and .onnx files, and bundles that state none.
    dry_run
        Say what it would take, from the first forwards, and write nothing.
    """
    from glas3d.explain import ScanExplanation, explain_img
    from glas3d.explain.cost import estimate_cost
    from glas3d.imaging import slic
    from glas3d.imaging.atlas import Atlas
    from glas3d.imaging.coordinates import Coordinates
    from glas3d.imaging.spatial_transform import load_transform
    from glas3d.predict import keep_memory as kept
    from glas3d.predict import load_model

    if not scan:
        raise GlasError("there must be at least one scan, got none")
    looked_at, settings = how.where(supervoxels), how.settings()
    where: Any = looked_at
    if supervoxels is not None:
        where = slic.supervoxels(scan[0], supervoxels, mask_img=how.mask)
    elif isinstance(looked_at, Path):
        where = Coordinates.from_file(looked_at, space="MNI")
    elif isinstance(looked_at, str):
        where = Atlas.load(looked_at, space=how.atlas_space)
    if "transform" in settings:
        settings["transform"] = load_transform(settings["transform"], settings.pop("inverse", None))
    predict = load_model(model, activation=activation)
    ask = partial(
        explain_img,
        list(scan) if len(scan) > 1 else scan[0],
        predict,
        class_of(target),
        where,
        channels=channels,
        covariates=named(covariate, "--covariate"),
        batch_size=batch_size,
        engine=engine,
        assume_space=how.assume_space,
        **settings,
    )
    with kept() if keep_memory else nullcontext(True) as keeps:
        if not keeps:
            warnings.warn("--keep-memory does nothing here: it needs Linux with glibc", GlasWarning, stacklevel=2)
        if dry_run:
            say(cost(estimate_cost(lambda tick: ask(progress=tick), settings.get("recursive"))))
            say("Nothing was written.")
            return
        with progress("forwards") as tick:
            result = ask(progress=tick)
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
