import gzip
import hashlib
import os
import time
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glas3d.errors import GlasError, GlasWarning
from glas3d.imaging import image_files
from glas3d.imaging import scan as scan_module
from glas3d.imaging.scan import load_scan, read_image
from tests.imaging.cases import POSES, SHAPE, affine, data, patched, refused

RAS = POSES["RAS"]
RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def nifti(values=None, pose=RAS):
    return nib.Nifti1Image(data() if values is None else values, pose)


def saved(image, path):
    nib.save(image, path)
    return path


@pytest.mark.parametrize("kind", [str, Path, nib.load])
def test_a_path_and_an_image_are_the_same_scan(tmp_path, kind):
    path = saved(nifti(), tmp_path / "a.nii.gz")
    scan = load_scan(kind(path))
    assert np.array_equal(scan.data, data())
    assert scan.data.dtype == np.float32
    np.testing.assert_array_equal(scan.affine, RAS)
    assert scan.shape == SHAPE
    assert scan.name == str(path)


@pytest.mark.parametrize(
    ("make", "ending"),
    [
        (nib.Nifti1Image, ".nii"),
        (nib.Nifti1Image, ".nii.gz"),
        (nib.Nifti2Image, ".nii"),
        (nib.Nifti2Image, ".nii.gz"),
        (nib.Nifti1Pair, ".img"),
        (nib.Nifti1Pair, ".hdr"),
        (nib.MGHImage, ".mgz"),
    ],
)
def test_every_format_is_read(tmp_path, make, ending):
    scan = load_scan(saved(make(data(), POSES["oblique"].astype(np.float32)), tmp_path / f"brain{ending}"))
    assert np.array_equal(scan.data, data())
    np.testing.assert_allclose(scan.affine, POSES["oblique"], atol=1e-5)
    assert scan.stem == "brain"


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">i2", ">u2", ">f4", ">f8"]
)
def test_every_data_type_keeps_its_values(tmp_path, dtype):
    kind = np.dtype(dtype)
    ends = (-1000.5, 4000.25) if kind.kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    values = np.random.default_rng(1).integers(0, 100, SHAPE).astype(kind)
    values[0, 0, 0], values[6, 7, 8] = ends
    header = nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(kind)
    path = saved(nib.Nifti1Image(values, RAS, header), tmp_path / "a.nii")
    assert path.read_bytes()[:4] == (348).to_bytes(4, "big" if dtype[0] == ">" else "little")
    for img in (path, nib.load(path), nib.Nifti1Image(values, RAS, header)):
        scan = load_scan(img)
        assert np.array_equal(scan.data, values.astype(np.float32))
        assert scan.data.dtype.isnative
        assert scan.data.flags.c_contiguous


def test_a_mask_of_zeros_and_ones_is_a_scan():
    assert set(np.unique(load_scan(nifti((data() > 50).astype(np.uint8))).data)) == {0, 1}


@pytest.mark.parametrize(("slope", "inter"), [(0.5, -3.0), (-2.0, 1e4), (1.0, 100.0), (np.nan, np.nan)])
def test_intensities_are_scaled(tmp_path, slope, inter):
    values = (data() * 10).astype(np.int16)
    path = patched(saved(nifti(values), tmp_path / "a.nii"), scl_slope=slope, scl_inter=inter)
    expected = values if np.isnan(slope) else values * slope + inter
    np.testing.assert_allclose(load_scan(path).data, expected, rtol=1e-6)


@pytest.mark.parametrize("pose", POSES)
def test_a_scan_keeps_its_own_axis_order_and_position(tmp_path, pose):
    scan = load_scan(saved(nifti(pose=POSES[pose]), tmp_path / "a.nii.gz"))
    assert np.array_equal(scan.data, data())
    np.testing.assert_allclose(scan.affine, POSES[pose], atol=1e-5)
    np.testing.assert_allclose(scan.spacing, (1, 1, 5) if pose == "1x1x5" else (2, 3, 4), atol=1e-5)
    assert "".join(nib.aff2axcodes(POSES[pose])) in repr(scan)


