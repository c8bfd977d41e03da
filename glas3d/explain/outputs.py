"""The parts that scans and images share: the resolved request, and results mapped back, named and saved."""

from __future__ import annotations

import json
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd

from glas3d.bids_names import bids_label, have_distinct_labels
from glas3d.core.explanation import COMPUTATION_SETTINGS, Explanation
from glas3d.core.glas import GLAS
from glas3d.core.model import classes_of
from glas3d.core.score import class_index
from glas3d.core.search import Segments, resolve_search
from glas3d.counts import counted, enumerated
from glas3d.display import Drawn, Summary, shown_output
from glas3d.errors import GlasError, GlasWarning
from glas3d.explain.modes import Mode, ModeResult, Task
from glas3d.explain.notes import Note, notes_on
from glas3d.explain.table import scales_of, table_columns
from glas3d.output import Writer, check_folder, described_table, to_json, with_seal, write_json, write_together
from glas3d.progress import Progress, reported
from glas3d.reading import read_json_object

STATISTICS = ("saliency", "light", "shadow", "drop")
"""What maps show, by the ``stat-`` of their file names."""

_SETTINGS_SHOWN, _VALUES_SHOWN = 4, 40  # settings by name in a message, and characters of the two values of one
_SAME_OUTPUT = 1e-4  # how far the outputs of one model may be apart by engine and batch size (docs/decisions/0007)


def drawn_ends(explanation: Explanation) -> dict[str, np.ndarray]:
    """Return what maps show of light, shadow and drop, ``(m,)`` by their names, without those that were not evaluated.

    In log-odds light is drawn above that of the background alone: 0 is where there is nothing, as in the other maps.
    """
    ends = {name: getattr(explanation, name) for name in STATISTICS[1:]}
    if explanation.settings.get("link") == "logit" and not np.isnan(explanation.effect):
        ends["light"] = explanation.light - explanation.bare
    return {name: values for name, values in ends.items() if not np.isnan(values).all()}


