"""`explain_img`: scans in, maps on their own grid and a ranked table of regions out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from glas3d.core.covariates import Covariates
from glas3d.core.glas import GLAS
from glas3d.core.model import HasCovariates
from glas3d.core.score import Target, targets_of
from glas3d.core.search import Grid, Segments
from glas3d.errors import GlasError, GlasWarning, SkullWarning, SpaceWarning
from glas3d.explain import preset
from glas3d.explain.inputs import Images, Inputs, References, model_record
from glas3d.explain.modes import Task, resolve_mode
from glas3d.explain.notes import Note, note_of_author, note_on_intensities, note_on_reach
from glas3d.explain.options import ExplainOptions, UnsetSettings
from glas3d.explain.outputs import Request
from glas3d.explain.result import ScanExplanation, ScanMaps
from glas3d.explain.search import parse_search, refuse_other_space, search_on_grid, space_of
from glas3d.imaging import registration
from glas3d.imaging.mask import MORE_THAN_A_BRAIN, bright_voxels, share_outside_brain, template_brain
from glas3d.imaging.scan import Scan
from glas3d.imaging.space import SpaceCheck, check_space, grid_of
from glas3d.imaging.spatial_transform import SpatialTransform, load_transform
from glas3d.options import accepts, given, parse
from glas3d.output import generated_by
from glas3d.predict import ModelInfo, Predictor
from glas3d.predict.predictor import model_info
from glas3d.progress import Progress


@accepts(UnsetSettings, ExplainOptions)
def explain_img(
    img: Images,
    predict: Predictor | Callable[..., Any],
    target: Target | Sequence[Target] = 1,
    search: Any = "AAL",
    *,
    progress: Progress | None = None,
    folder: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> ScanExplanation | tuple[ScanExplanation, ...]:
    """Explain the output of a model for one scan.

    The model is evaluated on its own grid when it has one (the scan is resampled to it), else on the scan's grid, in
    the scan's own axis order. The maps come back on the scan's own grid either way.

    Parameters
    ----------
    img
        Path or nibabel image, one 3D volume, intensities before normalisation. A model of several inputs takes a
        sequence of them, or a mapping from names such as ``{"T1w": ..., "pet": ...}``, in the order of its channels:
        each is resampled to the same grid, and the maps come back on the grid of the first.
    predict
        A `Predictor`, or any callable ``(n, c, x, y, z)`` to ``(n, classes)`` probabilities.
    target
        Class index or name, or a sequence of them: all are explained from the same model evaluations.
    search
        The name of a shipped atlas, an `Atlas`, `Coordinates` in mm, a `Grid`, ``(m, 3)`` voxel coordinates on the
        grid on which the model is evaluated, or what a ``nilearn.datasets.fetch_atlas_*`` or ``fetch_coords_*``
        function returned.
    progress
        True draws one line on standard error, or in a notebook in the output of the cell; a callable is called with
        the model evaluations done and in all. None (default): the line is drawn in notebooks alone.
    folder
        Save the results to this folder too, see `ScanExplanation.save`. Default: they are not saved.
    overwrite
        Replace results of another input, target or settings in ``folder``. Default: refuse them, before the model is
        evaluated.
    **options
        The settings of the method and the options of `ExplainOptions`.

    Returns
    -------
    A `ScanExplanation`, or a tuple of them when ``target`` is a sequence.

    Raises
    ------
    GlasError
        Input that does not fit; the message says what was required and what came.
    TypeError
        A keyword that is none of the above.

    Warns
    -----
    SkullWarning
        The scan holds more than a brain, and the model wants a brain alone.
    SpaceWarning
        The scan does not look like a brain in the space of the atlas or model.
    GlasWarning
        Regions that have no voxel on the grid, by name.
    """
    return resolve_scan(img, predict, target, search, options).explain(progress, folder, overwrite=overwrite)


def resolve_scan(
    img: Images,
    predict: Predictor | Callable[..., Any],
    target: Target | Sequence[Target],
    search: Any,
    keywords: Mapping[str, Any],
) -> Request[ScanExplanation]:
    """Read the scans and resolve every option; the model is not evaluated. See `explain_img`.

    Parameters
    ----------
    keywords
        The settings of the method and the options of `explain_img` that were given.
    """
    settings, options = parse(keywords, UnsetSettings, ExplainOptions, caller="explain_img")
    info = model_info(predict)
    targets, single = targets_of(target)
    mode = resolve_mode(options, what="a scan", single=single, covariates=options.covariates is not None)
    if options.covariates and isinstance(predict, HasCovariates) and predict.covariates is None:
        raise GlasError(f"the model {info.name} takes no covariates, got {', '.join(map(str, options.covariates))}")
    parsed, transform = parse_search(search), _transform_of(options)
    if transform is not None:
        refuse_other_space(parsed)
    inputs = Inputs.read(img, info, transform, brain_mask=options.brain_mask, strip=options.register is not None)
    space, foreign = _check_space(inputs, info, parsed, options)
    skull = _check_skull(inputs, info, options)
    resolved = search_on_grid(
        parsed, inputs.grid, options.point, options.mask_img, grid_of(inputs.scan), inputs.transform
    )
    labels = resolved.search.labels if isinstance(resolved.search, Segments) else None
    filled = preset.fill(given(settings), info.preset, inputs.grid, options.preset, regions=labels is not None)
    by_region = labels is not None and filled["kernel"] == "segment"  # `GLAS` refuses this kernel without regions
    references = References(predict, info, inputs, labels, by_region).resolve(
        options.background, options.several_backgrounds
    )
    covariates = None
    if options.covariates is not None:
        names = predict.covariates if isinstance(predict, HasCovariates) else None
        covariates = Covariates.of(options.covariates, options.covariate_reference or {}, names)
    backgrounds = {name: reference.value for name, reference in references.items()}
    glas = GLAS(predict, background=next(iter(backgrounds.values())), evidence=True, **filled)
    task = Task(
        inputs.data, targets, resolved.search, inputs.grid.spacing, resolved.mask, covariates, backgrounds, inputs.names
    )
    record: dict[str, Any] = {
        "Settings": {
            "background": ", ".join(reference.name for reference in references.values()),
            "point": options.point,
        },
        "Grid": {"shape": list(inputs.grid.shape), "affine": inputs.grid.affine.tolist()},
        "Preset": preset.preset_of(given(settings), info.preset, options.preset),
        "Model": model_record(predict, info),
        "Input": inputs.record(),
        "BrainMask": inputs.brain_mask,
        "Transform": None if inputs.transform is None else inputs.transform.record(),
        "SpaceCheck": None if space is None else space.__dict__,
        "GeneratedBy": generated_by(),
    }
    if covariates is not None:
        record["Covariates"] = {
            "values": dict(zip(covariates.names, covariates.values.tolist(), strict=True)),
            "reference": dict(zip(covariates.names, covariates.reference.tolist(), strict=True)),
        }
    notes = [*note_of_author(info), *foreign, *skull, *note_on_intensities(predict, info, inputs.data)]
    notes += preset.notes_on_unit(given(settings), inputs.grid)
    if options.scales is None:
        notes += _check_reach(glas, task, inputs, info)
    return Request(glas, task, mode, ScanMaps(record, glas, notes, inputs, resolved), single)


def _transform_of(options: ExplainOptions) -> Callable[[Scan], SpatialTransform] | None:
    """Return a function from a scan to its transform to the template; None where it is in the template's space."""
    if options.register is not None:
        kind = options.register
        return lambda scan: registration.register(scan, kind)
    if options.transform is None:
        return None
    loaded = load_transform(options.transform, options.inverse)
    return lambda scan: loaded


