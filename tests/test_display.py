"""What objects show in notebooks: every text as it is, and numbers to the right."""

import dataclasses
import importlib
import pkgutil
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from glas3d import GLAS, RGLAS, Grid, Predictor
from glas3d.core.explanation import class_difference
from glas3d.display import DRAWING, Summary
from glas3d.predict import ModelInfo

MARKUP = "<script>alert(\"x\")</script> & 'Temporal'"


class Reader(HTMLParser):
    """Collects the texts and the tags of a page."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.tags = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def test_texts_with_markup_are_shown_as_they_are():
    page = Summary(MARKUP, {MARKUP: MARKUP}, (MARKUP,), [(MARKUP,)], caption=MARKUP, notes=(MARKUP,)).html()
    read = Reader(page)
    assert "script" not in read.tags
    assert read.texts.count(MARKUP) == 7


def test_numbers_stand_on_the_right_and_the_last_cell_has_a_bar():
    page = Summary("t", columns=("name", "score"), rows=[("a", "+0.5"), ("b", "n/a")], shares=(0.5, 7)).html()
    sides = re.findall(r"<t[hd][^>]*text-align:(\w+)", page)
    assert sides == ["left", "right"] * 3
    assert [float(share) for share in re.findall(r"transparent (\d+)%", page)] == [50, 100]


def test_what_draws_results_exists():
    for name in DRAWING.values():
        assert callable(pkgutil.resolve_name(name))


ROOMS = ("evaluate", "evaluate.metrics", "explain", "predict", "report", "simulate", "statistics", "study")


@pytest.mark.parametrize("room", ROOMS)
def test_public_objects_print_no_arrays_and_tables(room):
    """All that hold some have a representation of their own."""
    module = importlib.import_module(f"glas3d.{room}")
    public = [getattr(module, name) for name in module.__all__]
    large = [
        each for each in public if isinstance(each, type) and dataclasses.is_dataclass(each) and holds_arrays(each)
    ]
    generated = [each.__name__ for each in large if hasattr(each.__repr__, "__wrapped__")]
    assert generated == []


def holds_arrays(kind):
    types = [str(field.type) for field in dataclasses.fields(kind) if field.repr]
    return any(name in text for text in types for name in ("ndarray", "Tensor", "DataFrame"))


def test_arrays_and_tables_are_shown_by_their_size():
    info = ModelInfo(name="m", reference=np.zeros((1, 7, 8, 9)))
    assert repr(info).startswith("ModelInfo(name='m', ")
    assert "reference=<ndarray 1 x 7 x 8 x 9>, preset={}" in repr(info)


def test_objects_say_what_they_are_by_names(aal, few):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(7 * 8 * 9, 2))
    predict = Predictor(net, "softmax", classes=("NC", "A&D"), device="cpu")
    assert repr(predict) == "Predictor(Sequential: softmax over NC, A&D, no reference, on cpu)"
    glas = GLAS(predict, sigma_light=3)
    assert repr(glas).startswith(f"GLAS({predict!r}, sigma_light=3.0, sigma_shadow=15.0, unit='voxel', ")
    assert "gamma" not in repr(glas)
    assert "gamma=0.1" in repr(glas.replace(gamma=0.1))
    assert repr(RGLAS(glas, stop=2.0)).endswith("threshold=0.8, stop=2.0, max_iterations=10, floor=None)")
    volume = torch.arange(504.0).reshape(1, 7, 8, 9)
    e = glas.explain(volume, "A&D", Grid(2))
    assert repr(e).startswith("Explanation(P(A&D) = ")
    one, other = glas.explain(volume, ["A&D", "NC"], Grid(2))
    assert repr(class_difference(one, other)).startswith("Explanation(P(A&D) - P(NC) = ")
    pages = [each._repr_html_() for each in (predict, glas, RGLAS(glas), e, aal, few)]
    assert ["A&D" in Reader(page).texts or "A&amp;D" in page for page in pages] == [True] * 4 + [False] * 2
    assert "116: 54 L, 54 R, 8 midline" in pages[4]
    assert all("0x" not in page for page in pages)  # no addresses
