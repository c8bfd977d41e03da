"""Explain one scan of a study by the models that were not trained on the participant, and write its folder."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import nibabel as nib
import numpy as np

from glas3d.core.account import Account
from glas3d.core.explanation import COMPUTATION_SETTINGS
from glas3d.core.foreign_code import described, is_out_of_memory
from glas3d.core.threads import torch_threads
from glas3d.errors import GlasError, GlasWarning, SkullWarning, SpaceWarning, listed
from glas3d.explain import COLUMNS, STATISTICS, ScanExplanation, explain_img, ranked
from glas3d.explain.inputs import matched_name
from glas3d.hashing import file_sha256
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.map_header import map_on
from glas3d.imaging.space import MNI
from glas3d.imaging.spatial_transform import load_transform
from glas3d.output import remove_leftovers, why_not_written
from glas3d.predict import Predictor, load_model
from glas3d.progress import Progress
from glas3d.study.cohort.file_patterns import file_hashes, has_pattern, recordable
from glas3d.study.derivatives import (
    is_finished,
    key_of,
    participant_folder,
    read_record,
    record_name,
    write_participant,
)
from glas3d.study.environment import software_versions
from glas3d.study.running.plan import StudyPlan, bundles_for, load_search, manifest_of, search_hash
from glas3d.study.training.manifest import Manifest

Status = Literal["explained", "kept", "failed"]

_SAME = ["index", "name", "hemisphere", "x", "y", "z", "n_voxels", "rank", "direction"]  # in every model's table
_SPACE = re.compile("_space-[0-9A-Za-z]+")
_SPACE_ADVICE = (
    'If the scan is in native space, give register="affine" or transform=FILE. Give assume_space="MNI" only if you '
    "know that the scan is in MNI space."
)
# Options that must be the same in a group, besides the settings of `GLAS`.
_SAME_IN_GROUP = (
    "recursive",
    "versus",
    "mask_img",
    "brain_mask",
    "transform",
    "register",
    "covariates",
    "covariate_reference",
)


@dataclass(frozen=True)
class ScanTask:
    """One scan of a participant, to be explained; ``session`` is empty where there is none.

    Attributes
    ----------
    participant_id, session, path
        The participant, the session and the file.
    own
        Settings that are this participant's own (see `participant_settings`).
    """

    participant_id: str
    session: str
    path: Path
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The participant and the session, for messages."""
        return f"{self.participant_id} {self.session}".strip()


