"""Everything that decides the results of a study, resolved once, kept, and sent to every worker."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from inspect import signature
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from glas3d.checks import whole_number
from glas3d.core.covariates import Covariates
from glas3d.core.glas import GLAS, default_batch_size
from glas3d.core.search import Grid
from glas3d.core.settings import Settings
from glas3d.errors import GlasError
from glas3d.explain import explain_img
from glas3d.explain.inputs import TEMPLATE_MM
from glas3d.explain.modes import Versus, resolve_mode
from glas3d.explain.options import ExplainOptions
from glas3d.hashing import file_sha256
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.coordinates import Coordinates
from glas3d.imaging.space import mni_grid
from glas3d.predict import Predictor, load_model
from glas3d.predict.engine.engines import check_engine
from glas3d.study.cohort.file_patterns import check_files, files_of, plain, said
from glas3d.study.derivatives import read_study
from glas3d.study.environment import device_here, device_kind, fastest, version
from glas3d.study.training.manifest import MANIFEST, Manifest

Where = str | tuple[int, ...]

_OF_GLAS = tuple(field.name for field in fields(Settings))
_SETTINGS = {*signature(explain_img).parameters}
_OWN = ("img", "predict", "target", "search", "batch_size", "engine", "assume_space", "progress")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides the results of a study, resolved once and sent to every worker.

    Attributes
    ----------
    out
        The study's folder.
    models
        A folder of folds, one model of them, or any model (see `load_model`), whose participants nobody knows.
    sha256
        Of every model, by what `load_model` is given.
    search
        An atlas's name or path, the path of a table of places, or the cells an axis of a grid.
    search_sha256
        Of the atlas, or of the places.
    atlas_space
        The space of an atlas that is a file.
    target
        The class explained in everyone.
    settings
        Others of `explain_img`, and ``inverse`` of `load_transform`; what differs by participant as it was given:
        patterns of files, and ``covariates`` as columns of the participants' table.
    files
        Hashes of the files they name that are everyone's, such as a background.
    in_sample
        Whether a model explains those it was trained on.
    assume_space
        ``"MNI"``: take scans to be in MNI space without looking.
    batch_size, engine, threads, device
        Of every forward: other ones would round differently.
    version
        Of glas3d, torch and the engine.
    """

    out: Path
    models: str
    sha256: Mapping[str, str | None]
    search: Where
    search_sha256: str
    atlas_space: str | None
    target: int | str
    settings: Mapping[str, Any]
    files: Mapping[str, str]
    in_sample: bool
    assume_space: str | None
    batch_size: int
    engine: str
    threads: int
    device: str
    version: str

    def record(self) -> dict[str, Any]:
        """For ``study.json``; names no place but the atlas's, so that a study run elsewhere says the same."""
        return {
            "BatchSize": self.batch_size,
            "Engine": self.engine,
            "Threads": self.threads,
            "Device": self.device,
            "Models": {Path(name).name: digest for name, digest in self.sha256.items()},
            "Search": self.search if isinstance(self.search, str) else list(self.search),
            "SearchSha256": self.search_sha256,
            "AtlasSpace": self.atlas_space,
            "Target": self.target,
            "Settings": self.said(),
            "InSample": self.in_sample,
            "AssumeSpace": self.assume_space,
            "Version": self.version,
        }

    def with_files(self) -> dict[str, Any]:
        """The settings, if the files among them are still those the study began with.

        Raises
        ------
        GlasError
            They are not.
        """
        for name, digest in self.files.items():
            path = Path(name)
            if not path.is_file() or file_sha256(path) != digest:
                raise GlasError(f"the file {path} is not the one this run began with, or not there")
        return dict(self.settings)

    def said(self) -> dict[str, Any]:
        """The settings for records: files by name and hash."""
        return said(self.settings, self.files)


