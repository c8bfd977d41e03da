"""Pictures: every 2D image is read and checked here, once, and resized to the model's size.

They are called pictures so that they are not mistaken for nibabel's images.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.nn.functional import interpolate

from glas3d.errors import GlasError, reason
from glas3d.hashing import bytes_sha256, file_sha256
from glas3d.reading import file_access, open_regular

PictureLike = str | os.PathLike[str] | Image.Image | np.ndarray | torch.Tensor
Colour = Literal["RGB", "grey"]

MOST_PIXELS = 2**27
"""The most pixels of a picture, which is resized to the model's size."""

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601, Pillow's
# Pillow's modes with 8 bits per channel, and the modes they are read as; an alpha channel must be opaque.
_MODES = {
    "1": "L",
    "L": "L",
    "RGB": "RGB",
    "P": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "HSV": "RGB",
    "LA": "LA",
    "RGBA": "RGBA",
    "PA": "RGBA",
    "RGBX": "RGB",
}


@dataclass(frozen=True, eq=False, repr=False)
class Picture:
    """A 2D image with its channels first, and its source.

    Attributes
    ----------
    data
        ``(c, rows, cols)`` float32: 0 to 255 from a file or a Pillow image, else the array's own values.
    name
        What messages call the picture: its path, or ``the picture``.
    sha256
        The hash of the file's bytes, or of the shape and values of one in memory.
    """

    data: np.ndarray
    name: str
    sha256: str

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        _, rows, columns = self.data.shape
        return (rows, columns)

    @property
    def stem(self) -> str:
        """The file's name without its ending; ``picture`` without a file."""
        return Path(self.name).stem if self.name != "the picture" else "picture"

    @property
    def rgb(self) -> np.ndarray:
        """The picture for display, ``(rows, cols, 3)`` uint8.

        Black is 0 and white is 1 or 255; if there are other values, they are the lowest and the highest.
        """
        data = self.data if len(self.data) == 3 else self.data.mean(axis=0, keepdims=True).repeat(3, axis=0)
        low, high = float(data.min()), float(data.max())
        if low >= 0 and high <= 255:
            low, high = 0.0, 1.0 if high <= 1 else 255.0
        scaled = (data - low) * (255.0 / (high - low))
        rgb: np.ndarray = np.moveaxis(np.rint(scaled), 0, -1).astype(np.uint8)
        return rgb

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"Picture({self.name}: {rows} rows, {columns} columns, {len(self.data)} channels)"


def is_picture_file(path: str | os.PathLike[str]) -> bool:
    """Return whether a file's name has the ending of a format that Pillow reads.

    Examples
    --------
    >>> is_picture_file("bird.JPG"), is_picture_file("sub-01_T1w.nii.gz")
    (True, False)
    """
    return Path(path).suffix.lower() in Image.registered_extensions()


def load_picture(image: PictureLike, colour: Colour | None = None) -> Picture:
    """Read one picture from a path, a Pillow image, an array or a tensor.

    Parameters
    ----------
    image
        A path to what Pillow reads (PNG, JPEG, TIFF, ...), turned as its EXIF orientation says; a Pillow image; an
        array ``(rows, cols)`` or ``(rows, cols, 1 | 3 | 4)``, channels last as images are; or a torch tensor
        ``(rows, cols)`` or ``(c, rows, cols)``, channels first as torch's are. The values of arrays and tensors
        stay as they are.
    colour
        ``"RGB"``: three channels, which repeat a grey picture. ``"grey"``: one channel, the luma of a coloured picture.
        None (default): the channels stay as they are.

    Raises
    ------
    GlasError
        The file does not exist, is no picture or is damaged; the picture has several frames, transparent pixels or, in
        a file, more than 8 bits per channel; or an array has another shape or values that are not finite.
    """
    if colour not in (None, "RGB", "grey"):
        raise GlasError(f'colour must be "RGB", "grey" or None, got {colour!r}')
    name, digest = "the picture", None
    if isinstance(image, str | os.PathLike):
        name = str(image)
        data, digest = _read(Path(image)), file_sha256(Path(image))
    elif isinstance(image, Image.Image):
        data = _from_channels_last(np.asarray(_plain(image, name)), name)
    elif isinstance(image, torch.Tensor):
        data = _from_channels_first(image.detach().cpu().numpy(), name)
    elif isinstance(image, np.ndarray):
        data = _from_channels_last(image, name)
    else:
        raise GlasError(f"a picture must be a path, a Pillow image, an array or a tensor, got {type(image).__name__}")
    if not np.isfinite(data).all():
        raise GlasError(f"a picture must hold finite values, {name} of {data.shape} does not")
    if digest is None:
        digest = bytes_sha256([repr(data.shape).encode(), data.tobytes()])
    return Picture(_coloured(data, colour, name), name, digest)


