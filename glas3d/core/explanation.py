"""The explanation of one volume for one class, and the difference of two."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from glas3d.core import saliency
from glas3d.core.axes import per_axis
from glas3d.core.covariates import CovariateScores
from glas3d.core.search import Segments
from glas3d.errors import GlasError

# Of an explanation's settings, those that say how its probabilities were computed, and not which they are: two
# explanations may differ in these and still be compared.
COMPUTATION_SETTINGS = (
    "batch_size",
    "one_by_one",
    "device",
    "engine",
    "engine_version",
    "engine_threads",
    "engine_notes",
    "evaluations",
    "recomputed",
)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Light, shadow and score of every point of one volume for one class, and the map made of the scores.

    Attributes
    ----------
    target
        Index of the explained class.
    probability
        ``P(y|I)`` of the intact volume.
    points
        ``(m, ndim)`` float64 voxel coordinates.
    light
        ``(m,)`` float64, ``f_l`` (Eq. 1).
    shadow
        ``(m,)`` float64, ``f_s`` (Eq. 2), its ``gamma`` included.
    drop
        ``(m,)`` float64, the signed ``P(y|I) - P(y|shadowed)``: negative where shading raised ``P``.
    score
        ``(m,)`` float64, ``f_l * f_s``, or the one of them that ``fusion`` chose.
    saliency
        ``(*spatial)`` float32, unnormalised.
    segments
        The segments of an atlas search, else None.
    settings
        The settings it was made with and how it was computed, ready for JSON.
    covariates
        The same scores for the covariates, when the model takes some.
    outputs
        ``(k,)`` float64, the model's outputs for all classes of the intact volume; None: not known.
    """

    target: int
    probability: float
    points: np.ndarray
    light: np.ndarray
    shadow: np.ndarray
    drop: np.ndarray
    score: np.ndarray
    saliency: np.ndarray
    segments: Segments | None
    settings: dict[str, Any]
    covariates: CovariateScores | None = None
    outputs: np.ndarray | None = None

    def __repr__(self) -> str:
        where = "segments" if self.segments is not None else "points"
        return (
            f"Explanation(target={self.target}, P={self.probability:.4f}, {len(self.points)} {where} "
            f"on {self.saliency.shape}, highest score {self.score.max():.4g})"
        )


def draw_scores(explanation: Explanation, score: np.ndarray) -> np.ndarray:
    """Return the map of other scores ``(m,)`` of an explanation's points, made as its own map was.

    Returns
    -------
    ``(*spatial)`` float32, unnormalised.
    """
    if explanation.segments is not None:
        return explanation.segments.paint(score)
    shape, settings = explanation.saliency.shape, explanation.settings
    sigma = per_axis(settings["sigma_spatial"], len(shape), "sigma_spatial")
    maps = saliency.spread(
        explanation.points, score[None], shape, sigma, settings["distance"], spacing=settings["spacing"]
    )
    drawn: np.ndarray = maps[0]
    return drawn


def class_difference(explanation: Explanation, other: Explanation) -> Explanation:
    """Return the evidence for one class over another: the difference of two explanations of the same evaluations.

    Light, drop and probability are those of ``P(a) - P(b)``, shadow is the size of the drop; score and saliency are the
    differences of the two classes' own, positive where the evidence is for the first.

    Parameters
    ----------
    explanation, other
        Explanations of the two classes, from one call of `GLAS.explain`.

    Raises
    ------
    GlasError
        The two have different points, or only one has covariates.
    """
    if not np.array_equal(explanation.points, other.points):
        raise GlasError(
            f"a difference of two classes needs the same points for both, got {explanation!r} and {other!r}"
        )
    if (explanation.covariates is None) != (other.covariates is None):
        raise GlasError("a difference of two classes needs covariates for both or none, got them for one")
    drop = explanation.drop - other.drop
    covariates = None
    if explanation.covariates is not None and other.covariates is not None:
        a, b = explanation.covariates, other.covariates
        own_drop = a.drop - b.drop
        covariates = CovariateScores(a.names, a.light - b.light, np.abs(own_drop), own_drop, a.score - b.score)
    return replace(
        explanation,
        probability=explanation.probability - other.probability,
        light=explanation.light - other.light,
        shadow=np.abs(drop),
        drop=drop,
        score=explanation.score - other.score,
        saliency=explanation.saliency - other.saliency,
        settings=explanation.settings | {"against": other.target},
        covariates=covariates,
    )
