"""The paper's tables, of models whose answer is known: it is how bright one square is."""

import numpy as np
import pandas as pd
import pytest
import torch

from glas3d.errors import GlasError, GlasWarning
from glas3d.evaluate.localisation import localise, read_layout
from glas3d.predict import Predictor
from tests.evaluate.localisation import drawn

SIZE = (20, 28)


class Square(torch.nn.Module):
    """How bright one square is, in a channel for each class: the square of the drawn images, or another."""

    def __init__(self, classes, rows=drawn.ROWS, columns=drawn.COLUMNS):
        super().__init__()
        self.classes, self.where = classes, (slice(*rows), slice(*columns))

    def forward(self, batch):
        return batch[..., *self.where].mean(dim=(2, 3))[:, drawn.CHANNELS[: self.classes]] / 40 - 1.5


def predictor(**settings):
    return Predictor(Square(2, **settings), activation="sigmoid", device="cpu")


@pytest.fixture(scope="module", params=drawn.LAYOUTS)
def data(request, tmp_path_factory):
    return read_layout(drawn.LAYOUTS[request.param](tmp_path_factory.mktemp("data") / "set"), request.param)


OPTIONS = {"size": SIZE, "cells": 7, "points": (7,)}


def test_maps_of_a_model_that_looks_at_the_object_point_at_it(data):
    found = localise(data, predictor(), tables=(2, 3, 4), methods=("glas_light", "glas_paper", "random"), **OPTIONS)
    assert found.top1 == 1
    by_method = found.tables[3].set_index("method")
    assert list(by_method.index) == ["glas_light", "glas_paper", "random"]
    assert by_method.loc["glas_paper", "accuracy"] == 1
    assert by_method.loc["glas_paper", ["evaluations", "n"]].tolist() == [100, len(data.images)]
    assert by_method.loc["glas_light", "evaluations"] == 50
    assert by_method.loc["glas_paper", "drop"] > by_method.loc["random", "drop"]
    assert by_method["n_small"].eq(len(data.images)).all()
    by_points = found.tables[2].set_index("points")
    assert by_points.loc[7, ["accuracy", "accuracy_small"]].tolist() == [1, 1]
    assert found.tables[4]["round"].tolist() == ["1", "2", "3", "adaptive"]
    assert found.tables[4].filter(like="iou_").to_numpy().max() > 0.2
    assert len(found.images) == len(data.images) * (1 + 3 + 4)


def test_maps_of_a_model_that_looks_elsewhere_do_not(data):
    elsewhere = predictor(rows=(12, 18), columns=(6, 12))
    found = localise(data, elsewhere, tables=(3,), methods=("glas_paper",), **OPTIONS)
    assert found.tables[3]["accuracy"].tolist() == [0]
    points = found.images.set_index("method").loc[["glas_paper"], ["row", "column"]]
    assert points["row"].between(11, 18).all()
    assert points["column"].between(5, 12).all()


def test_distances_to_landmarks(tmp_path):
    """The beak of the drawn bird is at row 6 and column 17 of 20 x 28 pixels, the back at row 9 and column 3."""
    data = read_layout(drawn.cub(tmp_path / "data"), "cub")
    options = {"tables": (1,), "methods": ("glas_paper",), **OPTIONS}
    table = localise(data, predictor(), **options).tables[1]
    assert table["class"].tolist() == ["Crested_Auklet", "mean"]  # the paper's birds
    assert table["n"].tolist() == [2, 2]
    assert table.loc[0, "glas_paper"] < 3
    back = localise(data, predictor(), landmarks={"Crested_Auklet": "back"}, **options).tables[1].loc[0, "glas_paper"]
    assert back == pytest.approx(np.hypot(3, 14), abs=3)
    # of several parts the nearest counts; images without any of them have no distance
    both = localise(data, predictor(), landmarks={"Crested_Auklet": ("back", "beak")}, **options).tables[1]
    assert both.loc[0, "glas_paper"] == table.loc[0, "glas_paper"]
    for landmarks, match in (({"Crested_Auklet": "tail"}, "no part 'tail'"), ({"Wren": "beak"}, "no class 'Wren'")):
        with pytest.raises(GlasError, match=match):
            localise(data, predictor(), landmarks=landmarks, **options)


