"""Everything that decides the results of a study, resolved once, recorded, and sent to every worker."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glas3d.core.covariates import Covariates
from glas3d.core.glas import GLAS, default_batch_size
from glas3d.core.link import has_logits
from glas3d.core.search import Grid
from glas3d.core.settings import Settings
from glas3d.errors import GlasError, GlasWarning
from glas3d.explain.inputs import TEMPLATE_MM
from glas3d.explain.modes import Versus, resolve_mode
from glas3d.explain.options import ExplainOptions
from glas3d.explain.preset import layers, merged, preset_of, values_of
from glas3d.explain.search import refuse_other_space
from glas3d.hashing import file_sha256, text_sha256
from glas3d.imaging.atlas import Atlas, table_next_to
from glas3d.imaging.coordinates import Coordinates
from glas3d.imaging.lookup_table import read_lookup_table
from glas3d.imaging.scan import load_scan, open_image
from glas3d.imaging.space import VoxelGrid, mni_grid
from glas3d.predict import Predictor, load_model
from glas3d.predict.engine.engines import check_engine
from glas3d.study.cohort.file_patterns import (
    check_files,
    file_hashes,
    is_pattern,
    label_of_pattern,
    participant_settings,
    recordable,
    storable,
)
from glas3d.study.derivatives import read_study
from glas3d.study.environment import default_device, device_kind, fastest_engine, software_versions
from glas3d.study.running.options import StudyRequest
from glas3d.study.training.manifest import MANIFEST, Manifest
from glas3d.study.training.scan_identity import voxels_sha256
from glas3d.study.workers import ThisProcess, WorkerProcesses

# A search that JSON can hold: an atlas's name, the path of a file, or the cells of a grid along each axis.
StoredSearch = str | tuple[int, ...]

_METHOD = tuple(setting.name for setting in fields(Settings))
_USUAL_REGIONS = 100
# What a model's file may not state, and the entries of study.json that hold it.
_OF_FILES = {"activation": "Activation", "value_range": "ValueRange"}


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """Everything that decides the results of a study, resolved once and sent to every worker.

    Attributes
    ----------
    out
        The study's folder.
    models
        A folder of folds, one model of them, or any model (see `load_model`) that does not record which
        participants trained it.
    sha256
        Hash of every model, by the name that `load_model` is given.
    search
        An atlas's name or path, the pattern of participants' own parcellations, the path of a table of coordinates, or
        the cells of a grid for each axis.
    search_sha256
        Hash of the atlas with its look-up table, of the coordinates, or of the look-up table of all parcellations.
    atlas_space
        The space of an atlas that is a file.
    atlas_table
        The look-up table of an atlas that is a file, or of all parcellations, if it is not next to the image.
    target
        The class explained in every participant.
    settings
        Settings of the method and options of `explain_img`. Those that differ by participant are as they were given:
        patterns of files, and ``covariates`` as columns of the participants' table.
    files
        Hashes of the files that the settings name for everyone, such as a background.
    in_sample
        Whether a model explains participants that it was trained on.
    assume_space
        ``"MNI"``: take scans to be in MNI space without a check.
    loading
        Keywords of `load_model`: whether bundles may run any code, and what the model's file does not state.
    batch_size, engine, threads, device
        Those of every model evaluation; others would change the rounding of results.
    version
        Versions of glas3d, torch and the engine.
    """

    out: Path
    models: str
    sha256: Mapping[str, str | None]
    search: StoredSearch
    search_sha256: str
    atlas_space: str | None
    atlas_table: str | None
    target: int | str
    settings: Mapping[str, Any]
    files: Mapping[str, str]
    in_sample: bool
    assume_space: str | None
    loading: Mapping[str, Any]
    batch_size: int
    engine: str
    threads: int
    device: str
    version: str

    def record(self) -> dict[str, Any]:
        """Return the content of ``study.json``; it holds no path, so that the study can be moved."""
        return {
            "BatchSize": self.batch_size,
            "Engine": self.engine,
            "Threads": self.threads,
            "Device": self.device,
            "Models": {Path(name).name: digest for name, digest in self.sha256.items()},
            "Search": self._search_record(),
            "SearchSha256": self.search_sha256,
            "AtlasSpace": self.atlas_space,
            **({} if self.atlas_table is None else {"AtlasTable": Path(self.atlas_table).name}),
            **{key: self.loading[name] for name, key in _OF_FILES.items() if self.loading.get(name) is not None},
            "Target": self.target,
            "Settings": self.settings_record(),
            "InSample": self.in_sample,
            "AssumeSpace": self.assume_space,
            "Version": self.version,
        }

    def search_files(self) -> list[Path]:
        """Return the files of an atlas, of a look-up table or of coordinates that are not shipped."""
        tables = [] if self.atlas_table is None else [Path(self.atlas_table)]
        if not isinstance(self.search, str) or is_pattern(self.search) or not Path(self.search).is_file():
            return tables
        path = Path(self.search)
        if path.suffix == ".tsv":  # coordinates
            return [path]
        return [path, *(tables or [table_next_to(path)])]

    def _search_record(self) -> Any:
        """Return the search for records: a pattern as it was given, which is relative, a file by its name."""
        if not isinstance(self.search, str):
            return list(self.search)
        return self.search if is_pattern(self.search) else Path(self.search).name

    def checked_settings(self) -> dict[str, Any]:
        """Return the settings, if the files that they name are still those the study started with.

        Raises
        ------
        GlasError
            A file has changed, or does not exist.
        """
        for name, digest in self.files.items():
            path = Path(name)
            if not path.is_file() or file_sha256(path) != digest:
                raise GlasError(f"the file {path} has changed since this study was started, or does not exist")
        return dict(self.settings)

    def own_settings(self, root: Path, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that are a participant's own, the parcellation among them (see `participant_settings`).

        Raises
        ------
        GlasError
            See `participant_settings`.
        """
        return participant_settings({**self.settings, "search": self.search}, root, row)

    @property
    def parcellation(self) -> str | None:
        """What file names call participants' own parcellations; None where all have the same search."""
        return label_of_pattern(self.search) if isinstance(self.search, str) and is_pattern(self.search) else None

    def settings_record(self) -> dict[str, Any]:
        """Return the settings for records: files by name and hash."""
        return recordable(self.settings, self.files)


