"""The model of a page: its views, each a result with its sentences, table, figure and maps, and further sections."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure as DrawnFigure
from nibabel.spatialimages import SpatialImage

from glas3d.counts import counted
from glas3d.display import shown_output
from glas3d.explain.result import searched_in_mni
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import MNI, VoxelGrid, mni_grid, template, template_on
from glas3d.output import Columns
from glas3d.report.figure_files import png_writer
from glas3d.report.maps import BrainMap
from glas3d.report.overlay import result_figure
from glas3d.report.regions import five_regions_figure
from glas3d.report.webpage import prose
from glas3d.report.webpage.bars import Bar, bars
from glas3d.report.webpage.results import Map, Result, Results
from glas3d.report.webpage.volumes import MOST_VOXELS, Labels, Volumes, labels_by_value, numbered, within_budget
from glas3d.statistics.corrected import smallest_p_text
from glas3d.study.training.performance import COLUMNS, POOLED, chance_warning, measure, pooled_performance

# Columns of tables that can be shown as a map, with their titles.
_MAPS = {
    "score": "score",
    "light": "light",
    "shadow": "shadow",
    "drop": "signed drop",
    "evidence": "evidence",
    "density": "density",
    "mean": "mean over participants",
    "variance": "variance over participants",
    "overlap": "overlap over participants",
    "t": "t",
    "f": "F",
    "z_statistic": "z",
    "r": "correlation",
    "difference": "difference of means",
    "cohen_d": "Cohen's d",
    "neglog10p_fwe": "-log10 corrected p",
    "relative_density": "relative density",
    "agreement": "agreement of references",
}
# The statistic of a map's file, by the column that it shows.
_STATISTIC_OF = {"score": "saliency", "neglog10p_fwe": "neglog10pfwe", "z_statistic": "z"}
_MOST_RESULTS, _MOST_ROWS = 12, 500
_BAR_ROWS = 10
_HIDDEN = {"index"}
# Columns of tables of regions that a reader looks for, and where regions are; the others stand between them.
_FIRST = (
    *("rank", "name", "hemisphere", "score", "p_fwe", "direction", "evidence", "density", "mean"),
    *("difference", "r", "t", "f", "z_statistic", "hedges_g", "p_uncorrected", "p_fdr"),
)
_LAST = ("n_voxels", "n_pixels", "x", "y", "z", "row", "column")
_NUMBERS = {
    "name": ("Name of the number in the file of the audit", ""),
    "value": ("The number, or a text", ""),
    "units": ("Its units", ""),
    "description": ("What it is", ""),
}
_TEXT = {"name", "hemisphere", "direction"}


@dataclass(frozen=True)
class Cell:
    """A cell of a table: the text that is shown, and the number by which rows are sorted."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class ShownTable:
    """A table as it is shown.

    Attributes
    ----------
    caption
        What it holds.
    heads
        Name, description and units of each column.
    rows
        The cells of each row.
    places
        Coordinates in mm of each row, for tables of regions; None for rows without any.
    more
        Number of rows that are not shown.
    order, direction
        The column by which rows are sorted, ``"ascending"`` or ``"descending"``; empty: by none.
    """

    caption: str
    heads: tuple[tuple[str, str, str], ...]
    rows: tuple[tuple[Cell, ...], ...]
    places: tuple[tuple[float, float, float] | None, ...] = ()
    more: int = 0
    order: str = ""
    direction: str = "ascending"

    @property
    def numeric(self) -> set[int]:
        """Which columns hold numbers."""
        return {column for row in self.rows for column, cell in enumerate(row) if cell.value is not None}


@dataclass(frozen=True)
class ShownAudit:
    """A check of ``glas3d audit`` as it is shown.

    Attributes
    ----------
    check, verdict, statement
        See `glas3d.evaluate.audits.Audit`.
    numbers
        The numbers behind the verdict, with their units; None where there are none.
    """

    check: str
    verdict: str
    statement: str
    numbers: ShownTable | None


@dataclass(frozen=True)
class Figure:
    """A picture with what it shows in words."""

    png: bytes
    alt: str
    caption: str


