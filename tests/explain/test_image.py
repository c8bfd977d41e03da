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
from tests.core.cases import TinyNet, refused

SHAPE = (28, 40)
ASKED = (14, 20)  # half of it
BRIGHT = (slice(4, 10), slice(24, 34))  # centre at row 6.5, column 28.5
OTHER = (slice(18, 24), slice(2, 10))


def picture(channels=3):
    """Dim, with two bright places; uint8, channels last."""
    image = np.full((*SHAPE, channels), 20, dtype=np.uint8)
    image[BRIGHT] = 250
    image[OTHER] = 180
    return image


def seen(batch):
    """Class 1: the first place is bright, class 0: the second is; at any size, from values 0 to 255."""
    rows, columns = batch.shape[2:]

    def mean(where):
        scale = (rows / SHAPE[0], columns / SHAPE[1])
        cut = tuple(slice(int(s.start * k), int(s.stop * k)) for s, k in zip(where, scale, strict=True))
        return batch[(..., *cut)].mean(dim=(1, 2, 3)) / 255

    return torch.stack([mean(OTHER), mean(BRIGHT)], dim=1)


SPOTS = {"kernel": "gaussian", "sigma_light": 5.0, "sigma_shadow": 4.0, "sigma_spatial": 2.0}


CELLS = Grid((7, 8))


def explained(image=None, target=1, search=CELLS, **settings):
    return explain_image(picture() if image is None else image, seen, target, search, **SPOTS | settings)


def best(r):
    return r.table.sort_values("rank").iloc[0]


# What the core finds, on the picture's own pixels


def test_it_is_what_the_core_finds():
    image = picture()
    e = GLAS(seen, **SPOTS).explain(np.moveaxis(image, -1, 0).astype(np.float32), 1, Grid((7, 8)))
    r = explained(image)
    np.testing.assert_array_equal(r.saliency, e.saliency)
    np.testing.assert_array_equal(r.explanation.score, e.score)
    np.testing.assert_allclose(r.table[["row", "column"]], e.points)
    for name in ("light", "shadow", "drop", "score"):
        np.testing.assert_array_equal(r.table[name], getattr(e, name))
    spread = GLAS(seen, **SPOTS).spread(e.points, np.stack([e.light, e.shadow]), SHAPE)
    np.testing.assert_array_equal([r.light, r.shadow], spread)
    assert " ".join(r.table.columns) == "index name row column n_pixels light shadow drop score rank"
    assert r.table["name"].tolist()[:2] == ["point-01", "point-02"]
    assert sorted(r.table["rank"]) == list(range(1, 57))
    assert best(r)["score"] == r.table["score"].max()
    assert "highest-scoring point" in repr(r)


@pytest.mark.parametrize("size", [None, ASKED, (56, 60)])
def test_places_are_the_pictures_own_at_any_size(size):
    larger = 1.0 if size is None else (size[0] * size[1] / (SHAPE[0] * SHAPE[1])) ** 0.5
    spots = {name: value * larger if name != "kernel" else value for name, value in SPOTS.items()}
    r = explain_image(picture(), seen, [1, 0], Grid((7, 8)), size=size, **spots | {"sigma_spatial": 2 * larger**0.5})
    for one, (row, column) in zip(r, ((6.5, 28.5), (20.5, 5.5)), strict=True):
        assert one.saliency.shape == one.light.shape == one.shadow.shape == SHAPE
        assert one.saliency.dtype == np.float32
        assert abs(best(one)["row"] - row) <= 2.5
        assert abs(best(one)["column"] - column) <= 3
        peak = np.unravel_index(one.saliency.argmax(), SHAPE)
        assert np.hypot(peak[0] - row, peak[1] - column) < 5
    assert r[0].explanation.saliency.shape == (SHAPE if size is None else size)


