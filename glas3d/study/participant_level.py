"""One participant of a study, explained by a model that never saw them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np

from glas3d.core.explanation import HOW
from glas3d.errors import GlasError, GlasWarning, SpaceWarning
from glas3d.explain import STATISTICS, ScanExplanation, explain_img, ranked
from glas3d.imaging.scan import file_sha256
from glas3d.predict.bundle import load_model
from glas3d.predict.predictor import Predictor
from glas3d.study.derivatives import (
    is_finished,
    key_of,
    participant_folder,
    record_name,
    remove_leftovers,
    write_participant,
)
from glas3d.study.manifest import Manifest
from glas3d.study.plan import Plan, bundles_for, manifest_of, searched, version
from glas3d.study.pool import torch_threads

Status = Literal["explained", "kept", "failed"]

_AVERAGED = ("light", "shadow", "drop", "score")


@dataclass(frozen=True)
class ToExplain:
    """One scan of a participant; ``session`` is empty where there is none."""

    participant_id: str
    session: str
    path: Path


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
    with warnings.catch_warnings(record=True) as caught, _threads(plan.threads):
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
    here = version(plan.engine)
    if here != plan.version:
        raise GlasError(f"every worker needs the same versions: the study has {plan.version}, this one {here}")
    place = participant_folder(plan.out, one.participant_id, one.session)
    remove_leftovers(place)
    if not one.path.is_file():
        raise GlasError(f"no such file: {one.path}")
    digest = file_sha256(one.path)
    manifest = _manifest(plan.models, tuple(plan.sha256.items()))
    bundles = bundles_for(plan, manifest, one.participant_id, digest)
    name = record_name(one.participant_id, one.session)
    key = key_of(
        models=[plan.sha256[bundle] or bundle for bundle in bundles],
        input=digest,
        file=one.path.name,
        **{k: v for k, v in plan.record().items() if k not in ("Models", "Search")},
        search=None if isinstance(plan.search, str) else plan.search,
    )
    if is_finished(place, name, key):
        return "kept"
    search = _search(plan)
    settings = plan.with_files()
    found = []
    for bundle in bundles:
        predict = _model(bundle, plan.sha256[bundle], plan.device)
        result = explain_img(
            one.path,
            predict,
            plan.target,
            search,
            batch_size=plan.batch_size,
            engine=plan.engine,
            assume_space=plan.assume_space,
            **settings,
        )
        assert isinstance(result, ScanExplanation)
        found.append(result)
    result = found[0] if len(found) == 1 else average(found)
    said = {"Key": key} | _training(manifest, bundles, one.participant_id)
    probability = float(np.mean([each.explanation.probability for each in found]))
    record = {
        **said,
        "Stem": result.stem,
        "Input": result.provenance["Input"],
        "Probability": probability,
        "Probabilities": [each.explanation.probability for each in found],
        "Method": _method(found[0], manifest),
    }
    try:
        write_participant(place, name, _saying(result, said).save, record)
    except GlasError:
        if is_finished(place, name, key):  # by a worker that was thought to be lost
            return "kept"
        raise
    return "explained"


def average(found: list[ScanExplanation]) -> ScanExplanation:
    """What several models say of one scan: means, and in the table their spread (``score_sd`` and so on, n - 1).

    Raises
    ------
    GlasError
        They looked at different places.
    """
    first = found[0]
    table = first.table.sort_values("index", kind="stable").reset_index(drop=True)
    tables = [one.table.set_index("index").reindex(table["index"]) for one in found]
    if any(set(one.table["index"]) != set(table["index"]) for one in found):
        raise GlasError(f"models to be averaged must look at the same places, those of {first.stem} do not")
    spread = {}
    for column in _AVERAGED:
        values = np.stack([one[column].to_numpy(dtype=float) for one in tables])
        table[column] = values.mean(axis=0)
        spread[f"{column}_sd"] = values.std(axis=0, ddof=1)
    table = ranked(table).assign(**spread, n_models=len(found))
    table = table.set_index("index").reindex(first.table["index"]).reset_index()
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
    return replace(first, table=table, provenance=provenance, **imgs)


def _training(manifest: Manifest | None, bundles: list[str], participant_id: str) -> dict[str, Any]:
    """Whether a participant was seen, and by which folds explained."""
    if manifest is None:
        return {"InSample": "unknown", "Folds": []}
    folds = {str(bundle.resolve()): one.fold for bundle, one in manifest.folds.items()}
    seen = any(manifest.saw(bundle, participant_id) for bundle in bundles)
    return {"InSample": seen, "Folds": [folds[bundle] for bundle in bundles]}


def _method(result: ScanExplanation, manifest: Manifest | None) -> dict[str, Any]:
    """What must be the same in everyone: which fold, and where and in what batches it was computed, need not be."""
    said = result.provenance
    settings = {k: v for k, v in said["Settings"].items() if k not in HOW}
    model = dict(said["Model"])
    if manifest is not None:
        if settings.get("background") == f"reference of {model['name']}":
            settings["background"] = "reference of the model"
        one = next(iter(manifest.folds.values()))
        model |= {"name": f"{one.folds} folds", "sha256": one.settings_sha256}
    return {"Target": said["Target"], "Settings": settings, "Model": model, "Search": said["Search"]}


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
    search = searched(plan.search)
    if getattr(search, "sha256", "") != plan.search_sha256:
        searched.cache_clear()  # of a worker that outlived an atlas
        search = searched(plan.search)
        if search.sha256 != plan.search_sha256:
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
def _threads(count: int) -> Iterator[None]:
    """Of torch and of the libraries below NumPy, whose sums depend on it too."""
    from threadpoolctl import threadpool_limits

    with torch_threads(count), threadpool_limits(limits=count):
        yield
