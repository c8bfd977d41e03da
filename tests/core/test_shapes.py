import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, label

from glas3d import GLAS, RGLAS, Grid, Segments
from glas3d.core.axes import per_axis
from glas3d.core.shapes import Ellipsoids, SoftSegments, boxes, covariances
from tests.core.cases import SHAPES, SPACINGS, TinyNet, assert_close, atlas, refused, volume

KERNELS = ("ellipsoid", "segment")
NEGLIGIBLE = 1e-10


def segments(ndim, **settings):
    """Of `atlas`, and a segment of one voxel in a corner: flat, unequal, touching every border."""
    labels = atlas(SHAPES[ndim])
    labels[(0,) * (ndim - 1) + (-1,)] = 205
    # in an order of their own
    return Segments.from_labels(labels, index=[41, 300, 205, 7], **settings)


def slanted(shape):
    """A thin oblique segment, whose covariance is far from diagonal."""
    coordinates = np.indices(shape)
    along = coordinates.sum(axis=0) - coordinates[-1] * len(shape)
    return Segments.from_labels((np.abs(along) <= 1).astype(int) * 9)


def masks(found, sigma, kernel, spacing=None):
    ndim = found.labels.ndim
    sigma = per_axis(sigma, ndim, "sigma")
    make = Ellipsoids.of if kernel == "ellipsoid" else SoftSegments
    made = make(found, sigma, spacing=spacing)
    assert len(made) == len(found.index)
    return made.masks(0, torch.full((len(made), *found.labels.shape), -1.0)).numpy()


def expected(found, sigma, kernel, spacing=None):
    """In float64, voxel by voxel from the definitions."""
    shape = found.labels.shape
    spacing = np.ones(len(shape)) if spacing is None else np.asarray(spacing)
    sigma = np.asarray(per_axis(sigma, len(shape), "sigma"))
    made = []
    for value, mu in zip(found.index, found.points, strict=True):
        inside = found.labels == value
        if kernel == "segment":
            wide = gaussian_filter(inside.astype(float), sigma / spacing, mode="constant", truncate=12.0)
            made.append(wide / wide.max())
        else:
            own = np.argwhere(inside) * spacing
            precision = np.linalg.inv(np.cov(own.T, bias=True, ddof=0) + np.diag(sigma**2))
            offsets = (np.moveaxis(np.indices(shape), 0, -1) - mu) * spacing
            made.append(np.exp(-0.5 * np.einsum("...i,ij,...j", offsets, precision, offsets)))
    return np.array(made)


@pytest.mark.parametrize("in_mm", [False, True])
@pytest.mark.parametrize("per_axis_sigma", [False, True])
@pytest.mark.parametrize("make", [segments, lambda ndim: slanted(SHAPES[ndim])])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_masks_match_float64(ndim, kernel, make, per_axis_sigma, in_mm):
    sigma = (0.8, 1.6, 3.2)[:ndim] if per_axis_sigma else 1.3
    spacing = SPACINGS[ndim] if in_mm else None
    found = make(ndim)
    wanted = expected(found, sigma, kernel, spacing)
    # a factor of the blur that is cut is one voxel of at most all of them
    tolerance = NEGLIGIBLE * (1 if kernel == "ellipsoid" else wanted[0].size)
    np.testing.assert_allclose(masks(found, sigma, kernel, spacing), wanted, rtol=5e-6, atol=tolerance)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 40.0])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_the_peak_is_one_and_nothing_is_denormal(ndim, kernel, sigma):
    found = segments(ndim, point="medoid")
    for g, mu in zip(masks(found, sigma, kernel), found.points, strict=True):
        assert g.max() == 1.0
        assert ((g == 0) | (g >= NEGLIGIBLE)).all()
        if kernel == "ellipsoid":
            assert g[tuple(mu.astype(int))] == 1.0


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_an_infinite_sigma_is_everywhere(ndim, kernel):
    assert (masks(segments(ndim), np.inf, kernel) == 1.0).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_infinite_axis_has_the_shape_of_the_others(kernel):
    found = segments(3)
    g = masks(found, (0.7, np.inf, 1.1), kernel)
    assert_close(g, np.repeat(g[:, :, :1], 8, axis=2))
    assert g.std() > 0.1


@pytest.mark.parametrize("sigma", [1e-2, 1e-3, 1e-30, 1e-200])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_vanishing_sigma_is_the_segment_itself(ndim, sigma):
    found = segments(ndim)
    wanted = np.stack([found.labels == value for value in found.index]).astype(np.float32)
    assert np.array_equal(masks(found, sigma, "segment"), wanted)


