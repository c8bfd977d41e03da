"""How objects show themselves: a short HTML table in notebooks, and figures of results.

What draws a result belongs to the room of figures, which knows the results; `Drawn` reaches it by the names in
`DRAWING`, so that a result does not import the room above it.
"""

from __future__ import annotations

import os
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from html import escape
from typing import Any

# The functions that draw a result, by the method of the result that calls them.
DRAWING = {
    "plot": "glas3d.report.plotting:plot",
    "view": "glas3d.report.viewing:view",
    "to_html": "glas3d.report.summary_page:to_html",
    "report": "glas3d.report.webpage.writing:save_report",
}

_STYLE = "border-collapse:collapse;font-size:90%;margin:.3em 0"
_CELL = "padding:.15em .6em;text-align:{};border:none;border-top:1px solid rgba(128,128,128,.35);vertical-align:top"
_NOTE = "border-left:4px solid #d98c00;padding-left:.6em;margin:.3em 0"
_BAR = "background:linear-gradient(90deg,rgba(66,133,180,.35) {0:z.0%},transparent {0:z.0%})"


def shown_output(name: str, value: float, against: str | None = None, digits: int = 3) -> str:
    """Return the output that was explained, as ``P(AD) = 0.982``, or of one class less another.

    The output of a model that gives no probabilities, such as a regressor, is shown as a number.

    Examples
    --------
    >>> shown_output("AD", 0.98231), shown_output("AD", 0.7, "NC"), shown_output("class 1", -194.058)
    ('P(AD) = 0.982', 'P(AD) - P(NC) = +0.700', 'output for class 1 = -194.1')
    """
    if against is not None:
        is_probability, shown = abs(value) <= 1, f"{value:+z.{digits}f}"
        return f"P({name}) - P({against}) = {shown}" if is_probability else f"{name} less {against} = {value:+z.4g}"
    return f"P({name}) = {value:.{digits}f}" if 0 <= value <= 1 else f"output for {name} = {value:.4g}"


@dataclass(frozen=True)
class Summary:
    """What a notebook shows of an object; every text is shown as it is, never as markup.

    Attributes
    ----------
    title
        The object in a few words.
    facts
        What is known about it, by name.
    columns, rows
        A table: titles, and the cells of each row. Numbers are aligned to the right.
    shares
        For each row, the length of a bar behind its last cell, 0 to 1; empty: no bars.
    caption
        What the table holds.
    notes
        What a reader must know.
    """

    title: str
    facts: Mapping[str, object] = field(default_factory=dict)
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    shares: Sequence[float] = ()
    caption: str = ""
    notes: Sequence[str] = ()

    def html(self) -> str:
        """Return the summary as a fragment of HTML without scripts."""
        parts = [f"<div><strong>{escape(self.title)}</strong>"]
        if self.facts:
            cells = "".join(
                f'<tr><th style="{_CELL.format("left")};font-weight:normal;opacity:.7">{escape(name)}</th>'
                f'<td style="{_CELL.format("left")}">{escape(str(value))}</td></tr>'
                for name, value in self.facts.items()
            )
            parts.append(f'<table style="{_STYLE}"><tbody>{cells}</tbody></table>')
        for note in self.notes:
            parts.append(f'<div style="{_NOTE}">{escape(note)}</div>')
        if self.rows:
            parts.append(self._table())
        return "\n".join([*parts, "</div>"])

    def _table(self) -> str:
        sides = ["right" if all(_is_number(row[i]) for row in self.rows) else "left" for i in range(len(self.columns))]
        head = "".join(
            f'<th scope="col" style="{_CELL.format(side)}">{escape(name)}</th>'
            for side, name in zip(sides, self.columns, strict=True)
        )
        body = []
        for number, row in enumerate(self.rows):
            cells: list[str] = []
            for side, cell in zip(sides, row, strict=True):
                bar = ""
                if self.shares and len(cells) == len(row) - 1:
                    bar = ";" + _BAR.format(min(max(self.shares[number], 0.0), 1.0))
                cells.append(f'<td style="{_CELL.format(side)}{bar}">{escape(str(cell))}</td>')
            body.append(f"<tr>{''.join(cells)}</tr>")
        caption = ""
        if self.caption:
            caption = f'<caption style="text-align:left;opacity:.7">{escape(self.caption)}</caption>'
        lines = "\n".join(body)
        return f'<table style="{_STYLE}">{caption}<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'


def _is_number(cell: object) -> bool:
    try:
        float(str(cell).replace("−", "-"))
    except ValueError:
        return str(cell) in ("", "n/a")
    return True


def fields_repr(self: Any) -> str:
    """Return the representation of a dataclass, with the size of its arrays, tables and images in place of them."""
    shown = (f"{each.name}={_short(getattr(self, each.name))}" for each in fields(self) if each.repr)
    return f"{type(self).__name__}({', '.join(shown)})"


def _short(value: object) -> str:
    shape = getattr(value, "shape", None)
    return repr(value) if shape is None else f"<{type(value).__name__} {' x '.join(map(str, shape))}>"


class ShownInNotebooks(ABC):
    """An object that notebooks show as a table."""

    @abstractmethod
    def _summary(self) -> Summary:
        """Return what a notebook shows."""

    def _repr_html_(self) -> str:
        return self._summary().html()


class Drawn(ShownInNotebooks):
    """A result that can be drawn."""

    def plot(self, kind: str | None = None, **options: Any) -> Any:
        """Draw a figure of this result.

        Parameters
        ----------
        kind
            One of the figures that `glas3d.report.figure_kinds` lists for it. None (default): the first of them.
        **options
            See the function that draws this kind.

        Returns
        -------
        A matplotlib figure that pyplot does not manage: a notebook shows it, ``figure.savefig("map.pdf")`` writes it.

        Raises
        ------
        GlasError
            There is no such figure of this result; the message names those that there are.
        """
        return drawing_function("plot")(self, kind, **options)

    def view(self, **options: Any) -> Any:
        """Return an interactive view of the map, which a notebook shows and ``.open_in_browser()`` opens.

        Parameters
        ----------
        **options
            See `glas3d.report.view`.

        Raises
        ------
        GlasError
            The result has no map to be viewed.
        """
        return drawing_function("view")(self, **options)

    def to_html(self, file: str | os.PathLike[str] | None = None) -> str:
        """Return a page with the summary, the figure and the table of all regions; it needs no other file.

        Parameters
        ----------
        file
            Where to write the page too. None (default): it is not written.
        """
        page: str = drawing_function("to_html")(self, file)
        return page


def drawing_function(method: str) -> Any:
    """Return the function that does what a method of a result does, by the name of the method in `DRAWING`."""
    return pkgutil.resolve_name(DRAWING[method])
