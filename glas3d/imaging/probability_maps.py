"""Probabilistic atlases, which have one map per volume: each voxel belongs to the map that is highest there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.openers import ImageOpener
from nibabel.spatialimages import SpatialImage

from glas3d.checks import is_number
from glas3d.errors import GlasError, reason
from glas3d.imaging.orientation import check_orientation
from glas3d.imaging.scan import ImageLike, read_image

SHARE = 0.25
"""The share of a map's own maximum that its voxels reach, where no threshold is given."""


class ProbabilityMaps:
    """The volumes of a 3D or 4D image, read one after another: the 1024 of DiFuMo would fill 5 GB.

    Parameters
    ----------
    maps_img
        Path or image.

    Attributes
    ----------
    n
        Number of volumes.
    name
        What messages call the image.

    Raises
    ------
    GlasError
        The file does not exist or is no image, or the image is neither 3D nor 4D.
    """

    def __init__(self, maps_img: ImageLike) -> None:
        self.img: Any = maps_img if isinstance(maps_img, SpatialImage) else read_image(Path(maps_img), "an atlas")
        self.name = str(self.img.get_filename() or "the image")
        self.shape = tuple(int(n) for n in self.img.shape[:3])
        if len(self.img.shape) not in (3, 4) or 0 in self.img.shape:
            raise GlasError(f"an atlas must be 3D, or 4D with a map a volume, {self.name} has shape {self.img.shape}")
        self.n = 1 if len(self.img.shape) == 3 else int(self.img.shape[3])
        self.affine = np.asarray(self.img.affine, dtype=np.float64)
        check_orientation(self.img, self.name, stacklevel=3)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield each volume, ``(x, y, z)`` float32; values that are not finite become 0."""
        data = self.img.dataobj
        with contextlib.ExitStack() as stack:
            if isinstance(data, ArrayProxy):
                # one handle for all volumes: each read of a gzipped file would else start at its beginning
                stream = stack.enter_context(ImageOpener(data.file_like))
                data = ArrayProxy(stream, (data.shape, data.dtype, data.offset, data.slope, data.inter), mmap=False)
            for i in range(self.n):
                try:
                    volume = np.asarray(data if len(self.img.shape) == 3 else data[..., i])
                except Exception as error:  # a damaged file can raise anything
                    raise GlasError(
                        f"an atlas must be complete, {self.name} is truncated or damaged: {reason(error)}"
                    ) from None
                yield np.nan_to_num(volume.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def highest_map(maps: ProbabilityMaps, threshold: float | None) -> np.ndarray:
    """Return the number of the highest map at each voxel, from 1, where it is above 0 and reaches the threshold.

    Parameters
    ----------
    maps
        Probabilities, percentages, loadings or statistics, compared without scaling.
    threshold
        The least value, in the maps' own unit (0.25, or 25 for percentages); None: a quarter of the highest map's
        own maximum. Voxels below it are 0.

    Returns
    -------
    ``(x, y, z)`` int32.

    Raises
    ------
    GlasError
        The threshold is negative, or no voxel reaches it.
    """
    if threshold is not None and not (is_number(threshold) and threshold >= 0):
        raise GlasError(f"threshold must be None or a number of at least 0, got {threshold!r}")
    highest, value = np.zeros(maps.shape, dtype=np.int32), np.zeros(maps.shape, dtype=np.float32)
    floors = np.zeros(maps.n + 1, dtype=np.float32)
    for i, volume in enumerate(maps, start=1):
        higher = volume > value
        highest[higher] = i
        value[higher] = volume[higher]
        floors[i] = SHARE * volume.max() if threshold is None else threshold
    highest[value < floors[highest]] = 0
    if not highest.any():
        reached = "is above 0" if threshold is None else f"reaches the threshold {threshold:g}"
        raise GlasError(f"no voxel of the {maps.n} maps of {maps.name} {reached}, the highest is {value.max():.4g}")
    return highest
