"""The progress that a command shows while it works: a bar, or lines where there is no terminal."""

import io
import re
import time

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from glas3d.cli import terminal
from glas3d.explain.table import DESCRIPTIONS


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
    assert "scans, 6.0/min, 0:00:10 left" in bar


@pytest.mark.parametrize("width", [80, 60])
def test_a_bar_fits_into_the_terminal(monkeypatch, width):
    clock, drawn = [100.0], io.StringIO()
    console = Console(file=drawn, force_terminal=True, width=width, color_system=None, get_time=lambda: clock[0])
    monkeypatch.setattr(terminal, "err", console)
    with terminal.progress("model evaluations") as progress:
        for done in range(1000, 1004):
            progress(done, 4000)
            clock[0] += 10 * (done < 1003)
    lines = re.split(r"\r|\n|\x1b\[[0-9;?]*[A-Za-z]", drawn.getvalue())
    assert max(map(len, lines)) <= width
    assert "1003/4000 model evaluations, 6.0/min, 8:19:30 left" in drawn.getvalue()


@pytest.fixture
def at_width(monkeypatch):
    """Return a function that makes standard output and standard error terminals of this width, without colours."""

    def narrow(width):
        for name, stderr in (("out", False), ("err", True)):
            console = Console(stderr=stderr, force_terminal=True, width=width, color_system=None)
            monkeypatch.setattr(terminal, name, console)

    return narrow


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize(
    ("command", "columns", "optional"),
    [
        (("explain", "--no-report"), "rank region direction drop score", "x y z, mm light shadow"),
        (
            ("compare", "--methods", "integrated_gradients_mean", "feature_ablation"),
            "method highest-scoring region",
            "evaluations seconds rho",
        ),
        (("audit", "--checks", "accounted"), "check verdict statement", ""),
    ],
    ids=["explain", "compare", "audit"],
)
def test_screens_fit_into_the_terminal(
    run_command, at_width, scan, bundle, few, few_path, tmp_path, width, command, columns, optional
):
    """No line is wider, but for a path; names of regions are whole, and a column that is left out is named."""
    at_width(width)
    name, *options = command
    model = ("--model", bundle, "--target", "AD", "--atlas", few_path, "--assume-space", "MNI")
    status, output, errors = run_command(name, scan, *model, *options, "--out", tmp_path / "out")
    assert status in (0, 1), errors
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output).splitlines()
    assert [line for line in lines if len(line.rstrip()) > width and " " in line.strip()] == []
    assert "…" not in output
    header = next(line for line in lines if all(word in line for word in columns.split()))
    left_out = next((line for line in lines if line.startswith("Left out, for want of width: ")), "")
    assert all((word in header) is not (word in left_out) for word in optional.split())
    if name != "audit":
        assert sum(region in line.split() for line in lines for region in few.table["name"]) >= 2
    if name == "explain":
        assert "Preset paper. Light, shadow and drop: probability. Score: " in " ".join(lines)
        assert ("shadow" in left_out) is (width == 60)


def scored(scores):
    """Return a table of regions with these scores, ranked as they are."""
    table = pd.DataFrame({"name": [f"r{i}" for i in range(len(scores))], "score": scores, "drop": scores})
    return table.assign(rank=range(1, len(scores) + 1), light=0.5, shadow=0.1, x=1.0, y=2.0, z=3.0, direction="for")


@pytest.mark.parametrize(("lowest", "shown"), [(-0.51, True), (-0.49, False), (0.1, False)])
def test_what_speaks_against_is_named_where_it_is_as_large_as_what_is_shown(capsys, lowest, shown):
    table = scored([*np.linspace(1.4, 0.5, 10), 0.2, lowest])
    terminal.write_table(table, "title", DESCRIPTIONS)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.strip().startswith("10 ") is not shown
    if shown:
        assert last == "Most against the target: r11, score -0.51, rank 12"


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
    assert re.fullmatch(r"progress: 3 of 40 steps after 1 s, \d\.\d/s, about \d s left", lines[-1])
    assert 3 <= len(lines) <= 7
    time.sleep(0.2)
    assert capsys.readouterr().err == ""  # ended with the block


def test_progress_that_has_come_to_its_end_promises_no_time(capsys):
    with terminal._lines("steps", first=0.05, seldom=0.1) as update:
        update(6, 6)
        time.sleep(0.2)
    assert capsys.readouterr().err.splitlines()[0] == (
        "progress: 6 of 6 steps after 1 s; the results are being finished"
    )


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
    lines = errors.splitlines()
    assert lines
    assert all(line.startswith("progress: 1 of 2 steps after 1 s, ") for line in lines)


@pytest.mark.parametrize(
    ("account", "text"),
    [
        ({"accounted": 0.724, "effect": 5.0}, "B alone for 21%."),
        ({"accounted": 1.3, "effect": -5.0}, "A alone for 21%."),
        ({"accounted": 0.5, "effect": 5.0}, "B alone for 21%. That is little: run glas3d audit."),
        ({"accounted": 1.4, "effect": 5.0}, "B alone for 21%. That is more than all of it: run glas3d audit."),
        ({"accounted": None, "effect": 0.1}, "is below 1 in log-odds."),
    ],
)
def test_a_share_that_gives_cause_for_doubt_comes_with_an_advice(account, text):
    table = pd.DataFrame({"name": ["A", "B", "C"], "evidence": [-2.0, 1.0, np.nan]})
    account = {"largest": 0.21, "partition": True, **account}
    assert terminal.account_text(account, table).endswith(text)
