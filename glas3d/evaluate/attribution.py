"""`attribute` and `compare`: any explanation method on a scan or an image, and several of them side by side."""

from __future__ import annotations

import difflib
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from glas3d.core.explanation import Explanation
from glas3d.core.foreign_code import failures_of
from glas3d.core.model import NoLogOdds
from glas3d.core.score import Target
from glas3d.counts import counted
from glas3d.display import Drawn, Summary, shown_output
from glas3d.errors import GlasError, GlasWarning
from glas3d.evaluate import rivals
from glas3d.evaluate.rivals.light_and_shadow import Glas
from glas3d.evaluate.rivals.methods import METHODS, AttributionOptions, Method, listed_methods, method_of
from glas3d.evaluate.rivals.rival import Rival, Task, captum
from glas3d.evaluate.rivals.value import ExplainedValue
from glas3d.evaluate.subject import Subject, options_of, resolve_subject
from glas3d.explain.options import UnsetSettings
from glas3d.explain.outputs import refuse_other_results
from glas3d.explain.table import DESCRIPTIONS, table_columns
from glas3d.options import parse
from glas3d.output import Writer, described_table, with_seal, write_json, write_together

_SHOWN = 10  # rows in a notebook


@dataclass(frozen=True, eq=False)
class Attribution(Drawn):
    """The map of one explanation method.

    Attributes
    ----------
    method
        Its name.
    map
        NIfTI image on the scan's own grid, or an array ``(rows, cols)`` on the image's own pixels; float32. Its units
        are ``map_units``; what higher values mean is the method's own, and no evidence where it is a control or a size.
    table
        One row for each region: ``index``, ``name``, and ``score``, the value of the region.
    volume
        ``(*spatial)`` float32, the map on the grid of the model.
    density
        ``(m,)`` float64, in the order of the table: the value of each region for one voxel. For light and shadow their
        density, where they have both; else the value over the region's voxels, or the value itself where that is a
        mean over voxels.
    evaluations
        Model evaluations that it took, a backward pass counted as two.
    seconds
        How long it took.
    provenance
        Every setting, version and hash, ready for JSON.
    stem, search_label
        Start of the files' names, and the search in the name of the table.
    """

    method: str
    map: Any
    table: pd.DataFrame
    volume: np.ndarray
    density: np.ndarray
    evaluations: int
    seconds: float
    provenance: dict[str, Any]
    stem: str
    search_label: str
    _writer: tuple[str, Writer]

    def __repr__(self) -> str:
        first = self.table.sort_values("score", ascending=False).iloc[0]
        return (
            f"Attribution({self.method} of {self.stem}: {counted(len(self.table), 'region')}, "
            f"highest-scoring {first['name']}, "
            f"{self.evaluations} model evaluations)"
        )

    def _summary(self) -> Summary:
        highest = self.table.dropna(subset=["score"]).nlargest(_SHOWN, "score")
        facts = {
            "output": shown_output(self.provenance["Target"]["class"], self.provenance["Probability"]),
            "model evaluations": self.evaluations,
            "seconds": f"{self.seconds:.1f}",
        }
        rows = [(name, f"{score:.3g}") for name, score in zip(highest["name"], highest["score"], strict=True)]
        caption = f"The {len(rows)} highest of {counted(len(self.table), 'region')}"
        return Summary(f"Attribution by {self.method} of {self.stem}", facts, ("name", "value"), rows, caption=caption)

    @property
    def units(self) -> str:
        """Units of the regions' values, such as ``log-odds``."""
        return self._described[1]

    @property
    def map_units(self) -> str:
        """Units of the map: those of the regions, of which a voxel has a share where they are sums over voxels."""
        is_sum = self.provenance["Settings"].get("region") == "sum"
        return f"{self.units} per voxel" if is_sum else self.units

    @property
    def _described(self) -> tuple[str, str]:
        """What the regions' values mean, and their units."""
        method, settings = METHODS[self.method], self.provenance["Settings"]
        if method.units:
            text = f"Value of the region by {self.method} ({method.summary}); higher means {method.higher}"
            return text, method.units.format(output="log-odds" if settings.get("link") == "logit" else "probability")
        text, units = table_columns(["score"], self.provenance)["score"]
        fusion = settings["fusion"]
        higher = (
            "more evidence for the target" if fusion in ("light", "mean") else "more effect, for or against the target"
        )
        return f"{text}, by {self.method}; higher means {higher}", units

    @property
    def label(self) -> str:
        """The method in file names, such as ``gradcam``."""
        return self.method.replace("_", "")

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
        """Write the map, the table and their sidecars; all or none.

        Parameters
        ----------
        folder
            Folder of the files, created if it does not exist.
        overwrite
            Replace results of another input, target or settings, too.

        Returns
        -------
        The paths written.

        Raises
        ------
        GlasError
            The folder has results of another input, target or settings under the same names, or cannot be written.
        """
        sidecar = f"{self.search_label}{self.label}_regions"
        if not overwrite:
            refuse_other_results(Path(folder), self.stem, self.provenance, sidecar)
        table = f"{self.stem}_{sidecar}"
        columns = DESCRIPTIONS | {"score": self._described}
        files = described_table(table, self.table, columns, **self.provenance)
        return write_together(Path(folder), with_seal(files | self._files(), f"{table}.json"))

    def _files(self) -> dict[str, Writer]:
        """Return the functions that write the map and its sidecar, by the names of the files."""
        ending, writer = self._writer
        name = f"{self.stem}_desc-{self.label}_stat-attribution_statmap"
        return {
            f"{name}{ending}": writer,
            f"{name}.json": write_json({"Statistic": "attribution", "Units": self.map_units} | self.provenance),
        }


