"""The figure of references: rows, colours, signs and texts say what the consensus holds."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from glas3d import GLAS, Grid
from glas3d.core.reference import consensus, references
from glas3d.errors import GlasError
from glas3d.report.references import references_figure

NAMES = [f"Region_{letter}" for letter in "abcdefghijkl"]
SETTINGS = {"title": "Three references, made up", "unit": "drop of P(AD)"}


@pytest.fixture(scope="module")
def agreed():
    """Twelve points; the first speaks for the class under two references of three, the last against it."""
    image = np.random.default_rng(0).uniform(0.5, 1.5, (1, 8, 12)).astype(np.float32)
    glas = GLAS(lambda batch: batch.mean(dim=(1, 2, 3))[:, None], sigma_light=2, sigma_shadow=2)
    explainers = references(glas, {"zero": 0.0, "control mean": 1.0, "donor": 2.0})
    first = explainers["zero"].explain(image, 0, Grid((3, 4)))
    drop = np.linspace(0.5, -0.1, 12)
    rows = {"zero": -0.2 * drop, "control mean": drop, "donor": drop[np.r_[1, 0, 2:12]]}
    return consensus({name: replace(first, drop=row, score=np.abs(row)) for name, row in rows.items()})


@pytest.fixture
def figure_of():
    """Draw the figure and return it before it is closed."""

    def draw(*args, **settings):
        references_figure(*args, **(SETTINGS | settings))
        return plt.figure(plt.get_fignums()[-1])

    yield draw
    plt.close("all")


def texts_of(figure):
    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def test_it_is_a_png_of_a_size_to_print(agreed, tmp_path):
    path = tmp_path / "figure.png"
    references_figure(agreed, NAMES, **SETTINGS)(path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    image = plt.imread(path)
    assert image.shape[0] > 500
    assert image.shape[1] > 800
    assert 0.2 < (image[..., :3].mean(axis=-1) > 0.99).mean() < 0.9
    assert plt.get_fignums() == []


def test_rows_are_in_the_order_of_the_consensus(agreed, figure_of):
    figure = figure_of(agreed, NAMES, marked=["Region_b"])
    heat = figure.axes[0]
    order = np.argsort(-agreed.explanation.score, kind="stable")
    expected = [f"{'◆ ' if i == 1 else ''}{NAMES[i]}  {rank:>3}" for rank, i in enumerate(order, start=1)]
    assert [label.get_text() for label in heat.get_yticklabels()] == expected
    weights = {label.get_text().split()[-2]: label.get_fontweight() for label in heat.get_yticklabels()}
    assert weights["Region_b"] == "bold"
    assert weights["Region_a"] == "normal"
    assert heat.get_ylim()[0] > heat.get_ylim()[1], "the highest score must be on top"


def test_a_cell_has_the_colour_of_its_drop_and_the_rank_of_its_region(agreed, figure_of):
    figure = figure_of(agreed, NAMES)
    heat = figure.axes[0]
    order = np.argsort(-agreed.explanation.score, kind="stable")
    cells = {(round(p.get_x() + 0.48), round(p.get_y() + 0.46)): p for p in heat.patches}
    numbers = {t.get_position(): t.get_text() for t in heat.texts}
    assert len(cells) == 3 * 12
    for column in range(3):
        for row, i in enumerate(order):
            red, _, blue, _ = cells[column, row].get_facecolor()
            drop = agreed.drop[column, i]
            assert (red > blue) == (drop > 0)
            rank = 1 + sum(agreed.share[column] > agreed.share[column, i])
            assert numbers[column, row] == str(rank)
    strongest = cells[1, int(np.flatnonzero(order == 0)[0])]
    assert strongest.get_facecolor()[:3] == pytest.approx(plt.get_cmap("RdBu_r")(1.0)[:3])


def test_how_many_agree_is_written_and_drawn(agreed, figure_of):
    figure = figure_of(agreed, NAMES)
    signs = figure.axes[1]
    order = np.argsort(-agreed.explanation.score, kind="stable")
    written = [t.get_text() for t in signs.texts]
    words = {1: "+", -1: "−", 0: "0"}
    assert written == [f"{words[agreed.sign[i]]} {round(agreed.agreement[i] * 3)}/3" for i in order]
    assert {"+ 2/3", "− 2/3"} <= set(written)
    bars = signs.patches[1::2]
    np.testing.assert_allclose([b.get_width() for b in bars], agreed.agreement[order])
    for bar, i in zip(bars, order, strict=True):
        red, _, blue, _ = bar.get_facecolor()
        assert np.sign(red - blue) == agreed.sign[i]
    assert "0: no sign has a majority" not in " ".join(texts_of(figure))
    np.testing.assert_allclose([b.get_width() for b in figure.axes[2].patches], agreed.explanation.score[order])


def test_white_is_no_change(agreed, figure_of):
    figure = figure_of(agreed, NAMES)
    bar = figure.axes[3]
    low, high = bar.get_xlim()
    assert low == pytest.approx(-high)
    assert high == pytest.approx(0.5)
    shown = [t.get_text() for t in bar.get_xticklabels()]
    assert "0" in shown
    assert [t.lstrip("+-") for t in shown] == [t.lstrip("+-") for t in reversed(shown)]


def test_all_texts_are_written(agreed, figure_of):
    alone = {"zero": 1.0, "control mean": 0.484, "donor": 0.02}
    figure = figure_of(agreed, NAMES, alone=alone, marked=["Region_c"], marked_as="disease was planted here")
    texts = " ".join(texts_of(figure)).replace("\n", " ")
    for part in (
        "Three references, made up",
        "drop of P(AD) when the region is shaded",
        "red: speaks for the class, blue: against it",
        "◆ disease was planted here",
        "control mean alone: 0.48",
        "alone: the probability of the reference itself",
        "references that agree on the sign",
    ):
        assert part in texts


def test_a_tie_is_explained_where_there_is_one(agreed, figure_of):
    tied = replace(agreed, sign=np.r_[0, agreed.sign[1:]], agreement=np.r_[1 / 3, agreed.agreement[1:]])
    figure = figure_of(tied, NAMES)
    assert "0: no sign has a majority" in " ".join(texts_of(figure))
    assert "0 1/3" in texts_of(figure)


def test_marked_regions_beyond_the_first_stand_below_a_line(agreed, figure_of):
    order = np.argsort(-agreed.explanation.score, kind="stable")
    last, fifth = NAMES[order[-1]], NAMES[order[4]]
    figure = figure_of(agreed, NAMES, marked=[last, fifth], top=4)
    shown = [label.get_text().split()[-2:] for label in figure.axes[0].get_yticklabels()]
    assert shown == [[NAMES[i], str(r)] for r, i in enumerate(order[:4], start=1)] + [[fifth, "5"], [last, "12"]]
    assert len(figure.axes[0].lines) == 1
    without = figure_of(agreed, NAMES, top=4)
    assert len(without.axes[0].get_yticklabels()) == 4
    assert len(without.axes[0].lines) == 0


@pytest.mark.parametrize("k", [2, 5, 8])
def test_no_text_is_cut_off_or_on_another(agreed, figure_of, k):
    """Names as long as the atlas's, every text that there can be."""
    many = consensus({f"reference {i}": e for i, e in enumerate(([*agreed.explanations.values()] * 3)[:k])})
    many = replace(many, sign=np.r_[0, many.sign[1:]], drop=0.45 * many.drop)
    names = [f"Temporal_Pole_Mid_{letter}" for letter in "abcdefghijkl"]
    figure = figure_of(
        many,
        names,
        title="Some references, eight participants with mild disease",
        marked=[*names[:3], *names[-2:]],
        marked_as="disease was planted here",
        alone=dict.fromkeys(many.names, 0.5),
        top=6,
    )
    figure.canvas.draw()
    drawn = [t for t in figure.findobj(Text) if t.get_text() and t.get_visible()]
    boxes = [t.get_window_extent() for t in drawn]
    assert min(b.x0 for b in boxes) >= 0
    assert max(b.x1 for b in boxes) <= figure.bbox.x1
    assert min(b.y0 for b in boxes) >= 0
    assert max(b.y1 for b in boxes) <= figure.bbox.y1
    overlapping = [
        (drawn[i].get_text(), drawn[j].get_text())
        for i in range(len(boxes))
        for j in range(i)
        if boxes[i].shrunk(0.98, 0.9).overlaps(boxes[j].shrunk(0.98, 0.9))
    ]
    assert overlapping == []


