"""Scans in native space: a scan moved by a known matrix has the explanation of the scan at the template."""

import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.eulerangles import euler2mat

from glas3d import Grid, explain_img
from glas3d.errors import SpaceWarning
from glas3d.imaging.coordinates import Coordinates
from glas3d.imaging.scan import load_scan
from glas3d.imaging.slic import supervoxels
from glas3d.imaging.space import VoxelGrid
from tests.explain.cases import SMALL
from tests.imaging.cases import HEADS, head, head_grid, mask_of, refused, seen, values, with_info

# native world to template world, in mm
MOVED = nib.affines.from_matvec(euler2mat(0.2, -0.1, 0.15), [12.0, -9.0, 15.0])
TEMPLATE = HEADS["LAS"]


def native(img):
    """Return the same voxels in the native space that `MOVED` brings to the template."""
    return nib.Nifti1Image(values(img), np.linalg.inv(MOVED) @ img.affine)


@pytest.fixture(scope="module")
def model(few):
    """Return a model on the template's grid that depends on the left hippocampus."""
    return with_info(seen(head(TEMPLATE), few), grid=TEMPLATE)


def test_a_moved_scan_with_its_matrix_has_the_same_explanation(model, few):
    at_template = explain_img(head(TEMPLATE), model, "AD", few, **SMALL)
    moved = explain_img(native(head(TEMPLATE)), model, "AD", few, transform=MOVED, **SMALL)
    np.testing.assert_allclose(moved.table["score"], at_template.table["score"], rtol=1e-3)
    np.testing.assert_allclose(moved.table[["x", "y", "z"]], at_template.table[["x", "y", "z"]], atol=1e-6)
    np.testing.assert_allclose(moved.saliency_img.affine, np.linalg.inv(MOVED) @ TEMPLATE.affine)
    np.testing.assert_allclose(values(moved.saliency_img), values(at_template.saliency_img), rtol=1e-3)
    assert moved.provenance["Transform"]["matrix"] == MOVED.tolist()
    assert moved.provenance["SpaceCheck"]["correlation"] > 0.9


@pytest.mark.parametrize("pose", ["RAS", "PSR", "oblique-LIP"])
def test_maps_are_mapped_back_to_any_native_grid(model, few, pose):
    """The map is highest in the region as the matrix places it, on a grid of another pose and size."""
    scan = native(head(HEADS[pose]))
    r = explain_img(scan, model, "AD", few, transform=MOVED, **SMALL)
    assert r.table.set_index("name")["rank"]["Hippocampus_L"] == 1
    truth = mask_of(few, VoxelGrid(scan.shape, MOVED @ scan.affine))
    brightest = values(r.saliency_img) == values(r.saliency_img).max()
    np.testing.assert_array_equal(brightest, truth)
    r = explain_img(scan, model, "AD", Grid((6, 7, 5)), transform=MOVED, **SMALL)
    highest = r.table.sort_values("rank").iloc[0]
    voxel = np.unravel_index(values(r.saliency_img).argmax(), scan.shape)
    at_template = nib.affines.apply_affine(MOVED @ scan.affine, voxel)
    assert np.linalg.norm(at_template - highest[["x", "y", "z"]].to_numpy(dtype=float)) < 10


def test_a_mask_is_read_in_the_scan_s_own_space(model, few):
    scan = native(head(TEMPLATE))
    x = nib.affines.apply_affine(TEMPLATE.affine, np.indices(scan.shape).reshape(3, -1).T)[:, 0].reshape(scan.shape)
    left = nib.Nifti1Image((x < -3).astype(np.uint8), scan.affine)
    r = explain_img(scan, model, "AD", few, transform=MOVED, mask_img=left, **SMALL)
    assert set(r.table.dropna(subset=["score"])["hemisphere"]) == {"L"}
    painted = np.asarray(r.light_img.dataobj) > 0
    assert painted.any()
    assert not painted[x >= -3].any()


def test_the_transform_of_another_scan_is_warned_of(model, few):
    other = nib.affines.from_matvec(euler2mat(0.9, 0.8, -0.7), [40.0, -60.0, 30.0])
    with pytest.warns(SpaceWarning, match="when the matrix given has brought it there"):
        explain_img(native(head(TEMPLATE)), model, "AD", few, transform=other, **SMALL)


@pytest.mark.parametrize(
    ("transform", "match"),
    [
        (np.eye(3), r"4 ?x ?4"),
        (np.diag([1.0, 1.0, 0.0, 1.0]), "inver"),
        ("nowhere.mat", "nowhere.mat"),
        (7, "a transform must be"),
    ],
    ids=str,
)
def test_a_value_that_is_not_a_transform_is_refused(model, few, transform, match):
    with refused(match):
        explain_img(head(TEMPLATE), model, "AD", few, transform=transform, **SMALL)


def test_a_search_in_the_scan_s_own_space_is_refused_with_a_transform(model, few):
    """Its labels would be read at the template's coordinates, and would name the wrong anatomy."""
    scan = native(head(TEMPLATE))
    for search in (supervoxels(scan, 20), replace(few, space=None), Coordinates([[0.0, 0.0, 0.0]])):
        with refused(r"searched in the template's space, MNI; the space of the \w+( \w+)? is not stated"):
            explain_img(scan, model, "AD", search, transform=MOVED, **SMALL)
    with refused("the space of the atlas .* is Talairach$"):
        explain_img(scan, model, "AD", replace(few, space="Talairach"), register="affine", **SMALL)


