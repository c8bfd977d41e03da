"""Settings of `explain_img` that have defaults elsewhere: sigmas, the preset of the model, and the background."""

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from glas3d import Grid, explain_img
from glas3d.predict import Standardisation, intensity_scale
from tests.imaging.cases import HEADS, assert_same, head, head_grid, refused, seen, values, with_info

RAS = HEADS["RAS"]


# Sigmas


def test_sigmas_in_voxels_and_in_mm_agree(few):
    img = head(head_grid(mm=4.0))
    model = seen(img, few)
    r = explain_img(img, model, search=few, sigma_light=20, sigma_shadow=30, unit="mm")
    assert_same(explain_img(img, model, search=few, sigma_light=5, sigma_shadow=7.5), r)
    assert_same(explain_img(img, model, search=few, sigma_light=5), r)  # the shadow's sigma is the paper's, in voxels
    assert_same(explain_img(img, model, search=few, preset="paper"), r)
    assert_same(explain_img(img, model, search=few, unit="voxel", preset="paper"), r)
    assert r.provenance["Settings"]["unit"] == "mm"
    wider = explain_img(img, model, search=few, sigma_light=6)
    assert (wider.table["light"] > r.table["light"]).all()


def test_default_sigmas_in_voxels_are_the_same_length_along_every_axis(few):
    img = head(HEADS["oblique-LIP"])  # 5 x 6 x 7 mm
    model = seen(img, few)
    voxels = explain_img(img, model, search=few, unit="voxel")
    np.testing.assert_allclose(voxels.explanation.settings["sigma_light"], (1 / 5, 1 / 6, 1 / 7))
    assert_same(voxels, explain_img(img, model, search=few), rtol=1e-4)


@pytest.mark.parametrize(
    "preset",
    [
        {"sigma_light": 10.0, "sigma_shadow": 15.0, "unit": "mm"},
        {"sigma_light": 10.0 / 6, "sigma_shadow": 2.5, "unit": "voxel"},
        {"sigma_light": 10.0 / 6, "sigma_shadow": 2.5},
    ],
)
def test_the_preset_of_the_model_is_used(few, preset):
    img = head(RAS)
    model = seen(img, few)
    r = explain_img(img, with_info(model, preset=preset), search=few)
    assert_same(r, explain_img(img, model, search=few, sigma_light=10, sigma_shadow=15, unit="mm"))
    given = explain_img(img, with_info(model, preset=preset), search=few, sigma_light=4)
    assert given.explanation.settings["sigma_light"] == 4
    np.testing.assert_allclose(given.explanation.settings["sigma_shadow"], 5)  # the paper's, not the model's


@pytest.mark.parametrize("setting", [{"sigma_spatial": 3.0}, {"kernel": "exponential"}, {"fusion": "light"}])
def test_every_setting_of_a_preset_is_used(few, setting):
    img = head(RAS)
    preset = {"sigma_light": 3.0, "sigma_shadow": 4.0, "unit": "voxel"} | setting
    r = explain_img(img, with_info(seen(img, few), preset=preset), search=Grid(2), unit="voxel")
    assert r.explanation.settings | setting == r.explanation.settings


def test_an_exponential_mask_on_an_oblique_grid_of_equal_voxels(few):
    grid = HEADS["oblique"]
    img = nib.Nifti1Image(values(head(grid)), grid.affine.astype(np.float32))  # as from a file
    r = explain_img(img, seen(img, few), search=few, sigma_light=2.0, kernel="exponential")
    assert r.explanation.settings["sigma_shadow"] == pytest.approx(30 / 6**0.5)  # its square is a length


def test_the_default_exponential_mask_has_the_same_size_in_voxels_and_in_mm(few):
    img = head(RAS)
    voxels = explain_img(img, seen(img, few), search=few, kernel="exponential", unit="voxel")
    assert_same(voxels, explain_img(img, seen(img, few), search=few, kernel="exponential"), rtol=1e-3)


# Backgrounds


def test_a_background_is_a_number_an_image_a_path_or_an_array(few, tmp_path):
    img = head(RAS)
    model = seen(img, few)
    plain = explain_img(img, model, search=few, preset="paper")
    assert plain.provenance["Settings"]["background"] == "0"
    number = explain_img(img, model, search=few, background=250, preset="paper")
    assert number.provenance["Settings"]["background"] == "250"
    assert (number.table["light"] > plain.table["light"]).all()
    full = np.full(RAS.shape, 250.0, np.float32)
    assert_same(number, explain_img(img, model, search=few, background=full, preset="paper"))

    even = nib.Nifti1Image(np.full(RAS.shape, 250, np.int16), RAS.affine)
    assert_same(number, explain_img(img, model, search=few, background=even, preset="paper"))

    other = head(HEADS["PSR"], scale=300)  # the same voxels in another order
    nib.save(other, tmp_path / "mean.nii.gz")
    array = explain_img(img, model, search=few, background=values(head(RAS, scale=300)))
    for given in (other, tmp_path / "mean.nii.gz", str(tmp_path / "mean.nii.gz")):
        r = explain_img(img, model, search=few, background=given)
        assert_same(r, array, rtol=1e-4)
    assert "mean.nii.gz sha256:" in r.provenance["Settings"]["background"]


