"""How few voxels or regions hold most of a map?"""

from __future__ import annotations

from typing import Any

import numpy as np

from glas3d.errors import GlasError
from glas3d.evaluate.metrics.paired import finite_array


def sparsity(values: Any) -> float:
    """Return the Gini index of the sizes of values (Chalasani et al. 2020): 0 if all are alike, near 1 if one is all.

    Parameters
    ----------
    values
        A map or the values of regions, of any shape.

    Raises
    ------
    GlasError
        The values are not finite, or all are 0.

    Examples
    --------
    >>> sparsity([1, -1, 1, 1]), sparsity([0, 0, 0, 7])
    (0.0, 0.75)
    """
    sizes = np.sort(np.abs(finite_array(values, "a map")).ravel())
    total = sizes.sum()
    if total == 0:
        raise GlasError(f"sparsity needs a map that is not 0 everywhere, all of {sizes.size} values are 0")
    n = sizes.size
    return float(((2 * np.arange(1, n + 1) - n - 1) * sizes).sum() / (n * total))
