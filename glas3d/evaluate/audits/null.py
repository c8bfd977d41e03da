"""Audit: do the maps of groups differ more than with permuted labels?

`glas3d.study.relabel_cohort` trains and explains with permuted labels; this reads its result.
"""

from __future__ import annotations

from pathlib import Path

from glas3d.errors import GlasError
from glas3d.evaluate.audits.audit import Audit, Number
from glas3d.evaluate.audits.audited_study import AuditedStudy
from glas3d.statistics.corrected import smallest_p_text
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
    smallest = smallest_p_text(table["p_fwe"].to_numpy(), table["name"].tolist())
    first = table[table["p_fwe"] == table["p_fwe"].min()]
    below = int((table["p_fwe"] <= _LEVEL).sum())
    numbers = [
        Number("smallest_p", float(table["p_fwe"].min()), "p", "smallest corrected p-value of all regions"),
        Number("region", str(first["name"].iloc[0]) if len(first) == 1 else "none", "", "the region that alone has it"),
        Number("below", below, "count", f"regions with a corrected p-value of at most {_LEVEL:g}"),
        Number("regions", len(table), "count", "regions tested"),
    ]
    if below:
        statement = (
            f"{below} of {len(table)} regions differ between the groups more than with permuted labels ({smallest})."
        )
        return study.audit("null", "pass", statement, numbers)
    statement = (
        f"No region differs between the groups more than with permuted labels "
        f"({smallest}): maps of models that learnt nothing look alike."
    )
    return study.audit("null", "warn", statement, numbers)
