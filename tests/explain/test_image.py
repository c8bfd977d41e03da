"""`explain_image`: maps on an image's own pixels, every search and mode, and files."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from glas3d import GLAS, Grid, Predictor, explain_image
from glas3d.core.search import Segments
from glas3d.errors import GlasWarning
from glas3d.predict import ModelInfo
from tests.core.cases import TinyNet, is_trial, refused

SHAPE = (28, 40)
HALF = (14, 20)  # rows and columns of the same image at half its size
BRIGHT = (slice(4, 10), slice(24, 34))  # centre at row 6.5, column 28.5
OTHER = (slice(18, 24), slice(2, 10))


def picture(channels=3):
    """Return a dim image with two bright rectangles; uint8, channels last."""
    image = np.full((*SHAPE, channels), 20, dtype=np.uint8)
    image[BRIGHT] = 250
    image[OTHER] = 180
    return image


def brightness(batch):
    """Return a model's output: the mean of the second rectangle, then of the first, from 0 to 1, at any size."""
    rows, columns = batch.shape[2:]

    def mean(rectangle):
        scale = (rows / SHAPE[0], columns / SHAPE[1])
        scaled = tuple(slice(int(s.start * k), int(s.stop * k)) for s, k in zip(rectangle, scale, strict=True))
        return batch[(..., *scaled)].mean(dim=(1, 2, 3)) / 255

    return torch.stack([mean(OTHER), mean(BRIGHT)], dim=1)


MASKS = {"kernel": "gaussian", "sigma_light": 5.0, "sigma_shadow": 4.0, "sigma_spatial": 2.0}

CELLS = Grid((7, 8))


def explained(image=None, target=1, search=CELLS, **settings):
    """Return the explanation of the image by the model with small masks."""
    return explain_image(picture() if image is None else image, brightness, target, search, **MASKS | settings)


def highest(r):
    """Return the row of the point or segment of the highest score."""
    return r.table.sort_values("rank").iloc[0]


# Maps and table on the image's own pixels


def test_maps_and_table_are_those_of_the_core():
    image = picture()
    e = GLAS(brightness, **MASKS).explain(np.moveaxis(image, -1, 0).astype(np.float32), 1, Grid((7, 8)))
    r = explained(image)
    np.testing.assert_array_equal(r.saliency, e.saliency)
    np.testing.assert_array_equal(r.explanation.score, e.score)
    np.testing.assert_allclose(r.table[["row", "column"]], e.points)
    for name in ("light", "shadow", "drop", "score"):
        np.testing.assert_array_equal(r.table[name], getattr(e, name))
    spread = GLAS(brightness, **MASKS).spread(e.points, np.stack([e.light, e.shadow, e.drop]), SHAPE)
    np.testing.assert_array_equal([r.light, r.shadow, r.drop], spread)
    contract = "index name row column n_pixels light shadow drop score rank direction evidence density"
    assert " ".join(r.table.columns) == contract
    assert r.table["name"].tolist()[:2] == ["point-01", "point-02"]
    assert sorted(r.table["rank"]) == list(range(1, 57))
    assert highest(r)["score"] == r.table["score"].max()
    assert "highest-scoring point" in repr(r)


@pytest.mark.parametrize("size", [None, HALF, (56, 60)])
def test_positions_are_those_of_the_image_at_any_size_of_the_model(size):
    scale = 1.0 if size is None else (size[0] * size[1] / (SHAPE[0] * SHAPE[1])) ** 0.5
    masks = {name: value * scale if name != "kernel" else value for name, value in MASKS.items()}
    r = explain_image(
        picture(), brightness, [1, 0], Grid((7, 8)), size=size, **masks | {"sigma_spatial": 2 * scale**0.5}
    )
    for explanation, (row, column) in zip(r, ((6.5, 28.5), (20.5, 5.5)), strict=True):
        assert explanation.saliency.shape == explanation.light.shape == explanation.shadow.shape == SHAPE
        assert explanation.saliency.dtype == np.float32
        assert abs(highest(explanation)["row"] - row) <= 2.5
        assert abs(highest(explanation)["column"] - column) <= 3
        peak = np.unravel_index(explanation.saliency.argmax(), SHAPE)
        assert np.hypot(peak[0] - row, peak[1] - column) < 5
    assert r[0].explanation.saliency.shape == (SHAPE if size is None else size)


def test_maps_are_interpolated_between_pixel_centres():
    """The maximum of a point stays at the point, without a shift of half a pixel."""
    r = explained(search=[[10.5, 20.5]], size=HALF)
    assert r.explanation.points.tolist() == [[5.0, 10.0]]
    assert highest(r)[["row", "column"]].tolist() == [10.5, 20.5]
    assert r.saliency[10:12, 20:22].min() > r.saliency[9:13, 19:23].max() * 0.8
    np.testing.assert_allclose(r.saliency[10:12, 20:22], r.saliency[10, 20], rtol=1e-5)


