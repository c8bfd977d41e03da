"""`attribute` and `compare`: maps on the scan's own grid, a table of all methods, and what is refused."""

import json
from dataclasses import replace
from functools import partial

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from glas3d import Atlas, Grid, Predictor, explain_img
from glas3d.errors import GlasWarning
from glas3d.evaluate import attribute, compare
from glas3d.evaluate.rivals import METHODS
from glas3d.explain import explain_image
from tests.core.cases import TinyNet, refused

SHAPE = (7, 8, 9)
QUICK = {"rise": {"n_masks": 8}, "mask": {"n_steps": 3}, "lime": {"n_samples": 8}}


def scan(shape=SHAPE):
    """A scan with unequal axes, an oblique affine of unequal voxels, and codes of its own."""
    affine = np.array([[0.0, 2.5, 0, -9], [-3.0, 0, 0.2, 12], [0, 0, 4.0, -20], [0, 0, 0, 1]])
    img = nib.Nifti1Image(np.random.default_rng(0).uniform(0.5, 2, shape).astype(np.float32), affine)
    img.header.set_sform(affine, code=2)
    return img


def labels():
    array = np.zeros(SHAPE, dtype=np.int32)
    array[:3, :4], array[3:6, 2:7], array[6, 4:] = 300, 7, 41
    return array


def describe_method(found, folder):
    """Return what the sidecar of a method's table says of its values, and the units in that of its map."""
    found.save(folder)
    of_table, of_map = (
        json.loads(next(folder.glob(f"*{pattern}.json")).read_text()) for pattern in ("_regions", "_statmap")
    )
    return of_table["score"]["Description"], of_table["score"]["Units"], of_map["Units"]


def network(ndim=3, channels=1):
    net = TinyNet(SHAPE[:ndim], channels)
    net.body[1] = nn.ReLU()
    return Predictor(net, "softmax", device="cpu", classes=("NC", "MCI", "AD"))


# How values change where all intensities are ten times as large and the model divides them by ten.
SCALING = {"intensity": 10, "intensity per voxel": 10}
WITHOUT_OUTPUT = {"mask", "random", "edges", "difference"}
WITHOUT_SIGN = {"glas", "glas_paper", "rise", "gradient", "smooth_grad", "deconvolution", "guided_backprop"}


@pytest.mark.parametrize("method", METHODS)
def test_the_units_of_a_method_are_those_that_its_values_have(method, tmp_path):
    """Measured by another unit of intensity, values change as their units say, and those of an output do not."""
    img, predict = scan(), network()
    tenfold = nib.Nifti1Image(np.asarray(img.dataobj) * 10, img.affine)
    tenth = Predictor(predict.net, "softmax", transform=lambda batch: batch / 10, device="cpu", classes=predict.classes)
    own = {"sigma_light": 2.0, "sigma_shadow": 2.0} if method == "glas" else QUICK.get(method, {})
    found = explain_here(img, predict, "AD", method, **own)
    scaled = explain_here(tenfold, tenth, "AD", method, **own)
    text, units, of_map = describe_method(found, tmp_path)
    factor = 0.1 if "per unit of intensity" in units else SCALING.get(units, 1)
    np.testing.assert_allclose(scaled.table["score"], found.table["score"] * factor, rtol=1e-3, atol=1e-7)
    assert found.table["score"].abs().max() > 1e-6
    if method not in WITHOUT_OUTPUT:
        output = "log-odds" if found.provenance["Settings"].get("link") == "logit" else "probability"
        assert units.replace("product of two probabilities", "probability").startswith(output)
    assert "arbitrary" not in text + units
    assert of_map == (f"{units} per voxel" if METHODS[method].region == "sum" else units)
    assert ("evidence for the target" in text) is (method not in {*WITHOUT_OUTPUT, *WITHOUT_SIGN})


