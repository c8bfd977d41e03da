import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn import datasets
from sklearn.utils import Bunch

from glas3d.core.search import resolve_search
from glas3d.imaging.coordinates import Coordinates
from glas3d.imaging.space import VoxelGrid, mni_grid
from tests.imaging.bunches import label_img
from tests.imaging.cases import HEADS, POSES, SHAPE, refused

PLACES = [[-26.0, -21.0, -10.0], [26.0, -20.0, -10.5], [0.0, 4.0, 61.0]]
NAMES = ["Hippocampus_L", "Hippocampus_R", "SMA"]


@pytest.mark.parametrize("pose", POSES)
def test_points_have_voxel_coordinates_on_any_grid(pose):
    voxels = np.array([[0.0, 7.0, 8.0], [3.25, 4.0, 1.5], [6.4, -0.4, 0.1]])
    there = nib.affines.apply_affine(POSES[pose], voxels)
    result = Coordinates(there).on(VoxelGrid(SHAPE, POSES[pose]))
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, voxels, atol=1e-9)
    points, segments = resolve_search(result, SHAPE)
    assert segments is None
    assert np.array_equal(points, result)


@pytest.mark.parametrize("pose", HEADS)
def test_a_point_is_in_its_region_in_every_pose(aal, pose):
    x, y, z = np.rint(Coordinates(PLACES, NAMES).on(HEADS[pose])[0]).astype(int)
    index = int(aal.table.set_index("name").loc["Hippocampus_L", "index"])
    assert aal.on(HEADS[pose])[x, y, z] == index


def test_names_are_given_or_numbers_and_are_unique():
    assert Coordinates(PLACES).names == ("point-1", "point-2", "point-3")
    assert Coordinates(PLACES * 4).names[8:] == ("point-09", "point-10", "point-11", "point-12")
    assert Coordinates(PLACES, np.array(["a", "b", "a"])).names == ("a 1", "b", "a 3")
    assert Coordinates(PLACES, [b"a", None, " c "]).names == ("a", "point-2", "c")
    assert len(Coordinates(PLACES)) == 3


def test_coordinates_do_not_share_memory_with_their_input():
    given = np.array(PLACES)
    coordinates = Coordinates(given, NAMES, space="MNI")
    given[0] = 99
    assert np.array_equal(coordinates.points, PLACES)
    assert coordinates.space == "MNI"
    assert repr(coordinates) == "Coordinates(3 points: Hippocampus_L, Hippocampus_R, SMA)"
    assert repr(Coordinates(PLACES * 2)).endswith("point-3, ...)")
    with pytest.raises(ValueError, match="read-only"):
        coordinates.points[0] = 1
    with pytest.raises(AttributeError):
        coordinates.names = ()


@pytest.mark.parametrize(
    ("points", "names", "match"),
    [
        ([[1.0, 2.0]], None, r"must be \(m, 3\) numbers, x y z in mm, got \(1, 2\)"),
        ([1.0, 2.0, 3.0], None, r"got \(3,\)"),
        (np.zeros((0, 3)), None, r"got \(0, 3\)"),
        ([[1, 2, 3], [4, 5]], None, r"must be \(m, 3\) numbers"),
        ("hippocampus", None, r"must be \(m, 3\) numbers"),
        ([[1, 2, 3], [4, np.nan, 6]], None, r"finite numbers in mm, those of row 2 are \(4, nan, 6\)"),
        (PLACES, NAMES[:2], "3 coordinates must have as many names, got 2"),
    ],
)
def test_points_that_are_no_coordinates_are_refused(points, names, match):
    with refused(match):
        Coordinates(points, names)


def test_points_outside_of_a_grid_are_named():
    coordinates = Coordinates([*PLACES, [300, 0, 0], [0, 0, -300.5]], [*NAMES, "far right", "deep"])
    with refused(
        r"lie in the grid of \(24, 32, 24\), 2 do not: far right at \(300, 0, 0\) mm, deep at \(0, 0, -300.5\) mm"
    ):
        coordinates.on(mni_grid(8))
    many = Coordinates([[500, 0, 0]] * 9)
    with refused("9 do not: point-1 at .* point-3 at .*, ..."):
        many.on(mni_grid(8))
    with refused(r"grid of \(7, 8, 9\), 1 do not"):
        Coordinates([[-0.6, 3, 3]]).on(VoxelGrid(SHAPE, np.eye(4)))
    assert Coordinates([[-0.5, 7.5, 8.5]]).on(VoxelGrid(SHAPE, np.eye(4))).tolist() == [[-0.5, 7.5, 8.5]]


