"""The modes of `explain_img`: two classes, several inputs, each channel, covariates, references, masks and scales."""

import json
import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import logit

from glas3d import GLAS, GlasWarning, Grid, Predictor, explain_img, load_model
from glas3d.core.covariates import Covariates
from glas3d.imaging.coordinates import Coordinates
from glas3d.imaging.matching import match_reference
from glas3d.imaging.space import VoxelGrid, resample
from tests.bundles import GRID, t1, write
from tests.explain.cases import SMALL
from tests.imaging.cases import HEADS, affine, assert_same, head, head_grid, mask_of, refused, values, with_info

T1, PET = HEADS["LAS"], head_grid("PSR", mm=(7.0, 9.0, 8.0))


def mean_of(batch, region, channel=0):
    """Return the mean of a channel in a region, for each input of a batch."""
    return batch[:, channel].flatten(1)[:, torch.as_tensor(np.flatnonzero(region))].mean(dim=1)


@pytest.fixture(scope="module")
def sided(scan, few):
    """Return a model: AD where the left hippocampus is bright, NC where the right putamen is bright."""
    ad, nc = mask_of(few, T1), mask_of(few, T1, "Putamen_R")
    data = torch.as_tensor(values(scan), dtype=torch.float32)[None, None]
    tops = float(mean_of(data, ad)), float(mean_of(data, nc))

    def probabilities(batch):
        evidence = torch.stack([mean_of(batch, nc) / tops[1], mean_of(batch, ad) / tops[0]], dim=1)
        return (4 * evidence).softmax(dim=1)

    return Predictor(probabilities, "none", classes=("NC", "AD"), device="cpu")


# Two classes


def test_versus_is_signed_and_keeps_both_classes(scan, sided, few):
    r = explain_img(scan, sided, "AD", few, versus="NC", **SMALL)
    ad, nc = explain_img(scan, sided, ["AD", "NC"], few, **SMALL)
    assert_same(r.parts["AD"], ad)
    assert_same(r.parts["NC"], nc)
    np.testing.assert_allclose(r.table["score"], ad.table["score"] - nc.table["score"], atol=1e-7)
    np.testing.assert_allclose(r.table["drop"], ad.table["drop"] - nc.table["drop"], atol=1e-7)
    np.testing.assert_allclose(values(r.saliency_img), values(ad.saliency_img) - values(nc.saliency_img), atol=1e-6)
    regions = r.table.set_index("name")
    assert regions["score"].idxmax() == "Hippocampus_L"
    assert regions["score"].idxmin() == "Putamen_R"
    assert regions["score"].min() < 0
    assert r.provenance["Against"] == {"index": 0, "class": "NC"}
    assert r.explanation.probability == pytest.approx(ad.explanation.probability - nc.explanation.probability)


def test_versus_changes_its_sign_when_the_classes_are_exchanged(scan, sided, few):
    forward = explain_img(scan, sided, "AD", few, versus="NC", **SMALL)
    exchanged = explain_img(scan, sided, "NC", few, versus="AD", **SMALL)
    np.testing.assert_allclose(forward.table["score"], -exchanged.table["score"], atol=1e-7)
    np.testing.assert_allclose(values(forward.saliency_img), -values(exchanged.saliency_img), atol=1e-7)


def test_versus_writes_the_files_of_both_classes(scan, sided, few, tmp_path):
    r = explain_img(scan, sided, "AD", few, versus="NC", **SMALL)
    written = {path.name for path in r.save(tmp_path)}
    assert "scan_seg-few_desc-versusNC_label-AD_stat-saliency_statmap.nii.gz" in written
    assert {f"scan_seg-few_label-{name}_regions.tsv" for name in ("AD", "NC")} < written
    assert len(written) == 3 * 10


# Several input scans


def two_inputs(few):
    """Return a model and its input: AD where the left hippocampus is bright in T1 and the right putamen in PET."""
    t1, pet = mask_of(few, T1), mask_of(few, T1, "Putamen_R")
    data = np.stack([values(head(T1)), resample(head(PET, scale=90.0), T1)])
    tops = [
        float(mean_of(torch.as_tensor(data, dtype=torch.float32)[None], region, channel))
        for channel, region in enumerate((t1, pet))
    ]

    def probabilities(batch):
        p = torch.sigmoid(6 * (mean_of(batch, t1) / tops[0] + mean_of(batch, pet, 1) / tops[1] - 1))
        return torch.stack([1 - p, p], dim=1)

    return with_info(probabilities, channels=2), data


