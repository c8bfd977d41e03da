"""Explain the scans of a folder of ``glas3d explain`` again, and compare every map and table with what was written."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from glas3d.core.explanation import COMPUTATION_SETTINGS
from glas3d.core.search import Grid
from glas3d.core.settings import Settings
from glas3d.core.threads import torch_threads
from glas3d.errors import GlasError, GlasWarning
from glas3d.explain.dataset import find_source
from glas3d.explain.inputs import MATCHED, OWN, matched_name, model_record
from glas3d.explain.scan import resolve_scan
from glas3d.hashing import file_sha256
from glas3d.imaging.atlas import Atlas
from glas3d.output import DESCRIPTION, read_sealed
from glas3d.predict import Predictor, load_model
from glas3d.predict.predictor import model_info
from glas3d.resources import names as shipped_names
from glas3d.verify.differences import Repetition, compared, failed

_SIDECAR = "_regions.json"
# What a sidecar lists under ``Settings`` of a plain explanation; other entries are those of a mode.
_PLAIN = {field.name for field in fields(Settings)} | {
    *COMPUTATION_SETTINGS,
    "background",
    "point",
    "spacing",
    "evaluations",
    "exclusive_classes",
}
# Entries of a sidecar that hold inputs which are not among its settings.
_FURTHER = {
    "Against": "a second class",
    "Recursion": "recursion",
    "BrainMask": "a brain mask",
    "Transform": "a transform",
    "Covariates": "covariates",
}
# Entries that say which software, model and settings made a result.
_SOFTWARE = ("GeneratedBy", "Model", "Settings", "Grid", "Search")


def explain_scans_again(
    out: str | os.PathLike[str],
    scans: Sequence[str | os.PathLike[str]] = (),
    model: str | os.PathLike[str] | None = None,
    *,
    trust: bool = False,
    device: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Repetition]:
    """Explain scans again with the settings that their sidecars record, and compare maps and tables.

    Parameters
    ----------
    out
        A folder with results of `explain_img`.
    scans
        The scans that were explained, which are recognised by their hashes. Scans that still lie in the data set that
        the folder records as its source are located without it.
    model
        The model that explained them. None: the shipped model of the recorded name.
    trust, device
        See `glas3d.load_model`.
    progress
        Called with the results done and in all.

    Returns
    -------
    One `Repetition` for each result.

    Raises
    ------
    GlasError
        The folder has no results of scans, a scan cannot be read, or the model is another.
    """
    results = list(explained_scans(Path(out)))
    if not results:
        raise GlasError(f"scans are explained again from the sidecars of glas3d explain, {out} has none")
    given = {_hash_of(Path(scan)): Path(scan) for scan in scans}
    known = {str(content["Input"].get("sha256")) for _, content in results}
    for digest, path in given.items():
        if digest not in known:
            raise GlasError(f"{path} is none of the scans that were explained in {out}: its hash is another")
    models: dict[str, Predictor] = {}
    repetitions: list[Repetition] = []
    for path, content in results:
        try:
            name = str(content["Model"]["name"])
            if name not in models:
                models[name] = _model(content["Model"], model, trust=trust, device=device)
            _require_model(models[name], content["Model"])
            repetitions.append(_again(path, content, models[name], given))
        except GlasError as error:
            repetitions.append(failed(path.name.removesuffix(_SIDECAR), str(error)))
        progress(len(repetitions), len(results))
    return repetitions


def explained_scans(folder: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield the sidecar and its content of each explanation of a scan in a folder, without comparisons of methods."""
    for path in sorted(folder.rglob(f"*{_SIDECAR}")):
        content = read_sealed(path)
        if content is None or "Method" in content:
            continue
        if all(isinstance(content.get(key), dict) for key in ("Input", "Model", "Target", "Settings")):
            yield path, content


def _again(path: Path, content: Mapping[str, Any], predict: Predictor, given: Mapping[str, Path]) -> Repetition:
    """Explain one scan again and compare the results."""
    keywords, search = _request_of(content)
    scan = _scan_of(path.parent, content["Input"], given)
    stem = path.name.removesuffix(_SIDECAR)
    threads = content["Settings"].get("engine_threads")
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="glas3d-") as scratch:
        warnings.simplefilter("ignore", GlasWarning)  # they were given when the scan was explained
        request = resolve_scan(scan, predict, int(content["Target"]["index"]), search, keywords)
        if isinstance(threads, int) and threads > 0:
            with torch_threads(threads):
                result: Any = request.explain()
        else:
            result = request.explain()
        result.save(scratch)
        new = read_sealed(Path(scratch) / f"{result.stem}{_SIDECAR}") or {}
        same = all(new.get(key) == content.get(key) for key in _SOFTWARE)
        files = {
            name: f"{result.stem}{name.removeprefix(stem)}" for name in content["Files"] if name.startswith(f"{stem}_")
        }
        return compared(stem, path.parent, Path(scratch), files, same_software=same)


