"""What a reader of a map must know: it is flat, the output is certain, or intensities may be of another scale."""

from __future__ import annotations

import numpy as np

from glas3d.core.explanation import Explanation
from glas3d.predict import ModelInfo, Predictor

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


def note_on_intensities(predict: object, info: ModelInfo, data: np.ndarray) -> list[str]:
    """Return a sentence about a model from a file that gets intensities of which it did not say that it takes them.

    Parameters
    ----------
    predict, info
        The model. One that was made in Python, or states a transform or a preprocessing, is taken at its word.
    data
        ``(c, *spatial)``, what the model gets.
    """
    stated = info.preprocessing or not isinstance(predict, Predictor) or predict.transform is not None
    if stated or not info.from_file:
        return []
    low, high = float(data.min()), float(data.max())
    gets = f"it gets those of the scan, from {low:.4g} to {high:.4g}, unchanged"
    if info.value_range is None:
        return [
            f"the model {info.name} does not state which intensities it takes, and {gets}: if it was trained on "
            "another scale, the results mean nothing"
        ]
    least, most = info.value_range
    tolerance = 0.01 * (most - least)
    if low < least - tolerance or high > most + tolerance:
        return [f"the model {info.name} states that it takes intensities from {least:g} to {most:g}, but {gets}"]
    return []