@dataclass(frozen=True, eq=False)
class Comparison(Drawn):
    """Several explanation methods of one scan or image for one class.

    Attributes
    ----------
    attributions
        The map and table of each method, by its name.
    table
        One row for each region: ``index``, ``name``, and one column a method.
    """

    attributions: Mapping[str, Attribution]
    table: pd.DataFrame

    def __repr__(self) -> str:
        first = next(iter(self.attributions.values()))
        return f"Comparison({first.stem}: {', '.join(self.attributions)}, {counted(len(self.table), 'region')})"

    def _summary(self) -> Summary:
        first = next(iter(self.attributions.values()))
        correlations = self.correlations()
        rows = [
            (
                name,
                each.evaluations,
                f"{each.seconds:.1f}",
                "n/a" if correlations[name] != correlations[name] else f"{correlations[name]:+z.2f}",
                ", ".join(each.table.dropna(subset=["score"]).nlargest(3, "score")["name"].astype(str)),
            )
            for name, each in self.attributions.items()
        ]
        columns = ("method", "evaluations", "seconds", "rho", "highest regions")
        provenance = first.provenance
        facts = {
            "output": shown_output(provenance["Target"]["class"], provenance["Probability"]),
            "regions": len(self.table),
            "rho": f"Spearman's rank correlation of the regions' values with those of {first.method}",
        }
        return Summary(f"Comparison of methods, {first.stem}", facts, columns, rows)

    @property
    def provenance(self) -> dict[str, Any]:
        """Every setting, version and hash, ready for JSON; the settings of each method by its name."""
        first = next(iter(self.attributions.values()))
        by_name = {name: each.provenance for name, each in self.attributions.items()}
        return first.provenance | {
            "Settings": {"methods": list(by_name)} | {name: each["Settings"] for name, each in by_name.items()},
            "Evaluations": {name: each["Evaluations"] for name, each in by_name.items()},
            "Method": list(by_name),
        }

    def correlations(self, with_method: str | None = None) -> pd.Series:
        """Return Spearman's rank correlation of the regions' values with those of one method, by method.

        Parameters
        ----------
        with_method
            Its name; None: the first.
        """
        values = self.table[list(self.attributions)]
        reference = next(iter(self.attributions)) if with_method is None else with_method
        ranks = values.rank()
        constant = ranks.nunique() < 2
        return ranks.loc[:, ~constant].corrwith(ranks[reference]).reindex(values.columns)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
        """Write the table of all methods, the map of each, and the sidecars; all or none.

        Parameters
        ----------
        folder
            Folder of the files, created if it does not exist.
        overwrite
            Replace results of another input, target, methods or settings, too.

        Returns
        -------
        The paths written.

        Raises
        ------
        GlasError
            The folder has results of another input, target, methods or settings under the same names, or cannot be
            written.
        """
        first = next(iter(self.attributions.values()))
        sidecar, provenance = f"{first.search_label}methods_regions", self.provenance
        if not overwrite:
            refuse_other_results(Path(folder), first.stem, provenance, sidecar)
        table = f"{first.stem}_{sidecar}"
        columns = DESCRIPTIONS | {name: each._described for name, each in self.attributions.items()}
        files = described_table(table, self.table, columns, **provenance)
        for attribution in self.attributions.values():
            files |= attribution._files()
        return write_together(Path(folder), with_seal(files, f"{table}.json"))


