"""Scans: every 3D image is read and checked here, once, and every map is given its scan's grid."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from glas3d.errors import GlasError, GlasWarning, reason
from glas3d.hashing import arrays_sha256, file_sha256
from glas3d.imaging.files import no_image
from glas3d.imaging.image_files import check_files, check_stated_size, content_size
from glas3d.imaging.orientation import check_orientation, empty_map
from glas3d.reading import check_regular

ImageLike = str | os.PathLike[str] | SpatialImage

_SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh", ".img.gz", ".img", ".hdr")


@dataclass(frozen=True, eq=False, repr=False)
class Scan:
    """A volume with its affine and its source.

    Attributes
    ----------
    data
        ``(x, y, z)`` float32, scaled intensities in the file's own axis order; NaN and infinity are 0.
    affine
        4x4, voxel to world (RAS+) in mm.
    img
        The image as it was read; maps take sform and qform from its header.
    name
        What messages call the scan: its path, or ``the image``.
    sha256
        The hash of the file's bytes, or of data and affine for an image in memory.
    """

    data: np.ndarray
    affine: np.ndarray
    img: SpatialImage
    name: str
    sha256: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along each axis."""
        x, y, z = self.data.shape
        return (x, y, z)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a voxel in mm along each axis."""
        return tuple(float(v) for v in nib.affines.voxel_sizes(self.affine))

    @property
    def stem(self) -> str:
        """The file's name without its ending, which tells every input apart; ``scan`` without a file."""
        path = self.img.get_filename()
        name = Path(path).name if path else "scan"
        for suffix in _SUFFIXES:
            name = name.removesuffix(suffix)
        return name

    def __repr__(self) -> str:
        size = " x ".join(f"{v:.3g}" for v in self.spacing)
        axes = "".join(str(code) for code in nib.orientations.aff2axcodes(self.affine))
        return f"Scan({self.name}: {self.shape}, {size} mm, {axes})"

    def like(self, data: np.ndarray) -> nib.Nifti1Image:
        """Return a float32 map on this scan's own grid: its affine, and its sform and qform with their codes.

        Parameters
        ----------
        data
            The values, of this scan's shape.
        """
        empty = empty_map(self.img, self.affine, self.shape, self.name)
        return nib.Nifti1Image(np.asarray(data, dtype=np.float32), empty.affine, empty.header)


def load_scan(img: ImageLike, *, constant: bool = False, what: str = "a scan") -> Scan:
    """Read one 3D scan, from a path or a nibabel image.

    The image may be NIfTI-1 or -2, ``.mgz`` or of another format of volumes that nibabel reads (but for MINC 2), of any
    data type, scaling and byte order. A 4D image is accepted if it holds one volume.

    Parameters
    ----------
    img
        Path or nibabel image.
    constant
        Whether an image with the same intensity everywhere is accepted, as a mask or an atlas may have. Default: no.
    what
        What messages call an image of its kind.

    Raises
    ------
    GlasError
        The file does not exist, is no image, or is truncated; the image is not three-dimensional, its affine is
        singular, its intensities are not finite or do not vary, or no NIfTI file can hold maps on its grid.

    Warns
    -----
    GlasWarning
        The header does not say which side is left, or says it twice in different ways; see `check_orientation`. Voxels
        are NaN or infinite in the middle of the image; around it NaN is the usual mark of what is no brain.
    """
    before: list[tuple[int, ...]] = []
    if isinstance(img, SpatialImage):
        image, name = img, img.get_filename() or "the image"
    elif isinstance(img, str | os.PathLike):
        image, name = read_image(Path(img), what), str(img)
        before = _states(image)
    else:
        raise GlasError(f"{what} must be a path or a nibabel image, got {type(img).__name__}")
    data = _intensities(image, str(name), constant, what)
    affine = _affine(image, str(name), what)
    check_orientation(image, str(name))
    empty_map(image, affine, data.shape, str(name))  # before the model is evaluated
    path = image.get_filename()
    if not isinstance(img, SpatialImage) and path:
        digest = file_sha256(Path(img))
        if _states(image) != before:
            raise GlasError(f"{what} must stay as it is while it is read, {name} was changed")
    else:
        digest = arrays_sha256(data, affine)
    return Scan(data, affine, image, str(name), digest)


def _states(image: SpatialImage) -> list[tuple[int, ...]]:
    """Return what changes when one of an image's files is written again: which file it is, its size and its times."""
    files = (Path(part.filename) for part in image.file_map.values() if part.filename)
    states = [file.stat() for file in files if file.exists()]
    return [(state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns) for state in states]


