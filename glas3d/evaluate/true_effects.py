"""What disease of each region truly does to a model, measured with twins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch

from glas3d.core.link import log_odds_model
from glas3d.core.model import NoLogOdds, Predict, classes_of
from glas3d.core.modules import evaluating
from glas3d.core.score import Target, bind, class_index, evaluate
from glas3d.errors import GlasError
from glas3d.imaging.scan import load_scan
from glas3d.predict.predictor import model_info
from glas3d.simulate.dataset import scan_img
from glas3d.simulate.participants import simulate_participant
from glas3d.simulate.regions import atlas_of
from glas3d.simulate.simulation import LESIONS, Simulation
from glas3d.simulate.twins import twins


def true_effects(predict: Predict, simulation: Simulation, number: int, target: Target = "AD") -> pd.DataFrame:
    """Return how the disease of each region of a simulated participant changes a model's log-odds of a class.

    The same for other abnormalities that a simulation has.

    The effect of region ``i`` is the mean of ``L(all) - L(all but i)`` and ``L(i alone) - L(none)``, what its disease
    adds when it comes last and when it comes first. ``L`` is the log-odds of the class against all others of a twin
    whose disease is that of all regions, of all but one, of one alone, or of none. Where no three regions
    interact, it is the Shapley value. The model is evaluated ``2 n + 2`` times for ``n`` regions with disease.

    Parameters
    ----------
    predict
        The model. Its preprocessing is fitted to each twin, as to any scan.
    simulation
        The cohort.
    number
        Number of the participant, counted from 0.
    target
        The class, by name or index. Default: ``"AD"``.

    Returns
    -------
    A row a region of the simulation's atlas: ``index``, ``name``, ``planted`` (1: the simulation plants disease there)
    and ``effect``, in log-odds (natural logarithm); 0 where the participant lost nothing, as in all of a control. The
    row of a suppressor has the effect of what is lost there, and is not planted. Where the simulation has white-matter
    lesions, a last row ``lesions`` with the index 0 has theirs.

    Raises
    ------
    GlasError
        The model has no such class, or does not take the scan; its outputs are no probabilities, or its log-odds are
        not finite.
    """
    participant = simulate_participant(simulation, number)
    effects = dict.fromkeys(simulation.abnormalities, 0.0)
    if participant.abnormalities:
        all_present = _log_odds(predict, simulation, participant.volume, target)
        with_twin = {
            (twin.kind, twin.abnormality): _log_odds(predict, simulation, twin.participant.volume, target)
            for twin in twins(simulation, number)
        }
        for name in participant.abnormalities:
            last = all_present - with_twin["without", name]
            first = with_twin["only", name] - with_twin["healed", ""]
            effects[name] = (last + first) / 2
    regions = atlas_of(simulation.atlas).table[["index", "name"]]
    if any(simulation.lesions):
        regions = pd.concat([regions, pd.DataFrame({"index": [0], "name": [LESIONS]})], ignore_index=True)
    return regions.assign(
        planted=regions["name"].isin([*simulation.regions, LESIONS]).astype(int),
        effect=regions["name"].map(effects).fillna(0.0),
    )


def mean_true_effects(
    predict: Predict, simulation: Simulation, numbers: Iterable[int], target: Target = "AD"
) -> pd.DataFrame:
    """Return the mean over participants of `true_effects`, region by region.

    Parameters
    ----------
    predict, simulation, target
        As for `true_effects`.
    numbers
        Numbers of the participants, counted from 0.

    Raises
    ------
    GlasError
        There are no participants; or as for `true_effects`.
    """
    return mean_effects([true_effects(predict, simulation, number, target) for number in numbers])


def mean_effects(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the mean of tables of `true_effects`, one of each participant.

    Raises
    ------
    GlasError
        There are no tables.
    """
    if not tables:
        raise GlasError("the mean of true effects needs at least one participant, got none")
    return tables[0].assign(effect=np.mean([table["effect"] for table in tables], axis=0))


def _log_odds(predict: Predict, simulation: Simulation, volume: np.ndarray, target: Target) -> float:
    """Return the log-odds of a class against all others, for a simulated volume as its file gives it to the model."""
    scan = load_scan(scan_img(simulation, volume))
    batch = torch.as_tensor(model_info(predict).resampled(scan))[None]
    fitted, device = bind(predict, batch)
    with evaluating(fitted):
        try:
            outputs = evaluate(log_odds_model(fitted), batch[None].to(device))[0]
        except NoLogOdds as why:
            raise GlasError(f"true effects are measured in log-odds: {why}") from why
    return float(outputs[class_index(target, classes_of(predict), len(outputs))])