class SavedResult(Drawn):
    """A result that is saved to files: a map and a sidecar for each statistic, the maps of rounds, and the table.

    Attributes
    ----------
    stem
        Start of the files' names.
    table
        One row for each region or point.
    provenance
        Every setting, version and hash, ready for JSON.
    parts
        Results that this result was fused from; their files are saved too.
    """

    stem: str
    table: pd.DataFrame
    provenance: dict[str, Any]
    parts: Mapping[str, Any]
    _ending: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the result, such as that the model does not predict the target; mostly empty."""
        return tuple(self.provenance.get("Notes", ()))

    def __repr__(self) -> str:
        facts = f"{self.outcome}, {self._searched}, {self._highest()}"
        return f"{type(self).__name__}({self.stem}: {facts}){self._shown_notes()}"

    @property
    def outcome(self) -> str:
        """The output that is explained, as ``P(AD) = 0.982``."""
        against = self._name_of("Against") if "Against" in self.provenance else None
        return shown_output(self.class_name, self.provenance["Probability"], against)

    @property
    def class_name(self) -> str:
        """The class that is explained; ``class 1`` of a model that names none."""
        return self._name_of("Target")

    def _name_of(self, key: str) -> str:
        model, name = self.provenance["Model"], str(self.provenance[key]["class"])
        first = model[0] if isinstance(model, list) else model
        return name if first.get("classes") else f"class {name}"

    @property
    def _searched(self) -> str:
        """What was searched, as ``116 regions of AAL``."""
        search, n = self.provenance["Search"], int(self.table["score"].notna().sum())
        if "atlas" in search:
            return f"{counted(n, 'region')} of {search['atlas']}"
        if "grid" in search:
            cells = search["grid"]
            shape = cells if isinstance(cells, int) else " x ".join(map(str, cells))
            return f"{counted(n, 'point')}, a grid of {shape} cells"
        return f"{n} {'segments' if 'segments' in search else 'points'}"

    @property
    def _scored(self) -> str:
        """How scores were made, in a line."""
        settings = self.provenance["Settings"]
        fusion = {"product": "light x shadow", "mean": "evidence: the mean of both ends"}
        made = fusion.get(settings.get("fusion", ""), str(settings.get("fusion", "unknown")))
        scale = "log-odds" if settings.get("link") == "logit" else "probability"
        unit = "mm" if settings.get("unit") == "mm" else "voxels"
        sigmas = f"{settings.get('sigma_light')} / {settings.get('sigma_shadow')} {unit}"
        return f"{made} ({scale}), {settings.get('kernel')} masks, sigma {sigmas}"

    def _direction(self, row: Mapping[Any, Any]) -> str:
        """Return what a row of the table says of the class, as ``for AD``."""
        direction = row.get("direction")
        return f"{direction} {self.class_name}" if isinstance(direction, str) else ""

    def _position(self, row: Mapping[Any, Any]) -> str:
        """Return where a row of the table is."""
        return ""

    def _highest(self) -> str:
        """Return the highest-scoring region or point, and what it says."""
        ranked = self.table.dropna(subset=["rank"]).sort_values("rank")
        if ranked.empty:
            return "no region scores higher than the others"
        first: Mapping[Any, Any] = ranked.to_dict("records")[0]
        facts = ", ".join(filter(None, (self._position(first), f"drop {first['drop']:+z.3g}", self._direction(first))))
        return f"highest-scoring {first['name']} ({facts})"

    def _summary(self) -> Summary:
        model = self.provenance["Model"]
        models = model if isinstance(model, list) else [model]
        facts = {
            "output": self.outcome,
            "model": ", ".join(str(each["name"]) for each in models),
            "search": self._searched,
            "score": self._scored,
        }
        account = self.provenance.get("Account") or {}
        if account.get("accounted") is not None:
            facts["accounted for"] = f"{account['accounted']:z.0%} of the effect, by the evidence of all regions"
        if self.parts:
            facts["made of"] = ", ".join(self.parts)
        highest = self.table.dropna(subset=["rank"]).sort_values("rank").head(_SHOWN).to_dict("records")
        columns = ["rank", "name", "where", "drop", "direction", "score"]
        rows = [
            [
                row["rank"],
                row["name"],
                self._position(row),
                "n/a" if row["drop"] != row["drop"] else f"{row['drop']:+z.3g}",
                self._direction(row),
                f"{row['score']:.3g}",
            ]
            for row in highest
        ]
        top = max((abs(row["score"]) for row in highest), default=0.0) or 1.0
        return Summary(
            f"Explanation of {self.stem}",
            facts,
            columns,
            rows,
            shares=[max(row["score"], 0.0) / top for row in highest],
            caption=f"The {len(rows)} highest-scoring of {self._searched}",
            notes=self.notes,
        )

    def _shown_notes(self) -> str:
        """Return the notes as lines that follow the representation of the result."""
        return "".join(f"\nnote: {note}" for note in self.notes)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> list[Path]:
        """Write the maps (NIfTI of a scan, 32-bit float TIFF of an image), the table and the sidecars; all or none.

        Parameters
        ----------
        folder
            Folder of the files, created if it does not exist. Results of the same input, target and settings are
            replaced.
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
        if not overwrite:
            self._refuse_other_results(Path(folder))
        return write_together(Path(folder), with_seal(self._files(), f"{self.stem}_regions.json"))

    def _refuse_other_results(self, folder: Path) -> None:
        refuse_other_results(folder, self.stem, self.provenance)
        for part in self.parts.values():
            part._refuse_other_results(folder)

    @abstractmethod
    def _map(self, statistic: str) -> Writer | None:
        """Return the function that writes the map of a statistic; None where it was not evaluated."""

    @abstractmethod
    def _rounds(self) -> list[Writer]:
        """Return the functions that write the map of each round of a recursion."""

    def _files(self) -> dict[str, Writer]:
        files: dict[str, Writer] = {}
        scales = scales_of(self.provenance)
        for statistic in STATISTICS:
            name = f"{self.stem}_stat-{statistic}_statmap"
            if (writer := self._map(statistic)) is None:
                continue
            files[f"{name}{self._ending}"] = writer
            units = scales["score" if statistic == "saliency" else statistic]
            if statistic == "light" and units == "log-odds":
                units = "log-odds above those of the background alone"
            files[f"{name}.json"] = write_json({"Statistic": statistic, "Units": units} | self.provenance)
        for number, writer in enumerate(self._rounds(), start=1):
            name = f"{self.stem.removesuffix('recursive')}round{number}_stat-saliency_statmap"
            files[f"{name}{self._ending}"] = writer
            scale = {"Statistic": "saliency", "Units": "0 to 1, normalised in this round", "Round": number}
            files[f"{name}.json"] = write_json(scale | self.provenance)
        columns = table_columns(self.table.columns, self.provenance)
        files |= described_table(f"{self.stem}_regions", self.table, columns, **self.provenance)
        for part in self.parts.values():
            files |= part._files()
        return files


def refuse_other_results(
    folder: Path, stem: str, provenance: Mapping[str, Any], sidecar: str = f"stat-{STATISTICS[0]}_statmap"
) -> None:
    """Refuse a folder that has results of the same name that were made otherwise.

    Parameters
    ----------
    folder
        The folder that results will be saved to.
    stem
        Start of the files' names.
    provenance
        What the sidecars of the new results will hold, or the entries of it that tell results apart.
    sidecar
        The rest of the name of the file in which the provenance of existing results would be.

    Raises
    ------
    GlasError
        There are results of another input, target, model, search or settings; the message names what differs. Models
        are told apart by their hash; a function that has none by its output, once that is known.
    """
    path = folder / f"{stem}_{sidecar}.json"
    if not os.path.lexists(path):
        return
    try:
        existing = read_json_object(path, "a sidecar")
    except GlasError:
        existing = {}
    new, old = (json.loads(to_json(content)) for content in (dict(provenance), existing))
    if differing := _differing(new, old):
        raise GlasError(
            f"{folder} already has {path.name}, made with {differing}; give another folder, or --overwrite "
            "(overwrite=True) to replace it"
        )


