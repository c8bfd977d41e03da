"""A figure of what each reference says about the highest-scoring regions, and how many references agree."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from glas3d.core.reference import Consensus
from glas3d.errors import GlasError
from glas3d.report.figure_files import png_writer

_FOR, _AGAINST, _NEITHER = "#b2182b", "#2166ac", "#9a9a9a"  # the ends and the middle of the colour map
_MARK = "◆ "


def references_figure(
    consensus: Consensus,
    names: Sequence[str],
    *,
    title: str,
    unit: str = "drop of P(y)",
    marked: Collection[str] = (),
    marked_as: str = "known truth",
    alone: Mapping[str, float] | None = None,
    top: int = 20,
) -> Callable[[Path], None]:
    """Draw the figure and return a function that saves it as PNG to a path and closes it.

    Regions are in the order of the consensus. Each reference has a column of signed drops, with the region's rank
    under that reference in each cell. Further columns show how many references agree on the sign (0: no sign has a
    majority), and the consensus score. Colours are on a square-root scale.

    Parameters
    ----------
    consensus
        The result of `consensus` for ``m`` points under ``k`` references.
    names
        ``(m,)`` names of the points, such as regions.
    title
        The figure's title.
    unit
        What the drops are, for the label of the colour bar.
    marked
        Names to mark, such as planted regions; marked names that are not among the first ``top`` are below a line.
    marked_as
        What the mark means, for the legend.
    alone
        The model's probability for each reference itself, by its name; it is written below the column's name.
    top
        How many regions are shown.

    Raises
    ------
    GlasError
        The number of names is not the number of points, or ``alone`` lacks one of the references.
    """
    m = len(consensus.sign)
    if len(names) != m:
        raise GlasError(f"the figure needs a name for each of {m} points, got {len(names)}")
    missing = [] if alone is None else [name for name in consensus.names if name not in alone]
    if missing:
        raise GlasError(f"alone must hold a probability for every reference, {missing[0]!r} has none")
    score = consensus.explanation.score
    order = np.argsort(-score, kind="stable")
    shown = order[:top]
    below = np.array([i for i in order[top:] if names[i] in marked], dtype=int)
    rows = np.concatenate([shown, below])
    # heights of the rows; marked rows below the others stand apart
    height_of = np.arange(len(rows)) + 0.6 * (np.arange(len(rows)) >= len(shown))
    k = len(consensus.names)
    width = 5.2 + 0.95 * k
    notes = [
        "in a cell: the region's rank under that reference",
        "" if alone is None else "alone: the probability of the reference itself",
        f"{_MARK}{marked_as}" if marked else "",
        "0: no sign has a majority" if (consensus.sign[rows] == 0).any() else "",
    ]
    # 0.125 and 0.08 are the inches that a letter takes at these sizes
    headline, notes = wrap(title, int(width / 0.125)), _joined(notes, int(width / 0.08))
    above = 1.0 + 0.22 * len(headline) + 0.18 * len(notes)
    height = 0.95 + above + 0.27 * (height_of[-1] + 1)
    figure = plt.figure(figsize=(width, height), facecolor="white")
    try:
        heat, signs, bars, key = _axes(figure, k, above)
        figure.text(0.012, 1 - 0.14 / height, "\n".join(headline), fontsize=12, weight="bold", va="top")
        figure.text(0.012, 1 - (0.22 + 0.22 * len(headline)) / height, "\n".join(notes), fontsize=8.5, va="top")
        norm = _norm(consensus.drop[:, rows])
        _draw_drops(heat, consensus, rows, height_of, norm, alone)
        _draw_signs(signs, consensus, rows, height_of)
        _draw_scores(bars, score[rows], height_of)
        rank = np.empty(m, dtype=int)
        rank[order] = np.arange(1, m + 1)
        heat.set_yticks(
            height_of, [f"{_MARK * (names[i] in marked)}{names[i]}  {rank[i]:>3}" for i in rows], fontsize=8.5
        )
        for label, i in zip(heat.get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if names[i] in marked else "normal")
        for axes in (heat, signs, bars):
            axes.set_ylim(height_of[-1] + 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
            for side in ("top", "right", "bottom", "left"):
                axes.spines[side].set_visible(axes is bars and side == "bottom")
            if axes is not heat:
                axes.set_yticks([])
            if len(below):
                axes.axhline(len(shown) - 0.2, color="black", linewidth=0.6, linestyle=(0, (4, 3)))
        _draw_key(figure, key, norm, unit)
    except BaseException:
        plt.close(figure)
        raise

    return png_writer(figure, 130)


def _draw_scores(axes: Axes, scores: np.ndarray, heights: np.ndarray) -> None:
    """Draw the consensus scores as bars."""
    axes.barh(heights, scores, height=0.62, color="#4d4d4d")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_title("consensus score\n(share of all)", fontsize=9, loc="left")
    axes.tick_params(axis="x", labelsize=7)
    axes.locator_params(axis="x", nbins=3)


def _draw_key(figure: Figure, axes: Axes, norm: Normalize, unit: str) -> None:
    """Draw the colour bar of the drops."""
    bar = figure.colorbar(plt.cm.ScalarMappable(norm, "RdBu_r"), cax=axes, orientation="horizontal")
    bar.set_label(
        f"{unit} when the region is shaded, square-root scale\nred: speaks for the class, blue: against it",
        fontsize=8.5,
    )
    bar.set_ticks(_ticks(norm), labels=[f"{tick:+zg}" if tick else "0" for tick in _ticks(norm)])
    bar.ax.tick_params(labelsize=8)


def _joined(notes: Sequence[str], limit: int) -> list[str]:
    """Return the notes in lines of about ``limit`` letters; no note is broken."""
    lines: list[str] = []
    for note in filter(None, notes):
        if lines and len(lines[-1]) + len(note) + 5 <= limit:
            lines[-1] += "     " + note
        else:
            lines.append(note)
    return lines


def _axes(figure: Figure, k: int, above: float) -> tuple[Axes, Axes, Axes, Axes]:
    """Add and return the axes of drops, signs, scores and the colour bar, placed in inches from the corners."""
    width, height = figure.get_size_inches()

    def at(left: float, wide: float, bottom: float = 0.95) -> Axes:
        return figure.add_axes((left / width, bottom / height, wide / width, (height - bottom - above) / height))

    names, drops = 2.1, 0.95 * k
    heat, signs, bars = at(names, drops), at(names + drops + 0.15, 1.1), at(names + drops + 1.45, 1.1)
    key = figure.add_axes((names / width, 0.64 / height, max(drops, 3.8) / width, 0.13 / height))
    return heat, signs, bars, key


def _norm(drops: np.ndarray) -> Normalize:
    """Return a scale that is even about 0, so that white is no change, and a square root, so that small drops show."""
    largest = float(np.abs(drops).max()) or 1.0

    def root(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.sign(values) * np.sqrt(np.abs(values)))

    def square(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.sign(values) * np.square(values))

    return FuncNorm((root, square), -largest, largest)


def _ticks(norm: Normalize) -> list[float]:
    """Return 0 and the round numbers that divide the square-root scale about evenly."""
    assert norm.vmax is not None
    size = 10.0 ** np.floor(np.log10(norm.vmax))
    largest = next(step * size for step in (5, 2, 1) if step * size <= norm.vmax)
    ends = [round(float(largest * share), 12) for share in (0.1, 0.4, 1.0)]
    return [-tick for tick in reversed(ends)] + [0.0, *ends]


def _draw_drops(
    axes: Axes,
    consensus: Consensus,
    rows: np.ndarray,
    heights: np.ndarray,
    norm: Normalize,
    alone: Mapping[str, float] | None,
) -> None:
    """Draw a column for each reference: the drop as colour, the rank as number."""
    colours = plt.get_cmap("RdBu_r")
    headings = []
    for column, name in enumerate(consensus.names):
        rank = np.argsort(np.argsort(-consensus.share[column], kind="stable")) + 1
        for row, y in zip(rows, heights, strict=True):
            strength = float(norm(consensus.drop[column, row]))
            axes.add_patch(
                Rectangle((column - 0.48, y - 0.46), 0.96, 0.92, facecolor=colours(strength), edgecolor="#d0d0d0")
            )
            ink = "white" if abs(strength - 0.5) > 0.3 else "black"
            axes.text(column, y, str(rank[row]), ha="center", va="center", fontsize=7.5, color=ink)
        headings.append(name.replace(" ", "\n") + ("" if alone is None else f"\nalone: {alone[name]:z.2f}"))
    axes.set_xlim(-0.5, len(consensus.names) - 0.5)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(headings)), headings, fontsize=9)
    axes.tick_params(axis="x", length=0)


def _draw_signs(axes: Axes, consensus: Consensus, rows: np.ndarray, heights: np.ndarray) -> None:
    """Draw the majority's sign, and the share of references that agree on it as a bar."""
    k = len(consensus.names)
    for row, y in zip(rows, heights, strict=True):
        sign, share = consensus.sign[row], consensus.agreement[row]
        colour = _NEITHER if sign == 0 else _FOR if sign > 0 else _AGAINST
        axes.add_patch(Rectangle((0, y - 0.31), 1, 0.62, facecolor="#eeeeee"))
        axes.add_patch(Rectangle((0, y - 0.31), share, 0.62, facecolor=colour))
        symbol = {1: "+", -1: "−", 0: "0"}[int(sign)]
        axes.text(1.06, y, f"{symbol} {round(share * k)}/{k}", va="center", fontsize=8)
    axes.set_xlim(0, 1.6)
    axes.set_xticks([])
    axes.set_title("references that\nagree on the sign", fontsize=9, loc="left")