def test_two_scans_on_different_grids_are_resampled_to_the_first_grid(few):
    model, data = two_inputs(few)
    r = explain_img({"T1w": head(T1), "pet": head(PET, scale=90.0)}, model, "AD", few, **SMALL)
    segments = few.segments(T1)
    core = GLAS(model, **SMALL).explain(data, "AD", segments, T1.spacing)
    np.testing.assert_allclose(r.table["score"], core.score, rtol=1e-5)
    assert r.saliency_img.shape == T1.shape
    np.testing.assert_array_equal(r.saliency_img.affine, T1.affine)
    assert set(r.provenance["Input"]["channels"]) == {"T1w", "pet"}


def test_each_channel_alone_shows_which_scan_the_evidence_is_in(few, tmp_path):
    model, _ = two_inputs(few)
    images = {"T1w": head(T1), "pet": head(PET, scale=90.0)}
    r = explain_img(images, model, "AD", few, channels="each", fusion="shadow", **SMALL)
    assert list(r.parts) == ["T1w", "pet"]
    highest = {name: part.table.set_index("name")["score"].idxmax() for name, part in r.parts.items()}
    assert highest == {"T1w": "Hippocampus_L", "pet": "Putamen_R"}
    alone = explain_img(images, model, "AD", few, channel=1, fusion="shadow", **SMALL)
    assert_same(r.parts["pet"], alone)
    assert_same(r, explain_img(images, model, "AD", few, fusion="shadow", **SMALL))
    written = {path.name for path in r.save(tmp_path)}
    assert {
        "scan_seg-few_regions.tsv",
        "scan_seg-few_desc-T1w_regions.tsv",
        "scan_seg-few_desc-pet_regions.tsv",
    } < written
    sidecar = json.loads((tmp_path / "scan_seg-few_desc-pet_stat-saliency_statmap.json").read_text())
    assert sidecar["Settings"]["channel"] == 1


def test_a_reference_of_several_channels_is_an_array(few):
    model, data = two_inputs(few)
    images = [head(T1), head(PET, scale=90.0)]
    blurred = explain_img(images, model, "AD", few, background="blur", **SMALL)
    assert blurred.table["score"].notna().all()
    with pytest.warns(GlasWarning, match="the map is flat: all 8 scores are the same"):
        replaced = explain_img(images, model, "AD", few, background=data, fusion="shadow", **SMALL)
    assert replaced.table["drop"].abs().max() == 0  # the scans are replaced by themselves
    with refused("a background image is one channel, the model takes 2"):
        explain_img(images, model, "AD", few, background=head(T1), **SMALL)


# Covariates


@pytest.fixture(scope="module")
def with_age(scan, few):
    """Return a model whose P(AD) depends on the left hippocampus, on age and on a score."""
    region = mask_of(few, T1)
    top = float(mean_of(torch.as_tensor(values(scan), dtype=torch.float32)[None, None], region))

    def probabilities(batch, table):
        logit = 2 * (mean_of(batch, region) / top - 1) + 0.2 * (table[:, 0] - 70) - 0.05 * (table[:, 1] - 28)
        p = torch.sigmoid(logit)
        return torch.stack([1 - p, p], dim=1)

    return Predictor(probabilities, "none", classes=("NC", "AD"), device="cpu", covariates=("age", "mmse"))


COVARIATES, REFERENCE = {"mmse": 26.0, "age": 80.0}, {"age": 70.0, "mmse": 28.0}