@pytest.mark.parametrize("sigma", [1e-3, 1e-30, 1e-200])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_vanishing_sigma_is_the_ellipsoid_of_the_segment(ndim, sigma):
    found = segments(ndim, point="medoid")
    g = masks(found, sigma, "ellipsoid")
    single = list(found.index).index(205)
    assert np.array_equal(g[single], (found.labels == 205).astype(np.float32)), "one voxel has no extent of its own"
    whole = list(found.index).index(7)
    assert_close(g[whole], expected(found, 1e-6, "ellipsoid")[whole])
    flat = g[list(found.index).index(41)]  # lies in the last plane of the first axis
    assert not flat[:-1].any()
    assert flat[-1].max() == 1.0


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_wide_sigma_is_the_round_spot(ndim, kernel):
    """Both meet the Gaussian of the same variance at the centroid."""
    shape = {2: (31, 38), 3: (21, 24, 27)}[ndim]
    labels = np.zeros(shape, dtype=int)
    labels[tuple(slice(n // 2 - 1, n // 2 + 2) for n in shape)] = 3
    found = Segments.from_labels(labels)
    offsets = np.moveaxis(np.indices(shape), 0, -1) - found.points[0]
    variance = 4.0**2 + 2 / 3  # three voxels in a row have the variance 2/3
    assert np.abs(masks(found, 4.0, kernel)[0] - np.exp(-(offsets**2).sum(axis=-1) / 2 / variance)).max() < 2e-3


@pytest.mark.parametrize(("sigma", "spacing"), [(2.5, SPACINGS[3]), (0.6, (0.3, 0.4, 0.5))])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_single_voxel_is_a_gaussian_around_it(kernel, sigma, spacing):
    labels = np.zeros((7, 8, 9), dtype=int)
    labels[2, 7, 4] = 1  # at a border
    found = Segments.from_labels(labels)
    offsets = (np.moveaxis(np.indices(labels.shape), 0, -1) - (2, 7, 4)) * spacing
    wanted = np.exp(-(offsets**2).sum(axis=-1) / 2 / sigma**2)
    np.testing.assert_allclose(masks(found, sigma, kernel, spacing)[0], wanted, rtol=2e-6, atol=NEGLIGIBLE)


def test_the_ellipsoid_is_long_where_its_segment_is():
    labels = np.zeros((7, 30, 9), dtype=int)
    labels[3, 5:26, 4] = 1
    (g,) = masks(Segments.from_labels(labels), 1.0, "ellipsoid")
    assert g[3, 25, 4] > 0.2
    assert g[0, 15, 4] < 0.02


def test_the_segment_keeps_its_hollow():
    """A ring's centre, where its centroid lies, is dark: the round mask and the ellipsoid light only that."""
    x, y = np.indices((19, 22)) - np.array([9, 10])[:, None, None]
    found = Segments.from_labels(((np.hypot(x, y) > 6) & (np.hypot(x, y) < 8.5)).astype(int))
    np.testing.assert_allclose(found.points[0], (9, 10))
    assert masks(found, 1.0, "segment")[0, 9, 10] < 1e-3
    assert masks(found, 1.0, "ellipsoid")[0, 9, 10] == 1.0


def test_a_segment_in_two_pieces_is_two_pieces():
    labels = np.zeros((12, 40), dtype=int)
    labels[3:6, 4:8] = labels[8:10, 30:35] = 5
    (g,) = masks(Segments.from_labels(labels), 0.8, "segment")
    assert label(g > 0.5)[1] == 2


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_spot_in_mm_does_not_know_the_voxels(kernel):
    """The same object on voxels half as long along one axis."""
    labels = np.zeros((9, 10), dtype=int)
    labels[3:6, 4:7] = 1
    found = [Segments.from_labels(labels), Segments.from_labels(np.repeat(labels, 2, axis=1))]
    coarse, fine = (masks(f, 3.0, kernel, s)[0] for f, s in zip(found, [(2.0, 2.0), (2.0, 1.0)], strict=True))
    assert np.abs(fine.reshape(9, 10, 2).mean(axis=2) - coarse).max() < 0.03
    assert np.abs(masks(found[1], 3.0, kernel)[0].reshape(9, 10, 2).mean(axis=2) - coarse).max() > 0.1


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_flips_and_exchanged_axes_go_through(ndim, kernel):
    found, sigma, spacing = segments(ndim), (0.9, 1.4, 2.1)[:ndim], SPACINGS[ndim]
    whole = masks(found, sigma, kernel, spacing)
    for axis in range(ndim):
        flipped = Segments.from_labels(np.flip(found.labels, axis), index=found.index)
        assert_close(np.flip(masks(flipped, sigma, kernel, spacing), axis + 1), whole)
    order = (2, 0, 1)[-ndim:] if ndim == 3 else (1, 0)
    turned = Segments.from_labels(found.labels.transpose(order), index=found.index)
    made = masks(turned, [sigma[a] for a in order], kernel, [spacing[a] for a in order])
    assert_close(made, whole.transpose(0, *(a + 1 for a in order)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_masks_can_start_anywhere_and_be_made_again(kernel):
    found = segments(3)
    made = Ellipsoids.of(found, (1.2,) * 3) if kernel == "ellipsoid" else SoftSegments(found, (1.2,) * 3)
    whole = made.masks(0, torch.empty(4, *SHAPES[3])).clone()
    buffer = torch.full((2, *SHAPES[3]), 7.0)
    assert made.masks(1, buffer) is buffer
    assert torch.equal(buffer, whole[1:3])
    assert torch.equal(made.masks(0, torch.empty(4, *SHAPES[3])), whole)


@pytest.mark.parametrize("ndim", [2, 3])
def test_covariances_and_boxes_are_those_of_the_voxels(ndim):
    found = segments(ndim)
    for value, covariance, box in zip(found.index, covariances(found), boxes(found), strict=True):
        inside = found.labels == value
        own = np.argwhere(inside)
        np.testing.assert_allclose(covariance, np.cov(own.T, bias=True) if len(own) > 1 else 0, atol=1e-12)
        assert [(b.start, b.stop) for b in box] == [*zip(own.min(axis=0), own.max(axis=0) + 1, strict=True)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_voxels_of_no_segment_in_question_do_not_count(kernel):
    """The labels of the others are there, and so is a value above and below all of them."""
    found = segments(3)
    found.labels[6, 0, 0], found.labels[5, 0, 1] = -4, 900
    few = Segments.from_labels(found.labels, index=[205, 300])
    all_of_them = masks(found, 1.0, kernel)
    assert np.array_equal(masks(few, 1.0, kernel), all_of_them[[2, 1]])


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_segment_without_voxels_is_named(kernel):
    found = segments(3)
    lost = Segments(found.labels, np.array([7, 555]), found.points[:2])
    with refused(r"segment 555 has none on the grid of \(7, 8, 9\)"):
        masks(lost, 1.0, kernel)


@pytest.mark.parametrize("kernel", KERNELS)
def test_points_have_no_shape(kernel):
    glas = GLAS(TinyNet(SHAPES[3]).eval().forward, kernel=kernel)
    for search in (Grid(2), np.array([[1.0, 2.0, 3.0]])):
        with refused(f'kernel="{kernel}" takes its shape from segments: search an atlas, not points'):
            glas.explain(volume(SHAPES[3]), 1, search)


@pytest.mark.parametrize("kernel", KERNELS)
def test_glas_lights_and_shades_with_them(kernel):
    """Light and shadow are the sums under the mask and under what it leaves, each with its own sigma."""
    found, array = segments(3), volume(SHAPES[3])

    def total(batch):
        return batch.double().flatten(1).sum(dim=1, keepdim=True)

    glas = GLAS(total, sigma_light=0.8, sigma_shadow=(1.5, 2.0, 3.0), kernel=kernel, unit="mm")
    e = glas.explain(array, 0, found, SPACINGS[3])
    for values, sigma in ((e.light, 0.8), (e.drop, (1.5, 2.0, 3.0))):
        wanted = (expected(found, sigma, kernel, SPACINGS[3]) * array).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(values, wanted, rtol=2e-5)
    assert e.settings["kernel"] == kernel


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_size_of_a_batch_does_not_matter(kernel):
    net = TinyNet(SHAPES[3]).eval()

    def predict(batch):
        return net(batch).softmax(dim=1)

    glas = GLAS(predict, sigma_light=1.0, sigma_shadow=1.5, kernel=kernel)
    one, many = (glas.replace(batch_size=size).explain(volume(SHAPES[3]), 1, segments(3)) for size in (1, 16))
    assert_close(one.score, many.score)
    assert np.ptp(one.score) > 1e-3


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_recursion_goes_over_them(kernel):
    """Two bright segments of four: the second is found once the first is out."""
    found, array = segments(3), np.full((1, *SHAPES[3]), 0.1, dtype=np.float32)
    array[0][np.isin(found.labels, [41, 300])] = 1.0

    def predict(batch):
        seen = [batch[:, 0][:, torch.from_numpy(found.labels == v)].double().mean(dim=1) for v in (300, 41)]
        p = 1 - (1 - 0.9 * seen[0].clamp(0, 1)) * (1 - 0.7 * seen[1].clamp(0, 1))
        return torch.stack([1 - p, p], dim=1)

    glas = GLAS(predict, sigma_light=0.5, sigma_shadow=0.5, kernel=kernel)
    r = RGLAS(glas, threshold=0.5).explain(array, 1, found)
    assert list(found.index[r.rounds[0].removed]) == [300]
    assert 41 in found.index[r.rounds[1].removed]
    assert set(found.index[np.argsort(r.values)[-2:]]) == {41, 300}