def test_a_blurred_background_keeps_brightness_and_loses_regions(few):
    img = head(HEADS["oblique-LIP"])  # 5 x 6 x 7 mm
    model = seen(img, few)
    r = explain_img(img, model, search=few, background="blur", preset="paper")
    assert r.provenance["Settings"]["background"] == "the scan blurred by 10 mm"
    blurred = gaussian_filter(values(img).astype(np.float64), (10 / 5, 10 / 6, 10 / 7))
    assert_same(r, explain_img(img, model, search=few, background=blurred, preset="paper"), rtol=1e-4)
    dark = explain_img(img, model, search=few, background=0, preset="paper")
    assert (dark.table["light"] < r.table["light"]).all()
    assert (dark.table["drop"] > r.table["drop"]).all()


def test_auto_is_the_model_s_reference_in_the_scan_s_units(few):
    img = head(RAS, scale=900)
    reference = values(head(RAS, scale=1.0))[None] * 0.6
    ones = torch.ones((1, *RAS.shape))
    scale = Standardisation(mean=0 * ones, std=ones)  # divides the scan by its own brightness
    brightness = intensity_scale(values(img))
    region = seen(nib.Nifti1Image(values(img) / brightness, img.affine), few)
    model = with_info(region, transform=scale, reference=reference)
    r = explain_img(img, model, search=few, preset="paper")
    assert r.provenance["Settings"]["background"] == "reference of toy"
    assert_same(r, explain_img(img, model, search=few, background=reference * brightness, preset="paper"), rtol=1e-4)
    dark = explain_img(img, model, search=few, background=0, preset="paper")
    assert dark.provenance["Settings"]["background"] == "0"
    assert (dark.table["light"] < r.table["light"]).all()


def test_a_reference_without_a_scaling_is_used_unchanged(few):
    img = head(RAS)
    reference = values(head(RAS, scale=300))[None]
    r = explain_img(img, with_info(seen(img, few), reference=reference), search=few, background="reference")
    assert_same(r, explain_img(img, seen(img, few), search=few, background=reference))


@pytest.mark.parametrize(
    ("more", "matched"),
    [
        ({}, True),
        ({"preset": "evidence"}, True),
        ({"fusion": "shadow", "preset": "evidence"}, True),
        ({"kernel": "segment", "sigma_light": 1, "sigma_shadow": 1}, True),
        ({"preset": "paper"}, False),
        ({"sigma_light": 3, "sigma_shadow": 3}, False),
        ({"preset": "evidence", "search": Grid(2)}, False),
    ],
)
def test_masks_of_the_regions_shape_take_the_matched_reference(few, more, matched):
    img = head(RAS)
    model = with_info(seen(img, few), reference=values(head(RAS, scale=300))[None])
    keywords = {"search": few} | more
    auto = explain_img(img, model, **keywords)
    named = explain_img(img, model, background="matched" if matched else "reference", **keywords)
    assert_same(auto, named)
    assert auto.provenance["Settings"]["background"] == named.provenance["Settings"]["background"]
    assert auto.provenance["Settings"]["background"].endswith("matched to the scan") == matched


def test_intensities_around_zero_have_no_matched_reference(few):
    img = head(RAS)
    reference = values(head(RAS, scale=300))[None]
    model = with_info(seen(img, few), reference=reference - reference.mean())
    assert explain_img(img, model, search=few).provenance["Settings"]["background"] == "reference of toy"
    with refused('the reference of toy has negative ones: give background="reference"'):
        explain_img(img, model, search=few, background="matched")


@pytest.mark.parametrize(
    ("background", "match"),
    [
        ("missing.nii.gz", "no such file: missing.nii.gz"),
        (np.ones((7, 8, 9)), r"background must be .*\(1, 31, 37, 29\), got \(7, 8, 9\)"),
        (float("nan"), "background must hold finite numbers"),
    ],
)
def test_a_bad_background_is_refused(few, background, match):
    img = head(RAS)
    with refused(match):
        explain_img(img, seen(img, few), search=few, background=background)
