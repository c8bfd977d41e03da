"""Whether values are so skewed that flipped signs do not stand for them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from glas3d.errors import GlasWarning


def warn_of_skew(groups: Sequence[np.ndarray]) -> None:
    """Warn where values are so skewed that differences of the groups' means are, too: flipped signs are not.

    The third central moment of the difference of means is compared with its standard error for normal values. Its
    square is 1 on average over regions where values are normal. Of several groups the most skewed pair counts.

    Parameters
    ----------
    groups
        The values of each group, ``(participants, regions)``.

    Warns
    -----
    GlasWarning
        Skewed values; it names ``--null bootstrap-t``.
    """
    from scipy.stats import chi2

    moments, variances = zip(*[_third_moment(values) for values in groups], strict=True)
    n_skewed = count = 0
    for i in range(len(groups)):
        for j in range(i):
            variance = variances[i] + variances[j]
            known = variance > 0
            number = int(known.sum())
            if not number:
                continue
            squares = (moments[i] - moments[j])[known] ** 2 / variance[known]
            if squares.mean() > max(2.0, float(chi2.ppf(0.999, number)) / number):
                n_skewed, count = max((n_skewed, count), (int((squares > 3.84).sum()), number))
    if count:
        message = (
            f"values are skewed, differently or in groups of different size, in {n_skewed} of {count} regions or "
            "voxels: flipped signs assume symmetric values and may reject too often, null='bootstrap-t' "
            "(--null bootstrap-t) does not assume it"
        )
        warnings.warn(message, GlasWarning, stacklevel=3)


def _third_moment(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the third central moment of the mean of values ``(n, p)``, and its variance for normal values."""
    n = len(values)
    centred = values - values.mean(axis=0)
    variance = 6 * (centred**2).mean(axis=0) ** 3 * (n - 2) / ((n + 1) * (n + 3)) / n**4
    return (centred**3).mean(axis=0) / n**2, variance