@dataclass(frozen=True)
class Outcome:
    """The outcome of one scan.

    Attributes
    ----------
    participant_id, session
        The participant and the session.
    status
        ``"explained"``, ``"kept"`` from an earlier run, or ``"failed"``.
    error
        Message of a scan that failed, else empty.
    warnings
        Warnings that were given.
    notes
        Notes on the result, see `glas3d.explain.notes`.
    """

    participant_id: str
    session: str
    status: Status
    error: str = ""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The participant and the session, for messages."""
        return f"{self.participant_id} {self.session}".strip()


def explain_participant(plan: StudyPlan, task: ScanTask) -> Outcome:
    """Explain one scan and write its folder, unless it is complete; every error is returned in the outcome."""
    with warnings.catch_warnings(record=True) as caught, limited(plan.threads):
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", GlasWarning)
        warnings.simplefilter("error", SpaceWarning)
        warnings.simplefilter("error", SkullWarning)
        status: Status = "failed"
        error, notes = "", cast(tuple[str, ...], ())
        try:
            status, notes = _explain(plan, task)
        except SpaceWarning as problem:
            error = f"{problem}. {_SPACE_ADVICE}"
        except (GlasError, SkullWarning) as problem:
            error = str(problem)
        except KeyboardInterrupt:
            raise
        except OSError as problem:
            error = f"{problem.filename or task.path} cannot be read or written: {why_not_written(problem)}"
        except BaseException as problem:  # a model may raise anything or end the program, and the others continue
            if is_out_of_memory(problem):
                error = (
                    f"memory does not suffice ({described(problem)}): give it fewer workers, or a smaller batch size"
                )
            else:
                error = f"unexpected {type(problem).__name__}: {' '.join(str(problem).split())[:300]}"
    given = tuple(dict.fromkeys(str(warning.message) for warning in caught))
    return Outcome(task.participant_id, task.session, status, " ".join(error.split()), given, notes)


def _explain(plan: StudyPlan, task: ScanTask) -> tuple[Status, tuple[str, ...]]:
    """Return the status of the scan, and the notes on its result."""
    installed = software_versions(plan.engine, plan.settings)
    if installed != plan.version:
        raise GlasError(f"every worker needs the same versions: the study has {plan.version}, this one {installed}")
    folder = participant_folder(plan.out, task.participant_id, task.session)
    remove_leftovers(folder)
    prepared = prepare(plan, task)
    name = record_name(task.participant_id, task.session)
    if is_finished(folder, name, prepared.key):
        return "kept", tuple(read_record(folder / name).get("Notes", ()))
    results = [prepared.explain(bundle) for bundle in prepared.bundles]
    result = results[0] if len(results) == 1 else average(results)
    training = {"Key": prepared.key, "Study": plan.record()} | _training_record(
        prepared.manifest, prepared.bundles, task.participant_id
    )
    probabilities = [_probability(explanation) for explanation in results]
    record = {
        **training,
        "Study": plan.record(),
        "Stem": result.stem,
        "Input": result.provenance["Input"],
        "Probability": float(np.mean(probabilities)),
        "Probabilities": probabilities,
        **_outputs_record(results),
        **({"Account": result.provenance["Account"]} if "Account" in result.provenance else {}),
        "Method": _method_record(results[0], prepared.manifest, plan),
    } | ({"Notes": list(result.notes)} if result.notes else {})
    files = {}
    if result.provenance["Transform"] is not None:
        record["Map"] = f"{re.sub(_SPACE, '', result.stem)}_space-{MNI}_stat-saliency_statmap.nii.gz"
        files[record["Map"]] = template_map(results).to_filename

    def save(scratch: Path) -> None:
        _with_provenance(result, training).save(scratch)
        for file, write in files.items():
            write(scratch / file)

    try:
        write_participant(folder, name, save, record)
    except GlasError:
        if is_finished(folder, name, prepared.key):  # by a worker that was thought to be lost
            return "kept", result.notes
        raise
    return "explained", result.notes


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan that is ready to be explained: its models, its settings and the key of its results.

    Attributes
    ----------
    plan, task
        The study's plan, and the scan.
    key
        Hash over everything that decides the scan's results.
    bundles
        Folders of the models that explain the scan.
    manifest
        Record of the participants that trained the models; None: it is not recorded.
    settings
        Settings of the method and options of `explain_img`, those of the participant among them.
    """

    plan: StudyPlan
    task: ScanTask
    key: str
    bundles: list[str]
    manifest: Manifest | None
    settings: Mapping[str, Any]

    def explain(self, bundle: str, progress: Progress = False) -> ScanExplanation:
        """Return the explanation of the scan by one of the models."""
        plan = self.plan
        explanation = explain_img(
            self.task.path,
            _load_model(bundle, plan.sha256[bundle], plan.device, **plan.loading),
            plan.target,
            load_search_of(plan, self.task),
            batch_size=plan.batch_size,
            engine=plan.engine,
            assume_space=plan.assume_space,
            progress=progress,
            **self.settings,
        )
        assert isinstance(explanation, ScanExplanation)
        return explanation


def prepare(plan: StudyPlan, task: ScanTask) -> PreparedScan:
    """Resolve which models explain a scan and how, and the key of its results.

    Raises
    ------
    GlasError
        A file that does not exist or has changed, or models that were all trained on the participant.
    """
    if not task.path.is_file():
        raise GlasError(f"no such file: {task.path}")
    digest = file_sha256(task.path)
    manifest = _load_manifest(plan.models, tuple(plan.sha256.items()))
    bundles = bundles_for(plan, manifest, task.participant_id, digest, task.path)
    settings = plan.checked_settings() | {name: value for name, value in task.own.items() if name != "search"}
    if "cut" in settings:  # timing must not decide how a study's results are rounded
        settings["cut_always"] = True
    transform = None
    if "transform" in settings:
        transform = load_transform(settings.pop("transform"), settings.pop("inverse", None))
        settings["transform"] = transform
    own = {name: value for name, value in task.own.items() if name not in ("transform", "inverse")}
    key = key_of(
        models=[plan.sha256[bundle] or bundle for bundle in bundles],
        input=digest,
        file=task.path.name,
        **{k: v for k, v in plan.record().items() if k not in ("Models", "Search", "AtlasTable")},
        search=None if isinstance(plan.search, str) else plan.search,
        own=recordable(own, file_hashes(own)),
        transform=None if transform is None else transform.record(),
        **({} if plan.parcellation is None else {"regions": load_search_of(plan, task).table.to_csv(index=False)}),
    )
    return PreparedScan(plan, task, key, bundles, manifest, settings)


