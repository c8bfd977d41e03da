"""Bars of regions with their intervals, drawn as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.ticker import MaxNLocator

_ROW, _NAMES, _WIDTH, _AXIS = 26, 190, 640, 34


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes
    ----------
    name
        The region.
    value
        Its length.
    half
        Half the width of its interval; None: it has none.
    """

    name: str
    value: float
    half: float | None = None


def bars(rows: Sequence[Bar], label: str) -> str:
    """Draw horizontal bars from 0, with intervals where they are known.

    Parameters
    ----------
    rows
        The bars, the first on top.
    label
        What the axis shows.

    Returns
    -------
    An ``<svg>`` element, in which all names are text.
    """
    ends = [0.0]
    for row in rows:
        ends += [row.value - (row.half or 0.0), row.value + (row.half or 0.0)]
    ticks = MaxNLocator(5).tick_values(min(ends), max(ends))
    low, high = min(ticks[0], min(ends)), max(ticks[-1], max(ends))
    height = _ROW * len(rows) + _AXIS

    def x(value: float) -> float:
        return round(_NAMES + (value - low) / ((high - low) or 1.0) * (_WIDTH - _NAMES - 34), 1)

    described = "; ".join(f"{row.name} {_with_interval(row)}" for row in rows)
    parts = [
        f'<svg class="bars" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(f"{label}: {described}")}">'
    ]
    for tick in ticks:
        if low <= tick <= high:
            parts.append(f'<line class="rule" x1="{x(tick)}" x2="{x(tick)}" y1="0" y2="{_ROW * len(rows)}"/>')
            parts.append(f'<text class="tick" x="{x(tick)}" y="{_ROW * len(rows) + 16}">{_short(tick)}</text>')
    for number, row in enumerate(rows):
        top, middle = number * _ROW + 5, number * _ROW + _ROW / 2
        left, right = sorted((x(0), x(row.value)))
        kind = "for" if row.value >= 0 else "against"
        parts.append(f'<text class="name" x="{_NAMES - 8}" y="{middle + 4}">{escape(_truncated(row.name))}</text>')
        parts.append(
            f'<rect class="{kind}" x="{left}" y="{top}" width="{round(right - left, 1)}" height="{_ROW - 10}"/>'
        )
        if row.half is not None:
            first, last = x(row.value - row.half), x(row.value + row.half)
            parts.append(f'<line class="interval" x1="{first}" x2="{last}" y1="{middle}" y2="{middle}"/>')
            parts += [
                f'<line class="interval" x1="{end}" x2="{end}" y1="{middle - 4}" y2="{middle + 4}"/>'
                for end in (first, last)
            ]
    parts.append(f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="0" y2="{_ROW * len(rows)}"/></svg>')
    return "".join(parts)


def _with_interval(row: Bar) -> str:
    if row.half is None:
        return f"{row.value:.3g}"
    return f"{row.value:.3g} ({row.value - row.half:.3g} to {row.value + row.half:.3g})"


def _short(tick: float) -> str:
    return f"{0.0 if np.isclose(tick, 0, atol=1e-12) else tick:.3g}"


def _truncated(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:25]}…"