def resize(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize ``(k, rows, cols)`` to ``(k, *size)``, bilinearly; where pixels become larger, they average."""
    if values.shape[1:] == size:
        return values
    tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None]
    resized: np.ndarray = interpolate(tensor, size, mode="bilinear", align_corners=False, antialias=True)[0].numpy()
    return resized


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize labels ``(rows, cols)`` to ``size``, with the label of the nearest pixel."""
    rows, columns = (
        np.floor((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(size, labels.shape, strict=True)
    )
    return labels[np.ix_(rows, columns)]


def resize_points(points: np.ndarray, shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Map points ``(m, 2)``, row and column, of a picture of ``shape`` to the same picture resized to ``size``.

    The centres of pixels have integer coordinates.
    """
    if shape == size:
        return points
    moved: np.ndarray = (points + 0.5) * (np.array(size) / np.array(shape)) - 0.5
    return moved


def _read(path: Path) -> np.ndarray:
    with file_access(path, "a picture"):
        opened = open_regular(path)
    try:
        with opened as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # pixels are counted here
            with Image.open(file) as image:
                return _from_channels_last(np.asarray(_plain(image, str(path))), str(path))
    except GlasError:
        raise
    except Image.DecompressionBombError:
        raise GlasError(f"a picture must have at most {MOST_PIXELS:,} pixels, {path} states more") from None
    except UnidentifiedImageError:
        raise GlasError(f"a picture must be an image Pillow can read, {path} is not") from None
    except Exception as error:  # a damaged file can raise anything
        raise GlasError(f"a picture must be complete, {path} is truncated or damaged: {reason(error)}") from None


def _plain(image: Image.Image, name: str) -> Image.Image:
    """Return a Pillow image upright, with 8 bits per channel, in one of the modes L, RGB, LA and RGBA."""
    if image.format == "EPS":
        raise GlasError(f"a picture must be pixels, {name} is PostScript, a program that Ghostscript would run")
    if image.width * image.height > MOST_PIXELS:
        raise GlasError(
            f"a picture must have at most {MOST_PIXELS:,} pixels, {name} has {image.width:,} x {image.height:,}"
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise GlasError(f"a picture must be one frame, {name} has {frames}")
    if image.mode not in _MODES:
        raise GlasError(
            f"a picture must have 8 bits a channel (0 to 255), {name} has Pillow's mode {image.mode}: "
            "give its values as an array, scaled as the model takes them"
        )
    upright = ImageOps.exif_transpose(image)
    return upright.convert("RGBA" if "transparency" in upright.info else _MODES[image.mode])


def _from_channels_last(array: np.ndarray, name: str) -> np.ndarray:
    """Return an array ``(rows, cols[, c])`` as ``(c, rows, cols)``, without an opaque alpha channel."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise GlasError(
            f"an array must be a picture (rows, cols) or (rows, cols, 1, 3 or 4), channels last, got {array.shape}; "
            "a torch tensor has its channels first"
        )
    if array.shape[2] in (2, 4):
        alpha = array[..., -1]
        if not (alpha == alpha.flat[0]).all() or alpha.flat[0] not in (1, 255):
            raise GlasError(f"a picture must be opaque, {name} has transparent pixels: put it on a background first")
        array = array[..., :-1]
    return _from_channels_first(np.moveaxis(array, -1, 0), name)


def _from_channels_first(array: np.ndarray, name: str) -> np.ndarray:
    """Return an array ``([c,] rows, cols)`` as ``(c, rows, cols)`` float32."""
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or 0 in array.shape:
        raise GlasError(
            f"a tensor must be a picture (rows, cols) or (c, rows, cols), channels first, got {array.shape}"
        )
    if array.dtype.kind not in "uif":
        raise GlasError(f"a picture must hold real numbers, {name} holds {array.dtype}")
    return np.ascontiguousarray(array, dtype=np.float32)


def _coloured(data: np.ndarray, colour: Any, name: str) -> np.ndarray:
    """Return channels ``(c, rows, cols)`` with the number of channels that ``colour`` means."""
    if colour == "RGB" and len(data) == 1:
        return data.repeat(3, axis=0)
    if colour == "grey" and len(data) == 3:
        grey: np.ndarray = np.tensordot(_LUMA, data, axes=1)[None]
        return grey
    if colour is not None and len(data) not in (1, 3):
        raise GlasError(f'colour="{colour}" needs a grey or coloured picture, {name} has {len(data)} channels')
    return data