# Kinds of images


def test_an_image_of_any_kind_has_the_same_explanation(tmp_path):
    image = picture()
    image[..., 1] //= 2
    path = tmp_path / "cat.png"
    Image.fromarray(image).save(path)
    expected = explained(image).explanation.score
    opaque = np.concatenate([image, np.full((*SHAPE, 1), 255, dtype=np.uint8)], axis=2)
    tensor = torch.from_numpy(image).movedim(-1, 0)
    for source in (path, str(path), Image.open(path), tensor, opaque, image.astype(float)):
        np.testing.assert_array_equal(explained(source).explanation.score, expected)
    assert explained(path).stem == "cat_desc-grid"


def test_the_model_is_given_values_0_to_255_channels_first():
    inputs = []

    def keep(batch):
        inputs.append(batch[0].clone())
        return brightness(batch)

    image = picture()
    image[..., 2] = 7
    explain_image(image, keep, 1, [[3, 3]])
    assert inputs[0].dtype == torch.float32
    np.testing.assert_array_equal(inputs[0].numpy(), np.moveaxis(image, -1, 0))


def test_a_grey_image_is_repeated_for_a_model_of_three_channels():
    net = TinyNet(SHAPE, channels=3)
    predict = Predictor(net, "softmax", device="cpu", info=ModelInfo(name="colourful", channels=3))
    grey = picture(1)[..., 0]
    r = explain_image(grey, predict, 1, Grid(3))
    repeated = explain_image(np.repeat(grey[..., None], 3, axis=2), predict, 1, Grid(3))
    np.testing.assert_array_equal(r.saliency, repeated.saliency)
    grey_model = Predictor(TinyNet(SHAPE), "softmax", device="cpu", info=ModelInfo(name="dull", channels=1))
    with refused('the model dull takes 1 input channel, the picture has 3; colour="grey"'):
        explain_image(picture(), grey_model, 1, Grid(3))
    explain_image(picture(), grey_model, 1, Grid(3), colour="grey")


# Where to search


def labels():
    """Return labels of three quarters of the image; their values are neither consecutive nor all below 128."""
    quarters = np.zeros(SHAPE, dtype=np.int64)
    quarters[:14, :20], quarters[:14, 20:], quarters[14:, :20] = 300, 7, 41
    return quarters


@pytest.mark.parametrize("size", [None, HALF, (21, 30)])
def test_segments_are_painted_on_the_image_s_own_pixels(size):
    for search in (labels(), Segments.from_labels(labels())):
        r = explained(search=search, size=size)
        table = r.table.set_index("index")
        assert highest(r)["name"] == "segment-007"
        assert table["n_pixels"].to_dict() == {7: 280, 41: 280, 300: 280}
        for index, row in table.iterrows():
            for name, column in (("saliency", "score"), ("light", "light"), ("shadow", "shadow")):
                np.testing.assert_allclose(getattr(r, name)[labels() == index], row[column], rtol=1e-6)
        assert (r.saliency[labels() == 0] == 0).all()
        np.testing.assert_allclose(table.loc[7, ["row", "column"]].astype(float), (6.5, 29.5), atol=0.7)


def test_superpixels_are_searched_as_segments():
    slic = pytest.importorskip("glas3d.imaging.slic")
    segments = slic.superpixels(picture(), 30)
    r = explained(search=segments, kernel="segment", sigma_light=1.0, sigma_shadow=1.0)
    row, column = (round(v) for v in highest(r)[["row", "column"]])
    assert 4 <= row < 10
    assert 24 <= column < 34
    assert len(r.table) == len(segments.index)


def test_a_segment_without_a_pixel_at_the_model_s_size_is_named():
    with_pixel = labels()
    with_pixel[27, 39] = 99
    with pytest.warns(GlasWarning, match=r"1 segments have no pixel in the \(7, 10\) .*: 99"):
        r = explained(search=with_pixel, size=(7, 10))
    assert r.table["index"].tolist() == [7, 41, 300]


def test_only_points_and_segments_inside_the_mask_are_searched():
    mask = np.zeros(SHAPE, dtype=bool)
    mask[14:] = True
    for size in (None, HALF):
        r = explained(mask=mask, size=size)
        assert r.table["row"].min() >= 13.5
        assert len(r.table) == 32  # a centre at 13.5 is nearest to pixel 14
        masked = explained(search=labels(), mask=mask, size=size)
        assert masked.table["index"].tolist() == [41]
        assert (masked.saliency[~mask] == 0).all()


# Settings


