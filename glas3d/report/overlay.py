"""Maps over pictures: grey pictures under a shared colour scale, the best places marked, what was asked above them."""

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

# How much of a pixel is the map's colour; the rest is the picture in grey, which moves a colour's lightness by as much
# everywhere and its hue not at all.
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
    """Draw maps over a picture, or over one picture each.

    Parameters
    ----------
    picture
        ``(rows, cols)`` or ``(rows, cols, 3)``, 0 to 255; or a list of them, one a map.
    maps
        ``(rows, cols)`` each, on the pixels of their picture; None shows the picture itself.
    titles
        One a panel.
    label
        Of the colour bar: what the maps hold, and its unit.
    signed
        Maps with a sign get a diverging scale, as far below 0 as above; one answer for all, or one a map.
    signed_label
        Of their colour bar; None: ``label``.
    shared
        One scale for all maps (one for those with a sign, one for those without); else each has its own.
    marks
        ``(k, 2)`` rows and columns to mark on each panel, or None; not given: the highest pixel of each map, and the
        lowest of those with a sign.
    columns
        Panels a row.
    panel_inches
        Width of a panel.
    title
        Above everything.

    Returns
    -------
    A matplotlib figure that pyplot does not know: ``figure.savefig(path)``; nothing has to be closed.

    Raises
    ------
    GlasError
        Pictures, titles or marks that are not one a map, or a map that is not on its picture's pixels.
    """
    n = len(maps)
    if n == 0:
        raise GlasError("a figure needs at least one map, or None for the picture itself, got none")
    pictures = list(picture) if isinstance(picture, list | tuple) else [picture] * n
    signs = [signed] * n if isinstance(signed, bool) else list(signed)
    for name, given in (("pictures", pictures), ("titles", titles), ("signed", signs), ("marks", marks)):
        if given is not None and len(given) != n:
            raise GlasError(f"{name} must be one a map: {len(given)} for {n} maps")
    greys = [_grey(one) for one in pictures]
    drawn = [None if one is None else np.asarray(one, dtype=np.float64) for one in maps]
    for grey, one in zip(greys, drawn, strict=True):
        if one is not None and (one.shape != grey.shape or not np.isfinite(one).all()):
            raise GlasError(f"a map must be finite and on its picture's pixels: map {one.shape}, picture {grey.shape}")
    scales = _scales(drawn, signs, shared)

    across = min(columns or n, n)
    down = math.ceil(n / across)
    alike = len({grey.shape for grey in greys}) == 1
    tall = max(grey.shape[0] / grey.shape[1] for grey in greys)
    lines = max((one.count("\n") + 1 for one in titles), default=1) if titles is not None else 0
    high = down * (panel_inches * tall + 0.16 * lines + 0.12) + 0.45 + (0.35 if title is not None else 0.0)
    bars = 0.75 * (len({id(one) for one in scales if one is not None}) if shared else across)
    # compressed: panels of a fixed aspect stand close, whatever the figure's
    figure = Figure(figsize=(panel_inches * across + 0.5 + bars, high), layout="compressed")
    panels = list(figure.subplots(down, across, squeeze=False).ravel())
    for axes in panels[n:]:
        axes.set_axis_off()
    for i, (axes, grey, one, scale) in enumerate(zip(panels, greys, drawn, scales, strict=False)):
        if one is None or scale is None:
            axes.imshow(_colours(pictures[i]), interpolation="nearest")
        else:
            axes.imshow(_blend(grey, one, scale), interpolation="nearest")
            if marks is None:
                _mark(axes, [np.unravel_index(one.argmax(), one.shape)], "+")
                if signs[i]:
                    _mark(axes, [np.unravel_index(one.argmin(), one.shape)], "x")
        if marks is not None and marks[i] is not None:
            _mark(axes, marks[i], "+")
        if titles is not None:
            axes.set_title(titles[i], fontsize=9.5)
        axes.tick_params(labelsize=7, length=2)
        axes.locator_params(nbins=5)
        if alike and i % across:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel("row, px", fontsize=8)
        if alike and i + across < n:
            axes.tick_params(labelbottom=False)
        else:
            axes.set_xlabel("column, px", fontsize=8)
    _bars(figure, panels[:n], scales, signs, label, signed_label or label)
    if title is not None:
        figure.suptitle(title, fontsize=11.5)
    return figure


