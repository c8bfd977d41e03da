"""Whatever a model raises, a command ends with one ``error:`` line and status 2, and nothing is written."""

import pytest

FACTORY = "tests.predict.test_odd_networks"


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("failing_factory", "failed: KeyError: 'checkpoint' (test_odd_networks.py, line "),
        ("meta_factory", "a network must have its weights, weight of a Linear is on the meta device"),
        (
            "failing_model",
            "the model does not take a batch of (1, 1, 32, 40, 32): ZeroDivisionError (test_odd_networks.py",
        ),
    ],
)
def test_a_model_that_fails_ends_in_one_line(error_line, scan, tmp_path, factory, message):
    words = ["--model", f"{FACTORY}:{factory}", "--target", 1, "--grid", 2, "--out", tmp_path / "out"]
    assert message in error_line("explain", scan, *words)
    assert not (tmp_path / "out").exists()
