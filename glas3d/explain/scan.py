"""`explain_img`: scans in, maps on their own grid and a ranked table of regions out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from glas3d.core.covariates import Covariates
from glas3d.core.glas import GLAS, Progress
from glas3d.core.score import Target, targets_of
from glas3d.errors import GlasError, SpaceWarning
from glas3d.explain import preset
from glas3d.explain.inputs import Images, Inputs, Reference, model_record
from glas3d.explain.modes import Question, Way
from glas3d.explain.result import ScanExplanation, ScanHome
from glas3d.explain.search import parse, place, refuse_space, space_of
from glas3d.imaging import registration
from glas3d.imaging.atlas import Point
from glas3d.imaging.scan import ImageLike, Scan
from glas3d.imaging.space import check_space, grid_of
from glas3d.imaging.transform import Transform, load_transform
from glas3d.output import generated_by
from glas3d.predict.predictor import Predictor, info_of


def explain_img(
    img: Images,
    predict: Predictor | Callable[..., Any],
    target: Target | Sequence[Target] = 1,
    search: Any = "AAL",
    *,
    sigma_light: float | Sequence[float] | None = None,
    sigma_shadow: float | Sequence[float] | None = None,
    sigma_spatial: float | Sequence[float] | None = None,
    unit: Literal["voxel", "mm"] | None = None,
    background: Any = "auto",
    point: Point = "centroid",
    mask_img: ImageLike | None = None,
    brain_mask: ImageLike | None = None,
    versus: Target | None = None,
    recursive: bool | Mapping[str, Any] = False,
    scales: Sequence[float] | None = None,
    refine: float | Mapping[str, Any] | None = None,
    channels: Literal["together", "each"] = "together",
    covariates: Mapping[str, float] | None = None,
    covariate_reference: Mapping[str, float] | None = None,
    transform: Any = None,
    register: Literal["affine", "SyN"] | None = None,
    assume_space: str | None = None,
    progress: Progress = False,
    **settings: Any,
) -> ScanExplanation | tuple[ScanExplanation, ...]:
    """Explain a model's answer to one scan.

    The model is asked on its own grid when it has one (the scan is resampled to it), else on the scan's,
    in the scan's own axis order. The maps come back on the scan's own grid either way.

    Parameters
    ----------
    img
        Path or nibabel image, one 3D volume, intensities before normalisation. A model of several inputs takes a
        sequence of them, or one a name such as ``{"T1w": ..., "pet": ...}``, in the order of its channels: each is
        resampled to the one grid, and maps come back on the first one's.
    predict
        A `Predictor`, or any callable ``(n, c, x, y, z)`` to ``(n, classes)`` probabilities.
    target
        Class index or name, or a sequence of them: all are answered from the same forwards.
    search
        The name of a shipped atlas, an `Atlas`, `Coordinates` in mm, a `Grid`, ``(m, 3)`` voxel coordinates on the
        grid the model is asked on, or what a ``nilearn.datasets.fetch_atlas_*`` or ``fetch_coords_*`` returned.
    sigma_light, sigma_shadow
        None: what was chosen with the model, else the paper's 20 and 30 mm.
    sigma_spatial
        Of Eq. 3, not used by atlases; None: the paper's 6 voxels (12 mm at its 2 mm).
    unit
        Of the sigmas given; None: voxels.
    background
        What a spot puts in place of tissue. ``"auto"``: the model's reference, else 0; a number; or an
        image, path or array on the grid the model is asked on, in the scan's intensities; ``"blur"``: the scan
        smoothed by a Gaussian of 10 mm, which keeps its brightness and loses its regions. A list of them, or one
        a name, asks with each: the result is what they agree on, with each one's own beside it.
    point
        ``"centroid"`` of a region (the paper's), or ``"medoid"``, its voxel nearest to that.
    mask_img
        Look only inside: points elsewhere are left out, regions cut. In the scan's space.
    brain_mask
        Show the model only what is inside, as most models want no skull. In the scan's space. None: all there is, or
        with ``register`` the template's brain brought home.
    versus
        A second class: the result is what speaks for the target over it, signed, with both classes' own beside it.
    recursive
        Put out what was found and look again (`RGLAS`): the saliency and the table's scores are those of all
        rounds fused, in [0, 1]; light, shadow and drop are the first round's. For one target. A mapping holds
        settings of `RGLAS`: with ``{"floor": 0.5}`` it ends once two classes are even.
    scales
        Ask once a factor on both sigmas, such as ``(0.5, 1, 2)``: the result is all of them together, with every
        scale's own beside it and each region's or point's own scale in the table (docs/scale.md).
    refine
        Ask a share of the forwards, such as 0.25 of a grid's or 0.5 of an atlas's, where the score is high or might be,
        and estimate the other points (`CoarseToFine`): the table says who was asked, and how far off the others may be.
        For one target. A mapping holds settings of `CoarseToFine`.
    channels
        ``"each"``: beside all channels together, light and shade each of them alone.
    covariates, covariate_reference
        Numbers beside the scan, by name, and what replaces them; the model is asked with ``(batch, (n, q))``, and they
        are ranked beside the regions.
    transform
        The scan is in its native space, and this brings it to the template (see `load_transform`): the model is asked
        there, and maps come home to the native scan. ``x y z`` of the table are the template's.
    register
        The scan is a raw T1 in its native space: find the way to the template (``"affine"``, or ``"SyN"``, which
        deforms too; needs the extra ``register``). The model sees the brain alone, and maps come home.
    assume_space
        ``"MNI"``: the scan is in MNI space, do not check.
    progress
        See `GLAS`.
    **settings
        Every other setting of `GLAS`: ``kernel``, ``distance``, ``fusion``, ``gamma``, ``channel``, ``batch_size``,
        ``cut``, ``engine``.

    Returns
    -------
    A `ScanExplanation`, or a tuple of them when ``target`` is a sequence.

    Raises
    ------
    GlasError
        Input that does not fit; the message says what was required and what came.

    Warns
    -----
    SpaceWarning
        The scan does not look like a brain in the space of the atlas or model.
    GlasWarning
        Regions that own no voxel, by name.
    """
    info = info_of(predict)
    targets, single = targets_of(target)
    way = Way(
        versus=versus,
        recursive=recursive,
        scales=scales,
        refine=refine,
        channels=channels,
        several_backgrounds=isinstance(background, list | tuple | Mapping),
    )
    way.check("a scan", single=single)
    _check_covariates(covariates, covariate_reference, way)
    looked_for, bring = parse(search), _way_to_template(transform, register)
    if bring is not None:
        refuse_space(looked_for)
    inputs = Inputs.read(img, info, bring, brain_mask=brain_mask, strip=register is not None)
    grid = inputs.grid
    space = None
    if assume_space not in (None, "MNI"):
        raise GlasError(f'assume_space must be "MNI" or None, got {assume_space!r}')
    if assume_space is None and (info.grid is not None or space_of(looked_for) == "MNI"):
        space = check_space(inputs.scan) if inputs.transform is None else inputs.transform.check(inputs.scan)
        if space.problem is not None:
            brought = "" if inputs.transform is None else f" when {inputs.transform.name} has brought it there"
            message = f"{inputs.scan.name} does not look like a brain in MNI space{brought}: {space.problem}"
            warnings.warn(message, SpaceWarning, stacklevel=2)
    where = place(looked_for, grid, point, mask_img, grid_of(inputs.scan), inputs.transform)
    given = {"sigma_light": sigma_light, "sigma_shadow": sigma_shadow, "sigma_spatial": sigma_spatial}
    chosen = preset.fill(given, unit, info.preset, grid, settings)
    if way.several_backgrounds:
        references = Reference.several(background, predict, info, inputs)
    else:
        references = {"": Reference.of(background, predict, info, inputs)}
    glas = GLAS(predict, background=next(iter(references.values())).value, progress=progress, **chosen)
    beside = None
    if covariates is not None:
        beside = Covariates.of(covariates, covariate_reference or {}, getattr(predict, "covariates", None))
    question = Question(inputs.data, targets, where.search, grid.spacing, where.mask, beside)
    found = way.ask(glas, question, {name: one.value for name, one in references.items()}, inputs.names)
    shared = {
        "Settings": {"background": ", ".join(one.name for one in references.values()), "point": point},
        "Grid": {"shape": list(grid.shape), "affine": grid.affine.tolist()},
        "Model": model_record(predict, info),
        "Input": inputs.record(),
        "BrainMask": inputs.brain_mask,
        "Search": where.record(found[0].explanation),
        "Transform": None if inputs.transform is None else inputs.transform.record(),
        "SpaceCheck": None if space is None else space.__dict__,
        "GeneratedBy": generated_by(),
    }
    if beside is not None:
        shared["Covariates"] = {
            "values": dict(zip(beside.names, beside.values.tolist(), strict=True)),
            "reference": dict(zip(beside.names, beside.reference.tolist(), strict=True)),
        }
    home = ScanHome(inputs, glas, where, shared)
    results = tuple(home.result(one, several=len(found) > 1 or one.against is not None) for one in found)
    return results[0] if single else results


def _way_to_template(transform: Any, register: Literal["affine", "SyN"] | None) -> Callable[[Scan], Transform] | None:
    """From a scan to its transform, where it is in native space."""
    if transform is not None and register is not None:
        raise GlasError("a scan comes to the template by a transform given or one found, got transform and register")
    if register is not None:
        return lambda scan: registration.register(scan, register)
    if transform is None:
        return None
    given = load_transform(transform)
    return lambda scan: given


def _check_covariates(covariates: Mapping[str, float] | None, reference: Mapping[str, float] | None, way: Way) -> None:
    if reference is not None and covariates is None:
        raise GlasError("covariate_reference replaces covariates: give these too")
    if covariates is not None and way.asked:
        raise GlasError(f"covariates are ranked by a plain question, got {way.asked[0]} too")
