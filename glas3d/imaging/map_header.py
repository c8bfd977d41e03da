"""Headers of maps: what a map shows, and the range in which viewers display it before anyone moves a slider."""

from __future__ import annotations

import nibabel as nib
import numpy as np

# A map is shown where it is among its highest tenth of voxels: the rest has little to say, and covers the anatomy.
# But nothing is shown below a tenth of the maximum.
_SHOWN, _NEVER = 0.9, 0.1
# FSLeyes and others hide values at the threshold itself.
_JUST_BELOW = 1 - 1e-5


def display_range(values: np.ndarray) -> tuple[float, float]:
    """Return the size of a value from which a map is worth showing, and its largest size.

    What is smaller than the first is transparent in figures and reports, and in viewers that follow ``cal_min`` and
    ``cal_max``. It is just below the 90th percentile of the sizes of all values other than 0, but at least a tenth of
    the largest.

    Parameters
    ----------
    values
        The map, of any shape; 0 and NaN stand for no value. Its sign does not count.

    Returns
    -------
    Both are 0 for a map without values.

    Examples
    --------
    >>> display_range(np.array([0.0, 0.01, 0.02, -0.03, 1.0]))
    (0.1, 1.0)
    >>> lowest, largest = display_range(np.r_[np.zeros(50), np.linspace(0.02, 2.0, 100)])
    >>> round(lowest, 4), largest
    (1.8, 2.0)
    """
    sizes = np.abs(np.asarray(values, dtype=np.float64))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not sizes.size:
        return 0.0, 0.0
    largest = float(sizes.max())
    quantile = _JUST_BELOW * float(np.quantile(sizes, _SHOWN, method="lower"))  # so that a region at it is shown
    return max(quantile, _NEVER * largest), largest


def describe_map(img: nib.Nifti1Image, statistic: str, subject: str, *, threshold: float | None = None) -> None:
    """Write into a map's header what it shows and in which range, as viewers read it.

    The intent is an estimate named for the statistic, and ``descrip`` names the subject. ``cal_min`` and ``cal_max``
    are the `display_range`. Viewers then hide what says nothing; of a map with a sign they show what is above 0 and,
    where they are told to show the negative side too, as much of that.

    Parameters
    ----------
    img
        The map; its header is changed.
    statistic
        Such as ``saliency``, ``light``, ``shadow`` or ``drop``.
    subject
        What the map is for: the class that is explained, or the groups.
    threshold
        Where the display begins, in place of that of `display_range`.
    """
    lowest, largest = display_range(np.asarray(img.dataobj))
    if threshold is not None:
        lowest, largest = threshold, max(largest, 2 * threshold)
    img.header.set_intent("estimate", (), name=statistic[:15])
    img.header["cal_min"], img.header["cal_max"] = lowest, largest
    img.header["descrip"] = f"glas3d {statistic} for {subject}".encode("ascii", "replace")[:79]


def map_on(
    pattern: nib.Nifti1Image, values: np.ndarray, statistic: str, subject: str, *, threshold: float | None = None
) -> nib.Nifti1Image:
    """Return a float32 map on the grid of another, with a header that describes its own values.

    Parameters
    ----------
    pattern
        An image on the same grid.
    values
        ``pattern.shape``.
    statistic, subject, threshold
        See `describe_map`.
    """
    img = nib.Nifti1Image(np.asarray(values, dtype=np.float32), pattern.affine, pattern.header)
    describe_map(img, statistic, subject, threshold=threshold)
    return img
