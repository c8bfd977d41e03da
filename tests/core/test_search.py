import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glas3d.core.search import Grid, Segments, inside, paint, resolve_search
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
        (0, "at least 1 cell on each axis, got 0"),
        ((3, -1), "at least 1 cell"),
        ((), "at least 1 cell"),
        (2.5, "whole number of cells on each axis, got 2.5"),
        ("many", "whole number of cells on each axis, got 'many'"),
    ],
)
def test_grid_refuses(k, match):
    with refused(match):
        Grid(k)


def test_grid_refuses_a_volume_it_does_not_fit():
    with refused(r"no more cells than voxels, got 8 on a volume of \(7, 9\)"):
        Grid(8).points((7, 9))
    with refused(r"one number or one for each of the volume.s 3 axes, got 2 3"):
        Grid((2, 3)).points((7, 8, 9))


@pytest.mark.parametrize("ndim", [2, 3])
def test_segments_are_represented_by_their_centroids(ndim):
    labels = atlas(SHAPES[ndim])
    index, points = oracle.centroids(labels)
    segments = Segments.from_labels(labels)
    assert segments.index.tolist() == index == [7, 41, 300]
    np.testing.assert_allclose(segments.points, points, atol=1e-12)
    assert segments.n_voxels.tolist() == [(labels == value).sum() for value in index]


def test_given_labels_keep_their_order_and_absent_ones_are_left_out():
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
    with refused("label value of its own, got the same value twice"):
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


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (np.uint8, [1, 254, 255]),
        (np.int16, [-300, -2, 5]),
        (np.int64, [-(2**40), 3, 2**40]),
        (np.uint16, [7, 41, 60000]),
    ],
)
def test_paint_takes_labels_of_any_range(dtype, values):
    labels = np.random.default_rng(0).choice([0, 4, *values], size=(4, 5, 6)).astype(dtype)
    index = np.array(values)
    expected = oracle.paint(labels, index, [1.5, 2.5, -3.5]).astype(np.float32)
    assert np.array_equal(paint(labels, index, np.array([1.5, 2.5, -3.5])), expected)


def test_resolve_takes_every_kind_of_search():
    labels = atlas((7, 9))
    points, segments = resolve_search(Grid(3), (7, 9))
    assert segments is None
    assert len(points) == 9
    points, segments = resolve_search([[3, 4], [0, 8]], (7, 9))
    assert segments is None
    assert points.dtype == np.float64
    for search in (labels, Segments.from_labels(labels)):
        points, segments = resolve_search(search, (7, 9))
        assert segments.index.tolist() == [7, 41, 300]
        assert points is segments.points


def test_points_may_lie_anywhere_in_the_outer_voxels():
    corners = [[-0.5, -0.5], [6.5, 8.5]]
    assert np.array_equal(resolve_search(corners, (7, 9))[0], corners)


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
        ("AAL", r"search must be a Grid \(such as Grid\(4\)\), segments or .* got 'AAL'"),
        (4, "voxel coordinates on a volume of .* got 4"),
        (None, "got NoneType"),
    ],
)
def test_resolve_refuses(search, match):
    with refused(match):
        resolve_search(search, (7, 9))


# A mask: where to search at all.


def look(shape, seed=0):
    """Half of the voxels, at random."""
    return np.random.default_rng(seed).random(shape) < 0.5


@pytest.mark.parametrize("shape", SHAPES.values(), ids=str)
def test_grid_points_outside_of_a_mask_are_left_out(shape):
    mask = look(shape)
    for k in (3, shape, (2, *shape[1:])):
        everywhere = oracle.grid(k, shape)
        points, segments = resolve_search(Grid(k), shape, mask)
        kept = [p for p in everywhere if mask[tuple(int(v) for v in np.rint(p))]]
        assert segments is None
        assert 0 < len(kept) < len(everywhere)
        np.testing.assert_allclose(points, kept)


