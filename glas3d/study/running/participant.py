"""One participant of a study, explained by a model that never saw them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np

from glas3d.core.explanation import COMPUTATION_SETTINGS
from glas3d.core.glas import Progress
from glas3d.core.threads import torch_threads
from glas3d.errors import GlasError, GlasWarning, SpaceWarning
from glas3d.explain import COLUMNS, STATISTICS, ScanExplanation, explain_img, ranked
from glas3d.hashing import file_sha256
from glas3d.imaging.space import MNI
from glas3d.imaging.spatial_transform import load_transform
from glas3d.output import remove_leftovers
from glas3d.predict import Predictor, load_model
from glas3d.study.cohort.file_patterns import files_of, has_pattern, said
from glas3d.study.derivatives import is_finished, key_of, participant_folder, record_name, write_participant
from glas3d.study.environment import version
from glas3d.study.running.plan import Plan, bundles_for, identity, manifest_of, searched
from glas3d.study.training.manifest import Manifest

Status = Literal["explained", "kept", "failed"]

_SAME = ["index", "name", "hemisphere", "x", "y", "z", "n_voxels", "rank"]  # in every model's table
_SPACE = re.compile("_space-[0-9A-Za-z]+")
# What a group must have been asked alike, beside the settings of `GLAS`.
_WAYS = ("recursive", "versus", "mask_img", "brain_mask", "transform", "register", "covariates", "covariate_reference")


@dataclass(frozen=True)
class ToExplain:
    """One scan of a participant; ``session`` is empty where there is none.

    Attributes
    ----------
    own
        Settings in which it differs from the others (see `own_of`).
    """

    participant_id: str
    session: str
    path: Path
    own: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of one scan.

    Attributes
    ----------
    status
        ``"explained"``, ``"kept"`` from an earlier run, or ``"failed"``.
    error
        Why it failed.
    notes
        Warnings on the way.
    """

    participant_id: str
    session: str
    status: Status
    error: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.participant_id} {self.session}".strip()


def explain_participant(plan: Plan, one: ToExplain) -> Outcome:
    """Explain one scan and write its folder, unless it is there; whatever goes wrong is in the outcome."""
    with warnings.catch_warnings(record=True) as caught, limited(plan.threads):
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", GlasWarning)
        warnings.simplefilter("error", SpaceWarning)
        try:
            status, error = _explain(plan, one), ""
        except SpaceWarning as problem:
            status, error = "failed", f"{problem}; if it is, assume_space MNI takes it"
        except GlasError as problem:
            status, error = "failed", str(problem)
        except Exception as problem:  # a model may raise anything, and the others go on
            status, error = "failed", f"unexpected {type(problem).__name__}: {' '.join(str(problem).split())[:300]}"
    notes = tuple(dict.fromkeys(str(one.message) for one in caught))
    return Outcome(one.participant_id, one.session, status, " ".join(error.split()), notes)


def _explain(plan: Plan, one: ToExplain) -> Status:
    here = version(plan.engine, "register" in plan.settings)
    if here != plan.version:
        raise GlasError(f"every worker needs the same versions: the study has {plan.version}, this one {here}")
    place = participant_folder(plan.out, one.participant_id, one.session)
    remove_leftovers(place)
    begun = prepare(plan, one)
    name = record_name(one.participant_id, one.session)
    if is_finished(place, name, begun.key):
        return "kept"
    found = [begun.ask(bundle) for bundle in begun.bundles]
    result = found[0] if len(found) == 1 else average(found)
    said = {"Key": begun.key} | _training(begun.manifest, begun.bundles, one.participant_id)
    probabilities = [_probability(each) for each in found]
    record = {
        **said,
        "Stem": result.stem,
        "Input": result.provenance["Input"],
        "Probability": float(np.mean(probabilities)),
        "Probabilities": probabilities,
        "Method": _method(found[0], begun.manifest, plan),
    }
    files = {}
    if result.provenance["Transform"] is not None:
        record["Map"] = f"{re.sub(_SPACE, '', result.stem)}_space-{MNI}_stat-saliency_statmap.nii.gz"
        files[record["Map"]] = template_map(found).to_filename

    def save(folder: Path) -> None:
        _saying(result, said).save(folder)
        for file, write in files.items():
            write(folder / file)

    try:
        write_participant(place, name, save, record)
    except GlasError:
        if is_finished(place, name, begun.key):  # by a worker that was thought to be lost
            return "kept"
        raise
    return "explained"