def test_the_model_sees_only_what_is_inside_the_brain_mask(model, few):
    """The explanation is that of a scan which is 0 outside the mask, with or without a transform."""
    scan = head(TEMPLATE)
    x = nib.affines.apply_affine(TEMPLATE.affine, np.indices(scan.shape).reshape(3, -1).T)[:, 0].reshape(scan.shape)
    brain = nib.Nifti1Image((x < -25).astype(np.uint8), scan.affine)
    stripped = nib.Nifti1Image(values(scan) * (x < -25), scan.affine)
    expected = explain_img(stripped, model, "AD", few, assume_space="MNI", **SMALL)
    whole = explain_img(scan, model, "AD", few, assume_space="MNI", **SMALL)
    assert not np.allclose(expected.table["score"], whole.table["score"])
    assert whole.provenance["BrainMask"] is None
    r = explain_img(scan, model, "AD", few, brain_mask=brain, assume_space="MNI", **SMALL)
    np.testing.assert_array_equal(r.table["score"], expected.table["score"])
    assert r.provenance["BrainMask"]["sha256"] == load_scan(brain).sha256
    moved = explain_img(
        native(scan), model, "AD", few, brain_mask=native(brain), transform=MOVED, assume_space="MNI", **SMALL
    )
    np.testing.assert_allclose(moved.table["score"], expected.table["score"], rtol=2e-3)
    elsewhere = nib.Nifti1Image(np.ones(scan.shape, np.uint8), nib.affines.from_matvec(np.eye(3), [900, 900, 900]))
    with refused("lies elsewhere"):
        explain_img(scan, model, "AD", few, brain_mask=elsewhere, **SMALL)


def test_an_automatic_brain_mask_is_that_of_the_first_scan(model, few, monkeypatch):
    """The explanation is that with the same mask given; library, version and hash are recorded."""
    scan = native(head(TEMPLATE))
    brain = nib.Nifti1Image((np.indices(scan.shape)[0] >= scan.shape[0] // 2).astype(np.float32), scan.affine)
    record = {"name": "deepbet", "version": "9.9", "sha256": "0" * 64}
    found = []

    def brain_mask_of(given):
        found.append(given.sha256)
        return load_scan(brain), record

    monkeypatch.setattr("glas3d.explain.inputs.brain_mask_of", brain_mask_of)
    options = {"transform": MOVED, "assume_space": "MNI", **SMALL}
    for automatic in ("auto", Path("auto")):  # the command line gives a path
        r = explain_img(scan, model, "AD", few, brain_mask=automatic, **options)
        given = explain_img(scan, model, "AD", few, brain_mask=brain, **options)
        np.testing.assert_array_equal(r.table["score"], given.table["score"])
        assert r.provenance["BrainMask"] == record
    assert found == [load_scan(scan).sha256] * 2


def test_an_automatic_brain_mask_without_deepbet_is_refused_before_the_evaluation(few, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepbet", None)

    def evaluated(batch):
        raise AssertionError("the model is evaluated")

    with refused(r'needs deepbet: pip install "glas3d\[brain-mask\]"'):
        explain_img(head(TEMPLATE), evaluated, 1, few, brain_mask="auto", **SMALL)


@pytest.mark.slow
def test_a_brain_mask_replaces_the_template_s_brain(model, few):
    pytest.importorskip("ants")
    scan = native(head(head_grid("LAS", mm=3.0)))
    half = np.ones(scan.shape, np.uint8)
    half[scan.shape[0] * 2 // 3 :] = 0
    default = explain_img(scan, model, "AD", few, register="affine", **SMALL)
    half_img = nib.Nifti1Image(half, scan.affine)
    given = explain_img(scan, model, "AD", few, register="affine", brain_mask=half_img, **SMALL)
    assert given.provenance["BrainMask"] is not None
    assert default.provenance["BrainMask"] is None
    assert not np.allclose(given.table["light"], default.table["light"], rtol=0.01)


@pytest.mark.slow
def test_a_scan_is_registered_and_its_maps_are_mapped_back(model, few):
    """Without a transform the scan is registered, and the map is highest in the region of the native scan."""
    pytest.importorskip("ants")
    scan = native(head(head_grid("LAS", mm=3.0)))
    r = explain_img(scan, model, "AD", few, register="affine", **SMALL)
    assert r.table.set_index("name")["rank"]["Hippocampus_L"] == 1
    truth = mask_of(few, VoxelGrid(scan.shape, MOVED @ scan.affine))
    brightest = values(r.saliency_img) == values(r.saliency_img).max()
    centres = [np.argwhere(region).mean(axis=0) * 3.0 for region in (truth, brightest)]
    assert np.linalg.norm(centres[0] - centres[1]) < 3
    assert "matrix" in r.provenance["Transform"]


def test_a_transform_and_a_registration_together_are_refused(model, few):
    with refused("by a given transform or by registration, got transform and register"):
        explain_img(head(TEMPLATE), model, "AD", few, transform=MOVED, register="affine", **SMALL)
