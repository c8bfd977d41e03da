"""Do the values of regions follow what the regions truly do to the model?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import pearsonr, spearmanr

from glas3d.errors import GlasError
from glas3d.evaluate.metrics.paired import paired


@dataclass(frozen=True)
class EffectCorrelation:
    """The correlation of the values of regions with their true effects.

    Attributes
    ----------
    pearson
        Over all regions; NaN where all values are the same.
    spearman
        Of the ranks of the regions that have an effect; NaN with fewer than three of them or where all values are the
        same.
    n_regions, n_with_effect
        The number of regions, and of those with an effect.
    """

    pearson: float
    spearman: float
    n_regions: int
    n_with_effect: int


def effect_correlation(values: Any, effects: Any, *, score: str = "score", effect: str = "effect") -> EffectCorrelation:
    """Correlate the values of regions with their true effects: Pearson over all, Spearman over those with an effect.

    Parameters
    ----------
    values, effects
        Two arrays ``(m,)`` or two tables, see `glas3d.evaluate.metrics.paired`; the effects are those that
        `glas3d.evaluate.true_effects` measures: 0 for a region without disease.
    score, effect
        The columns of tables.

    Raises
    ------
    GlasError
        The two do not fit, there are fewer than two regions, or no effect or the same one everywhere.

    Examples
    --------
    >>> effect_correlation([0.0, 0.1, 2.0, 1.0, 3.0], [0, 0, 2, 1, 4]).spearman
    1.0
    """
    pair = paired(values, effects, score=score, effect=effect)
    scores, true = pair.values.ravel(), pair.truth.ravel()
    with_effect = true != 0
    if not with_effect.any():
        raise GlasError(f"true effects must hold one that is not 0, all of {true.size} are 0")
    if np.ptp(true) == 0:
        raise GlasError(f"a correlation needs effects that differ, all of {true.size} are {true[0]:g}")
    nan = float("nan")
    ranked = with_effect.sum() >= 3 and np.ptp(scores[with_effect]) > 0 and np.ptp(true[with_effect]) > 0
    return EffectCorrelation(
        float(pearsonr(scores, true).statistic) if np.ptp(scores) > 0 else nan,
        float(spearmanr(scores[with_effect], true[with_effect]).statistic) if ranked else nan,
        int(true.size),
        int(with_effect.sum()),
    )
