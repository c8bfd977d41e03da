"""The progress bar that a command draws while it works."""

import io
import re

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
