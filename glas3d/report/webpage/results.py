"""Results as a report reads them: a table of regions with its maps and provenance, from a folder or from memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from nibabel.spatialimages import SpatialImage

from glas3d.errors import GlasError
from glas3d.explain.image_result import ImageExplanation
from glas3d.explain.outputs import STATISTICS
from glas3d.explain.result import ScanExplanation
from glas3d.explain.table import table_columns
from glas3d.imaging.scan import read_image
from glas3d.output import Columns, to_json
from glas3d.reading import read_json_object
from glas3d.tables import read_table

_TABLE, _METHODS, _AUDIT = "_regions.tsv", "methods_regions.tsv", "_audit.json"
_GROUP_STATISTICS = ("saliency", "mean", "overlap", "variance")


@dataclass(frozen=True, eq=False)
class Map:
    """A map of a result.

    Attributes
    ----------
    img
        The image, whose voxels are read when they are first used.
    description, units
        What its values are.
    sidecar
        The content of its sidecar; empty for a result in memory, whose provenance is that of the table.
    """

    img: SpatialImage
    description: str
    units: str
    sidecar: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Result:
    """A table of regions or points, with its maps and what both were made with.

    Attributes
    ----------
    stem
        Start of the files' names.
    table
        One row for each region or point.
    columns
        Description and units of each column.
    provenance
        The content of the table's sidecar.
    maps
        The maps, by their statistic; empty for an image.
    image
        The explanation of an image that it is; None for a scan, or a result read from a folder.
    """

    stem: str
    table: pd.DataFrame
    columns: Columns
    provenance: Mapping[str, Any]
    maps: Mapping[str, Map] = field(default_factory=dict)
    image: ImageExplanation | None = None

    @classmethod
    def of(cls, result: ScanExplanation | ImageExplanation) -> Result:
        """Return the result of `glas3d.explain_img` or `glas3d.explain.explain_image` as a report reads it."""
        columns = table_columns(result.table.columns, result.provenance)
        provenance = json.loads(to_json(result.provenance))
        if isinstance(result, ImageExplanation):
            return cls(result.stem, result.table, columns, provenance, image=result)
        maps = {}
        for statistic in STATISTICS:
            img = getattr(result, f"{statistic}_img")
            if img is not None:
                name = "score" if statistic == "saliency" else statistic
                maps[statistic] = Map(img, *columns.get(name, (name, "")))
        return cls(result.stem, result.table, columns, provenance, maps)

    @classmethod
    def read(cls, path: Path, statistics: tuple[str, ...] = STATISTICS) -> Result:
        """Read a table, its sidecar and its maps.

        Parameters
        ----------
        path
            The table; its sidecar has the same name with the ending ``.json``.
        statistics
            The maps to look for.

        Raises
        ------
        GlasError
            The table or its sidecar is damaged.
        """
        table = read_table(path, text=("name", "hemisphere", "direction"), missing=("n/a",))
        sidecar = read_sidecar(path)
        for seal in ("Files", "Sha256"):  # hashes for `glas3d verify`, which a result in memory has not
            sidecar.pop(seal, None)
        stem = path.name.removesuffix(".tsv").rpartition("_")[0]
        columns = {name: sidecar.pop(name) for name in map(str, table.columns) if isinstance(sidecar.get(name), dict)}
        described = {
            name: (str(each.get("Description", name)), str(each.get("Units", ""))) for name, each in columns.items()
        }
        maps = {name: each for name in statistics if (each := _read_map(path.parent, stem, name)) is not None}
        return cls(stem, table, described, sidecar, maps)

    @property
    def is_region_wise(self) -> bool:
        """Whether rows are regions of an atlas or segments, and not points."""
        return bool("atlas" in self.provenance.get("Search", {}))

    @property
    def explained(self) -> str:
        """What was explained, in a word."""
        return "image" if {"row", "column"} <= {*self.table.columns} else "scan"

    @property
    def is_fused(self) -> bool:
        """Whether it was made of other results, which lie in the same folder."""
        settings = self.provenance.get("Settings", {})
        return bool(self.provenance.get("Against")) or "scales" in settings or "consensus" in settings


@dataclass(frozen=True, eq=False)
class Table:
    """A further table of a folder, such as the stability of a group's means.

    Attributes
    ----------
    title
        What the table holds.
    table
        Its rows.
    columns
        Description and units of each column.
    """

    title: str
    table: pd.DataFrame
    columns: Columns


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that a report shows of a folder.

    Attributes
    ----------
    explanations
        The explanations of scans; empty for a study.
    groups
        The groups of a study, the case first; empty for scans.
    tests
        Tables of tests of regions; empty for scans.
    comparisons
        Tables with one column for each of several methods.
    tables
        Further tables, by the file's name.
    audits
        What `glas3d audit` wrote.
    provenance
        What the group level of a study recorded of itself; empty for scans.
    """

    explanations: tuple[Result, ...] = ()
    groups: tuple[Result, ...] = ()
    tests: tuple[Result, ...] = ()
    comparisons: tuple[Result, ...] = ()
    tables: Mapping[str, Table] = field(default_factory=dict)
    audits: tuple[Mapping[str, Any], ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)


