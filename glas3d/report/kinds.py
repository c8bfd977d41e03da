"""The kinds of figures: what each shows, and which results have it. Commands and pages list them from here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from glas3d.errors import GlasError
from glas3d.explain.image_result import ImageExplanation
from glas3d.imaging.anatomy import anatomy_of
from glas3d.imaging.atlas import Atlas
from glas3d.report.charts import bars_figure, light_shadow_figure
from glas3d.report.comparisons import groups_figure, methods_figure, stability_figure
from glas3d.report.kind_names import KIND_TEXTS
from glas3d.report.maps import BrainMap, glass_figure, ladder_figure, mosaic_figure, surface_figure
from glas3d.report.overlay import result_figure
from glas3d.report.regions import five_regions_figure

_NAMED = 40  # highest-scoring points whose anatomy is named


@dataclass(frozen=True, eq=False)
class Shown:
    """A result as figures need it, from memory or from files.

    Attributes
    ----------
    stem
        Start of the names of its files.
    title
        Title of the figures.
    target
        The class that is explained.
    units
        The scale of each column of the table.
    table
        One row for each region or point; of a comparison of methods one column for each method.
    brain_map
        The map of the scores; None: there is none.
    atlas
        The atlas of the regions; None: not known, or points.
    image
        The explanation of an image; None: a scan or a group.
    scales
        The results for each scale of the masks, by what the figure calls them.
    methods
        The columns of the table that are methods.
    groups
        Case and control, of a table that compares them.
    stability
        For folds and for runs, how alike every two of them are, and all pairs together.
    intervals
        ``name``, ``mean``, ``low`` and ``high`` of the regions, over participants.
    """

    stem: str
    title: str
    target: str
    units: Mapping[str, str]
    table: pd.DataFrame
    brain_map: BrainMap | None = None
    atlas: Atlas | None = None
    image: ImageExplanation | None = None
    scales: Mapping[str, BrainMap] = field(default_factory=dict)
    methods: Sequence[str] = ()
    groups: tuple[str, str] | None = None
    stability: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]] = field(default_factory=dict)
    intervals: pd.DataFrame | None = None


def short_name(stem: str) -> str:
    """Return a name for titles: of a BIDS name the participant, session, run and suffix.

    Examples
    --------
    >>> short_name("sub-01_ses-M12_space-MNI152NLin2009aSym_res-4mm_desc-preproc_T1w"), short_name("scan 7")
    ('sub-01_ses-M12_T1w', 'scan 7')
    """
    if not stem.startswith("sub-"):
        return stem
    kept = [part for part in stem.split("_") if part.split("-")[0] in ("sub", "ses", "task", "acq", "run", part)]
    return "_".join(kept)


def score_label(units: str) -> str:
    """Return what scores are, for axes and colour bars."""
    return f"score: {units.replace('product of two probabilities', 'light x shadow')}" if units else "score"


def with_anatomy(table: pd.DataFrame, is_in_mni: bool) -> pd.DataFrame:
    """Return the table of points with the anatomy at the highest-scoring ones in their names; regions keep theirs."""
    points = table["name"].astype(str).str.fullmatch(r"point-\d+") if "name" in table and "x" in table else None
    if points is None or not is_in_mni or not points.any():
        return table
    table = table.copy()
    highest = table[points & (table["rank"] <= _NAMED)]
    names = anatomy_of(highest[list("xyz")].to_numpy(dtype=float), Atlas.load("AAL"))
    table.loc[highest.index, "name"] = [f"{own}, {where}" for own, where in zip(highest["name"], names, strict=True)]
    return table


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


def _regions(shown: Shown, **options: Any) -> Figure:
    return five_regions_figure(_map(shown), shown.table, shown.atlas, **options)


def _mosaic(shown: Shown, **options: Any) -> Figure:
    return mosaic_figure(_map(shown), **options)


def _overlay(shown: Shown) -> Figure:
    assert shown.image is not None
    return result_figure(shown.image)


def _bars(shown: Shown, **options: Any) -> Figure:
    if shown.intervals is not None:
        label = f"mean over participants with 95 % interval\n{shown.units.get('mean', 'normalised score')}"
        known = {"direction"} & set(shown.table)
        table = shown.intervals.merge(shown.table[["name", *known]], on="name", how="left")
        return bars_figure(table, title=shown.title, label=label, target=shown.target, value="mean", **options)
    label = score_label(shown.units.get("score", ""))
    return bars_figure(shown.table, title=shown.title, label=label, target=shown.target, **options)


def _light_shadow(shown: Shown, **options: Any) -> Figure:
    unit = shown.units.get("light", "probability")
    return light_shadow_figure(shown.table, title=shown.title, unit=unit, target=shown.target, **options)


def _groups(shown: Shown, **options: Any) -> Figure:
    assert shown.groups is not None
    case, control = shown.groups
    means = shown.units.get(f"mean_{case}") or shown.units.get("mean_case", "score")
    label = f"mean: {means}"
    return groups_figure(shown.table, title=shown.title, case=case, control=control, label=label, **options)


def _stability(shown: Shown, **options: Any) -> Figure:
    over, (pairs, summary) = next(iter(shown.stability.items()))
    return stability_figure(pairs, summary, title=f"{shown.title}: agreement of {over}", **options)


def _methods(shown: Shown, **options: Any) -> Figure:
    return methods_figure(shown.table, shown.methods, title=shown.title, **options)


def _scales(shown: Shown, **options: Any) -> Figure:
    return ladder_figure({**shown.scales, "all scales": _map(shown)}, title=shown.title, **options)


def _has_map(shown: Shown) -> bool:
    return shown.brain_map is not None


def _in_mni(shown: Shown) -> bool:
    return shown.brain_map is not None and shown.brain_map.is_in_mni


def _has_scores(shown: Shown) -> bool:
    return "score" in shown.table and not shown.methods


def _has_both_ends(shown: Shown) -> bool:
    return {"light", "drop"} <= set(shown.table) and bool(shown.table[["light", "drop"]].notna().all(axis=1).any())


_DRAWN: dict[str, tuple[Callable[..., Figure], Callable[[Shown], bool]]] = {
    "regions": (_regions, _has_map),
    "mosaic": (_mosaic, _has_map),
    "glass": (lambda shown: glass_figure(_map(shown)), _in_mni),
    "surface": (lambda shown: surface_figure(_map(shown)), _in_mni),
    "overlay": (_overlay, lambda shown: shown.image is not None),
    "bars": (_bars, _has_scores),
    "light-shadow": (_light_shadow, _has_both_ends),
    "scales": (_scales, lambda shown: bool(shown.scales)),
    "groups": (_groups, lambda shown: shown.groups is not None),
    "stability": (_stability, lambda shown: bool(shown.stability)),
    "methods": (_methods, lambda shown: bool(shown.methods)),
}
KINDS = tuple(FigureKind(name, text, *_DRAWN[name]) for name, text in KIND_TEXTS.items())


def figure_kinds() -> dict[str, str]:
    """Return what each kind of figure shows, by its name."""
    return dict(KIND_TEXTS)


def kinds_of(shown: Shown) -> list[str]:
    """Return the names of the kinds that a result has, the default first."""
    return [kind.name for kind in KINDS if kind.can(shown)]


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
    names = kinds_of(shown)
    check_kind(kind)
    if kind is not None and kind not in names:
        raise GlasError(f"{shown.title} has no figure {kind!r}, only {', '.join(names)}")
    chosen = kind or names[0]
    return next(each for each in KINDS if each.name == chosen).draw(shown, **options)


def check_kind(kind: str | None) -> None:
    """Refuse a kind of figure that does not exist.

    Raises
    ------
    GlasError
        There is no such kind.
    """
    if kind is not None and kind not in figure_kinds():
        raise GlasError(f"there is no figure {kind!r}, only {', '.join(figure_kinds())}")