@dataclass(frozen=True, eq=False)
class Prepared:
    """One scan, everything about it known but the answer.

    Attributes
    ----------
    key
        Hash over everything that decides its results.
    bundles
        The models that explain it.
    manifest
        Whom they were trained on, where they say it.
    """

    plan: Plan
    one: ToExplain
    key: str
    bundles: list[str]
    manifest: Manifest | None
    settings: Mapping[str, Any]

    def ask(self, bundle: str, progress: Progress = False) -> ScanExplanation:
        """What one of the models says."""
        plan = self.plan
        found = explain_img(
            self.one.path,
            _model(bundle, plan.sha256[bundle], plan.device),
            plan.target,
            _search(plan),
            batch_size=plan.batch_size,
            engine=plan.engine,
            assume_space=plan.assume_space,
            progress=progress,
            **self.settings,
        )
        assert isinstance(found, ScanExplanation)
        return found


def prepare(plan: Plan, one: ToExplain) -> Prepared:
    """Which models explain a scan and how, and the key of its results.

    Raises
    ------
    GlasError
        Files that are not there or have changed, or models that have all seen the participant.
    """
    if not one.path.is_file():
        raise GlasError(f"no such file: {one.path}")
    digest = file_sha256(one.path)
    manifest = _manifest(plan.models, tuple(plan.sha256.items()))
    bundles = bundles_for(plan, manifest, one.participant_id, digest)
    settings = plan.with_files() | dict(one.own)
    if "cut" in settings:  # a clock must not decide how a study rounds
        settings["cut_always"] = True
    transform = None
    if "transform" in settings:
        transform = load_transform(settings.pop("transform"), settings.pop("inverse", None))
        settings["transform"] = transform
    own = {name: value for name, value in one.own.items() if name not in ("transform", "inverse")}
    key = key_of(
        models=[plan.sha256[bundle] or bundle for bundle in bundles],
        input=digest,
        file=one.path.name,
        **{k: v for k, v in plan.record().items() if k not in ("Models", "Search")},
        search=None if isinstance(plan.search, str) else plan.search,
        own=said(own, files_of(own)),
        transform=None if transform is None else transform.record(),
    )
    return Prepared(plan, one, key, bundles, manifest, settings)


def average(found: list[ScanExplanation]) -> ScanExplanation:
    """What several models say of one scan: means, and in the table their spread (``score_sd`` and so on, n - 1).

    So are the parts, where it was asked in several ways. Of recursions, whose rounds differ by model, the fused maps
    are averaged; what was removed when is in the provenance, one a model.

    Raises
    ------
    GlasError
        They looked at different places.
    """
    first = found[0]
    table = first.table.sort_values("name", kind="stable").reset_index(drop=True)
    if any(set(one.table["name"]) != set(table["name"]) for one in found):
        raise GlasError(f"models to be averaged must look at the same places, those of {first.stem} do not")
    tables = [one.table.set_index("name").reindex(table["name"]) for one in found]
    means, spread = {}, {}
    for column in table.columns.drop(_SAME):
        values = np.stack([one[column].to_numpy(dtype=float) for one in tables])
        means[column] = values.mean(axis=0)
        spread[f"{column}_sd"] = values.std(axis=0, ddof=1)
    table = table.assign(**means)
    table = ranked(table).assign(**{name: means[name] for name in means if name not in COLUMNS})
    table = table.assign(**spread, n_models=len(found))
    table = table.set_index("name").reindex(first.table["name"]).reset_index()[table.columns]
    imgs: dict[str, Any] = {}
    for name in (f"{statistic}_img" for statistic in STATISTICS):
        pattern = getattr(first, name)
        maps = [np.asarray(getattr(one, name).dataobj, dtype=np.float64) for one in found]
        imgs[name] = nib.Nifti1Image(np.mean(maps, axis=0).astype(np.float32), pattern.affine, pattern.header)
    provenance = first.provenance | {
        "Model": [one.provenance["Model"] for one in found],
        "Probability": float(np.mean([one.explanation.probability for one in found])),
        "Fused": f"mean of {len(found)} models",
    }
    if "Recursion" in provenance:
        provenance["Recursion"] = [one.provenance["Recursion"] for one in found]
    parts = {name: average([one.parts[name] for one in found]) for name in first.parts}
    return replace(first, table=table, provenance=provenance, round_imgs=(), parts=parts, **imgs)