def read_results(folder: Path) -> Results:
    """Read the results in a folder that ``glas3d explain``, ``demo``, ``cohort`` or ``compare`` wrote.

    Parameters
    ----------
    folder
        The folder of a study with its group level, or any folder with results of scans, such as that of a participant.

    Raises
    ------
    GlasError
        The folder does not exist, has no results, or has results that are damaged.
    """
    if not folder.exists():
        raise GlasError(f"no such folder: {folder}")
    if not folder.is_dir():
        raise GlasError(f"needed is a folder of results, {folder} is a file")
    group = folder / "group"
    if any(group.glob(f"group-*{_TABLE}")):
        return _read_study(folder, group)
    explanations, comparisons = [], []
    for path in sorted(folder.rglob(f"*{_TABLE}")):
        sidecar = read_sidecar(path)
        if path.name.endswith(_METHODS):
            comparisons.append(Result.read(path))
        elif "Input" in sidecar and "Target" in sidecar:
            explanations.append(Result.read(path))
    if not explanations and not comparisons:
        advice = "; run the group level of the study, or name the folder of a participant" if _has_study(folder) else ""
        raise GlasError(f"no results of scans or groups in {folder}{advice}")
    explanations.sort(key=lambda each: not each.is_fused)
    audits = tuple(_audits(folder.rglob(f"*{_AUDIT}")))
    return Results(tuple(explanations), comparisons=tuple(comparisons), audits=audits)


def _has_study(folder: Path) -> bool:
    return (folder / "study.json").is_file()


def _read_study(folder: Path, group: Path) -> Results:
    """Read the group level of a study."""
    provenance = read_json(group / "provenance.json") if (group / "provenance.json").is_file() else {}
    groups, tests = [], []
    tables: dict[str, Table] = {}
    for path in sorted(group.glob("group-*.tsv")):
        result = Result.read(path, _GROUP_STATISTICS)
        columns = set(result.table.columns)
        if {"name", "score", "rank"} <= columns:
            groups.append(result)
        elif {"index", "name", "p_fwe"} <= columns and not {"x", "cluster"} <= columns:
            test = Result.read(path, ("t", "z", "f", "neglog10pfwe"))
            tests.append(replace(test, maps={**test.maps, **_voxel_maps(group, test.stem)}))
        else:
            title = str(result.provenance.get("Description", path.stem))
            name = result.provenance.get("Group")
            tables[path.name] = Table(f"{name}: {title}" if name else title, result.table, result.columns)
    tests.sort(key=lambda each: "Case" not in each.provenance)  # comparisons of groups before tests within one
    case = provenance.get("Case")
    groups.sort(key=lambda each: (each.provenance.get("Group") != case, str(each.provenance.get("Group"))))
    audits = (*_audits(folder.glob(f"*{_AUDIT}")), *_audits(group.glob(f"*{_AUDIT}")))
    return Results(groups=tuple(groups), tests=tuple(tests), tables=tables, audits=audits, provenance=provenance)


def read_sidecar(table: Path) -> dict[str, Any]:
    """Read the JSON file next to a table.

    Raises
    ------
    GlasError
        The file does not exist, or holds no JSON object.
    """
    return read_json(table.with_suffix(".json"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises
    ------
    GlasError
        The file does not exist, or holds no JSON object.
    """
    if not os.path.lexists(path):
        raise GlasError(f"results need their sidecars, there is no {path}")
    try:
        return read_json_object(path, "a sidecar")
    except GlasError as error:
        raise GlasError(f"{error}; make its results again") from None


def _read_map(folder: Path, stem: str, statistic: str) -> Map | None:
    path = folder / f"{stem}_stat-{statistic}_statmap.nii.gz"
    if not path.is_file():
        return None
    img = read_image(path, "a map")
    sidecar = read_json(path.with_name(f"{stem}_stat-{statistic}_statmap.json"))
    return Map(img, str(sidecar.get("Description", statistic)), str(sidecar.get("Units", "")), sidecar)


def _voxel_maps(folder: Path, stem: str) -> dict[str, Map]:
    """Return the maps of a comparison voxel by voxel, next to one region by region."""
    start = f"{stem}_desc-voxels" if "_desc-" not in stem else f"{stem}voxels"
    maps = {f"voxels-{name}": _read_map(folder, start, name) for name in ("t", "neglog10pfwe")}
    return {name: each for name, each in maps.items() if each is not None}


def _audits(paths: Iterator[Path]) -> Iterator[Mapping[str, Any]]:
    for path in sorted(paths):
        yield read_json(path)
