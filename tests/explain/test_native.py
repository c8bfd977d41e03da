"""From native space to the template and home again: a scan moved by a known matrix is explained as if it were not."""

from dataclasses import replace

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
from tests.imaging.cases import HEADS, head, head_grid, mask_of, refused, seen, values, with_info

SMALL = {"sigma_light": 12.0, "sigma_shadow": 12.0, "unit": "mm"}
# native world to template world, in mm
MOVED = nib.affines.from_matvec(euler2mat(0.2, -0.1, 0.15), [12.0, -9.0, 15.0])
TEMPLATE = HEADS["LAS"]


def native(img):
    """The same voxels, elsewhere in the world."""
    return nib.Nifti1Image(values(img), np.linalg.inv(MOVED) @ img.affine)


@pytest.fixture(scope="module")
def model(few):
    """On the template's grid."""
    return with_info(seen(head(TEMPLATE), few), grid=TEMPLATE)


def test_a_moved_scan_and_its_matrix_are_the_scan(model, few):
    there = explain_img(head(TEMPLATE), model, "AD", few, **SMALL)
    moved = explain_img(native(head(TEMPLATE)), model, "AD", few, transform=MOVED, **SMALL)
    np.testing.assert_allclose(moved.table["score"], there.table["score"], rtol=1e-3)
    np.testing.assert_allclose(moved.table[["x", "y", "z"]], there.table[["x", "y", "z"]], atol=1e-6)
    np.testing.assert_allclose(moved.saliency_img.affine, np.linalg.inv(MOVED) @ TEMPLATE.affine)
    np.testing.assert_allclose(values(moved.saliency_img), values(there.saliency_img), rtol=1e-3)
    assert moved.provenance["Transform"]["matrix"] == MOVED.tolist()
    assert moved.provenance["SpaceCheck"]["correlation"] > 0.9


@pytest.mark.parametrize("pose", ["RAS", "PSR", "oblique-LIP"])
def test_maps_come_home_to_any_native_grid(model, few, pose):
    """The region shines where the matrix says it is, on a grid of another pose and size."""
    scan = native(head(HEADS[pose]))
    r = explain_img(scan, model, "AD", few, transform=MOVED, **SMALL)
    assert r.table.set_index("name")["rank"]["Hippocampus_L"] == 1
    truth = mask_of(few, VoxelGrid(scan.shape, MOVED @ scan.affine))
    shines = values(r.saliency_img) == values(r.saliency_img).max()
    np.testing.assert_array_equal(shines, truth)
    r = explain_img(scan, model, "AD", Grid((6, 7, 5)), transform=MOVED, **SMALL)
    best = r.table.sort_values("rank").iloc[0]
    found = np.unravel_index(values(r.saliency_img).argmax(), scan.shape)
    home = nib.affines.apply_affine(MOVED @ scan.affine, found)
    assert np.linalg.norm(home - best[["x", "y", "z"]].to_numpy(dtype=float)) < 10


def test_a_mask_lies_in_the_scan_s_own_space(model, few):
    scan = native(head(TEMPLATE))
    x = nib.affines.apply_affine(TEMPLATE.affine, np.indices(scan.shape).reshape(3, -1).T)[:, 0].reshape(scan.shape)
    left = nib.Nifti1Image((x < -3).astype(np.uint8), scan.affine)
    r = explain_img(scan, model, "AD", few, transform=MOVED, mask_img=left, **SMALL)
    assert set(r.table.dropna(subset=["score"])["hemisphere"]) == {"L"}
    shown = np.asarray(r.light_img.dataobj) > 0
    assert shown.any()
    assert not shown[x >= -3].any()


def test_the_transform_of_another_scan_is_noticed(model, few):
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
def test_what_is_no_transform_is_refused(model, few, transform, match):
    with refused(match):
        explain_img(head(TEMPLATE), model, "AD", few, transform=transform, **SMALL)


def test_a_search_of_the_scan_s_own_space_does_not_follow_it_to_the_template(model, few):
    """Its labels would be read at the template's coordinates and name the wrong anatomy."""
    scan = native(head(TEMPLATE))
    for search in (supervoxels(scan, 20), replace(few, space=None), Coordinates([[0.0, 0.0, 0.0]])):
        with refused(r"searched in the template's space, MNI; the space of the \w+( \w+)? is not stated"):
            explain_img(scan, model, "AD", search, transform=MOVED, **SMALL)
    with refused("the space of the atlas .* is Talairach$"):
        explain_img(scan, model, "AD", replace(few, space="Talairach"), register="affine", **SMALL)


def test_the_model_sees_what_the_brain_mask_holds(model, few):
    """As if the rest had been zero from the start, with and without a transform; the record names the mask."""
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


@pytest.mark.slow
def test_a_brain_mask_takes_the_place_of_the_template_s_brain(model, few):
    pytest.importorskip("ants")
    scan = native(head(head_grid("LAS", mm=3.0)))
    half = np.ones(scan.shape, np.uint8)
    half[scan.shape[0] * 2 // 3 :] = 0
    made = explain_img(scan, model, "AD", few, register="affine", **SMALL)
    half_img = nib.Nifti1Image(half, scan.affine)
    given = explain_img(scan, model, "AD", few, register="affine", brain_mask=half_img, **SMALL)
    assert given.provenance["BrainMask"] is not None
    assert made.provenance["BrainMask"] is None
    assert not np.allclose(given.table["light"], made.table["light"], rtol=0.01)


@pytest.mark.slow
def test_a_scan_is_registered_and_its_maps_come_home(model, few):
    """No transform is given: the way is found, and the region shines where it is in the native scan."""
    pytest.importorskip("ants")
    scan = native(head(head_grid("LAS", mm=3.0)))
    r = explain_img(scan, model, "AD", few, register="affine", **SMALL)
    assert r.table.set_index("name")["rank"]["Hippocampus_L"] == 1
    truth = mask_of(few, VoxelGrid(scan.shape, MOVED @ scan.affine))
    shines = values(r.saliency_img) == values(r.saliency_img).max()
    centres = [np.argwhere(one).mean(axis=0) * 3.0 for one in (truth, shines)]
    assert np.linalg.norm(centres[0] - centres[1]) < 3
    assert "matrix" in r.provenance["Transform"]


def test_a_way_given_and_one_found_do_not_go_together(model, few):
    with refused("by a transform given or one found, got transform and register"):
        explain_img(head(TEMPLATE), model, "AD", few, transform=MOVED, register="affine", **SMALL)