def read_image(path: Path, what: str = "a scan") -> SpatialImage:
    """Open an image file; every image is opened here. The intensities are read when they are first used.

    Parameters
    ----------
    path
        The file.
    what
        What messages call an image of its kind.

    Raises
    ------
    GlasError
        The file does not exist, may not be read, is no regular file or not one that nibabel can read, is compressed
        and truncated or damaged, or holds fewer bytes than its header states.
    """
    image = open_image(path, what)
    for key, part in image.file_map.items():  # header and voxels may be two files
        if part.filename and Path(part.filename).is_file():
            size = content_size(Path(part.filename), what)
            if key == "image":
                check_stated_size(image, Path(part.filename), size, what)
    return image


def open_image(path: Path, what: str = "a scan") -> SpatialImage:
    """Open an image file for its shape and affine alone: whether it is complete is not looked at, see `read_image`.

    Parameters
    ----------
    path, what
        See `read_image`.

    Raises
    ------
    GlasError
        The file does not exist, may not be read, is no regular file or not one that nibabel can read.
    """
    if not os.path.lexists(path):  # or its folder may not be entered
        check_regular(path, what)
    if problem := no_image(path):
        raise GlasError(f"{what} must be an image file, {problem}")
    check_files(path, what)
    try:
        image: Any = nib.load(path)
    except Exception as error:  # nibabel raises many kinds
        raise GlasError(f"{what} must be an image nibabel can read, {path} is not: {reason(error)}") from None
    if not isinstance(image, SpatialImage):
        raise GlasError(f"{what} must be a volume, {path} is a {type(image).__name__}")
    return image


def _intensities(image: SpatialImage, name: str, constant: bool, what: str) -> np.ndarray:
    shape = tuple(int(n) for n in image.shape)
    if len(shape) > 3 and all(n == 1 for n in shape[3:]):
        shape = shape[:3]
    if len(shape) != 3:
        volumes = f", {np.prod(shape[3:])} volumes: split it first" if len(shape) > 3 else ""
        raise GlasError(f"{what} must be one 3D volume, {name} has shape {image.shape}{volumes}")
    if min(shape) < 1:
        raise GlasError(f"{what} must have voxels, {name} has shape {image.shape}")
    if image.get_data_dtype().kind not in "biuf":
        raise GlasError(f"{what} must hold real numbers, {name} holds {image.get_data_dtype()}")
    try:
        # from the proxy: get_fdata would leave a second copy in the caller's image
        with np.errstate(all="ignore"):
            data = np.asarray(image.dataobj, dtype=np.float32).reshape(shape)
    except FileNotFoundError as error:
        raise GlasError(f"{what} must be complete, {name} lacks {error.filename}") from None
    except Exception as error:  # a damaged file can raise anything
        raise GlasError(f"{what} must be complete, {name} is truncated or damaged: {reason(error)}") from None
    finite = np.isfinite(data)
    if not finite.any():
        raise GlasError(f"{what} must hold finite intensities, {name} holds none")
    if not finite.all():
        if holes := _enclosed(~finite):
            are = "1 voxel is" if holes == 1 else f"{holes:,} voxels are"
            warnings.warn(
                f"{are} NaN or infinite inside of {name}, not only around it, and taken as 0", GlasWarning, stacklevel=4
            )
        data = np.where(finite, data, np.float32(0))  # the usual mark for "outside the brain"
    if not constant and data.min() == data.max():
        raise GlasError(f"{what} must hold varying intensities, {name} is {data.flat[0]:g} everywhere")
    return np.ascontiguousarray(data)


def _enclosed(marked: np.ndarray) -> int:
    """Return how many voxels of a mask belong to parts that do not reach the border of the volume."""
    from scipy.ndimage import label

    parts, _ = label(marked)
    outer = [np.unique(parts.take((0, -1), axis=axis)) for axis in range(parts.ndim)]
    return int((marked & ~np.isin(parts, np.concatenate(outer))).sum())


def _affine(image: SpatialImage, name: str, what: str) -> np.ndarray:
    affine = None if image.affine is None else np.asarray(image.affine, dtype=np.float64)
    if affine is None or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        came = "none" if affine is None else " ".join(np.array2string(affine[:3], precision=3).split())
        raise GlasError(f"{what} must have an affine that can be inverted, {name} has {came}")
    return affine