@dataclass(frozen=True, eq=False)
class View:
    """A result on the page.

    Attributes
    ----------
    key
        Its identifier on the page.
    title
        Its heading.
    summary, strongest, warnings, caution
        Sentences, see `glas3d.report.webpage.prose`.
    table
        Its regions.
    maps
        What the viewer shows of it, ready for JSON.
    bars
        Drawing of the highest-scoring regions, as SVG; empty where there is none.
    bars_caption, bars_of_means
        What it shows, and whether that is the mean over participants.
    figure
        The highest-scoring regions on the template; None where there is none.
    settings
        Everything that was recorded, as names and values.
    rows
        What the rows of its table are: regions, or points.
    """

    key: str
    title: str
    summary: Sequence[str]
    strongest: Sequence[Mapping[str, Any]]
    warnings: Sequence[str]
    caution: Sequence[str]
    table: ShownTable
    maps: Mapping[str, Any]
    bars: str = ""
    bars_caption: str = ""
    bars_of_means: bool = False
    figure: Figure | None = None
    settings: Sequence[tuple[str, str]] = ()
    rows: str = "regions"


@dataclass(frozen=True, eq=False)
class Page:
    """Everything that a page shows.

    Attributes
    ----------
    title
        Its title.
    kind
        ``"scan"``, ``"image"`` or ``"study"``.
    views
        Its results.
    tables
        Further tables, by their headings.
    audits
        The checks of ``glas3d audit``.
    methods, citations
        See `glas3d.report.webpage.prose`.
    volumes
        The volumes that the viewer shows.
    below
        What lies below the maps there.
    notes
        Sentences on the page itself.
    """

    title: str
    kind: str
    views: Sequence[View]
    tables: Mapping[str, ShownTable] = field(default_factory=dict)
    audits: Sequence[ShownAudit] = ()
    methods: str = ""
    citations: Sequence[str] = ()
    volumes: Volumes = field(default_factory=Volumes)
    below: str = ""
    notes: Sequence[str] = ()

    @property
    def warnings(self) -> Sequence[str]:
        """The warnings of all views; of those that not all have, also the view that they are about."""
        warned = [view for view in self.views if view.strongest]  # tests warn of themselves alone
        shared = [text for text in (warned[0].warnings if warned else []) if all(text in v.warnings for v in warned)]
        single = [f"{view.title}: {text}" for view in self.views for text in view.warnings if text not in shared]
        return [*shared, *dict.fromkeys(single)]

    @property
    def most_voxels(self) -> str:
        """The largest number of voxels of a volume in the viewer."""
        return f"{MOST_VOXELS:,}"


def page_of(results: Results, scans: Mapping[str, SpatialImage] | None = None) -> Page:
    """Return the page of some results.

    Parameters
    ----------
    results
        What is shown.
    scans
        Images of the scans by their hash, to be shown below the maps. A scan that is not among them is replaced by the
        template, where the results are in its space.
    """
    volumes, notes = Volumes(), []
    views = [
        _explained(result, number, volumes, scans or {})
        for number, result in enumerate(results.explanations[:_MOST_RESULTS])
    ]
    if (more := len(results.explanations) - _MOST_RESULTS) > 0:
        notes.append(f"{more} further results of this folder are not shown: make reports of its subfolders.")
    views += [_group(result, number, results, volumes) for number, result in enumerate(results.groups)]
    views += [_test(result, number, results, volumes) for number, result in enumerate(results.tests)]
    if volumes.left_out:
        notes.append(
            f"The page would be too large with all maps in the viewer: {counted(volumes.left_out, 'map')} left out."
        )
    tables = {f"Methods compared: {each.stem}": _compared(each) for each in results.comparisons}
    known = {text for view in views for text in view.warnings}
    noted = dict.fromkeys(text for each in results.comparisons for text in prose.warnings_of(each))
    notes += [text for text in noted if text not in known]
    if results.groups:
        performance, chance = _performance(results)
        tables |= performance | _participants(results.groups)
        notes += chance
    tables |= {each.title: shown_table(each.table, each.columns, name) for name, each in results.tables.items()}
    everything = (*results.groups, *results.explanations, *results.comparisons)
    kind = "study" if results.groups else everything[0].explained if everything else "scan"
    title = _title(results)
    return Page(
        title=title,
        kind=kind,
        views=views,
        tables=tables,
        audits=[_audit(record) for record in results.audits],
        methods=prose.methods(results) if everything else "",
        citations=prose.citations(results),
        volumes=volumes,
        below=_below(results, scans or {}),
        notes=notes,
    )


