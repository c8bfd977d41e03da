import gzip
import tracemalloc

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from glas3d.imaging import probability_maps
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.probability_maps import ProbabilityMaps, highest_map
from glas3d.imaging.space import VoxelGrid
from tests.imaging.bunches import AFFINE, map_img
from tests.imaging.cases import SHAPE, refused

NAMES = ["a_L", "b_R", "c_L"]


def random_maps(n=5, seed=0):
    return np.random.default_rng(seed).normal(0.2, 0.4, (*SHAPE, n)).astype(np.float32)


def by_hand(maps, threshold):
    """Return the highest map of each voxel in a loop, where it is high enough."""
    peaks = maps.reshape(-1, maps.shape[-1]).max(axis=0)
    labels = np.zeros(maps.shape[:3], int)
    for x in np.ndindex(*maps.shape[:3]):
        i = int(np.argmax(maps[x]))
        floor = peaks[i] / 4 if threshold is None else threshold
        if maps[x][i] > 0 and maps[x][i] >= np.float32(floor):
            labels[x] = i + 1
    return labels


@pytest.mark.parametrize("threshold", [None, 0, 0.25, 0.9])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_voxel_belongs_to_the_map_that_is_highest_there(tmp_path, threshold, in_memory):
    maps = random_maps()
    img = nib.Nifti1Image(maps, AFFINE)
    nib.save(img, tmp_path / "maps.nii.gz")
    atlas = Atlas.from_probabilistic(
        img if in_memory else tmp_path / "maps.nii.gz", list("vwxyz"), threshold=threshold, name="own", space="MNI"
    )
    assert np.array_equal(atlas.labels_img.dataobj, by_hand(maps, threshold))
    assert (np.asarray(atlas.labels_img.dataobj) == 0).any()
    assert atlas.table["name"].tolist() == list("vwxyz")
    assert atlas.table["index"].tolist() == [1, 2, 3, 4, 5]
    assert (atlas.name, atlas.space) == ("own", "MNI")


def test_the_default_threshold_is_a_quarter_of_the_winners_own_maximum():
    """Maps without a unit keep their core, and probabilities that reach 1 are cut at 25 %."""
    maps = np.zeros((*SHAPE, 2), np.float32)
    maps[1, 2, 3:6, 0] = 1.0, 0.26, 0.24
    maps[5, 2, 3:6, 1] = 0.01, 0.0026, 0.0024
    maps[5, 7, 8] = 0.2, 0.009  # the first is highest here, and below a quarter of its own: nobody's
    labels = np.asarray(Atlas.from_probabilistic(nib.Nifti1Image(maps, AFFINE), ["a", "b"]).labels_img.dataobj)
    assert np.argwhere(labels).tolist() == [[1, 2, 3], [1, 2, 4], [5, 2, 3], [5, 2, 4]]
    assert labels[labels > 0].tolist() == [1, 1, 2, 2]


def test_the_threshold_is_in_the_maps_own_unit():
    percent = Atlas.from_probabilistic(map_img(3, (100, 60, 24), np.uint8), NAMES, threshold=25)
    share = Atlas.from_probabilistic(map_img(3, (1.0, 0.6, 0.24)), NAMES, threshold=0.25)
    assert np.array_equal(percent.labels_img.dataobj, share.labels_img.dataobj)
    assert set(np.unique(share.labels_img.dataobj)) == {0, 1, 2}
    assert share.table["name"].tolist() == NAMES


def test_a_voxel_at_the_threshold_reaches_it_and_a_draw_goes_to_the_first():
    maps = np.zeros((*SHAPE, 2), np.float32)
    maps[1, 2, 3], maps[1, 2, 4], maps[1, 2, 5] = (25, 0), (0, 24), (70, 70)
    atlas = Atlas.from_probabilistic(nib.Nifti1Image(maps, AFFINE), ["a", "b"], threshold=25)
    labels = np.asarray(atlas.labels_img.dataobj)
    assert labels[1, 2, 3:6].tolist() == [1, 0, 1]


def test_nan_and_infinity_are_never_the_highest():
    maps = random_maps()
    spoilt = maps.copy()
    spoilt[0, 0, 0], spoilt[1, 1, 1, 2] = np.nan, np.inf
    expected = by_hand(np.where(np.isfinite(spoilt), spoilt, 0), 0.1)
    assert np.array_equal(highest_map(ProbabilityMaps(nib.Nifti1Image(spoilt, AFFINE)), 0.1), expected)


@pytest.mark.parametrize("n", [130, 300])
def test_more_maps_than_a_byte_counts(n):
    maps = np.zeros((*SHAPE, n), np.float32)
    voxels = np.argwhere(np.ones(SHAPE))[:n]
    maps[(*voxels.T, np.arange(n))] = 1
    atlas = Atlas.from_probabilistic(nib.Nifti1Image(maps, AFFINE), [f"map {i}" for i in range(n)])
    segments = atlas.segments(VoxelGrid(SHAPE, AFFINE))
    assert np.array_equal(segments.points, voxels)
    assert atlas.table["name"].tolist()[-1] == f"map {n - 1}"