def _check_skull(inputs: Inputs, info: ModelInfo, options: ExplainOptions) -> list[Note]:
    """Warn of a scan that plainly holds more than a brain, where the model wants a brain alone; return the note."""
    if not info.skull_stripped or info.grid is None or options.brain_mask is not None or options.register is not None:
        return []
    share = max(share_outside_brain(channel, inputs.grid) for channel in inputs.data)
    if share <= MORE_THAN_A_BRAIN:
        return []
    outside = f"outside of it, {share:z.0%} of the brain's volume"
    wants = f"the model {info.name} wants a brain without skull"
    note = Note(f"the scan holds more than a brain: {outside}, and {wants}", warns=True)
    if options.assume_space:
        warnings.warn(note.text, GlasWarning, stacklevel=4)
        return [note]
    message = (
        f"{inputs.scan.name} holds more than a brain ({outside}), and {wants}: give its mask as brain_mask "
        '(--brain-mask), or brain_mask="auto" (--brain-mask auto) for deepbet\'s'
    )
    warnings.warn(message, SkullWarning, stacklevel=4)
    return [note]


def _check_reach(glas: GLAS, task: Task, inputs: Inputs, info: ModelInfo) -> list[Note]:
    """Return the note on a grid whose masks leave most of the brain unseen (of the head in no known space)."""
    if not isinstance(task.search, Grid):
        return []
    grid = inputs.grid
    in_template = info.grid is not None or inputs.transform is not None
    tissue = template_brain(grid) if in_template else bright_voxels(replace(inputs.scan, data=inputs.data[0]))
    within = tissue if task.mask is None else tissue & task.mask
    if not within.any():
        return []
    share = glas.reached(task.volume, task.search, within, grid.spacing, mask=task.mask)
    counts = np.broadcast_to(task.search.k, 3)
    voxel = grid.spacing if glas.settings.unit == "mm" else (1.0, 1.0, 1.0)
    cells = [n * size / k for n, size, k in zip(grid.shape, voxel, counts, strict=True)]
    return note_on_reach(share, "the brain" if in_template else "the head", cells, asdict(glas.settings))


def _check_space(
    inputs: Inputs, info: ModelInfo, search: Any, options: ExplainOptions
) -> tuple[SpaceCheck | None, list[Note]]:
    """Warn of a scan that does not look like a brain in MNI space, where the model or the atlas needs one.

    Returns
    -------
    The check, None where none was made; and the note on a scan that failed it.
    """
    if options.assume_space is not None or (info.grid is None and space_of(search) != "MNI"):
        return None, []
    transform = inputs.transform
    space = check_space(inputs.scan) if transform is None else transform.check(inputs.scan)
    if space.problem is not None:
        brought = "" if transform is None else f" when {transform.name} has brought it there"
        message = f"{inputs.scan.name} does not look like a brain in MNI space{brought}: {space.problem}"
        warnings.warn(message, SpaceWarning, stacklevel=4)
        return space, [Note(f"the scan does not look like a brain in MNI space: {space.problem}", warns=True)]
    return space, []
