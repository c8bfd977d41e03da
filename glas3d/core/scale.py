"""Scales: explanations with smaller and larger masks, joined, and for each point the scale at which it stands out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from glas3d.core.axes import per_axis
from glas3d.core.explanation import Explanation, class_and_points, draw_scores
from glas3d.core.glas import GLAS
from glas3d.errors import GlasError

_ROUNDING = 1e-7  # of float32: smaller relative differences carry no information
_SHARPNESS = 4  # powers from 3 to 12 measure about the same


def ladder(glas: GLAS, scales: Sequence[float]) -> dict[float, GLAS]:
    """Return one explainer for each scale: the sigmas of light and shadow multiplied by it.

    Parameters
    ----------
    glas
        Explains at scale 1.
    scales
        Factors on the sigmas.

    Returns
    -------
    Explainers by their scales.

    Raises
    ------
    GlasError
        Scales that are not positive, or the same scale twice.
    """
    factors = per_axis(scales, None, "scales")
    if len(set(factors)) != len(factors):
        raise GlasError(f"every scale must be given once, got {tuple(factors)}")
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
    """The explanations of the same ``m`` points at several scales, and one explanation made of them.

    Attributes
    ----------
    explanations
        The whole explanation at each scale, the smallest scale first.
    weight
        How much each scale counts in the fused score, in that order; the weights sum to 1.
    scale
        ``(m,)`` each point's own scale: that at which its score stands out most among the points.
    best
        The scale that counts most: the scan's own.
    explanation
        All scales together: ``score`` is in standard deviations above the average point, negative below it, and the
        map is made of it; light, shadow, drop, evidence and density are those of each point's own scale.
    """

    explanations: Mapping[float, Explanation]
    weight: np.ndarray
    scale: np.ndarray
    best: float
    explanation: Explanation


def fuse_scales(explanations: Mapping[float, Explanation]) -> Scales:
    """Fuse the explanations of a ladder of scales into one, and choose a scale for every point.

    Raw scores cannot be compared between scales, since a larger mask always lets more through; standard scores,
    ``(v - mean) / standard deviation`` over the points of one scale, can.

    - The fused score is the mean over scales of the standard scores of ``log f``, each scale weighted by the fourth
      power of its highest one: scales at which some point stands out clearly count; scales that are too small to change
      the probability, or too large to tell points apart, do not. One scale alone gives its own standard scores, in the
      order of ``f``.
    - Signed scores (evidence, or light in log-odds) have no logarithm: their own standard scores are fused.
    - A point's own scale is that of the largest standard score of ``f`` itself, which follows the size of the evidence;
      of equal ones the smallest.

    Scores below a ten-millionth of the highest score are rounding and count as that share of it
    (documentation: "Which sigma?").

    Parameters
    ----------
    explanations
        Explanations by their scales.

    Raises
    ------
    GlasError
        No explanation, explanations of different classes or points, or of a model that takes covariates.
    """
    if not explanations:
        raise GlasError("there must be at least one scale, got none")
    ordered = dict(sorted(explanations.items()))
    factors, parts = np.array(list(ordered)), list(ordered.values())
    first = parts[0]
    for part in parts:
        if part.target != first.target or not np.array_equal(part.points, first.points):
            raise GlasError(
                "scales must be of the same class and points, "
                f"got {class_and_points(first)} and {class_and_points(part)}"
            )
        if part.covariates is not None:
            raise GlasError("scales are of masks, and covariates have none: explain them without a ladder")
    scores = np.stack([part.score for part in parts])
    rounding = max(_ROUNDING * float(np.abs(scores).max()), float(np.finfo(np.float64).tiny))
    signed = first.settings.get("fusion") == "mean" or first.settings.get("link") == "logit"
    standard = _standard(scores, rounding) if signed else _standard(np.log(np.maximum(scores, rounding)), _ROUNDING)
    clarity = standard.max(axis=1)
    weight = (clarity / clarity.max()) ** _SHARPNESS if clarity.max() > 0 else np.ones(len(parts))
    weight /= weight.sum()
    score = weight @ standard
    own_scale = _standard(scores, rounding).argmax(axis=0)
    points = np.arange(scores.shape[1])

    def at_own_scale(name: str) -> np.ndarray:
        return np.asarray(np.stack([getattr(part, name) for part in parts])[own_scale, points])

    explanation = replace(
        first,
        light=at_own_scale("light"),
        shadow=at_own_scale("shadow"),
        drop=at_own_scale("drop"),
        score=score,
        evidence=None if first.evidence is None else at_own_scale("evidence"),
        density=None if first.density is None else at_own_scale("density"),
        covers={},
        saliency=draw_scores(first, score),
        settings=first.settings
        | {
            "scales": list(ordered),
            "sigma_light": [part.settings["sigma_light"] for part in parts],
            "sigma_shadow": [part.settings["sigma_shadow"] for part in parts],
            "evaluations": sum(part.settings["evaluations"] for part in parts),
        },
    )
    return Scales(ordered, weight, factors[own_scale], float(factors[weight.argmax()]), explanation)


def _standard(values: np.ndarray, least: float) -> np.ndarray:
    """Return the standard scores of each row; zeros where its deviation is not above ``least``."""
    deviation = values.std(axis=1, keepdims=True)
    centred = values - values.mean(axis=1, keepdims=True)
    return np.where(deviation > least, centred / np.maximum(deviation, least), 0.0)