def _request_of(content: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return the keywords and the search of an explanation from its sidecar.

    Raises
    ------
    GlasError
        It was made in a mode, or from files, of which the sidecar holds too little.
    """
    settings = content["Settings"]
    modes = [words for key, words in _FURTHER.items() if content.get(key) is not None]
    modes += sorted(set(settings) - _PLAIN)
    if "channels" in content["Input"]:
        modes.append("several scans")
    search, where = _search_of(content.get("Search", {}))
    modes += where
    background = _background_of(str(settings.get("background")), content["Model"])
    if background is None:
        modes.append(f"the background {settings.get('background')}")
    if modes:
        raise GlasError(f"a sidecar holds too little to explain it again with {', '.join(modes)}")
    keywords = {
        field.name: _plain(settings[field.name]) for field in fields(Settings) if settings.get(field.name) is not None
    }
    keywords |= {"background": background, "point": settings.get("point", "centroid")}
    if content.get("SpaceCheck") is None:
        keywords["assume_space"] = "MNI"
    return keywords, search


def _search_of(record: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """Return a recorded search, and what of it is not recorded."""
    if "mask" in record:
        return None, ["a mask"]
    if "grid" in record:
        return Grid(_plain(record["grid"])), []
    if "atlas" in record:
        atlas = Atlas.recorded(record)
        return atlas, [] if atlas is not None else [f"the atlas {record['atlas']}, which is not shipped"]
    return None, ["points of one's own"]


def _background_of(name: str, model: Mapping[str, Any]) -> Any:
    """Return the option ``background`` that a sidecar records by name; None if it was a file or an array."""
    own = f"reference of {model['name']}"
    if name in (own, matched_name(own)):
        return OWN if name == own else MATCHED
    if name.startswith("the scan blurred by "):
        return "blur"
    try:
        return float(name)
    except ValueError:
        return None


def _scan_of(folder: Path, record: Mapping[str, Any], given: Mapping[str, Path]) -> Path:
    """Return the scan of a name and hash: one of those given, or from the sources that the folder records."""
    name, digest = str(record.get("name", "")), str(record.get("sha256"))
    source = given.get(digest) or find_source(folder, name, digest)
    if source is None and not (folder / DESCRIPTION).is_file():
        raise GlasError(f"{folder} does not record where the scan {name} is: give it (--scan)")
    if source is None:
        raise GlasError(f"the scan {name} is not where it was, or has changed: give it (--scan)")
    return source


def _model(record: Mapping[str, Any], model: str | os.PathLike[str] | None, *, trust: bool, device: str) -> Predictor:
    """Return the model that was given, or the shipped one that a sidecar names."""
    if model is None:
        if not is_shipped(record):
            raise GlasError(f"the model {record['name']} is not shipped: give it (--model)")
        model = str(record["name"])
    return load_model(model, activation=record.get("activation"), trust=trust, device=device)


def is_shipped(record: Mapping[str, Any]) -> bool:
    """Return whether a model has the name of one that is shipped, by the entry ``Model`` of a sidecar."""
    return record.get("name") in shipped_names("models")


def _require_model(predict: Predictor, record: Mapping[str, Any]) -> None:
    """Refuse a model that is not the recorded one.

    Raises
    ------
    GlasError
        Its hash is another.
    """
    own = model_record(predict, model_info(predict))
    for key in ("sha256", "weights_sha256"):
        if own.get(key) != record.get(key):
            raise GlasError(f"the model {own['name']} is not the one that explained the scan: its hash is another")


def _hash_of(scan: Path) -> str:
    try:
        return file_sha256(scan)
    except OSError as error:
        raise GlasError(f"{scan} cannot be read: {error.strerror or error}") from None


def _plain(value: Any) -> Any:
    """Return a value of a sidecar as the keyword that it was."""
    return tuple(value) if isinstance(value, list) else value