def template_map(found: list[ScanExplanation]) -> nib.Nifti1Image:
    """The saliency, a mean over models, on the template's grid: where scans of native spaces meet."""
    maps = [one.explanation.saliency for one in found]
    affine = np.array(found[0].provenance["Grid"]["affine"])
    img = nib.Nifti1Image(np.mean(maps, axis=0, dtype=np.float64).astype(np.float32), affine)
    img.set_sform(affine, code=4)
    img.set_qform(affine, code=4)
    img.header.set_xyzt_units("mm")
    return img


def _probability(result: ScanExplanation) -> float:
    """Of the target: a contrast's own is a difference."""
    one = next(iter(result.parts.values())) if "Against" in result.provenance else result
    return one.explanation.probability


def _training(manifest: Manifest | None, bundles: list[str], participant_id: str) -> dict[str, Any]:
    """Whether a participant was seen, and by which folds explained."""
    if manifest is None:
        return {"InSample": "unknown", "Folds": []}
    folds = {str(bundle.resolve()): one.fold for bundle, one in manifest.folds.items()}
    seen = any(manifest.saw(bundle, participant_id) for bundle in bundles)
    return {"InSample": seen, "Folds": [folds[bundle] for bundle in bundles]}


def _method(result: ScanExplanation, manifest: Manifest | None, plan: Plan) -> dict[str, Any]:
    """What must be the same in everyone: which fold, which files of their own, and in what batches need not be."""
    from_result = result.provenance
    settings = {k: v for k, v in from_result["Settings"].items() if k not in COMPUTATION_SETTINGS}
    search = {k: v for k, v in from_result["Search"].items() if k != "mask"}
    asked = {k: v for k, v in plan.said().items() if k in _WAYS}
    if has_pattern(plan.settings.get("background")):
        settings["background"] = plan.said()["background"]
    model = dict(from_result["Model"])
    if manifest is not None:
        if settings.get("background") == f"reference of {model['name']}":
            settings["background"] = "reference of the model"
        one = next(iter(manifest.folds.values()))
        model |= {"name": f"{one.folds} folds", "sha256": one.settings_sha256}
    found = {"Target": from_result["Target"], "Settings": settings, "Model": model, "Search": search}
    return found | ({"Asked": asked} if asked else {})


def _saying(result: ScanExplanation, said: Mapping[str, Any]) -> ScanExplanation:
    """More provenance for every file, those of parts too."""
    parts = {name: _saying(part, said) for name, part in result.parts.items()}
    return replace(result, provenance=result.provenance | dict(said), parts=parts)


def _search(plan: Plan) -> Any:
    """The plan's atlas or grid.

    Raises
    ------
    GlasError
        The atlas is not the one the study began with.
    """
    search = searched(plan.search, plan.atlas_space)
    if identity(plan.search, search) != plan.search_sha256:
        searched.cache_clear()  # of a worker that outlived an atlas
        search = searched(plan.search, plan.atlas_space)
        if identity(plan.search, search) != plan.search_sha256:
            raise GlasError(f"the atlas {plan.search} is not the one this run began with: it has changed meanwhile")
    return search


@lru_cache(maxsize=2)
def _manifest(models: str, hashes: tuple[tuple[str, str | None], ...]) -> Manifest | None:
    """Read once a worker; the hashes tell a study that was trained again from the one before."""
    return manifest_of(models)


@lru_cache(maxsize=8)
def _model(name: str, sha256: str | None, device: str) -> Predictor:
    """Loaded once a worker.

    Raises
    ------
    GlasError
        It is not the one the study began with.
    """
    predict = load_model(name, device=device)
    if predict.info.sha256 != sha256:
        raise GlasError(f"the model {name} is not the one this run began with: it has changed meanwhile")
    return predict


@contextmanager
def limited(count: int) -> Iterator[None]:
    """The threads of torch and of the libraries below NumPy, whose sums depend on them too."""
    from threadpoolctl import threadpool_limits

    with torch_threads(count), threadpool_limits(limits=count):
        yield
