"""What the plan of a study resolves once for all scans."""

import pytest

from glas3d import Predictor
from glas3d.errors import GlasWarning
from glas3d.study.running.plan import with_one_link


def model(activation):
    return Predictor(lambda batch: batch.flatten(1)[:, :2], activation, device="cpu")


@pytest.mark.parametrize(
    ("settings", "activation"),
    [
        ({"preset": "evidence"}, "softmax"),
        ({"link": "auto", "fusion": "mean"}, "sigmoid"),
        ({"preset": "evidence", "link": "logit"}, "none"),
        ({"sigma_light": 3.0}, "none"),
        ({"preset": "paper"}, "none"),
        ({}, "sigmoid"),
    ],
)
def test_a_link_that_is_the_same_for_all_scans_is_left(settings, activation):
    assert with_one_link(settings, [model(activation)] * 2) == settings


@pytest.mark.parametrize(
    "settings", [{}, {"preset": "evidence"}, {"link": "auto", "fusion": "mean", "preset": "paper"}]
)
def test_without_logits_no_scan_decides_for_itself(settings):
    models = [model("softmax"), model("none")]
    with pytest.warns(GlasWarning, match="has no logits: the scores of all scans are made of its output"):
        found = with_one_link(settings, models)
    assert found == {"preset": "evidence"} | settings | {"link": "probability"}
