"""Audit: do the scores of regions follow their volume?

After arXiv 2407.08546: Pearson's correlation of the regions' scores and volumes for each participant, an interval by a
bootstrap over participants, and a null that permutes the volumes among the regions.
"""

from __future__ import annotations

import numpy as np

from glas3d.evaluate.audits.audit import Audit, Number
from glas3d.evaluate.audits.audited_study import AuditedStudy

FOLLOWS = 0.5
"""The size of the mean correlation from which on scores are said to follow the volume."""

_DRAWS = 1000


def audit_study(study: AuditedStudy) -> Audit:
    """Return the audit of a study, from its tables of regions."""
    volumes = study.volumes
    if volumes is None or np.ptp(volumes) == 0:
        return study.audit("volume", "n/a", "No verdict: points, or regions of one size, have no volumes to follow.")
    each = correlations(study.scores.to_numpy(), volumes)
    known = each[np.isfinite(each)]
    if not len(known):
        return study.audit("volume", "n/a", "No verdict: all maps are flat.")
    mean = float(known.mean())
    rng = np.random.default_rng(study.options.seed)
    drawn = known[rng.integers(len(known), size=(_DRAWS, len(known)))].mean(axis=1)
    low, high = (float(v) for v in np.percentile(drawn, [2.5, 97.5]))
    scores = study.scores.to_numpy()[np.isfinite(each)]
    null = np.array([correlations(scores, rng.permutation(volumes)).mean() for _ in range(_DRAWS)])
    limit = float(np.percentile(np.abs(null), 95))
    numbers = [
        Number("correlation", mean, "r", "mean over participants, of the scores and volumes of regions"),
        Number("low", low, "r", "lower end of its 95 % interval (bootstrap over participants)"),
        Number("high", high, "r", "upper end of its 95 % interval"),
        Number("null", limit, "r", "95th percentile of its size when volumes are permuted among regions"),
        Number("participants", len(known), "count", "participants whose maps are not flat"),
        Number("follows_from", FOLLOWS, "r", "from this size on the check warns, if it is above the null too"),
    ]
    opening = f"Scores and volumes of regions correlate {mean:z.2f} (95 % interval {low:z.2f} to {high:z.2f})"
    if abs(mean) > max(limit, FOLLOWS):
        return study.audit(
            "volume",
            "warn",
            f"{opening}: the ranking follows the size of regions. Rank by density too (--density, the column density).",
            numbers,
        )
    beyond = "more than by chance, but weakly" if abs(mean) > limit else "no more than by chance"
    return study.audit("volume", "pass", f"{opening}, {beyond}.", numbers)


def correlations(scores: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of each row ``(n, m)`` with volumes ``(m,)``, ``(n,)``; NaN for a flat row."""
    centred, other = scores - scores.mean(axis=1, keepdims=True), volumes - volumes.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(centred @ other / (np.linalg.norm(centred, axis=1) * np.linalg.norm(other)))
