"""Notes: what a reader of a map must know, for the terminal, sidecars, result objects and studies alike.

Each note is one sentence: a statement, a colon, and the numbers behind it. A study counts its scans by the statement.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from glas3d.core.account import LEAST_EFFECT
from glas3d.core.explanation import Explanation
from glas3d.counts import enumerated
from glas3d.errors import GlasWarning
from glas3d.predict import ModelInfo, Predictor, Standardisation
from glas3d.predict.interface import FittedTransform, Transform

# Scores that differ by less, relative to the largest, are equal: they are sums of float32 outputs.
_EQUAL = 1e-12
_FEW = 10  # points, below which few different values say nothing
_OTHER_UNIT = 5  # times the largest mean of the training scans: a map of tissue has at most about twice that
_CERTAIN = 0.999  # probability from which float32 may hide what a region adds
_REACHED = 0.5  # the least share of the brain that masks of a grid reach without a note
_FAR = 1e-3  # of the range: how much a transform may change what is far from a mask; filters by Fourier transforms do
_SUM = 1e-3  # how far the outputs of classes that exclude each other may be from a sum of 1


def account_sentence(account: Mapping[str, Any], table: pd.DataFrame, parts: str = "regions") -> str:
    """Return how much of the effect the regions account for, or why that is not known, as a sentence.

    Parameters
    ----------
    account
        The entry ``Account`` of the provenance.
    table
        The regions with their evidence.
    parts
        What the rows of the table are, in the plural.
    """
    if account["accounted"] is None:
        why = (
            "the effect, the model's output less that of the background alone, is below 1 in log-odds"
            if account["partition"]
            else "evidence adds up only where it comes straight from one set of masks that nearly partition what is "
            "searched"
        )
        return f"What the {parts} account for is not available: {why}."
    # the largest share of an effect below 0 has the lowest evidence
    evidence = table["evidence"] if account["effect"] > 0 else -table["evidence"]
    return (
        f"The {parts} account for {account['accounted']:z.0%} of the effect (the model's output less that of the "
        f"background alone), {table['name'].iloc[int(evidence.argmax())]} alone for {account['largest']:z.0%}."
    )


@dataclass(frozen=True)
class Note:
    """A sentence about a result.

    Attributes
    ----------
    text
        The sentence.
    warns
        Whether the map or its ranks mean less than they seem to: Python then gives a warning too.
    of_masks
        Whether it is about the masks, and concerns no other method on the same scan.
    """

    text: str
    warns: bool = False
    of_masks: bool = False


def notes_on(
    explanation: Explanation,
    *,
    classes: Sequence[str] | None = None,
    activation: str | None = None,
    against: int | None = None,
    by_background: Mapping[str, Explanation] | None = None,
) -> list[Note]:
    """Return notes about an explanation that must not be overlooked; none for most.

    Parameters
    ----------
    explanation
        The result of `GLAS` for one class.
    classes
        Names of the model's classes, where it has some.
    activation
        What makes probabilities of the model's outputs: ``"softmax"``, ``"sigmoid"`` or ``"none"``; None: not known.
    against
        Index of the class that it is compared with; None: it is of one class.
    by_background
        The explanations with each of several backgrounds, of which it is the consensus; None: it is none.
    """
    notes = []
    if text := _not_predicted(explanation, classes, activation, against):
        notes.append(Note(text))
    elif by_background is not None:
        notes += _note_on_backgrounds(by_background, _name(explanation.target, classes))
    score, drop = explanation.score, explanation.drop
    n = len(score)
    if n < 2:
        return notes
    if np.ptp(score) <= _EQUAL * np.abs(score).max():
        text = f"the map is flat: all {n} scores are the same, so no region stands out and ranks have no meaning"
        return [*notes, Note(text, warns=True)]
    if against is not None and score.max() <= 0:
        names = f"{_name(explanation.target, classes)} over {_name(against, classes)}"
        return [*notes, Note(f"nothing speaks for {names}: no score is above 0", warns=True)]
    if np.isnan(drop).all():  # light alone was evaluated
        return notes
    largest, gamma = float(np.abs(drop).max()), float(explanation.settings.get("gamma", 0.0))
    distinct = len(np.unique(drop))
    certain = explanation.probability > _CERTAIN and n >= _FEW and distinct <= n // 2
    if certain or largest <= gamma:
        shown = "nothing" if np.isnan(explanation.light).all() else "light only"
        drops = "the same drop" if distinct == 1 else f"{distinct} different drops"
        in_log_odds = '; preset="evidence" scores log-odds, which may still tell them apart'
        if explanation.settings.get("link") == "logit":
            in_log_odds = ""
        text = (
            f"the output is saturated: P = {explanation.probability:.6g}, removing any region changes it by at most "
            f"{largest:.1e}, and {n} regions have {drops}; the ranks show {shown} and are no "
            f"evidence from shadow{in_log_odds}"
        )
        notes.append(Note(text, warns=True))
    return notes


def note_on_intensities(predict: object, info: ModelInfo, data: np.ndarray) -> list[Note]:
    """Warn of a model that gets other intensities than it takes, or may; return the note.

    They may be of another unit, or not stated by the model, or its transform may normalise each input by itself.

    Parameters
    ----------
    predict, info
        The model. One that was made in Python, or states a transform or a preprocessing, is taken at its word, unless
        it takes absolute intensities and gets those of another unit, such as a T1w scan in place of a tissue map.
    data
        ``(c, *spatial)``, what the model gets.
    """
    transform = predict.transform if isinstance(predict, Predictor) else None
    if transform is not None and not isinstance(transform, FittedTransform):
        return _note_on_transform(transform, data, predict.device if isinstance(predict, Predictor) else None)
    stated = info.preprocessing or not isinstance(predict, Predictor) or transform is not None
    low, high = float(data.min()), float(data.max())
    gets = f"it gets those of the scan, from {low:.4g} to {high:.4g}, unchanged"
    if isinstance(transform, Standardisation) and transform.intensities == "absolute":
        known = float(transform.mean.max())
        if high <= _OTHER_UNIT * known:
            return []
        text = (
            f"the model {info.name} was trained on intensities of another unit, in the mean up to {known:.3g}: {gets}"
        )
    elif stated or not info.from_file:
        return []
    elif info.value_range is None:
        text = (
            f"the model {info.name} does not state which intensities it takes: {gets}; if it was trained on another "
            "scale, the results mean nothing"
        )
    else:
        least, most = info.value_range
        tolerance = 0.01 * (most - least)
        if low >= least - tolerance and high <= most + tolerance:
            return []
        text = f"the model {info.name} states that it takes intensities from {least:g} to {most:g}: {gets}"
    warnings.warn(text, GlasWarning, stacklevel=4)
    return [Note(text, warns=True)]


def _note_on_transform(transform: Transform, data: np.ndarray, device: torch.device | None) -> list[Note]:
    """Warn of a transform whose output for a voxel depends on voxels far away, such as by the mean; return the note.

    Each half of the scan along its last axis is emptied in turn. In the quarter that is furthest from the emptied half
    the output must stay as it was, whatever the transform does to a voxel and those around it.
    """
    intact = torch.as_tensor(data, dtype=torch.float32, device=device)[None]
    n = intact.shape[-1]
    first, second = intact.clone(), intact.clone()
    first[..., : n // 2], second[..., n // 2 :] = 0, 0
    try:
        with torch.no_grad():
            before, *after = (
                np.asarray(transform(each.clone()).cpu(), dtype=np.float64) for each in (intact, first, second)
            )
    except Exception:  # the model's first evaluation reports what it does not take
        return []
    far = before.shape[-1] // 4
    kept = ((before[..., -far:], after[0][..., -far:]), (before[..., :far], after[1][..., :far]))
    if far < 1 or any(old.shape != new.shape for old, new in kept) or not np.ptp(before) > 0:
        return []
    changes = [float(np.abs(old - new).max(initial=0.0)) / float(np.ptp(before)) for old, new in kept]
    change = max(changes, key=lambda each: np.inf if np.isnan(each) else each)
    if change <= _FAR:
        return []
    text = (
        "the transform takes numbers from each input, such as its mean or maximum, so that a mask changes voxels far "
        f"from it: where half of the scan is empty, those of the other half differ by {change:.2g} of the range; "
        "a transform with a method fit takes them from the intact scan"
    )
    warnings.warn(text, GlasWarning, stacklevel=5)
    return [Note(text, warns=True)]


def note_on_reach(share: float, of: str, cells: Sequence[float], settings: Mapping[str, Any]) -> list[Note]:
    """Return the note that masks of a grid leave most of the brain unseen; none where they reach half of it.

    Parameters
    ----------
    share
        The share of the voxels that masks reach (see `GLAS.reached`).
    of
        What these voxels are, such as ``"the brain"``.
    cells
        Size of a cell of the grid, one number for each axis, in the unit of the sigmas.
    settings
        The settings of `GLAS`.
    """
    if share >= _REACHED:
        return []
    size = " x ".join(f"{length:.3g}" for length in cells)
    unit = "mm" if settings["unit"] == "mm" else "voxels"
    sigmas = sorted({settings["sigma_light"], settings["sigma_shadow"]}, key=np.mean)
    text = (
        f"the masks of the grid leave most of {of} unseen: they reach {share:z.0%} of it, with cells of {size} and "
        f"sigmas of {enumerated([_size(sigma) for sigma in sigmas])} {unit}; more cells or larger sigmas reach more"
    )
    return [Note(text, of_masks=True)]


def _size(sigma: float | Sequence[float]) -> str:
    return " x ".join(f"{each:.3g}" for each in np.atleast_1d(sigma))


def note_of_author(info: ModelInfo) -> list[Note]:
    """Return the note that the author of a model states for all readers of its results; none for most models."""
    return [Note(info.caution)] if info.caution else []


def voxel_sigmas(names: Sequence[str], spacing: Sequence[float]) -> Note:
    """Return the note that sigmas are in voxels, because they were given without a unit.

    Parameters
    ----------
    names
        The sigmas that were given.
    spacing
        Size in mm of a voxel of the model's grid, one number for each axis.
    """
    size = " x ".join(f"{mm:.4g}" for mm in spacing)
    verb = "is" if len(names) == 1 else "are"
    return Note(
        f"{' and '.join(names)} {verb} in voxels: no unit was given, and a voxel of the model's grid has {size} mm",
        of_masks=True,
    )


def statement_of(note: str) -> str:
    """Return what a note states, without the numbers behind it.

    Examples
    --------
    >>> statement_of("the map is flat: all 8 scores are the same")
    'the map is flat'
    """
    return note.partition(": ")[0]


def count_notes(
    notes: Mapping[str, Iterable[str]], groups: Mapping[str, str] | None = None, *, what: str = "scans"
) -> list[str]:
    """Return one sentence for each statement, with the number of scans or participants that it is about.

    Parameters
    ----------
    notes
        The notes of each scan, by the names of all scans.
    groups
        The group of each name, to count them by group. Default: count all together.
    what
        What is counted.

    Examples
    --------
    >>> count_notes({"sub-01": ["it is flat: all 8 are 0"], "sub-02": ["it is flat: all 8 are 1"], "sub-03": []})
    ['it is flat: 2 of 3 scans, such as that of sub-01']
    >>> count_notes({"sub-01": ["sigmas are in voxels: of 4 mm"], "sub-02": ["sigmas are in voxels: of 4 mm"]})
    ['sigmas are in voxels: of 4 mm']
    >>> count_notes({"sub-01": ["it is flat: all 8 are 0"], "sub-02": []}, {"sub-01": "AD", "sub-02": "NC"})
    ['it is flat: 1 of 1 scans of AD, 0 of 1 of NC']
    """
    concerned: dict[str, dict[str, str]] = {}
    for name, sentences in notes.items():
        for sentence in sentences:
            concerned.setdefault(statement_of(sentence), {})[name] = sentence
    counted: list[str] = []
    for statement, by_scan in concerned.items():
        sentences = set(by_scan.values())
        if len(by_scan) == len(notes) and len(sentences) == 1:
            counted += sentences
            continue
        if groups is None:
            example = f", such as that of {next(iter(by_scan))}" if len(by_scan) < len(notes) else ""
            counted.append(f"{statement}: {len(by_scan)} of {len(notes)} {what}{example}")
            continue
        total, part = (Counter(groups[name] for name in names) for names in (notes, by_scan))
        first, *others = [(part[group], n, group) for group, n in sorted(total.items())]
        parts = [
            f"{first[0]} of {first[1]} {what} of {first[2]}",
            *(f"{k} of {n} of {group}" for k, n, group in others),
        ]
        counted.append(f"{statement}: {', '.join(parts)}")
    return counted


def _not_predicted(
    explanation: Explanation, classes: Sequence[str] | None, activation: str | None, against: int | None
) -> str | None:
    """Return the note that the model predicts another class than the target; None if not, or if it is not known."""
    outputs, target = explanation.outputs, explanation.target
    if outputs is None:
        return None
    name = _name(target, classes)
    signed = explanation.settings.get("fusion") == "mean"
    shown_by_map = f"what speaks for {name} and against it" if signed else f"what the output for {name} depends on"
    purpose = f"the map shows {shown_by_map} all the same"
    exclusive = len(outputs) > 1 and outputs.min() >= 0 and abs(outputs.sum() - 1) <= _SUM
    output = "P({}) = {:.3g}" if exclusive or activation == "sigmoid" else "output for {} = {:.3g}"
    shown = output.format(name, outputs[target])
    rival = against if against is not None else int(outputs.argmax()) if exclusive else None
    if rival is not None:
        if outputs[target] >= outputs[rival]:
            return None
        other = _name(rival, classes)
        over = f" over {other}" if against is not None else ""
        of_other = output.format(other, outputs[rival])
        return f"the model does not predict {name}{over}: {shown}, {of_other}; {purpose}"
    if activation == "sigmoid" and outputs[target] < 0.5:
        return f"the model does not predict {name}: {shown}, below 0.5; {purpose}"
    return None


def _note_on_backgrounds(explanations: Mapping[str, Explanation], name: str) -> list[Note]:
    """Return the note that the model takes backgrounds of a consensus for the class itself; none where it does not.

    They stay in the consensus: a study needs the same backgrounds for every scan, and the median withstands a minority
    of them. A majority decides the signs, which is a warning.
    """
    unusable = {key: each for key, each in explanations.items() if each.effect_log_odds < LEAST_EFFECT}
    if not unusable:
        return []
    first = next(iter(explanations.values()))
    decide = 2 * len(unusable) >= len(explanations)
    follows = "they decide its signs: leave out or replace them" if decide else "its median withstands so few of them"
    alone = enumerated([f"of {key} alone {each.background_probability:.3g}" for key, each in unusable.items()])
    text = (
        f"the consensus has backgrounds that cannot show evidence for {name}: P({name}) = {first.probability:.3g}, "
        f"{alone}; {follows}"
    )
    return [Note(text, warns=decide)]


def _name(column: int, classes: Sequence[str] | None) -> str:
    return f"class {column}" if classes is None else str(classes[column])
