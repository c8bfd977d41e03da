"""`explain_image`: a picture in, maps on its own pixels and a ranked table of points or segments out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.ndimage import gaussian_filter

from glas3d.core.glas import GLAS, Progress
from glas3d.core.score import Target, targets_of
from glas3d.core.search import Grid
from glas3d.errors import GlasError
from glas3d.explain.image_result import ImageExplanation, PictureHome, Place
from glas3d.explain.inputs import Reference, model_record
from glas3d.explain.modes import Question, Way
from glas3d.imaging.picture import Colour, Picture, PictureLike, load_picture, resize
from glas3d.output import generated_by, have_labels
from glas3d.predict.predictor import ModelInfo, Predictor, info_of

# Light and shadow, in pixels of a picture of 224 x 224, by kernel. The paper's 5 and 3 pixels are informative with the
# kernel of Eq. 3; a Gaussian of as many leaves nearly nothing to see (docs/method.md).
_SIGMAS = {"exponential": (5.0, 3.0), "gaussian": (20.0, 12.0), "ellipsoid": (5.0, 3.0), "segment": (5.0, 3.0)}
_SPATIAL, _BLUR, _PAPER_SIDE = 6.0, 10.0, 224.0


def explain_image(
    image: PictureLike,
    predict: Predictor | Callable[..., Any],
    target: Target | Sequence[Target] = 1,
    search: Any = Grid(15),  # noqa: B008 (frozen)
    *,
    size: tuple[int, int] | None = None,
    colour: Colour | None = None,
    sigma_light: float | Sequence[float] | None = None,
    sigma_shadow: float | Sequence[float] | None = None,
    sigma_spatial: float | Sequence[float] | None = None,
    background: Any = "auto",
    mask: np.ndarray | None = None,
    versus: Target | None = None,
    recursive: bool | Mapping[str, Any] = False,
    scales: Sequence[float] | None = None,
    refine: float | Mapping[str, Any] | None = None,
    channels: Literal["together", "each"] = "together",
    progress: Progress = False,
    **settings: Any,
) -> ImageExplanation | tuple[ImageExplanation, ...]:
    """Explain a model's answer to one picture.

    The model is given ``(n, c, rows, cols)`` float32: 0 to 255 of a file, an array's or tensor's own values.
    Normalisation belongs to it, so that a spot's 0 is black. Places (points, labels, mask, table, maps) are those of
    the picture's own pixels; sigmas are in the pixels the model is asked on.

    Parameters
    ----------
    image
        A path, a Pillow image, an array with its channels last, or a torch tensor with its channels first; see
        `glas3d.imaging.picture.load_picture`.
    predict
        A `Predictor`, or any callable ``(n, c, rows, cols)`` to ``(n, classes)`` probabilities.
    target
        Class index or name, or a sequence of them: all are answered from the same forwards.
    search
        A `Grid`, ``(m, 2)`` rows and columns, or segments: integer labels ``(rows, cols)`` (0 is none) or
        `Segments`, such as `glas3d.imaging.slic.superpixels` cuts.
    size
        Rows and columns the model takes: the picture is stretched to them (crop it first where that matters), and the
        maps come home to its own. None: asked as it is.
    colour
        ``"RGB"`` or ``"grey"``: what a picture is turned into; None: as it is.
    sigma_light, sigma_shadow, sigma_spatial
        In pixels. None: what was chosen with the model, else the paper's 5, 3 and 6 pixels (20 and 12 for a Gaussian
        spot), as large against the picture as they are against one of 224 x 224.
    background
        What a spot puts in place of the picture. ``"auto"``: the model's reference, else 0 (black); a number in the
        picture's values; ``"blur"``: the picture smoothed by a Gaussian of 10 pixels of 224; or a picture.
        A mapping of them asks with each: the result is what they agree on, with each one's own beside it.
    mask
        ``(rows, cols)``, true where to look.
    versus
        A second class: the result is what speaks for the target over it, signed, with both classes' own beside it.
    recursive
        Put out what was found and look again (`RGLAS`): saliency and scores are those of all rounds fused, in [0, 1];
        light, shadow and drop are the first round's. For one target. A mapping holds settings of `RGLAS`, such as
        ``{"floor": 0.1}``.
    scales
        Ask once a factor on both sigmas of the spots, such as ``(0.5, 1, 2)``: the result is all scales together, with
        every scale's own beside it and each point's own scale in the table.
    refine
        Ask a share of the forwards, such as 0.25 of a grid's, where the score is high or might be, and estimate the
        other points (`CoarseToFine`); see `explain_img`.
    channels
        ``"each"``: beside all channels together, light and shade each of them alone.
    progress
        See `GLAS`.
    **settings
        Every other setting of `GLAS`: ``kernel`` (here ``"exponential"`` by default), ``distance``, ``fusion``,
        ``gamma``, ``channel``, ``batch_size``,
        ``engine``.

    Returns
    -------
    An `ImageExplanation`, or a tuple of them when ``target`` is a sequence.

    Raises
    ------
    GlasError
        Input that does not fit; the message says what was required and what came.

    Warns
    -----
    GlasWarning
        Segments that own no pixel at the model's size.
    """
    info = info_of(predict)
    targets, single = targets_of(target)
    way = Way(
        versus=versus,
        recursive=recursive,
        scales=scales,
        refine=refine,
        channels=channels,
        several_backgrounds=isinstance(background, Mapping),
    )
    way.check("a picture", single=single)
    picture = _read(image, colour, info)
    asked = picture.shape if size is None else _size(size)
    data = resize(picture.data, asked)
    place = Place.of(search, mask, picture.shape, asked)
    chosen = _fill(
        {"sigma_light": sigma_light, "sigma_shadow": sigma_shadow, "sigma_spatial": sigma_spatial},
        info.preset,
        asked,
        settings,
    )
    named = dict(background) if way.several_backgrounds else {"": background}
    if way.several_backgrounds and (len(named) < 2 or not have_labels([str(name) for name in named])):
        raise GlasError(f"several backgrounds must be two or more, each of its own name, got {list(named)}")
    references = {name: _reference(one, predict, info, data, colour) for name, one in named.items()}
    glas = GLAS(predict, background=next(iter(references.values())).value, progress=progress, **chosen)
    question = Question(data, targets, place.search, (1.0, 1.0))
    names = ("red", "green", "blue") if len(data) == 3 else tuple(f"channel{i}" for i in range(len(data)))
    found = way.ask(glas, question, {name: one.value for name, one in references.items()}, names)
    shared = {
        "Settings": {"background": ", ".join(one.name for one in references.values())},
        "Grid": {"shape": list(asked), "picture": list(picture.shape)},
        "Model": model_record(predict, info),
        "Input": {
            "name": Path(picture.name).name,
            "sha256": picture.sha256,
            "channels": len(data),
            "values": [float(picture.data.min()), float(picture.data.max())],
        },
        "Search": {"grid": search.k}
        if isinstance(search, Grid)
        else {"points" if place.segments is None else "segments": len(found[0].explanation.points)},
        "GeneratedBy": generated_by(),
    }
    kind = "grid" if isinstance(search, Grid) else "points" if place.segments is None else "segments"
    home = PictureHome(picture, glas, place, kind, shared)
    results = tuple(home.result(one, several=len(found) > 1 or one.against is not None) for one in found)
    return results[0] if single else results


def _size(size: Any) -> tuple[int, int]:
    try:
        rows, columns = (int(n) for n in size)
        if rows < 1 or columns < 1 or [rows, columns] != list(size):
            raise ValueError
    except (TypeError, ValueError):
        raise GlasError(f"size must be two whole numbers, rows and columns, got {size!r}") from None
    return rows, columns


def _read(image: PictureLike, colour: Colour | None, info: ModelInfo) -> Picture:
    """The picture with the channels the model says it takes; grey is shown to a model of three thrice."""
    picture = load_picture(image, colour)
    if colour is None and info.channels == 3 and len(picture.data) == 1:
        picture = load_picture(image, "RGB")
    if info.channels not in (None, len(picture.data)):
        raise GlasError(
            f"the model {info.name} takes {info.channels} input channels, {picture.name} has {len(picture.data)}"
            + ('; colour="grey" makes it one' if info.channels == 1 else "")
        )
    return picture


def _fill(
    given: Mapping[str, Any], preset: Mapping[str, Any], size: tuple[int, int], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of `GLAS`: those given, else chosen with the model, else the paper's at this size."""
    if "unit" in settings:
        raise GlasError("a picture is measured in pixels: unit is of scans")
    own = {} if preset.get("unit", "voxel") != "voxel" else {k: v for k, v in preset.items() if k != "unit"}
    chosen: dict[str, Any] = {"kernel": "exponential"} | own | dict(settings)
    light, shadow = _SIGMAS.get(chosen["kernel"], _SIGMAS["gaussian"])
    larger = (size[0] * size[1]) ** 0.5 / _PAPER_SIDE
    # in exp(-D / sigma^2) it is sigma^2 that is a length
    spot = larger**0.5 if chosen["kernel"] == "exponential" else larger
    reach = larger if chosen.get("distance") == "squared" else larger**0.5
    paper = {"sigma_light": light * spot, "sigma_shadow": shadow * spot, "sigma_spatial": _SPATIAL * reach}
    return paper | chosen | {name: value for name, value in given.items() if value is not None}


def _reference(background: Any, predict: object, info: ModelInfo, data: np.ndarray, colour: Colour | None) -> Reference:
    """What a spot puts in place of the picture, at the size the model is asked on."""
    if isinstance(background, str) and background == "auto":
        return Reference.of_model(predict, info, data)
    if isinstance(background, str) and background == "blur":
        sigma = _BLUR * (data.shape[1] * data.shape[2]) ** 0.5 / _PAPER_SIDE
        return Reference(gaussian_filter(data, (0, sigma, sigma)), f"the picture blurred by {sigma:.3g} pixels")
    if isinstance(background, int | float | np.number) and not isinstance(background, bool):
        return Reference(float(background), f"{background:g}")
    other = load_picture(background, colour)
    if len(other.data) != len(data):
        other = load_picture(background, "RGB" if len(data) == 3 else "grey")
    name = Path(other.name).name
    return Reference(resize(other.data, data.shape[1:]), f"{name} sha256:{other.sha256}")