def average(results: list[ScanExplanation]) -> ScanExplanation:
    """Return the mean of several models' explanations of one scan, and their spread in the table.

    The table has ``score_sd`` and so on (n - 1). Parts are averaged in the same way. Of recursions, whose rounds
    differ by model, the fused maps are averaged; which region was removed in which round is in the provenance, for
    each model.

    Raises
    ------
    GlasError
        The models explain different regions or points.
    """
    first = results[0]
    table = first.table.sort_values("name", kind="stable").reset_index(drop=True)
    if any(set(result.table["name"]) != set(table["name"]) for result in results):
        raise GlasError(f"models to be averaged must explain the same regions or points, those of {first.stem} do not")
    tables = [result.table.set_index("name").reindex(table["name"]) for result in results]
    means, spread = {}, {}
    for column in table.columns.drop(_SAME):
        values = np.stack([model_table[column].to_numpy(dtype=float) for model_table in tables])
        means[column] = values.mean(axis=0)
        spread[f"{column}_sd"] = values.std(axis=0, ddof=1)
    table = table.assign(**means)
    more = {name: means[name] for name in means if name not in COLUMNS}
    table = ranked(table, first.explanation.settings["fusion"]).assign(**more)
    table = table.assign(**spread, n_models=len(results))
    table = table.set_index("name").reindex(first.table["name"]).reset_index()[table.columns]
    imgs: dict[str, Any] = {}
    for name in (f"{statistic}_img" for statistic in STATISTICS):
        first_img = getattr(first, name)
        if first_img is None:  # not evaluated
            imgs[name] = None
            continue
        maps = [np.asarray(getattr(result, name).dataobj, dtype=np.float64) for result in results]
        target = str(first.provenance["Target"]["class"])
        imgs[name] = map_on(first_img, np.mean(maps, axis=0), name.removesuffix("_img"), target)
    provenance = first.provenance | {
        "Model": [result.provenance["Model"] for result in results],
        "Probability": float(np.mean([result.probability for result in results])),
        "Fused": f"mean of {len(results)} models",
    }
    if notes := _notes_of_models(results):
        provenance["Notes"] = notes
    if "Account" in provenance:
        accounts = [result.provenance["Account"] for result in results]
        provenance["Account"] = Account.joined(accounts, table["evidence"].dropna().to_numpy()).record()
    if "Recursion" in provenance:
        provenance["Recursion"] = [result.provenance["Recursion"] for result in results]
    parts = {name: average([result.parts[name] for result in results]) for name in first.parts}
    return replace(first, table=table, provenance=provenance, round_imgs=(), parts=parts, **imgs)


def _notes_of_models(results: Sequence[ScanExplanation]) -> list[str]:
    """Return the notes on several models' explanations; those that not all models have say whose they are."""
    models: dict[str, list[str]] = {}
    for result in results:
        for note in result.notes:
            models.setdefault(note, []).append(str(result.provenance["Model"]["name"]))
    return [note if len(names) == len(results) else f"{note} ({listed(names)})" for note, names in models.items()]


def template_map(results: list[ScanExplanation]) -> nib.Nifti1Image:
    """Return the mean saliency on the template's grid, where scans of different native spaces can be compared."""
    maps = [result.explanation.saliency for result in results]
    affine = np.array(results[0].provenance["Grid"]["affine"])
    img = nib.Nifti1Image(np.mean(maps, axis=0, dtype=np.float64).astype(np.float32), affine)
    img.set_sform(affine, code=4)
    img.set_qform(affine, code=4)
    img.header.set_xyzt_units("mm")
    return img


def _probability(result: ScanExplanation) -> float:
    """Return the probability of the target, also where a result compares two classes and holds their difference."""
    return _of_target(result).probability


def _of_target(result: ScanExplanation) -> ScanExplanation:
    return next(iter(result.parts.values())) if "Against" in result.provenance else result


def _outputs_record(results: Sequence[ScanExplanation]) -> dict[str, Any]:
    """Return the outputs of all classes for the scan, the mean over the models, if they are known."""
    outputs = [_of_target(result).explanation.outputs for result in results]
    known = [each for each in outputs if each is not None]
    return {"Outputs": np.mean(known, axis=0).tolist()} if len(known) == len(results) else {}