def test_scaled_integers_are_read_as_what_they_mean(tmp_path):
    img = nib.Nifti1Image(map_img(3).get_fdata(), AFFINE)
    img.set_data_dtype(np.uint8)  # nibabel then writes a slope
    nib.save(img, tmp_path / "scaled.nii")
    assert np.asarray(nib.load(tmp_path / "scaled.nii").dataobj.get_unscaled()).max() == 255
    assert set(np.unique(highest_map(ProbabilityMaps(tmp_path / "scaled.nii"), 0.9))) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "table",
    [
        "index\tname\n1\ta_L\n2\tb_R\n3\tc_L\n",
        "index\tname\n3\tc_L\n1\ta_L\n2\tb_R\n",
        "index\tname\n0\ta_L\n1\tb_R\n2\tc_L\n",
        "index\tname\n0\tBackground\n1\ta_L\n2\tb_R\n3\tc_L\n",
    ],
)
def test_the_rows_of_a_table_are_the_volumes(tmp_path, table):
    (tmp_path / "probseg.tsv").write_text(table)
    for each in (tmp_path / "probseg.tsv", pd.read_csv(tmp_path / "probseg.tsv", sep="\t")):
        atlas = Atlas.from_probabilistic(map_img(3), each)
        assert atlas.table.to_dict("list") == {"index": [1, 2, 3], "name": NAMES, "hemisphere": ["L", "R", "L"]}
    assert atlas.name == "atlas"


def test_a_single_map_is_enough():
    single = np.asarray(map_img(1).dataobj)
    for each in (single, single[..., 0]):
        atlas = Atlas.from_probabilistic(nib.Nifti1Image(each, AFFINE), ["whole"], threshold=0.5)
        assert atlas.table["name"].tolist() == ["whole"]
        assert np.array_equal(np.asarray(atlas.labels_img.dataobj), single[..., 0] >= 0.5)


def test_a_file_is_read_volume_by_volume_from_front_to_back(tmp_path, monkeypatch):
    """All maps at once would not fit, and each seek backwards would decompress the file anew."""
    n = 40
    maps = np.zeros((31, 37, 41, n), np.float32)
    maps[np.arange(20), 5, 6, np.arange(20)] = maps[11, np.arange(20), 6, 20 + np.arange(20)] = 1
    nib.save(nib.Nifti1Image(maps, AFFINE), tmp_path / "maps.nii.gz")
    opened = []
    init = gzip.GzipFile.__init__
    monkeypatch.setattr(gzip.GzipFile, "__init__", lambda self, *a, **k: opened.append(1) or init(self, *a, **k))
    monkeypatch.setattr(probability_maps, "SHARE", 0.5)
    for img in (tmp_path / "maps.nii.gz", nib.load(tmp_path / "maps.nii.gz")):
        tracemalloc.start()
        probabilities = ProbabilityMaps(img)
        opened.clear()  # what was read of the header
        labels = highest_map(probabilities, None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(np.unique(labels)) > n / 2
        assert peak < maps.nbytes / 4
        assert len(opened) == 1


@pytest.mark.parametrize(
    ("names", "threshold", "match"),
    [
        (NAMES[:2], None, "the image has 3 maps and must have as many names, got 2"),
        ([*NAMES, "d"], None, "as many names, got 4"),
        (["a", "", "c"], None, "must have a name, index 2"),
        (NAMES, -1, "threshold must be None or a number of at least 0, got -1"),
        (NAMES, float("nan"), "threshold must be None or a number of at least 0, got nan"),
        (NAMES, "25", "got '25'"),
        (NAMES, True, "got True"),
        (NAMES, 2, "no voxel of the 3 maps of the image reaches the threshold 2, the highest is 1"),
    ],
)
def test_names_and_thresholds_that_do_not_fit_are_refused(names, threshold, match):
    with refused(match):
        Atlas.from_probabilistic(map_img(3), names, threshold=threshold)


def test_bad_files_are_refused(tmp_path):
    with refused("no such file", tmp_path / "no.nii"):
        Atlas.from_probabilistic(tmp_path / "no.nii", NAMES)
    (tmp_path / "text.nii").write_text("not an image, though it is named like one")
    with refused("must be an image nibabel can read", tmp_path / "text.nii"):
        Atlas.from_probabilistic(tmp_path / "text.nii", NAMES)
    nib.save(map_img(3), tmp_path / "cut.nii")
    content = (tmp_path / "cut.nii").read_bytes()
    (tmp_path / "cut.nii").write_bytes(content[: len(content) // 2])
    with refused("must be complete, .* truncated or damaged", tmp_path / "cut.nii"):
        Atlas.from_probabilistic(tmp_path / "cut.nii", NAMES)
    with refused(r"3D, or 4D with a map a volume, the image has shape \(7, 8, 9, 2, 2\)"):
        Atlas.from_probabilistic(nib.Nifti1Image(np.ones((*SHAPE, 2, 2)), AFFINE), NAMES)
    with refused("no voxel of the 3 maps of the image is above 0, the highest is 0"):
        Atlas.from_probabilistic(nib.Nifti1Image(-(random_maps(3) ** 2), AFFINE), NAMES)


def test_an_atlas_of_probabilities_is_read_by_the_rules_for_scans(tmp_path):
    """A damaged byte that the decompressor does not notice, a wrong ending, and a header without orientation."""
    img = nib.Nifti1Image(random_maps(3), AFFINE)
    img.to_filename(tmp_path / "maps.nii.gz")
    content = bytearray((tmp_path / "maps.nii.gz").read_bytes())
    content[-6] ^= 1  # of the checksum
    (tmp_path / "bad.nii.gz").write_bytes(content)
    with refused("an atlas must be complete, .* is truncated or damaged", tmp_path / "bad.nii.gz"):
        ProbabilityMaps(tmp_path / "bad.nii.gz")
    (tmp_path / "maps.nii.gz").rename(tmp_path / "zipped.nii")
    with refused(
        r"an atlas must be an image file, .* is gzipped: rename it to zipped\.nii\.gz", tmp_path / "zipped.nii"
    ):
        ProbabilityMaps(tmp_path / "zipped.nii")
