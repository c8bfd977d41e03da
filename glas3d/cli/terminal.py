"""What a command writes to the terminal: results on standard output, notes and progress on standard error."""

from __future__ import annotations

import json
import logging
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from math import ceil
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from glas3d.cli.option_names import as_typed
from glas3d.counts import enumerated
from glas3d.errors import GlasWarning
from glas3d.evaluate.audits.checks import LITTLE, MUCH
from glas3d.progress import rate

if TYPE_CHECKING:
    import pandas as pd
    from rich.text import Text

    from glas3d.explain.cost import CostEstimate
    from glas3d.output import Columns

out = Console()
err = Console(stderr=True)
_log = logging.getLogger("glas3d.cli")
FIRST_LINE, SELDOM_LINES = 10.0, 300.0  # seconds between lines of progress where there is no terminal
_MOST_ROWS = 10  # of a table of regions
_PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False, "soft_wrap": True}


class _Reporting:
    """Whether results and notes are written, and how; one object, because a process runs one command at a time."""

    quiet = False
    names: Mapping[str, str] = {}


def use_option_names(names: Mapping[str, str]) -> None:
    """Show these options in messages, in place of the Python arguments that they set (see `option_names`)."""
    _Reporting.names = names


@contextmanager
def reporting(*, quiet: bool) -> Iterator[None]:
    """Write errors only, if ``quiet``, for as long as the block lasts."""
    previous, _Reporting.quiet = _Reporting.quiet, quiet
    try:
        yield
    finally:
        _Reporting.quiet = previous


class LogHandler(logging.Handler):
    """Writes log messages as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message, unless this module has already written it."""
        if record.name != _log.name:
            err.print(f"note: {printable(record.getMessage())}", style="yellow", **_PLAIN)


def printable(text: str) -> str:
    r"""Return a text for one line of a terminal: characters that control it, which names of files may hold, escaped.

    Examples
    --------
    >>> printable("scan of \x1b[31mred\n, 40 µm")
    'scan of \\x1b[31mred\\n, 40 µm'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def fail(message: str, status: int = 2) -> int:
    """Write one ``error:`` line and return the exit status."""
    line = printable(as_typed(" ".join(message.split()), _Reporting.names))
    err.print(_wrapped(f"error: {line}", _width(err)), style="red", **_PLAIN)
    return status


def _wrapped(line: str, width: int | None) -> str:
    """Return a line as lines of whole words where there is a width; words, such as paths, are never broken."""
    if width is None:
        return line
    whole = line.replace(" = ", "\u00a0=\u00a0")  # which textwrap does not take for a gap between words
    lines = textwrap.wrap(whole, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\u00a0=\u00a0", " = ")


def _width(console: Console) -> int | None:
    """Return the width of a terminal; None where the output is piped or in a file, where a message is one line."""
    return console.width if console.is_terminal else None


def warnings_shown_once() -> Callable[..., None]:
    """Return what replaces ``warnings.showwarning``: it writes each different message once."""
    shown: set[str] = set()

    def show(message: Warning | str, *details: object, **more: object) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            show_warning(message, *details, **more)

    return show


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Write one ``note:`` line, in place of the lines that Python writes."""
    message = printable(as_typed(str(message), _Reporting.names))
    _log.warning("%s", message)
    if not _Reporting.quiet:
        err.print(_wrapped(f"note: {message}", _width(err)), style="yellow", **_PLAIN)


def show_notes(notes: Iterable[str]) -> None:
    """Write notes on a result; those that were already given as warnings are not repeated."""
    for note in notes:
        warnings.warn(note, GlasWarning, stacklevel=2)


def write(text: str) -> None:
    """Write one line of the result."""
    _log.info("%s", text)
    if not _Reporting.quiet:
        out.print(_wrapped(printable(text), _width(out)), **_PLAIN)


def write_message(start: str, message: str) -> None:
    """Write a message of the package after the start of a line, as one line of the result."""
    write(start + as_typed(message, _Reporting.names))


