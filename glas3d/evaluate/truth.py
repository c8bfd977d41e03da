"""Which explanation methods follow what a model truly uses? Their values against the true effects of twins."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from glas3d.core.model import Predict
from glas3d.core.score import Target
from glas3d.counts import counted
from glas3d.errors import GlasError
from glas3d.evaluate.attribution import attribute
from glas3d.evaluate.metrics.detection import detection
from glas3d.evaluate.metrics.effects import effect_correlation
from glas3d.evaluate.true_effects import mean_effects, true_effects
from glas3d.simulate.dataset import scan_img
from glas3d.simulate.participants import simulate_participant
from glas3d.simulate.simulation import LESIONS, Simulation

# A region is used by a model if its mean effect is at least this share of the largest.
_USED = 1 / 20


@dataclass(frozen=True, eq=False)
class Truth:
    """The values of regions by several methods, and the true effects of the regions on the model.

    Attributes
    ----------
    values
        One row for each method, participant and region of the atlas: ``method``, ``participant`` (its number),
        ``index``, ``score``, ``density`` (the score for one voxel), and the ``evaluations`` and ``seconds`` of the
        method.
    effects
        One row for each participant and region: ``participant``, ``index``, ``name``, ``planted``, ``effect``, see
        `true_effects`.
    """

    values: pd.DataFrame
    effects: pd.DataFrame

    def __repr__(self) -> str:
        methods, participants = self.values["method"].unique(), self.effects["participant"].unique()
        of = counted(len(participants), "participant")
        return f"Truth({counted(len(methods), 'method')} of {of}: {', '.join(methods)})"

    def by_participant(self) -> pd.DataFrame:
        """Return how each method's values correlate with the true effects of each participant.

        Returns
        -------
        One row for each method and participant: ``method``, ``participant``, ``evaluations``, ``seconds``, ``r``
        (Pearson over all regions; 0 where all values are the same) and ``spearman`` (over the regions with an effect).
        """
        rows = []
        effects: dict[Any, pd.DataFrame] = {
            number: _regions(table) for number, table in self.effects.groupby("participant")
        }
        for (method, number), values in self.values.groupby(["method", "participant"], sort=False):
            correlation = _correlation(values, effects[number])
            cost = {"evaluations": int(values["evaluations"].iloc[0]), "seconds": float(values["seconds"].iloc[0])}
            rows.append({"method": method, "participant": number} | cost | correlation)
        return pd.DataFrame(rows)

    def by_group(self) -> pd.DataFrame:
        """Return how each method's group table meets the mean true effects, and whether it finds what was planted.

        In the group table every participant counts the same: values are divided by the participant's largest absolute
        value, and their mean is taken.

        Returns
        -------
        One row for each method: ``method``, ``r`` and ``spearman`` with the mean true effects, ``ap`` and
        ``ap_density`` (average precision of the planted regions in the order of the scores, and of the densities), and
        ``ap_used`` (as ``ap_density``, of the regions that the model uses: those whose mean effect is at least a
        twentieth of the largest; NaN where no effect is positive).
        """
        effects = mean_effects([_regions(table) for _, table in self.effects.groupby("participant")])
        largest = effects["effect"].max()
        used = effects.assign(planted=effects["effect"] >= _USED * largest)
        orders = {"ap": (effects, "score"), "ap_density": (effects, "density")}
        orders |= {"ap_used": (used, "density")} if largest > 0 else {}
        rows = []
        for method, values in self.values.groupby("method", sort=False):
            group = _group_table(values)
            precision = {
                name: detection(group, truth, score=score).average_precision for name, (truth, score) in orders.items()
            }
            rows.append({"method": method} | _correlation(group, effects) | {"ap_used": float("nan")} | precision)
        return pd.DataFrame(rows)


def follow_truth(
    predict: Predict,
    simulation: Simulation,
    numbers: Iterable[int],
    methods: Mapping[str, Mapping[str, Any]],
    target: Target = "AD",
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Truth:
    """Explain simulated participants by several methods, and measure the true effects of regions with their twins.

    Parameters
    ----------
    predict
        The model, such as one that was trained on other participants of the simulation.
    simulation
        The cohort.
    numbers
        Numbers of the participants, counted from 0: of those with disease, which alone have true effects.
    methods
        For each name the keywords of `attribute`, ``method`` among them.
    target
        The class, by name or index. Default: ``"AD"``.
    progress
        Called with the explanations done and in all.

    Raises
    ------
    GlasError
        A participant without disease; or what `attribute` and `true_effects` refuse.

    Examples
    --------
    >>> from glas3d import load_model
    >>> from glas3d.simulate import Simulation
    >>> methods = {"gradient": {"method": "input_x_gradient"}, "no model": {"method": "difference"}}
    >>> truth = follow_truth(load_model("adnc-simulated"), Simulation(seed=5), [0], methods)
    >>> truth.by_participant().set_index("method")["r"].round(1).idxmax()
    'gradient'
    """
    everyone = list(numbers)
    effects = [true_effects(predict, simulation, number, target).assign(participant=number) for number in everyone]
    values = []
    progress(0, len(everyone) * len(methods))
    for number in everyone:
        volume = simulate_participant(simulation, number).volume
        for name, keywords in methods.items():
            table = method_values(predict, simulation, volume, keywords, target)
            values.append(table.assign(method=name, participant=number))
            progress(len(values), len(everyone) * len(methods))
    return Truth(pd.concat(values, ignore_index=True), pd.concat(effects, ignore_index=True))


def method_values(
    predict: Predict, simulation: Simulation, volume: np.ndarray, keywords: Mapping[str, Any], target: Target = "AD"
) -> pd.DataFrame:
    """Return the values of regions of a simulated scan by a method.

    Parameters
    ----------
    predict, simulation, target
        As for `follow_truth`.
    volume
        ``(x, y, z)``, the scan of a participant of the simulation, see `glas3d.simulate.simulate_participant`.
    keywords
        Keywords of `attribute`, ``method`` among them.

    Returns
    -------
    One row for each region of the simulation's atlas: ``index``, ``score``, ``density``, and the ``evaluations`` and
    ``seconds`` (of one processor, reading the scan included) of the method.

    Raises
    ------
    GlasError
        What `attribute` refuses.
    """
    begin = time.process_time()
    result = attribute(scan_img(simulation, volume), predict, target, search=simulation.atlas, **keywords)
    seconds = time.process_time() - begin
    return result.table[["index", "score"]].assign(
        density=result.density, evaluations=result.evaluations, seconds=seconds
    )


def _group_table(values: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over participants, each participant's scores and densities divided by the largest of its own."""
    columns = ["score", "density"]
    largest = values.groupby("participant")[columns].transform(lambda one: one.abs().max())
    scaled = values[columns] / largest.where(largest > 0, 1.0)
    return scaled.assign(index=values["index"]).groupby("index", as_index=False)[columns].mean()


def _regions(effects: pd.DataFrame) -> pd.DataFrame:
    """Return the effects of regions of the atlas, in its order; lesions have no value of their own."""
    return effects[effects["name"] != LESIONS].reset_index(drop=True)


def _correlation(values: pd.DataFrame, effects: pd.DataFrame) -> dict[str, float]:
    """Return the correlation with true effects: 0 for values that are all the same, which follow nothing."""
    if not effects["effect"].any():
        raise GlasError("true effects are those of participants with disease, one of the participants has none")
    correlation = effect_correlation(values, effects)
    return {"r": float(np.nan_to_num(correlation.pearson)), "spearman": correlation.spearman}