def test_boxes_landmarks_and_the_banner_follow_the_size(tmp_path):
    """Twice as many rows and half as many columns: the square is where it is expected, and the banner is gone."""
    data = read_layout(drawn.aircraft(tmp_path / "data"), "aircraft")
    twice = predictor(rows=(8, 16), columns=(8, 10))
    found = localise(data, twice, tables=(3,), methods=("glas_paper",), size=(40, 14), cells=9)
    assert (found.top1, found.tables[3]["accuracy"].tolist()) == (1, [1])
    cub = read_layout(drawn.cub(tmp_path / "birds"), "cub")
    bird = localise(cub, twice, tables=(1,), methods=("glas_paper",), size=(40, 14), cells=9)
    assert bird.tables[1].loc[0, "glas_paper"] < 4


def test_all_boxes_of_an_image_count(tmp_path):
    data = read_layout(drawn.ilsvrc(tmp_path / "data"), "ilsvrc")
    second = predictor(rows=(12, 18), columns=(0, 6))
    rows = localise(data, second, tables=(3,), methods=("glas_paper",), **OPTIONS).images
    assert rows["hit"].tolist() == [0, 1]


def test_a_method_that_the_model_does_not_allow(tmp_path):
    """The net has no convolution for Grad-CAM and no ReLU: by default methods are left out, named ones refused."""
    data = read_layout(drawn.ilsvrc(tmp_path / "data"), "ilsvrc").drawn(1, seed=0)
    no_gradients = Predictor(lambda batch: Square(2)(batch).detach(), activation="softmax", device="cpu")
    with pytest.warns(GlasWarning, match="is left out: "):
        found = localise(data, no_gradients, tables=(3,), **OPTIONS | {"cells": 2})
    assert {"grad_cam", "gradient", "mask", "deconvolution"} <= set(found.record["LeftOut"])
    assert found.tables[3]["method"].tolist()[-4:] == ["glas_light", "glas_shadow", "glas_paper", "glas_evidence"]
    with pytest.raises(GlasError, match="grad_cam"):
        localise(data, no_gradients, tables=(3,), methods=("grad_cam",), **OPTIONS)


def test_flat_maps_do_not_point(tmp_path):
    """Nothing changes the answer of a constant model, so that drops are all 0."""
    data = read_layout(drawn.cub(tmp_path / "data"), "cub")
    constant = Predictor(lambda batch: torch.ones(len(batch), 2), activation="softmax", device="cpu")
    found = localise(data, constant, tables=(1, 3), methods=("feature_ablation",), **OPTIONS)
    assert found.tables[3]["accuracy"].tolist() == [0]
    assert found.tables[1]["feature_ablation"].isna().all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tables": (5,)}, r"tables must be some of 1, 2, 3, 4, got \(5,\)"),
        ({"methods": ("gradcam",)}, "there is no method 'gradcam'; choose of glas_light, "),
        ({"methods": ()}, "methods must be one or more, each once, got none"),
        ({"size": (20,)}, "size must be two whole numbers"),
        ({"cells": 0}, "cells must be a whole number of at least 1, got 0"),
        ({"tables": (1,)}, "table 1 needs landmarks, the layout aircraft has none here"),
    ],
)
def test_options_that_do_not_fit(options, match, tmp_path):
    data = read_layout(drawn.aircraft(tmp_path / "data"), "aircraft")
    with pytest.raises(GlasError, match=match):
        localise(data, predictor(), **{"size": SIZE, **options})


def test_another_number_of_classes_is_refused(tmp_path):
    data = read_layout(drawn.cub(tmp_path / "data"), "cub")
    three = Predictor(Square(3), activation="softmax", device="cpu")
    with pytest.raises(GlasError, match="the model must have the 2 classes of the data set, it has 3"):
        localise(data, three, **OPTIONS)


def test_a_box_outside_its_image_is_refused(tmp_path):
    folder = drawn.cub(tmp_path / "data")
    (folder / "bounding_boxes.txt").write_text("".join(f"{i} 30.0 4.0 5.0 4.0\n" for i in range(1, 5)))
    with pytest.raises(GlasError, match=r"a box must lie in its image, .*jpg of \(20, 28\) has"):
        localise(read_layout(folder, "cub"), predictor(), **OPTIONS)


def test_files(tmp_path):
    data = read_layout(drawn.cub(tmp_path / "data"), "cub")
    found = localise(data, predictor(), tables=(1, 4), methods=("glas_paper", "glas_sigma3"), images=1, **OPTIONS)
    for name, write in found.files().items():
        write(tmp_path / name)
    table = pd.read_table(tmp_path / "landmarks.tsv")
    assert table.columns.tolist() == ["class", "glas_paper", "glas_sigma3", "n"]
    assert table["n"].tolist() == [1, 1]
    assert sorted(path.stem for path in tmp_path.glob("*.tsv")) == ["images", "landmarks", "rounds"]
