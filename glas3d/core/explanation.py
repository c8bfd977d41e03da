"""The settings of an explanation, and what it found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from glas3d.core import saliency
from glas3d.core.axes import per_axis
from glas3d.core.covariates import CovariateScores
from glas3d.core.search import Segments
from glas3d.errors import GlasError

# Of an explanation's settings, those that say how the answers were computed and not what was asked.
COMPUTATION_SETTINGS = ("batch_size", "device", "engine", "engine_version", "engine_notes", "evaluations", "recomputed")


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one volume's spots say about one class.

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
        ``(m,)`` float64, ``f_l * f_s`` or the ablation asked for.
    saliency
        ``(*spatial)`` float32, unnormalised.
    segments
        The segments of an atlas search, else None.
    settings
        How it was made, ready for JSON.
    covariates
        The same scores for the covariates beside the volume, when there are any.
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

    def __repr__(self) -> str:
        where = "segments" if self.segments is not None else "points"
        return (
            f"Explanation(target={self.target}, P={self.probability:.4f}, {len(self.points)} {where} "
            f"on {self.saliency.shape}, highest score {self.score.max():.4g})"
        )


def draw_scores(like: Explanation, score: np.ndarray) -> np.ndarray:
    """The map of other scores ``(m,)`` of an explanation's points, made as its own was."""
    if like.segments is not None:
        return like.segments.paint(score)
    shape, settings = like.saliency.shape, like.settings
    sigma = per_axis(settings["sigma_spatial"], len(shape), "sigma_spatial")
    made: np.ndarray = saliency.spread(
        like.points, score[None], shape, sigma, settings["distance"], spacing=settings["spacing"]
    )[0]
    return made


def class_difference(one: Explanation, other: Explanation) -> Explanation:
    """What speaks for one class over another: the difference of two explanations from the same forwards.

    Light, drop and probability are those of ``P(a) - P(b)``, shadow is the drop's size; score and saliency are the
    differences of the two classes', positive where the evidence is for ``one``.

    Raises
    ------
    GlasError
        The two are not of the same points.
    """
    if not np.array_equal(one.points, other.points):
        raise GlasError(f"a contrast is of two classes at the same points, got {one!r} and {other!r}")
    drop = one.drop - other.drop
    covariates = None
    if (one.covariates is None) != (other.covariates is None):
        raise GlasError("a contrast is of two classes from the same forwards, one of the two has no covariates")
    if one.covariates is not None and other.covariates is not None:
        a, b = one.covariates, other.covariates
        own = a.drop - b.drop
        covariates = CovariateScores(a.names, a.light - b.light, np.abs(own), own, a.score - b.score)
    return replace(
        one,
        probability=one.probability - other.probability,
        light=one.light - other.light,
        shadow=np.abs(drop),
        drop=drop,
        score=one.score - other.score,
        saliency=one.saliency - other.saliency,
        settings=one.settings | {"against": other.target},
        covariates=covariates,
    )
