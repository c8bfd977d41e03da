"""Progress: one line in a terminal, one output in a notebook, which is on by default there."""

import sys
from types import SimpleNamespace

import pytest

from glas3d import Grid, explain_img
from glas3d.progress import notebook, reported
from tests.imaging.cases import HEADS, head


class Handle:
    """Stands for IPython's handle of a displayed output, and keeps what it showed."""

    shown: list[str]

    def __init__(self):
        Handle.shown = []

    def display(self, content, raw):
        assert raw
        Handle.shown.append(content["text/plain"])

    update = display


@pytest.fixture
def in_notebook(monkeypatch):
    """Make IPython say that this is a notebook."""
    Handle.shown = []
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(DisplayHandle=Handle))


def test_outside_a_notebook_nothing_is_shown_by_default(capsys):
    assert notebook() is None
    with reported(None) as report:
        report(1, 2)
    assert capsys.readouterr().err == ""


def test_a_terminal_has_one_line(capsys):
    with reported(True, "scans") as report:
        for done in range(5):
            report(done, 4)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert shown.endswith("\n")
    last = shown.strip().split("\r")[-1]
    assert last.startswith("[" + "=" * 30 + "] 4/4 scans, ")


@pytest.mark.usefixtures("in_notebook")
def test_a_notebook_has_one_output_that_is_emptied_at_the_end(capsys):
    with reported(None) as report:
        for done in range(1, 5):
            report(done, 4)
    assert [text.split("]")[-1].split(",")[0] for text in Handle.shown[:-1]] == [
        f" {done}/4 model evaluations" for done in range(1, 5)
    ]
    assert Handle.shown[-1] == ""
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("in_notebook")
@pytest.mark.parametrize("options", [{}, {"scales": (1, 2)}], ids=["plain", "scales"])
def test_an_explanation_shows_one_output_in_a_notebook_however_many_it_is_made_of(options):
    def bright(batch):
        return batch.mean(dim=(1, 2, 3, 4))[:, None] / 1e4

    scan = head(HEADS["LAS"])
    explain_img(scan, bright, 0, Grid(2), preset="paper", assume_space="MNI", **options)
    counts = [int(text.split("] ")[1].split("/")[0]) for text in Handle.shown[:-1]]
    totals = {text.split("/")[1].split(" ")[0] for text in Handle.shown[:-1]}
    assert counts == sorted(counts)
    assert totals == {"18" if not options else "36"}
