import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from glas3d.imaging.picture import load_picture, resize, resize_labels, resize_points
from tests.core.cases import refused

SHAPE = (6, 9)


@pytest.fixture
def colours():
    """Return a picture in which every pixel and channel has its own value."""
    return np.random.default_rng(0).permutation(162).astype(np.uint8).reshape(*SHAPE, 3)


def test_a_picture_has_a_name_shape_and_hash(colours, tmp_path):
    path = tmp_path / "a cat.png"
    Image.fromarray(colours).save(path)
    picture = load_picture(path)
    assert picture.data.dtype == np.float32
    np.testing.assert_array_equal(picture.data, np.moveaxis(colours, -1, 0))
    assert (picture.shape, picture.stem, picture.name) == (SHAPE, "a cat", str(path))
    assert picture.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert repr(picture) == f"Picture({path}: 6 rows, 9 columns, 3 channels)"
    assert load_picture(colours).sha256 != load_picture(colours[::-1]).sha256


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright(colours, tmp_path, orientation):
    """It is stored turned, with the EXIF orientation that turns it back."""
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(undo[orientation](colours))).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(load_picture(tmp_path / "turned.png").data, np.moveaxis(colours, -1, 0))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "RGBA", "LA", "RGB"])
def test_modes_of_eight_bits(colours, mode):
    image = Image.fromarray(colours)
    converted = image.convert(mode) if mode != "LA" else image.convert("L").convert("LA")
    grey = mode in ("1", "L", "LA")
    expected = np.asarray(converted.convert("L" if grey else "RGB"), dtype=np.float32)
    values = load_picture(converted).data
    np.testing.assert_array_equal(values, expected[None] if grey else np.moveaxis(expected, -1, 0))
    if mode not in ("P", "1"):
        assert np.abs(values.mean() - colours.mean()) < 6


def test_transparency_is_refused_and_opacity_is_not(colours, tmp_path):
    opaque = np.dstack([colours, np.full(SHAPE, 255, np.uint8)])
    np.testing.assert_array_equal(load_picture(opaque).data, np.moveaxis(colours, -1, 0))
    clear = opaque.copy()
    clear[2, 3, 3] = 128
    palette = Image.fromarray(colours).quantize(8)
    palette.save(tmp_path / "palette.png", transparency=int(np.asarray(palette)[0, 0]))
    Image.fromarray(clear).save(tmp_path / "clear.png")
    for picture in (clear, tmp_path / "clear.png", tmp_path / "palette.png", np.where(opaque == 255, 0, opaque)):
        with refused("a picture must be opaque, .* has transparent pixels"):
            load_picture(picture)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_eight_bits_are_refused(tmp_path, mode):
    kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
    values = (np.arange(54).reshape(SHAPE) * 900).astype(kind)
    Image.fromarray(values).save(tmp_path / "deep.tif")
    with refused(f"8 bits a channel .*deep.tif has Pillow's mode {mode}"):
        load_picture(tmp_path / "deep.tif")
    np.testing.assert_array_equal(load_picture(values).data[0], values)


def test_arrays_have_their_channels_last_and_tensors_first(colours):
    expected = np.moveaxis(colours, -1, 0)
    np.testing.assert_array_equal(load_picture(colours[..., :1]).data, expected[:1])
    np.testing.assert_array_equal(load_picture(colours[..., 0]).data, expected[:1])
    np.testing.assert_array_equal(load_picture(torch.from_numpy(expected.copy())).data, expected)
    np.testing.assert_array_equal(load_picture(torch.from_numpy(expected[0].copy())).data, expected[:1])
    assert load_picture(torch.zeros(5, *SHAPE)).data.shape == (5, *SHAPE)
    np.testing.assert_array_equal(load_picture(colours[:, ::-1] / 255).data, expected[:, :, ::-1] / np.float32(255))
    with refused(r"channels last, got \(3, 6, 9\); a torch tensor has its channels first"):
        load_picture(expected)


