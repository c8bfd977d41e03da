"""Maps over pictures: colours, bars, marks and titles, and no two of them on one another."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg

from glas3d import Grid, explain_image
from glas3d.report import overlay_figure, result_figure
from tests.core.cases import refused

SHAPE = (20, 30)


def picture():
    """A ramp from black to white, with colour."""
    ramp = np.linspace(0, 255, SHAPE[1])
    return np.stack([np.tile(ramp, (SHAPE[0], 1)), np.tile(ramp[::-1], (SHAPE[0], 1)), np.full(SHAPE, 40.0)], axis=2)


def peak(row, column, height=1.0):
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return height * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 20)


def panels(figure):
    return [axes for axes in figure.axes if axes.get_images()]


def bars(figure):
    return [axes for axes in figure.axes if not axes.get_images() and axes.axison]


def image(axes):
    return np.asarray(axes.get_images()[0].get_array())


def marks(axes):
    return [(line.get_marker(), line.get_ydata().tolist(), line.get_xdata().tolist()) for line in axes.lines]


def test_a_map_without_contrast_leaves_the_picture_in_grey():
    figure = overlay_figure(picture(), [None, np.zeros(SHAPE)], ["itself", "under a map"])
    own, under = (image(axes) for axes in panels(figure))
    np.testing.assert_allclose(own, picture() / 255)
    assert np.ptp(under - np.asarray(colormaps["inferno"](0.0))[:3] * 0.68, axis=2).max() < 1e-9  # grey
    grey = picture() @ [0.299, 0.587, 0.114]
    order = np.argsort(grey[0])
    assert (np.diff(under[0, order, 0]) >= -1e-9).all()  # as light and dark as the picture


def test_the_colour_shows_the_value_and_the_bar_shows_which():
    """The bar is drawn over mid grey: on black and white the colours are darker and lighter by as much."""
    flat = np.zeros(SHAPE)
    flat[:, 15:] = 255
    maps = [peak(5, 8), peak(12, 20, 0.5)]
    figure = overlay_figure(flat, maps)
    (bar,) = bars(figure)
    cmap, norm = bar._colorbar.cmap, bar._colorbar.norm
    assert (norm.vmin, norm.vmax) == (0.0, 1.0)
    for axes, values in zip(panels(figure), maps, strict=True):
        drawn = image(axes)
        for value in (0.2, 0.5):
            pixel = np.unravel_index(np.abs(values - value).argmin(), SHAPE)
            shade = (1 - 0.68) * (0.5 if pixel[1] >= 15 else -0.5)  # white or black instead of mid grey
            np.testing.assert_allclose(drawn[pixel], np.array(cmap(norm(values[pixel])))[:3] + shade, atol=0.01)
    lightness = np.array(cmap(np.linspace(0, 1, 256)))[:, :3] @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness) > -1e-3).all()


def test_scales_of_their_own():
    figure = overlay_figure(picture(), [peak(5, 8), peak(12, 20, 0.01)], shared=False)
    first, second = (image(axes) for axes in panels(figure))
    assert len(bars(figure)) == 2
    assert first[5, 8].sum() == pytest.approx(second[12, 20].sum(), abs=0.4)
    shared = overlay_figure(picture(), [peak(5, 8), peak(12, 20, 0.01)])
    assert image(panels(shared)[1])[12, 20].sum() < second[12, 20].sum() - 0.5


def test_signed_maps_are_as_far_below_zero_as_above():
    both = peak(5, 8) - peak(12, 20, 0.3)
    figure = overlay_figure(
        picture(), [peak(5, 8), both], signed=[False, True], label="saliency", signed_label="difference"
    )
    assert sorted(bar.get_ylabel() for bar in bars(figure)) == ["difference", "saliency"]
    (bar,) = (bar for bar in bars(figure) if bar.get_ylabel() == "difference")
    low, high = bar.get_ylim()
    assert low == pytest.approx(-high)
    assert high == pytest.approx(np.abs(both).max())
    drawn = image(panels(figure)[1])
    assert drawn[5, 8, 0] > drawn[5, 8, 2] + 0.15  # red for
    assert drawn[12, 20, 2] > drawn[12, 20, 0]  # blue against
    assert marks(panels(figure)[0]) == [("+", [5.0], [8.0])]
    assert marks(panels(figure)[1]) == [("+", [5.0], [8.0]), ("x", [12.0], [20.0])]


def test_marks_and_titles():
    figure = overlay_figure(
        picture(), [None, peak(5, 8)], ["cat, P = 0.50", "why"], marks=[None, [(1, 2), (3, 4)]], title="above all"
    )
    first, second = panels(figure)
    assert marks(first) == []
    assert marks(second) == [("+", [1.0, 3.0], [2.0, 4.0])]
    assert [axes.get_title() for axes in (first, second)] == ["cat, P = 0.50", "why"]
    assert figure.get_suptitle() == "above all"
    assert (first.get_ylabel(), first.get_xlabel()) == ("row, px", "column, px")


@pytest.mark.parametrize(("highest", "power"), [(3e-4, "$10^{-4}$"), (0.5, None), (20.0, None), (4e5, "$10^{5}$")])
def test_the_bars_numbers_are_short_and_its_label_says_their_power(highest, power):
    figure = overlay_figure(picture(), [peak(5, 8, highest)])
    (bar,) = bars(figure)
    figure.canvas.draw()
    assert bar.get_ylabel() == ("saliency" if power is None else f"saliency, {power}")
    ticks = [text.get_text() for text in bar.get_yticklabels()]
    assert all(len(text.lstrip("-")) <= 4 for text in ticks)
    unit = 1.0 if power is None else 10.0 ** int(power[5:-2])
    shown = [float(text) * unit for text in ticks]
    np.testing.assert_allclose(shown, bar.get_yticks(), rtol=1e-6, atol=highest * 1e-3)


def assert_apart(figure):
    """Check that panels and bars, with their texts, are on the page and do not overlap."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    page = figure.bbox
    boxes = [axes.get_tightbbox(renderer) for axes in [*panels(figure), *bars(figure)]]
    for box in boxes:
        assert page.x0 - 1 <= box.x0 < box.x1 <= page.x1 + 1
        assert page.y0 - 1 <= box.y0 < box.y1 <= page.y1 + 1
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert min(a.x1, b.x1) - max(a.x0, b.x0) < 1 or min(a.y1, b.y1) - max(a.y0, b.y0) < 1