def test_maps_come_home_linearly_between_pixel_centres():
    """A point's maximum stays at the point, half a pixel is not lost."""
    r = explained(search=[[10.5, 20.5]], size=ASKED)
    assert r.explanation.points.tolist() == [[5.0, 10.0]]
    assert best(r)[["row", "column"]].tolist() == [10.5, 20.5]
    assert r.saliency[10:12, 20:22].min() > r.saliency[9:13, 19:23].max() * 0.8
    np.testing.assert_allclose(r.saliency[10:12, 20:22], r.saliency[10, 20], rtol=1e-5)


# Pictures of all kinds


def test_the_same_picture_however_it_comes(tmp_path):
    image = picture()
    image[..., 1] //= 2
    path = tmp_path / "cat.png"
    Image.fromarray(image).save(path)
    expected = explained(image).explanation.score
    opaque = np.concatenate([image, np.full((*SHAPE, 1), 255, dtype=np.uint8)], axis=2)
    for one in (path, str(path), Image.open(path), torch.from_numpy(image).movedim(-1, 0), opaque, image.astype(float)):
        np.testing.assert_array_equal(explained(one).explanation.score, expected)
    assert explained(path).stem == "cat_desc-grid"


def test_the_model_is_given_values_0_to_255_channels_first():
    given = []

    def keep(batch):
        given.append(batch[0].clone())
        return seen(batch)

    image = picture()
    image[..., 2] = 7
    explain_image(image, keep, 1, [[3, 3]])
    assert given[0].dtype == torch.float32
    np.testing.assert_array_equal(given[0].numpy(), np.moveaxis(image, -1, 0))


def test_grey_is_shown_thrice_to_a_model_of_three_channels():
    net = TinyNet(SHAPE, channels=3)
    predict = Predictor(net, "softmax", device="cpu", info=ModelInfo(name="colourful", channels=3))
    grey = picture(1)[..., 0]
    r = explain_image(grey, predict, 1, Grid(3))
    same = explain_image(np.repeat(grey[..., None], 3, axis=2), predict, 1, Grid(3))
    np.testing.assert_array_equal(r.saliency, same.saliency)
    one = Predictor(TinyNet(SHAPE), "softmax", device="cpu", info=ModelInfo(name="dull", channels=1))
    with refused('the model dull takes 1 input channels, the picture has 3; colour="grey"'):
        explain_image(picture(), one, 1, Grid(3))
    explain_image(picture(), one, 1, Grid(3), colour="grey")


# Where to look


def labels():
    """Four quarters, one unlabelled; values neither consecutive nor below 128."""
    cut = np.zeros(SHAPE, dtype=np.int64)
    cut[:14, :20], cut[:14, 20:], cut[14:, :20] = 300, 7, 41
    return cut


@pytest.mark.parametrize("size", [None, ASKED, (21, 30)])
def test_segments_are_painted_on_the_pictures_own_pixels(size):
    for search in (labels(), Segments.from_labels(labels())):
        r = explained(search=search, size=size)
        table = r.table.set_index("index")
        assert best(r)["name"] == "segment-007"
        assert table["n_pixels"].to_dict() == {7: 280, 41: 280, 300: 280}
        for index, row in table.iterrows():
            for name, column in (("saliency", "score"), ("light", "light"), ("shadow", "shadow")):
                np.testing.assert_allclose(getattr(r, name)[labels() == index], row[column], rtol=1e-6)
        assert (r.saliency[labels() == 0] == 0).all()
        np.testing.assert_allclose(table.loc[7, ["row", "column"]].astype(float), (6.5, 29.5), atol=0.7)


def test_superpixels():
    slic = pytest.importorskip("glas3d.imaging.slic")
    cut = slic.superpixels(picture(), 30)
    r = explained(search=cut, kernel="segment", sigma_light=1.0, sigma_shadow=1.0)
    row, column = (round(v) for v in best(r)[["row", "column"]])
    assert 4 <= row < 10
    assert 24 <= column < 34
    assert len(r.table) == len(cut.index)


