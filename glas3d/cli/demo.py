"""Every step on simulated data: simulate participants, explain the AD group, map it, compare with the truth."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from glas3d.errors import GlasError, GlasWarning
from glas3d.evaluate import true_effects
from glas3d.evaluate.true_effects import mean_effects
from glas3d.explain import ScanExplanation, explain_img
from glas3d.explain.notes import statement_of
from glas3d.explain.table import DESCRIPTIONS
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import resample_scan
from glas3d.output import (
    DESCRIPTION,
    REPORT,
    Columns,
    dataset_description,
    described_table,
    new_folder,
    sealed,
    write_each,
    write_json,
)
from glas3d.predict import Predictor, load_model
from glas3d.reading import read_json_object
from glas3d.report.regions import regions_figure
from glas3d.report.webpage.writing import write_report
from glas3d.simulate import PLANTED, Simulation, scan_path, write_dataset
from glas3d.study.group.group_map import GroupMap
from glas3d.tables import read_table

MODEL = "adnc-simulated"
DEMO_PARTICIPANTS, DEMO_SEED = 24, 2020  # the model was trained, and its settings chosen, on other seeds
_NAME = "glas3d demo: an AD group explained"
_TRUTH_COLUMNS = {
    **DESCRIPTIONS,
    "planted": ("1: disease was simulated in the region", "0 or 1"),
    "effect": (
        "How much the disease of the region raises the log-odds of AD, measured with twins of the same participant: "
        "mean over the participants with AD",
        "log-odds (natural logarithm)",
    ),
}


@dataclass(frozen=True, eq=False)
class DemoResult:
    """The result of the demo.

    Attributes
    ----------
    table
        The AD group's regions, ranked.
    truth
        What disease of each region truly does to the model: ``index``, ``name``, ``planted`` (1: disease was simulated
        there) and ``effect``, the mean change of the log-odds of AD over the participants with AD, measured with twins.
    n_planted_first
        Number of them among the eight highest-scoring regions.
    columns
        The description and the units of each column of the table.
    figure
        Path of the figure.
    summary
        One sentence about the classifier.
    account
        How much of the effect the group's regions account for; None: it is not known.
    report
        Path of the report; None: none was wanted.
    """

    table: pd.DataFrame
    truth: pd.DataFrame
    n_planted_first: int
    columns: Columns
    figure: Path
    summary: str
    account: Mapping[str, Any] | None = None
    report: Path | None = None


def run_demo(
    out: Path,
    *,
    participants: int = DEMO_PARTICIPANTS,
    seed: int = DEMO_SEED,
    report: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DemoResult:
    """Run the demo.

    Parameters
    ----------
    out
        New or empty folder, or that of an earlier demo, which is replaced when this one is complete.
    participants
        Number of participants to simulate, half of them AD.
    seed
        Seed of the simulation; the shipped model was trained, and its settings chosen, on other seeds.
    report
        Whether the report is written, too.
    progress
        Called with the steps done and in all: one for each participant simulated, one for each model output, and two
        more for each participant explained, whose twins are evaluated too.

    Raises
    ------
    GlasError
        The folder holds something else, or fewer than two participants.
    """
    if participants < 2:
        raise GlasError(f"the demo needs at least 2 participants, one of them AD, got {participants}")
    simulation = Simulation(participants=participants, seed=seed)
    predict, atlas = load_model(MODEL), Atlas.load("AAL")
    n_cases = (participants + 1) // 2
    steps = 2 * (participants + n_cases)
    with new_folder(out, replaces=_is_demo) as scratch:
        data = write_dataset(scratch / "simulated", simulation, lambda done, _: progress(done, steps))
        people = read_table(data / "participants.tsv")
        scans = [data / scan_path(simulation, p.removeprefix("sub-")) for p in people["participant_id"]]
        group, probabilities, effects, saturated = GroupMap("AD", atlas), [], [], 0
        done = participants
        for number, (scan, diagnosis) in enumerate(zip(scans, people["group"], strict=True)):
            if diagnosis == group.group:
                with warnings.catch_warnings():  # counted below, for all participants together
                    warnings.filterwarnings("ignore", "the output is saturated", GlasWarning)
                    result = explain_img(scan, predict, diagnosis, atlas)
                assert isinstance(result, ScanExplanation)
                saturated += any("saturated" in statement_of(note) for note in result.notes)
                result.save(scratch / scan.relative_to(data).parent)
                group.add(result)
                probabilities.append(result.explanation.probability)
                effects.append(true_effects(predict, simulation, number, diagnosis))
            else:
                probabilities.append(_probability(predict, scan, group.group))
            done += 3 if diagnosis == group.group else 1
            progress(done, steps)
        group.save(scratch / "group")
        table, truth = group.table(), mean_effects(effects)
        write_each(scratch / "group", described_table("group-AD_seg-AAL_desc-truth_regions", truth, _TRUTH_COLUMNS))
        title = f"AD group, {len(group)} simulated participants: saliency of {MODEL}"
        figure = Path("group") / "group-AD_seg-AAL_regions.png"
        regions_figure(group.saliency_img(), table, atlas, title=title)(scratch / figure)
        description = dataset_description(_NAME, SourceDatasets=[{"URL": "simulated"}])
        (scratch / ".bidsignore").write_text(
            "simulated\ngroup\nreport.html\n*_statmap.*\n*_regions.*\n", encoding="utf-8"
        )
        sealed(write_json(description))(scratch / DESCRIPTION)
        if report:
            write_report(scratch)
    has_ad = (people["group"] == group.group).to_numpy()
    called_ad = np.array(probabilities) > 0.5
    summary = (
        f"{MODEL} calls {int(called_ad[has_ad].sum())} of {int(has_ad.sum())} AD participants AD and "
        f"{int((~called_ad[~has_ad]).sum())} of {int((~has_ad).sum())} controls NC; it learnt simulated disease."
    )
    if saturated:
        summary += (
            f" For {saturated} AD participants its output is saturated: removing a region hardly changes it, so that "
            "their ranks show light only."
        )
    n_planted_first = int(table.loc[table["rank"] <= 8, "name"].isin(PLANTED).sum())
    account = group.account()
    return DemoResult(
        table,
        truth,
        n_planted_first,
        group.columns(),
        out / figure,
        summary,
        None if account is None else account.record(),
        out / REPORT if report else None,
    )


def _probability(predict: Predictor, path: Path, name: str) -> float:
    """Return ``P(name)`` of one scan on the model's grid."""
    assert predict.info.grid is not None
    assert predict.classes is not None
    volume = torch.as_tensor(resample_scan(load_scan(path), predict.info.grid))[None]
    return float(predict.fit(volume)(volume[None])[0, predict.classes.index(name)])


def _is_demo(out: Path) -> bool:
    try:
        return bool(read_json_object(out / DESCRIPTION, "a description")["Name"] == _NAME)
    except (GlasError, KeyError):
        return False
