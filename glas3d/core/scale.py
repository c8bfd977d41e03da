"""Scales: the same question with smaller and larger spots, and for each point the scale that answers it best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from glas3d.core import saliency
from glas3d.core.explanation import Explanation, drawn
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


@dataclass(frozen=True, eq=False)
class Scales:
    """What several scales say about the same ``m`` points.

    Attributes
    ----------
    explanations
        Of each scale, whole, the smallest first.
    scale
        ``(m,)`` each point's own: where its score stands out most among the points of that scale.
    best
        The scale of the point that stands out most of all: the scan's own.
    explanation
        All scales together: ``score`` is the mean of the scales' scores, each min-max normalised over its points, and
        the map is made of it; light, shadow and drop are those of each point's own scale.
    """

    explanations: Mapping[float, Explanation]
    scale: np.ndarray
    best: float
    explanation: Explanation


def adaptive(explanations: Mapping[float, Explanation]) -> Scales:
    """One explanation from a ladder of scales, and a scale for every point.

    Raw scores cannot be compared over scales, since a larger spot always lets more through. A point's scale is that of
    its largest standard score, ``(f - mean) / standard deviation`` over the points of one scale; of equal ones the
    smallest. The fused score does not stake all on that choice: it is the mean over scales of scores min-max
    normalised within each. docs/scale.md has the measurements behind both.

    Raises
    ------
    GlasError
        No explanation, or explanations of different classes or points.
    """
    if not explanations:
        raise GlasError("there must be at least one scale, got none")
    ordered = dict(sorted(explanations.items()))
    found = list(ordered.values())
    first = found[0]
    for one in found:
        if one.target != first.target or not np.array_equal(one.points, first.points):
            raise GlasError(f"scales must be of the same class and points, got {first!r} and {one!r}")
        if one.covariates is not None:
            raise GlasError("scales are of spots, and covariates have none: explain them without a ladder")
    scores = np.stack([one.score for one in found])
    deviation = scores.std(axis=1, keepdims=True)
    standard = (scores - scores.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1.0)
    own = standard.argmax(axis=0)
    points = np.arange(scores.shape[1])
    score = np.mean([saliency.minmax(row) for row in scores], axis=0)

    def chosen(name: str) -> np.ndarray:
        return np.asarray(np.stack([getattr(one, name) for one in found])[own, points])

    explanation = replace(
        first,
        light=chosen("light"),
        shadow=chosen("shadow"),
        drop=chosen("drop"),
        score=score,
        saliency=drawn(first, score),
        settings=first.settings
        | {
            "scales": list(ordered),
            "sigma_light": [one.settings["sigma_light"] for one in found],
            "sigma_shadow": [one.settings["sigma_shadow"] for one in found],
            "forwards": sum(one.settings["forwards"] for one in found),
        },
    )
    factors = np.array(list(ordered))
    best = float(factors[np.unravel_index(standard.argmax(), standard.shape)[0]])
    return Scales(ordered, factors[own], best, explanation)