def attribute(
    img: Any, predict: Any, target: Target = 1, method: str = "glas", search: Any = None, **options: Any
) -> Attribution:
    """Explain the output of a model for one scan or image by one of many methods.

    All methods have the same regions and the same reference, explain the same class, and return a map on the scan's own
    grid (or the image's own pixels) and a value for every region. The model is left as it was.

    Parameters
    ----------
    img
        A scan as `glas3d.explain_img` takes it (path or nibabel image), or an image as `glas3d.explain.explain_image`
        takes it.
    predict
        A `Predictor`, or any callable ``(n, c, *spatial)`` to ``(n, classes)`` probabilities. Methods that need
        gradients need a torch network.
    target
        Class index or name.
    method
        One of {methods}.
    search
        The regions: as `glas3d.explain_img` or `glas3d.explain.explain_image` takes them. The region of a point or of
        a grid's cell is what is nearest to it. None: the regions of AAL in a scan, 15 x 15 cells of an image.
    **options
        The options of `AttributionOptions` (``link``, ``batch_size``); those of the input (``background``,
        ``mask_img``, ...; see `glas3d.explain_img` or `glas3d.explain.explain_image`); and the method's own settings
        (see `glas3d.evaluate.rivals`), for ``glas`` those of `GLAS` and ``refine``.

    Returns
    -------
    The map, the table of regions, and how many model evaluations it took.

    Raises
    ------
    GlasError
        Input that does not fit, or a model that lacks what the method needs.
    TypeError
        A keyword that is none of the above.

    Warns
    -----
    GlasWarning
        The model has no log-odds and no ``link`` was given: its own output is explained.
    """
    (attribution,) = _attributions(img, predict, target, {method: options}, search, {}, caller="attribute")
    return attribution


