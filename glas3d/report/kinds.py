"""The kinds of figures: what each shows, and which results have it. Commands and pages list them from here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from glas3d.errors import GlasError, listed
from glas3d.imaging.atlas import Atlas
from glas3d.report.charts import bars_figure, light_shadow_figure
from glas3d.report.maps import BrainMap, glass_figure, mosaic_figure, surface_figure
from glas3d.report.regions import five_regions_figure


@dataclass(frozen=True, eq=False)
class Shown:
    """A result as figures need it, from memory or from files.

    Attributes
    ----------
    title
        Title of the figures.
    target
        The class that is explained.
    units
        The scale of each column of the table.
    table
        One row for each region or point.
    brain_map
        The map of the scores; None: there is none.
    atlas
        The atlas of the regions; None: not known, or points.
    """

    title: str
    target: str
    units: Mapping[str, str]
    table: pd.DataFrame
    brain_map: BrainMap | None = None
    atlas: Atlas | None = None
    parts: Mapping[str, Shown] = field(default_factory=dict)


@dataclass(frozen=True)
class FigureKind:
    """A kind of figure.

    Attributes
    ----------
    name
        Its name in Python, on the command line and in file names.
    text
        What it shows, in a sentence.
    draw
        Draws it of a result.
    can
        Whether a result has what it needs.
    """

    name: str
    text: str
    draw: Callable[..., Figure]
    can: Callable[[Shown], bool]


def _map(shown: Shown) -> BrainMap:
    assert shown.brain_map is not None
    return shown.brain_map


def _regions(shown: Shown) -> Figure:
    return five_regions_figure(_map(shown), shown.table, shown.atlas)


def _mosaic(shown: Shown, **options: Any) -> Figure:
    return mosaic_figure(_map(shown), **options)


def _bars(shown: Shown, **options: Any) -> Figure:
    label = f"score: {shown.units.get('score', 'arbitrary')}"
    return bars_figure(shown.table, title=shown.title, label=label, target=shown.target, **options)


def _light_shadow(shown: Shown, **options: Any) -> Figure:
    unit = shown.units.get("light", "probability")
    return light_shadow_figure(shown.table, title=shown.title, unit=unit, target=shown.target, **options)


def _has_map(shown: Shown) -> bool:
    return shown.brain_map is not None


def _in_mni(shown: Shown) -> bool:
    return shown.brain_map is not None and shown.brain_map.is_in_mni


def _has_both_ends(shown: Shown) -> bool:
    return {"light", "drop"} <= set(shown.table) and bool(shown.table[["light", "drop"]].notna().all(axis=1).any())


KINDS = (
    FigureKind(
        "regions",
        "the five highest-scoring regions in five colours, above axial slices of the map, as the paper's figure 12",
        _regions,
        _has_map,
    ),
    FigureKind("mosaic", "axial slices of the map over the anatomy", _mosaic, _has_map),
    FigureKind("glass", "the map on a glass brain, from four sides", lambda s: glass_figure(_map(s)), _in_mni),
    FigureKind("surface", "the map on the inflated cortex (fsaverage5)", lambda s: surface_figure(_map(s)), _in_mni),
    FigureKind("bars", "the highest-scoring regions as bars, with intervals for groups", _bars, lambda s: True),
    FigureKind("light-shadow", "light against shadow of every region", _light_shadow, _has_both_ends),
)


def figure_kinds(shown: Shown | None = None) -> dict[str, str]:
    """Return what each kind of figure shows, by its name.

    Parameters
    ----------
    shown
        Only the kinds that can be drawn of this result; None: all.
    """
    return {kind.name: kind.text for kind in KINDS if shown is None or kind.can(shown)}


def draw(shown: Shown, kind: str | None = None, **options: Any) -> Figure:
    """Draw a figure of a result.

    Parameters
    ----------
    shown
        The result.
    kind
        The name of a kind; None: the first that can be drawn.
    **options
        Those of the function that draws it.

    Raises
    ------
    GlasError
        There is no such kind, or it cannot be drawn of this result.
    """
    can = [each for each in KINDS if each.can(shown)]
    if kind is None:
        return can[0].draw(shown, **options)
    if kind not in {each.name for each in KINDS}:
        raise GlasError(f"there is no figure {kind!r}, only {listed(each.name for each in KINDS)}")
    for each in can:
        if each.name == kind:
            return each.draw(shown, **options)
    raise GlasError(f"{shown.title} has no figure {kind!r}, only {', '.join(each.name for each in can)}")
