"""Test of a study's out-of-fold maps by relabelling: train, explain and compare again with permuted labels."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from glas3d.bids_names import bids_label
from glas3d.errors import GlasError, GlasWarning, listed
from glas3d.options import parse
from glas3d.output import Writer, generated_by, to_json, write_json, write_together
from glas3d.reading import read_bytes, read_json_object
from glas3d.statistics.choices import Normalise, check_normalise
from glas3d.statistics.relabelling import NULL_HYPOTHESIS, group_statistics, relabelled_table, relabellings
from glas3d.study.cohort.cohort import Cohort
from glas3d.study.derivatives import read_records
from glas3d.study.group.files import SCALES, GroupFiles
from glas3d.study.group.participants import read_participants, score_matrix
from glas3d.study.running.options import StudyRequest
from glas3d.study.running.runner import explain_cohort
from glas3d.study.training.crossvalidation import train_folds
from glas3d.study.training.options import TrainingOptions
from glas3d.tables import read_table

RECORD = "relabelling.json"
_CACHE = ".cache"  # the scans on the grid of the models, which all relabellings read
# Keywords of training and explaining that do not decide the maps.
_NOT_RECORDED = ("n_workers", "scheduler", "cache", "progress", "announce")


def relabel_cohort(
    cohort: Cohort,
    out: str | os.PathLike[str],
    *,
    n_perm: int = 99,
    training: Mapping[str, Any] | None = None,
    explaining: Mapping[str, Any] | None = None,
    normalise: Normalise = "share",
    site: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Compare two groups by out-of-fold maps, with models trained again for every relabelling.

    First with the true labels, then ``n_perm`` times with labels permuted between the participants, models are trained
    by folds, everyone is explained out of fold, and the regions' scores are compared (see
    `glas3d.statistics.relabelling.compare_relabelled`, which says what the test assumes). Every relabelling costs as
    much as the whole study. Each leaves one table in ``out``; models and maps are removed. A run that was stopped is
    resumed when it is started again with the same arguments, and more relabellings may be wanted then.

    Parameters
    ----------
    cohort
        The participants, see `glas3d.study.read_cohort`; only case and control are used.
    out
        Folder of the tables and of the result.
    n_perm
        Number of relabellings, at least 19; no p-value is below ``1 / (n_perm + 1)``.
    training
        Keywords of `glas3d.study.train_folds`, such as ``{"folds": 2}``.
    explaining
        Keywords of `glas3d.study.explain_cohort`, such as ``{"search": "AAL"}``.
    normalise
        Scale of each participant's scores, see `glas3d.statistics.regions.normalised`.
    site
        Column of sites: labels are permuted within them. Default: one site.
    seed
        Seed of the relabellings.
    progress
        Called with the number of labellings done and of all.

    Returns
    -------
    The table of `glas3d.statistics.relabelling.compare_relabelled` with the column ``index``, which is also written as
    ``group-ADvsNC_desc-relabelled_statistics.tsv`` with a sidecar.

    Raises
    ------
    GlasError
        A folder with tables of other settings or participants; a participant of both groups; what training,
        explaining or the test refuse.

    TypeError
        A keyword that is no option of training or explaining.

    Warns
    -----
    GlasWarning
        Groups or sites so small that no p-value can reach 0.05; what training and explaining warn of, for the true
        labels.
    """
    check_normalise(normalise)
    parse({k: v for k, v in (training or {}).items() if k != "recipe"}, TrainingOptions, caller="train_folds")
    StudyRequest.of(explaining or {}, "explain_cohort")
    out = Path(out)
    people = _participants(cohort)
    every = relabellings(people, cohort.case, cohort.control, site=site, n_perm=n_perm, seed=seed)
    first = next(every)  # refuses what cannot be tested before anything is trained
    settings = {
        "Case": cohort.case,
        "Control": cohort.control,
        "Normalise": normalise,
        "Site": site,
        "Seed": seed,
        "Training": _plain(training or {}),
        "Explaining": _plain(explaining or {}),
        "Participants": dict(zip(people["participant_id"], people["group"], strict=True)),
        "Scans": [path.name for path in cohort.table["path"]],
    }
    _start(out, settings)

    def tables() -> Iterator[pd.DataFrame]:
        for number, labels in enumerate((first, *every)):
            stem = f"relabelling-{number:04d}"
            path = out / f"{stem}_regions.tsv"
            if not path.is_file():
                table = _relabelled_once(
                    _with_labels(cohort, people, labels),
                    labels,
                    people,
                    out,
                    training or {},
                    explaining or {},
                    normalise,
                    quiet=number > 0,
                )
                which = "the true labels" if number == 0 else f"permuted labels, relabelling {number}"
                text = f"{cohort.case} against {cohort.control} by {which}"
                written = _table_files(out, stem, "regions", table, text, settings, Relabelling=number)
                write_together(out, dict(reversed(written.items())))  # the table last: it says that this one is done
            progress(number + 1, n_perm + 1)
            yield read_table(path, "a table of regions", text=("name",))

    result = relabelled_table(tables(), people, cohort.case, cohort.control, site=site)
    _write(out, result, settings, n_perm)
    shutil.rmtree(out / _CACHE, ignore_errors=True)
    return result