explain_here = partial(attribute, search=labels(), assume_space="MNI")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_a_map_on_the_scans_own_grid(method, tmp_path):
    img, predict = scan(), network()
    own = {"sigma_light": 2.0, "sigma_shadow": 2.0} if method == "glas" else QUICK.get(method, {})
    found = explain_here(img, predict, "AD", method, background=0.4, **own)
    assert found.map.shape == SHAPE
    np.testing.assert_allclose(found.map.affine, img.affine, atol=1e-5)
    assert (int(found.map.header["sform_code"]), found.map.get_data_dtype()) == (2, np.float32)
    values = np.asarray(found.map.dataobj)
    np.testing.assert_array_equal(values, found.volume)
    assert found.table["index"].tolist() == [7, 41, 300]
    for index, score in zip(found.table["index"], found.table["score"], strict=True):
        of_region = values[labels() == index].astype(float)
        how = of_region.sum() if METHODS[method].region == "sum" else of_region.mean()
        assert score == pytest.approx(how, rel=1e-5, abs=1e-7)
    written = {path.name for path in found.save(tmp_path)}
    label = method.replace("_", "")
    assert written == {
        f"scan_desc-{label}_stat-attribution_statmap.nii.gz",
        f"scan_desc-{label}_stat-attribution_statmap.json",
        f"scan_desc-segments{label}_regions.tsv",
        f"scan_desc-segments{label}_regions.json",
    }
    sidecar = json.loads((tmp_path / f"scan_desc-{label}_stat-attribution_statmap.json").read_text())
    assert (sidecar["Method"], sidecar["Evaluations"]) == (method, found.evaluations)
    assert sidecar["Target"] == {"class": "AD", "index": 2}
    assert sidecar["Settings"]["background"] == "0.4"
    link = {"rise": "probability", "mask": "probability"}.get(method, "logit")
    if found.evaluations and not method.startswith("glas"):
        assert sidecar["Settings"]["link"] == link
    again = nib.load(tmp_path / f"scan_desc-{label}_stat-attribution_statmap.nii.gz")
    np.testing.assert_array_equal(np.asarray(again.dataobj), values)


def test_glas_is_what_explain_img_returns():
    settings = {"sigma_light": 2.0, "sigma_shadow": 3.0, "kernel": "segment", "background": 0.4}
    result = explain_img(scan(), network(), "AD", labels(), assume_space="MNI", **settings)
    found = explain_here(scan(), network(), "AD", "glas", **settings)
    assert np.array_equal(np.asarray(found.map.dataobj), np.asarray(result.saliency_img.dataobj))
    assert found.table["score"].tolist() == result.table["score"].tolist()
    assert found.evaluations == result.explanation.settings["evaluations"] == 2 * 3 + 2
    grid = attribute(scan(), network(), "AD", "glas", Grid(2), assume_space="MNI")
    expected = explain_img(scan(), network(), "AD", Grid(2), assume_space="MNI")
    assert np.array_equal(np.asarray(grid.map.dataobj), np.asarray(expected.saliency_img.dataobj))
    assert grid.table["score"].tolist() == expected.table["score"].tolist()
    paper = explain_here(scan(), network(), "AD", "glas_paper")
    expected = explain_img(
        scan(), network(), "AD", labels(), assume_space="MNI", sigma_light=20, sigma_shadow=30, unit="mm"
    )
    assert paper.table["score"].tolist() == expected.table["score"].tolist()
    expected = explain_img(scan(), network(), "AD", labels(), assume_space="MNI", preset="evidence")
    for found in (
        explain_here(scan(), network(), "AD", "glas_evidence"),
        explain_here(scan(), network(), "AD", "glas", preset="evidence"),
    ):
        assert found.table["score"].tolist() == expected.table["score"].tolist()
        assert found.provenance["Settings"]["link"] == "logit"


@pytest.mark.parametrize("preset", ["paper", "evidence"])
def test_the_presets_of_glas_are_methods_too(preset):
    expected = explain_img(scan(), network(), "AD", labels(), assume_space="MNI", preset=preset)
    bundled = network()
    bundled.info = replace(bundled.info, preset={"sigma_light": 2.0, "sigma_shadow": 2.0})
    for found in (
        explain_here(scan(), bundled, "AD", f"glas_{preset}"),  # the model's own preset does not reach it
        explain_here(scan(), network(), "AD", "glas", preset=preset),
    ):
        assert found.table["score"].tolist() == expected.table["score"].tolist()
    both = compare(scan(), network(), "AD", ["glas", "glas_paper"], labels(), assume_space="MNI", preset="evidence")
    assert not both.table["glas"].equals(both.table["glas_paper"])


