"""Figures that compare groups, folds and methods: which regions they show, in which order and with which numbers."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from glas3d import GlasError
from glas3d.report.charts import AGAINST, FOR, bars_figure, light_shadow_figure
from glas3d.report.comparisons import groups_figure, methods_figure, stability_figure

NAMES = [f"region {i}" for i in range(30)]


def texts(figure):
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(plt.Text) if text.get_text()]


def labels(axes):
    return [tick.get_text() for tick in axes.get_yticklabels()]


@pytest.fixture
def statistics():
    g = np.linspace(-2, 2, 30) ** 3
    return pd.DataFrame(
        {
            "name": NAMES,
            "mean_case": 0.5 + g / 20,
            "mean_control": 0.5,
            "hedges_g": g,
            "d_low": g - 1,
            "d_high": g + 1,
            "p_fwe": np.where(np.abs(g) > 6, 0.01, 0.5),
        }
    )


def test_groups_show_the_regions_that_differ_most_the_highest_of_the_case_first(statistics):
    figure = groups_figure(statistics.sample(frac=1, random_state=0), title="t", case="AD", control="NC", top=6)
    left, right = figure.axes
    assert labels(left) == [NAMES[i] for i in (29, 28, 27, 2, 1, 0)]
    case, control = (points.get_offsets()[:, 0] for points in left.collections[1:])
    np.testing.assert_allclose(case, statistics.loc[[29, 28, 27, 2, 1, 0], "mean_case"])
    np.testing.assert_allclose(control, 0.5)
    ends = [line.get_segments() for line in right.collections]
    widths = [segment[1, 0] - segment[0, 0] for lines in ends for segment in lines]
    np.testing.assert_allclose(widths, 2)
    assert {"AD", "NC", "corrected p < 0.05", "corrected p ≥ 0.05", "the 6 of 30 regions that differ most"} <= set(
        texts(figure)
    )


def test_groups_that_were_not_compared_have_no_figure(statistics):
    with pytest.raises(GlasError, match="a figure of AD against NC needs their comparison, region by region"):
        groups_figure(statistics.drop(columns="hedges_g"), title="t", case="AD", control="NC")


def test_stability_shows_every_pair_twice_and_the_mean_of_all():
    pairs = pd.DataFrame(
        {"first": ["a", "a", "b"], "second": ["b", "c", "c"], "spearman": [0.9, -0.2, 0.1], "jaccard": [0.5, 0.0, 1.0]}
    )
    summary = pd.DataFrame(
        {"measure": ["spearman", "jaccard_top10"], "mean": [0.27, 0.5], "low": [np.nan, 0.1], "high": [np.nan, 0.9]}
    )
    figure = stability_figure(pairs, summary, title="AD")
    values = figure.axes[0].images[0].get_array().filled(np.nan)
    np.testing.assert_array_equal(values, [[np.nan, 0.9, -0.2], [0.9, np.nan, 0.1], [-0.2, 0.1, np.nan]])
    shown = texts(figure)
    assert "Spearman's correlation\nmean of 3 pairs: 0.27" in shown
    assert "Jaccard index of the highest\nmean of 3 pairs: 0.50 [0.10, 0.90]" in shown
    assert shown.count("0.90") == 2
    with pytest.raises(GlasError, match="two folds or runs or more"):
        stability_figure(pairs.head(0), summary, title="AD")


def test_methods_show_the_highest_regions_of_each_with_their_ranks():
    rng = np.random.default_rng(0)
    one = rng.permutation(30).astype(float)
    table = pd.DataFrame({"name": NAMES, "one": one, "opposite": -one, "flat": 1.0})
    figure = methods_figure(table, ["one", "opposite", "flat"], title="t", top=2)
    axes = figure.axes[0]
    order = np.argsort(one)
    assert set(labels(axes)) == {NAMES[i] for i in (*order[:2], *order[-2:])}
    numbers = {(t.get_position()[0], labels(axes)[t.get_position()[1]]): t.get_text() for t in axes.texts}
    assert (numbers[0, NAMES[order[-1]]], numbers[1, NAMES[order[-1]]]) == ("1", "30")
    assert [t.get_text() for t in axes.get_xticklabels()] == ["one\nρ +1.00", "opposite\nρ -1.00", "flat\nρ n/a"]
    with pytest.raises(GlasError, match="needs a method whose values tell regions apart"):
        methods_figure(table, ["flat"], title="t")


def test_bars_are_the_largest_on_either_side_with_their_intervals():
    table = pd.DataFrame({"name": NAMES, "score": np.linspace(-1, 2, 30)})
    table = table.assign(low=table["score"] - 0.1, high=table["score"] + 0.3)
    figure = bars_figure(table, title="t", label="score", target="AD", top=20)
    axes = figure.axes[0]
    shown = table.reindex(table["score"].abs().nlargest(20).index).sort_values("score", ascending=False)
    assert labels(axes) == shown["name"].tolist()
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], shown["score"])
    colours = [plt.matplotlib.colors.to_hex(bar.get_facecolor()) for bar in axes.patches]
    assert colours == [FOR if score > 0 else AGAINST for score in shown["score"]]
    segments = axes.collections[0].get_segments()
    np.testing.assert_allclose([[s[0, 0], s[1, 0]] for s in segments], shown[["low", "high"]])
    with pytest.raises(GlasError, match="bars need regions with a score"):
        bars_figure(table.assign(score=np.nan), title="t", label="l")


def test_light_against_shadow_names_the_highest_without_overlap():
    rng = np.random.default_rng(1)
    table = pd.DataFrame(
        {"name": NAMES, "light": rng.uniform(0, 1, 30), "drop": rng.normal(0, 0.01, 30), "rank": range(1, 31)}
    )
    table["direction"] = np.where(table["drop"] > 0, "for", "against")
    figure = light_shadow_figure(table, title="t", unit="probability", target="AD", labelled=8)
    assert isinstance(figure, Figure)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    written = [text for text in figure.axes[0].texts if text.get_text() in NAMES]
    assert {text.get_text() for text in written} == set(NAMES[:8])
    boxes = [text.get_window_extent(renderer) for text in written]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    with pytest.raises(GlasError, match="needs both"):
        light_shadow_figure(table.assign(light=np.nan), title="t", unit="u")
