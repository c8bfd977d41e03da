"""Registration of heads whose position is known: the template moved and deformed, and Colin27 with its skull."""

import os
import subprocess

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from glas3d.imaging import registration
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.registration import register, template_brain, template_brain_in_native, without_skull
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import VoxelGrid, mni_grid, resample, template_on
from glas3d.imaging.spatial_transform import Affine, Warp, load_transform
from tests.imaging import native
from tests.imaging.cases import refused
from tests.imaging.native import MOVED, NO_COLIN, to_native, to_template

pytest.importorskip("ants", reason="antspyx is not installed: the extra register")

HIPPOCAMPI = np.array([[-26.0, -20.0, -14.0], [29.0, -20.0, -13.0]])


def brain():
    """Return points of the template's brain, in mm."""
    return apply_affine(mni_grid(4).affine, np.argwhere(template_on(4) > 0.1)[::5])


def gaps(points, others):
    return np.linalg.norm(points - others, axis=-1)


def hippocampi(labels, affine):
    return np.stack([native.centre(labels, label, affine) for label in (37, 38)])


@pytest.fixture(scope="module")
def bent():
    return native.head(native.native_grid(), bent=True)


@pytest.fixture(scope="module")
def warp(bent):
    return register(bent, "SyN")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axes", "angles"),
    [((1, 1, 1), (6.0, -4.0, 8.0)), ((-1, 1, 1), (0.0, 0.0, 0.0)), ((1, -1, -1), (-9.0, 12.0, -5.0))],
    ids=["oblique", "LAS", "oblique-RPI"],
)
def test_a_moved_head_is_registered(axes, angles):
    """In any order and turn of the axes, left on the left, from 15 mm and 12 degrees away."""
    scan = native.head(native.native_grid(axes, angles=angles))
    transform = register(scan)
    assert isinstance(transform, Affine)
    assert gaps(transform.points_to_native(brain()), to_native(brain())).max() < 0.5
    assert gaps(transform.points_to_template(to_native(HIPPOCAMPI)), HIPPOCAMPI).max() < 0.5
    assert transform.check(scan).problem is None
    native_labels = transform.to_native(Atlas.load("AAL").labels_img, scan, "nearest")
    truth = native.labels(VoxelGrid(scan.shape, scan.affine))
    assert gaps(hippocampi(native_labels, scan.affine), hippocampi(truth, scan.affine)).max() < 0.5


@pytest.mark.slow
def test_the_same_seed_gives_the_same_transform_to_the_last_bit(monkeypatch):
    """The settings of ITK in this process do not matter."""
    scan = native.head(native.native_grid(spacing=(3.2, 3.0, 4.0)))
    first = register(scan, seed=2)
    monkeypatch.setenv("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "2")
    monkeypatch.setenv("ANTS_RANDOM_SEED", "77")
    other = register(scan, seed=2)
    np.testing.assert_array_equal(first.matrix, other.matrix)
    assert first.record() == other.record()
    assert first.record()["seed"] == 2
    assert not np.array_equal(register(scan, seed=3).matrix, first.matrix)
    assert os.environ["ANTS_RANDOM_SEED"] == "77"


@pytest.mark.slow
def test_syn_removes_a_deformation_that_an_affine_cannot(bent, warp):
    affine, truth = Affine(warp.inverse[0]), to_native(brain(), bent=True)
    rough = gaps(affine.points_to_native(brain()), truth)
    fine = gaps(warp.points_to_native(brain()), truth)
    assert isinstance(warp, Warp)
    assert rough.mean() > 2
    assert fine.mean() < 0.8
    assert gaps(warp.points_to_native(HIPPOCAMPI), to_native(HIPPOCAMPI, bent=True)).max() < 1
    assert gaps(warp.points_to_template(to_native(HIPPOCAMPI, bent=True)), HIPPOCAMPI).max() < 1
    labels = Atlas.load("AAL").labels_img
    truth = native.labels(VoxelGrid(bent.shape, bent.affine), bent=True)
    shares = []
    for transform in (affine, warp):
        native_labels = transform.to_native(labels, bent, "nearest")
        assert gaps(hippocampi(native_labels, bent.affine), hippocampi(truth, bent.affine)).max() < 3
        shares.append((native_labels == truth)[truth > 0].mean())
    assert shares[1] > shares[0] + 0.08


@pytest.mark.slow
def test_a_warp_s_files_live_as_long_as_it_does_or_are_kept(bent, warp, tmp_path):
    warp.save(tmp_path)
    again = load_transform(tmp_path)
    assert again.settings == warp.settings
    assert again.settings["kind"] == "SyN"
    first, other = (transform.to_template(bent, mni_grid(4)).data for transform in (warp, again))
    np.testing.assert_array_equal(first, other)
    hashes = [step["sha256"] for step in warp.record()["from-native_to-template"] if "sha256" in step]
    assert hashes == [step["sha256"] for step in again.record()["from-native_to-template"] if "sha256" in step]


@pytest.mark.slow
def test_a_scan_that_is_no_head_is_refused(monkeypatch):
    """After every start was tried; the others take as long as these two."""
    monkeypatch.setattr(registration, "_STARTS", registration._STARTS[:2])
    grid = native.native_grid(spacing=(5.0, 4.0, 6.0))
    noise = np.random.default_rng(0).uniform(0, 1, grid.shape).astype(np.float32)
    with refused("could not be registered: it correlates 0.[0-4]. with the template at best", "the image"):
        register(nib.Nifti1Image(noise, grid.affine))


def test_unknown_settings_are_refused():
    img = nib.Nifti1Image(native.head(native.native_grid(spacing=(5.0, 4.0, 6.0))).data, np.eye(4))
    with refused('kind must be "affine" or "SyN", got \'syn\''):
        register(img, "syn")
    for wrong in ({"threads": 0}, {"seed": 0}):
        with refused("threads and seed must be 1 or more"):
            register(img, **wrong)


@pytest.mark.parametrize(
    ("error", "match"), [("Traceback\nRuntimeError: out of memory", "out of memory"), ("", "status -6")]
)
def test_when_ants_fails_its_last_line_is_in_the_message(monkeypatch, error, match):
    done = subprocess.CompletedProcess([], -6, stdout="", stderr=error)
    monkeypatch.setattr(subprocess, "run", lambda *args, **settings: done)
    with refused(f"could not be registered, ANTs says: .*{match}", "the image"):
        register(native.head(native.native_grid(spacing=(5.0, 4.0, 6.0))))


def test_the_brain_of_a_scan_is_the_template_s():
    grid = native.native_grid()
    scan = native.head(grid)
    mask = template_brain_in_native(scan, load_transform(MOVED))
    inside = np.asarray(mask.dataobj)
    truth = native.seen_from(grid, template_brain(), order=0)
    assert mask.shape == scan.shape
    assert set(np.unique(inside)) == {0, 1}
    assert 2 * (inside & truth).sum() / (inside.sum() + truth.sum()) > 0.99
    bare = without_skull(scan, mask)
    np.testing.assert_array_equal(bare.data, np.where(inside, scan.data, 0))
    assert bare.affine is scan.affine


# A real head


@pytest.fixture(scope="module")
def colin():
    """Colin27 on an oblique 1.2 x 1 x 1.5 mm grid, 15 mm and 12 degrees away from MNI space."""
    path = native.colin()
    if path is None:
        pytest.skip(NO_COLIN)
    img = nib.load(path)
    grid = native.native_grid(spacing=(1.2, 1.0, 1.5))
    data = resample(nib.Nifti1Image(np.asarray(img.dataobj), np.linalg.inv(MOVED) @ img.affine), grid)
    return load_scan(nib.Nifti1Image(data, grid.affine))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["affine", "SyN"])