def _differing(new: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    """Return what two results differ in, settings by name with both values; empty if nothing that tells them apart."""
    first, second = _identity(new), _identity(old)
    differing = [name for name in first if name != "settings" and first[name] != second[name]]
    if "model" not in differing and _has_other_outputs(new, old):
        differing.append("model")
    settings, before = first["settings"], second["settings"]
    others = [name for name, value in settings.items() if before.get(name) != value]
    shown = [_both_values(name, settings[name], before) for name in others[:_SETTINGS_SHOWN]]
    if len(others) > len(shown):
        shown.append(f"{len(others) - len(shown)} more")
    parts = [f"another {enumerated(differing)}"] if differing else []
    if shown:
        parts.append(f"{'another setting' if len(others) == 1 else 'other settings'}, {enumerated(shown)}")
    return " and ".join(parts)


def _both_values(name: str, value: Any, before: Mapping[str, Any]) -> str:
    """Return the name of a setting with its value there and now, where they are short."""
    values = f"{before.get(name, 'not recorded')} there, {value} now"
    return f"{name} ({values})" if len(values) <= _VALUES_SHOWN else name


def _has_other_outputs(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Return whether models of one name, whose weights are not known, are told apart by their outputs for the scan."""
    first, second = (content.get("Probability") for content in (new, old))
    known = any((new.get("Model") or {}).get(name) for name in ("sha256", "weights_sha256"))
    if known or not isinstance(first, int | float) or not isinstance(second, int | float):
        return False
    return abs(first - second) > _SAME_OUTPUT * max(1.0, abs(first))


_SHOWN = 10  # rows in a notebook

R = TypeVar("R", bound=SavedResult)


@dataclass(frozen=True, eq=False)
class NativeMaps(ABC, Generic[R]):
    """The mapping of results back to the grid of the scan or the pixels of the image, with names and provenance.

    Attributes
    ----------
    record
        The provenance that the results of all targets share.
    glas
        The explainer, whose settings the maps of light and shadow are made with.
    setting_notes
        Notes about the settings, the same for all targets.
    """

    record: Mapping[str, Any]
    glas: GLAS
    setting_notes: Sequence[Note]

    def map_back(self, results: Sequence[ModeResult], *, single: bool) -> R | tuple[R, ...]:
        """Return the result of each target on the native grid.

        Parameters
        ----------
        results
            One result for each target.
        single
            Return the only result by itself, not in a tuple.
        """
        for note in dict.fromkeys(note for result in results for note in self._own_notes(result)):
            if note.warns:
                warnings.warn(note.text, GlasWarning, stacklevel=4)
        mapped = tuple(
            self._with_parts(result, several=len(results) > 1 or result.against is not None) for result in results
        )
        return mapped[0] if single else mapped

    def _with_parts(self, result: ModeResult, *, several: bool) -> R:
        """Map one result and its parts; ``several`` classes have files in one folder, so file names hold the class."""
        mapped: Any = self._map_explanation(result.explanation, result.fused, result, several)
        parts = {
            # the parts of two classes are named by the class, other parts by their own name
            name: self._map_explanation(part, "" if result.against is not None else bids_label(name), None, several)
            for name, part in result.parts.items()
        }
        with_parts: R = replace(mapped, parts=parts)
        return with_parts

    @abstractmethod
    def _map_explanation(self, explanation: Explanation, fused: str, result: ModeResult | None, several: bool) -> R:
        """Map one explanation: that of a ``result``, or that of a part, which has no result."""

    @abstractmethod
    def _search_record(self, points: np.ndarray, segments: Segments | None) -> dict[str, Any]:
        """Return what the sidecar records of the search."""

    @abstractmethod
    def _unlabelled_stem(self, segments: Segments | None, fused: str) -> str:
        """Return the start of the files' names without the class."""

    def _provenance(self, explanation: Explanation, result: ModeResult | None) -> dict[str, Any]:
        provenance = {
            **self.record,
            "Search": self._search_record(explanation.points, explanation.segments),
            "Target": self._class_record(explanation.target),
            "Probability": explanation.probability,
            "Settings": explanation.settings | self.record["Settings"],
        }
        if explanation.account is not None:
            provenance["Account"] = explanation.account.record()
        if result is not None and result.against is not None:
            provenance["Against"] = self._class_record(result.against)
        if result is not None and (notes := [*self.setting_notes, *self._own_notes(result)]):
            provenance["Notes"] = [note.text for note in notes]
        return provenance

    def _own_notes(self, result: ModeResult) -> list[Note]:
        model = self.record["Model"]
        return notes_on(
            result.explanation,
            classes=model["classes"],
            activation=model["activation"],
            against=result.against,
            by_background=result.by_background,
        )

    def expected(self, mode: Mode, task: Task) -> list[tuple[str, dict[str, Any]]]:
        """Return the name of the result of each target, and the entries of its provenance that tell results apart.

        They are known before the model is evaluated.

        Returns
        -------
        The start of the files' names, and the entries, of each target.
        """
        classes = classes_of(self.glas.predict)
        n_classes = None if classes is None else len(classes)
        points, segments = resolve_search(task.search, task.volume.shape[1:], task.mask)
        against = None if mode.against is None else class_index(mode.against, classes, n_classes, "versus")
        settings = (
            self.glas.recorded_settings(task.spacing) | self.record["Settings"] | mode.recorded_settings(self.glas)
        )
        shared = {**self.record, "Search": self._search_record(points, segments), "Settings": settings}
        if against is not None:
            shared["Against"] = self._class_record(against)
        targets = [class_index(target, classes, n_classes) for target in task.targets]
        several = len(targets) > 1 or against is not None
        return [
            (self._stem(segments, target, mode.fused, several), {**shared, "Target": self._class_record(target)})
            for target in targets
        ]

    def _stem(self, segments: Segments | None, target: int, fused: str, several: bool) -> str:
        """Return the start of the files' names; it holds the class if there are ``several``."""
        start = self._unlabelled_stem(segments, fused)
        if not several:
            return start
        return f"{start}_label-{class_label(target, self.record['Model']['classes'])}"

    def _class_record(self, target: int) -> dict[str, Any]:
        classes = self.record["Model"]["classes"]
        return {"index": target, "class": classes[target] if classes else str(target)}


@dataclass(frozen=True, eq=False)
class Request(Generic[R]):
    """Everything about an explanation, resolved before the model is evaluated.

    Attributes
    ----------
    glas
        The explainer, with the settings that were given, filled up from the model's preset and the paper.
    task
        The volume as the model takes it, the targets, and where to search.
    mode
        How the model is evaluated.
    maps
        Maps results back to the native grid.
    single
        Whether one target was given, not a sequence.
    """

    glas: GLAS
    task: Task
    mode: Mode
    maps: NativeMaps[R]
    single: bool

    def refuse_other_results(self, folder: str | os.PathLike[str]) -> None:
        """Refuse a folder that has results of the same names that were made otherwise; the model is not evaluated.

        Raises
        ------
        GlasError
            See `refuse_other_results`.
        """
        for stem, provenance in self.maps.expected(self.mode, self.task):
            refuse_other_results(Path(folder), stem, provenance)

    def explain(
        self, progress: Progress | None = None, folder: str | os.PathLike[str] | None = None, *, overwrite: bool = False
    ) -> R | tuple[R, ...]:
        """Evaluate the model, and return the result of each target.

        Parameters
        ----------
        progress
            See `GLAS`.
        folder
            Where to save the results too; None (default): they are not saved.
        overwrite
            Replace results of another input, target or settings in ``folder``. Default: refuse them, before the model
            is evaluated.
        """
        if folder is not None:
            check_folder(Path(folder))
        if folder is not None and not overwrite:
            self.refuse_other_results(folder)
        with reported(progress) as report:  # one line, of however many explanations the result is made
            glas = self.glas.replace(progress=report)
            evaluated = glas.with_link(lambda own: self.mode.evaluate(own, self.task))
        results = self.maps.map_back(evaluated, single=self.single)
        if folder is not None:
            for result in results if isinstance(results, tuple) else (results,):
                result.save(folder, overwrite=overwrite)
        return results


def _identity(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells results apart: what was explained and how, but not how fast it was computed."""
    settings = {k: v for k, v in provenance.get("Settings", {}).items() if k not in COMPUTATION_SETTINGS}
    names = {
        "input": "Input",
        "target": "Target",
        "second class": "Against",
        "model": "Model",
        "search": "Search",
        "brain mask": "BrainMask",
        "transform": "Transform",
        "covariates": "Covariates",
    }
    return {name: provenance.get(key) for name, key in names.items()} | {"settings": settings}


def class_label(target: int, classes: Sequence[str] | None) -> str:
    """Return a BIDS label for a class: its name where all names make different labels, else its index."""
    # indices for all, or an index could be another's name
    return bids_label(classes[target]) if classes and have_distinct_labels(classes) else f"class{target}"
