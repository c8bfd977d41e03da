"""Audit: whether regions account for the effect, or something outside of them does

The evidence of all regions is added up and divided by the effect of the whole scan (documentation: "How much the
regions account for"). Where that is low, or so high that the regions' evidence cannot be added up, the whole volume is
searched on a grid, and the audit says where the evidence is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glas3d.core.account import LEAST_EFFECT
from glas3d.core.search import Grid
from glas3d.counts import counted
from glas3d.evaluate.audits.audit import Audit, Number
from glas3d.evaluate.audits.audited_scan import OUTSIDE, AuditedScan
from glas3d.evaluate.audits.audited_study import AuditedStudy
from glas3d.evaluate.audits.checks import LITTLE, MUCH
from glas3d.imaging.space import voxel_to_world

LOW = 0.3
"""The least that regions may account for (documentation: "Audits")."""

# Cells of the grid over the whole volume, in mm. Masks of 0.4 cells nearly partition the volume: their sum is 1 within
# 9 % along each axis.
_CELL_MM, _SIGMA_IN_CELLS = 24.0, 0.4
# Around the cell with the most evidence: points this far apart, in cells, and how many on each side of it.
_STEP_IN_CELLS, _STEPS, _FINE_SIGMA_IN_CELLS = 0.3, 2, 0.25


def audit_scan(scan: AuditedScan) -> Audit:
    """Return the audit of one scan."""
    account = scan.explanation.account
    regions = scan.regions_name if scan.explanation.covariates is None else f"{scan.regions_name} and the covariates"
    if account is None or not account.is_known or not scan.has_effect:
        if account is not None and not account.partition:
            why = f"the masks of {regions} are no partition of the voxels, so that evidence does not add up"
        else:
            why = (
                f"the scan differs from the reference by less than {LEAST_EFFECT:g} in log-odds, which leaves nothing "
                "to account for: audit a scan of the class that is explained"
            )
        return scan.audit("accounted", "n/a", f"No verdict: {why}.")
    numbers = [
        Number("accounted", account.accounted, "share", f"sum of the evidence of {regions} over the effect"),
        Number("largest", account.largest, "share", "largest evidence of a region over the effect"),
        Number("effect", account.effect, scan.scale, "output of the scan minus that of the reference"),
        Number("lowest_allowed", LOW, "share", "below this the check warns"),
        Number("searched_below", LITTLE, "share", "below this the whole volume is searched"),
        Number("searched_above", MUCH, "share", "above this the whole volume is searched, and the check warns"),
    ]
    opening = f"{regions[0].upper()}{regions[1:]} account for {account.accounted:z.0%} of the effect"
    outside = scan.shares_of_parts["outside"]
    numbers += [
        Number("outside", outside, "share", "evidence of all that is outside the brain, over the effect"),
        Number("outside_allowed", OUTSIDE, "share", "largest size of outside that does not fail"),
    ]
    if LITTLE <= account.accounted <= MUCH and abs(outside) <= OUTSIDE:
        return scan.audit("accounted", "pass", f"{opening}.", numbers)
    place = locate(scan, outside=abs(outside) > OUTSIDE)
    numbers += place.numbers()
    if abs(outside) > OUTSIDE:
        statement = (
            f"{opening}, what is outside the brain for {outside:z.0%}. {place.sentence()} Do not take the table of "
            "regions for an explanation."
        )
        return scan.audit("accounted", "fail", statement, numbers)
    if LOW <= account.accounted < LITTLE:
        return scan.audit("accounted", "pass", f"{opening}. {place.sentence()}", numbers)
    why = "more than all of it" if account.accounted > MUCH else "little of it"
    statement = (
        f"{opening}, {why}: their evidence overlaps, acts together, or lies in no region. {place.sentence()} "
        "Compare regions by rank, not by share."
    )
    return scan.audit("accounted", "warn", statement, numbers)


@dataclass(frozen=True, eq=False)
class StrongestEvidence:
    """The strongest evidence in the whole volume, and where it is.

    Attributes
    ----------
    position
        ``(3,)`` mm, the centre of the strongest evidence.
    part, region
        Where that is: inside, shell or outside (see `AuditedScan.parts`), and the region there or empty.
    strongest
        Evidence of the strongest cell of the grid, as a share of the effect.
    outside
        Share of the size of all evidence that cells outside the brain have.
    accounted
        The sum of all evidence of the grid over the effect.
    cells
        Cells of the grid along each axis.
    """

    position: np.ndarray
    part: str
    region: str
    strongest: float
    outside: float
    accounted: float
    cells: tuple[int, ...]

    def sentence(self) -> str:
        """Return where the evidence is, as a sentence."""
        x, y, z = self.position
        there = " outside the brain" if self.part == "outside" else ""
        where = {
            "inside": f", inside the brain, in {self.region}" if self.region else ", inside the brain, in no region",
            "shell": ", at the edge of the brain",
            "outside": "",
        }[self.part]
        return (
            f"On a grid of the whole volume the strongest evidence{there}, {self.strongest:z.0%} of the effect, is at "
            f"{x:z.0f} {y:z.0f} {z:z.0f} mm{where}."
        )

    def numbers(self) -> list[Number]:
        """Return the numbers of the audit."""
        axes = zip("xyz", self.position, ("right", "front", "top"), strict=True)
        return [
            *(Number(n, float(v), "mm", f"position of the strongest evidence, towards the {to}") for n, v, to in axes),
            Number("part", self.part, "", "part of the head at this position: inside, shell or outside the brain"),
            Number("region", self.region or "none", "", "region at this position"),
            Number("strongest", self.strongest, "share", "evidence of the strongest cell of the grid over the effect"),
            Number("grid_outside", self.outside, "share", "share of the size of all evidence, outside the brain"),
            Number("grid_accounted", self.accounted, "share", "sum of the evidence of all cells over the effect"),
            Number("grid", " x ".join(map(str, self.cells)), "", "cells of the grid along each axis"),
        ]


def locate(scan: AuditedScan, *, outside: bool) -> StrongestEvidence:
    """Search the whole volume for what the model uses: a grid of about 24 mm, then more finely around the strongest.

    Parameters
    ----------
    scan
        The scan.
    outside
        Name the strongest evidence outside the brain; else that of the whole volume.
    """
    shape, spacing = np.array(scan.grid.shape), np.array(scan.grid.spacing)
    cells = tuple(int(n) for n in np.clip(np.rint(shape * spacing / _CELL_MM), 1, shape))
    size = float((shape * spacing / cells).mean())
    points = Grid(cells).points(scan.grid.shape)
    coarse = scan.explain_points(points, _SIGMA_IN_CELLS * size)
    assert coarse.evidence is not None
    share = coarse.evidence / coarse.effect
    is_outside = np.array([scan.part_at(point) == "outside" for point in points])
    candidates = np.where(is_outside, share, -np.inf) if outside and is_outside.any() else share
    strongest = int(candidates.argmax())
    first = points[strongest]
    offsets = np.arange(-_STEPS, _STEPS + 1) * _STEP_IN_CELLS * size
    lattice = np.stack(np.meshgrid(offsets, offsets, offsets, indexing="ij"), axis=-1).reshape(-1, 3) / spacing
    around = first + lattice
    around = around[((around >= 0) & (around <= shape - 1)).all(axis=1)]
    fine = scan.explain_points(around, _FINE_SIGMA_IN_CELLS * size)
    assert fine.evidence is not None
    weight = np.clip(fine.evidence / fine.effect, 0, None)
    weight = np.where(weight >= weight.max() / 2, weight, 0)
    peak = first if not weight.any() else weight @ around / weight.sum()
    return StrongestEvidence(
        position=voxel_to_world(peak[None], scan.grid.affine)[0],
        part=scan.part_at(peak),
        region=scan.region_at(peak),
        strongest=float(share[strongest]),
        outside=float(np.abs(share[is_outside]).sum() / np.abs(share).sum()),
        accounted=float(share.sum()),
        cells=cells,
    )


def audit_study(study: AuditedStudy) -> Audit:
    """Return the audit of a study, from what was recorded when its participants were explained.

    Participants whose effect is too small for a share of their own, such as controls, are left out: the sum of the
    others' evidence is divided by the sum of their effects.
    """
    accounts = [record.content.get("Account") for record in study.records]
    known = [account for account in accounts if account and account["accounted"] is not None]
    if not known:
        weak = any(account and account["partition"] for account in accounts)
        why = (
            "every participant's effect is below 1 in log-odds, too little to be accounted for"
            if weak
            else "the evidence does not add up to an effect; explain the regions of an atlas with the preset evidence"
        )
        return study.audit("accounted", "n/a", f"No verdict: {why}.")
    effect = sum(account["effect"] for account in known)
    accounted = sum(account["accounted"] * account["effect"] for account in known) / effect
    low = sum(account["accounted"] < LOW for account in known)
    numbers = [
        Number("accounted", accounted, "share", "sum of the evidence of all regions and participants over the effects"),
        Number("participants", len(known), "count", "scans whose effect is at least 1 in log-odds"),
        Number("left_out", len(accounts) - len(known), "count", "scans with a smaller effect, or no evidence"),
        Number("low", low, "count", "scans of which the regions account for less than lowest_allowed"),
        Number("lowest_allowed", LOW, "share", "below this the check fails"),
        Number("highest_allowed", MUCH, "share", "above this the check warns"),
    ]
    opening = f"The regions account for {accounted:z.0%} of the effects of {counted(len(known), 'scan')}"
    if accounted < LOW:
        statement = (
            f"{opening} only. Do not take the maps for an explanation: audit single scans with their model, which says "
            "where the evidence is."
        )
        return study.audit("accounted", "fail", statement, numbers)
    if accounted > MUCH:
        statement = f"{opening}, more than all of them: evidence overlaps. Compare regions by rank, not by share."
        return study.audit("accounted", "warn", statement, numbers)
    if 2 * low > len(known):
        statement = f"{opening}, but for {low} of them less than {LOW:z.0%}: audit single scans with their model."
        return study.audit("accounted", "warn", statement, numbers)
    return study.audit("accounted", "pass", f"{opening}.", numbers)