def test_points_are_read_at_the_nearest_voxel_of_the_volume():
    mask = np.zeros((7, 9), dtype=bool)
    mask[6, 0] = mask[3, 4] = True
    points = np.array([[6.5, -0.5], [5.4, 0.0], [2.6, 4.4], [3.0, 4.6], [-0.5, 8.5]])
    assert inside(points, mask).tolist() == [True, False, True, False, False]
    assert np.array_equal(resolve_search(points, (7, 9), mask)[0], points[[0, 2]])


@pytest.mark.parametrize("point", ["centroid", "medoid"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=str)
def test_segments_are_cut_by_a_mask(shape, point):
    labels, mask = atlas(shape), np.zeros(shape, dtype=bool)
    mask[4:] = True  # part of 7, all of 41, nothing of 300
    points, segments = resolve_search(Segments.from_labels(labels, [300, 41, 7], point=point), shape, mask)
    assert segments.index.tolist() == [41, 7]
    assert points is segments.points
    cut = np.where(mask, labels, 0)
    assert np.array_equal(segments.labels, cut)
    index, centroids = oracle.centroids(cut)
    assert index == [7, 41]
    if point == "centroid":
        np.testing.assert_allclose(points, centroids[::-1])
    else:
        assert [cut[tuple(int(v) for v in p)] for p in points] == [41, 7]
        assert np.array_equal(points, Segments.from_labels(cut, [41, 7], point=point).points)
    assert segments.n_voxels.tolist() == [(cut == 41).sum(), (cut == 7).sum()]
    assert (segments.paint(np.array([2.0, 3.0]))[~mask] == 0).all()


def test_a_segment_a_mask_leaves_whole_keeps_its_point():
    labels = atlas((7, 9))
    given = Segments(labels, np.array([7, 41]), np.array([[4.0, 3.0], [6.25, 5.0]]))
    points, _ = resolve_search(given, (7, 9), labels == 41)
    assert points.tolist() == [[6.25, 5.0]]
    points, segments = resolve_search(given, (7, 9), np.ones((7, 9), dtype=bool))
    assert np.array_equal(points, given.points)
    assert np.array_equal(segments.labels, labels)


def test_a_segment_whose_label_is_0_does_not_grow_by_a_mask():
    labels = atlas((7, 9))
    mask = labels != 7
    _, segments = resolve_search(Segments.from_labels(labels, [0, 7, 41]), (7, 9), mask)
    assert segments.index.tolist() == [0, 41]
    assert segments.n_voxels.tolist() == [(labels == 0).sum(), (labels == 41).sum()]


def test_a_label_volume_meets_a_mask_too():
    labels = atlas((7, 9))
    points, segments = resolve_search(labels, (7, 9), (labels == 7).astype(np.float32))
    assert segments.index.tolist() == [7]
    np.testing.assert_allclose(points, oracle.centroids(labels)[1][:1])


@pytest.mark.parametrize("search", [Grid(3), [[3, 4], [0, 8]], atlas((7, 9))], ids=["grid", "points", "labels"])
@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (np.ones((9, 7), dtype=bool), r"on the volume's grid: mask \(9, 7\), volume \(7, 9\)"),
        (np.ones((1, 7, 9), dtype=bool), r"mask \(1, 7, 9\), volume \(7, 9\)"),
        (np.zeros((7, 9), dtype=bool), r"must hold a voxel to search, the mask of \(7, 9\) is empty"),
        (np.full((7, 9), 0.5), "True or 1 where to search, else False or 0; it holds other float64 values"),
        (np.full((7, 9), np.nan), "it holds other float64 values"),
        (atlas((7, 9)), "it holds other int16 values"),
        (np.full((7, 9), "yes"), "it holds other <U3 values"),
    ],
)
def test_a_bad_mask_is_refused(search, mask, match):
    with refused(match):
        resolve_search(search, (7, 9), mask)


def test_a_mask_without_anything_to_look_at_is_refused():
    mask = np.zeros((7, 9), dtype=bool)
    mask[2, 8] = True
    with refused("none of 4 search points lies in the mask of 1 voxels"):
        resolve_search(Grid(2), (7, 9), mask)
    with refused("no segment lies in the mask of 1 voxels"):
        resolve_search(atlas((7, 9)), (7, 9), mask)
