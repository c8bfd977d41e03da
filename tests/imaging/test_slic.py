import sys

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glas3d import GLAS, GlasWarning, explain_img
from glas3d.core.search import resolve_search
from glas3d.imaging.mask import bright_voxels
from glas3d.imaging.scan import load_scan
from glas3d.imaging.slic import superpixels, supervoxels
from glas3d.imaging.space import VoxelGrid, mni_grid, template_on
from tests.core.cases import constant
from tests.imaging.cases import HEADS, POSES, affine, head, refused

SHAPE = (14, 16, 18)


def octants(shape=SHAPE, noise=0.02):
    """Return eight boxes, alternately bright and dark, and which are bright."""
    bright = sum((np.indices(shape)[axis] >= n // 2) for axis, n in enumerate(shape)) % 2
    return (bright + 5 + np.random.default_rng(0).normal(0, noise, shape)).astype(np.float32), bright


def labels_of(atlas):
    return np.asarray(atlas.labels_img.dataobj)


@pytest.mark.parametrize("pose", POSES)
def test_supervoxels_follow_the_scan_on_its_own_grid(pose):
    values, which = octants()
    everywhere = nib.Nifti1Image(np.ones(SHAPE, np.uint8), POSES[pose])
    atlas = supervoxels(nib.Nifti1Image(values, POSES[pose]), n_segments=60, mask_img=everywhere)
    labels = labels_of(atlas)
    assert labels.shape == SHAPE
    np.testing.assert_array_equal(atlas.labels_img.affine, POSES[pose])
    assert labels.min() == 1
    for value in np.unique(labels):
        inside = np.bincount(which[labels == value])
        assert inside.max() > 0.9 * inside.sum()  # a segment lies in one box
    assert 30 <= labels.max() <= 60


def test_supervoxels_are_numbered_and_have_no_space():
    values, _ = octants()
    atlas = supervoxels(nib.Nifti1Image(values, affine()), n_segments=30)
    n = len(atlas.table)
    assert atlas.table["index"].tolist() == list(range(1, n + 1)) == np.unique(labels_of(atlas))[-n:].tolist()
    assert atlas.table["name"].tolist()[:2] == ["supervoxel-001", "supervoxel-002"]
    assert set(atlas.table["hemisphere"]) <= {"L", "R", "midline"}
    assert atlas.space is None
    assert atlas.name == "supervoxels"


@pytest.mark.parametrize("pose", ["RAS", "oblique-LIP"])
def test_without_a_mask_all_bright_voxels_are_divided(pose):
    img = head(HEADS[pose])
    labels = labels_of(supervoxels(img, 80))
    assert np.array_equal(labels > 0, bright_voxels(load_scan(img)))
    assert 50 <= labels.max() <= 80


def test_a_mask_on_another_grid_is_divided(tmp_path):
    img = nib.Nifti1Image(template_on(4), mni_grid(4).affine)
    half = np.zeros(mni_grid(8).shape, np.uint8)
    half[: half.shape[0] // 2] = 1
    nib.save(nib.Nifti1Image(half, mni_grid(8).affine), tmp_path / "left.nii.gz")
    labels = labels_of(supervoxels(img, 20, mask_img=tmp_path / "left.nii.gz"))
    x = nib.affines.apply_affine(img.affine, np.argwhere(labels))[:, 0]
    assert x.max() < 4 < 60 < -x.min()


def test_equal_scans_give_equal_segments():
    img = nib.Nifti1Image(template_on(4), mni_grid(4).affine)
    first, second = supervoxels(img, 50), supervoxels(img, 50)
    assert np.array_equal(labels_of(first), labels_of(second))
    assert first.sha256 == second.sha256 != supervoxels(img, 49).sha256


def spread(labels, spacing):
    """Return the standard deviation along each axis within a segment, in mm."""
    where, values = np.argwhere(labels), labels[labels > 0]
    widths = []
    for axis, size in enumerate(spacing):
        x, n = where[:, axis] * size, np.bincount(values)[1:]
        mean = np.bincount(values, weights=x)[1:] / n
        widths.append(np.sqrt((np.bincount(values, weights=x**2)[1:] / n - mean**2).mean()))
    return np.array(widths)


@pytest.mark.parametrize("spacing", [(1.0, 1.1, 5.0), (4.0, 1.0, 1.2)])
def test_segments_are_round_in_mm_not_in_voxels(spacing):
    shape = tuple(int(66 / s) + i for i, s in enumerate(spacing))
    flat = np.random.default_rng(0).normal(0, 0.01, shape).astype(np.float32)
    flat[0, 0, 0] = 1
    everywhere = nib.Nifti1Image(np.ones(shape, np.uint8), affine(spacing=spacing))
    img = nib.Nifti1Image(flat, affine(spacing=spacing))
    wide = spread(labels_of(supervoxels(img, 60, compactness=10, mask_img=everywhere)), spacing)
    assert wide.max() < 1.2 * wide.min()


def test_segments_do_not_depend_on_the_units_of_intensity_and_space():
    values, _ = octants()
    everywhere = np.ones(SHAPE, np.uint8)
    labels = []
    for scale, shift, mm in ((1, 0, 1.0), (1000, 0, 1.0), (-3, 50, 1.0), (1, 0, 4.0)):
        placed = affine(spacing=(mm, mm, mm))
        img = nib.Nifti1Image(values.astype(np.float64) * scale + shift, placed)
        labels.append(labels_of(supervoxels(img, 60, mask_img=nib.Nifti1Image(everywhere, placed))))
    for other in labels[1:]:
        assert np.mean(labels[0] != other) < 0.01  # rounding may move a voxel


def test_one_bright_voxel_does_not_hide_the_rest():
    values, which = octants()
    values[3, 3, 3] = 10_000
    everywhere = nib.Nifti1Image(np.ones(SHAPE, np.uint8), affine())
    labels = labels_of(supervoxels(nib.Nifti1Image(values, affine()), 60, mask_img=everywhere))
    pure = [np.bincount(which[labels == v]).max() / np.count_nonzero(labels == v) for v in np.unique(labels)]
    assert np.mean(pure) > 0.95


def test_compactness_weighs_against_brightness_and_sigma_removes_noise():
    values, which = octants(noise=0.7)
    everywhere = nib.Nifti1Image(np.ones(SHAPE, np.uint8), affine())

    def explained(**settings):
        labels = labels_of(supervoxels(nib.Nifti1Image(values, affine()), 40, mask_img=everywhere, **settings))
        mean = np.bincount(labels.ravel(), weights=which.ravel()) / np.maximum(np.bincount(labels.ravel()), 1)
        return 1 - np.square(which - mean[labels]).mean() / which.var()

    assert explained(compactness=0.1, sigma=4.0) > explained(compactness=0.1) + 0.02
    values, which = octants()
    assert explained(compactness=0.1) > explained(compactness=100.0) + 0.05


@given(st.integers(0, 1000), st.integers(1, 40))
def test_every_voxel_of_a_mask_is_in_a_segment_and_no_other_voxel(seed, n):
    rng = np.random.default_rng(seed)
    mask = rng.random((5, 6, 7)) < rng.uniform(0.2, 0.9)
    img = nib.Nifti1Image(rng.random(mask.shape).astype(np.float32), affine())
    labels = labels_of(supervoxels(img, n, mask_img=nib.Nifti1Image(mask.astype(np.uint8), affine())))
    assert np.array_equal(labels > 0, mask)
    assert set(np.unique(labels[mask])) == set(range(1, labels.max() + 1))


def test_small_parts_of_a_mask_belong_to_the_nearest_segment():
    values, _ = octants()
    mask = np.zeros(SHAPE, np.uint8)
    mask[:8], mask[12, 3, 4], mask[13, 15, 16] = 1, 1, 1
    labels = labels_of(supervoxels(nib.Nifti1Image(values, affine()), 20, mask_img=nib.Nifti1Image(mask, affine())))
    assert labels.max() <= 20
    assert labels[12, 3, 4] == labels[7, 3, 4]
    assert labels[13, 15, 16] == labels[7, 15, 16]


def test_the_nearest_segment_is_the_nearest_in_mm():
    values, _ = octants()
    mask = np.zeros(SHAPE, np.uint8)
    # a small part, 3 voxels of 2 mm from one slab, 2 of 4 mm from the other
    mask[:6] = mask[8:, :, 14:] = mask[8, 8, 12] = 1
    labels = labels_of(supervoxels(nib.Nifti1Image(values, affine()), 20, mask_img=nib.Nifti1Image(mask, affine())))
    assert labels[8, 8, 12] == labels[5, 8, 12] > 0


def test_supervoxels_are_searched_like_an_atlas():
    img = head(HEADS["RAS"])
    with pytest.warns(GlasWarning, match="the map is flat"):
        result = explain_img(img, constant(0.3, 0.7), search=supervoxels(img, 12), sigma_light=4.0, sigma_shadow=6.0)
    assert result.stem == "scan_seg-supervoxels"
    assert result.table["name"].str.startswith("supervoxel-").all()
    assert (result.table["n_voxels"] > 0).all()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"n_segments": 0}, "n_segments must be a whole number of at least 1, got 0"),
        ({"n_segments": 2.5}, "whole number of at least 1, got 2.5"),
        ({"n_segments": True}, "whole number of at least 1, got True"),
        ({"n_segments": 4033}, "at most the 4032 voxels of the mask, got 4033"),
        ({"compactness": 0}, "compactness must be a number greater than 0, got 0"),
        ({"compactness": "much"}, "compactness must be a number greater than 0, got 'much'"),
        ({"sigma": -1}, "sigma must be a number of at least 0, got -1"),
        ({"sigma": np.nan}, "sigma must be a number of at least 0, got nan"),
        ({"mask_img": nib.Nifti1Image(np.zeros(SHAPE, np.uint8), affine())}, "a mask must hold values above 0.5"),
        (
            {"mask_img": nib.Nifti1Image(np.ones(SHAPE, np.uint8), affine(origin=(900, 0, 0)))},
            "fills no voxel of the grid",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, match):
    values, _ = octants()
    img = nib.Nifti1Image(values, affine())
    mask = nib.Nifti1Image(np.ones(SHAPE, np.uint8), affine())
    with refused(match):
        supervoxels(img, **({"mask_img": mask} | settings))


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    values, _ = octants()
    with refused(r'supervoxels need scikit-image .*: pip install "glas3d\[images\]"'):
        supervoxels(nib.Nifti1Image(values, affine()), 5)


# Superpixels


def quarters(shape=(24, 30)):
    """Return four colours of equal lightness, as (3, rows, cols) in 0 to 255."""
    which = sum((np.indices(shape)[axis] >= n // 2) * 2**axis for axis, n in enumerate(shape))
    colours = np.array([[200, 60, 60], [60, 130, 60], [90, 90, 220], [120, 115, 0]])
    return np.moveaxis(colours[which], -1, 0), which


@pytest.mark.parametrize("kind", ["core", "last", "bytes", "share"])
def test_superpixels_follow_colours(kind):
    rgb, which = quarters()
    image = {
        "core": rgb.astype(np.float32),
        "last": np.moveaxis(rgb, 0, -1),
        "bytes": rgb.astype(np.uint8),
        "share": rgb / 255,
    }[kind]
    segments = superpixels(image, 40)
    assert segments.labels.shape == which.shape
    assert segments.labels.min() == 1
    for value in segments.index:
        inside = np.bincount(which[segments.labels == value])
        assert inside.max() > 0.9 * inside.sum()
    points, resolved = resolve_search(segments, which.shape)
    assert len(points) == len(segments.index) > 15
    assert resolved is segments


def test_compactness_means_for_colours_what_it_means_for_grey():
    """Weak noise does not make the borders of segments ragged."""
    rgb, _ = quarters()
    segments = superpixels(rgb + np.random.default_rng(0).normal(0, 15, rgb.shape), 12)
    assert len(segments.index) >= 6
    assert spread(segments.labels, (1, 1)).max() < 4


def test_grey_images_of_any_form_give_the_same_segments():
    grey = np.random.default_rng(0).random((12, 17))
    expected = superpixels(grey, 20).labels
    for each in (grey[None], grey[..., None], grey * 255):
        assert np.mean(superpixels(each, 20).labels != expected) < 0.02
    assert np.array_equal(superpixels(grey, 20).labels, expected)


def test_a_constant_image_is_divided_by_position():
    segments = superpixels(np.full((12, 18), 3), 6)
    assert segments.n_voxels.sum() == 12 * 18
    assert len(segments.index) >= 4


def test_pixels_outside_a_mask_belong_to_no_segment():
    rgb, which = quarters()
    segments = superpixels(rgb, 12, mask=which == 2)
    assert np.array_equal(segments.labels > 0, which == 2)


def test_superpixels_are_searched():
    rgb, _ = quarters()
    segments = superpixels(rgb, 9)
    e = GLAS(constant(0.3, 0.7), sigma_light=3.0, sigma_shadow=4.0).explain(rgb.astype(np.float32), 1, segments)
    assert len(e.score) == len(segments.index)


@pytest.mark.parametrize(
    ("image", "settings", "match"),
    [
        (np.zeros((2, 9, 9)), {}, r"grey \(rows, cols\) or have 1 or 3 channels, got float64 of \(2, 9, 9\)"),
        (np.zeros(9), {}, r"got float64 of \(9,\)"),
        (np.zeros((3, 8, 9, 7)), {}, r"of \(3, 8, 9, 7\)"),
        (np.zeros((0, 9)), {}, r"of \(0, 9\)"),
        (np.full((8, 9), np.nan), {}, "must hold finite values"),
        (np.ones((8, 9)), {"mask": np.ones((9, 8))}, r"on the image's grid: mask \(9, 8\), image \(8, 9\)"),
        (np.ones((8, 9)), {"mask": np.zeros((8, 9))}, "a mask must hold voxels, it is empty"),
        (np.ones((8, 9)), {"n_segments": 73}, "at most the 72 voxels of the mask, got 73"),
    ],
)
def test_what_is_no_image_is_refused(image, settings, match):
    with refused(match):
        superpixels(image, **settings)


def test_segments_of_a_grid_keep_to_the_mask():
    """On the scan's own grid no label moves."""
    img = head(HEADS["RAS"])
    atlas = supervoxels(img, 30)
    segments = atlas.segments(VoxelGrid(img.shape, img.affine))
    assert np.array_equal(segments.labels, labels_of(atlas))