def test_colour_and_grey(colours):
    grey = load_picture(colours, "grey").data
    assert grey.shape == (1, *SHAPE)
    assert np.abs(grey[0] - np.asarray(Image.fromarray(colours).convert("L"))).max() <= 1
    thrice = load_picture(colours[..., 0], "RGB").data
    np.testing.assert_array_equal(thrice, np.repeat(colours[None, ..., 0], 3, axis=0))
    with refused("needs a grey or coloured picture, the picture has 5 channels"):
        load_picture(torch.zeros(5, *SHAPE), "grey")
    with refused('colour must be "RGB", "grey" or None'):
        load_picture(colours, "blue")


def test_what_is_no_picture_is_refused(colours, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.tile(colours, (20, 20, 1))).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    frames = [Image.fromarray(colours[..., i]) for i in range(3)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    for given, said in (
        (tmp_path / "none.png", "no such file"),
        (tmp_path, "a picture must be a file that you may read, .* is not: is a directory"),
        (tmp_path / "text.png", "an image Pillow can read"),
        (tmp_path / "half.png", "truncated or damaged"),
        (tmp_path / "film.gif", "one frame, .* has 3"),
        (np.full(SHAPE, np.nan), "finite values"),
        (np.full(SHAPE, "a"), "real numbers"),
        (torch.zeros(0, 3), "a tensor must be a picture"),
        ([1, 2], "got list"),
    ):
        with refused(said):
            load_picture(given)


def test_the_rgb_values_look_like_the_picture(colours):
    np.testing.assert_array_equal(load_picture(colours).rgb, colours)
    np.testing.assert_array_equal(load_picture(colours / 255.0).rgb, colours)
    np.testing.assert_array_equal(load_picture(colours[..., 1]).rgb, np.repeat(colours[..., 1:2], 3, axis=2))
    shown = load_picture(colours.astype(float) - 500).rgb
    assert (shown.min(), shown.max()) == (0, 255)


# Sizes


def test_resizing_is_pillows_bilinear(colours):
    tall = np.tile(colours, (5, 4, 1))
    for size in ((13, 11), (60, 50), (30, 36)):
        expected = np.asarray(Image.fromarray(tall).resize(size[::-1], Image.Resampling.BILINEAR), dtype=float)
        values = resize(load_picture(tall).data, size)
        assert np.abs(np.moveaxis(values, 0, -1) - expected).max() < 1.01  # it rounds twice
    np.testing.assert_array_equal(resize(load_picture(tall).data, (30, 36)), load_picture(tall).data)


def test_points_are_resized_with_the_pixels():
    ramp = np.stack(np.meshgrid(np.arange(24.0), np.arange(30.0), indexing="ij"))
    points = np.array([[3.5, 4.5], [11.0, 20.25]])
    for size in ((12, 10), (48, 60), (24, 30)):
        moved = resize_points(points, (24, 30), size)
        np.testing.assert_allclose(resize_points(moved, size, (24, 30)), points)
        small = resize(ramp, size)
        for (row, column), (r, c) in zip(moved, points, strict=True):
            cell = np.array([small[0, int(row), 0], small[0, int(np.ceil(row)), 0]])
            weight = row - int(row)
            assert cell[0] * (1 - weight) + cell[1] * weight == pytest.approx(r, abs=0.05)
            line = np.array([small[1, 0, int(column)], small[1, 0, int(np.ceil(column))]])
            weight = column - int(column)
            assert line[0] * (1 - weight) + line[1] * weight == pytest.approx(c, abs=0.05)


def test_labels_are_the_nearest_pixels():
    labels = np.arange(54).reshape(SHAPE) + 300
    doubled = resize_labels(labels, (12, 18))
    np.testing.assert_array_equal(doubled, labels.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(resize_labels(doubled, SHAPE), labels)
    np.testing.assert_array_equal(resize_labels(labels, (2, 3)), labels[1::3, 1::3])
