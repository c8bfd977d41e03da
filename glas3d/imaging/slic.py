"""Segments without an atlas: supervoxels of a scan and superpixels of an image, by SLIC.

SLIC is by Achanta et al., IEEE TPAMI 2012, and with a mask by Irving, arXiv 1606.09518; scikit-image implements both.
"""

from __future__ import annotations

import warnings

import nibabel as nib
import numpy as np
import pandas as pd
from scipy.ndimage import distance_transform_edt, label

from glas3d.checks import is_number, whole_number
from glas3d.core.search import Segments
from glas3d.errors import GlasError
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.mask import bright_voxels, mask_on
from glas3d.imaging.scan import ImageLike, load_scan
from glas3d.imaging.space import grid_of

# The lightness of CIELAB is 0 to 100 where grey values are 0 to 1.
_LAB = 100.0


def supervoxels(
    img: ImageLike,
    n_segments: int = 100,
    compactness: float = 0.1,
    mask_img: ImageLike | None = None,
    sigma: float = 0.0,
) -> Atlas:
    """Divide a scan into segments of similar brightness, as an atlas (needs ``pip install "glas3d[images]"``).

    Parameters
    ----------
    img
        Path or nibabel image, one 3D volume.
    n_segments
        The approximate number of segments. Small ones are joined to their neighbours, small parts of the mask to the
        nearest segment. Default: 100.
    compactness
        The weight of shape against brightness: at 0.1 (default) a tenth of the scan's range (1st to 99th percentile in
        the mask) weighs as much as the width of a segment. Larger values give rounder segments, smaller ones follow
        the contrast.
    mask_img
        The voxels to divide; None (default): the scan's bright voxels.
    sigma
        The sigma, in mm, of a Gaussian that smooths the scan first. Default: 0, no smoothing.

    Returns
    -------
    An atlas with the regions ``supervoxel-001`` and so on, on the scan's grid and in its own space, so that the scan is
    not compared with MNI. Equal input gives equal segments.

    Raises
    ------
    GlasError
        scikit-image is not installed, the mask is empty, or there are more segments than voxels.
    """
    scan = load_scan(img)
    mask = bright_voxels(scan) if mask_img is None else mask_on(mask_img, grid_of(scan))
    labels = _slic(scan.data, mask, n_segments, compactness, sigma, spacing=np.array(scan.spacing))
    n = int(labels.max())
    width = max(3, len(str(n)))
    table = pd.DataFrame({"index": range(1, n + 1), "name": [f"supervoxel-{i:0{width}d}" for i in range(1, n + 1)]})
    return Atlas.from_files(nib.Nifti1Image(labels, scan.affine), table, name="supervoxels")


def superpixels(
    image: np.ndarray,
    n_segments: int = 100,
    compactness: float = 0.1,
    mask: np.ndarray | None = None,
    sigma: float = 0.0,
) -> Segments:
    """Divide an image into segments of similar colour (needs ``pip install "glas3d[images]"``).

    Parameters
    ----------
    image
        Grey ``(rows, cols)``, or with 1 or 3 (RGB) channels first, as the core takes it, or last.
    n_segments, compactness, sigma
        As in `supervoxels`, in pixels; colours are compared in CIELAB.
    mask
        ``(rows, cols)``, True for the pixels to divide; None (default): all.

    Returns
    -------
    Segments of ``(rows, cols)``, for ``GLAS.explain(image, search=...)``.

    Raises
    ------
    GlasError
        The image has another shape or type, scikit-image is not installed, the mask is empty, or there are more
        segments than pixels.
    """
    values = np.asarray(image)
    if values.ndim == 3 and values.shape[0] in (1, 3):
        values = np.moveaxis(values, 0, -1)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[-1] not in (1, 3) or values.dtype.kind not in "biuf" or values.size == 0:
        raise GlasError(
            f"an image must be grey (rows, cols) or have 1 or 3 channels, got {values.dtype} of {np.shape(image)}"
        )
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise GlasError("an image must hold finite values, it does not")
    where = np.ones(values.shape[:2], dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    if where.shape != values.shape[:2]:
        raise GlasError(f"a mask must be on the image's grid: mask {where.shape}, image {values.shape[:2]}")
    grey = values.shape[-1] == 1
    return Segments.from_labels(_slic(values[..., 0] if grey else values, where, n_segments, compactness, sigma))


def _slic(
    values: np.ndarray,
    mask: np.ndarray,
    n_segments: int,
    compactness: float,
    sigma: float,
    spacing: np.ndarray | None = None,
) -> np.ndarray:
    """Return labels from 1 without gaps, 0 outside the mask; ``values`` are grey, or RGB in the last axis."""
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise GlasError(f'supervoxels need scikit-image ({error}): pip install "glas3d[images]"') from None
    n_voxels = np.count_nonzero(mask)
    if not n_voxels:
        raise GlasError("a mask must hold voxels, it is empty")
    n_segments = whole_number("n_segments", n_segments, least=1)
    if n_segments > n_voxels:
        raise GlasError(f"n_segments must be at most the {n_voxels} voxels of the mask, got {n_segments}")
    if not (is_number(compactness) and compactness > 0):
        raise GlasError(f"compactness must be a number greater than 0, got {compactness!r}")
    if not (is_number(sigma) and sigma >= 0):
        raise GlasError(f"sigma must be a number of at least 0, got {sigma!r}")
    size = np.ones(mask.ndim) if spacing is None else spacing
    solid = _without_specks(mask, 0.5 * n_voxels / n_segments)
    n = min(int(n_segments), np.count_nonzero(solid))
    if n == 1:  # SLIC needs a distance between centres
        return mask.astype(np.int32)
    colour = values.ndim > mask.ndim
    low, high = np.percentile(values[solid], [1, 99])
    clipped = np.clip(values, low, high) if high > low else values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about centres that end up without a voxel
        labels = slic(
            clipped.astype(np.float64),  # clipped: SLIC divides by the range, which a few bright voxels would extend
            n_segments=n,
            compactness=compactness * (_LAB if colour else 1.0),
            sigma=sigma / size,
            # scaled to a voxel volume of 1: SLIC counts the width of a segment in voxels, and compactness is per width
            spacing=size / np.prod(size) ** (1 / size.size),
            mask=solid,
            channel_axis=-1 if colour else None,
        )
    nearest = distance_transform_edt(labels == 0, sampling=size, return_distances=False, return_indices=True)
    filled = np.zeros(mask.shape, dtype=np.int32)
    filled[mask] = np.unique(labels[tuple(nearest)][mask], return_inverse=True)[1] + 1
    return filled


def _without_specks(mask: np.ndarray, least: float) -> np.ndarray:
    """Return the mask without parts of fewer voxels than ``least``, which SLIC would give to an arbitrary segment."""
    parts, _ = label(mask)
    counts = np.bincount(parts.ravel())
    counts[0] = 0
    kept: np.ndarray = (counts >= min(least, counts.max()))[parts]
    return kept
