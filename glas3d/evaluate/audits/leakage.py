"""Audit: were participants explained by models that were trained on them, and what does that change?

After Wen et al. 2020 (arXiv 1904.07773): a model's output for scans that it was trained on says nothing about new ones.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import spearmanr

from glas3d.counts import counted
from glas3d.evaluate.audits.audit import Audit, Number
from glas3d.evaluate.audits.audited_study import AuditedStudy


def audit_study(study: AuditedStudy) -> Audit:
    """Return the audit of a study, compared with an in-sample run of it where the options name one."""
    states = [record.content.get("InSample", "unknown") for record in study.records]
    scans = counted(len(states), "scan")
    inside, unknown = states.count(True), states.count("unknown")
    numbers = [
        Number("scans", len(states), "count", "scans explained"),
        Number("in_sample", inside, "count", "of them by a model that was trained on the participant"),
        Number("unknown", unknown, "count", "of them by a model that does not record its participants"),
    ]
    compared = ""
    other = study.in_sample_run()
    if other is not None:
        shared = sorted(set(study.scores.index) & set(other.scores.index))
        rho = [float(spearmanr(study.scores.loc[one], other.scores.loc[one]).statistic) for one in shared]
        means = spearmanr(study.scores.loc[shared].mean(), other.scores.loc[shared].mean()).statistic
        gap = float(np.mean([other.probabilities[one] - study.probabilities[one] for one in shared]))
        numbers += [
            Number("compared", len(shared), "count", "participants of both runs"),
            Number("rho", float(np.nanmean(rho)), "rho", "mean correlation of a participant's two maps"),
            Number("rho_of_means", float(means), "rho", "correlation of the mean maps, in sample and not"),
            Number("probability_gap", gap, "probability", "mean probability in sample minus out of fold"),
        ]
        compared = (
            f" In sample, a participant's map correlates {np.nanmean(rho):z.2f} with the one here and the mean map "
            f"{means:z.2f}; the probability differs by {gap:+z.2f}."
        )
    if inside:
        return study.audit(
            "leakage",
            "fail",
            f"In sample: a model that was trained on the participant explained {inside} of {scans}.{compared} Explain "
            "out of fold, with the folder of folds that glas3d train wrote.",
            numbers,
        )
    if unknown:
        return study.audit(
            "leakage",
            "n/a",
            f"No verdict: it is not recorded which participants trained the model of {unknown} of {scans}.{compared}",
            numbers,
        )
    return study.audit(
        "leakage", "pass", f"Out of fold: no model of {scans} was trained on the participant.{compared}", numbers
    )
