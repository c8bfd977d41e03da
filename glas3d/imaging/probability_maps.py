"""Probabilistic atlases, one map a volume: each voxel goes to the map that is highest there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.openers import ImageOpener
from nibabel.spatialimages import SpatialImage

from glas3d.errors import GlasError, reason
from glas3d.imaging.scan import ImageLike

SHARE = 0.25


class ProbabilityMaps:
    """The volumes of a 3D or 4D image, read one after the other (DiFuMo's 1024 would fill 5 GB).

    Parameters
    ----------
    maps_img
        Path or image; a trailing axis of one volume is none.

    Attributes
    ----------
    n
        How many volumes there are.
    name
        What messages call it.

    Raises
    ------
    GlasError
        No such file, not an image, or neither 3D nor 4D.
    """

    def __init__(self, maps_img: ImageLike) -> None:
        self.img: Any = maps_img if isinstance(maps_img, SpatialImage) else _open(Path(maps_img))
        self.name = str(self.img.get_filename() or "the image")
        self.shape = tuple(int(n) for n in self.img.shape[:3])
        if len(self.img.shape) not in (3, 4) or 0 in self.img.shape:
            raise GlasError(f"an atlas must be 3D, or 4D with a map a volume, {self.name} has shape {self.img.shape}")
        self.n = 1 if len(self.img.shape) == 3 else int(self.img.shape[3])
        self.affine = np.asarray(self.img.affine, dtype=np.float64)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The volumes in turn, ``(x, y, z)`` float32; what is not finite is 0."""
        data = self.img.dataobj
        with contextlib.ExitStack() as stack:
            if isinstance(data, ArrayProxy):
                # One handle for all volumes: else each read of a gzipped file would start at its beginning.
                stream = stack.enter_context(ImageOpener(data.file_like))
                data = ArrayProxy(stream, (data.shape, data.dtype, data.offset, data.slope, data.inter), mmap=False)
            for i in range(self.n):
                try:
                    volume = np.asarray(data if len(self.img.shape) == 3 else data[..., i])
                except Exception as error:  # whatever a reader trips over
                    raise GlasError(
                        f"an atlas must be complete, {self.name} is truncated or damaged: {reason(error)}"
                    ) from None
                yield np.nan_to_num(volume.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


def highest_map(maps: ProbabilityMaps, threshold: float | None) -> np.ndarray:
    """The number of the highest map at each voxel, from 1, where it is above 0 and reaches the threshold.

    Parameters
    ----------
    maps
        Probabilities, percentages, loadings or statistics: compared as they are.
    threshold
        In the maps' own unit (0.25, or 25 for percentages); None: a quarter of the winning map's own
        maximum, whatever its unit. Voxels below belong to nothing.

    Returns
    -------
    ``(x, y, z)`` int32.

    Raises
    ------
    GlasError
        A threshold that is negative, or that no voxel reaches.
    """
    if threshold is not None:
        number = isinstance(threshold, int | float | np.number) and not isinstance(threshold, bool)
        if not (number and np.isfinite(threshold) and threshold >= 0):
            raise GlasError(f"threshold must be None or a number of at least 0, got {threshold!r}")
    winner, best = np.zeros(maps.shape, dtype=np.int32), np.zeros(maps.shape, dtype=np.float32)
    floors = np.zeros(maps.n + 1, dtype=np.float32)
    for i, volume in enumerate(maps, start=1):
        higher = volume > best
        winner[higher] = i
        best[higher] = volume[higher]
        floors[i] = SHARE * volume.max() if threshold is None else threshold
    winner[best < floors[winner]] = 0
    if not winner.any():
        reached = "is above 0" if threshold is None else f"reaches the threshold {threshold:g}"
        raise GlasError(f"no voxel of the {maps.n} maps of {maps.name} {reached}, the highest is {best.max():.4g}")
    return winner


def _open(path: Path) -> SpatialImage:
    if not path.is_file():
        raise GlasError(f"no such file: {path}")
    try:
        image: Any = nib.load(path)
    except Exception as error:  # nibabel has many of its own
        raise GlasError(f"an atlas must be an image nibabel can read, {path} is not: {reason(error)}") from None
    if not isinstance(image, SpatialImage):
        raise GlasError(f"an atlas must be a volume, {path} is a {type(image).__name__}")
    return image