def test_the_hippocampi_of_colin_are_mapped_to_native_space(colin, kind):
    """AAL was drawn on this head, so where its labels belong is known.

    What a deformation finds in the template is the template's hippocampus, which lies 2 to 3 mm from Colin's.
    """
    allowed = {"affine": 2.5, "SyN": 3.5}[kind]
    transform = register(colin, kind)
    truth = native.labels(VoxelGrid(colin.shape, colin.affine))
    native_labels = transform.to_native(Atlas.load("AAL").labels_img, colin, "nearest")
    assert gaps(hippocampi(native_labels, colin.affine), hippocampi(truth, colin.affine)).max() < allowed
    there = transform.points_to_template(hippocampi(truth, colin.affine))
    labels = Atlas.load("AAL").labels_img
    assert gaps(there, hippocampi(np.asarray(labels.dataobj), labels.affine)).max() < allowed
    t1 = template_on(2)
    moved = transform.to_template(colin, mni_grid(2)).data
    correlation = np.corrcoef(moved[t1 > 0.1], t1[t1 > 0.1])[0, 1]
    assert correlation > {"affine": 0.7, "SyN": 0.88}[kind]
    assert transform.check(colin).problem is None
    volume = np.asarray(template_brain_in_native(colin, transform).dataobj).sum() * np.prod(colin.spacing) / 1e6
    assert 1.7 < volume < 2.1  # litres; BET finds 1.97


@pytest.mark.slow
def test_a_neck_does_not_mislead_the_registration(colin):
    """A column of tissue below the head pulls its centre of mass away from the brain's."""
    upright = VoxelGrid((95, 115, 130), nib.affines.from_matvec(np.diag([2.0, 2.0, 2.0]), [-95, -130, -165]))
    data = resample(nib.Nifti1Image(colin.data, MOVED @ colin.affine), upright)
    low = 48
    data[:, :, :low] = data[:, :, low : low + 1]
    pose = nib.affines.from_matvec(np.eye(3), [20.0, 30.0, -40.0])
    transform = register(nib.Nifti1Image(data, pose @ upright.affine))
    assert gaps(transform.points_to_native(brain()), apply_affine(pose, brain())).mean() < 3


@pytest.mark.slow
def test_the_metric_ignores_the_skull(colin, monkeypatch):
    """A pitch of 30 degrees is registered from upright; with the metric on the whole head it is 2 cm off."""
    monkeypatch.setattr("glas3d.imaging.registration._STARTS", ((0, 0, 0),))
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(0, 0, np.radians(30)), [0.0, 20.0, -20.0])
    transform = register(nib.Nifti1Image(colin.data, turn @ MOVED @ colin.affine))
    assert gaps(transform.points_to_native(brain()), apply_affine(turn, brain())).mean() < 3


@pytest.mark.slow
def test_a_head_turned_far_is_registered_from_another_start(colin):
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(*np.radians((25.0, 25.0, 25.0))), [10.0, 20.0, -20.0])
    transform = register(nib.Nifti1Image(colin.data, turn @ MOVED @ colin.affine))
    assert gaps(transform.points_to_native(brain()), apply_affine(turn, brain())).mean() < 3


def test_the_true_mappings_undo_each_other():
    assert gaps(to_template(to_native(brain(), bent=True), bent=True), brain()).max() < 1e-6