def make_plan(
    out: Path,
    models: str | os.PathLike[str],
    first_scan: Path,
    *,
    target: int | str,
    search: str | os.PathLike[str] | Grid | int | tuple[int, ...] = "AAL",
    atlas_space: str | None = None,
    settings: Mapping[str, Any] | None = None,
    in_sample: bool = False,
    assume_space: str | None = None,
    batch_size: int | None = None,
    engine: str = "auto",
    threads: int | None = None,
    device: str = "auto",
    device_there: Callable[[], str] | None = None,
    engine_there: Callable[[Callable[[], str]], str] = lambda ask: ask(),
    scans: int = 1,
) -> Plan:
    """Resolve what a study leaves open; what an earlier run of it resolved is kept.

    Parameters
    ----------
    first_scan
        Whose size decides about the batch where the model has no grid of its own.
    batch_size, threads
        None: what an earlier run took; else by the scans' size, and 1.
    device
        ``"auto"``: what an earlier run took, else CUDA where there is one.
    device_there
        Says what ``"auto"`` is on the workers; None: as here.
    engine
        ``"auto"``: what an earlier run took, else the fastest that pays.
    engine_there
        Calls what says so on a worker.
    scans
        How many will be explained, which decides what pays.

    Raises
    ------
    GlasError
        No such model, atlas or grid, a target or covariates the models do not have, or other batches, threads or
        device than those an earlier run began with.
    """
    batch_size = None if batch_size is None else whole_number("batch_size", batch_size, least=1)
    threads = None if threads is None else whole_number("threads", threads, least=1)
    stored = read_study(out)
    spec = os.fspath(models)
    manifest = manifest_of(spec)
    names = [spec] if manifest is None else [str(bundle) for bundle in manifest.folds]
    predicts = [load_model(name, device="cpu") for name in names]
    for predict in predicts:
        _check_target(target, predict)
    where = _where(search)
    looked_at = searched.__wrapped__(where, atlas_space)
    given = _settings(settings or {}, predicts)
    chosen = _agreed(out, stored, "Device", None if device == "auto" else device_kind(device))
    chosen = chosen or (device_there or device_here)()
    grid = predicts[0].info.grid
    if grid is None and ("transform" in given or "register" in given):
        grid = mni_grid(TEMPLATE_MM)
    first: Any = nib.load(first_scan)
    shape = first.shape[:3] if grid is None else grid.shape
    values = (predicts[0].info.channels or 1) * int(np.prod(shape))
    batch = _agreed(out, stored, "BatchSize", batch_size) or default_batch_size(values, torch.device(chosen))
    count = _agreed(out, stored, "Threads", threads) or 1
    runs = _agreed(out, stored, "Engine", None if engine == "auto" else engine)
    if runs is None:
        # an engine's own copies are of one model, and each fold's must pay
        batches = scans * math.ceil((2 * _places(looked_at, shape) + 1) / batch) // len(names)
        runs = engine_there(partial(fastest, names[0], chosen, count, (batch, *shape), batches))
    check_engine(runs, torch.device(chosen))
    return Plan(
        out=out.resolve(),
        models=spec if manifest is None else str(manifest.folder.resolve()),
        sha256={
            name if manifest is None else str(Path(name).resolve()): predict.info.sha256
            for name, predict in zip(names, predicts, strict=True)
        },
        search=where,
        search_sha256=identity(where, looked_at),
        atlas_space=atlas_space,
        target=target,
        settings=given,
        files=files_of(given),
        in_sample=in_sample,
        assume_space=assume_space,
        batch_size=batch,
        engine=runs,
        threads=count,
        device=chosen,
        version=version(runs, "register" in given),
    )


def manifest_of(models: str | os.PathLike[str]) -> Manifest | None:
    """Who was trained with what; None for a model that does not say, such as an exported one.

    Raises
    ------
    GlasError
        A folder that is neither a model nor one of folds, or a manifest that is damaged.
    """
    place = Path(models)
    if not place.is_dir() or ((place / "configs").is_dir() and not (place / MANIFEST).exists()):
        return None  # a shipped name, a file, a factory, or a bundle without manifest
    return Manifest.load(place)


@lru_cache(maxsize=4)
def searched(where: Where, space: str | None = None) -> Any:
    """The atlas, the places or the grid a plan means; ``space`` is that of an atlas that is a file.

    Raises
    ------
    GlasError
        There is none.
    """
    if not isinstance(where, str):
        return Grid(where[0] if len(where) == 1 else where)
    if where.endswith(".tsv"):
        return Coordinates.from_file(where, space="MNI")
    return Atlas.load(where, space=space)


