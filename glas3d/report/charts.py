"""Figures of tables: ranked regions with intervals, and light against shadow."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from glas3d.errors import GlasError

FOR, AGAINST, NEITHER = "#b2182b", "#2166ac", "#8c8c8c"  # the ends of the signed colours of maps; apart in grey, too
_LABELLED = 8


def bars_figure(
    table: pd.DataFrame,
    *,
    title: str,
    label: str,
    target: str = "the target",
    value: str = "score",
    top: int = 20,
) -> Figure:
    """Draw the highest-scoring regions as bars, coloured by what they say of the class.

    Parameters
    ----------
    table
        ``name`` and the values; ``low`` and ``high`` where they have intervals, ``direction`` where it is known.
    title, label
        The figure's title, and what the values are.
    target
        The class that is explained.
    value
        The column of the values.
    top
        How many regions are shown. Of signed values these are the largest on either side.

    Raises
    ------
    GlasError
        No row has a value.
    """
    known = table.dropna(subset=[value])
    if known.empty:
        raise GlasError(f"bars need regions with a {value}, the table has none")
    is_signed = bool((known[value] < 0).any())
    shown = known.reindex(known[value].abs().sort_values(ascending=False, kind="stable").index).head(top)
    shown = shown.sort_values(value, ascending=False, kind="stable")
    figure = Figure(figsize=(7.2, 1.15 + 0.235 * len(shown)), layout="constrained")
    axes = figure.subplots()
    heights = np.arange(len(shown))
    values = shown[value].to_numpy(dtype=float)
    colours = _colours_of(shown, values if is_signed else None)
    axes.barh(heights, values, height=0.7, color=colours)
    if {"low", "high"} <= set(shown):
        low, high = (shown[end].to_numpy(dtype=float) for end in ("low", "high"))
        spread = np.abs(np.stack([values - low, high - values]))
        axes.errorbar(values, heights, xerr=spread, fmt="none", ecolor="black", elinewidth=0.9, capsize=2)
    axes.set_yticks(heights, shown["name"].astype(str), fontsize=8.5)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel(label, fontsize=9)
    plain_axes(axes, grid="x")
    _key(axes, colours, target, "lower right")
    figure.suptitle(title, fontsize=11, weight="bold", x=0.01, ha="left")
    return figure


def light_shadow_figure(
    table: pd.DataFrame, *, title: str, unit: str, target: str = "the target", labelled: int = _LABELLED
) -> Figure:
    """Draw light against shadow: what each region says alone, and what is lost without it.

    Parameters
    ----------
    table
        ``name light drop rank`` and ``direction`` of each region.
    title, unit
        The figure's title, and the scale of light and drop.
    target
        The class that is explained.
    labelled
        How many of the highest-scoring regions are named.

    Raises
    ------
    GlasError
        Light or shadow was not evaluated.
    """
    known = table.dropna(subset=["light", "drop"])
    if known.empty:
        raise GlasError("light against shadow needs both, and only one of them was evaluated")
    figure = Figure(figsize=(6.6, 5.4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="black", linewidth=0.8)
    colours = _colours_of(known, None)
    axes.scatter(known["light"], known["drop"], s=22, c=colours, alpha=0.75, linewidths=0)
    highest = known.dropna(subset=["rank"]).sort_values("rank").head(labelled) if "rank" in known else known.head(0)
    _name_points(axes, highest, "light", "drop")
    axes.set_xlabel(f"light: output when only the region is kept, {unit}", fontsize=9)
    axes.set_ylabel(f"shadow: drop of the output when it is removed, {unit}", fontsize=9)
    _key(axes, colours, target, "best")
    plain_axes(axes, grid="both")
    figure.suptitle(title, fontsize=11, weight="bold", x=0.01, ha="left")
    return figure


def _name_points(axes: Axes, rows: pd.DataFrame, x: str, y: str) -> None:
    """Write the names of points next to them: on the side with more space, and no two at the same height."""
    if rows.empty:
        return
    low, high = axes.get_xlim()
    bottom, top = axes.get_ylim()
    apart = 0.042 * (top - bottom)
    taken: list[tuple[bool, float]] = []
    for row in rows.sort_values(y, ascending=False).to_dict("records"):
        is_right = (row[x] - low) > 0.6 * (high - low)
        own = [height for side, height in taken if side == is_right]
        steps = np.concatenate([[0.0], np.ravel([[0.25 * i, -0.25 * i] for i in range(1, 80)])]) * apart
        height = next(float(row[y]) + step for step in steps if all(abs(row[y] + step - h) >= apart for h in own))
        taken.append((is_right, height))
        axes.annotate(
            str(row["name"]),
            (row[x], row[y]),
            xytext=(row[x] + (-1 if is_right else 1) * 0.02 * (high - low), height),
            ha="right" if is_right else "left",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#777777", "shrinkA": 0, "shrinkB": 2},
        )


def _colours_of(table: pd.DataFrame, signs: np.ndarray | None) -> list[str]:
    """Return the colour of each row: by the sign of its value, else by its direction."""
    if signs is None:
        direction = table["direction"] if "direction" in table else pd.Series("", table.index)
        signs = direction.map({"for": 1, "against": -1}).fillna(0).to_numpy(dtype=float)
    return [FOR if sign > 0 else AGAINST if sign < 0 else NEITHER for sign in signs]


def _key(axes: Axes, colours: Collection[str], target: str, where: Literal["best", "lower right"]) -> None:
    """Say which colours stand for what, unless no direction is known."""
    if set(colours) == {NEITHER}:
        return
    for colour, name in ((FOR, f"for {target}"), (AGAINST, f"against {target}"), (NEITHER, "neither")):
        if colour in colours:
            axes.scatter([], [], s=36, c=colour, marker="s", label=name)
    axes.legend(fontsize=8, frameon=False, loc=where)


def plain_axes(axes: Axes, grid: str) -> None:
    """Take away what says nothing, and draw a faint grid under the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(axis=grid, color="#dddddd", linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
