"""The brain of a scan as deepbet finds it, and where deepbet is missing, fails or finds something else."""

import sys
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from glas3d.hashing import arrays_sha256
from glas3d.imaging import brain_extraction
from glas3d.imaging.brain_extraction import brain_mask_of, is_automatic
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import template_on
from tests.imaging import native
from tests.imaging.cases import refused

GRID = native.native_grid((-1, 1, -1), spacing=(4.0, 3.5, 5.0))


@pytest.fixture
def scan():
    """Return the template's head on an oblique grid of three lengths, two axes turned around."""
    return native.head(GRID)


@pytest.fixture
def deepbet(monkeypatch):
    """Return a function that puts another deepbet in its place, which finds what it is given."""

    def install(run):
        class BrainExtraction:
            def __init__(self, no_gpu):
                assert no_gpu

            def run(self, img):
                return img, run(img), 0.0

        monkeypatch.setitem(sys.modules, "deepbet", SimpleNamespace(BrainExtraction=BrainExtraction))
        monkeypatch.setattr(brain_extraction.importlib.metadata, "version", lambda name: f"9.9 of {name}")

    return install


@pytest.mark.parametrize(
    ("given", "expected"),
    [("auto", True), ("brain.nii.gz", False), (None, False), (np.ones(3), False), ("AUTO", False)],
    ids=str,
)
def test_a_mask_is_automatic_by_name(given, expected):
    assert is_automatic(given) is expected


def test_the_mask_is_on_the_scan_s_own_grid(scan, deepbet):
    """deepbet is given the scan's intensities with their affine; version and hash are recorded."""
    given = []

    def bright(img):
        given.append(img)
        return nib.Nifti1Image((np.asarray(img.dataobj) > 200).astype(np.uint8), img.affine)

    deepbet(bright)
    mask, record = brain_mask_of(scan)
    np.testing.assert_array_equal(given[0].dataobj, scan.data)
    np.testing.assert_array_equal(given[0].affine, scan.affine)
    np.testing.assert_array_equal(mask.data, scan.data > 200)
    np.testing.assert_array_equal(mask.affine, scan.affine)
    assert record == {
        "name": "deepbet",
        "version": "9.9 of deepbet",
        "sha256": arrays_sha256((scan.data > 200).astype(np.float32), scan.affine),
    }


def test_what_is_not_of_a_brain_s_size_is_refused(scan, deepbet):
    deepbet(lambda img: nib.Nifti1Image(np.ones(img.shape, np.uint8), img.affine))
    with refused(r"deepbet finds no brain in .* has \d+ ml, and a brain has 500 to 2500; give a mask", scan.name):
        brain_mask_of(scan)
    deepbet(lambda img: nib.Nifti1Image(np.zeros(img.shape, np.uint8), img.affine))
    with refused("what it finds has 0 ml", scan.name):
        brain_mask_of(scan)


def test_any_error_of_the_library_is_one_sentence(scan, deepbet):
    def fail(img):
        raise AssertionError("Not enough foreground to calculate bounding box")

    deepbet(fail)
    with refused("finds no brain in .*: Not enough foreground .*; give a mask of it", scan.name):
        brain_mask_of(scan)


def test_without_deepbet_the_command_that_installs_it_is_named(scan, monkeypatch):
    monkeypatch.setitem(sys.modules, "deepbet", None)
    with refused(r'needs deepbet: pip install "glas3d\[brain-mask\]"$'):
        brain_mask_of(scan)


@pytest.mark.slow
def test_deepbet_finds_the_template_s_brain():
    """On an oblique grid with turned axes, its hemispheres in their places; its networks come with its package."""
    pytest.importorskip("deepbet", reason="deepbet is not installed: the extra brain-mask")
    grid = native.native_grid((-1, 1, -1), spacing=(2.0, 1.8, 2.2))
    scan = load_scan(nib.Nifti1Image(native.head(grid).data, grid.affine))
    mask, record = brain_mask_of(scan)
    truth = native.seen_from(
        grid, nib.Nifti1Image((template_on(2) > 0.1).astype(np.float32), native.mni_grid(2).affine)
    )
    found, expected = mask.data > 0.5, truth > 0.5
    dice = 2 * (found & expected).sum() / (found.sum() + expected.sum())
    assert dice > 0.93
    for axis in range(3):  # a mask that is turned around fits less
        turned = np.flip(found, axis)
        assert 2 * (turned & expected).sum() / (turned.sum() + expected.sum()) < dice - 0.005
    assert record["name"] == "deepbet"
    assert brain_mask_of(scan)[1] == record
