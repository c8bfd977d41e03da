"""What the files of an image state is compared with what they hold before memory is taken for it."""

import bz2
import gzip
import os
import struct
import tracemalloc
import zlib
from contextlib import contextmanager

import nibabel as nib
import numpy as np
import pytest
from scipy.io import savemat

from glas3d import GlasError
from glas3d.imaging import image_files
from glas3d.imaging.picture import MOST_PIXELS, load_picture
from glas3d.imaging.scan import load_scan, open_image, read_image

SHAPE = (7, 8, 9)
AFFINE = np.diag([2.0, 3, 4, 1])
HEAD = """
type = string-attribute
name = TYPESTRING
count = 15
'3DIM_HEAD_ANAT~

type = string-attribute
name = BYTEORDER_STRING
count = 10
'LSB_FIRST~

type = integer-attribute
name = BRICK_TYPES
count = 1
 3

type = integer-attribute
name = DATASET_DIMENSIONS
count = 5
 {} {} {} 0 0

type = integer-attribute
name = DATASET_RANK
count = 8
 3 1 0 0 0 0 0 0

type = float-attribute
name = IJK_TO_DICOM_REAL
count = 12
 2 0 0 0 0 3 0 0 0 0 4 0

type = float-attribute
name = DELTA
count = 3
 2 3 4

type = float-attribute
name = ORIGIN
count = 3
 0 0 0

type = integer-attribute
name = ORIENT_SPECIFIC
count = 3
 0 3 4

type = integer-attribute
name = SCENE_DATA
count = 8
 0 0 0 0 0 0 0 0
"""


def volume():
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


def afni(folder, shape=SHAPE):
    (folder / "a+orig.HEAD").write_text(HEAD.format(*shape))
    (folder / "a+orig.BRIK").write_bytes(volume().tobytes(order="F"))
    return folder / "a+orig.HEAD"


def spm(folder):
    nib.Spm99AnalyzeImage(volume(), AFFINE).to_filename(folder / "a.img")
    assert (folder / "a.mat").is_file()
    return folder / "a.img"


@contextmanager
def little_memory():
    """No more than 300 MiB are taken by Python and NumPy in the block."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 300 * 2**20


@pytest.mark.filterwarnings("ignore::glas3d.GlasWarning")
@pytest.mark.parametrize("write", [afni, spm])
def test_further_formats_are_read(write, tmp_path):
    assert np.array_equal(np.abs(load_scan(write(tmp_path)).data), volume())


def test_a_header_of_afni_that_states_more_than_the_file_holds_is_refused(tmp_path):
    with (
        little_memory(),
        pytest.raises(GlasError, match=r"a\+orig\.BRIK is truncated or damaged: its header states 3,217,428,000 bytes"),
    ):
        read_image(afni(tmp_path, (930, 930, 930)))


def test_a_matrix_of_spm_that_becomes_large_is_refused(tmp_path):
    path = spm(tmp_path)
    savemat(tmp_path / "a.mat", {"M": np.eye(4), "more": np.zeros(2**24)}, do_compression=True)
    assert (tmp_path / "a.mat").stat().st_size < 2**19
    with (
        little_memory(),
        pytest.raises(GlasError, match=r"header of a scan must have at most 65,536 bytes, .*a\.mat has more"),
    ):
        read_image(path)


@pytest.mark.parametrize("reader", [read_image, open_image])
def test_nifti_whose_voxels_begin_far_behind_its_header_is_refused(reader, tmp_path):
    """What lies between would be read as an extension."""
    image = nib.Nifti1Image(volume(), AFFINE)
    content = bytearray(image.to_bytes())
    content[108:112] = struct.pack("<f", 2**29)
    content[348:352] = b"\1\0\0\0"
    content[352:360] = struct.pack("<2i", 2**29 - 352, 6)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(content)) + gzip.compress(bytes(2**27)) * 4)
    assert (tmp_path / "a.nii.gz").stat().st_size < 2**20
    with (
        little_memory(),
        pytest.raises(GlasError, match=r"voxels of a scan must begin within .*a\.nii\.gz states 536,870,912"),
    ):
        reader(tmp_path / "a.nii.gz")


def test_bzip2_does_not_inflate_to_a_large_scan(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "_SMALL", 2**20)
    (tmp_path / "a.nii.bz2").write_bytes(bz2.compress(nib.Nifti1Image(volume(), AFFINE).to_bytes()))
    assert np.array_equal(load_scan(tmp_path / "a.nii.bz2").data, volume())
    (tmp_path / "b.nii.bz2").write_bytes(bz2.compress(bytes(2**26)))
    with little_memory(), pytest.raises(GlasError, match=r"more than 200 times larger than its file|nibabel can read"):
        read_image(tmp_path / "b.nii.bz2")


def test_surfaces_and_minc_2_are_refused_before_they_are_parsed(tmp_path):
    (tmp_path / "a.gii").write_text("<GIFTI><DataArray/></GIFTI>")
    (tmp_path / "a.mnc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    for name, why in {"a.gii": r"is a surface \(GIFTI\), which has no voxels", "a.mnc": "mnc2nii converts it"}.items():
        with pytest.raises(GlasError, match=why):
            read_image(tmp_path / name)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes of this kind")
@pytest.mark.parametrize("ending", ["hdr", "mat"])
def test_a_pipe_next_to_an_image_is_not_waited_for(ending, tmp_path):
    path = spm(tmp_path)
    (tmp_path / f"a.{ending}").unlink()
    os.mkfifo(tmp_path / f"a.{ending}")
    with pytest.raises(GlasError, match=rf"a\.{ending} is not: is a named pipe"):
        open_image(path)


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_picture_that_states_many_pixels_is_refused(side, tmp_path):
    """Pillow warns of 12,000 x 12,000 pixels, and refuses 60,000 x 60,000."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b""))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with (
        little_memory(),
        pytest.raises(GlasError, match=rf"a picture must have at most {MOST_PIXELS:,} pixels, .*a\.png"),
    ):
        load_picture(tmp_path / "a.png")


def test_postscript_is_not_run(tmp_path):
    (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 8\n%%EndComments\n")
    with pytest.raises(GlasError, match=r"must be pixels, .*a\.eps is PostScript, a program"):
        load_picture(tmp_path / "a.eps")
