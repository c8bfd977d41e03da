"""Audit: do the maps of groups differ more than with permuted labels?

`glas3d.study.relabel_cohort` trains and explains with permuted labels; this reads its result.
"""

from __future__ import annotations

from pathlib import Path

from glas3d.errors import GlasError
from glas3d.evaluate.audits.audit import Audit, Number
from glas3d.evaluate.audits.audited_study import AuditedStudy
from glas3d.tables import read_table

_RESULT = "*_desc-relabelled_statistics.tsv"
_LEVEL = 0.05


def audit_study(study: AuditedStudy) -> Audit:
    """Return the audit of a study by the relabellings that the options name."""
    if study.options.relabelled is None:
        return study.audit(
            "null",
            "n/a",
            "No verdict: name the folder that relabel_cohort wrote (--relabelled); it trains with permuted labels.",
        )
    folder = Path(study.options.relabelled)
    paths = sorted(folder.glob(_RESULT))
    if len(paths) != 1:
        raise GlasError(f"relabellings need a folder with one {_RESULT}, {folder} has {len(paths)}")
    table = read_table(paths[0], "a table of regions", text=("name",), missing=("n/a",)).dropna(subset=["p_fwe"])
    if table.empty:
        return study.audit("null", "n/a", f"No verdict: {paths[0].name} has no p-value.")
    first = table.sort_values(["p_fwe", "p_uncorrected"]).iloc[0]
    below = int((table["p_fwe"] <= _LEVEL).sum())
    numbers = [
        Number("smallest_p", float(first["p_fwe"]), "p", "smallest corrected p-value of all regions"),
        Number("region", str(first["name"]), "", "the region that has it"),
        Number("below", below, "count", f"regions with a corrected p-value of at most {_LEVEL:g}"),
        Number("regions", len(table), "count", "regions tested"),
    ]
    if below:
        statement = (
            f"{below} of {len(table)} regions differ between the groups more than with permuted labels "
            f"(smallest corrected p {first['p_fwe']:.3g}, {first['name']})."
        )
        return study.audit("null", "pass", statement, numbers)
    statement = (
        f"No region differs between the groups more than with permuted labels (smallest corrected p "
        f"{first['p_fwe']:.3g}): maps of models that learnt nothing look alike."
    )
    return study.audit("null", "warn", statement, numbers)
