"""Scales: the same question with smaller and larger spots, and for each point the scale that answers it best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from glas3d.core.axes import per_axis
from glas3d.core.explanation import Explanation, draw_scores
from glas3d.core.glas import GLAS
from glas3d.errors import GlasError

_ROUNDING = 1e-7  # of float32: relative differences below this say nothing
_SHARPNESS = 4  # anything from 3 to 12 measures about the same


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
    weight
        How much each of them counts in the fused score, in that order; they sum to 1.
    scale
        ``(m,)`` each point's own: where its score stands out most among the points of that scale.
    best
        The scale that counts most: the scan's own.
    explanation
        All scales together: ``score`` is in standard deviations above the average point, negative below it, and the
        map is made of it; light, shadow and drop are those of each point's own scale.
    """

    explanations: Mapping[float, Explanation]
    weight: np.ndarray
    scale: np.ndarray
    best: float
    explanation: Explanation


def fuse_scales(explanations: Mapping[float, Explanation]) -> Scales:
    """One explanation from a ladder of scales, and a scale for every point.

    Raw scores cannot be compared over scales, since a larger spot always lets more through; standard scores, ``(v -
    mean) / standard deviation`` over the points of one scale, can.

    - The fused score is the mean over scales of the standard scores of ``log f``, each weighted by the fourth power of
      its highest one: scales at which some place stands out clearly count, those that are too small to change an answer
      or too large to tell places apart do not. One scale alone gives its own standard scores, in the order of ``f``.
    - A point's own scale is that of the largest standard score of ``f`` itself, which follows the size of what is
      there; of equal ones the smallest.

    Scores of no more than a ten-millionth of the highest count as that: they are rounding. docs/scale.md has the
    measurements.

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
    rounding = max(_ROUNDING * float(scores.max()), float(np.finfo(np.float64).tiny))
    standard = _standard(np.log(np.maximum(scores, rounding)), _ROUNDING)
    clarity = standard.max(axis=1)
    weight = (clarity / clarity.max()) ** _SHARPNESS if clarity.max() > 0 else np.ones(len(found))
    weight /= weight.sum()
    score = weight @ standard
    own = _standard(scores, rounding).argmax(axis=0)
    points = np.arange(scores.shape[1])

    def chosen(name: str) -> np.ndarray:
        return np.asarray(np.stack([getattr(one, name) for one in found])[own, points])

    explanation = replace(
        first,
        light=chosen("light"),
        shadow=chosen("shadow"),
        drop=chosen("drop"),
        score=score,
        saliency=draw_scores(first, score),
        settings=first.settings
        | {
            "scales": list(ordered),
            "sigma_light": [one.settings["sigma_light"] for one in found],
            "sigma_shadow": [one.settings["sigma_shadow"] for one in found],
            "evaluations": sum(one.settings["evaluations"] for one in found),
        },
    )
    factors = np.array(list(ordered))
    return Scales(ordered, weight, factors[own], float(factors[weight.argmax()]), explanation)


def _standard(values: np.ndarray, least: float) -> np.ndarray:
    """Standard scores of each row; zeros where its deviation is not above ``least``."""
    deviation = values.std(axis=1, keepdims=True)
    centred = values - values.mean(axis=1, keepdims=True)
    return np.where(deviation > least, centred / np.maximum(deviation, least), 0.0)
