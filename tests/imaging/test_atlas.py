import hashlib
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import center_of_mass

from glas3d.errors import GlasWarning
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import VoxelGrid, mni_grid, voxel_to_world, world_to_voxel
from glas3d.resources import folder
from tests.imaging.cases import HEADS, POSES, SHAPE, affine, data, head_grid, refused

AAL = folder("atlases", "AAL")
# Their centroids lie outside of them, at 1 mm.
HOLLOW = {"Frontal_Sup_R", "Olfactory_L", "Olfactory_R", "Cerebelum_7b_L", "Cerebelum_7b_R"}


@pytest.fixture(scope="module")
def centroids(aal):
    return aal.centroids()


# What is shipped


@pytest.mark.parametrize(
    ("name", "md5"),
    [
        ("atlas-AAL_dseg.nii.gz", "2e7f077885659926ff0bb4702e9d7f56"),
        ("aal.nii.txt", "0eb4c3db6e127dab71638ff603170c05"),
    ],
)
def test_the_shipped_files_are_debians_byte_for_byte(name, md5):
    assert hashlib.md5((AAL / name).read_bytes()).hexdigest() == md5


def test_aal_has_116_regions_named_as_its_authors_did(aal):
    original = [line.split()[:2] for line in (AAL / "aal.nii.txt").read_text().splitlines() if line.strip()]
    assert list(aal.table.columns) == ["index", "name", "hemisphere"]
    assert [[str(i), n] for i, n in zip(aal.table["index"], aal.table["name"], strict=True)] == original
    assert len(aal.table) == 116
    assert set(np.unique(aal.labels_img.dataobj)) == set(range(117))
    assert aal.labels_img.shape == (181, 217, 181)
    assert aal.space == "MNI"
    assert aal.sha256 == hashlib.sha256((AAL / "atlas-AAL_dseg.nii.gz").read_bytes()).hexdigest()
    assert Atlas.names() == ["AAL"]


def test_aal_comes_with_both_licences_and_its_citation():
    notice = (AAL / "LICENSES.md").read_text(encoding="utf-8")
    for words in ("BSD-3-Clause", "Chris Rorden", "GNU General Public", "Tzourio-Mazoyer", "10.1006/nimg.2001.0978"):
        assert words in notice


def test_an_unknown_name_is_refused_with_the_shipped_ones():
    with refused("none of the shipped atlases; there are: AAL", "Harvard"):
        Atlas.load("Harvard")


@pytest.mark.parametrize("name", ["aal", "AAL", "Aal"])
def test_a_shipped_atlas_is_loaded_by_its_name_in_any_case(name):
    assert Atlas.load(name).name == "AAL"


def test_a_name_that_is_nearly_one_gets_a_suggestion():
    with refused("did you mean AAL\\? there are: AAL", "aal3"):
        Atlas.load("aal3")


# Where the regions are


def test_left_is_left(aal, centroids):
    assert list(centroids.columns) == ["index", "name", "hemisphere", "x", "y", "z", "n_voxels"]
    assert (centroids["hemisphere"] == aal.table["hemisphere"]).all()
    side = np.where(centroids["x"] < -2, "L", np.where(centroids["x"] > 2, "R", "midline"))
    assert (side == centroids["hemisphere"]).all()
    suffix = centroids["name"].str[-2:].map({"_L": "L", "_R": "R"}).fillna("midline")
    assert (suffix == centroids["hemisphere"]).all()
    hippocampus = centroids.set_index("name").loc["Hippocampus_L"]
    np.testing.assert_allclose(hippocampus[["x", "y", "z"]].astype(float), (-26, -21, -10), atol=2)
    assert centroids["n_voxels"].sum() == np.count_nonzero(aal.labels_img.dataobj)


def label_at(aal, xyz):
    index = np.rint(world_to_voxel(np.atleast_2d(xyz), aal.labels_img.affine)).astype(int)
    return np.asarray(aal.labels_img.dataobj)[tuple(index.T)]