def _below(results: Results, scans: Mapping[str, SpatialImage]) -> str:
    """Return what lies below the maps of the viewer, in words."""
    if not scans:
        return f"the template ({MNI})"
    if all(_scan_of(each, scans) is not None for each in results.explanations):
        return "the scan"
    return f"the scan, or the template ({MNI})"


def _title(results: Results) -> str:
    first = (*results.groups, *results.explanations, *results.comparisons)[0]
    target = prose.target_of(first.provenance)
    signed = first.provenance.get("Settings", {}).get("fusion") == "mean"
    matter = f"speak for {target}" if signed else f"the output for {target} depends on"
    if results.groups:
        names = [str(each.provenance.get("Group")) for each in results.groups]
        return f"Group{'s' if len(names) > 1 else ''} {' and '.join(names)}: which regions {matter}"
    names = list(dict.fromkeys(_input_name(each) for each in (*results.explanations, *results.comparisons)))
    shown = names[0] if len(names) == 1 else counted(len(names), "scan")
    return f"{shown}: which {prose.searched_parts(first)} {matter}"


def _input_name(result: Result) -> str:
    given = result.provenance.get("Input", {})
    name = str(given.get("name") or result.stem) if isinstance(given, dict) else result.stem
    if result.explained == "image":
        return Path(name).stem
    for ending in (".nii.gz", ".nii", ".mgz"):
        name = name.removesuffix(ending)
    return name


def _explained(result: Result, number: int, volumes: Volumes, scans: Mapping[str, SpatialImage]) -> View:
    """Return the view of one explanation."""
    rows = prose.searched_parts(result)
    return View(
        key=f"result-{number}",
        title=_view_title(result),
        summary=prose.summary(result),
        strongest=prose.strongest(result),
        warnings=prose.warnings_of(result),
        caution=prose.not_to_conclude(result),
        table=_regions_table(result),
        maps=_viewer(result, volumes, _background(result, volumes, scans)),
        bars=_bars(result.table, "score", "score", None),
        rows=rows,
        bars_caption=f"Score of the highest-scoring {rows} ({prose.unit_of_score(result) or 'no unit'})",
        figure=_figure(result, scans),
        settings=list(flat(result.provenance)),
    )


def _view_title(result: Result) -> str:
    name = _input_name(result)
    rest = result.stem.removeprefix(name).strip("_")
    return f"{name}, {rest}" if rest else name


def _group(result: Result, number: int, results: Results, volumes: Volumes) -> View:
    """Return the view of a group: its table with how participants vary, and its maps."""
    table, columns, mean = _with_variation(result, results)
    merged = Result(result.stem, table, columns, result.provenance, result.maps)
    settings = {**result.provenance, **({"GroupLevel": results.provenance} if number == 0 else {})}
    shown = "mean" if mean is not None else "score"
    n = len(prose.participants_of(result))
    interval = (
        f", mean over {counted(n, 'participant')} with its 95 % interval (by Student's t, not corrected)"
        if mean
        else ""
    )
    units, rows = columns.get(shown, ("", ""))[1], prose.searched_parts(result)
    return View(
        key=f"group-{number}",
        title=f"Group {result.provenance.get('Group')}",
        summary=prose.summary(merged),
        strongest=prose.strongest(merged),
        warnings=prose.warnings_of(Result(result.stem, table, columns, {**_in_sample(results), **result.provenance})),
        caution=prose.not_to_conclude(result),
        table=_regions_table(merged),
        maps=_viewer(merged, volumes, _template(volumes)),
        bars=_bars(table, shown, shown, mean),
        bars_of_means=mean is not None,
        bars_caption=f"The highest-scoring {rows}{interval}; {units}",
        rows=rows,
        figure=_figure(result, {}) if number == 0 else None,
        settings=list(flat(settings)),
    )


def _in_sample(results: Results) -> dict[str, Any]:
    return {name: results.provenance[name] for name in ("InSample",) if name in results.provenance}


def _with_variation(result: Result, results: Results) -> tuple[pd.DataFrame, Columns, dict[str, str] | None]:
    """Return a group's table with mean, variance, overlap and interval of the ranks; and the ends of the interval."""
    table, columns = result.table, dict(result.columns)
    start = f"{result.stem}_desc-" if "_desc-" not in result.stem else result.stem
    variation = results.tables.get(f"{start}variation_regions.tsv")
    if variation is None:
        return table, columns, None
    more = variation.table[["index", "n", "mean", "variance", "overlap"]]
    columns |= {name: variation.columns[name] for name in map(str, more) if name in variation.columns}
    ranks = results.tables.get(f"{start}ranks_regions.tsv")
    table = table.merge(more, on="index", how="left")
    if ranks is not None:
        ends = ranks.table[["name", "low", "high"]].rename(columns={"low": "rank_low", "high": "rank_high"})
        table = table.merge(ends, on="name", how="left")
        for end, text in (("rank_low", "Lower"), ("rank_high", "Upper")):
            columns[end] = (f"{text} end of the 95 % interval of the rank, over participants", "rank")
    return table, columns, {"mean": "mean", "variance": "variance", "n": "n"}


