"""The overlap of round masks with regions, undone by a regression of their evidence on what they cover.

A round mask at a centroid covers parts of its neighbours and misses parts of a long region. If every region has an
evidence of its own, spread over its voxels, both ends of a mask are the sum over regions of that evidence times the
share of the region that the mask covers. The regions' evidence is what fits both ends of all masks best.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from glas3d.core.explanation import Explanation, draw_scores
from glas3d.errors import GlasError
from glas3d.explain.options import Overlap

# Penalties that the ridge regression chooses from, relative to the mean square of what masks cover.
_PENALTIES = np.logspace(-4, 2, 25)


def corrected(explanation: Explanation, overlaps: Mapping[str, np.ndarray], overlap: Overlap) -> Explanation:
    """Return an explanation whose evidence is that of the regions, not that of the masks.

    Parameters
    ----------
    explanation
        An explanation of segments with evidence as its score.
    overlaps
        For ``"light"`` and ``"shadow"``, ``(m, m)``: the share of each region (column) that each mask (row) covers.
    overlap
        ``"ridge"``: ridge regression, its penalty chosen by leave-one-out; ``"nonnegative"``: non-negative least
        squares, for evidence that is for the class alone.

    Raises
    ------
    GlasError
        An explanation without evidence, or of points.
    """
    segments = explanation.segments
    if segments is None or explanation.evidence is None:
        raise GlasError("overlap is undone between regions that have evidence: search an atlas, with both ends")
    covered = np.vstack([overlaps["light"], overlaps["shadow"]])
    ends = np.concatenate([explanation.light - explanation.bare, explanation.drop])
    if overlap == "nonnegative":
        from scipy.optimize import nnls

        evidence = nnls(covered, ends)[0]
    else:
        from sklearn.linear_model import RidgeCV

        penalties = _PENALTIES * float((covered**2).mean())
        evidence = RidgeCV(penalties, fit_intercept=False).fit(covered, ends).coef_
    density = evidence / segments.n_voxels
    score = density if explanation.settings["density"] else evidence
    return replace(
        explanation,
        evidence=evidence,
        density=density,
        score=score,
        saliency=draw_scores(explanation, score),
        covers={},  # the evidence is no longer the masks'
        settings=explanation.settings | {"overlap": overlap},
    )
