"""Everything that decides the results of a study, resolved once, kept, and sent to every worker."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

import glas3d
from glas3d.core.glas import default_batch_size
from glas3d.core.search import Grid
from glas3d.errors import GlasError
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.scan import file_sha256
from glas3d.predict.bundle import load_model
from glas3d.predict.engine.builders import ENGINES
from glas3d.predict.engine.choose import check_engine
from glas3d.predict.predictor import Predictor
from glas3d.study.derivatives import read_study
from glas3d.study.manifest import PLACE, Manifest
from glas3d.study.pool import torch_threads

Where = str | tuple[int, ...]

_OWN = (
    "img", "predict", "target", "search", "batch_size", "engine", "assume_space", "progress", "transform", "covariates"
)  # fmt: skip


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
        An atlas's name or path, or the cells an axis of a grid.
    search_sha256
        Of the atlas.
    target
        The class explained in everyone.
    settings
        Others of `explain_img`.
    files
        Hashes of those that are files, such as a background.
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
        settings = {name: self._said(name, value) for name, value in self.settings.items()}
        return {
            "BatchSize": self.batch_size,
            "Engine": self.engine,
            "Threads": self.threads,
            "Device": self.device,
            "Models": {Path(name).name: digest for name, digest in self.sha256.items()},
            "Search": self.search if isinstance(self.search, str) else list(self.search),
            "SearchSha256": self.search_sha256,
            "Target": self.target,
            "Settings": settings,
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
            path = Path(self.settings[name])
            if not path.is_file() or file_sha256(path) != digest:
                raise GlasError(f"the {name} {path} is not the one this run began with, or not there")
        return dict(self.settings)

    def _said(self, name: str, value: Any) -> Any:
        return f"{Path(value).name} sha256:{self.files[name]}" if name in self.files else value


def make_plan(
    out: Path,
    models: str | os.PathLike[str],
    first_scan: Path,
    *,
    target: int | str,
    search: str | os.PathLike[str] | Grid | int | tuple[int, ...] = "AAL",
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
        No such model, atlas or grid, a target the models do not have, or other batches, threads or device than
        those an earlier run began with.
    """
    for name, value in (("batch_size", batch_size), ("threads", threads)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise GlasError(f"{name} must be a whole number from 1, got {value!r}")
    stored = read_study(out)
    spec = os.fspath(models)
    manifest = manifest_of(spec)
    names = [spec] if manifest is None else [str(bundle) for bundle in manifest.folds]
    predicts = [load_model(name, device="cpu") for name in names]
    for predict in predicts:
        _check_target(target, predict)
    where = _where(search)
    given = {name: _plain(name, value) for name, value in (settings or {}).items()}
    chosen = _agreed(out, stored, "Device", None if device == "auto" else _device(device))
    chosen = chosen or (device_there or device_here)()
    grid = predicts[0].info.grid
    first: Any = nib.load(first_scan)
    shape = first.shape[:3] if grid is None else grid.shape
    values = (predicts[0].info.channels or 1) * int(np.prod(shape))
    batch = _agreed(out, stored, "BatchSize", batch_size) or default_batch_size(values, torch.device(chosen))
    count = _agreed(out, stored, "Threads", threads) or 1
    runs = _agreed(out, stored, "Engine", None if engine == "auto" else engine)
    if runs is None:
        # an engine's own copies are of one model, and each fold's must pay
        batches = scans * math.ceil((2 * _places(where) + 1) / batch) // len(names)
        runs = engine_there(partial(fastest, names[0], chosen, count, (batch, *shape), batches))
    check_engine(runs, torch.device(chosen))
    return Plan(
        out=out.resolve(),
        models=spec if manifest is None else str(manifest.place.resolve()),
        sha256={
            name if manifest is None else str(Path(name).resolve()): predict.info.sha256
            for name, predict in zip(names, predicts, strict=True)
        },
        search=where,
        search_sha256=searched.__wrapped__(where).sha256 if isinstance(where, str) else "",
        target=target,
        settings=given,
        files={name: file_sha256(Path(value)) for name, value in given.items() if _is_file(value)},
        in_sample=in_sample,
        assume_space=assume_space,
        batch_size=batch,
        engine=runs,
        threads=count,
        device=chosen,
        version=version(runs),
    )


def version(engine: str) -> str:
    """Of what decides the numbers."""
    found = f"glas3d {glas3d.__version__}, torch {torch.__version__.partition('+')[0]}"
    library = ENGINES[engine].library
    return found if library == "torch" else f"{found}, {library} {ENGINES[engine].version}"


def fastest(model: str, device: str, threads: int, shape: tuple[int, ...], batches: int) -> str:
    """The engine that ``"auto"`` settles on for batches ``(n, *spatial)`` of noise."""
    with torch_threads(threads):
        predict = load_model(model, device=device)
        size, *spatial = shape
        noise = torch.rand((size, predict.info.channels or 1, *spatial), generator=torch.Generator().manual_seed(0))
        asked = predict.fit(noise[0]).with_engine("auto", batches)
        names = predict.covariates
        asked(noise.to(predict.device), *(() if names is None else (torch.zeros(size, len(names)),)))
        return asked.engine


def device_here() -> str:
    """CUDA where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def manifest_of(models: str | os.PathLike[str]) -> Manifest | None:
    """Who was trained with what; None for a model that does not say, such as an exported one.

    Raises
    ------
    GlasError
        A folder that is neither a model nor one of folds, or a manifest that is damaged.
    """
    place = Path(models)
    if not place.is_dir() or ((place / "configs").is_dir() and not (place / PLACE).exists()):
        return None  # a shipped name, a file, a factory, or a bundle without manifest
    return Manifest.load(place)


@lru_cache(maxsize=4)
def searched(where: Where) -> Any:
    """The atlas or grid a plan means.

    Raises
    ------
    GlasError
        There is none.
    """
    if not isinstance(where, str):
        return Grid(where[0] if len(where) == 1 else where)
    return Atlas.named(where)


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


def _places(where: Where) -> int:
    """How many points there will be, or somewhat fewer."""
    search = searched(where)
    if isinstance(search, Atlas):
        return len(search.table)
    return math.prod(search.k) if isinstance(search.k, tuple) else int(search.k) ** 3


def _plain(name: str, value: Any) -> Any:
    """A setting as every worker and JSON can have it.

    Raises
    ------
    GlasError
        It is something else, or none of a study's.
    """
    if name in _OWN:
        raise GlasError(f"a study has {name} for everyone: it is no setting among others")
    if isinstance(value, str | os.PathLike) and _is_file(value):
        return str(Path(value).resolve())
    if isinstance(value, list | tuple):
        return [_plain(name, one) for one in value]
    if not isinstance(value, str | int | float | bool | None):
        raise GlasError(f"settings of a study must be numbers, texts or files, {name} is a {type(value).__name__}")
    return value


def _is_file(value: Any) -> bool:
    return isinstance(value, str | os.PathLike) and Path(value).is_file()


def _device(name: str) -> str:
    """The kind of a device, which the workers have, or refuse."""
    try:
        return torch.device(name).type
    except RuntimeError:
        raise GlasError(f"device must be auto or one of torch's, such as cpu or cuda, got {name!r}") from None


def _agreed(out: Path, stored: Mapping[str, Any], name: str, given: Any) -> Any:
    """What an earlier run resolved, and this one may not change."""
    before = stored.get(name)
    if before is not None and given is not None and before != given:
        words = {"BatchSize": "batches of", "Engine": "the engine", "Threads": "threads", "Device": "device"}[name]
        raise GlasError(f"the study in {out} was begun with {words} {before}, got {given}: give another folder")
    return before if given is None else given