def _test(result: Result, number: int, results: Results, volumes: Volumes) -> View:
    """Return the view of a test of regions, whose maps lie on the voxels of the first group."""
    record = result.provenance
    compared = [str(record[key]) for key in ("Case", "Control") if record.get(key)]
    title = " against ".join(compared) if len(compared) == 2 else f"Group {record.get('Group', '')}".strip()
    title = f"{title}: {str(record.get('Description', 'test of regions')).removeprefix(f'{title}, ')}"
    table, columns = result.table, dict(result.columns)
    first = results.groups[0] if results.groups else None
    if "z" in table and "x" not in table:  # a statistic, not a coordinate
        table = table.rename(columns={"z": "z_statistic"})
        columns["z_statistic"] = columns.pop("z", ("z", ""))
    if first is not None and "x" not in table and {"index", "x"} <= set(first.table.columns):
        places = first.table[["index", "hemisphere", "x", "y", "z"]]
        table = table.drop(columns="hemisphere", errors="ignore").merge(places, on="index", how="left")
    merged = Result(result.stem, table, {**(first.columns if first else {}), **columns}, record, result.maps)
    below = int((table["p_fwe"] <= 0.05).sum())
    rows = prose.searched_parts(result)
    summary = [f"{below} of {len(table)} {rows} have a corrected p-value of at most 0.05."]
    if table["p_fwe"].notna().any():
        text = smallest_p_text(table["p_fwe"].to_numpy(), table["name"].tolist(), rows)
        summary.append(prose.sentence(text))
    if record.get("NullHypothesis"):
        summary.append(
            f"Null hypothesis: {record['NullHypothesis']}. Null distribution: {record.get('NullDistribution')}."
        )
    smallest = record.get("SmallestP")
    warnings = []
    if isinstance(smallest, int | float) and smallest > 0.05:
        warnings.append(
            f"No corrected p-value of this test can be below {smallest:.3g}: there are too few participants, or draws."
        )
    return View(
        key=f"test-{number}",
        title=title,
        summary=summary,
        strongest=[],
        warnings=warnings,
        caution=[],
        table=_regions_table(merged, "p_fwe"),
        maps=_viewer(merged, volumes, _template(volumes), first),
        settings=list(flat(record)),
    )


def _regions_table(result: Result, order: str = "rank") -> ShownTable:
    """Return the table of regions as it is shown, from the first rank, or the smallest p-value, on."""
    known = [*map(str, result.table.columns)]
    keys = [name for name in (order, "p_uncorrected") if name in known]
    table = result.table.sort_values(keys, kind="stable") if order in known else result.table
    first, last = ([name for name in names if name in known] for names in (_FIRST, _LAST))
    table = table[[*first, *(name for name in known if name not in (*first, *last)), *last]]
    rows = prose.searched_parts(result)
    shown = shown_table(table, result.columns, f"{len(table)} {rows}", most=None)
    return replace(shown, order=order if order in known else "")


def _compared(result: Result) -> ShownTable:
    """Return the values of several methods as they are shown, the highest of the first method on top."""
    first = next(name for name in map(str, result.table.columns) if name not in ("index", "name", *_FIRST, *_LAST))
    table = result.table.sort_values(first, ascending=False, kind="stable")
    provenance = result.provenance
    units = {str(name): result.columns[str(name)][1] for name in table if str(name) in result.columns}
    methods = ", ".join(f"{name}: {unit}" for name, unit in units.items() if unit and name != "index")
    caption = f"Value of each region by each method ({methods})" if methods else "Value of each region by each method"
    if provenance.get("Probability") is not None:
        caption = f"{shown_output(prose.target_of(provenance), provenance['Probability'])}. {caption}"
    shown = shown_table(table, result.columns, caption)
    return replace(shown, order=first, direction="descending")