def test_the_link_is_a_setting_of_glas():
    found = explain_here(scan(), network(), "AD", "glas", link="logit", fusion="mean")
    expected = explain_img(scan(), network(), "AD", labels(), assume_space="MNI", link="logit", fusion="mean")
    assert found.table["score"].tolist() == expected.table["score"].tolist()
    assert found.provenance["Settings"]["link"] == "logit"
    with refused("negative light, whose product"):
        explain_here(scan(), network(), "AD", "glas", link="logit", fusion="product")
    # in a comparison each method that has a link of its own keeps to it
    both = compare(scan(), network(), "AD", ["glas_paper", "lime"], labels(), assume_space="MNI", link="logit")
    settings = both.provenance["Settings"]
    assert (settings["glas_paper"]["link"], settings["lime"]["link"]) == ("probability", "logit")


def test_the_cells_of_a_grid_are_its_regions():
    """Of 2 x 3 x 3 cells on 7 x 8 x 9 voxels each voxel belongs to the nearest centre."""
    found = attribute(scan(), network(), "AD", "feature_ablation", Grid((2, 3, 3)), assume_space="MNI")
    assert len(found.table) == 18
    assert found.evaluations == 19
    values = np.asarray(found.map.dataobj)
    cells = {values[a : a + 3, b : b + 2, c : c + 3].std() for a in (0, 4) for b in (0, 3, 6) for c in (0, 3, 6)}
    assert max(cells) < 1e-7
    assert len(np.unique(values)) == 18


def test_a_scan_on_another_grid_than_the_models(bundle, few):
    """Maps come back on the scan's own grid; regions keep the atlas's names, those without voxels too."""
    from glas3d.predict import load_model
    from tests import bundles

    img = bundles.t1(6)
    for method in ("feature_ablation", "integrated_gradients"):
        found = attribute(img, load_model(bundle), "AD", method, few)
        assert found.map.shape == img.shape
        assert np.array_equal(found.map.affine, img.affine)
        assert found.table["name"].tolist() == few.table["name"].tolist()
        assert np.ptp(np.asarray(found.map.dataobj)) > 0
    assert found.provenance["Settings"]["background"] == "reference of tiny"


@pytest.mark.parametrize("method", ["glas_evidence", "glas_paper", "feature_ablation"])
def test_all_methods_take_the_same_reference(method):
    """The default's: matched to the scan, also for masks of the paper, which by themselves would not match it."""
    img, predict = scan(), network()
    predict.info = replace(predict.info, reference=np.random.default_rng(1).uniform(0.5, 2, (1, *SHAPE)))

    table = pd.DataFrame({"index": [300, 7, 41], "name": ["a", "b", "c"], "hemisphere": "n/a"})
    atlas = Atlas.from_files(nib.Nifti1Image(labels(), img.affine), table, name="own")

    def scores(background):
        found = attribute(img, predict, "AD", method, atlas, background=background)
        return found.table["score"].tolist()

    assert scores("auto") == scores("matched") != scores("reference")


@pytest.mark.parametrize("method", METHODS)
def test_images_too(method, tmp_path):
    picture = np.random.default_rng(0).uniform(0, 1, (7, 8, 3)).astype(np.float32)
    own = {"sigma_light": 2.0} if method == "glas" else QUICK.get(method, {})
    found = attribute(picture, network(2, 3), 1, method, Grid((2, 3)), background=0.4, **own)
    assert found.map.shape == (7, 8)
    assert len(found.table) == 6
    assert found.table["score"].notna().all()
    (path,) = (p for p in found.save(tmp_path) if p.suffix == ".tif")
    np.testing.assert_array_equal(np.asarray(Image.open(path)), found.map)
    if method.startswith("glas"):
        own = {**own, **METHODS[method].settings}  # the preset
        expected = explain_image(picture, network(2, 3), 1, Grid((2, 3)), background=0.4, **own)
        assert np.array_equal(found.map, expected.saliency)


def test_superpixels_and_another_size():
    picture = np.random.default_rng(0).uniform(0, 255, (14, 16, 1)).astype(np.float32)
    segments = np.repeat(np.repeat(np.arange(1, 5).reshape(2, 2), 7, axis=0), 8, axis=1)
    found = attribute(picture, network(2), 1, "feature_ablation", segments, size=(7, 8))
    assert found.map.shape == (14, 16)
    for index, score in zip(found.table["index"], found.table["score"], strict=True):
        assert set(found.map[segments == index]) == {np.float32(score)}


