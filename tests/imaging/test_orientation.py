import warnings

import nibabel as nib
import numpy as np
import pytest

from glas3d.errors import GlasWarning
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.orientation import forms_of
from glas3d.imaging.scan import load_scan
from tests.imaging.cases import POSES, SHAPE, affine, data, patched, refused

RAS, LAS = POSES["RAS"], POSES["LAS"]


def with_forms(sform, sform_code, qform, qform_code):
    img = nib.Nifti1Image(data(), sform)
    img.set_sform(sform, sform_code)
    img.set_qform(qform, qform_code)
    return img


def shifted(pose, mm):
    moved = pose.copy()
    moved[:3, 3] += mm
    return moved


def mgh_without_orientation():
    img = nib.MGHImage(data(), RAS.astype(np.float32))
    img.header["goodRASFlag"] = 0
    return img


UNCLEAR = {
    "Analyze": (lambda: nib.AnalyzeImage(data(), RAS), "Analyze.*does not say which side of it is left"),
    "SPM without .mat": (lambda: nib.Spm99AnalyzeImage(data(), RAS), "Analyze.*does not say which side of it is left"),
    "MGH without orientation": (mgh_without_orientation, "no valid orientation.*side of it is left"),
    "no code": (lambda: with_forms(RAS, 0, RAS, 0), "neither sform nor qform.*side of it is left"),
    "opposite sides": (lambda: with_forms(RAS, 1, LAS, 1), "disagree on which side of it is left.*sform is taken"),
    "opposite sides, two spaces": (lambda: with_forms(LAS, 4, RAS, 1), "disagree on which side of it is left"),
    "apart": (lambda: with_forms(RAS, 1, shifted(RAS, [0, 3, 4]), 1), "voxels up to 5 mm apart: the sform"),
    "far apart, two spaces": (lambda: with_forms(RAS, 4, shifted(RAS, [0, 36, 48]), 1), "voxels up to 60 mm apart"),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_a_header_that_leaves_the_side_or_place_open_is_warned_of(case):
    make, match = UNCLEAR[case]
    with pytest.warns(GlasWarning, match=match) as caught:
        scan = load_scan(make())
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert np.array_equal(scan.data, data())


@pytest.mark.parametrize(
    "make",
    [
        lambda: nib.Nifti1Image(data(), RAS),
        lambda: nib.MGHImage(data(), LAS.astype(np.float32)),
        lambda: with_forms(RAS, 1, RAS, 0),
        lambda: with_forms(RAS, 0, LAS, 1),
        lambda: with_forms(RAS, 1, shifted(RAS, [0, 0, 1]), 1),  # rounding, shear
        lambda: with_forms(RAS, 4, shifted(RAS, [0, 9, 12]), 1),  # two spaces may differ
    ],
)
def test_a_header_that_is_clear_is_not_warned_of(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_scan(make())


def test_an_analyze_image_with_spms_mat_file_is_clear(tmp_path):
    path = tmp_path / "a.img"
    nib.save(nib.Spm99AnalyzeImage(data(), RAS), path)
    assert path.with_suffix(".mat").is_file()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(load_scan(path).affine, RAS)


def test_the_rule_holds_for_atlases_too(tmp_path):
    labels, probabilities = np.zeros(SHAPE, np.int16), np.zeros((*SHAPE, 2), np.float32)
    labels[1, 2, 3], probabilities[1, 2, 3, 0], probabilities[4, 5, 6, 1] = 1, 1, 1
    names = tmp_path / "names.tsv"
    names.write_text("index\tname\n1\ta\n")
    for make in (
        lambda: Atlas.from_files(nib.AnalyzeImage(labels, RAS), names),
        lambda: Atlas.from_probabilistic(nib.AnalyzeImage(probabilities, RAS), ["a", "b"]),
    ):
        with pytest.warns(GlasWarning, match="does not say which side of it is left"):
            make()


# What writing a map needs is checked when the scan is read


@pytest.mark.parametrize("length", [1.0, 1 + 1e-6, 1.00001, 1.0009])
def test_a_quaternion_that_is_too_long_by_rounding_is_mended(tmp_path, length):
    turned = affine("LPS", angles=(0.0, 0.0, 0.0))  # a half turn: b, c or d is 1
    path = tmp_path / "a.nii"
    nib.save(with_forms(turned, 1, turned, 1), path)
    vector = np.array([nib.load(path).header[f"quatern_{axis}"] for axis in "bcd"]) * length
    patched(path, quatern_b=vector[0], quatern_c=vector[1], quatern_d=vector[2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scan = load_scan(path)
    written = scan.like(scan.data).header
    qform, code = written.get_qform(coded=True)
    assert code == 1
    np.testing.assert_allclose(qform, turned, atol=0.01)
    np.testing.assert_allclose(scan.affine, turned, atol=1e-5)


def test_a_qform_that_is_no_rotation_is_left_out_with_a_warning(tmp_path):
    path = tmp_path / "a.nii"
    nib.save(with_forms(LAS, 2, LAS, 1), path)
    patched(path, quatern_b=1.5)
    with pytest.warns(GlasWarning, match=r"a\.nii has a qform that is no rotation: it is ignored"):
        scan = load_scan(path)
    written = nib.load(_saved(scan, tmp_path))
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (2, 0)
    np.testing.assert_allclose(written.affine, LAS, atol=1e-5)
    assert forms_of(written.header).qform is None


def _saved(scan, folder):
    path = folder / "map.nii.gz"
    nib.save(scan.like(scan.data), path)
    return path


def test_a_grid_that_nifti_cannot_hold_is_refused_at_reading():
    long = np.zeros((2, 3, 40000), np.float32)
    long[1] = 1
    with refused("maps on the grid of the image must fit into NIfTI files"):
        load_scan(nib.Nifti2Image(long, RAS))