def _training_record(manifest: Manifest | None, bundles: list[str], participant_id: str) -> dict[str, Any]:
    """Return whether the models were trained on a participant, and which folds explain them."""
    if manifest is None:
        return {"InSample": "unknown", "Folds": []}
    folds = {str(bundle.resolve()): fold.fold for bundle, fold in manifest.folds.items()}
    in_sample = any(manifest.saw(bundle, participant_id) for bundle in bundles)
    return {"InSample": in_sample, "Folds": [folds[bundle] for bundle in bundles]}


def _method_record(result: ScanExplanation, manifest: Manifest | None, plan: StudyPlan) -> dict[str, Any]:
    """Return what must be the same in a group; folds, participants' own files and batches may differ."""
    provenance = result.provenance
    settings = {k: v for k, v in provenance["Settings"].items() if k not in COMPUTATION_SETTINGS}
    search = {k: v for k, v in provenance["Search"].items() if k != "mask"}
    if plan.parcellation is not None:  # hashes, and regions without a voxel, are each participant's own
        search = {"atlas": plan.parcellation, "parcellations": plan.search}
    options = {k: v for k, v in plan.settings_record().items() if k in _SAME_IN_GROUP}
    if has_pattern(plan.settings.get("background")):
        settings["background"] = plan.settings_record()["background"]
    model = dict(provenance["Model"])
    if manifest is not None:
        own, of_the_model = f"reference of {model['name']}", "reference of the model"
        for name, shared in ((own, of_the_model), (matched_name(own), matched_name(of_the_model))):
            if settings.get("background") == name:
                settings["background"] = shared
        fold = next(iter(manifest.folds.values()))
        model |= {"name": f"{fold.folds} folds", "sha256": fold.settings_sha256}
    method = {"Target": provenance["Target"], "Settings": settings, "Model": model, "Search": search}
    return method | ({"Options": options} if options else {})


def _with_provenance(result: ScanExplanation, more: Mapping[str, Any]) -> ScanExplanation:
    """Return the result with more provenance for every file, and those of its parts."""
    parts = {name: _with_provenance(part, more) for name, part in result.parts.items()}
    return replace(result, provenance=result.provenance | dict(more), parts=parts)


def load_search_of(plan: StudyPlan, task: ScanTask) -> Any:
    """Return the plan's atlas, coordinates or grid, or the participant's own parcellation.

    Raises
    ------
    GlasError
        The atlas or the look-up table has changed since the study was started, or cannot be used.
    """
    if plan.parcellation is not None:
        if plan.atlas_table is not None and search_hash(plan.search, None, plan.atlas_table) != plan.search_sha256:
            raise GlasError(f"the look-up table {plan.atlas_table} has changed since this study was started")
        path = Path(task.own["search"])
        return _load_parcellation(path, file_sha256(path), plan.atlas_table, plan.parcellation, plan.atlas_space)
    search = load_search(plan.search, plan.atlas_space, plan.atlas_table)
    if search_hash(plan.search, search) != plan.search_sha256:
        load_search.cache_clear()  # the worker may have lived longer than the atlas
        search = load_search(plan.search, plan.atlas_space, plan.atlas_table)
        if search_hash(plan.search, search) != plan.search_sha256:
            raise GlasError(f"the atlas {plan.search} has changed since this study was started")
    return search


@lru_cache(maxsize=1)
def _load_parcellation(path: Path, sha256: str, table: str | None, label: str, space: str | None) -> Atlas:
    """Return a participant's own parcellation, which several models explain; the hash changes with the file."""
    return Atlas.load(path, table=table, label=label, space=space)


@lru_cache(maxsize=2)
def _load_manifest(models: str, hashes: tuple[tuple[str, str | None], ...]) -> Manifest | None:
    """Return the manifest, read once by each worker; the hashes change when models are trained again."""
    return manifest_of(models)


@lru_cache(maxsize=8)
def _load_model(name: str, sha256: str | None, device: str, **loading: Any) -> Predictor:
    """Return a model, loaded once by each worker.

    Raises
    ------
    GlasError
        The model has changed since the study was started.
    """
    predict = load_model(name, device=device, **loading)
    if predict.info.sha256 != sha256:
        raise GlasError(f"the model {name} has changed since this study was started")
    return predict


@contextmanager
def limited(count: int) -> Iterator[None]:
    """Limit the threads of torch and of the libraries under NumPy, because the rounding of sums depends on them."""
    from threadpoolctl import threadpool_limits

    with torch_threads(count), threadpool_limits(limits=count):
        yield