def test_a_picture_is_told_by_its_files_name(tmp_path):
    Image.fromarray(np.arange(56, dtype=np.uint8).reshape(7, 8)).save(tmp_path / "bird.png")
    found = attribute(tmp_path / "bird.png", network(2), 1, "gradient", Grid(3))
    assert found.map.shape == (7, 8)
    nib.save(scan(), tmp_path / "sub-01_T1w.nii.gz")
    found = attribute(str(tmp_path / "sub-01_T1w.nii.gz"), network(), 1, "gradient", Grid(2), assume_space="MNI")
    assert found.stem == "sub-01_T1w"


def test_a_comparison_is_one_table_and_one_map_a_method(tmp_path):
    methods = ("feature_ablation", "integrated_gradients", "rise", "difference")
    shares = []
    found = compare(
        scan(),
        network(),
        "AD",
        {method: {"n_masks": 8} if method == "rise" else {} for method in methods},
        labels(),
        assume_space="MNI",
        link="logit",
        progress=lambda done, total: shares.append((done, total)),
    )
    assert shares == [(i, 4) for i in range(5)]
    assert found.table.columns.tolist() == ["index", "name", *methods]
    for method in methods:
        alone = explain_here(scan(), network(), "AD", method, **({"n_masks": 8} if method == "rise" else {}))
        assert found.table[method].tolist() == alone.table["score"].tolist()
    written = {path.name for path in found.save(tmp_path)}
    table = "scan_desc-segmentsmethods_regions"
    maps = [f"scan_desc-{m.replace('_', '')}_stat-attribution_statmap" for m in methods]
    assert written == {f"{name}.{end}" for name in maps for end in ("nii.gz", "json")} | {
        f"{table}.tsv",
        f"{table}.json",
    }
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / f"{table}.tsv", sep="\t"), found.table)
    sidecar = json.loads((tmp_path / f"{table}.json").read_text())
    assert sidecar["Evaluations"] == {"feature_ablation": 4, "integrated_gradients": 72, "rise": 8, "difference": 0}
    assert [sidecar["Settings"][m].get("link") for m in methods] == ["logit", "logit", "probability", None]
    ranks = found.table[list(methods)].rank()
    expected = np.corrcoef(ranks["feature_ablation"], ranks["rise"])[0, 1]
    assert found.correlations()["rise"] == pytest.approx(expected)
    # the same again replaces, another one does not
    found.save(tmp_path)
    other = compare(scan(), network(), "MCI", ["difference"], labels(), assume_space="MNI")
    with refused("made with another target and another setting, methods; give"):
        other.save(tmp_path)
    Counting.inputs = 0
    counting = Predictor(Counting(), "softmax", device="cpu", classes=("NC", "MCI", "AD"))
    with refused("made with another target and model; give"):
        compare(scan(), counting, "MCI", ["rise"], labels(), assume_space="MNI", folder=tmp_path)
    assert Counting.inputs <= 4  # the trials of one method
    assert other.save(tmp_path, overwrite=True)


class Counting(nn.Module):
    """A network without a convolution that counts its inputs."""

    inputs = 0

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(int(np.prod(SHAPE)), 3)

    def forward(self, batch):
        Counting.inputs += len(batch)
        return self.head(batch.flatten(1))


def test_all_methods_are_checked_before_the_first_is_computed():
    Counting.inputs = 0
    with refused("grad_cam needs a network with a convolution"):
        compare(
            scan(),
            Predictor(Counting(), "softmax", device="cpu"),
            1,
            ["lime", "grad_cam"],
            labels(),
            assume_space="MNI",
        )
    assert Counting.inputs <= 8  # the trials of two methods


@pytest.mark.parametrize(
    ("keywords", "match"),
    [
        ({"method": "gradcam"}, "there is no method 'gradcam'; did you mean grad_cam?"),
        ({"method": "rise", "link": "logit"}, "rise is made of the probability alone, got link='logit'"),
        ({"method": "gradient", "link": "odds"}, "link must be one of probability, logit, got 'odds'"),
        ({"target": "ad"}, "target must be one of NC"),
        ({"target": [0, 1]}, "methods are compared for one target, got 2"),
        ({"versus": 0}, "methods are compared in the plain mode, got versus"),
        ({"refine": 0.5}, "methods are compared in the plain mode, got refine"),
        ({"background": [0, 1]}, "methods are compared with one background, got several"),
        ({"covariates": {"age": 70}}, "takes no covariates, got age"),
        ({"method": "occlusion", "window": (2, 2)}, "window must have a number for each of 3 axes"),
        ({"method": "occlusion", "window": (99, 2, 2)}, "occlusion cannot explain this model: "),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
    ],
)
def test_what_is_refused(keywords, match):
    given = {"target": 1, "method": "feature_ablation"} | keywords
    with refused(match):
        explain_here(scan(), network(), **given)


