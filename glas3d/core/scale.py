"""Scales: the same question with smaller and larger spots, and for each point the scale that answers it best."""

from __future__ import annotations

from collections.abc import Sequence

from glas3d.core.glas import GLAS
from glas3d.core.volume import per_axis
from glas3d.errors import GlasError


def ladder(glas: GLAS, scales: Sequence[float]) -> dict[float, GLAS]:
    """One explainer a scale, both sigmas of the light and the shadow multiplied by it.

    Raises
    ------
    GlasError
        Scales that are not positive, or one twice.
    """
    factors = per_axis(scales, None, "scales")
    if len(set(factors)) != len(factors):
        raise GlasError(f"every scale must be there once, got {tuple(factors)}")
    settings = glas.settings

    def times(sigma: float | tuple[float, ...], factor: float) -> tuple[float, ...]:
        return tuple(s * factor for s in per_axis(sigma, None, "sigma"))

    return {
        factor: glas.replace(
            sigma_light=times(settings.sigma_light, factor), sigma_shadow=times(settings.sigma_shadow, factor)
        )
        for factor in factors
    }
