"""Figures that compare: groups, folds or runs, and explanation methods, region by region."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from glas3d.errors import GlasError
from glas3d.report.charts import AGAINST, FOR, plain_axes

_SIGNIFICANT = 0.05
_SEQUENTIAL = "YlGnBu"


def groups_figure(
    statistics: pd.DataFrame, *, title: str, case: str, control: str, label: str = "mean score", top: int = 20
) -> Figure:
    """Draw where two groups differ: the means of both, and the standardised difference with its interval.

    Parameters
    ----------
    statistics
        The comparison (`glas3d.statistics.two_groups.compare`): ``name``, the means ``mean_<group>`` (or ``mean_case``
        and ``mean_control``), ``hedges_g``, ``d_low``, ``d_high``, ``p_uncorrected`` and ``p_fwe``.
    title, label
        The figure's title, and what the means are of.
    case, control
        Names of the groups.
    top
        How many regions are shown: those with the largest standardised differences.

    Raises
    ------
    GlasError
        No region was compared.
    """
    means = [
        next((name for name in (f"mean_{group}", role) if name in statistics), role)
        for group, role in ((case, "mean_case"), (control, "mean_control"))
    ]
    needed = {"name", "hedges_g", "d_low", "d_high", "p_fwe", *means}
    if not needed <= set(statistics) or statistics["hedges_g"].notna().sum() == 0:
        raise GlasError(f"a figure of {case} against {control} needs their comparison, region by region")
    known = statistics.dropna(subset=["hedges_g"])
    shown = known.reindex(known["hedges_g"].abs().sort_values(ascending=False, kind="stable").index).head(top)
    shown = shown.sort_values("hedges_g", ascending=False, kind="stable")
    heights = np.arange(len(shown))
    figure = Figure(figsize=(9.4, 1.45 + 0.24 * len(shown)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.15))
    first, second = (shown[name].to_numpy(dtype=float) for name in means)
    left.hlines(heights, np.minimum(first, second), np.maximum(first, second), color="#bbbbbb", linewidth=2, zorder=1)
    left.scatter(first, heights, s=30, c=FOR, marker="o", label=case, zorder=2)
    left.scatter(second, heights, s=30, c=AGAINST, marker="s", label=control, zorder=2)
    left.set_yticks(heights, shown["name"].astype(str), fontsize=8.5)
    left.set_ylim(len(shown) - 0.4, -0.6)
    left.set_xlabel(label, fontsize=9)
    left.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    g = shown["hedges_g"].to_numpy(dtype=float)
    ends = np.stack([g - shown["d_low"].to_numpy(dtype=float), shown["d_high"].to_numpy(dtype=float) - g])
    is_significant = (shown["p_fwe"] < _SIGNIFICANT).to_numpy()
    right.axvline(0, color="black", linewidth=0.8)
    for chosen, face, text in (
        (is_significant, "black", f"corrected p < {_SIGNIFICANT}"),
        (~is_significant, "white", f"corrected p ≥ {_SIGNIFICANT}"),
    ):
        if chosen.any():
            right.errorbar(
                g[chosen],
                heights[chosen],
                xerr=np.abs(ends[:, chosen]),
                fmt="o",
                markersize=5,
                color="black",
                markerfacecolor=face,
                elinewidth=0.9,
                capsize=2,
                label=text,
            )
    right.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    right.set_xlabel(f"Hedges' g with 95 % interval: {case} higher to the right", fontsize=9)
    for axes in (left, right):
        plain_axes(axes, grid="x")
    right.tick_params(axis="y", length=0)
    n = len(known)
    figure.suptitle(title, fontsize=11, weight="bold", x=0.01, ha="left")
    if n > len(shown):
        figure.supxlabel(f"the {len(shown)} of {n} regions that differ most", fontsize=8, x=0.01, ha="left")
    return figure


def stability_figure(pairs: pd.DataFrame, summary: pd.DataFrame, *, title: str) -> Figure:
    """Draw how alike the mean scores of folds or runs are, for every two of them.

    Parameters
    ----------
    pairs
        ``first``, ``second`` and a column for each measure, such as ``spearman`` and ``jaccard``.
    summary
        ``measure``, ``mean``, ``low`` and ``high`` over all pairs.
    title
        The figure's title.

    Raises
    ------
    GlasError
        There are no pairs.
    """
    if pairs.empty:
        raise GlasError("a figure of stability needs two folds or runs or more")
    names = list(dict.fromkeys([*pairs["first"].astype(str), *pairs["second"].astype(str)]))
    measures = [name for name in pairs.columns if name not in ("first", "second")]
    size = max(0.42 * len(names), 1.9)
    figure = Figure(figsize=((size + 1.7) * len(measures) + 0.2, size + 1.6), layout="constrained")
    panels = figure.subplots(1, len(measures), squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
        values = np.full((len(names), len(names)), np.nan)
        for row in pairs.to_dict("records"):
            i, j = names.index(str(row["first"])), names.index(str(row["second"]))
            values[i, j] = values[j, i] = row[measure]
        lowest = min(0.0, float(np.nanmin(values)) if np.isfinite(values).any() else 0.0)
        image = axes.imshow(values, cmap=_SEQUENTIAL, vmin=lowest, vmax=1)
        _write_numbers(axes, values, lowest)
        axes.set_xticks(range(len(names)), names, fontsize=8, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.03)
        bar.ax.tick_params(labelsize=7.5)
        whole = summary[summary["measure"].astype(str).str.startswith(measure)]
        axes.set_title(_of_all_pairs(measure, whole, len(pairs)), fontsize=9, loc="left")
    figure.suptitle(title, fontsize=11, weight="bold", x=0.01, ha="left")
    return figure


def methods_figure(table: pd.DataFrame, methods: Sequence[str], *, title: str, top: int = 6) -> Figure:
    """Draw how several methods rank the regions: the rank in each cell, and the value as its colour.

    Parameters
    ----------
    table
        ``name`` and the values by each method, one column a method.
    methods
        The methods, the first of which the others are correlated with.
    title
        The figure's title.
    top
        The highest regions of each method are shown, this many of each.

    Raises
    ------
    GlasError
        No method has values.
    """
    values = table[list(methods)].astype(float)
    told_apart = [name for name in methods if values[name].nunique() > 1]
    if not told_apart:
        raise GlasError("a comparison needs a method whose values tell regions apart, there is none")
    ranks = values.rank(ascending=False, method="min")
    chosen = sorted(
        {i for name in told_apart for i in values[name].nlargest(top).index}, key=lambda i: ranks.loc[i].mean()
    )
    rho = values[told_apart].rank().corrwith(values[told_apart[0]].rank())
    scaled = values / values.abs().max().replace(0, 1)
    figure = Figure(figsize=(2.4 + 1.05 * len(methods), 1.9 + 0.25 * len(chosen)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(scaled.loc[chosen].to_numpy(), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for row, i in enumerate(chosen):
        for column, name in enumerate(methods):
            rank, strength = ranks.loc[i, name], scaled.loc[i, name]
            if rank == rank:
                ink = "white" if abs(strength) > 0.6 else "black"
                weight = "bold" if rank <= top else "normal"
                axes.text(column, row, f"{rank:z.0f}", ha="center", va="center", fontsize=8, color=ink, weight=weight)
    axes.set_yticks(range(len(chosen)), table.loc[chosen, "name"].astype(str), fontsize=8.5)
    names = [
        f"{name.replace('_', chr(10))}\n" + (f"ρ {rho[name]:+z.2f}" if name in rho else "ρ n/a") for name in methods
    ]
    axes.set_xticks(range(len(methods)), names, fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(len(methods) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(chosen) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    bar = figure.colorbar(image, ax=axes, orientation="horizontal", shrink=0.6, pad=0.02, aspect=30)
    bar.set_label(
        f"value over the method's largest; numbers are ranks; ρ: rank correlation with {told_apart[0]}", fontsize=8
    )
    bar.ax.tick_params(labelsize=7.5)
    figure.suptitle(title, fontsize=11, weight="bold", x=0.01, ha="left")
    return figure


def _write_numbers(axes: Axes, values: np.ndarray, lowest: float) -> None:
    """Write each value into its cell, in ink that can be read on its colour."""
    colours = matplotlib.colormaps[_SEQUENTIAL]
    for i, j in np.argwhere(np.isfinite(values)):
        lightness = float(np.dot(colours((values[i, j] - lowest) / (1 - lowest))[:3], (0.299, 0.587, 0.114)))
        axes.text(j, i, f"{values[i, j]:z.2f}", ha="center", va="center", fontsize=8, color="kw"[lightness < 0.55])


def _of_all_pairs(measure: str, summary: pd.DataFrame, n_pairs: int) -> str:
    """Return the mean of a measure over all pairs, with its interval where there is one."""
    names = {"spearman": "Spearman's correlation", "jaccard": "Jaccard index of the highest"}
    text = names.get(measure, measure)
    if summary.empty:
        return text
    row = summary.iloc[0]
    interval = "" if row["low"] != row["low"] else f" [{row['low']:z.2f}, {row['high']:z.2f}]"
    pairs = "1 pair" if n_pairs == 1 else f"mean of {n_pairs} pairs"
    return f"{text}\n{pairs}: {row['mean']:z.2f}{interval}"