def resolve_plan(
    out: Path,
    models: str | os.PathLike[str],
    first_scan: Path,
    request: StudyRequest,
    target: int | str,
    *,
    pool: ThisProcess | WorkerProcesses,
    n_scans: int,
) -> StudyPlan:
    """Resolve what the options of a study leave open; what an earlier run of it resolved is kept.

    Parameters
    ----------
    out
        The study's folder.
    models
        A folder of folds, or one model.
    first_scan
        First scan; its shape decides the batch size where the model has no grid of its own.
    request
        The options as they were given.
    target
        The class to explain.
    pool
        The process or processes that explain participants: they choose the device and the engine.
    n_scans
        Number of scans to explain, which decides whether an engine is worth building.

    Raises
    ------
    GlasError
        A model, an atlas or a grid that does not exist, a target or covariates that the models do not have, or another
        batch size, engine, number of threads or device than those the study started with.
    """
    stored = read_study(out)
    spec = os.fspath(models)
    manifest = manifest_of(spec)
    names = [spec] if manifest is None else [str(bundle) for bundle in manifest.folds]
    study = request.study
    loading = {name: getattr(study, name) for name in ("trust", *_OF_FILES)}
    predicts = [load_model(name, device="cpu", **loading) for name in names]
    for predict in predicts:
        _check_target(target, predict)
    stored_search = _stored_search(study.search)
    table = None if study.atlas_table is None else str(study.atlas_table.resolve())
    settings = _study_settings(request, predicts)
    native = not {"transform", "register"}.isdisjoint(settings)
    search = _shared_search(stored_search, study.atlas_space, table, native=native)
    device = _kept(out, stored, "Device", None if study.device == "auto" else device_kind(study.device))
    device = device or pool.call(default_device)
    shape = _shape(predicts[0], first_scan, native=native)
    values = (predicts[0].info.channels or 1) * int(np.prod(shape))
    batch = _kept(out, stored, "BatchSize", request.batch_size) or default_batch_size(values, torch.device(device))
    threads = _kept(out, stored, "Threads", study.threads) or 1
    engine = _kept(out, stored, "Engine", None if request.engine == "auto" else request.engine)
    if engine is None:
        # an engine is built for each fold, so that each fold's share of the batches must be worth it
        evaluations = _n_evaluations(_glas(request.explain, settings, predicts[0]), _n_points(search, shape))
        batches = n_scans * math.ceil(evaluations / batch) // len(names)
        engine = pool.call(partial(fastest_engine, names[0], device, threads, (batch, *shape), batches, loading))
    check_engine(engine, torch.device(device))
    return StudyPlan(
        out=out.resolve(),
        models=spec if manifest is None else str(manifest.folder.resolve()),
        sha256={
            name if manifest is None else str(Path(name).resolve()): predict.info.sha256
            for name, predict in zip(names, predicts, strict=True)
        },
        search=stored_search,
        search_sha256=search_hash(stored_search, search, table),
        atlas_space=study.atlas_space,
        atlas_table=table,
        target=target,
        settings=settings,
        files=file_hashes(settings),
        in_sample=study.in_sample,
        assume_space=request.explain.assume_space,
        loading=loading,
        batch_size=batch,
        engine=engine,
        threads=threads,
        device=device,
        version=software_versions(engine, settings),
    )


