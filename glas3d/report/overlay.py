"""Maps over pictures: grey pictures under a colour scale, the highest pixels marked, a title above each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from glas3d.errors import GlasError
from glas3d.explain.image_result import ImageExplanation

# How much of a pixel is the map's colour; the rest is the picture in grey, which changes the lightness of all colours
# alike and no hue.
_COVER = 0.68
_MID_GREY = 0.5
_LUMA = np.array([0.299, 0.587, 0.114])
_SIGNED, _UNSIGNED = "RdBu_r", "inferno"
_OUTLINE = [patheffects.withStroke(linewidth=3.5, foreground="black")]


def overlay_figure(
    picture: Any,
    maps: Sequence[np.ndarray | None],
    titles: Sequence[str] | None = None,
    *,
    label: str = "saliency",
    signed: bool | Sequence[bool] = False,
    signed_label: str | None = None,
    shared: bool = True,
    marks: Sequence[Any] | None = None,
    columns: int | None = None,
    panel_inches: float = 3.3,
    title: str | None = None,
) -> Figure:
    """Draw maps over one picture, or each over its own.

    Parameters
    ----------
    picture
        ``(rows, cols)`` or ``(rows, cols, 3)``, 0 to 255; or a list of such pictures, one for each map.
    maps
        Each ``(rows, cols)``, on the pixels of its picture; None shows the picture itself.
    titles
        One for each panel.
    label
        Label of the colour bar: what the maps hold, and the unit.
    signed
        Maps with a sign get a diverging scale, as far below 0 as above; one value for all maps, or one for each.
    signed_label
        Label of their colour bar; None: ``label``.
    shared
        True: one scale for all maps with a sign, and one for all without. False: each map has its own.
    marks
        For each panel, ``(k, 2)`` rows and columns to mark, or None. Without it: the highest pixel of each map, and
        the lowest of maps with a sign.
    columns
        Panels in a row; None: all.
    panel_inches
        Width of a panel in inches.
    title
        The figure's title.

    Returns
    -------
    A matplotlib figure that pyplot does not manage: save it by ``figure.savefig(path)``; it need not be closed.

    Raises
    ------
    GlasError
        The number of pictures, titles or marks is not the number of maps, or a map is not on its picture's pixels.
    """
    n = len(maps)
    if n == 0:
        raise GlasError("a figure needs at least one map, or None for the picture itself, got none")
    pictures = list(picture) if isinstance(picture, list | tuple) else [picture] * n
    signs = [signed] * n if isinstance(signed, bool) else list(signed)
    for name, given in (("pictures", pictures), ("titles", titles), ("signed", signs), ("marks", marks)):
        if given is not None and len(given) != n:
            raise GlasError(f"{name} must be one for each map: got {len(given)} for {n} maps")
    greys = [_grey(each) for each in pictures]
    arrays = [None if values is None else np.asarray(values, dtype=np.float64) for values in maps]
    for grey, values in zip(greys, arrays, strict=True):
        if values is not None and (values.shape != grey.shape or not np.isfinite(values).all()):
            raise GlasError(
                f"a map must be finite and on its picture's pixels: map {values.shape}, picture {grey.shape}"
            )
    scales = _scales(arrays, signs, shared)

    across = min(columns or n, n)
    down = math.ceil(n / across)
    same_size = len({grey.shape for grey in greys}) == 1
    tall = max(grey.shape[0] / grey.shape[1] for grey in greys)
    lines = max((text.count("\n") + 1 for text in titles), default=1) if titles is not None else 0
    figure_height = down * (panel_inches * tall + 0.16 * lines + 0.12) + 0.45 + (0.35 if title is not None else 0.0)
    bars = 0.75 * (len({id(scale) for scale in scales if scale is not None}) if shared else across)
    # "compressed" keeps panels of a fixed aspect close together, whatever the aspect of the figure
    figure = Figure(figsize=(panel_inches * across + 0.5 + bars, figure_height), layout="compressed")
    panels = list(figure.subplots(down, across, squeeze=False).ravel())
    for axes in panels[n:]:
        axes.set_axis_off()
    for i, (axes, grey, values, scale) in enumerate(zip(panels, greys, arrays, scales, strict=False)):
        if values is None or scale is None:
            axes.imshow(_colours(pictures[i]), interpolation="nearest")
        else:
            axes.imshow(_blend(grey, values, scale), interpolation="nearest")
            if marks is None:
                _mark(axes, [np.unravel_index(values.argmax(), values.shape)], "+")
                if signs[i]:
                    _mark(axes, [np.unravel_index(values.argmin(), values.shape)], "x")
        if marks is not None and marks[i] is not None:
            _mark(axes, marks[i], "+")
        if titles is not None:
            axes.set_title(titles[i], fontsize=9.5)
        axes.tick_params(labelsize=7, length=2)
        axes.locator_params(nbins=5)
        if same_size and i % across:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel("row, px", fontsize=8)
        if same_size and i + across < n:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("column, px", fontsize=8)
    _bars(figure, panels[:n], scales, signs, label, signed_label or label)
    if title is not None:
        figure.suptitle(title, fontsize=11.5)
    return figure


def result_figure(*results: ImageExplanation, names: Sequence[str] | None = None) -> Figure:
    """Draw results of `explain_image`: the picture, and a map for each class, round or side of a contrast.

    Parameters
    ----------
    results
        Results for one picture, one for each class.
    names
        Names of the classes, for models that have none.

    Raises
    ------
    GlasError
        There is no result, or the results are of different pictures.
    """
    if not results or any(result.picture.sha256 != results[0].picture.sha256 for result in results):
        raise GlasError(f"a figure shows results of one picture, got {len(results)} of different pictures or none")
    picture = results[0].picture.rgb
    maps: list[np.ndarray | None] = [None]
    titles, signs = [results[0].picture.stem], [False]
    named = [result.provenance["Target"]["class"] for result in results] if names is None else list(names)
    for name, result in zip(named, results, strict=True):
        if "Against" in result.provenance:
            for number, (other, part) in enumerate(result.parts.items()):
                maps.append(part.saliency)
                titles.append(f"{name if number == 0 else other}, P = {part.explanation.probability:.3f}")
            signs += [False, False]
            titles.append(f"for {name} (red), for {other} (blue)")
        else:
            for number, each in enumerate(result.rounds, start=1):
                maps.append(each.saliency)
                titles.append(f"round {number}: P {each.probability_before:.3f} to {each.probability_after:.3f}")
                signs.append(False)
            whole = "all rounds" if result.rounds else f"{name}, P = {result.explanation.probability:.3f}"
            titles.append(whole)
        maps.append(result.saliency)
        signs.append("Against" in result.provenance)
    label = "saliency, 0 to 1" if any(result.rounds for result in results) else "saliency (light x shadow)"
    return overlay_figure(picture, maps, titles, label=label, signed=signs, signed_label="difference of saliency")


def _grey(picture: Any) -> np.ndarray:
    """Return the picture in grey, ``(rows, cols)`` in [0, 1], its 1st and 99th percentile stretched to 0 and 1."""
    values = np.asarray(picture, dtype=np.float64)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3):
        raise GlasError(f"a picture must be (rows, cols) or (rows, cols, 3), got {values.shape}")
    grey = values if values.ndim == 2 else values @ _LUMA
    low, high = np.percentile(grey, [1, 99])
    stretched: np.ndarray = np.clip((grey - low) / max(high - low, 1.0), 0.0, 1.0)
    return stretched


def _colours(picture: Any) -> np.ndarray:
    """Return the picture in its own colours, ``(rows, cols, 3)`` in [0, 1]."""
    values = np.clip(np.asarray(picture, dtype=np.float64) / 255.0, 0.0, 1.0)
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


class _Scale:
    """A colour scale as it looks over a grey picture."""

    def __init__(self, low: float, high: float, signed: bool) -> None:
        self.norm = Normalize(low, high if high > low else low + 1.0)
        self.colours: Colormap = matplotlib.colormaps[_SIGNED if signed else _UNSIGNED]

    @property
    def power(self) -> int:
        """The power of ten by which the numbers at the colour bar are divided."""
        largest = max(abs(self.norm.vmin or 0.0), abs(self.norm.vmax or 0.0))
        power = math.floor(math.log10(largest)) if largest > 0 else 0
        return 0 if -2 <= power <= 2 else power

    def over_grey(self) -> ScalarMappable:
        """Return the scale for the colour bar: the colours as they look over mid grey."""
        pure = self.colours(np.linspace(0, 1, 256))[:, :3]
        return ScalarMappable(self.norm, ListedColormap(_COVER * pure + (1 - _COVER) * _MID_GREY))


def _scales(maps: Sequence[np.ndarray | None], signs: Sequence[bool], shared: bool) -> list[_Scale | None]:
    """Return the scale of each map, None where there is no map."""

    def scale_of(some: Sequence[np.ndarray], signed: bool) -> _Scale:
        low, high = min(float(values.min()) for values in some), max(float(values.max()) for values in some)
        if signed:
            reach = max(abs(low), abs(high))
            return _Scale(-reach, reach, True)
        return _Scale(min(low, 0.0), high, False)

    if not shared:
        return [
            None if values is None else scale_of([values], signed) for values, signed in zip(maps, signs, strict=True)
        ]
    groups = {
        kind: [values for values, signed in zip(maps, signs, strict=True) if values is not None and signed == kind]
        for kind in (False, True)
    }
    scales = {kind: scale_of(some, kind) for kind, some in groups.items() if some}
    return [None if values is None else scales[signed] for values, signed in zip(maps, signs, strict=True)]


def _blend(grey: np.ndarray, values: np.ndarray, scale: _Scale) -> np.ndarray:
    """Return the grey picture under the colours of the map, ``(rows, cols, 3)``."""
    over = scale.colours(scale.norm(values))[..., :3]
    blended: np.ndarray = _COVER * over + (1 - _COVER) * grey[..., None]
    return blended


def _mark(axes: Axes, pixels: Any, marker: str) -> None:
    """Draw a marker at each ``(row, column)``."""
    pixels = np.asarray(pixels, dtype=np.float64).reshape(-1, 2)
    axes.plot(
        pixels[:, 1],
        pixels[:, 0],
        linestyle="none",
        marker=marker,
        color="white",
        markersize=10,
        markeredgewidth=1.6,
        path_effects=_OUTLINE,
    )


def _bars(
    figure: Figure,
    panels: Sequence[Axes],
    scales: Sequence[_Scale | None],
    signs: Sequence[bool],
    label: str,
    signed_label: str,
) -> None:
    """Draw a colour bar for each scale, next to the panels of that scale."""
    groups: dict[int, tuple[_Scale, list[Axes], bool]] = {}
    for axes, scale, signed in zip(panels, scales, signs, strict=True):
        if scale is not None:
            groups.setdefault(id(scale), (scale, [], signed))[1].append(axes)
    for scale, own, signed in groups.values():
        if len(groups) > 1:  # else the bars of several scales would overlap next to the same rows
            own = own[-1:]
        bar = figure.colorbar(scale.over_grey(), ax=own, shrink=0.85, pad=0.015, fraction=0.05)
        text = signed_label if signed else label
        power = scale.power
        bar.formatter = FuncFormatter(lambda value, _, power=power: f"{value / 10.0**power:.3g}")
        bar.set_label(text if power == 0 else f"{text}, $10^{{{power}}}$", fontsize=8.5)
        bar.ax.tick_params(labelsize=7.5)
        bar.update_ticks()
