"""Results in a folder as audits meet them: a map, its table of regions, and the provenance of both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from glas3d.errors import GlasError
from glas3d.evaluate.audits.audit import Audited
from glas3d.evaluate.audits.checks import AuditOptions
from glas3d.imaging.scan import read_image
from glas3d.output import generated_by
from glas3d.reading import read_json_object
from glas3d.tables import read_table

_MAP = "_stat-saliency_statmap.nii.gz"
_NOT_OF_AUDITS = ("Statistic", "Units", "Files", "Sha256")


@dataclass(frozen=True, eq=False)
class AuditedResult(Audited):
    """The map of a scan that ``glas3d explain`` wrote, or the map of a group.

    Attributes
    ----------
    map
        The path of the saliency map; its sidecar and the table of regions lie next to it.
    options
        The options of audits.
    provenance
        The content of the map's sidecar.
    """

    map: Path
    options: AuditOptions
    provenance: dict[str, Any]

    @classmethod
    def read(cls, path: Path, options: AuditOptions) -> AuditedResult:
        """Read the result that a saliency map belongs to.

        Raises
        ------
        GlasError
            The map has no sidecar, or a damaged one.
        """
        sidecar = path.with_name(path.name.removesuffix(".nii.gz") + ".json")
        content = read_sidecar(sidecar, "Search", "Target")
        return cls(path, options, content)

    @classmethod
    def all_in(cls, folder: Path, options: AuditOptions) -> list[AuditedResult]:
        """Read all results in a folder; those of single scales are results, those of rounds have no table and are not.

        Raises
        ------
        GlasError
            There are none.
        """
        paths = [path for path in sorted(folder.glob(f"*{_MAP}")) if table_of(path).is_file()]
        if not paths:
            raise GlasError(
                f"{folder} has no results of glas3d explain (no table of regions with a map *{_MAP}): to audit a "
                "model, give the scan with --model and --target"
            )
        return [cls.read(path, options) for path in paths]

    @property
    def stem(self) -> str:
        """The start of the names of its files."""
        return self.map.name.removesuffix(_MAP)

    @cached_property
    def img(self) -> Any:
        """The map."""
        return read_image(self.map, "a map")

    def table(self) -> pd.DataFrame:
        """Read the table of regions, without rows that have no index, such as those of covariates.

        Raises
        ------
        GlasError
            The table does not exist or is damaged.
        """
        table = read_table(table_of(self.map), "a table of regions", text=("name", "hemisphere"), missing=("n/a",))
        return table[table["index"].notna()].astype({"index": "int64"})

    def file(self, check: str) -> str:
        """Return the name of the file of an audit."""
        return f"{with_description(self.stem, check)}_audit.json"

    def provenance_of(self, check: str) -> dict[str, Any]:
        """Return what tells audits apart, and all that was used, ready for JSON; known before the audit is made."""
        kept = {name: value for name, value in self.provenance.items() if name not in _NOT_OF_AUDITS}
        settings = self.provenance.get("Settings", {}) | self.options.record_of(check)
        return {**kept, "Settings": settings, "Sources": [self.map.name], "GeneratedBy": generated_by()}


def read_sidecar(path: Path, *required: str) -> dict[str, Any]:
    """Read the JSON file that records how results were made.

    Parameters
    ----------
    path
        The file.
    required
        Keys that it must have.

    Raises
    ------
    GlasError
        The file is missing or damaged, or lacks a key.
    """
    content = read_json_object(path, "the sidecar of results")
    if not set(required) <= set(content):
        raise GlasError(f"results need their sidecar, {path} does not name {' and '.join(required)}")
    return content


def table_of(path: Path) -> Path:
    """Return the path of the table of regions that belongs to a saliency map."""
    return path.with_name(path.name.removesuffix(_MAP) + "_regions.tsv")


def with_description(stem: str, text: str) -> str:
    """Return the stem of a further file of a result; that of a grid has a description already.

    Examples
    --------
    >>> with_description("sub-01_T1w_desc-grid_label-AD", "literature")
    'sub-01_T1w_desc-gridliterature_label-AD'
    >>> with_description("group-AD_seg-AAL", "literature")
    'group-AD_seg-AAL_desc-literature'
    """
    parts = stem.split("_")
    described = [i for i, part in enumerate(parts) if part.startswith("desc-")]
    if not described:
        return f"{stem}_desc-{text}"
    parts[described[-1]] += text
    return "_".join(parts)