def manifest_of(models: str | os.PathLike[str]) -> Manifest | None:
    """Return the record of the participants that trained the models; None if there is none, as for exported models.

    Raises
    ------
    GlasError
        A folder that is neither a model nor one of folds, or a manifest that is damaged.
    """
    folder = Path(models)
    if not folder.is_dir() or ((folder / "configs").is_dir() and not (folder / MANIFEST).exists()):
        return None  # a shipped name, a file, a factory, or a bundle without manifest
    return Manifest.load(folder)


@lru_cache(maxsize=4)
def load_search(stored: StoredSearch, space: str | None = None, table: str | None = None) -> Any:
    """Load the atlas, the coordinates or the grid of a plan.

    Parameters
    ----------
    stored
        The search of a plan, but for a pattern.
    space, table
        Space and look-up table of an atlas that is a file.

    Raises
    ------
    GlasError
        The atlas or the table does not exist, or a look-up table was given for what is no atlas.
    """
    if isinstance(stored, str) and not stored.endswith(".tsv"):
        return Atlas.load(stored, space=space, table=table)
    if table is not None:
        raise GlasError(f"a look-up table (--atlas-table) is for an atlas that is a file, got {table} without one")
    if isinstance(stored, str):
        return Coordinates.from_file(stored, space="MNI")
    return Grid(stored[0] if len(stored) == 1 else stored)


def search_hash(stored: StoredSearch, search: Any, table: str | None = None) -> str:
    """Return the hash of what is searched: of an atlas that is a file with its regions' names.

    It is empty for a grid, which its cells define, and for participants' own parcellations with tables of their own.
    """
    if isinstance(search, Coordinates):
        return file_sha256(Path(str(stored)))
    if isinstance(search, Atlas) and Atlas.shipped_name(str(stored)) is None:
        return text_sha256(search.sha256 + search.table.to_csv(index=False))
    if search is None:
        return "" if table is None else file_sha256(Path(table))
    return str(getattr(search, "sha256", ""))


def _shared_search(stored: StoredSearch, space: str | None, table: str | None, *, native: bool) -> Any:
    """Return the search of all participants; None where each has a parcellation of their own.

    Raises
    ------
    GlasError
        The search does not exist, or is not in the space of the template to which ``native`` scans are brought.
    """
    if not is_pattern(stored):
        search = load_search.__wrapped__(stored, space, table)
        if native:
            refuse_other_space(search)
        return search
    if table is not None:
        read_lookup_table(table)
    if native and space != "MNI":
        raise GlasError(
            "scans brought to the template are searched in the template's space, MNI; participants' own parcellations "
            f"must be in it, and --atlas-space MNI (atlas_space) must say so: {stored}"
        )
    return None


def bundles_for(
    plan: StudyPlan,
    manifest: Manifest | None,
    participant_id: str,
    sha256: str | None = None,
    scan: Path | None = None,
) -> list[str]:
    """Return the models that explain a participant.

    A file that is not recorded as the participant's is read, to recognise the voxels of a training scan in it.

    Raises
    ------
    GlasError
        All models were trained on the participant, and ``in_sample`` does not allow it.
    """
    if manifest is None:
        return list(plan.sha256)
    voxels = None
    known = sha256 is not None and manifest.knows(participant_id, sha256)
    if scan is not None and manifest.records_voxels and not (known or plan.in_sample):
        voxels = voxels_sha256(load_scan(scan))
    bundles = manifest.models_for(participant_id, sha256, voxels_sha256=voxels, in_sample=plan.in_sample)
    return [str(bundle.resolve()) for bundle in bundles or [manifest.fold_of(participant_id)]]


def _check_target(target: int | str, predict: Predictor, what: str = "the class to explain") -> None:
    classes = predict.classes
    if isinstance(target, str) and (classes is None or target not in classes):
        names = ", ".join(f"{name} ({index})" for index, name in enumerate(classes)) if classes else "no names"
        raise GlasError(f"{what} must be one of the model's, {names}, got {target!r}")


def _stored_search(search: str | os.PathLike[str] | Grid | int | tuple[int, ...]) -> StoredSearch:
    """Return a search in a form that JSON can store and every worker can load."""
    if isinstance(search, Grid | int | tuple):
        k = search.k if isinstance(search, Grid) else search
        cells: StoredSearch = (int(k),) if isinstance(k, int | np.integer) else tuple(int(n) for n in k)
        load_search(cells)
        return cells
    text = os.fspath(search)
    if is_pattern(text):
        return text
    if (shipped := Atlas.shipped_name(text)) is not None:
        return shipped
    return str(Path(text).resolve()) if Path(text).exists() else text


