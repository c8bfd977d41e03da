import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glas3d.core.search import Grid, Segments, paint, resolve
from tests.core import oracle
from tests.core.cases import POINTS, SHAPES, atlas, refused


@pytest.mark.parametrize(
    ("k", "shape"), [(1, (7, 9)), (4, (7, 9)), ((7, 1), (7, 9)), (3, (7, 8, 9)), ((2, 3, 5), (7, 8, 9))]
)
def test_grid_points_are_cell_centres_in_c_order(k, shape):
    np.testing.assert_allclose(Grid(k).points(shape), oracle.grid(k, shape), atol=1e-12)


@given(st.data())
def test_a_grid_is_symmetric_and_lies_in_the_volume(data):
    shape = data.draw(st.tuples(*[st.integers(1, 12)] * data.draw(st.sampled_from([2, 3]))))
    k = tuple(data.draw(st.integers(1, n)) for n in shape)
    points = Grid(k).points(shape)
    assert points.shape == (np.prod(k), len(shape))
    assert points.dtype == np.float64
    assert ((points >= 0) & (points <= np.array(shape) - 1)).all()
    np.testing.assert_allclose(points + points[::-1], np.broadcast_to(np.array(shape) - 1.0, points.shape))


def test_a_grid_of_every_voxel_is_every_voxel():
    assert np.array_equal(Grid((7, 9)).points((7, 9)), np.argwhere(np.ones((7, 9))))


@pytest.mark.parametrize(
    ("k", "match"),
    [
        (0, "at least 1 cell an axis, got k=0"),
        ((3, -1), "at least 1 cell"),
        ((), "at least 1 cell"),
        (2.5, "whole number of cells an axis, got k=2.5"),
        ("many", "whole number of cells an axis, got k='many'"),
    ],
)
def test_grid_refuses(k, match):
    with refused(match):
        Grid(k)


def test_grid_refuses_a_volume_it_does_not_fit():
    with refused(r"more cells than voxels: k=8 on a volume of \(7, 9\)"):
        Grid(8).points((7, 9))
    with refused(r"2 axes, the volume has 3: \(7, 8, 9\)"):
        Grid((2, 3)).points((7, 8, 9))


@pytest.mark.parametrize("ndim", [2, 3])
def test_segments_are_represented_by_their_centroids(ndim):
    labels = atlas(SHAPES[ndim])
    index, points = oracle.centroids(labels)
    segments = Segments.from_labels(labels)
    assert segments.index.tolist() == index == [7, 41, 300]
    np.testing.assert_allclose(segments.points, points, atol=1e-12)
    assert segments.n_voxels.tolist() == [(labels == value).sum() for value in index]


def test_asked_for_segments_keep_their_order_and_absent_ones_are_left_out():
    labels = atlas((7, 9))
    segments = Segments.from_labels(labels, index=[300, 99, 7])
    assert segments.index.tolist() == [300, 7]
    np.testing.assert_allclose(segments.points, oracle.centroids(labels)[1][[2, 0]])


def test_a_medoid_lies_in_its_segment():
    labels = np.zeros((7, 9), dtype=int)
    labels[0, :5] = labels[4, :5] = labels[:5, 0] = 1  # a C: its centroid is in the opening
    centroid = Segments.from_labels(labels).points[0]
    medoid = Segments.from_labels(labels, point="medoid").points[0]
    assert labels[tuple(np.rint(centroid).astype(int))] == 0
    assert labels[tuple(medoid.astype(int))] == 1
    inside = np.argwhere(labels == 1)
    assert np.square(medoid - centroid).sum() == np.square(inside - centroid).sum(axis=1).min()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, bool])
def test_labels_of_any_type_are_whole_numbers(dtype):
    labels = (atlas((7, 9)) > 0).astype(dtype)
    assert Segments.from_labels(labels).index.tolist() == [1]


def test_segments_refuse():
    labels = atlas((7, 9))
    with refused("whole numbers, got float64"):
        Segments.from_labels(labels / 2 + 0.25)
    with refused(r"no segment lies in the volume of \(7, 9\)"):
        Segments.from_labels(np.zeros((7, 9), dtype=int))
    with refused("no segment lies in the volume"):
        Segments.from_labels(labels, index=[5])
    with refused("label value of its own, got one twice"):
        Segments.from_labels(labels, index=[7, 7])
    with refused('"centroid" or "medoid", got \'middle\''):
        Segments.from_labels(labels, point="middle")


def test_paint_gives_each_voxel_its_segments_value():
    labels = atlas((7, 8, 9))
    values = np.array([0.25, -3.0, 1.5])
    painted = Segments.from_labels(labels).paint(values)
    assert painted.dtype == np.float32
    assert np.array_equal(painted, oracle.paint(labels, [7, 41, 300], values).astype(np.float32))


@given(st.permutations([7, 41, 300]), st.integers(1, 3))
def test_paint_takes_segments_in_any_order_and_several_rows(order, kept):
    labels = atlas((7, 9))
    index = np.array(order[:kept])
    values = np.arange(1.0, 2 * kept + 1).reshape(2, kept)
    expected = [oracle.paint(labels, index, row) for row in values]
    assert np.array_equal(paint(labels, index, values), np.float32(expected))


def test_resolve_takes_every_kind_of_search():
    labels = atlas((7, 9))
    points, segments = resolve(Grid(3), (7, 9))
    assert segments is None
    assert len(points) == 9
    points, segments = resolve([[3, 4], [0, 8]], (7, 9))
    assert segments is None
    assert points.dtype == np.float64
    for search in (labels, Segments.from_labels(labels)):
        points, segments = resolve(search, (7, 9))
        assert segments.index.tolist() == [7, 41, 300]
        assert points is segments.points


def test_points_may_lie_anywhere_in_the_outer_voxels():
    corners = [[-0.5, -0.5], [6.5, 8.5]]
    assert np.array_equal(resolve(corners, (7, 9))[0], corners)


@pytest.mark.parametrize(
    ("search", "match"),
    [
        ([[3.0, 4.0], [7.0, 4.0]], r"lie in the volume of \(7, 9\), point 1 is at \(7.0, 4.0\)"),
        ([[-0.6, 4.0]], "point 0 is at"),
        ([[np.nan, 4.0]], "point 0 is at"),
        (POINTS[3], r"\(m, 2\) voxel coordinates on a volume of \(7, 9\), got an array of \(4, 3\)"),
        (np.zeros((0, 2)), r"got an array of \(0, 2\)"),
        ([3.0, 4.0], r"got an array of \(2,\)"),
        (atlas((7, 8)), r"got an array of \(7, 8\)"),
        (atlas((7, 9)).astype(float), r"got an array of \(7, 9\)"),
        (Segments.from_labels(atlas((7, 8))), r"labels \(7, 8\), volume \(7, 9\)"),
        ([[1.0, 2.0], [3.0]], "got list"),
        ("AAL", "search must be a Grid, segments or"),
        (None, "got NoneType"),
    ],
)
def test_resolve_refuses(search, match):
    with refused(match):
        resolve(search, (7, 9))
