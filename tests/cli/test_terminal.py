"""What a command shows while it works."""

import io
import re

from rich.console import Console

from glas3d.cli import terminal


def shown(monkeypatch, *, is_terminal):
    """A command's progress over four scans of ten seconds each, the last one still to come."""
    clock, written = [100.0], io.StringIO()
    console = Console(file=written, force_terminal=is_terminal, width=90, get_time=lambda: clock[0])
    monkeypatch.setattr(terminal, "err", console)
    with terminal.progress("scans") as tick:
        for done in range(4):
            tick(done, 4)
            clock[0] += 10 * (done < 3)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue())


def test_progress_says_how_many_how_fast_and_how_long_it_takes_yet(monkeypatch):
    said = shown(monkeypatch, is_terminal=True)
    assert "3/4" in said
    assert "scans, 0.1/s" in said
    assert "0:00:10 left" in said


def test_a_log_is_spared_the_bar(monkeypatch):
    assert shown(monkeypatch, is_terminal=False) == ""
