"""Audit: do models of other folds and seeds give the same map?

After Thibeau-Sutre et al. 2020 (arXiv 1911.08264) and Eitel & Ritter 2019 (arXiv 1909.08856): Spearman's correlation of
all regions and the Jaccard index of the highest, pair by pair (`glas3d.statistics.run_stability`).
"""

from __future__ import annotations

import pandas as pd
from scipy.stats import norm

from glas3d.evaluate.audits.audit import Audit, Number, Verdict
from glas3d.evaluate.audits.audited_study import AuditedStudy
from glas3d.statistics.stability import Stability, run_stability

ALIKE = 0.5
"""The mean Spearman correlation of two runs from which on their maps are called alike."""

_UNRELATED = 0.99  # quantile of the correlation of unrelated maps


def audit_study(study: AuditedStudy) -> Audit:
    """Return the audit of the folds of a study, and of other runs of it where the options name some."""
    numbers: list[Number] = []
    means: dict[str, float] = {}
    m = study.scores.shape[1]
    for kind, runs in (("folds", study.fold_means()), ("runs", _run_means(study))):
        if len(runs) < 2:
            continue
        k = min(study.options.top, m - 1)
        stability = run_stability(runs, k)
        means[kind] = float(stability.summary["mean"].iloc[0])
        numbers += _numbers(kind, stability, k)
    if not means:
        return study.audit(
            "retrain",
            "n/a",
            "No verdict: the study has one model; name folders of runs with models of other seeds (--runs).",
        )
    unrelated = float(norm.ppf(_UNRELATED) / (m - 1) ** 0.5)
    numbers += [
        Number("alike_from", ALIKE, "rho", "below this the check warns"),
        Number("unrelated", unrelated, "rho", "99th percentile of unrelated maps; at or below it the check fails"),
    ]
    least = min(means.values())
    listed = " and ".join(f"{value:z.2f} over {kind}" for kind, value in means.items())
    verdict: Verdict = "fail" if least <= unrelated else "warn" if least < ALIKE else "pass"
    follows = {
        "pass": "The maps of models trained anew are alike",
        "warn": "The maps of models trained anew differ: report their mean, not one of them",
        "fail": "The maps of models trained anew are no more alike than unrelated maps: none of them is a finding",
    }[verdict]
    return study.audit("retrain", verdict, f"{follows} (mean rho {listed}).", numbers)


def _run_means(study: AuditedStudy) -> pd.DataFrame:
    """Return the mean map of this and of each other run over the participants that all have, a row a run."""
    runs = {study.out.name: study.scores} | {f"{each.out.name} ({i})": each.scores for i, each in study.others()}
    shared = sorted(set.intersection(*(set(values.index) for values in runs.values())))
    return pd.DataFrame({name: values.loc[shared].mean() for name, values in runs.items()}).T


def _numbers(kind: str, stability: Stability, k: int) -> list[Number]:
    rho, jaccard = (row for _, row in stability.summary.iterrows())
    return [
        Number(f"{kind}", float(rho["n_runs"]), "count", f"number of {kind} compared"),
        Number(f"{kind}_spearman", float(rho["mean"]), "rho", f"mean over pairs of {kind}, all regions"),
        Number(f"{kind}_spearman_low", float(rho["low"]), "rho", "lower end of its 95 % interval (jackknife)"),
        Number(f"{kind}_jaccard", float(jaccard["mean"]), "index", f"mean Jaccard index of the {k} highest regions"),
    ]
