"""Air and tissue: the one definition of both that intensity scales are computed from."""

from __future__ import annotations

import numpy as np

FAINT = 0.1
"""The share of typical tissue's intensity that a voxel must exceed to be tissue."""

_RESIDUE = 1e-5  # of typical tissue's intensity: what interpolation and rounding leave of an air of 0


def air_level(volume: np.ndarray) -> float:
    """Return the intensity of the air around a head: the median on the volume's faces, where most of them are air.

    They are when the middle half of the intensities on the faces differ by no more than a tenth of what tissue
    differs from them. Else, as in a volume that ends inside the head, the intensity of air is taken as 0.

    Parameters
    ----------
    volume
        ``(..., x, y, z)``, finite.

    Examples
    --------
    >>> head = np.full((7, 8, 9), -1000.0)
    >>> head[2:5, 2:6, 3:7] = 40
    >>> air_level(head)
    -1000.0
    """
    values = np.asarray(volume)
    axes = range(max(0, values.ndim - 3), values.ndim)
    faces = np.concatenate([np.take(values, [0, -1], axis=axis).ravel() for axis in axes])
    low, middle, high = (float(v) for v in np.percentile(faces, [25, 50, 75]))
    typical = _typical(np.abs(values - values.dtype.type(middle)))
    uniform = high - low <= FAINT * typical and typical > 0
    return middle if uniform and abs(middle) > _RESIDUE * typical else 0.0


def tissue_contrast(volume: np.ndarray, air: float) -> np.ndarray:
    """Return how much brighter than air the voxels of tissue are, flat.

    Tissue is what exceeds air by more than a tenth of typical tissue's intensity; a half of the volume's signal comes
    from voxels that are brighter than typical tissue. Residue of interpolation, noise of air, the number of voxels
    around the head and the unit of the intensities therefore change nothing.

    Parameters
    ----------
    volume
        Intensities of any shape.
    air
        The intensity of air, as `air_level` returns it.
    """
    values = np.asarray(volume)
    contrast = values - values.dtype.type(air) if air else values
    positive = contrast[contrast > 0]
    return np.asarray(positive[positive > FAINT * _typical(positive)])


def _typical(contrast: np.ndarray) -> float:
    """Return the intensity such that half of the sum of all intensities comes from brighter voxels; 0 without any."""
    ascending = np.sort(contrast, axis=None)
    if not ascending.size:
        return 0.0
    total = np.cumsum(ascending, dtype=np.float64)
    return float(ascending[min(np.searchsorted(total, total[-1] / 2), ascending.size - 1)])