@pytest.mark.parametrize("extra", [(1,), (1, 1)])
def test_one_volume_in_four_dimensions_is_a_scan(extra):
    scan = load_scan(nifti(data().reshape(SHAPE + extra)))
    assert np.array_equal(scan.data, data())
    assert scan.like(scan.data).shape == SHAPE


def test_nan_and_infinity_are_outside_the_brain():
    values = data()
    values[:2], values[2, 0, 0], values[2, 0, 1] = np.nan, np.inf, -np.inf
    before, scan = values.copy(), load_scan(nifti(values))
    bad = ~np.isfinite(before)
    assert (scan.data[bad] == 0).all()
    assert np.array_equal(scan.data[~bad], before[~bad])
    np.testing.assert_array_equal(values, before)  # the caller's array is left alone


@pytest.mark.parametrize(("holes", "count"), [(1, "1 voxel is"), (2, "2 voxels are")])
def test_voxels_without_a_number_amid_others_are_warned_of(holes, count):
    values = data()
    values[0], values[1, 2, 3] = np.nan, np.nan  # a part that reaches the border
    values[4, 3, 4 : 4 + holes] = (np.nan, np.inf)[:holes]
    with pytest.warns(GlasWarning, match=f"^{count} NaN or infinite inside of the image, not only around it"):
        scan = load_scan(nifti(values))
    assert (scan.data[~np.isfinite(values)] == 0).all()


def test_the_callers_image_is_not_changed(tmp_path):
    img = nib.load(saved(nifti(), tmp_path / "a.nii.gz"))
    load_scan(img)
    assert not img.in_memory  # a cache would hold every scan of a cohort


def test_the_hash_tells_files_and_images_apart(tmp_path):
    path = saved(nifti(), tmp_path / "a.nii.gz")
    assert load_scan(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    images = [nifti(), nifti(pose=POSES["LAS"]), nifti(data(seed=1))]
    assert len({load_scan(img).sha256 for img in images}) == 3
    assert load_scan(nifti()).sha256 == load_scan(nifti()).sha256


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("brain.nii.gz", "brain"),
        ("my.brain_T1w.nii", "my.brain_T1w"),
        ("sub-01_T1w.nii.gz", "sub-01_T1w"),
        ("sub-01_ses-2_space-MNI_T1w.nii.gz", "sub-01_ses-2_space-MNI_T1w"),
        ("sub-01_ses-2.nii", "sub-01_ses-2"),
        ("sub-01.nii.gz", "sub-01"),
    ],
)
def test_the_stem_is_the_name_without_its_ending(tmp_path, name, stem):
    assert load_scan(saved(nifti(), tmp_path / name)).stem == stem
    assert load_scan(nifti()).stem == "scan"


# Bad scans: what was required, what came, and which file.


def text(path):
    path.write_text("this is no image\n" * 100)
    return path


def half(path):
    saved(nib.Nifti1Pair(data(), RAS), path)
    path.with_suffix(".img").unlink()
    return path


def renamed(path, ending):
    return saved(nifti(), path.with_name(f"other{ending}")).rename(path)


def dicom(path):
    path.write_bytes(bytes(128) + b"DICM" + bytes(99))
    return path


def dicom_folder(path):
    (path / "series").mkdir(parents=True)
    dicom(path / "series" / "IM0001")
    return path


