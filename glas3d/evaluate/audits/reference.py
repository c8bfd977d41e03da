"""Audit: whether the map depends on what stands where tissue is removed

Hiller 2025 (doi:10.1007/978-3-658-47422-5_18) showed that the reference can produce almost any explanation: a black one
made the hippocampus evidence against Alzheimer's disease. The scan is explained with several references. One that the
model itself takes for the class cannot show evidence for it (documentation: "Which reference?") and is not compared:
one that the scan exceeds by less than 1 in log-odds.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy.stats import spearmanr

from glas3d.core.account import effect_in_log_odds
from glas3d.core.reference import consensus
from glas3d.errors import GlasError, GlasWarning
from glas3d.evaluate.audits.audit import Audit, Number
from glas3d.evaluate.audits.audited_scan import LEAST_EFFECT, AuditedScan

FLIPPED = 0.25
"""The largest share of the first 20 regions that may have another sign under another usable reference."""

_TOP = 20


def audit_scan(scan: AuditedScan) -> Audit:
    """Return the audit of the references of the options on one scan."""
    own_name = scan.subject.request.maps.record["Settings"]["background"]
    explanations = {own_name: scan.explanation}
    for background in scan.options.backgrounds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GlasWarning)
            other = scan.with_background(background)
            name = other.request.maps.record["Settings"]["background"]
            if name not in explanations:
                explanations[name] = other.explain({}, "evidence")
    if len(explanations) < 2:
        raise GlasError(f"references to compare must be others than that of the scan, got {own_name} alone")
    agreed = consensus(explanations)
    alone = {name: _probability_of_reference(scan, each.output - each.effect) for name, each in explanations.items()}
    effects = {
        name: effect_in_log_odds(each.output, each.effect, scan.value.link) for name, each in explanations.items()
    }
    usable = [name for name, effect in effects.items() if effect >= LEAST_EFFECT]
    direction = {name: np.sign(each.direction) for name, each in explanations.items()}
    first = np.argsort(-np.abs(scan.explanation.score), kind="stable")[:_TOP]
    numbers = []
    flips: dict[str, float] = {}
    lost = agreed.flips(_TOP)[0]
    for row, (name, each) in enumerate(explanations.items()):
        label = f"reference {row + 1} ({name})"
        numbers.append(Number(f"alone_{row + 1}", alone[name], "probability", f"of the class, of {label} alone"))
        if row == 0:
            continue
        flips[name] = float(np.mean(direction[name][first] != direction[own_name][first]))
        rho = float(spearmanr(scan.explanation.score, each.score).statistic)
        numbers += [
            Number(f"flipped_{row + 1}", flips[name], "share", f"of the first {_TOP}, of other sign by {label}"),
            Number(f"lost_{row + 1}", float(lost[row]), "share", f"of the first {_TOP}, not so by {label}"),
            Number(f"rho_{row + 1}", rho, "rho", f"Spearman's correlation of all regions with {label}"),
        ]
    numbers += [
        Number("agreement", float(np.mean(agreed.agreement == 1)), "share", "of regions on whose sign all agree"),
        Number("flipped_allowed", FLIPPED, "share", "above this the check warns"),
    ]
    if own_name not in usable:
        return scan.audit(
            "reference",
            "fail",
            f"The scan is not above its reference ({own_name}), to which the model gives a probability of "
            f"{alone[own_name]:.2f} for the class: it cannot show evidence. Choose another, such as a control mean.",
            numbers,
        )
    unusable = [name for name in explanations if name not in usable]
    more = f" Not compared, as the model takes it for the class itself: {', '.join(unusable)}." if unusable else ""
    turned = [f"{flips[name]:.0%} by {name}" for name in usable if name != own_name and flips[name] > FLIPPED]
    if turned:
        statement = (
            f"The sign of the first {_TOP} regions depends on the reference: {', '.join(turned)} turn round.{more} "
            "State the reference with the map, and trust what several agree on (--background with several values)."
        )
        return scan.audit("reference", "warn", statement, numbers)
    if len(usable) < 2:
        statement = f"No verdict: no other reference can be used.{more} Give others (--backgrounds)."
        return scan.audit("reference", "n/a", statement, numbers)
    statement = f"The first {_TOP} regions keep their signs under {len(usable) - 1} other reference(s).{more}"
    return scan.audit("reference", "pass", statement, numbers)


def _probability_of_reference(scan: AuditedScan, output: float) -> float:
    """Return the model's probability of the class for a reference alone, from the explained number."""
    return float(1 / (1 + np.exp(-output))) if scan.value.link == "logit" else output