def result_figure(*results: ImageExplanation, names: Sequence[str] | None = None) -> Figure:
    """Draw what `explain_image` gives back: the picture, and a map a class, a round or a side of a contrast.

    Parameters
    ----------
    results
        Of one picture: one class each.
    names
        Of the classes, where the model names none.

    Raises
    ------
    GlasError
        No result, or results of different pictures.
    """
    if not results or any(one.picture.sha256 != results[0].picture.sha256 for one in results):
        raise GlasError(f"a figure shows results of one picture, got {len(results)} of different ones or none")
    picture = results[0].picture.rgb
    maps: list[np.ndarray | None] = [None]
    titles, signs = [results[0].picture.stem], [False]
    named = [one.provenance["Target"]["class"] for one in results] if names is None else list(names)
    for name, one in zip(named, results, strict=True):
        if "Against" in one.provenance:
            for part, (other, found) in enumerate(one.parts.items()):
                maps.append(found.saliency)
                titles.append(f"{name if part == 0 else other}, P = {found.explanation.probability:.3f}")
            signs += [False, False]
            titles.append(f"for {name} (red), for {other} (blue)")
        else:
            for number, turn in enumerate(one.rounds, start=1):
                maps.append(turn.saliency)
                titles.append(f"round {number}: P {turn.probability_before:.3f} to {turn.probability_after:.3f}")
                signs.append(False)
            whole = "all rounds" if one.rounds else f"{name}, P = {one.explanation.probability:.3f}"
            titles.append(whole)
        maps.append(one.saliency)
        signs.append("Against" in one.provenance)
    fused = "saliency, 0 to 1" if any(one.rounds for one in results) else "saliency (light x shadow)"
    return overlay_figure(picture, maps, titles, label=fused, signed=signs, signed_label="difference of saliency")


def _grey(picture: Any) -> np.ndarray:
    """``(rows, cols)`` in [0, 1], dark pictures brightened: 0 to 1 are the 1st and 99th percentile."""
    values = np.asarray(picture, dtype=np.float64)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3):
        raise GlasError(f"a picture must be (rows, cols) or (rows, cols, 3), got {values.shape}")
    grey = values if values.ndim == 2 else values @ _LUMA
    low, high = np.percentile(grey, [1, 99])
    stretched: np.ndarray = np.clip((grey - low) / max(high - low, 1.0), 0.0, 1.0)
    return stretched


def _colours(picture: Any) -> np.ndarray:
    """The picture itself, ``(rows, cols, 3)`` in [0, 1]."""
    values = np.clip(np.asarray(picture, dtype=np.float64) / 255.0, 0.0, 1.0)
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


class _Scale:
    """A colour scale as it looks over a picture."""

    def __init__(self, low: float, high: float, signed: bool) -> None:
        self.norm = Normalize(low, high if high > low else low + 1.0)
        self.colours: Colormap = matplotlib.colormaps[_SIGNED if signed else _UNSIGNED]

    @property
    def power(self) -> int:
        """Of ten, that the bar's numbers are in."""
        largest = max(abs(self.norm.vmin or 0.0), abs(self.norm.vmax or 0.0))
        power = math.floor(math.log10(largest)) if largest > 0 else 0
        return 0 if -2 <= power <= 2 else power

    def shown(self) -> ScalarMappable:
        """For the colour bar: the colours as they are over mid grey."""
        own = self.colours(np.linspace(0, 1, 256))[:, :3]
        return ScalarMappable(self.norm, ListedColormap(_COVER * own + (1 - _COVER) * _MID_GREY))


def _scales(drawn: Sequence[np.ndarray | None], signs: Sequence[bool], shared: bool) -> list[_Scale | None]:
    def of(some: Sequence[np.ndarray], signed: bool) -> _Scale:
        low, high = min(float(one.min()) for one in some), max(float(one.max()) for one in some)
        if signed:
            reach = max(abs(low), abs(high))
            return _Scale(-reach, reach, True)
        return _Scale(min(low, 0.0), high, False)

    if not shared:
        return [None if one is None else of([one], signed) for one, signed in zip(drawn, signs, strict=True)]
    groups = {
        kind: [one for one, signed in zip(drawn, signs, strict=True) if one is not None and signed == kind]
        for kind in (False, True)
    }
    made = {kind: of(some, kind) for kind, some in groups.items() if some}
    return [None if one is None else made[signed] for one, signed in zip(drawn, signs, strict=True)]


def _blend(grey: np.ndarray, values: np.ndarray, scale: _Scale) -> np.ndarray:
    over = scale.colours(scale.norm(values))[..., :3]
    blended: np.ndarray = _COVER * over + (1 - _COVER) * grey[..., None]
    return blended


def _mark(axes: Axes, places: Any, marker: str) -> None:
    places = np.asarray(places, dtype=np.float64).reshape(-1, 2)
    axes.plot(
        places[:, 1],
        places[:, 0],
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
    """A colour bar a scale, beside the panels it is of."""
    groups: dict[int, tuple[_Scale, list[Axes], bool]] = {}
    for axes, scale, signed in zip(panels, scales, signs, strict=True):
        if scale is not None:
            groups.setdefault(id(scale), (scale, [], signed))[1].append(axes)
    for scale, own, signed in groups.values():
        if len(groups) > 1:  # bars of several scales would lie upon each other beside the same rows
            own = own[-1:]
        bar = figure.colorbar(scale.shown(), ax=own, shrink=0.85, pad=0.015, fraction=0.05)
        text = signed_label if signed else label
        power = scale.power
        bar.formatter = FuncFormatter(lambda value, _, power=power: f"{value / 10.0**power:.3g}")
        bar.set_label(text if power == 0 else f"{text}, $10^{{{power}}}$", fontsize=8.5)
        bar.ax.tick_params(labelsize=7.5)
        bar.update_ticks()