BAD_FILES = {
    "missing.nii.gz": (lambda p: p, "no such file"),
    "half.hdr": (half, r"must be complete.*half\.hdr lacks .*half\.img"),
    "folder.nii": (lambda p: p.mkdir() or p, "must be an image file, .*is a folder$"),
    "text.nii.gz": (text, "must be an image nibabel can read"),
    "zipped.nii": (lambda p: renamed(p, ".nii.gz"), "is gzipped: rename it to zipped.nii.gz$"),
    "plain.nii.gz": (lambda p: renamed(p, ".nii"), "is not gzipped: rename it to plain.nii$"),
    "dicom": (dicom_folder, "is a folder of DICOM files, which dcm2niix converts to NIfTI$"),
    "one.dcm": (dicom, "is a DICOM file: dcm2niix converts its series"),
    "annexed.nii.gz": (lambda p: p.write_text("/annex/objects/MD5E-s9--1.nii.gz\n") and p, "fetch it with datalad get"),
    "linked.nii.gz": (lambda p: p.symlink_to(".git/annex/objects/1/2") or p, "fetch it with datalad get"),
    "lfs.nii": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\n") and p, "git lfs pull"),
    "text.nii": (text, "must be an image nibabel can read"),
    "text.txt": (text, "must be an image nibabel can read"),
    "surface.gii": (lambda p: saved(nib.GiftiImage(), p), "is a surface"),
    "singular.nii": (lambda p: patched(saved(nifti(), p), srow_x=[0, 0, 0, 0]), "affine that can be invert"),
    "nan.nii": (lambda p: patched(saved(nifti(), p), srow_y=[0, np.nan, 0, 0]), "affine that can be invert"),
    "no-voxels.nii": (lambda p: patched(saved(nifti(), p), dim=[3, 0, 8, 9, 1, 1, 1, 1]), "must have voxels"),
    "alien.nii": (lambda p: patched(saved(nifti(), p), magic=b"???"), "must be an image nibabel can read"),
    "constant.nii.gz": (lambda p: saved(nifti(np.full(SHAPE, 7, "i2")), p), "varying intensities.*7 every"),
    "zero.mgz": (lambda p: saved(nib.MGHImage(np.zeros(SHAPE, "f4"), RAS), p), "varying intensit.*0 every"),
    "all-nan.nii.gz": (lambda p: saved(nifti(np.full(SHAPE, np.nan, "f4")), p), "finite intensities"),
    "several.nii.gz": (lambda p: saved(nifti(data((*SHAPE, 2))), p), r"one 3D.*\(7, 8, 9, 2\).*2 volumes"),
    "flat.nii": (lambda p: saved(nifti(data()[0]), p), r"one 3D volume.*\(8, 9\)"),
    "complex.nii": (lambda p: saved(nifti(data().astype("c8")), p), "real numbers.*complex64"),
    "colour.nii.gz": (lambda p: saved(nifti(np.zeros(SHAPE, RGB)), p), "real numbers.*R.*G.*B"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_in_one_line(tmp_path, name):
    make, match = BAD_FILES[name]
    path = make(tmp_path / name)
    with refused(match, path):
        load_scan(path)


def test_an_unknown_data_type_is_refused_in_one_line(tmp_path):
    path = patched(saved(nifti(), tmp_path / "a.nii"), datatype=999)
    with refused("must be an image nibabel can read", path):
        load_scan(path)


@pytest.mark.parametrize(
    ("img", "match"),
    [
        (data(), "path or a nibabel image, got ndarray"),
        (7, "path or a nibabel image, got int"),
        (nib.Nifti1Image(data(), None), "affine that can be inverted.*none"),
        (nifti(data((*SHAPE, 3))), r"the image has shape \(7, 8, 9, 3\)"),
        (nifti(np.zeros(SHAPE, "f4")), "the image is 0 everywhere"),
    ],
)
def test_a_bad_image_is_refused_in_one_line(img, match):
    with refused(match):
        load_scan(img)


def test_the_same_intensity_everywhere_is_accepted_where_allowed():
    assert (load_scan(nifti(np.full(SHAPE, 7, "i2")), constant=True).data == 7).all()
    with refused("must hold finite intensities, the image holds none"):
        load_scan(nifti(np.full(SHAPE, np.nan, "f4")), constant=True)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mgz"])
@pytest.mark.parametrize("share", [0, 0.01, 0.2, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path, ending, share):
    whole = saved((nib.MGHImage if ending == ".mgz" else nib.Nifti1Image)(data(), RAS), tmp_path / f"a{ending}")
    content = whole.read_bytes()
    whole.write_bytes(content[: int(share * len(content))])
    with refused("must be an image nibabel can read|truncated or damaged", whole):
        load_scan(whole)


GZIPPED = [".nii.gz", ".NII.GZ", ".mgz"]


def gzipped(values, path):
    return saved((nib.MGHImage if path.suffix == ".mgz" else nib.Nifti1Image)(values, RAS), path)


@pytest.mark.parametrize("ending", GZIPPED)
@pytest.mark.parametrize("lost", [1, 4, 8])
def test_a_gzip_file_without_its_last_bytes_is_refused(tmp_path, lost, ending):
    path = gzipped(data(), tmp_path / f"a{ending}")
    path.write_bytes(path.read_bytes()[:-lost])
    with refused("truncated or damaged", path):
        load_scan(path)


def test_a_gzipped_pair_named_by_its_header_is_read_to_the_end(tmp_path):
    nib.save(nib.Nifti1Pair(data(), RAS), tmp_path / "a.img.gz")
    (tmp_path / "a.img.gz").write_bytes((tmp_path / "a.img.gz").read_bytes()[:-4])
    with refused("truncated or damaged", tmp_path / "a.img.gz"):
        load_scan(tmp_path / "a.hdr.gz")


@pytest.mark.parametrize("ending", GZIPPED)
def test_a_damaged_gzip_file_is_never_read_as_other_intensities(tmp_path, ending):
    path = gzipped((data() * 300).astype(np.int16), tmp_path / f"a{ending}")
    content, silent = path.read_bytes(), 0
    for byte in range(400, len(content), 97):
        path.write_bytes(content[:byte] + bytes([content[byte] ^ 0x10]) + content[byte + 1 :])
        try:
            load_scan(path)
        except GlasError:
            continue
        silent += 1
    assert silent == 0


def test_a_scan_without_sform_and_qform_is_accepted_with_a_warning(tmp_path):
    path = patched(saved(nifti(), tmp_path / "a.nii"), sform_code=0, qform_code=0)
    with pytest.warns(GlasWarning, match="neither sform nor qform.*left") as caught:
        scan = load_scan(path)
    assert str(path) in str(caught[0].message)
    assert caught[0].filename == __file__  # points at the caller
    assert scan.shape == SHAPE


# Scan.like: maps on the scan's own grid.


def forms(header):
    return [header.get_sform(coded=True), header.get_qform(coded=True)]


def assert_same_position(image, other):
    assert image.shape[:3] == other.shape[:3]
    np.testing.assert_allclose(image.affine, other.affine, atol=2e-4)
    for (form, code), (other_form, other_code) in zip(forms(image.header), forms(other.header), strict=True):
        assert code == other_code
        assert (form is None) == (other_form is None)
        if form is not None:
            np.testing.assert_allclose(form, other_form, atol=2e-4)


def poses():
    axes = st.sampled_from(["RAS", "LAS", "PSR", "LPI", "SAL", "IRP"])
    spacing = st.tuples(*[st.floats(0.5, 5)] * 3)
    angles = st.tuples(*[st.floats(-0.7, 0.7)] * 3)
    origin = st.tuples(*[st.floats(-150, 150)] * 3)
    return st.builds(affine, axes, spacing, angles, origin)


@given(poses(), poses(), st.integers(0, 5), st.integers(0, 5), st.floats(-0.3, 0.3), st.booleans())
def test_a_map_has_the_scans_sform_and_qform(tmp_path_factory, sform, qform, scode, qcode, shear, from_file):
    folder = tmp_path_factory.mktemp("like")
    img = nifti()
    img.set_sform(sform @ np.array([[1, shear, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), scode)
    img.set_qform(qform, qcode)
    if from_file:
        img = nib.load(saved(img, folder / "scan.nii"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GlasWarning)  # they disagree
        scan = load_scan(img)
    values = data(seed=2)
    out = scan.like(values)
    assert isinstance(out, nib.Nifti1Image)
    for written in (out, nib.load(saved(out, folder / "map.nii.gz"))):
        assert_same_position(written, img)
        assert written.get_data_dtype() == np.float32
        assert np.array_equal(np.asarray(written.dataobj), values)
        assert written.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(("make", "ending"), [(nib.Nifti2Image, ".nii.gz"), (nib.MGHImage, ".mgz")])
@pytest.mark.parametrize("pose", POSES)
def test_a_map_of_another_format_is_nifti_in_the_same_position(tmp_path, make, ending, pose):
    path = saved(make(data(), POSES[pose].astype(np.float32)), tmp_path / f"a{ending}")
    out = nib.load(saved(load_scan(path).like(data(seed=2)), tmp_path / "map.nii.gz"))
    assert type(out) is nib.Nifti1Image
    np.testing.assert_allclose(out.affine, nib.load(path).affine, atol=1e-4)
    assert out.header["sform_code"] > 0
    assert np.array_equal(np.asarray(out.dataobj), data(seed=2))


def test_integer_scans_give_float_maps_without_scaling(tmp_path):
    path = patched(saved(nifti(data().astype(np.int16)), tmp_path / "a.nii"), scl_slope=3, scl_inter=7)
    values = data(seed=2) * np.float32(1e-6)
    out = nib.load(saved(load_scan(path).like(values), tmp_path / "map.nii"))
    assert np.array_equal(np.asarray(out.dataobj), values)


def test_the_same_map_is_the_same_bytes(tmp_path, monkeypatch):
    contents = []
    for i, moment in enumerate((1e9, 1.7e9)):
        monkeypatch.setattr(time, "time", lambda moment=moment: moment)
        (tmp_path / str(i)).mkdir()
        path = saved(load_scan(nifti()).like(data(seed=2)), tmp_path / str(i) / f"map{i}.nii.gz")
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("is_seen", [True, False])
def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch, is_seen):
    """The file itself, or its folder may not be entered."""
    path = tmp_path / "locked.nii"
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.float32), np.eye(4)), path)

    def denied(*arguments):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", denied)
    monkeypatch.setattr(os.path, "lexists", lambda path: is_seen)
    with refused("must be a file that you may read, .* permission denied$", path):
        load_scan(path)


# Bytes are counted before memory is taken for them.


def test_a_header_that_states_more_voxels_than_the_file_has_is_refused(tmp_path):
    """930^3 voxels would be 3.2 GB."""
    path = saved(nifti(), tmp_path / "a.nii")
    content = bytearray(path.read_bytes())
    content[42:48] = np.array([930, 930, 930], "<i2").tobytes()
    for name, write in {"b.nii": bytes, "b.nii.gz": gzip.compress}.items():
        (tmp_path / name).write_bytes(write(content))
        with refused(r"its header states 3,217,428,\d\d\d bytes, it has [\d,]+$", tmp_path / name):
            read_image(tmp_path / name)


def test_a_small_archive_does_not_inflate_to_a_large_scan(tmp_path, monkeypatch):
    """Zeros are packed a thousand times smaller; reading ends before all are inflated."""
    monkeypatch.setattr(image_files, "_SMALL", 2**20)
    bomb = saved(nifti(np.zeros((160, 170, 180), np.float32)), tmp_path / "bomb.nii.gz")
    stored = bomb.stat().st_size
    with refused(rf"more than 200 times larger than its file, .* has {stored:,} bytes and inflates", bomb):
        read_image(bomb)
    labels = saved(nifti(np.zeros(SHAPE, np.uint8)), tmp_path / "labels.nii.gz")
    assert read_image(labels).shape == SHAPE, "a small image may be as empty as it likes"


def test_a_scan_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    """Its hash would be that of other intensities."""
    path = saved(nifti(), tmp_path / "a.nii.gz")
    hashed = scan_module.file_sha256

    def changed_then_hashed(file):
        saved(nifti(data() + 1), file)
        return hashed(file)

    monkeypatch.setattr(scan_module, "file_sha256", changed_then_hashed)
    with refused("must stay as it is while it is read", path):
        load_scan(path)