def _shape(predict: Predictor, first_scan: Path, *, native: bool) -> tuple[int, ...]:
    """Return the shape of the grid on which the model is evaluated."""
    if predict.info.grid is not None:
        return predict.info.grid.shape
    if native:
        return predict.info.grid_for(mni_grid(TEMPLATE_MM)).shape
    img: Any = open_image(first_scan)
    return predict.info.grid_for(VoxelGrid(tuple(img.shape[:3]), img.affine)).shape


def _n_evaluations(glas: GLAS, points: int) -> int:
    """Return the number of model evaluations of one explanation: the scan, the ends at each point, the background."""
    ends = glas.settings.evaluates_light + glas.settings.evaluates_shadow
    return 1 + ends * points + glas.evaluates_background


def _n_points(search: Any, shape: tuple[int, ...]) -> int:
    """Return the number of search points; regions without a voxel are counted too."""
    if search is None:  # each participant has their own: it decides only whether an engine is worth building
        return _USUAL_REGIONS
    if isinstance(search, Atlas):
        return len(search.table)
    return len(search.points(shape) if isinstance(search, Grid) else search.points)


def _study_settings(request: StudyRequest, predicts: list[Predictor]) -> dict[str, Any]:
    """Return the settings in a form that JSON can store and every worker can use, if participants can be explained
    with them.

    Raises
    ------
    GlasError
        A file that does not exist, modes that exclude each other, a setting outside its range, or other covariates
        than the models take.
    """
    settings = {name: storable(name, value) for name, value in request.settings.items()}
    check_files(settings)
    _check_mode(request.explain, settings, predicts)
    for predict in predicts:
        _check_covariates(settings, predict)
    return with_one_link(settings, predicts)


def with_one_link(settings: Mapping[str, Any], predicts: Sequence[Predictor]) -> dict[str, Any]:
    """Return the settings of a study with the same link for all scans.

    ``"auto"`` takes log-odds where all models have logits. Without logits it would depend on each scan whether its
    log-odds are finite: then everyone's scores are made of the outputs.

    Warns
    -----
    GlasWarning
        A model has no logits.
    """
    of_model, given = predicts[0].info.preset, {name: settings[name] for name in _METHOD if name in settings}
    preset = preset_of(given, of_model, settings.get("preset"))
    parts = layers(given, of_model, settings.get("preset"), values_of(preset, regions=True))
    if merged(parts)["link"] != "auto" or all(has_logits(predict) for predict in predicts):
        return dict(settings)
    warnings.warn(
        f"the model {predicts[0].info.name} has no logits: the scores of all scans are made of its output; "
        'link="logit" makes them of the log-odds of its probabilities',
        GlasWarning,
        stacklevel=2,
    )
    return {**settings, "preset": preset, "link": "probability"}


def _check_mode(options: ExplainOptions, settings: Mapping[str, Any], predicts: list[Predictor]) -> None:
    mode = resolve_mode(options, what="a scan", single=True, covariates=options.covariates is not None)
    mode.check(_glas(options, settings, predicts[0]))
    if isinstance(mode, Versus):
        for predict in predicts:
            _check_target(mode.against, predict, "the class of versus")


def _glas(options: ExplainOptions, settings: Mapping[str, Any], predict: Predictor) -> GLAS:
    """Return the explainer of the scans, but for sigmas that were not given."""
    of_model, given = predict.info.preset, {name: settings[name] for name in _METHOD if name in settings}
    values = values_of(preset_of(given, of_model, options.preset), regions=True)
    return GLAS(predict, evidence=True, **(merged(layers(given, of_model, options.preset, values)) | given))


def _check_covariates(settings: Mapping[str, Any], predict: Predictor) -> None:
    names, columns = predict.covariates, settings.get("covariates")
    if columns is not None and names is None:
        raise GlasError(f"the model {predict.info.name} takes no covariates, got {', '.join(columns)}")
    if columns is not None:
        Covariates.of(dict.fromkeys(columns, 0.0), settings.get("covariate_reference", {}), names)
    elif names is not None:
        raise GlasError(f"the model {predict.info.name} takes the covariates {', '.join(names)}: name their columns")


def _kept(out: Path, stored: Mapping[str, Any], name: str, value: Any) -> Any:
    """Return the value that an earlier run resolved, which no later run may change; else the value that was given."""
    earlier = stored.get(name)
    if earlier is not None and value is not None and earlier != value:
        words = {"BatchSize": "batches of", "Engine": "the engine", "Threads": "threads", "Device": "device"}[name]
        raise GlasError(f"the study in {out} was started with {words} {earlier}, got {value}: give another folder")
    return earlier if value is None else value