def test_covariates_are_ranked_next_to_the_regions(scan, with_age, few, tmp_path):
    r = explain_img(scan, with_age, "AD", few, covariates=COVARIATES, covariate_reference=REFERENCE, **SMALL)
    core = GLAS(with_age, **SMALL).explain(
        values(scan)[None],
        "AD",
        few.segments(T1),
        T1.spacing,
        covariates=Covariates.of(COVARIATES, REFERENCE, ("age", "mmse")),
    )
    rows = r.table.set_index("name")
    assert list(rows.index[-2:]) == ["age", "mmse"]
    np.testing.assert_allclose(rows.loc[["age", "mmse"], "score"].astype(float), core.covariates.score)
    assert rows.loc[["age", "mmse"], ["index", "hemisphere", "x", "y", "z"]].isna().all(axis=None)
    assert sorted(r.table["rank"]) == list(range(1, len(r.table) + 1))
    # the expected values follow from the coefficients of the logistic model
    intact = 1 / (1 + np.exp(-(0.2 * 10 + 0.05 * 2)))
    assert r.explanation.probability == pytest.approx(intact, abs=1e-6)
    assert rows.loc["age", "drop"] == pytest.approx(intact - 1 / (1 + np.exp(-0.1)), abs=1e-6)
    assert rows.loc["age", "light"] == pytest.approx(1 / (1 + np.exp(2.0 - 2.0)), abs=1e-6)
    r.save(tmp_path)
    read = pd.read_csv(tmp_path / "scan_seg-few_regions.tsv", sep="\t")
    assert read["index"].isna().sum() == 2
    assert json.loads((tmp_path / "scan_seg-few_stat-light_statmap.json").read_text())["Covariates"] == {
        "values": {"age": 80.0, "mmse": 26.0},
        "reference": REFERENCE,
    }


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"covariates": COVARIATES}, "every covariate needs a reference value, 'age' has none"),
        (
            {"covariates": COVARIATES | {"iq": 1.0}, "covariate_reference": REFERENCE},
            "must be of age, mmse, got a value for 'iq'",
        ),
        ({"covariate_reference": REFERENCE}, "covariate_reference replaces covariates: give the covariates too"),
        (
            {"covariates": {"age": 80.0}, "covariate_reference": REFERENCE},
            "every covariate needs a value, 'mmse' has none",
        ),
        (
            {"covariates": COVARIATES | {"age": "old"}, "covariate_reference": REFERENCE},
            "finite number, 'age' has 'old'",
        ),
        ({"covariates": COVARIATES, "covariate_reference": REFERENCE, "recursive": True}, "got recursive too"),
        ({}, "takes the covariates age, mmse"),
    ],
)
def test_covariates_that_do_not_fit_are_refused(scan, with_age, few, options, match):
    with refused(match):
        explain_img(scan, with_age, "AD", few, **options, **SMALL)


# Options that exclude each other


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"versus": "NC", "recursive": True}, "explained in one mode at a time, got versus and recursive"),
        ({"versus": "FTD"}, r"versus must be one of NC \(0\), AD \(1\), got 'FTD'"),
        ({"channels": "each"}, "channels one by one need two or more, got 1"),
        ({"channels": "both"}, 'channels must be "together" or "each", got \'both\''),
        ({"channel": 1}, "channel must be one of the volume's 1, counted from 0, got 1"),
        ({"channel": -1}, "channel must be a whole number of at least 0, got -1"),
        ({"search": Grid(3), "kernel": "segment"}, 'kernel="segment" takes its shape from segments'),
        ({"search": Grid(3), "kernel": "ellipsoid"}, 'kernel="ellipsoid" takes its shape from segments'),
    ],
)
def test_options_that_exclude_each_other_are_refused(scan, sided, few, options, match):
    with refused(match):
        explain_img(scan, sided, **({"target": "AD", "search": few} | SMALL | options))


def test_versus_takes_one_target(scan, sided, few):
    with refused("versus sets one class against another: give one target"):
        explain_img(scan, sided, ["AD", "NC"], few, versus="NC", **SMALL)