def test_default_masks_have_the_paper_s_size_relative_to_the_image():
    def sigmas(**settings):
        used = explain_image(
            np.zeros((56, 224, 3), np.uint8) + 3, brightness, 1, [[5, 5]], **settings
        ).explanation.settings
        return [used[f"sigma_{name}"] for name in ("light", "shadow", "spatial")], used["kernel"]

    assert sigmas(size=(224, 224)) == ([5.0, 3.0, 6.0], "exponential")
    assert sigmas(size=(224, 224), kernel="gaussian") == ([20.0, 12.0, 6.0], "gaussian")
    half = pytest.approx([5 / 2**0.5, 3 / 2**0.5, 6 / 2**0.5])
    assert sigmas() == (half, "exponential")
    assert sigmas(kernel="gaussian", distance="squared")[0] == [10, 6, 3]
    assert sigmas(sigma_light=9, size=(224, 224))[0] == [9, 3, 6]


def test_settings_given_come_before_the_model_s_and_these_before_the_paper_s():
    info = ModelInfo(name="own", preset={"kernel": "gaussian", "sigma_light": 7.0})
    predict = Predictor(brightness, "none", device="cpu", info=info)
    settings = explain_image(picture(), predict, 1, [[5, 5]], size=(224, 224)).explanation.settings
    assert (settings["kernel"], settings["sigma_light"], settings["sigma_shadow"]) == ("gaussian", 7.0, 12.0)
    assert explain_image(picture(), predict, 1, [[5, 5]], sigma_light=2.0).explanation.settings["sigma_light"] == 2.0


def test_a_background_is_a_number_an_image_a_blur_or_the_model_s_reference(tmp_path):
    plain = np.full((14, 20, 3), 200, dtype=np.uint8)
    Image.fromarray(plain).save(tmp_path / "plain.png")
    by_number = explained(background=200)
    np.testing.assert_allclose(explained(background=tmp_path / "plain.png").saliency, by_number.saliency, rtol=1e-5)
    np.testing.assert_allclose(explained(background=plain[..., 0]).saliency, by_number.saliency, rtol=1e-5)
    assert explained(background=tmp_path / "plain.png").provenance["Settings"]["background"].startswith("plain.png sha")
    assert not np.allclose(explained().saliency, by_number.saliency)
    blurred = explained(background="blur")
    assert blurred.provenance["Settings"]["background"].startswith("the image blurred by 1.49 pixels")
    assert blurred.explanation.drop.max() < explained().explanation.drop.max()
    info = ModelInfo(name="own", reference=np.full((3, *SHAPE), 200, dtype=np.float32))
    r = explain_image(picture(), Predictor(brightness, "none", device="cpu", info=info), 1, Grid((7, 8)), **MASKS)
    np.testing.assert_allclose(r.saliency, by_number.saliency, rtol=1e-5)
    assert r.provenance["Settings"]["background"] == "reference of own"


# Modes


def test_targets_share_model_evaluations():
    batches = []

    def count(batch):
        if not is_trial():
            batches.append(len(batch))
        return brightness(batch)

    both = explain_image(picture(), count, [1, 0], Grid(3), batch_size=1, **MASKS)
    assert sum(batches) == 20
    alone = explained(target=0, search=Grid(3), batch_size=1)
    # sums over one row or two may differ in rounding
    np.testing.assert_allclose(both[1].saliency, alone.saliency, rtol=1e-6)
    assert [explanation.stem for explanation in both] == [
        "picture_desc-grid_label-class1",
        "picture_desc-grid_label-class0",
    ]


def test_versus_is_signed():
    r = explained(versus=0)
    assert list(r.parts) == ["1", "0"]
    np.testing.assert_allclose(r.saliency, r.parts["1"].saliency - r.parts["0"].saliency, atol=1e-6)
    ends = r.table.sort_values("score").iloc[[0, -1]]
    assert (ends["column"] < 10).tolist() == [True, False]
    assert ends["score"].iloc[0] < 0 < ends["score"].iloc[1]
    assert r.provenance["Against"] == {"index": 0, "class": "0"}


@pytest.mark.parametrize("size", [None, HALF])
def test_each_round_of_a_recursion_finds_another_rectangle(size):
    def either_rectangle(batch):
        p = brightness(batch).double().clamp(0, 1)
        return 1 - (1 - 0.5 * p[:, :1]) * (1 - 0.9 * p[:, 1:])

    for search in (Grid((7, 8)), labels()):
        smaller = {} if size is None else {"sigma_light": 2.5, "sigma_shadow": 2.0, "sigma_spatial": 1.4}
        r = explain_image(
            picture(), either_rectangle, 0, search, recursive={"max_iterations": 3}, size=size, **MASKS | smaller
        )
        first, second = r.rounds[:2]
        assert first.saliency.shape == SHAPE
        assert first.saliency.max() == pytest.approx(1, abs=0.05)
        on_first, on_other = (np.zeros(SHAPE, dtype=bool) for _ in range(2))
        on_first[BRIGHT], on_other[OTHER] = True, True
        assert on_first[np.unravel_index(first.saliency.argmax(), SHAPE)] or not isinstance(search, Grid)
        assert first.saliency[on_first].mean() > first.saliency[on_other].mean()
        assert second.saliency[on_other].mean() > second.saliency[on_first].mean()
        assert first.probability_after < first.probability_before
        assert second.probability_before == pytest.approx(first.probability_after)
        assert set(first.removed) <= set(r.table["name"])
        assert first.removed
        assert r.stem.endswith("recursive")
        recorded = r.provenance["Recursion"]["rounds"]
        assert recorded[0]["removed"] == first.removed
        assert 0 <= r.saliency.min() <= r.saliency.max() <= 1