# Files


def saved(tmp_path, text):
    (tmp_path / "coordinates.tsv").write_text(text, encoding="utf-8")
    return tmp_path / "coordinates.tsv"


def test_a_table_of_coordinates(tmp_path):
    table = pd.DataFrame(PLACES, columns=["x", "y", "z"]).assign(size=5, name=["NA", "b", "c"])[
        ["name", "size", "z", "x", "y"]
    ]
    coordinates = Coordinates.from_file(saved(tmp_path, table.to_csv(sep="\t", index=False)), space="MNI")
    assert np.array_equal(coordinates.points, PLACES)
    assert coordinates.names == ("NA", "b", "c")
    assert coordinates.space == "MNI"
    coordinates = Coordinates.from_file(saved(tmp_path, "\ufeffx\ty\tz\n1\t2\t3e1\n"))
    assert (coordinates.points.tolist(), coordinates.names, coordinates.space) == ([[1, 2, 30]], ("point-1",), None)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a\tb\n1\t2\n", "must have the columns x, y and z, .* has a, b"),
        ("x,y,z\n1,2,3\n", "must have the columns x, y and z"),
        ("x\ty\tz\n1\t2\t3\n4\t\t6\n", "must hold finite numbers in mm, in .* row 2 does not"),
        ("x\ty\tz\n1\t2\tn/a\n", "row 1 does not"),
        ("x\ty\tz\n1\t2\tinf\n", "row 1 does not"),
        ("x\ty\tz\n", "it has no rows"),
        ("", "must be tab-separated text"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, text, match):
    with refused(match, "coordinates.tsv"):
        Coordinates.from_file(saved(tmp_path, text))


def test_a_missing_table_is_refused(tmp_path):
    with refused("no such file", tmp_path / "no.tsv"):
        Coordinates.from_file(tmp_path / "no.tsv")


# What nilearn fetches


@pytest.mark.parametrize(
    ("fetch", "n", "first"),
    [
        (datasets.fetch_coords_power_2011, 264, "point-001"),
        (datasets.fetch_coords_dosenbach_2010, 160, "inf cerebellum 155"),
        (datasets.fetch_coords_seitzman_2018, 300, "cortexL 1"),
    ],
)
def test_fetched_coordinates(fetch, n, first):
    fetched = fetch()
    coordinates = Coordinates.from_nilearn(fetched)
    assert np.array_equal(coordinates.points, fetched.rois[["x", "y", "z"]])
    assert len(coordinates) == n == len(set(coordinates.names))
    assert coordinates.names[0] == first
    assert coordinates.space == "MNI"
    assert coordinates.on(mni_grid(4)).shape == (n, 3)
    old = Bunch(**fetched | {"rois": fetched.rois.to_records(index=False)})
    assert np.array_equal(Coordinates.from_nilearn(old).points, coordinates.points)


@pytest.mark.parametrize(
    ("fetched", "match"),
    [
        (Bunch(maps=label_img([1]), labels=["a"]), "fetch_coords_.* function returned, with rois, got maps, labels"),
        ("power", "got str"),
        (Bunch(rois=pd.DataFrame({"a": [1]})), "columns x, y and z, the bunch fetched has a"),
    ],
)
def test_a_bunch_without_coordinates_is_refused(fetched, match):
    with refused(match):
        Coordinates.from_nilearn(fetched)


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+a", "-b", "@c"])
def test_a_name_that_is_a_formula_is_refused(name, tmp_path):
    table = pd.DataFrame(PLACES, columns=["x", "y", "z"]).assign(name=["a", name, "-1.5"])
    table.to_csv(tmp_path / "points.tsv", sep="\t", index=False)
    with refused(r"the name of a point must not begin as a formula does \(=, \+, -, @\), got "):
        Coordinates.from_file(tmp_path / "points.tsv")