def test_five_centroids_lie_outside_their_region_and_no_medoid_does(aal, centroids):
    outside = label_at(aal, centroids[["x", "y", "z"]].to_numpy()) != centroids["index"]
    assert set(centroids["name"][outside]) == HOLLOW
    grid = VoxelGrid(aal.labels_img.shape, aal.labels_img.affine)
    medoids = aal.segments(grid, "medoid")
    at = label_at(aal, voxel_to_world(medoids.points, grid.affine))
    assert np.array_equal(at, centroids["index"])
    far = np.linalg.norm(voxel_to_world(medoids.points, grid.affine) - centroids[["x", "y", "z"]], axis=1)
    assert (far[~outside] < 1).all()  # within the centroid's own voxel
    assert far.max() < 10


def test_an_unknown_point_is_refused(aal):
    with refused('point must be "centroid" or "medoid"', "middle"):
        aal.segments(HEADS["RAS"], "middle")


@pytest.mark.parametrize("pose", HEADS)
def test_segments_lie_in_the_same_positions_in_every_pose(aal, centroids, pose):
    grid = HEADS[pose]
    segments = aal.segments(grid)
    assert segments.labels.shape == grid.shape
    assert np.array_equal(segments.index, aal.table["index"])
    assert np.array_equal(segments.n_voxels, [np.count_nonzero(segments.labels == i) for i in segments.index])
    centres = center_of_mass(np.ones(grid.shape), segments.labels, segments.index)
    np.testing.assert_allclose(segments.points, centres)
    far = np.linalg.norm(voxel_to_world(segments.points, grid.affine) - centroids[["x", "y", "z"]], axis=1)
    assert np.median(far) < 1.5
    assert far.max() < 5  # a voxel, for the smallest regions
    volume = segments.n_voxels * np.prod(grid.spacing)
    assert np.median(np.abs(volume / centroids["n_voxels"] - 1)) < 0.15
    np.testing.assert_allclose(volume.sum(), centroids["n_voxels"].sum(), rtol=0.02)


def test_pure_flips_give_the_same_segments(aal):
    # A grid whose voxels are those of the first in another order; no label of AAL is near its faces.
    ras = aal.segments(HEADS["RAS"])
    las = aal.segments(HEADS["LAS"])
    assert np.array_equal(las.labels[::-1], ras.labels)
    psr = aal.segments(HEADS["PSR"])
    assert np.array_equal(psr.labels.transpose(2, 0, 1)[:, ::-1], ras.labels)


def test_regions_that_vanish_on_a_coarse_grid_are_named(aal):
    grid = mni_grid(16)
    present = set(np.unique(aal.on(grid)))
    lost = aal.table[~aal.table["index"].isin(present)]
    assert 0 < len(lost) < 30
    with pytest.warns(GlasWarning, match=f"{len(lost)} regions of AAL are too small") as caught:
        segments = aal.segments(grid)
    for name in lost["name"]:
        assert name in str(caught[0].message)
    assert caught[0].filename == __file__
    assert set(segments.index) == set(aal.table["index"]) - set(lost["index"])


@pytest.mark.parametrize("mm", [-500.0, 500.0])
def test_an_atlas_that_misses_the_scan_is_refused(aal, mm):
    grid = VoxelGrid(SHAPE, affine(origin=(mm, mm, mm)))
    with refused(r"AAL does not overlap the scan's grid of \(7, 8, 9\)"):
        aal.segments(grid)


# What it remembers


def test_segments_are_computed_once_per_grid_and_cannot_be_changed(few, monkeypatch):
    asked = []
    on = Atlas.on
    monkeypatch.setattr(Atlas, "on", lambda self, grid: asked.append(grid.shape) or on(self, grid))
    atlas = replace(few)  # that remembers nothing yet
    grid = HEADS["RAS"]
    first = atlas.segments(grid)
    assert atlas.segments(VoxelGrid(grid.shape, grid.affine.copy())) is first
    assert asked == [grid.shape]
    for array in (first.labels, first.index, first.points):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    assert np.asarray(atlas.labels_img.dataobj).any()


