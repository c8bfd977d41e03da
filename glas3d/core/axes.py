"""Numbers that are given once for all axes, or one for each axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from glas3d.errors import GlasError


def per_axis(value: float | Sequence[float], ndim: int | None, name: str) -> tuple[float, ...]:
    """Return one positive number for each axis, from one number or one for each axis.

    Infinity is a valid sigma: its mask is 1 everywhere.

    Parameters
    ----------
    value
        One number, or one for each axis.
    ndim
        Number of axes; None: as many as there are values.
    name
        Name of the setting, for the message.

    Raises
    ------
    GlasError
        A value that is not a positive number, or neither 1 nor ``ndim`` values.
    """
    try:
        if isinstance(value, str | bytes):  # whose letters are no numbers
            raise TypeError
        given = value.tolist() if hasattr(value, "tolist") else value
        values = tuple(map(float, given)) if isinstance(given, Iterable) else (float(given),)
    except (TypeError, ValueError):  # text, or a nested list
        raise GlasError(f"{name} must be a number or one number for each axis, got {value!r}") from None
    if not values or any(math.isnan(v) or v <= 0 for v in values):
        raise GlasError(f"{name} must be greater than 0, got {value!r}")
    if len(values) == 1:
        values = values * (ndim or 1)
    if ndim is not None and len(values) != ndim:
        raise GlasError(f"{name} must be one number or {ndim} (one for each axis), got {len(values)}: {value!r}")
    return values
