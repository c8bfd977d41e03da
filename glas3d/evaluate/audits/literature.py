"""Audit: does a map agree with a map from the literature, more than surrogates of that map do?

A map of disease in the literature is smooth, and alike on both sides, as is the map of a model: by chance alone two
such maps agree far more than their voxels would if they were permuted. Surrogates, after Burt et al. 2020
(doi:10.1016/j.neuroimage.2020.117038), keep the values, smoothness and symmetry of the literature's map; see
`glas3d.statistics.SpatialSurrogates`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from glas3d.evaluate.audits.audit import Audit, Audited, Number
from glas3d.evaluate.audits.audited_result import AuditedResult
from glas3d.evaluate.audits.audited_scan import AuditedScan
from glas3d.evaluate.audits.audited_study import AuditedStudy
from glas3d.evaluate.audits.checks import AuditOptions
from glas3d.evaluate.audits.map_agreement import MARKED, VOXEL_MM, Agreement, ComparedMap, measure_agreement
from glas3d.explain.result import searched_in_mni
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.scan import Scan
from glas3d.statistics.surrogates import SpatialSurrogates

LEVEL = 0.05
"""The p-value up to which a map is said to agree with the literature."""

_CHECK = "literature"
_DECIDES = ("ap_regions", "ap_voxels")  # the first that there is


def audit_scan(scan: AuditedScan) -> Audit:
    """Return the audit of the evidence of a scan's regions."""
    atlas = scan.atlas
    if scan.options.literature is None or atlas is None or not _is_in_mni(atlas):
        return _no_verdict(scan, "the scan was searched by regions that are not of an atlas in MNI space")
    return _audit(scan, ComparedMap.of_regions(scan.subject.index, scan.explanation.score, atlas))


def audit_study(study: AuditedStudy) -> Audit:
    """Return the audit of the map of a study's case group."""
    group = study.group_result()
    if study.options.literature is None or group is None:
        return _no_verdict(study, "the study has no group level: run glas3d cohort BIDS_DIR OUT group first")
    return _of_result(study, group, study.atlas, in_mni=study.is_in_mni)


def audit_result(result: AuditedResult) -> Audit:
    """Return the audit of a result in a folder."""
    if result.options.literature is None:
        return _no_verdict(result, "")
    provenance = result.provenance

    def in_mni() -> bool:
        return searched_in_mni(provenance) and provenance.get("Transform") is None

    return _of_result(result, result, Atlas.recorded(provenance["Search"]), in_mni=in_mni)


def _of_result(subject: Audited, result: AuditedResult, atlas: Atlas | None, *, in_mni: Callable[[], bool]) -> Audit:
    """Return the audit of a result by the regions of its atlas, or by its map where there is none in MNI space."""
    if atlas is not None and _is_in_mni(atlas):
        table = result.table()
        return _audit(subject, ComparedMap.of_regions(table["index"], table["score"], atlas))
    if not in_mni():
        return _no_verdict(subject, "the map is not known to be in MNI space, and was not searched by an atlas that is")
    return _audit(subject, ComparedMap.of_image(result.img))


def _is_in_mni(atlas: Atlas) -> bool:
    return atlas.space == "MNI"


def _no_verdict(subject: Audited, otherwise: str) -> Audit:
    why = "name a map from the literature (--literature)" if subject.options.literature is None else otherwise
    return subject.audit(_CHECK, "n/a", f"No verdict: {why}.")


def _audit(subject: Audited, compared: ComparedMap) -> Audit:
    options = subject.options
    literature: Scan = options.literature
    values = compared.literature(literature, options.literature_values)
    agreements, surrogates = measure_agreement(compared, values, options.surrogates, options.seed)
    by_name = {each.name: each for each in agreements}
    decides = next(by_name[name] for name in _DECIDES if name in by_name)
    numbers = [*_numbers(agreements), *_of_surrogates(compared, surrogates, options)]
    name = os.path.basename(literature.name)
    facts = (
        f"average precision {decides.value:z.2f} over {decides.name.partition('_')[2]}, of 95 % of these at most "
        f"{decides.null:z.2f}, p = {decides.p:.3g}"
    )
    if decides.p <= LEVEL:
        statement = (
            f"The map agrees with {name} more than random maps that are as smooth and as symmetric do ({facts}). That "
            "regions are known for the disease does not say that the model uses them."
        )
        return subject.audit(_CHECK, "pass", statement, numbers)
    statement = (
        f"The map agrees with {name} no more than random maps that are as smooth and as symmetric do ({facts}). The "
        "model may read something else, or the map may be wrong: see the other checks."
    )
    return subject.audit(_CHECK, "warn", statement, numbers)


def _numbers(agreements: Iterable[Agreement]) -> Iterable[Number]:
    for each in agreements:
        yield Number(each.name, each.value, each.units, each.description)
        yield Number(f"{each.name}_null", each.null, each.units, "95th percentile of the surrogates")
        yield Number(f"{each.name}_p", each.p, "p", "share of surrogates that agree as much or more")


def _of_surrogates(compared: ComparedMap, surrogates: SpatialSurrogates, options: AuditOptions) -> Iterable[Number]:
    yield Number("voxels", len(compared.values), "count", f"voxels of {VOXEL_MM:g} mm in which the maps are compared")
    if compared.labels is not None:
        yield Number("regions", int(compared.labels.max()) + 1, "count", "regions that are compared")
    yield Number("marked", MARKED, "share", "of voxels or regions that average precision looks for")
    yield Number("surrogates", options.surrogates, "count", "random maps")
    yield Number("length", surrogates.length, "mm", "distance at which their correlation has fallen to 37 %")
    yield Number("shape", surrogates.shape, "exponent", "of their covariance; 2 is the smoothest")
    yield Number("nugget", surrogates.nugget, "share", "of their variance that neighbours do not share")
    yield Number("symmetry", surrogates.symmetry, "share", "of their variance that both sides share")
    yield Number("agrees_up_to", LEVEL, "p", "up to this p-value of the average precision the maps are said to agree")