def test_another_grid_point_or_table_gives_other_segments(few):
    atlas = replace(few, table=few.table.copy())
    grid = HEADS["RAS"]
    moved = grid.affine.copy()
    moved[0, 3] += 6
    centroids, medoids = atlas.segments(grid), atlas.segments(grid, "medoid")
    elsewhere = atlas.segments(VoxelGrid(grid.shape, moved))
    assert not np.array_equal(centroids.points, medoids.points)
    np.testing.assert_allclose(elsewhere.points[:, 0], centroids.points[:, 0] - 1)
    taller = VoxelGrid((*grid.shape[:2], grid.shape[2] + 1), grid.affine)
    assert atlas.segments(taller).labels.shape == taller.shape
    atlas.table.loc[0, "index"] = 9999
    with pytest.warns(GlasWarning, match="1 region of few is too small .* and gets no score"):
        assert atlas.segments(grid).index.tolist() == centroids.index.tolist()[1:]


def test_only_the_grids_used_last_are_kept(few, monkeypatch):
    atlas = replace(few)
    grids = [head_grid(mm=mm) for mm in (6.0, 7.0, 7.5, 8.0, 9.0)]
    first = atlas.segments(grids[0])
    for grid in grids[1:4]:
        atlas.segments(grid)
    assert atlas.segments(grids[0]) is first
    atlas.segments(grids[4])  # the second is forgotten now
    monkeypatch.setattr(Atlas, "on", lambda self, grid: pytest.fail("asked again"))
    assert atlas.segments(grids[0]) is first
    with pytest.raises(pytest.fail.Exception):
        atlas.segments(grids[1])


def test_regions_without_a_voxel_are_named_each_time(aal):
    for _ in range(2):
        with pytest.warns(GlasWarning, match="regions of AAL are too small"):
            aal.segments(mni_grid(16))


def test_threads_and_processes_share_an_atlas(few):
    atlas = replace(few)
    grids = [head_grid(mm=mm) for mm in (6.0, 7.0, 7.5, 8.0, 9.0, 10.0)] * 3
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(atlas.segments, grids))
    for grid, segments in zip(grids, results, strict=True):
        assert segments.labels.shape == grid.shape
    sent = pickle.dumps(atlas)
    assert len(sent) < len(pickle.dumps(few.labels_img)) + 100_000  # without what it remembers
    assert np.array_equal(pickle.loads(sent).segments(grids[0]).points, results[0].points)


# Atlases from files


def labels(pose="RAS"):
    """Return three blocks of sparse labels: 700 left, 3 right, 2001 across the middle; unequal sizes."""
    out = np.zeros(SHAPE, dtype=np.int32)
    out[:2, 1:4, 2:5], out[5:, 2:7, 3:8], out[2:5, 5:, 1:3] = 700, 3, 2001
    placed = affine(spacing=(2, 3, 4), origin=(-6.0, -10.0, -20.0))
    if pose == "LAS":
        placed = placed @ nib.affines.from_matvec(np.diag([-1, 1, 1]), (6, 0, 0))
        out = np.ascontiguousarray(out[::-1])
    return out, placed


ROWS = "index\tname\n2001\tbridge\n3\tright block\n700\tleft block\n"


def own(tmp_path, table=ROWS, dtype=np.int32, pose="RAS", name="atlas-My.own_dseg.nii.gz", **settings):
    values, placed = labels(pose)
    nib.save(nib.Nifti1Image(values.astype(dtype), placed), tmp_path / name)
    (tmp_path / "table.tsv").write_text(table, encoding="utf-8")
    return Atlas.from_files(tmp_path / name, tmp_path / "table.tsv", **settings)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("pose", ["RAS", "LAS"])
