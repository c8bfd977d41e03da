"""The progress that a command shows while it works: a bar, or lines where there is no terminal."""

import io
import re
import time

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from glas3d.cli import terminal


def drawn_progress(monkeypatch, *, is_terminal):
    """Return what is drawn over four scans of ten seconds each, of which three are done."""
    clock, drawn = [100.0], io.StringIO()
    console = Console(file=drawn, force_terminal=is_terminal, width=90, get_time=lambda: clock[0])
    monkeypatch.setattr(terminal, "err", console)
    with terminal.progress("scans") as progress:
        for done in range(4):
            progress(done, 4)
            clock[0] += 10 * (done < 3)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.getvalue())


def test_progress_shows_the_count_the_speed_and_the_time_left(monkeypatch):
    bar = drawn_progress(monkeypatch, is_terminal=True)
    assert "3/4" in bar
    assert "scans, 0.1/s" in bar
    assert "0:00:10 left" in bar


def test_no_bar_is_drawn_when_standard_error_is_piped(monkeypatch):
    assert drawn_progress(monkeypatch, is_terminal=False) == ""


def test_progress_without_a_terminal_is_lines_now_and_then(capsys):
    """They come while nothing is reported, too, and say what was reported last."""
    with terminal._lines("steps", first=0.05, seldom=0.1) as update:
        time.sleep(0.12)
        update(3, 40)
        time.sleep(0.4)
    errors = capsys.readouterr().err
    lines = errors.splitlines()
    assert lines[0] == "progress: no steps yet after 1 s"
    assert lines[-1] == "progress: 3 of 40 steps after 1 s"
    assert 3 <= len(lines) <= 7
    time.sleep(0.2)
    assert capsys.readouterr().err == ""  # ended with the block


def test_progress_is_shown_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "FIRST_LINE", 0.05)
    with terminal.progress("steps") as update:
        update(1, 2)
        time.sleep(0.3)
    with terminal.reporting(quiet=True), terminal.progress("steps") as update:
        update(1, 2)
        time.sleep(0.2)
    output, errors = capsys.readouterr()
    assert output == ""
    assert set(errors.splitlines()) == {"progress: 1 of 2 steps after 1 s"}


@pytest.mark.parametrize(
    ("account", "text"),
    [
        (
            {"accounted": 0.724, "largest": 0.21, "effect": 5.0, "partition": True},
            "The regions account for 72% of the effect, B alone for 21%.",
        ),
        (
            {"accounted": 1.3, "largest": 0.9, "effect": -5.0, "partition": True},
            "The regions account for 130% of the effect, A alone for 90%.",
        ),
        (
            {"accounted": None, "largest": None, "effect": 5.0, "partition": False},
            "What the regions account for is n/a: their masks are no partition.",
        ),
        (
            {"accounted": None, "largest": None, "effect": 0.1, "partition": True},
            "What the regions account for is n/a: the effect is below 1 in log-odds.",
        ),
    ],
)
def test_what_the_regions_account_for(account, text):
    table = pd.DataFrame({"name": ["A", "B", "C"], "evidence": [-2.0, 1.0, np.nan]})
    assert terminal.account_text(account, table) == text
