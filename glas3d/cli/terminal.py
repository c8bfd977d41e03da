"""What a command says: notes, tables and progress on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    import pandas as pd

    from glas3d.explain.cost import CostEstimate

out = Console()
err = Console(stderr=True)


def fail(message: str, status: int = 2) -> int:
    """One ``error:`` line; the status is handed back."""
    err.print(f"error: {' '.join(message.split())}", style="red", markup=False, highlight=False, soft_wrap=True)
    return status


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """One ``note:`` line, in place of Python's own."""
    err.print(f"note: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One line of result."""
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def print_table(table: pd.DataFrame, title: str, planted: tuple[str, ...] | None = None) -> None:
    """The ten best rows, narrow enough for 80 columns."""
    from rich.table import Table

    out.print(title, style="bold", markup=False, highlight=False, soft_wrap=True)
    shown = Table(box=None, pad_edge=False, header_style="dim")
    shown.add_column("rank", justify="right", no_wrap=True)
    shown.add_column("region", no_wrap=True)
    for column in ("x y z, mm", "light", "shadow", "drop", "score"):
        shown.add_column(column, justify="right", no_wrap=True)
    if planted is not None:
        shown.add_column("planted", justify="center", no_wrap=True)
    for row in table.dropna(subset=["rank"]).sort_values("rank").head(10).to_dict("records"):
        cells = [f"{row['rank']}", f"{row['name']}", " ".join(f"{round(row[axis]):3d}" for axis in "xyz")]
        cells += [f"{row['light']:.3f}", f"{row['shadow']:.2g}", f"{row['drop']:+.2g}", f"{row['score']:.3g}"]
        shown.add_row(*cells, *([] if planted is None else ["yes" if row["name"] in planted else ""]))
    out.print(shown)


def cost(one: CostEstimate) -> str:
    """What a scan takes, in words."""
    memory = "" if one.memory is None else f"; {one.memory / 2**30:.1f} GB of memory at the highest"
    return (
        f"A scan: {one.evaluations} model evaluations in batches of {one.batch_size}, {one.seconds:.2g} s each, "
        f"{duration(one.evaluations * one.seconds)}{memory}"
    )


def duration(seconds: float) -> str:
    """About how long, in the largest unit that fits.

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
    """A bar on standard error with speed and time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{unit}, {task.speed:.1f}/s" if task.speed else unit)

    if not err.is_terminal:
        yield lambda done, total: None
        return
    columns = (BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(unit, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