def test_sparse_labels_keep_their_names_and_positions(tmp_path, dtype, pose):
    atlas = own(tmp_path, dtype=dtype, pose=pose)
    assert atlas.table.to_dict("list") == {
        "index": [2001, 3, 700],
        "name": ["bridge", "right block", "left block"],
        "hemisphere": ["midline", "R", "L"],
    }
    assert atlas.name == "Myown"
    assert atlas.space is None
    assert atlas.segments(VoxelGrid(SHAPE, atlas.labels_img.affine)).index.tolist() == [2001, 3, 700]
    values, placed = labels()
    table = atlas.centroids()
    for index, *xyz, n_voxels in table[["index", "x", "y", "z", "n_voxels"]].itertuples(index=False):
        where = np.argwhere(values == index)
        np.testing.assert_allclose(xyz, voxel_to_world(where, placed).mean(axis=0), atol=1e-5)
        assert n_voxels == len(where) > 0


def test_a_hemisphere_that_is_given_is_kept(tmp_path):
    table = "index\themisphere\tcolour\tname\n3\tL\tred\ta\n700\tR\t\tb\n2001\tmidline\tblue\tNA\n0\t\t\tair\n"
    atlas = own(tmp_path, table)
    assert list(atlas.table.columns) == ["index", "name", "hemisphere"]
    assert atlas.table["hemisphere"].tolist() == ["L", "R", "midline"]
    assert atlas.table["name"].tolist() == ["a", "b", "NA"]  # a name, not a missing value


def test_a_row_without_a_voxel_is_kept_and_named(tmp_path):
    atlas = own(tmp_path, ROWS + "9\tnowhere\n")
    with pytest.warns(GlasWarning, match="1 region of Myown is too small .*: nowhere"):
        table = atlas.centroids()
    assert table["name"].tolist() == ["bridge", "right block", "left block", "nowhere"]
    assert table.iloc[3][["x", "y", "z", "n_voxels"]].isna().all()


def test_an_image_in_memory_and_a_given_name_are_accepted(tmp_path):
    values, placed = labels()
    (tmp_path / "t.tsv").write_text(ROWS)
    atlas = Atlas.from_files(nib.Nifti1Image(values, placed), tmp_path / "t.tsv", name="my atlas 2", space="MNI")
    assert atlas.name == "myatlas2"
    assert atlas.space == "MNI"
    assert repr(atlas) == "Atlas(myatlas2: 3 regions, (7, 8, 9))"


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("index\tlabel\n3\ta\n", "must have the columns index and name, .* has index, label"),
        ("name\nright\n", "must have the columns index and name"),
        ("3,right\n700,left\n", "must have the columns index and name"),
        ("", "must be tab-separated text"),
        (ROWS + "3\tagain\n", "every index .* must occur once, .* has 3 twice"),
        ("index\tname\n3.5\ta\n", "index .* must hold whole numbers"),
        ("index\tname\nthree\ta\n", "index .* must hold whole numbers"),
        ("index\tname\n3\ta\n", "must have a row in .*, these have none: 700, 2001"),
    ],
)
def test_a_bad_table_is_refused_in_one_line(tmp_path, table, match):
    with refused(match, "table.tsv"):
        own(tmp_path, table)


def test_a_table_that_is_no_text_is_refused(tmp_path):
    values, placed = labels()
    (tmp_path / "t.tsv").write_bytes(bytes(range(128, 256)) * 20)
    with refused("must be tab-separated text", tmp_path / "t.tsv"):
        Atlas.from_files(nib.Nifti1Image(values, placed), tmp_path / "t.tsv")


@pytest.mark.parametrize("missing", ["labels.nii.gz", "table.tsv"])
def test_a_missing_file_is_refused(tmp_path, missing):
    own(tmp_path, name="labels.nii.gz")
    (tmp_path / missing).unlink()
    with refused("no such file", tmp_path / missing):
        Atlas.from_files(tmp_path / "labels.nii.gz", tmp_path / "table.tsv")