def test_scans_that_do_not_fit_the_model_are_refused(few):
    model, _ = two_inputs(few)
    with refused("takes 2 input channels, a scan has 1"):
        explain_img(head(T1), model, "AD", few, **SMALL)
    with refused("takes 2 input channels, got 3 scans"):
        explain_img([head(T1)] * 3, model, "AD", few, **SMALL)
    with refused("every channel needs a name of letters and digits of its own, got T1w, T1-w"):
        explain_img({"T1w": head(T1), "T1-w": head(T1)}, model, "AD", few, **SMALL)
    with refused("at least one scan"):
        explain_img([], model, "AD", few, **SMALL)
    far = nib.Nifti1Image(values(head(T1)), affine("RAS", (2.0, 2.0, 2.0), origin=(500.0, 0.0, 0.0)))
    with refused("holds no signal on the grid of"):
        explain_img([head(T1), far], model, "AD", few, **SMALL)


@pytest.mark.parametrize("kernel", ["ellipsoid", "segment"])
def test_masks_take_the_shape_of_the_regions(scan, sided, few, kernel):
    r = explain_img(scan, sided, "AD", few, kernel=kernel, sigma_light=4.0, sigma_shadow=4.0, unit="mm")
    assert r.table.set_index("name")["rank"]["Hippocampus_L"] == 1
    assert r.provenance["Settings"]["kernel"] == kernel
    grid = VoxelGrid(scan.shape, scan.affine)
    assert values(r.light_img)[mask_of(few, grid)].min() > 0.2


# Several references


BACKGROUNDS = {"dark": 0.0, "dim": 100.0, "bright": 900.0}


@pytest.mark.filterwarnings("ignore:the consensus has backgrounds")
def test_the_table_keeps_every_drop_and_how_many_references_agree(scan, sided, few, tmp_path):
    r = explain_img(scan, sided, "AD", few, background=BACKGROUNDS, **SMALL)
    alone = {name: explain_img(scan, sided, "AD", few, background=b, **SMALL) for name, b in BACKGROUNDS.items()}
    assert list(r.parts) == list(BACKGROUNDS)
    for name, explanation in alone.items():
        assert_same(r.parts[name], explanation)
        np.testing.assert_allclose(r.table[f"drop_{name}"], explanation.table["drop"], atol=1e-9)
    rows = r.table.set_index("name")
    # a bright mask adds evidence where a dark mask removes it
    assert rows["drop_dark"]["Hippocampus_L"] > 0 > rows["drop_bright"]["Hippocampus_L"]
    assert rows["agreement"]["Hippocampus_L"] == pytest.approx(2 / 3)
    assert rows["sign"]["Hippocampus_L"] == 1
    assert list(r.table.columns[-5:]) == ["sign", "agreement", "drop_dark", "drop_dim", "drop_bright"]
    shares = np.stack([part.table["score"] / part.table["score"].sum() for part in alone.values()])
    np.testing.assert_allclose(r.table["score"], np.median(shares, axis=0), rtol=1e-6)
    written = {path.name for path in r.save(tmp_path)}
    assert {f"scan_seg-few_desc-{name}_regions.tsv" for name in (*BACKGROUNDS, "consensus")} < written
    read = pd.read_csv(tmp_path / "scan_seg-few_desc-consensus_regions.tsv", sep="\t")
    assert list(read.columns) == list(r.table.columns)


@pytest.mark.filterwarnings("ignore:the consensus has backgrounds")
def test_equal_references_are_evaluated_once(scan, sided, few, monkeypatch):
    explained, explain = [], GLAS.explain
    monkeypatch.setattr(GLAS, "explain", lambda self, *a, **k: (explained.append(self), explain(self, *a, **k))[1])
    half = values(scan)[None] / 2
    backgrounds = {"half": half, "dark": 0.0, "again": half.copy(), "dimmer": half * 0.9}
    r = explain_img(scan, sided, "AD", few, background=backgrounds, **SMALL)
    assert len(explained) == 3
    assert list(r.parts) == list(backgrounds)
    assert_same(r.parts["half"], r.parts["again"])
    for name in ("again", "dimmer"):
        alone = explain_img(scan, sided, "AD", few, background=backgrounds[name], **SMALL)
        assert_same(r.parts[name], alone)
    assert r.table["agreement"].isin([0.25, 0.5, 0.75, 1.0]).all(), "each of the four counts"