def write_json(content: dict[str, Any]) -> None:
    """Write the result for other programs, as JSON on standard output; numbers that JSON lacks become null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        if hasattr(value, "item"):
            value = value.item()
        return None if isinstance(value, float) and not abs(value) < float("inf") else value

    sys.stdout.write(json.dumps(plain(content), indent=2, default=str) + "\n")


def write_table(
    table: pd.DataFrame, title: str, described: Columns, *, start: str = "", truth: pd.DataFrame | None = None
) -> None:
    """Write the ten highest-scoring rows, narrow enough for 80 columns, and what their numbers are.

    A line below names the row with the lowest score, where it is negative and as large as one of the ten.

    Parameters
    ----------
    table
        Regions or points with their ranks.
    title
        Title above the table, one line.
    described
        The description and the units of each column.
    start
        What comes first in the line on units.
    truth
        ``name``, ``planted`` and ``effect`` of each region, in place of light, shadow and direction. Default: they are
        not known.
    """
    rows = []
    known = None if truth is None else truth.set_index("name")
    formats = {"light": ".3f", "shadow": ".2g", "drop": "+z.2g", "score": ".3g"}
    if known is not None:
        formats = {"drop": "+z.2g", "score": ".3g"}
    ranked = table.dropna(subset=["rank"]).sort_values("rank")
    for row in ranked.head(_MOST_ROWS).to_dict("records"):
        cells = [f"{row['rank']}", f"{row['name']}", " ".join(f"{round(row[axis]):3d}" for axis in "xyz")]
        cells += ["n/a" if row[name] != row[name] else format(row[name], form) for name, form in formats.items()]
        if known is None:
            direction = row.get("direction")
            cells.append(direction if isinstance(direction, str) else "")
        else:
            planted, effect = known.loc[row["name"], ["planted", "effect"]]
            cells += ["yes" if planted else "", f"{effect:+z.2f}" if effect else "0"]
        rows.append(cells)
    last = ("direction",) if known is None else ("planted", "true effect")
    columns = ("rank", "region", "x y z, mm", *formats, *last)
    optional = ("shadow", "light", "x y z, mm") if known is None else ("drop", "x y z, mm")
    shown = (*formats, *({"direction"} & {*last}))
    note = start + _units_text(shown, described)
    write_rows(columns, rows, title, note, left=("region",), centre=("direction", "planted"), optional=optional)
    if len(ranked) <= _MOST_ROWS:
        return
    lowest = ranked.iloc[-1]
    if lowest["score"] < min(0.0, -ranked["score"].iloc[_MOST_ROWS - 1]):
        write(f"Most against the target: {lowest['name']}, score {lowest['score']:.3g}, rank {lowest['rank']}")


def _units_text(names: Sequence[str], described: Columns) -> str:
    """Return the units of columns, and what their direction is, as sentences.

    Examples
    --------
    >>> _units_text(["drop", "score", "direction"], {"drop": ("", "log-odds"), "score": ("", "log-odds"),
    ...     "direction": ("Sign of the evidence: for above 0, against below", "")})
    'Drop and score: log-odds. Direction: sign of the evidence.'
    """
    by_units: dict[str, list[str]] = {}
    for name in names:
        by_units.setdefault(described[name][1], []).append(name)
    sentences = []
    for units, columns in by_units.items():
        what = enumerated(columns)
        if "direction" in columns:
            units = described["direction"][0].partition(":")[0]
            units = units[0].lower() + units[1:]
        sentences.append(f"{what[0].upper()}{what[1:]}: {units}.")
    return " ".join(sentences)


def write_rows(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str,
    note: str = "",
    *,
    left: Collection[str] = (),
    centre: Collection[str] = (),
    wrapped: Collection[str] = (),
    optional: Sequence[str] = (),
) -> None:
    """Write a table of texts, as wide as the terminal at most; whole where the output is piped.

    Parameters
    ----------
    columns
        Titles of the columns.
    rows
        The cells of each row.
    title
        Title above the table, one line.
    note
        What a reader of the table must know, above it.
    left, centre
        Columns that are not aligned to the right.
    wrapped
        Columns of sentences, which take as many lines as they need.
    optional
        Columns that are left out, the first first, where all are wider than the terminal; a line says which.
    """
    if _Reporting.quiet:
        return
    from rich.table import Table

    cells = [dict(zip(columns, row, strict=True)) for row in rows]

    def table_of(chosen: Sequence[str]) -> Table:
        shown = Table(box=None, pad_edge=False, collapse_padding=True, header_style="dim")
        for column in chosen:
            align: Literal["left", "center", "right"] = (
                "left" if column in left else "center" if column in centre else "right"
            )
            # where the terminal is too narrow, names are shortened and not numbers
            shown.add_column(_text(column), justify=align, no_wrap=column not in (*left, *wrapped))
        for row in cells:
            shown.add_row(*(_text(row[column], wrap=column in wrapped) for column in chosen))
        return shown

    def whole_width(table: Table) -> int:
        return out.measure(table, options=out.options.update(width=10_000)).maximum

    chosen, left_out, width = list(columns), list[str](), _width(out)
    for column in optional:
        if width is not None and whole_width(table_of(chosen)) > width:
            chosen.remove(column)
            left_out.append(column)
    out.print(_wrapped(printable(title), width), style="bold", **_PLAIN)
    if note:
        out.print(_wrapped(printable(note), width), style="dim", **_PLAIN)
    shown = table_of(chosen)
    if width is None:  # nothing is shortened
        Console(file=out.file, width=whole_width(shown), color_system=None).print(shown)
    else:
        out.print(shown)
    if left_out:
        names = ", ".join(sorted(left_out, key=list(columns).index))
        out.print(_wrapped(f"Left out, for want of width: {names}", width), style="dim", **_PLAIN)


def _text(cell: str, *, wrap: bool = False) -> Text:
    """Return the content of a cell, in which brackets and colons are no markup."""
    from rich.text import Text

    return Text(printable(cell), no_wrap=not wrap, overflow="fold" if wrap else "ellipsis")


def account_text(account: Mapping[str, Any], table: pd.DataFrame, parts: str = "regions") -> str:
    """Return how much of the effect the regions account for, with an advice where that gives cause for doubt.

    The parameters are those of `glas3d.explain.notes.account_sentence`.
    """
    from glas3d.explain.notes import account_sentence

    text, accounted = account_sentence(account, table, parts), account["accounted"]
    if accounted is None or LITTLE <= accounted <= MUCH:
        return text
    return f"{text} That is {'little' if accounted < LITTLE else 'more than all of it'}: run glas3d audit."


def cost_text(cost: CostEstimate) -> str:
    """Return what the explanation of a scan takes, as a sentence."""
    memory = "" if cost.memory is None else f"; peak memory {cost.memory / 2**30:.1f} GB"
    return (
        f"A scan: {cost.evaluations} model evaluations in batches of {cost.batch_size}, "
        f"{cost.seconds_per_evaluation:.2g} s each, "
        f"{duration(cost.evaluations * cost.seconds_per_evaluation)} plus start-up{memory}"
    )


def duration(seconds: float) -> str:
    """Return a duration in the largest unit that fits.

    Examples
    --------
    >>> duration(0.2), duration(130), duration(9000), duration(400000)
    ('about 1 s', 'about 2.2 min', 'about 2.5 h', 'about 4.6 days')
    """
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"about {seconds / size:.2g} {unit}"
    return f"about {max(1, round(seconds))} s"


@contextmanager
def progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress on standard error for as long as the block lasts: a bar on a terminal, else a line now and then.

    Parameters
    ----------
    unit
        What is counted, in the plural.
    """
    if _Reporting.quiet:
        yield lambda done, total: None
    elif err.is_terminal:
        with _bar(unit) as update:
            yield update
    else:
        with _lines(unit, FIRST_LINE, SELDOM_LINES) as update:
            yield update