def test_labels_with_fractions_are_refused(tmp_path):
    (tmp_path / "t.tsv").write_text(ROWS)
    nib.save(nib.Nifti1Image(data() + 0.25, POSES["RAS"]), tmp_path / "probabilities.nii.gz")
    with refused("must hold whole numbers from 0 to 2147483647", tmp_path / "probabilities.nii.gz"):
        Atlas.from_files(tmp_path / "probabilities.nii.gz", tmp_path / "t.tsv")


def test_negative_labels_are_refused(tmp_path):
    values, placed = labels()
    (tmp_path / "t.tsv").write_text("index\tname\n-4\tright\n700\tleft\n2001\tbridge\n")
    img = nib.Nifti1Image(np.where(values == 3, -4, values).astype(np.int16), placed)
    with refused("must hold whole numbers from 0 to 2147483647", "the image"):
        Atlas.from_files(img, tmp_path / "t.tsv")


@pytest.mark.parametrize(
    ("dtype", "label"),
    [
        ("uint32", 2**31 + 3),
        ("int64", 2**32 + 3),
        ("float32", 2.0**31),
        ("float32", np.inf),
    ],
)
def test_labels_of_more_than_31_bits_are_refused(tmp_path, dtype, label):
    values, placed = labels()
    (tmp_path / "t.tsv").write_text(ROWS)
    img = nib.Nifti1Image(np.where(values == 3, np.array(label, dtype), values.astype(dtype)), placed, dtype=dtype)
    with refused("must hold whole numbers from 0 to 2147483647", "the image"):
        Atlas.from_files(img, tmp_path / "t.tsv")


def test_nan_is_background(tmp_path):
    values, placed = labels()
    (tmp_path / "t.tsv").write_text(ROWS)
    img = nib.Nifti1Image(np.where(values == 0, np.nan, values).astype(np.float32), placed)
    assert np.array_equal(Atlas.from_files(img, tmp_path / "t.tsv").labels_img.dataobj, values)


@pytest.mark.parametrize("label", [40_000, 100_003, 2**24 + 1])
def test_large_labels_keep_their_names(tmp_path, label):
    values, placed = labels()
    (tmp_path / "t.tsv").write_text(ROWS.replace("700", str(label)))
    img = nib.Nifti1Image(np.where(values == 700, label, values).astype(np.int32), placed)
    atlas = Atlas.from_files(img, tmp_path / "t.tsv")
    assert set(np.unique(atlas.labels_img.dataobj)) == {0, 3, 2001, label}
    assert atlas.table["hemisphere"].tolist() == ["midline", "R", "L"]
    other = VoxelGrid((9, 8, 10), affine(spacing=(1.7, 2.9, 3.3), angles=(0.1, 0, 0.1), origin=(-7, -9, -18)))
    assert set(np.unique(atlas.on(other))) == {0, 3, 2001, label}


def test_a_lower_resolution_keeps_labels_above_a_byte(tmp_path):
    atlas = own(tmp_path)
    coarse = VoxelGrid((4, 4, 5), affine(spacing=(3.1, 5.3, 7.1), origin=(-5.5, -9.5, -19.5)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GlasWarning)
        segments = atlas.segments(coarse)
    assert set(np.unique(segments.labels)) <= {0, 3, 700, 2001}
    assert set(segments.index) == set(np.unique(segments.labels)) - {0}
    assert {700, 3} <= set(segments.index)


def test_the_table_of_one_atlas_is_its_own(aal):
    first, second = Atlas.load("AAL"), Atlas.load("AAL")
    first.table.loc[0, "name"] = "changed"
    pd.testing.assert_frame_equal(second.table, aal.table)


def test_a_recorded_atlas_is_known_by_its_hash_not_by_its_name_alone(aal):
    assert Atlas.recorded({"atlas": "AAL", "sha256": aal.sha256}).sha256 == aal.sha256
    for search in ({"atlas": "AAL", "sha256": "0" * 64}, {"atlas": "AAL", "parcellations": "{participant_id}"}, {}):
        assert Atlas.recorded(search) is None
