"""Audit: whether the map depends on what stands where tissue is removed

Hiller 2025 (doi:10.1007/978-3-658-47422-5_18) showed that the reference can produce almost any explanation: a black one
made the hippocampus evidence against Alzheimer's disease. The scan is explained with several references. One that the
model itself takes for the class cannot show evidence for it (documentation: "Which reference?"): one that the scan
exceeds by less than 1 in log-odds. Of such a reference the probability of the class is given, and it is not compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from scipy.stats import spearmanr

from glas3d.core.account import LEAST_EFFECT
from glas3d.core.explanation import Explanation
from glas3d.core.reference import consensus
from glas3d.counts import counted
from glas3d.errors import GlasError, GlasWarning
from glas3d.evaluate.audits.audit import Audit, Number
from glas3d.evaluate.audits.audited_scan import AuditedScan

FLIPPED = 0.25
"""The largest share of the first 20 regions that may have another sign under another usable reference."""

_TOP = 20


def audit_scan(scan: AuditedScan) -> Audit:
    """Return the audit of the references of the options on one scan."""
    own_name = scan.reference_name
    explanations = {own_name: scan.explanation}
    for background in scan.options.backgrounds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GlasWarning)
            other = scan.with_background(background)
            if other.reference_name not in explanations:
                explanations[other.reference_name] = other.explanation
    if len(explanations) < 2:
        raise GlasError(f"references to compare must be others than that of the scan, got {own_name} alone")
    usable = {name: each for name, each in explanations.items() if each.effect_log_odds >= LEAST_EFFECT}
    labels = {name: f"reference {row} ({name})" for row, name in enumerate(explanations, start=1)}
    alone = {name: each.background_probability for name, each in explanations.items()}
    numbers = [
        Number(f"alone_{row}", alone[name], "probability", f"of the class, of {labels[name]} alone")
        for row, name in enumerate(explanations, start=1)
    ]
    if own_name not in usable:
        return scan.audit(
            "reference",
            "fail",
            f"The scan is not above its reference ({own_name}), to which the model gives a probability of "
            f"{alone[own_name]:z.2f} for the class: it cannot show evidence. Choose another, such as a control mean.",
            numbers,
        )
    flips, compared = _comparison(usable, own_name, labels)
    numbers += compared
    unusable = [name for name in explanations if name not in usable]
    more = f" Not compared, as the model takes it for the class itself: {', '.join(unusable)}." if unusable else ""
    turned = [f"{flips[name]:z.0%} by {name}" for name in flips if flips[name] > FLIPPED]
    if turned:
        statement = (
            f"The sign of the first {_TOP} regions depends on the reference: {', '.join(turned)} turn round.{more} "
            "State the reference with the map, and trust what several agree on (--background with several values)."
        )
        return scan.audit("reference", "warn", statement, numbers)
    if not flips:
        statement = f"No verdict: no other reference can be used.{more} Give others (--backgrounds)."
        return scan.audit("reference", "n/a", statement, numbers)
    statement = (
        f"Of the first {_TOP} regions at most {max(flips.values()):z.0%} have another sign under "
        f"{counted(len(flips), 'other reference')} ({FLIPPED:z.0%} allowed).{more}"
    )
    return scan.audit("reference", "pass", statement, numbers)


def _comparison(
    usable: Mapping[str, Explanation], own_name: str, labels: Mapping[str, str]
) -> tuple[dict[str, float], list[Number]]:
    """Compare the explanation with the scan's own reference with those of the other references that can be used.

    Returns
    -------
    The share of the first regions that change their sign, by the other reference's name, and all numbers; empty where
    there is no other.
    """
    others = {name: each for name, each in usable.items() if name != own_name}
    if not others:
        return {}, []
    own = usable[own_name]
    agreed = consensus({own_name: own, **others})
    direction = {name: np.sign(each.direction) for name, each in usable.items()}
    first = np.argsort(-np.abs(own.score), kind="stable")[:_TOP]
    flips: dict[str, float] = {}
    numbers = []
    for name, lost in zip(others, agreed.flips(_TOP)[0, 1:], strict=True):
        label, row = labels[name], list(labels).index(name) + 1
        flips[name] = float(np.mean(direction[name][first] != direction[own_name][first]))
        rho = float(spearmanr(own.score, others[name].score).statistic)
        numbers += [
            Number(f"flipped_{row}", flips[name], "share", f"of the first {_TOP}, of other sign by {label}"),
            Number(f"lost_{row}", float(lost), "share", f"of the first {_TOP}, not so by {label}"),
            Number(f"rho_{row}", rho, "rho", f"Spearman's correlation of all regions with {label}"),
        ]
    return flips, [
        *numbers,
        Number("agreement", float(np.mean(agreed.agreement == 1)), "share", "of regions on whose sign all agree"),
        Number("flipped_allowed", FLIPPED, "share", "above this the check warns"),
    ]