def shown_table(table: pd.DataFrame, columns: Columns, caption: str, most: int | None = _MOST_ROWS) -> ShownTable:
    """Return a table as it is shown: numbers with three digits, and n/a where there is no value."""
    names = [name for name in map(str, table.columns) if name not in _HIDDEN or "name" not in table]
    heads = tuple((name, *columns.get(name, (name, ""))) for name in names)
    shown = table if most is None else table.head(most)
    rows = tuple(tuple(_cell(value) for value in row) for row in shown[names].itertuples(index=False, name=None))
    places: tuple[tuple[float, float, float] | None, ...] = ()
    if {"x", "y", "z"} <= set(table.columns):
        known = shown[["x", "y", "z"]].to_numpy(dtype=float)
        places = tuple(None if np.isnan(place).any() else (place[0], place[1], place[2]) for place in known.tolist())
    return ShownTable(caption, heads, rows, places, len(table) - len(shown))


def _audit(record: Mapping[str, Any]) -> ShownAudit:
    """Return a check as it is shown, from the content of its file."""
    check, verdict, statement = (str(record.get(name, "n/a")) for name in ("check", "verdict", "statement"))
    given = record.get("numbers")
    rows = [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []
    if not rows:
        return ShownAudit(check, verdict, statement, None)
    table = pd.DataFrame(rows, dtype=object).reindex(columns=list(_NUMBERS))
    return ShownAudit(check, verdict, statement, shown_table(table, _NUMBERS, "The numbers behind the verdict"))


def _cell(value: Any) -> Cell:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return Cell("n/a")
    if isinstance(value, bool | np.bool_):
        return Cell("yes" if value else "no")
    if isinstance(value, int | np.integer):
        return Cell(f"{value}", float(value))
    if isinstance(value, float | np.floating):
        return Cell(number(float(value)), float(value))
    return Cell(str(value))


def number(value: float) -> str:
    """Return a number in few characters.

    Examples
    --------
    >>> number(-23.4567), number(0.000123456), number(116.0), number(1234.6)
    ('-23.5', '0.000123', '116', '1235')
    """
    return f"{value:z.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def _bars(table: pd.DataFrame, column: str, label: str, spread: Mapping[str, str] | None) -> str:
    """Return the drawing of the ten highest-scoring regions; of means with their 95 % intervals."""
    from scipy.stats import t

    ranked = table.dropna(subset=["rank"]).sort_values("rank").head(_BAR_ROWS)
    shown = []
    for row in ranked.to_dict("records"):
        half = None
        if spread is not None and row["n"] > 1 and pd.notna(row["variance"]):
            half = float(t.ppf(0.975, row["n"] - 1) * np.sqrt(row["variance"] / row["n"]))
        shown.append(Bar(str(row["name"]), float(row[column]), half))
    return bars(shown, label) if shown else ""


def _viewer(result: Result, volumes: Volumes, background: str | None, labelled: Result | None = None) -> dict[str, Any]:
    """Return what the viewer shows of a result: its background, the voxels of its regions, and its maps.

    Parameters
    ----------
    result
        The result.
    volumes
        Takes the volumes.
    background
        Name of the volume below the maps; None: there is none.
    labelled
        The result whose maps tell where regions are. Default: ``result`` itself.
    """
    own = labelled or result
    arrays: dict[str, np.ndarray] = {}
    affine = np.eye(4)
    for column in filter(set(own.table.columns).__contains__, _MAPS):
        shown = own.maps.get(_STATISTIC_OF.get(column, column))
        if shown is not None:
            arrays[column], affine = within_budget(shown.img, "nearest" if own.is_region_wise else "linear")
    labels = _labels(own, arrays, affine)
    names = own.table["name"].astype(str).tolist()
    rows: list[int] = []
    maps: list[dict[str, Any]] = []
    label_volume = None
    if labels is not None:
        numbers = dict(zip(names, labels.numbers.tolist(), strict=True))
        rows = [numbers.get(str(name), 0) for name in result.table["name"]]
        maps = list(_painted(result, rows))
        label_volume = volumes.add(labels.volume, affine)
        shared = [[name for name in names if numbers[name] == number] for number in range(1, len(names) + 1)]
        names = [" or ".join(each[:3]) + (f" or {len(each) - 3} more" if len(each) > 3 else "") for each in shared]
    else:
        for column, values in arrays.items():
            if own is result and (name := volumes.add(values.astype(np.float32), affine)) is not None:
                described = result.maps[_STATISTIC_OF.get(column, column)]
                maps.append(_layer(column, _MAPS[column], described.units, values, volume=name))
    for statistic, each in _voxelwise(result):
        values, own_affine = within_budget(each.img)
        if (name := volumes.add(values.astype(np.float32), own_affine)) is not None:
            maps.append(_layer(f"voxels-{statistic}", f"{statistic}, voxel by voxel", each.units, values, volume=name))
    return {"background": background, "labels": label_volume, "names": names, "rows": rows, "maps": maps}


def _labels(result: Result, arrays: Mapping[str, np.ndarray], affine: np.ndarray) -> Labels | None:
    """Return the voxels of a result's regions: from the atlas where it is at hand, else from the values of its maps."""
    if not arrays or not result.is_region_wise:
        return None
    atlas = _shipped_atlas(result)
    if atlas is not None and _is_in_mni(result):
        labels = _labels_on(atlas, next(iter(arrays.values())).shape, affine.tobytes())
        return numbered(labels, result.table)
    return labels_by_value(arrays, result.table)


def _shipped_atlas(result: Result) -> Atlas | None:
    """Return the atlas of a result, if it is shipped and has not changed since."""
    search = result.provenance.get("Search", {})
    return _recorded(str(search.get("atlas", "")), str(search.get("sha256", "")))


@lru_cache(maxsize=2)
def _recorded(name: str, sha256: str) -> Atlas | None:
    return Atlas.recorded({"atlas": name, "sha256": sha256})


@lru_cache(maxsize=2)
def _labels_on(atlas: Atlas, shape: tuple[int, ...], affine: bytes) -> np.ndarray:
    """Return the labels of an atlas on a grid, which all results of a study share."""
    return atlas.on(VoxelGrid(shape, np.frombuffer(affine).reshape(4, 4)))


def _voxelwise(result: Result) -> Iterator[tuple[str, Map]]:
    for name, each in result.maps.items():
        if name.startswith("voxels-"):
            yield name.removeprefix("voxels-"), each


def _painted(result: Result, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Return the columns that the viewer paints on the regions; rows that share voxels need the same value."""
    table = result.table
    same = (
        "evidence" in table and np.allclose(table["evidence"], table["score"], equal_nan=True)
        if "score" in table
        else False
    )
    for column, title in _MAPS.items():
        if column not in table or (column == "evidence" and same) or not table[column].notna().any():
            continue
        values = table[column].to_numpy(dtype=float)
        title = "score (evidence)" if column == "score" and same else title
        shared = pd.Series(values).groupby(np.asarray(numbers)).transform("nunique", dropna=False).to_numpy()
        plain = [None if np.isnan(v) or n > 1 else float(f"{v:.6g}") for v, n in zip(values, shared, strict=True)]
        yield _layer(column, title, result.columns.get(column, ("", ""))[1], values, values=plain)


def _layer(key: str, title: str, units: str, shown: np.ndarray, **more: Any) -> dict[str, Any]:
    """Return a map for the viewer; one with values below 0 has a scale of two colours."""
    finite = shown[np.isfinite(shown)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return {"key": key, "title": title, "units": units, "low": low, "high": high, **more}


def _template(volumes: Volumes) -> str | None:
    """Embed the template with voxels of 2 mm."""
    values = np.clip(template_on(2.0) * 255, 0, 255).astype(np.uint8)
    return volumes.add(values, mni_grid(2.0).affine)


def _background(result: Result, volumes: Volumes, scans: Mapping[str, SpatialImage]) -> str | None:
    """Embed the scan in 8 bits; without it the template, where the result is in its space."""
    scan = _scan_of(result, scans)
    if scan is None:
        return _template(volumes) if _is_in_mni(result) else None
    values, affine = within_budget(scan)
    low, high = np.percentile(values, [0.5, 99.5])
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1) * 255
    return volumes.add(np.rint(scaled).astype(np.uint8), affine)


def _is_in_mni(result: Result) -> bool:
    """Return whether the maps are known to be in MNI space, as those of groups are."""
    provenance = result.provenance
    return "Group" in provenance or (provenance.get("Transform") is None and searched_in_mni(provenance))


def _scan_of(result: Result, scans: Mapping[str, SpatialImage]) -> SpatialImage | None:
    """Return the image of the scan that was explained; None if there is none."""
    given = result.provenance.get("Input", {})
    return scans.get(str(given.get("sha256"))) if isinstance(given, dict) else None


def _figure(result: Result, scans: Mapping[str, SpatialImage]) -> Figure | None:
    """Return the five highest-scoring regions above slices of the map, on the template or on a scan in native space.

    Of an image it is the map over the image.
    """
    if result.image is not None:
        alt = f"The image, and the map of {prose.target_of(result.provenance)} over it."
        caption = "The image, and its map over it. A cross marks the map's highest pixel."
        return Figure(_png(result_figure(result.image)), alt, caption)
    saliency = result.maps.get("saliency")
    if saliency is None:
        return None
    is_in_mni = _is_in_mni(result)
    below = template() if is_in_mni else _scan_of(result, scans)
    name = f"Group {group}" if (group := result.provenance.get("Group")) else _input_name(result)
    title = f"{name}: what speaks for {prose.target_of(result.provenance)}"
    label = f"score: {prose.unit_of_score(result)}"
    brain_map = BrainMap(nib.Nifti1Image.from_image(saliency.img), title[:90], label[:60], below, is_in_mni)
    try:
        png = _png(five_regions_figure(brain_map, result.table, _shipped_atlas(result)))
    except ValueError:  # a map that is not that of its table: the page shows all else
        return None
    names = ", ".join(row["name"] for row in prose.strongest(result)) or "none"
    where = f"the template ({MNI})" if is_in_mni else "the scan" if below is not None else "the map"
    return Figure(
        png,
        f"The highest-scoring regions in five colours: {names}. Below, axial slices of the map.",
        f"The five highest-scoring regions in red, green, blue, yellow and purple on {where}, above axial slices of "
        "the map of all regions.",
    )


def _png(figure: DrawnFigure) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.png"
        png_writer(figure, 110)(path)
        return path.read_bytes()


def _participants(groups: Sequence[Result]) -> dict[str, ShownTable]:
    """Return the participants of all groups, with what the model said of them."""
    rows = []
    for group in groups:
        for each in prose.participants_of(group):
            account = each.get("account") or {}
            rows.append(
                {
                    "participant_id": each.get("participant_id") or each.get("name"),
                    "group": group.provenance.get("Group"),
                    "probability": each.get("probability"),
                    "accounted": account.get("accounted"),
                    "in_sample": each.get("InSample"),
                }
            )
    if not rows:
        return {}
    table = pd.DataFrame(rows).dropna(axis=1, how="all")
    columns = {
        "participant_id": ("Identifier of the participant, or name of the scan", ""),
        "group": ("Group of the participant", ""),
        "probability": ("Probability of the target by the model that explained the participant", "probability"),
        "accounted": ("Share of the effect that the regions account for", "share"),
        "in_sample": ("Whether a model was trained on the participant that it explained", ""),
    }
    return {"Participants": shown_table(table, columns, counted(len(table), "participant"))}


def _performance(results: Results) -> tuple[dict[str, ShownTable], list[str]]:
    """Return how well the models classify the participants that they explain, together and by fold, and a warning."""
    predictions = next((each.table for name, each in results.tables.items() if name.endswith("_predictions.tsv")), None)
    if predictions is None or results.provenance.get("InSample") is not False:
        return {}, []
    is_case = (predictions["group"] == results.provenance.get("Case")).to_numpy()
    p = predictions["p"].to_numpy(dtype=float)
    if not ((p >= 0) & (p <= 1)).all():
        return {}, []
    pooled = pooled_performance(is_case, p)
    folds = predictions["folds"].astype(str)
    rows = [
        {"fold": fold, "n_test": int((folds == fold).sum()), **measure(is_case[folds == fold], p[folds == fold])}
        for fold in sorted(folds.unique())
    ]
    by_fold = shown_table(pd.DataFrame(rows), {**COLUMNS, "fold": ("Folds whose models explained them", "")}, "By fold")
    together = shown_table(pooled, {**COLUMNS, **POOLED}, "All participants, each by a model that never saw them")
    warning = chance_warning(pooled)
    tables = {"Performance of the models": together, "Performance by fold": by_fold}
    return tables, [] if warning is None else [prose.sentence(warning)]


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Return every entry of nested records as a name and a value, such as ``("Settings: link", "logit")``."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}: ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for number, each in enumerate(value, start=1):
                yield from flat(each, f"{prefix}{name} {number}: ")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield f"{prefix}{name}", "n/a" if value is None else text
