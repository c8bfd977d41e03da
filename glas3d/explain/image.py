"""`explain_image`: an image in, maps on its own pixels and a ranked table of points or segments out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from glas3d.bids_names import have_distinct_labels
from glas3d.core.glas import GLAS
from glas3d.core.score import Target, targets_of
from glas3d.core.search import Grid, Segments
from glas3d.counts import counted
from glas3d.errors import GlasError
from glas3d.explain.image_result import ImageExplanation, ImageMaps, ImageSearch
from glas3d.explain.inputs import Reference, model_record
from glas3d.explain.modes import Task, resolve_mode
from glas3d.explain.notes import note_of_author, note_on_intensities
from glas3d.explain.options import ImageOptions, Preset, UnsetSettings
from glas3d.explain.outputs import Request
from glas3d.explain.preset import OF_IMAGES, layers, merged, preset_of, values_of
from glas3d.imaging.picture import Colour, Picture, PictureLike, load_picture, resize
from glas3d.options import accepts, given, parse
from glas3d.output import generated_by
from glas3d.predict import ModelInfo, Predictor
from glas3d.predict.predictor import model_info
from glas3d.progress import Progress

# Light and shadow, in pixels of an image of 224 x 224, by kernel. The paper's 5 and 3 pixels are informative with the
# kernel of Eq. 3; a Gaussian of that size leaves almost nothing to see (docs/method.md).
_SIGMAS = {"exponential": (5.0, 3.0), "gaussian": (20.0, 12.0), "ellipsoid": (5.0, 3.0), "segment": (5.0, 3.0)}
_SPATIAL, _BLUR, _PAPER_SIDE = 6.0, 10.0, 224.0


@accepts(UnsetSettings, ImageOptions)
def explain_image(
    image: PictureLike,
    predict: Predictor | Callable[..., Any],
    target: Target | Sequence[Target] = 1,
    search: Any = Grid(15),  # noqa: B008 (frozen)
    *,
    progress: Progress | None = None,
    folder: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> ImageExplanation | tuple[ImageExplanation, ...]:
    """Explain the output of a model for one image.

    The model is given ``(n, c, rows, cols)`` float32: 0 to 255 of a file, an array's or tensor's own values.
    The model normalises its input itself: 0 in a mask is black. Positions (points, labels, mask, table, maps) are
    those of the image's own pixels; sigmas are in pixels of the size that the model takes. The kernel is
    ``"exponential"`` by default.

    Parameters
    ----------
    image
        A path, a Pillow image, an array with its channels last, or a torch tensor with its channels first; see
        `glas3d.imaging.load_picture`.
    predict
        A `Predictor`, or any callable ``(n, c, rows, cols)`` to ``(n, classes)`` probabilities.
    target
        Class index or name, or a sequence of them: all are explained from the same model evaluations.
    search
        A `Grid`, ``(m, 2)`` rows and columns, or segments: integer labels ``(rows, cols)`` (0 is none) or
        `Segments`, such as those that `glas3d.imaging.superpixels` returns.
    progress
        True draws one line on standard error, or in a notebook in the output of the cell; a callable is called with
        the model evaluations done and in all. None (default): the line is drawn in notebooks alone.
    folder
        Save the results to this folder too, see `ImageExplanation.save`. Default: they are not saved.
    overwrite
        Replace results of another input, target or settings in ``folder``. Default: refuse them, before the model is
        evaluated.
    **options
        The settings of the method and the options of `ImageOptions`.

    Returns
    -------
    An `ImageExplanation`, or a tuple of them when ``target`` is a sequence.

    Raises
    ------
    GlasError
        Input that does not fit; the message says what was required and what came.
    TypeError
        A keyword that is none of the above.

    Warns
    -----
    GlasWarning
        Segments that have no pixel at the model's size.
    """
    return resolve_image(image, predict, target, search, options).explain(progress, folder, overwrite=overwrite)


def resolve_image(
    image: PictureLike,
    predict: Predictor | Callable[..., Any],
    target: Target | Sequence[Target],
    search: Any,
    keywords: Mapping[str, Any],
) -> Request[ImageExplanation]:
    """Read the image and resolve every option; the model is not evaluated. See `explain_image`.

    Parameters
    ----------
    keywords
        The settings of the method and the options of `explain_image` that were given.
    """
    settings, options = parse(keywords, UnsetSettings, ImageOptions, caller="explain_image")
    info = model_info(predict)
    targets, single = targets_of(target)
    mode = resolve_mode(options, what="an image", single=single)
    if info.resampling is not None:
        raise GlasError(f"the model {info.name} takes scans, which it resamples: {', '.join(info.preprocessing)}")
    picture = _read(image, options.colour, info)
    size = picture.shape if options.size is None else _size(options.size)
    data = resize(picture.data, size)
    image_search = ImageSearch.of(search, options.mask, picture.shape, size)
    regions = isinstance(image_search.search, Segments)
    filled = _fill(given(settings), info.preset, size, options.preset, regions=regions)
    references = _references(options, predict, info, data)
    backgrounds = {name: reference.value for name, reference in references.items()}
    glas = GLAS(predict, background=next(iter(backgrounds.values())), evidence=True, **filled)
    channels = ("red", "green", "blue") if len(data) == 3 else tuple(f"channel{i}" for i in range(len(data)))
    task = Task(data, targets, image_search.search, (1.0, 1.0), backgrounds=backgrounds, channels=channels)
    record = {
        "Settings": {"background": ", ".join(reference.name for reference in references.values())},
        "Grid": {"shape": list(size), "picture": list(picture.shape)},
        "Preset": preset_of(given(settings), info.preset, options.preset, OF_IMAGES),
        "Model": model_record(predict, info),
        "Input": {
            "name": Path(picture.name).name,
            "sha256": picture.sha256,
            "channels": len(data),
            "values": [float(picture.data.min()), float(picture.data.max())],
        },
        "GeneratedBy": generated_by(),
    }
    notes = [*note_of_author(info), *note_on_intensities(predict, info, data)]
    return Request(glas, task, mode, ImageMaps(record, glas, notes, picture, image_search), single)


def _size(size: Any) -> tuple[int, int]:
    """Return rows and columns, if ``size`` holds two positive whole numbers."""
    try:
        rows, columns = (int(n) for n in size)
        if rows < 1 or columns < 1 or [rows, columns] != list(size):
            raise ValueError
    except (TypeError, ValueError):
        raise GlasError(f"size must be two whole numbers, rows and columns, got {size!r}") from None
    return rows, columns


def _read(image: PictureLike, colour: Colour | None, info: ModelInfo) -> Picture:
    """Return the image with the channels that the model takes: a grey image is repeated for three."""
    picture = load_picture(image, colour)
    if colour is None and info.channels == 3 and len(picture.data) == 1:
        picture = load_picture(image, "RGB")
    if info.channels is not None and info.channels != len(picture.data):
        takes, has = counted(info.channels, "input channel", "input channels"), len(picture.data)
        advice = '; colour="grey" makes it one' if info.channels == 1 else ""
        raise GlasError(f"the model {info.name} takes {takes}, {picture.name} has {has}{advice}")
    return picture


def _fill(
    given: Mapping[str, Any],
    of_model: Mapping[str, Any],
    size: tuple[int, int],
    preset: Preset | None,
    *,
    regions: bool,
) -> dict[str, Any]:
    """Return the settings of `GLAS` for an image of this size (see `glas3d.explain.preset`)."""
    if "unit" in given:
        raise GlasError("an image is measured in pixels: unit belongs to scans")
    if of_model.get("unit", "voxel") != "voxel":
        of_model = {}
    start = preset_of(given, of_model, preset, OF_IMAGES)
    values = values_of(start, regions=regions) | ({"kernel": "exponential"} if start == "paper" else {})
    parts = layers(given, of_model, preset, values)
    chosen = merged(parts)
    light, shadow = _SIGMAS.get(chosen["kernel"], _SIGMAS["gaussian"])
    scale = (size[0] * size[1]) ** 0.5 / _PAPER_SIDE
    # in exp(-D / sigma^2) it is sigma^2 that is a length
    mask = scale**0.5 if chosen["kernel"] == "exponential" else scale
    spread = scale if chosen.get("distance") == "squared" else scale**0.5
    values |= {"sigma_light": light * mask, "sigma_shadow": shadow * mask}
    sigmas = {name: part[name] for part in reversed(parts) for name in part if name.startswith("sigma_")}
    return {"sigma_spatial": _SPATIAL * spread} | chosen | sigmas


def _references(options: ImageOptions, predict: object, info: ModelInfo, data: np.ndarray) -> dict[str, Reference]:
    """Return the references by their names; the name of a single reference is empty."""
    named = dict(options.background) if options.several_backgrounds else {"": options.background}
    if options.several_backgrounds and (len(named) < 2 or not have_distinct_labels([str(name) for name in named])):
        raise GlasError(f"several backgrounds must be two or more, each of its own name, got {list(named)}")
    return {name: _reference(value, predict, info, data, options.colour) for name, value in named.items()}


def _reference(background: Any, predict: object, info: ModelInfo, data: np.ndarray, colour: Colour | None) -> Reference:
    """Return what replaces the image where a mask removes it, at the size that the model takes."""
    if isinstance(background, str) and background == "auto":
        return Reference.of_model(predict, info, data)
    if isinstance(background, str) and background == "blur":
        sigma = _BLUR * (data.shape[1] * data.shape[2]) ** 0.5 / _PAPER_SIDE
        return Reference(gaussian_filter(data, (0, sigma, sigma)), f"the image blurred by {sigma:.3g} pixels")
    if isinstance(background, int | float | np.number) and not isinstance(background, bool):
        return Reference(float(background), f"{background:g}")
    other = load_picture(background, colour)
    if len(other.data) != len(data):
        other = load_picture(background, "RGB" if len(data) == 3 else "grey")
    name = Path(other.name).name
    return Reference(resize(other.data, data.shape[1:]), f"{name} sha256:{other.sha256}")