def compare(
    img: Any,
    predict: Any,
    target: Target = 1,
    methods: Iterable[str] = ("glas", "feature_ablation", "integrated_gradients", "difference"),
    search: Any = None,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    folder: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Comparison:
    """Explain the output of a model for one scan or image by several methods.

    Parameters
    ----------
    img, predict, target, search
        As `attribute` takes them.
    methods
        Names of methods: {methods}. A mapping holds settings of each method by their names.
    progress
        Called with the methods done and in all.
    folder
        Where to save the comparison too; None: it is not saved.
    overwrite
        Replace another comparison in ``folder``. Default: refuse it, before the first method is computed.
    **options
        The options of `AttributionOptions` and those of the input, as `attribute` takes them. A method that is made of
        one ``link`` alone keeps to it.

    Returns
    -------
    The maps, and a table with one column a method.

    Raises
    ------
    GlasError
        Input that does not fit, no method or one that is named twice, or a model that lacks what a method needs; all
        methods are checked before the first is computed.
    TypeError
        A keyword that is none of the above.
    """
    names = [methods] if isinstance(methods, str) else list(methods)
    if not names or len(set(names)) != len(names):
        raise GlasError(f"methods must be one or more, each once, got {', '.join(map(str, names)) or 'none'}")
    own = {name: dict(methods[name]) if isinstance(methods, Mapping) else {} for name in names}
    attributions = {}
    progress(0, len(names))
    kept = None if overwrite else folder
    for attribution in _attributions(img, predict, target, own, search, options, caller="compare", folder=kept):
        attributions[attribution.method] = attribution
        progress(len(attributions), len(names))
    first = next(iter(attributions.values()))
    columns = {name: attribution.table["score"] for name, attribution in attributions.items()}
    comparison = Comparison(attributions, first.table[["index", "name"]].assign(**columns))
    if folder is not None:
        comparison.save(folder, overwrite=overwrite)
    return comparison


for _function in (attribute, compare):
    _function.__doc__ = (_function.__doc__ or "").replace("{methods}", listed_methods())


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A method that is ready to be computed."""

    name: str
    method: Method
    rival: Rival
    value: ExplainedValue
    auto: bool  # the link was left to the model


def _attributions(
    img: Any,
    predict: Any,
    target: Target,
    methods: Mapping[str, Mapping[str, Any]],
    search: Any,
    shared: Mapping[str, Any],
    caller: str,
    folder: str | os.PathLike[str] | None = None,
) -> Iterable[Attribution]:
    """Check everything, and yield the attribution of each method as it is computed.

    Parameters
    ----------
    methods
        The keywords of each method, by its name.
    shared
        Keywords of all methods, which are not settings of one.
    caller
        Name of the function that was given the keywords.
    folder
        Folder that may not hold another comparison; None: any folder may.
    """
    of_input = options_of(img)
    known = {declared.name for declaration in (AttributionOptions, of_input) for declared in fields(declaration)}
    general = dict(shared)
    own: dict[str, Rival] = {}
    for name, keywords in methods.items():
        method = method_of(name)
        if method.library == "Captum":
            captum()  # a missing package is named before the first method takes its minutes
        of_method = {key for key in keywords if key not in known or (key == "refine" and _is_glas(method))}
        general |= {key: value for key, value in keywords.items() if key not in of_method}
        own[name] = _rival(method, {key: keywords[key] for key in keywords if key in of_method}, known, caller)
    options, _ = parse(general, AttributionOptions, of_input, caller=caller)
    of_methods = {declared.name for declared in fields(AttributionOptions)}
    keywords_of_input = {name: value for name, value in general.items() if name not in of_methods}
    subject = resolve_subject(img, predict, target, search, keywords_of_input, options.batch_size)
    values: dict[str, ExplainedValue] = {}
    prepared = []
    for name, rival in own.items():
        link = options.link
        if isinstance(rival, Glas) and link is not None:  # a setting of its own, which presets choose too
            if caller == "attribute":
                rival = replace(rival, settings={**rival.settings, "link": link})
            link = None
        if link not in (None, *rival.links):
            if caller == "attribute":
                raise GlasError(f"{name} is made of the {' or '.join(rival.links)} alone, got link={link!r}")
            link = None
        wanted = link or ("auto" if "logit" in rival.links else "probability")
        if wanted not in values:
            values[wanted] = subject.value(wanted)
        rival.check(values[wanted], name)
        prepared.append(_Prepared(name, method_of(name), rival, values[wanted], wanted == "auto"))
    if "auto" in values and values["auto"].why_no_log_odds:
        _note_on_link(values["auto"].why_no_log_odds)
    if folder is not None:
        _refuse_other_comparison(folder, subject, prepared)
    return (_computed(each, subject) for each in prepared)


def _refuse_other_comparison(folder: str | os.PathLike[str], subject: Subject, prepared: Iterable[_Prepared]) -> None:
    """Refuse a folder with a comparison of another input, target or model; settings are compared when it is saved.

    Raises
    ------
    GlasError
        There is such a comparison.
    """
    target = next(iter(prepared)).value.target
    sidecar = f"{subject.search_label}methods_regions"
    refuse_other_results(Path(folder), subject.stem, subject.record(target) | {"Settings": {}}, sidecar)


def _rival(method: Method, settings: Mapping[str, Any], known: Iterable[str], caller: str) -> Rival:
    """Return the object that computes a method.

    Raises
    ------
    TypeError
        A keyword that is no setting of the method.
    """
    made: type[Rival] = getattr(rivals, method.rival)
    if _is_glas(method):
        of_mode = {"refine": settings["refine"]} if "refine" in settings else {}
        names = [name for name in settings if name not in of_mode]
        (checked,) = parse({name: settings[name] for name in names}, UnsetSettings, caller=caller)
        return Glas(settings={name: getattr(checked, name) for name in names} | of_mode, **method.settings)
    declared = {each.name for each in fields(made)}  # type: ignore[arg-type]
    for name in settings:
        if name not in declared:
            near = difflib.get_close_matches(name, {*declared, *known}, 1, 0.75)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{caller}() got an unexpected keyword argument {name!r} for {method.rival}{hint}")
    return made(**{**method.settings, **settings})


def _is_glas(method: Method) -> bool:
    """Return whether a method is light and shadow, which can be explained with fewer evaluations too."""
    return getattr(rivals, method.rival) is Glas


def _computed(prepared: _Prepared, subject: Subject) -> Attribution:
    """Compute a method, and map the result back."""
    name, begin = prepared.name, time.perf_counter()
    prepared.value.evaluations = 0
    try:
        values = _attribution_of(prepared, subject.task(prepared.value))
    except NoLogOdds as why:  # probabilities of some perturbed volume are 0 or 1
        if not prepared.auto:
            raise
        _note_on_link(str(why))
        prepared = replace(prepared, value=subject.value("probability"))
        values = _attribution_of(prepared, subject.task(prepared.value))
    value = prepared.value
    seconds = time.perf_counter() - begin
    settings = {each.name: getattr(prepared.rival, each.name) for each in fields(prepared.rival)}  # type: ignore[arg-type]
    volume: np.ndarray | None
    density: np.ndarray | None = None
    if isinstance(values, Explanation):
        evaluations, settings, target = int(values.settings["evaluations"]), dict(values.settings), values.target
        volume, scores = values.saliency if values.segments is None else None, values.score
        density = scores if settings["density"] else values.density
    else:
        evaluations, target = value.evaluations, value.target
        if evaluations:
            settings["link"] = value.link
        array = values.detach().cpu().numpy()
        if array.ndim == 1:
            volume, scores = None, array.astype(np.float64)
        else:
            volume = array.astype(np.float32)
            scores = _of_regions(volume, subject.labels, len(subject.index), prepared.method.region)
            settings["region"] = prepared.method.region
            density = scores if prepared.method.region == "mean" else None
    if density is None:
        counts = np.bincount(subject.labels.ravel(), minlength=len(subject.index) + 1)[1:]
        density = np.divide(scores, counts, out=np.full(len(scores), np.nan), where=counts > 0)
    record = subject.record(target)
    provenance = record | {
        "Method": name,
        "Settings": settings | record["Settings"],
        "Probability": value.probability,
        "Evaluations": evaluations,
    }
    mapped = subject.map_back(volume, scores, provenance["Target"]["class"])
    table = subject.regions()
    by_index = [table["index"].map(dict(zip(subject.index, each, strict=True))) for each in (scores, density)]
    table["score"] = by_index[0]
    if volume is None:
        padded = np.concatenate([[0.0], scores])
        volume = padded[subject.labels].astype(np.float32)
    return Attribution(
        name,
        mapped,
        table,
        volume,
        by_index[1].to_numpy(dtype=np.float64),
        evaluations,
        seconds,
        provenance,
        subject.stem,
        subject.search_label,
        subject.writer(mapped),
    )


def _note_on_link(why: str) -> None:
    """Warn that a model has no log-odds."""
    warnings.warn(f"methods explain the model's own output: {why}", GlasWarning, stacklevel=4)


def _attribution_of(prepared: _Prepared, task: Task) -> torch.Tensor | Explanation:
    """Return the values that a method attributes; whatever a network or library raises becomes one sentence."""
    if isinstance(prepared.rival, Glas):
        return prepared.rival.attribute(task)
    with failures_of(f"{prepared.name} cannot explain this model"), prepared.value.prepared():
        values = prepared.rival.attribute(task)
    if not isinstance(values, Explanation) and torch.isinf(values).any():
        raise GlasError(f"{prepared.name} gives infinite values on this model")
    return values


def _of_regions(volume: np.ndarray, labels: np.ndarray, m: int, how: str) -> np.ndarray:
    """Return the mean or the sum of a map's voxels in each region, ``(m,)`` float64; NaN for a region without any."""
    known = np.isfinite(volume)
    counts = np.bincount(labels[known], minlength=m + 1)[1:].astype(np.float64)
    sums = np.bincount(labels[known], weights=volume[known].astype(np.float64), minlength=m + 1)[1:]
    counts[counts == 0] = np.nan
    return np.asarray(sums / counts if how == "mean" else sums + 0 * counts)