def test_a_model_with_covariates_is_compared_for_one_participant():
    net = network().net

    class WithAge(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, batch, table):
            return self.net(batch) * table

    given = {"covariates": {"age": 1.5}, "covariate_reference": {"age": 0.0}, "assume_space": "MNI"}
    taking, held = (
        Predictor(each, "softmax", device="cpu", classes=("NC", "MCI", "AD"), covariates=names)
        for each, names in ((WithAge(), ("age",)), (nn.Sequential(net, Times(1.5)), None))
    )
    methods = ["glas", "feature_ablation", "gradient"]
    found = compare(scan(), taking, 1, methods, labels(), **given)
    expected = compare(scan(), held, 1, methods, labels(), assume_space="MNI")
    assert len(found.table) == 3  # regions alone: light and shadow rank the covariates elsewhere
    for name in methods[1:]:  # in the light of a region, covariates have their reference
        np.testing.assert_allclose(found.table[name], expected.table[name], rtol=1e-5)
        assert found.attributions[name].provenance["Covariates"]["values"] == {"age": 1.5}
    with refused("takes the covariates age: give their values"):
        compare(scan(), taking, 1, methods, labels(), assume_space="MNI")


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, batch):
        return batch * self.factor


def test_light_and_shadow_with_fewer_evaluations_is_compared_too():
    given = {"search": Grid(4), "preset": "evidence", "engine": "eager"}
    whole = attribute(scan(), network(), 1, "glas", **given)
    part, all_of_it = (attribute(scan(), network(), 1, "glas", refine=share, **given) for share in (0.5, 1))
    assert all_of_it.evaluations == whole.evaluations
    np.testing.assert_allclose(all_of_it.table["score"], whole.table["score"], rtol=1e-5)
    assert part.evaluations <= 0.5 * whole.evaluations
    assert part.provenance["Settings"]["coarse_to_fine"]["budget"] == 0.5
    assert part.map.shape == whole.map.shape


def test_keywords_that_nobody_knows():
    with pytest.raises(TypeError, match="argument 'n_mask' for Rise; did you mean 'n_masks'"):
        explain_here(scan(), network(), 1, "rise", n_mask=3)
    with pytest.raises(TypeError, match=r"attribute\(\) got an unexpected keyword argument 'sigma_lite'"):
        explain_here(scan(), network(), 1, "glas", sigma_lite=3)
    with pytest.raises(TypeError, match=r"compare\(\) got an unexpected keyword argument 'n_masks'"):
        compare(scan(), network(), 1, ["rise"], labels(), assume_space="MNI", n_masks=3)
    with refused("methods must be one or more, each once, got rise, rise"):
        compare(scan(), network(), 1, ["rise", "rise"], labels(), assume_space="MNI")


def test_logits_that_cannot_be_had_are_one_sentence():
    def certain(batch):
        return torch.tensor([[0.0, 1.0]]).expand(len(batch), 2)

    with refused("log-odds of a probability of 0 or 1 are not finite"):
        explain_here(scan(), certain, 1, "feature_ablation", link="logit")
    with pytest.warns(GlasWarning, match="methods explain the model's own output: log-odds of a probability of 0 or 1"):
        found = explain_here(scan(), certain, 1, "feature_ablation")
    assert found.provenance["Settings"]["link"] == "probability"


def test_log_odds_that_end_during_a_method_are_left_for_the_probability():
    """The intact volume and the reference have log-odds; without region 300 the model is certain."""
    without = torch.from_numpy(labels() == 300)

    def predict(batch):
        p = torch.where((batch[:, 0, without] == 0.4).all(dim=1) & (batch != 0.4).flatten(1).any(dim=1), 1.0, 0.7)
        return torch.stack([p, 1 - p], dim=1)

    with refused("log-odds of a probability of 0 or 1 are not finite"):
        explain_here(scan(), predict, 0, "feature_ablation", background=0.4, link="logit")
    with pytest.warns(GlasWarning, match="methods explain the model's own output"):
        found = explain_here(scan(), predict, 0, "feature_ablation", background=0.4)
    assert found.provenance["Settings"]["link"] == "probability"
    np.testing.assert_allclose(found.table["score"], [0, 0, -0.3], atol=1e-6)
    assert found.evaluations == 4