def test_nothing_moves_and_it_is_white(agreed, figure_of):
    still = replace(agreed, drop=np.zeros_like(agreed.drop))
    figure = figure_of(still, NAMES)
    colours = {p.get_facecolor()[:3] for p in figure.axes[0].patches}
    assert len(colours) == 1
    assert min(next(iter(colours))) > 0.95
    assert to_rgb("white") != next(iter(colours))  # the map's middle, not an empty cell


def test_equal_input_gives_equal_bytes(agreed, tmp_path):
    made = []
    for name in ("first.png", "second.png"):
        references_figure(agreed, NAMES, **SETTINGS)(tmp_path / name)
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]


def test_no_figure_stays_open(agreed, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        references_figure(agreed, NAMES, **SETTINGS)(tmp_path / "nowhere" / "figure.png")
    assert plt.get_fignums() == []
    monkeypatch.setattr(Axes, "barh", lambda *args, **settings: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        references_figure(agreed, NAMES, **SETTINGS)
    assert plt.get_fignums() == []


def test_names_and_probabilities_that_are_refused(agreed):
    with pytest.raises(GlasError, match="the figure needs a name for each of 12 points, got 3"):
        references_figure(agreed, NAMES[:3], **SETTINGS)
    with pytest.raises(GlasError, match="alone must hold a probability for every reference, 'donor' has none"):
        references_figure(agreed, NAMES, alone={"zero": 1.0, "control mean": 0.5}, **SETTINGS)
    assert plt.get_fignums() == []