def test_each_channel_is_masked_alone():
    def red(batch):
        return torch.stack([batch[:, 2].mean(dim=(1, 2)), batch[:, (0, *BRIGHT)[0]].mean(dim=(1, 2))], dim=1) / 255

    r = explain_image(picture(), red, 1, Grid(3), channels="each", **MASKS)
    assert list(r.parts) == ["red", "green", "blue"]
    assert abs(r.parts["blue"].explanation.drop).max() < 1e-6 < r.parts["red"].explanation.drop.max()


def test_scales_are_fused_and_kept():
    r = explained(scales=(1, 0.5))
    assert list(r.parts) == ["scale0p5", "scale1"]
    np.testing.assert_array_equal(r.parts["scale1"].saliency, explained().saliency)
    assert set(r.table["scale"]) <= {0.5, 1.0}
    assert highest(r)["column"] > 20
    assert r.stem == "picture_desc-gridscales"
    assert r.parts["scale0p5"].stem == "picture_desc-gridscale0p5"
    with refused("one mode at a time, got scales and several backgrounds"):
        explained(scales=(1, 2), background={"black": 0, "white": 255})


def test_several_backgrounds_give_what_they_agree_on():
    r = explained(background={"black": 0, "white": 255, "blur": "blur"})
    assert list(r.parts) == ["black", "white", "blur"]
    assert {"sign", "agreement", "drop_black", "drop_white"} <= set(r.table.columns)
    assert highest(r)["column"] > 20
    with refused("two or more, each of its own name"):
        explained(background={"black": 0})


# Files


def test_every_map_and_table_has_a_file(tmp_path):
    r = explained(versus=0, size=HALF)
    paths = r.save(tmp_path / "new" / "folder")
    names = {path.name for path in paths}
    assert len(names) == len(paths) == 30
    start = "picture_desc-gridversus0_label-class1"
    assert {f"{start}_stat-saliency_statmap.tif", f"{start}_regions.tsv", f"{start}_stat-light_statmap.json"} <= names
    with Image.open(tmp_path / "new" / "folder" / f"{start}_stat-saliency_statmap.tif") as image:
        assert image.mode == "F"
        np.testing.assert_array_equal(np.asarray(image), r.saliency)
    table = pd.read_csv(tmp_path / "new" / "folder" / f"{start}_regions.tsv", sep="\t")
    np.testing.assert_allclose(table["score"], r.table["score"], rtol=1e-12)
    sidecar = json.loads((tmp_path / "new" / "folder" / f"{start}_stat-light_statmap.json").read_text())
    assert sidecar["Statistic"] == "light"
    assert sidecar["Grid"] == {"picture": list(SHAPE), "shape": list(HALF)}
    assert sidecar["Input"]["values"] == [20, 250]
    assert sidecar["Search"] == {"grid": [7, 8]}
    rounds = {path.name for path in explained(recursive=True).save(tmp_path)}
    assert {f"picture_desc-gridrecursive_regions.{end}" for end in ("tsv", "json")} <= rounds
    assert (tmp_path / "picture_desc-gridround1_stat-saliency_statmap.tif").is_file()


# Refusals


def test_options_that_do_not_fit_are_refused():
    with refused("size must be two whole numbers"):
        explained(size=(14.5, 20))
    with refused("size must be two whole numbers"):
        explained(size=14)
    with refused("one mode at a time, got versus and recursive"):
        explained(versus=0, recursive=True)
    with refused("give one target"):
        explained(target=[0, 1], versus=0)
    with refused('channels must be "together" or "each"'):
        explained(channels="all")
    with refused("unit belongs to scans"):
        explained(unit="mm")
    with refused("a picture must be a path, a Pillow image, an array or a tensor, got list"):
        explained(background=[1, 2])
    with refused("search points must lie in the volume"):
        explained(search=[[30.0, 2.0]])
    with refused("a mask must be on the volume's grid"):
        explained(mask=np.ones(HALF, dtype=bool))
    with refused("two or more, got 1"):
        explained(picture(1), channels="each")