@contextmanager
def _bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = f", {rate(task.speed)}" if task.speed else ""
            left = "" if task.time_remaining is None else f", {timedelta(seconds=ceil(task.time_remaining))} left"
            return Text(f"{unit}{speed}{left}", no_wrap=True)

    bar_width = min(40, max(8, err.width - len(unit) - 40))  # what the numbers leave of a line
    columns = (BarColumn(bar_width), MofNCompleteColumn(), Speed())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(unit, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _lines(unit: str, first: float, seldom: float) -> Iterator[Callable[[int, int], None]]:
    """Write a line after ``first`` seconds, and more after ever longer times, at most ``seldom`` seconds.

    A thread of its own writes them, so that work whose steps take hours is seen to continue.
    """
    ended, start = threading.Event(), time.monotonic()
    count = [0, 0]

    def update(done: int, total: int) -> None:
        count[:] = done, total

    def write_lines() -> None:
        pause = first
        while not ended.wait(pause):
            pause = min(2 * pause, seldom)
            done, total = count
            so_far = f"{done} of {total} {unit}" if total else f"no {unit} yet"
            seconds = time.monotonic() - start
            left = f", {rate(done / seconds)}, {duration(seconds * (total - done) / done)} left" if done else ""
            if done and done == total:  # what follows the last of them is not counted
                left = "; the results are being finished"
            err.print(f"progress: {so_far} after {duration(seconds)[6:]}{left}", **_PLAIN)

    thread = threading.Thread(target=write_lines, daemon=True)
    thread.start()
    try:
        yield update
    finally:
        ended.set()
        thread.join()
