"""How much of a model's output the evidence of regions accounts for.

See documentation: "How much the regions account for".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST_EFFECT = 1.0
"""Log-odds by which the intact volume must differ from the background: else there is nothing to account for."""


@dataclass(frozen=True, eq=False)
class Account:
    """The evidence of all regions and covariates, and the effect that it is a share of.

    Attributes
    ----------
    evidence
        ``(n,)``, of every point and covariate.
    effect
        Output of the intact volume minus that of the background alone.
    log_odds
        The same in log-odds; infinite for outputs that are no probabilities, such as a regressor's.
    partition
        Whether the evidence comes straight from one set of masks that at both ends nearly partition the searched
        voxels, so that it adds up. That of a regression does not, nor that of several scales.
    """

    evidence: np.ndarray
    effect: float
    log_odds: float
    partition: bool

    @classmethod
    def joined(cls, records: Sequence[Mapping[str, Any]], evidence: np.ndarray) -> Account:
        """Return the account of several models, sessions or participants: a sum of evidence over a sum of effects.

        Parameters
        ----------
        records
            What `record` returned for each of them.
        evidence
            Their mean evidence of each region, ``(n,)``.
        """
        log_odds = [np.inf if each["effect_log_odds"] is None else each["effect_log_odds"] for each in records]
        effect = float(np.mean([each["effect"] for each in records]))
        return cls(evidence, effect, float(np.mean(log_odds)), all(each["partition"] for each in records))

    @property
    def is_known(self) -> bool:
        """Whether evidence adds up to an effect that is not too small to tell."""
        return self.partition and abs(self.log_odds) >= LEAST_EFFECT

    @property
    def accounted(self) -> float:
        """The sum of all evidence over the effect; NaN where that says nothing."""
        return float(self.evidence.sum() / self.effect) if self.is_known else float("nan")

    @property
    def largest(self) -> float:
        """The largest share of the effect that one region has as evidence; NaN as for ``accounted``."""
        return float((self.evidence / self.effect).max()) if self.is_known else float("nan")

    def record(self) -> dict[str, Any]:
        """Return all but the single regions' evidence, ready for JSON; None where a number is not known."""
        return {
            "accounted": self.accounted if self.is_known else None,
            "largest": self.largest if self.is_known else None,
            "effect": self.effect,
            "effect_log_odds": self.log_odds if np.isfinite(self.log_odds) else None,
            "partition": self.partition,
        }


def effect_in_log_odds(output: float, effect: float, link: str) -> float:
    """Return an effect in log-odds: itself, or that of the probabilities it is the difference of.

    Parameters
    ----------
    output, effect
        Output of the intact volume, and how far that is above the background's.
    link
        Their scale, ``"probability"`` or ``"logit"``.

    Returns
    -------
    Infinity for outputs that are no probabilities but differ.
    """
    ends = np.array([output, output - effect])
    if link == "logit" or np.isnan(ends).any():
        return effect
    if ends[0] == ends[1]:
        return 0.0
    if ends.min() < 0 or ends.max() > 1:
        return float("inf")
    with np.errstate(divide="ignore"):
        odds = np.log(ends) - np.log1p(-ends)
    return float(odds[0] - odds[1])