def test_a_segment_that_vanishes_is_named():
    cut = labels()
    cut[27, 39] = 99
    with pytest.warns(GlasWarning, match=r"1 segments have no pixel in the \(7, 10\) .*: 99"):
        r = explained(search=cut, size=(7, 10))
    assert r.table["index"].tolist() == [7, 41, 300]


def test_a_mask_leaves_out():
    mask = np.zeros(SHAPE, dtype=bool)
    mask[14:] = True
    for size in (None, ASKED):
        r = explained(mask=mask, size=size)
        assert r.table["row"].min() >= 13.5
        assert len(r.table) == 32  # a centre at 13.5 is nearest to pixel 14
        cut = explained(search=labels(), mask=mask, size=size)
        assert cut.table["index"].tolist() == [41]
        assert (cut.saliency[~mask] == 0).all()


# Settings


def test_the_papers_spots_are_as_large_against_any_picture():
    def spots(**settings):
        found = explain_image(np.zeros((56, 224, 3), np.uint8) + 3, seen, 1, [[5, 5]], **settings).explanation.settings
        return [found[f"sigma_{name}"] for name in ("light", "shadow", "spatial")], found["kernel"]

    assert spots(size=(224, 224)) == ([5.0, 3.0, 6.0], "exponential")
    assert spots(size=(224, 224), kernel="gaussian") == ([20.0, 12.0, 6.0], "gaussian")
    half = pytest.approx([5 / 2**0.5, 3 / 2**0.5, 6 / 2**0.5])
    assert spots() == (half, "exponential")
    assert spots(kernel="gaussian", distance="squared")[0] == [10, 6, 3]
    assert spots(sigma_light=9, size=(224, 224))[0] == [9, 3, 6]


def test_a_models_own_settings_come_first():
    info = ModelInfo(name="own", preset={"kernel": "gaussian", "sigma_light": 7.0})
    predict = Predictor(seen, "none", device="cpu", info=info)
    found = explain_image(picture(), predict, 1, [[5, 5]], size=(224, 224)).explanation.settings
    assert (found["kernel"], found["sigma_light"], found["sigma_shadow"]) == ("gaussian", 7.0, 12.0)
    assert explain_image(picture(), predict, 1, [[5, 5]], sigma_light=2.0).explanation.settings["sigma_light"] == 2.0


def test_backgrounds(tmp_path):
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
    own = ModelInfo(name="own", reference=np.full((3, *SHAPE), 200, dtype=np.float32))
    r = explain_image(picture(), Predictor(seen, "none", device="cpu", info=own), 1, Grid((7, 8)), **SPOTS)
    np.testing.assert_allclose(r.saliency, by_number.saliency, rtol=1e-5)
    assert r.provenance["Settings"]["background"] == "reference of own"


# Ways of asking


def test_targets_share_their_forwards():
    asked = []

    def count(batch):
        asked.append(len(batch))
        return seen(batch)

    both = explain_image(picture(), count, [1, 0], Grid(3), batch_size=1, **SPOTS)
    assert sum(asked) == 19
    alone = explained(target=0, search=Grid(3), batch_size=1)
    np.testing.assert_allclose(both[1].saliency, alone.saliency, rtol=1e-6)  # sums of one row or two may round apart
    assert [one.stem for one in both] == ["picture_desc-grid_label-class1", "picture_desc-grid_label-class0"]


def test_a_contrast_is_signed():
    r = explained(versus=0)
    assert list(r.parts) == ["1", "0"]
    np.testing.assert_allclose(r.saliency, r.parts["1"].saliency - r.parts["0"].saliency, atol=1e-6)
    ends = r.table.sort_values("score").iloc[[0, -1]]
    assert (ends["column"] < 10).tolist() == [True, False]
    assert ends["score"].iloc[0] < 0 < ends["score"].iloc[1]
    assert r.provenance["Against"] == {"index": 0, "class": "0"}