@pytest.mark.parametrize("names", [("dark", "dim", "bright"), ("dark", "bright"), ("dark", "dim")])
def test_backgrounds_that_the_model_takes_for_the_class_are_named(scan, sided, few, names):
    """They stay, as the others of a study have them too; half of them or more can turn signs round, which warns."""
    chosen = {name: BACKGROUNDS[name] for name in names}
    predicted = {name: float(sided(torch.full((1, 1, *scan.shape), BACKGROUNDS[name]))[0, 1]) for name in names}
    intact = float(sided(torch.as_tensor(values(scan), dtype=torch.float32)[None, None])[0, 1])
    unusable = [name for name in names if logit(intact) - logit(predicted[name]) < 1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        r = explain_img(scan, sided, "AD", few, background=chosen, **SMALL)
    (note,) = [note for note in r.notes if "cannot show evidence" in note] or [""]
    assert [name for name in names if f"of {name} alone {predicted[name]:.3g}" in note] == unusable
    assert (note in {str(each.message) for each in caught}) == (2 * len(unusable) >= len(names))
    assert list(r.parts) == list(names)


@pytest.mark.filterwarnings("ignore:the consensus has backgrounds")
def test_references_without_names_are_named(scan, sided, few):
    r = explain_img(scan, sided, ["NC", "AD"], few, background=[0, "blur", values(scan)[None] / 2], **SMALL)
    assert [list(explanation.parts) for explanation in r] == [["0", "blur", "reference2"]] * 2
    assert [explanation.stem for explanation in r] == [f"scan_seg-few_desc-consensus_label-{c}" for c in ("NC", "AD")]
    assert r[0].parts["0"].stem == "scan_seg-few_desc-0_label-NC"


@pytest.mark.parametrize(
    ("backgrounds", "match"),
    [
        ([0], "several backgrounds must be two or more"),
        ([0, 0.0], "several backgrounds must be two or more, each its own"),
        ({"a b": 0, "ab": "blur"}, "every background needs a name of letters and digits of its own, got a b, ab"),
        ({"!": 0, "ab": "blur"}, "every background needs a name of letters and digits"),
        ([0, "nowhere.nii.gz"], "nowhere.nii.gz"),
    ],
)
def test_references_that_do_not_fit_are_refused(scan, sided, few, backgrounds, match):
    with refused(match):
        explain_img(scan, sided, "AD", few, background=backgrounds, **SMALL)


def test_a_reference_is_matched_to_the_scan(few, tmp_path):
    """The background is `match_reference` of the model's own, in the units of the scan."""
    predict = load_model(write(tmp_path / "tiny"), device="cpu")
    keywords = {"assume_space": "MNI", "preset": "evidence"}
    data = np.array(t1().dataobj, np.float32)
    data[few.on(GRID) > 0] *= 0.4
    img = nib.Nifti1Image(data, GRID.affine)
    reference = predict.fit(torch.as_tensor(data)[None]).transform.to_scan_units(predict.info.reference)
    matched = match_reference(reference[0], data, GRID, few.on(GRID))
    r = explain_img(img, predict, "AD", few, background="matched", **keywords)
    assert_same(r, explain_img(img, predict, "AD", few, background=matched[None], **keywords))
    assert r.provenance["Settings"]["background"] == "reference of tiny, matched to the scan"
    both = explain_img(img, predict, "AD", few, background=["reference", "matched"], **keywords)
    assert list(both.parts) == ["reference", "matched"]
    with refused("scales each region by what surrounds it: search an atlas"):
        explain_img(img, predict, "AD", Grid(2), background="matched")
    with refused("takes the reference of the model, PaperNet has none"):
        explain_img(img, Predictor(predict.net, "softmax"), 1, few, background="matched", assume_space="MNI")


@pytest.mark.filterwarnings("ignore:the consensus has backgrounds")
def test_progress_counts_over_all_parts(scan, sided, few):
    steps = []
    explain_img(scan, sided, "AD", few, background=[0, "blur"], progress=lambda *step: steps.append(step), **SMALL)
    assert steps[-1] == (2 * 18, 2 * 18)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert {total for _, total in steps} == {36}


# Where to search


def test_coordinates_in_mm_keep_their_names(scan, sided, few):
    coordinates = Coordinates(
        [[-25, -21, -10], [27, 6, 2], [27, -20, -10]], ["hippocampus", "putamen", "other"], space="MNI"
    )
    r = explain_img(scan, sided, "AD", coordinates, **SMALL)
    assert r.stem == "scan_desc-points"
    np.testing.assert_allclose(r.table[["x", "y", "z"]], coordinates.points, atol=1e-6)
    assert r.table.set_index("name")["rank"]["hippocampus"] == 1
    explain_img(scan, sided, "AD", {"rois": r.table[["x", "y", "z"]].to_records(index=False)}, **SMALL)


def test_only_regions_and_points_inside_the_mask_are_searched(scan, sided, few):
    left = nib.Nifti1Image((values(scan) * 0 + 1) * (world_x(scan) < 0), scan.affine)
    r = explain_img(scan, sided, "AD", Grid((5, 6, 4)), mask_img=left, **SMALL)
    assert 0 < len(r.table) < 120
    assert (r.table["x"] < 0).all()
    atlas = explain_img(scan, sided, "AD", few, mask_img=left, **SMALL)
    searched = atlas.table.dropna(subset=["score"])
    assert set(searched["hemisphere"]) == {"L"}
    assert len(atlas.table) == len(few.table)
    assert atlas.provenance["Search"]["mask"]["sha256"]
    coarse = with_info(lambda batch: torch.full((len(batch), 2), 0.5), grid=head_grid("RAS", mm=9.0))
    with pytest.warns(GlasWarning, match="the map is flat"):
        painted = explain_img(scan, coarse, "AD", few, mask_img=left, **SMALL).light_img
    assert values(painted).any()
    assert not values(painted)[world_x(scan) >= 0].any()
    coordinates = Coordinates([[-25, -21, -10], [27, 6, 2]], ["here", "there"])
    assert explain_img(scan, sided, "AD", coordinates, mask_img=left, **SMALL).table["name"].tolist() == ["here"]


def world_x(img):
    """Return the x coordinate of every voxel in mm."""
    return nib.affines.apply_affine(img.affine, np.indices(img.shape).reshape(3, -1).T)[:, 0].reshape(img.shape)


def test_a_mask_without_a_region_or_point_is_refused(scan, sided, few):
    nothing = nib.Nifti1Image(np.zeros(scan.shape, np.float32), scan.affine)
    with refused("a mask must hold values above 0.5"):
        explain_img(scan, sided, "AD", few, mask_img=nothing, **SMALL)
    corner = np.zeros(scan.shape, np.float32)
    corner[0, 0, 0] = 1
    for search in (few, Grid(2)):
        with refused("in the mask of 1 voxels"):
            explain_img(scan, sided, "AD", search, mask_img=nib.Nifti1Image(corner, scan.affine), **SMALL)


# Scales


def test_scales_are_fused_and_each_has_a_table_and_a_map(scan, sided, few, tmp_path):
    r = explain_img(scan, sided, "AD", few, scales=(1, 0.5), **SMALL)
    half = explain_img(scan, sided, "AD", few, sigma_light=6.0, sigma_shadow=6.0, unit="mm")
    assert list(r.parts) == ["scale0p5", "scale1"]
    assert_same(r.parts["scale0p5"], half)
    assert_same(r.parts["scale1"], explain_img(scan, sided, "AD", few, **SMALL))
    assert set(r.table["scale"]) <= {0.5, 1.0}
    assert r.table.set_index("name")["rank"]["Hippocampus_L"] == 1
    written = {path.name for path in r.save(tmp_path)}
    assert {f"scan_seg-few_desc-{n}_regions.tsv" for n in ("scale0p5", "scale1", "scales")} < written
    sidecar = json.loads((tmp_path / "scan_seg-few_desc-scales_stat-saliency_statmap.json").read_text())
    assert sidecar["Settings"]["scales"] == [0.5, 1.0]
    with refused("scales must be greater than 0"):
        explain_img(scan, sided, "AD", few, scales=(0, 1), **SMALL)


def test_two_modes_together_are_refused(scan, sided):
    with refused("one mode at a time, got recursive and refine"):
        explain_img(scan, sided, "AD", Grid(3), refine=0.25, recursive=True, **SMALL)
