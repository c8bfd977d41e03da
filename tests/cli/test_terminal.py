"""The progress that a command shows while it works: a bar, or lines where there is no terminal."""

import io
import re
import time

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
