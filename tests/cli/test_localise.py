"""``glas3d localise``: its tables, what it writes, and what it refuses before anything is written."""

import json

import pandas as pd
import pytest

from tests.evaluate.localisation import drawn

MODEL = """
import torch
from glas3d.predict import Predictor

def make():
    def square(batch):
        return batch[..., 4:8, 15:20].mean(dim=(2, 3))[:, :2] / 40 - 1.5
    return Predictor(square, activation="sigmoid", device="cpu")
"""


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Return the arguments for a tiny data set of birds and a model that looks at the square in them."""
    (tmp_path / "square_model.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    data = drawn.cub(tmp_path / "CUB_200_2011")
    needed = ("--layout", "cub", "--model", "square_model:make", "--out", tmp_path / "out")
    return ("localise", data, *needed, "--size", 20, 28, "--cells", 7)


def test_its_tables_are_shown_and_written(run_command, arguments, tmp_path):
    chosen = ("--points", 5, 7, "--methods", "glas_paper", "random", "--rounds", 2)
    status, output, errors = run_command(*arguments, *chosen)
    assert (status, errors) == (0, "")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        f"{t}.{e}" for t in ("images", "landmarks", "points", "methods", "rounds") for e in ("tsv", "json")
    }
    methods = pd.read_table(tmp_path / "out" / "methods.tsv").set_index("method")
    assert methods.loc["glas_paper", ["accuracy", "n"]].tolist() == [1, 3]
    assert pd.read_table(tmp_path / "out" / "points.tsv")["points"].tolist() == [5, 7]
    assert pd.read_table(tmp_path / "out" / "rounds.tsv")["round"].tolist() == ["1", "2", "adaptive"]
    assert pd.read_table(tmp_path / "out" / "landmarks.tsv")["class"].tolist() == ["Crested_Auklet", "mean"]
    sidecar = json.loads((tmp_path / "out" / "methods.json").read_text())
    assert sidecar["Data"] == {"layout": "cub", "images": 3, "classes": 2}
    assert sidecar["Top1"] == 1
    assert sidecar["accuracy"]["Units"] == "ratio"
    lines = output.splitlines()
    assert lines[0] == "CUB_200_2011: 3 images, the model is right about 100.0% of them"
    assert [line[:8] for line in lines if line.startswith("Table")] == ["Table 1:", "Table 2:", "Table 3:", "Table 4:"]
    (row,) = (line.split() for line in lines if line.startswith("glas_paper"))
    assert row[1:3] == ["1.000", "1.000"]
    assert max(map(len, lines[:-1])) <= 80


def test_a_landmark_of_ones_own(run_command, arguments, tmp_path):
    own = ("--tables", 1, "--methods", "glas_light", "--landmarks", "Sooty_Albatross=beak+back")
    assert run_command(*arguments, *own)[0] == 0
    table = pd.read_table(tmp_path / "out" / "landmarks.tsv")
    assert table["class"].tolist() == ["Sooty_Albatross", "mean"]
    assert table.loc[0, "glas_light"] < 4


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (("--tables", 7), "tables must be some of 1, 2, 3, 4, got (7,)"),
        (("--methods", "gradcam"), "there is no method 'gradcam'"),
        (("--landmarks", "Crested_Auklet"), "--landmarks takes name=value"),
        (("--landmarks", "Crested_Auklet=tail"), "there is no part 'tail'"),
        (("--part", "val"), "--part"),
    ],
)
def test_what_it_refuses(error_line, arguments, more, match, tmp_path):
    assert match in error_line(*arguments, *more)
    assert not (tmp_path / "out").exists()


def test_a_bad_folder_and_a_folder_with_content(error_line, arguments, tmp_path):
    (tmp_path / "CUB_200_2011" / "classes.txt").unlink()
    assert error_line(*arguments).endswith("classes.txt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    assert "must be new or empty" in error_line(*arguments)