@pytest.mark.parametrize("size", [None, ASKED])
def test_rounds_find_one_place_after_the_other(size):
    def either(batch):
        p = seen(batch).double().clamp(0, 1)
        return 1 - (1 - 0.5 * p[:, :1]) * (1 - 0.9 * p[:, 1:])

    for search in (Grid((7, 8)), labels()):
        smaller = {} if size is None else {"sigma_light": 2.5, "sigma_shadow": 2.0, "sigma_spatial": 1.4}
        r = explain_image(picture(), either, 0, search, recursive={"max_iterations": 3}, size=size, **SPOTS | smaller)
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
        told = r.provenance["Recursion"]["rounds"]
        assert told[0]["removed"] == first.removed
        assert 0 <= r.saliency.min() <= r.saliency.max() <= 1


def test_channels_alone():
    def red(batch):
        return torch.stack([batch[:, 2].mean(dim=(1, 2)), batch[:, (0, *BRIGHT)[0]].mean(dim=(1, 2))], dim=1) / 255

    r = explain_image(picture(), red, 1, Grid(3), channels="each", **SPOTS)
    assert list(r.parts) == ["red", "green", "blue"]
    assert abs(r.parts["blue"].explanation.drop).max() < 1e-6 < r.parts["red"].explanation.drop.max()


def test_scales_together():
    r = explained(scales=(1, 0.5))
    assert list(r.parts) == ["scale0p5", "scale1"]
    np.testing.assert_array_equal(r.parts["scale1"].saliency, explained().saliency)
    assert set(r.table["scale"]) <= {0.5, 1.0}
    assert best(r)["column"] > 20
    assert r.stem == "picture_desc-gridscales"
    assert r.parts["scale0p5"].stem == "picture_desc-gridscale0p5"
    with refused("one mode at a time, got scales and several backgrounds"):
        explained(scales=(1, 2), background={"black": 0, "white": 255})


def test_several_backgrounds_agree():
    r = explained(background={"black": 0, "white": 255, "blur": "blur"})
    assert list(r.parts) == ["black", "white", "blur"]
    assert {"sign", "agreement", "drop_black", "drop_white"} <= set(r.table.columns)
    assert best(r)["column"] > 20
    with refused("two or more, each of its own name"):
        explained(background={"black": 0})


# Files


def test_files(tmp_path):
    r = explained(versus=0, size=ASKED)
    paths = r.save(tmp_path / "new" / "folder")
    names = {path.name for path in paths}
    assert len(names) == len(paths) == 21
    start = "picture_desc-gridversus0_label-class1"
    assert {f"{start}_stat-saliency_statmap.tif", f"{start}_regions.tsv", f"{start}_stat-light_statmap.json"} <= names
    with Image.open(tmp_path / "new" / "folder" / f"{start}_stat-saliency_statmap.tif") as image:
        assert image.mode == "F"
        np.testing.assert_array_equal(np.asarray(image), r.saliency)
    table = pd.read_csv(tmp_path / "new" / "folder" / f"{start}_regions.tsv", sep="\t")
    np.testing.assert_allclose(table["score"], r.table["score"], rtol=1e-12)
    told = json.loads((tmp_path / "new" / "folder" / f"{start}_stat-light_statmap.json").read_text())
    assert told["Statistic"] == "light"
    assert told["Grid"] == {"picture": list(SHAPE), "shape": list(ASKED)}
    assert told["Input"]["values"] == [20, 250]
    assert told["Search"] == {"grid": [7, 8]}
    assert explained(recursive=True).save(tmp_path)[-1].name == "picture_desc-gridrecursive_regions.tsv"
    assert (tmp_path / "picture_desc-gridround1_stat-saliency_statmap.tif").is_file()


# Refusals


def test_what_is_refused():
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
        explained(mask=np.ones(ASKED, dtype=bool))
    with refused("two or more, got 1"):
        explained(picture(1), channels="each")