def _participants(cohort: Cohort) -> pd.DataFrame:
    """Return one row for each participant of the two groups, sorted."""
    rows = cohort.table
    groups = rows.groupby("participant_id")["group"].nunique()
    if (several := groups[groups > 1]).size:
        raise GlasError(f"labels belong to participants, {several.index[0]} is of two groups")
    return rows.drop_duplicates("participant_id").sort_values("participant_id", ignore_index=True)


def _with_labels(cohort: Cohort, people: pd.DataFrame, labels: np.ndarray) -> Cohort:
    """Return the cohort of case and control in which participants have other labels."""
    label_of = dict(zip(people["participant_id"], labels, strict=True))
    table = cohort.table
    return replace(cohort, everyone=table.assign(group=table["participant_id"].map(label_of)))


def _relabelled_once(
    cohort: Cohort,
    labels: np.ndarray,
    people: pd.DataFrame,
    out: Path,
    training: Mapping[str, Any],
    explaining: Mapping[str, Any],
    normalise: Normalise,
    *,
    quiet: bool,
) -> pd.DataFrame:
    """Train, explain and compare with some labels; what a killed run left in the folder is used."""
    scratch = out / ".relabelling"
    mark = scratch / "labels.json"
    wanted = to_json({"labels": labels.tolist()})
    if scratch.is_dir() and not (mark.is_file() and read_bytes(mark, "the labels") == wanted.encode()):
        shutil.rmtree(scratch)
    scratch.mkdir(parents=True, exist_ok=True)
    mark.write_text(wanted, encoding="utf-8")
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore", GlasWarning)  # models of permuted labels are at chance, as they should be
        train_folds(cohort, scratch / "models", **{"cache": out / _CACHE, **training})
        explain_cohort(cohort, scratch / "results", scratch / "models", **explaining)
    results = list(read_participants(read_records(scratch / "results"), cohort.everyone, cohort.case, cohort.control))
    found = [each.participant_id for each in results]
    if found != people["participant_id"].tolist():
        lacking = sorted(set(people["participant_id"]) - set(found))
        raise GlasError(
            f"every participant needs a map by the models of every labelling, without one: {listed(lacking)}"
        )
    table = group_statistics(score_matrix(results, normalise), labels, cohort.case, cohort.control)
    table.insert(0, "index", results[0].regions["index"].to_numpy())
    shutil.rmtree(scratch)
    return table


def _start(out: Path, settings: Mapping[str, Any]) -> None:
    """Make the folder, or resume one of the same settings."""
    path = out / RECORD
    if path.is_file():
        existing = read_json_object(path, "the settings of relabellings")
        wanted = json.loads(to_json(dict(settings)))
        if differing := [name for name in wanted if existing.get(name) != wanted[name]]:
            raise GlasError(
                f"{out} holds relabellings of other settings ({', '.join(differing)}): give another folder, or the "
                "same settings"
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise GlasError(f"relabellings need a folder that is new, empty or holds earlier ones, {out} has other content")
    else:
        write_together(out, {RECORD: write_json(dict(settings))})


def _plain(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords that decide the maps, for JSON."""
    kept = {name: value for name, value in keywords.items() if name not in _NOT_RECORDED}
    return {name: value if isinstance(value, str | int | float | None) else str(value) for name, value in kept.items()}


def _write(out: Path, result: pd.DataFrame, settings: Mapping[str, Any], n_perm: int) -> None:
    """Write the result with its sidecar."""
    case, control = (str(settings[name]) for name in ("Case", "Control"))
    record = {
        "Permutations": n_perm,
        "NullHypothesis": NULL_HYPOTHESIS,
        "NullDistribution": "labels permuted, models trained and everyone explained again, largest |t| of each",
        "Exchangeable": "the labels of the participants" + (f" within {settings['Site']}" if settings["Site"] else ""),
    }
    stem = f"group-{bids_label(case)}vs{bids_label(control)}_desc-relabelled"
    text = f"{case} against {control}, by relabelling with retraining"
    write_together(out, _table_files(out, stem, "statistics", result, text, settings, **record))


def _table_files(
    out: Path, stem: str, suffix: str, table: pd.DataFrame, text: str, settings: Mapping[str, Any], **record: Any
) -> dict[str, Writer]:
    """Return the writers of a table of a relabelling, or of the result, with its sidecar."""
    scale = SCALES[settings["Normalise"]]
    of_group = {"case": settings["Case"], "control": settings["Control"]}
    means = {f"mean_{name}": (f"mean of the normalised scores of {group}", scale) for name, group in of_group.items()}
    record = {**settings, "Statistic": "Welch's t", **record, "GeneratedBy": generated_by()}
    return GroupFiles(out, None, {}).table_files(stem, suffix, table, text, means, scale=scale, **record)