def identity(where: Where, search: Any) -> str:
    """Hash of what is searched; empty for a grid, which says it all."""
    if isinstance(search, Coordinates):
        return file_sha256(Path(str(where)))
    return str(getattr(search, "sha256", ""))


def bundles_for(plan: Plan, manifest: Manifest | None, participant_id: str, sha256: str | None = None) -> list[str]:
    """The models that explain a participant.

    Raises
    ------
    GlasError
        All of them have seen the participant, and that is not what was asked for.
    """
    if manifest is None:
        return list(plan.sha256)
    found = manifest.models_for(participant_id, sha256, in_sample=plan.in_sample)
    return [str(bundle.resolve()) for bundle in found or [manifest.fold_of(participant_id)]]


def _check_target(target: int | str, predict: Predictor) -> None:
    classes = predict.classes
    if isinstance(target, str) and (classes is None or target not in classes):
        names = ", ".join(classes) if classes else "no names"
        raise GlasError(f"the class to explain must be one of the model's ({names}), got {target!r}")


def _where(search: str | os.PathLike[str] | Grid | int | tuple[int, ...]) -> Where:
    if isinstance(search, Grid | int | tuple):
        k = search.k if isinstance(search, Grid) else search
        where: Where = (int(k),) if isinstance(k, int | np.integer) else tuple(int(n) for n in k)
        searched(where)
        return where
    text = os.fspath(search)
    if text in Atlas.names():
        return text
    return str(Path(text).resolve()) if Path(text).exists() else text


def _places(search: Any, shape: tuple[int, ...]) -> int:
    """How many points there will be, or somewhat more."""
    if isinstance(search, Atlas):
        return len(search.table)
    return len(search.points(shape) if isinstance(search, Grid) else search.points)


def _settings(given: Mapping[str, Any], predicts: list[Predictor]) -> dict[str, Any]:
    """Settings as every worker and JSON can have them.

    Raises
    ------
    GlasError
        Some that are none of a study's, or other covariates than the models take.
    """
    for name in given:
        if name in _OWN:
            raise GlasError(f"a study has {name} for everyone: it is no setting among others")
        if name not in _SETTINGS:
            raise GlasError(f"a setting must be one of {', '.join(sorted(_SETTINGS))}, got {name}")
    found = {name: plain(name, value) for name, value in given.items() if value is not None}
    check_files(found)
    _check_ways(found, predicts)
    for predict in predicts:
        names, columns = predict.covariates, found.get("covariates")
        if columns is not None and names is None:
            raise GlasError(f"the model {predict.info.name} states no covariates, got {', '.join(columns)}")
        if columns is not None:
            Covariates.of(dict.fromkeys(columns, 0.0), found.get("covariate_reference", {}), names)
        elif names is not None:
            raise GlasError(
                f"the model {predict.info.name} takes the covariates {', '.join(names)}: name their columns"
            )
    return found


def _check_ways(settings: Mapping[str, Any], predicts: list[Predictor]) -> None:
    """Refuse what every participant would be refused for."""
    options = ExplainOptions(**{one.name: settings[one.name] for one in fields(ExplainOptions) if one.name in settings})
    mode = resolve_mode(options, what="a scan", single=True, covariates=options.covariates is not None)
    glas = GLAS(predicts[0], **{name: settings[name] for name in _OF_GLAS if name in settings})
    mode.check(glas)
    if isinstance(mode, Versus):
        for predict in predicts:
            _check_target(mode.other, predict)


def _agreed(out: Path, stored: Mapping[str, Any], name: str, given: Any) -> Any:
    """What an earlier run resolved, and this one may not change."""
    before = stored.get(name)
    if before is not None and given is not None and before != given:
        words = {"BatchSize": "batches of", "Engine": "the engine", "Threads": "threads", "Device": "device"}[name]
        raise GlasError(f"the study in {out} was begun with {words} {before}, got {given}: give another folder")
    return before if given is None else given
