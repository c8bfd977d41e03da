"""What a reader of a map must know: that it is flat, that the model's output is certain, or that nothing is for it."""

from __future__ import annotations

import numpy as np

from glas3d.core.explanation import Explanation

# Scores that differ by less, relative to the largest, are equal: they are sums of float32 outputs.
_EQUAL = 1e-12
_FEW = 10  # points, below which few different values say nothing
_CERTAIN = 0.999  # probability from which float32 may hide what a region adds


def notes_on(explanation: Explanation, *, against: bool = False) -> list[str]:
    """Return sentences about an explanation that must not be overlooked; none for most.

    Parameters
    ----------
    explanation
        The result of `GLAS` for one class.
    against
        Whether it compares the class with another.
    """
    score, drop = explanation.score, explanation.drop
    n = len(score)
    if n < 2:
        return []
    if np.ptp(score) <= _EQUAL * np.abs(score).max():
        return [f"the map is flat: all {n} scores are the same, so no region stands out and ranks have no meaning"]
    if against and score.max() <= 0:
        return ["nothing speaks for the target over the other class: no score is above 0"]
    largest, gamma = float(np.abs(drop).max()), float(explanation.settings.get("gamma", 0.0))
    distinct = len(np.unique(drop))
    certain = explanation.probability > _CERTAIN and n >= _FEW and distinct <= n // 2
    if certain or largest <= gamma:
        return [
            f"the output is saturated (P = {explanation.probability:.6g}): removing any region changes it by at most "
            f"{largest:.1e}, and {n} regions have {distinct} different drops; the ranks show light only and are no "
            "evidence from shadow"
        ]
    return []