def test_bars_of_two_scales_are_apart():
    both = peak(5, 8) - peak(12, 20)
    for columns in (1, 2, 4):
        maps = [None, peak(5, 8), peak(12, 20), both]
        figure = overlay_figure(picture(), maps, signed=[False] * 3 + [True], columns=columns)
        assert len(bars(figure)) == 2
        assert_apart(figure)


@pytest.mark.parametrize(
    ("n", "columns", "title"), [(1, None, None), (3, None, "two\nlines"), (5, 2, "above"), (4, 4, None)]
)
def test_everything_is_on_the_page_and_nothing_overlaps(tmp_path, n, columns, title):
    figure = overlay_figure(
        picture(), [peak(5, 8)] * n, [f"a title\nof {i}" for i in range(n)], columns=columns, title=title
    )
    figure.savefig(tmp_path / "drawn.png", dpi=60)
    page = figure.bbox
    assert_apart(figure)
    filled = sum(axes.get_window_extent().width * axes.get_window_extent().height for axes in panels(figure))
    assert filled > 0.35 * page.width * page.height * n / (-(-n // (columns or n)) * (columns or n))
    assert plt.get_fignums() == []


def test_one_picture_for_each_map():
    small = picture()[:10]
    figure = overlay_figure([picture(), small, small[..., 0]], [peak(5, 8), None, peak(5, 8)[:10]])
    assert [image(axes).shape for axes in panels(figure)] == [(20, 30, 3), (10, 30, 3), (10, 30, 3)]


def test_what_is_refused():
    values = peak(5, 8)
    for given, match in (
        ({"maps": []}, "at least one map"),
        ({"titles": ["a", "b"]}, "titles must be one for each map: got 2 for 1 maps"),
        ({"signed": [True, False]}, "signed must be one for each map"),
        ({"marks": []}, "marks must be one for each map"),
        ({"picture": [picture()] * 2}, "pictures must be one for each map"),
        ({"maps": [values[:10]]}, r"on its picture's pixels: map \(10, 30\), picture \(20, 30\)"),
        ({"maps": [values * np.nan]}, "a map must be finite"),
        ({"picture": np.zeros((20, 30, 2))}, r"a picture must be \(rows, cols\)"),
    ):
        with refused(match):
            overlay_figure(**{"picture": picture(), "maps": [values]} | given)


# Results of explain_image


def predict(batch):
    """Class 1: red on the right; class 0: green on the left."""
    parts = batch[:, 1, :, :10], batch[:, 0, :, 20:]
    return torch.stack([part.mean(dim=(1, 2)) / 255 for part in parts], dim=1)


SETTINGS = {"kernel": "gaussian", "sigma_light": 4, "sigma_shadow": 4, "sigma_spatial": 2}


def titles(figure):
    return [axes.get_title() for axes in panels(figure)]


def test_results_are_drawn_with_their_probabilities():
    results = explain_image(picture(), predict, [1, 0], Grid((4, 5)), **SETTINGS)
    figure = result_figure(*results, names=["red", "green"])
    p = [result.explanation.probability for result in results]
    assert titles(figure) == ["picture", f"red, P = {p[0]:.3f}", f"green, P = {p[1]:.3f}"]
    right, left = (marks(axes)[0][2][0] for axes in panels(figure)[1:])
    assert left < 15 < right


def test_a_contrast_is_drawn_after_both_classes():
    figure = result_figure(explain_image(picture(), predict, 1, Grid((4, 5)), versus=0, **SETTINGS))
    assert titles(figure)[-1] == "for 1 (red), for 0 (blue)"
    assert [title[:5] for title in titles(figure)[1:3]] == ["1, P ", "0, P "]
    assert len(bars(figure)) == 2


def test_rounds_are_drawn_in_order():
    result = explain_image(picture(), predict, 1, Grid((4, 5)), recursive={"max_iterations": 2}, **SETTINGS)
    drawn = titles(result_figure(result))
    assert drawn[1].startswith(f"round 1: P {result.rounds[0].probability_before:.3f} to ")
    assert drawn[-1] == "all rounds"
    assert len(drawn) == 2 + len(result.rounds)


def test_results_of_two_pictures_are_refused():
    result = explain_image(picture(), predict, 1, Grid(2), **SETTINGS)
    other = explain_image(picture() / 2, predict, 1, Grid(2), **SETTINGS)
    with refused("results of one picture"):
        result_figure(result, other)
    with refused("results of one picture"):
        result_figure()
