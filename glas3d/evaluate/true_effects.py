"""What disease of each region truly does to a model, measured with twins."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp

from glas3d.core.model import Predict, classes_of
from glas3d.core.modules import evaluating
from glas3d.core.score import Target, bind, class_index, evaluate
from glas3d.errors import GlasError
from glas3d.imaging.scan import load_scan
from glas3d.predict.predictor import Predictor, model_info
from glas3d.simulate.dataset import scan_img
from glas3d.simulate.participants import simulate_participant
from glas3d.simulate.regions import atlas_of
from glas3d.simulate.simulation import LESIONS, Simulation
from glas3d.simulate.twins import twins

_SUM_OF_PROBABILITIES = 1e-3  # how far from 1 it may be


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
    tables = [true_effects(predict, simulation, number, target) for number in numbers]
    if not tables:
        raise GlasError("the mean of true effects needs at least one participant, got none")
    return tables[0].assign(effect=np.mean([table["effect"] for table in tables], axis=0))


def _log_odds(predict: Predict, simulation: Simulation, volume: np.ndarray, target: Target) -> float:
    """Return the log-odds of a class against all others, for a simulated volume as its file gives it to the model.

    From the logits of a `Predictor` where it makes its probabilities of some, because a probability near 1 is 1 in
    float32; else from the probabilities.
    """
    scan = load_scan(scan_img(simulation, volume))
    batch = torch.as_tensor(model_info(predict).resampled(scan))[None]
    kind = "none"
    classes = classes_of(predict)
    if isinstance(predict, Predictor) and predict.activation != "none" and predict.readout is None:
        kind = predict.activation
        predict = copy.copy(predict)
        predict.activation, predict.classes = "none", None
    fitted, device = bind(predict, batch)
    with evaluating(fitted):
        outputs = evaluate(fitted, batch[None].to(device))[0]
    if kind == "sigmoid" and len(outputs) == 1:
        outputs = np.array([-outputs[0], outputs[0]])
    column = class_index(target, classes, len(outputs))
    sums_to_one = len(outputs) == 1 or abs(outputs.sum() - 1) <= _SUM_OF_PROBABILITIES
    if kind == "none" and not (sums_to_one and outputs.min() >= 0 and outputs.max() <= 1 + _SUM_OF_PROBABILITIES):
        raise GlasError(
            "true effects need logits or probabilities that sum to 1, the model's outputs for a scan are "
            f"{outputs.tolist()}"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "softmax":
            log_odds = outputs[column] - logsumexp(np.delete(outputs, column))
        elif kind == "sigmoid":
            log_odds = outputs[column]
        else:
            others = 1 - outputs[0] if len(outputs) == 1 else np.delete(outputs, column).sum()
            log_odds = np.log(outputs[column]) - np.log(others)
    if not np.isfinite(log_odds):
        raise GlasError(
            f"true effects need finite log-odds of {target}, the model's outputs for a scan are {outputs.tolist()}"
        )
    return float(log_odds)
