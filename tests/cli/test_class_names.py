"""Classes whose names are numbers: the name counts, and a note says so where the number is another class's index."""

import json

import pytest
import torch

from glas3d.cli.parameters import class_of
from glas3d.errors import GlasWarning
from glas3d.predict import Predictor


def numbered():
    """Return a model with classes 1 and 2, as groups are coded in many tables."""

    def brightness(batch):
        means = batch.mean(dim=(1, 2, 3, 4))
        return torch.stack([-means, means], dim=1)

    return Predictor(brightness, "softmax", classes=("1", "2"), device="cpu")


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("AD", ("NC", "AD"), "AD"),
        ("1", ("NC", "AD"), 1),
        ("1", None, 1),
        ("7", ("1", "2"), 7),
        ("1", ("0", "1"), "1"),
        ("2", ("1", "2"), "2"),
    ],
)
def test_a_number_is_an_index_unless_it_is_a_name(text, names, expected):
    assert class_of(text, names) == expected


def test_a_number_that_is_both_is_the_name():
    with pytest.warns(GlasWarning, match="class 1 is taken for the class of this name, not for .* index, 2"):
        assert class_of("1", ("1", "2")) == "1"


def test_the_command_explains_the_class_of_the_name(run_command, scan, tmp_path):
    words = ["explain", scan, "--model", "tests.cli.test_class_names:numbered", "--grid", 1, "--out", tmp_path / "out"]
    for target, index, notes in (("1", 0, 1), ("2", 1, 0)):
        status, _, error = run_command(*words, "--target", target, "--overwrite")
        assert status == 0, error
        assert error.count("is taken for the class of this name") == notes
        (sidecar,) = (tmp_path / "out").glob("*_stat-saliency_statmap.json")
        assert json.loads(sidecar.read_text())["Target"] == {"index": index, "class": target}
