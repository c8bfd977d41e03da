"""References: explanations with several things in place of the tissue that a mask removes, and their consensus.

The drop of a point depends on what replaces it: for a linear model it is ``w.(G (x - B))``, and ``B`` alone can turn
its sign (documentation: "What light and shadow measure"). No reference is right for every model. Here each reference
keeps its own explanation, and a consensus says what most of them agree on, and how many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from glas3d.checks import whole_number
from glas3d.core.covariates import CovariateScores
from glas3d.core.explanation import Explanation, draw_scores
from glas3d.core.glas import GLAS
from glas3d.core.model import classes_of
from glas3d.core.modules import evaluating
from glas3d.core.score import Target, bind, class_index, evaluate
from glas3d.core.volume import Background, as_reference, as_volume
from glas3d.errors import GlasError

_SAME_PROBABILITY = 1e-4  # of one intact volume, whatever the batches


def references(glas: GLAS, backgrounds: Mapping[str, Background]) -> dict[str, GLAS]:
    """Return one explainer for each reference, by its name.

    Parameters
    ----------
    glas
        The explainer, whose own background is not used.
    backgrounds
        References by their names.

    Raises
    ------
    GlasError
        No reference, or one without a name.

    Examples
    --------
    >>> import torch
    >>> image = torch.ones(1, 6, 8)
    >>> glas = GLAS(lambda batch: batch.mean(dim=(1, 2, 3))[:, None], sigma_light=2, sigma_shadow=2)
    >>> each = references(glas, {"zero": 0.0, "bright": 2.0, "half": torch.full((6, 8), 0.5)})
    >>> agreed = consensus({name: own.explain(image, 0, [[2, 3], [4, 6]]) for name, own in each.items()})
    >>> agreed.drop.round(2)
    array([[ 0.43,  0.31],
           [-0.43, -0.31],
           [ 0.21,  0.16]])
    >>> agreed.sign, agreed.agreement.round(2)
    (array([1, 1]), array([0.67, 0.67]))
    """
    if not isinstance(backgrounds, Mapping) or not backgrounds:
        raise GlasError(f"references must be backgrounds by their names, at least one, got {backgrounds!r}")
    for name in backgrounds:
        if not isinstance(name, str) or not name.strip():
            raise GlasError(f"every reference must have a name, got {name!r}")
    return {name: glas.replace(background=background) for name, background in backgrounds.items()}


@dataclass(frozen=True, eq=False)
class Consensus:
    """The explanations of the same ``m`` points under ``k`` references, and what they agree on.

    Attributes
    ----------
    explanations
        The whole explanation under each reference, by its name.
    drop
        ``(k, m)`` float64, the signed drops, one row for each reference.
    share
        ``(k, m)`` float64, each reference's scores divided by the sum of their absolute values.
    sign
        ``(m,)`` the direction under most references: 1 evidence for the class, -1 against it, 0 neither, or as many
        references for one direction as for another. It is the sign of the evidence if that is the score, else of the
        drop; one in the dead zone counts as neither.
    agreement
        ``(m,)`` in [1/k, 1]: the share of references with that direction.
    explanation
        The consensus itself: ``score`` is the median of the references' shares, the map is made of it, and light,
        shadow and drop are medians too.
    """

    explanations: Mapping[str, Explanation]
    drop: np.ndarray
    share: np.ndarray
    sign: np.ndarray
    agreement: np.ndarray
    explanation: Explanation

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the references, in the order of the rows."""
        return tuple(self.explanations)

    def flips(self, top: int = 20) -> np.ndarray:
        """Return how many of one reference's highest-scoring points are not among those of another.

        Parameters
        ----------
        top
            How many of the highest-scoring points are compared.

        Returns
        -------
        ``(k, k)`` in [0, 1], 0 on the diagonal. Row ``a``, column ``b``: the share of the ``top`` points of ``a`` that
        are not among the ``top`` points of ``b``.
        """
        top = whole_number("top", top, least=1)
        highest = [set(np.argsort(-row, kind="stable")[:top].tolist()) for row in self.share]
        return np.array([[len(a - b) / len(a) for b in highest] for a in highest])

    def __repr__(self) -> str:
        return (
            f"Consensus({', '.join(self.names)}: {len(self.sign)} points, "
            f"all references agree on the sign of {np.mean(self.agreement == 1):z.0%})"
        )


def consensus(explanations: Mapping[str, Explanation], *, dead_zone: float = 0.01) -> Consensus:
    """Return what several references agree on.

    Each reference's scores are divided by the sum of their absolute values, so that a reference under which the
    probability moves more does not count more, and the consensus score of a point is their median. It lies between the
    shares that any majority of the references give the point: one misleading reference of three cannot change it
    beyond what the other two say.

    Parameters
    ----------
    explanations
        One for each reference, of the same volume, class and points.
    dead_zone
        A drop, or evidence, has no sign when its absolute value is at most this share of the largest of all.

    Raises
    ------
    GlasError
        Fewer than two references, or explanations of different volumes, classes or points.
    """
    if not (isinstance(dead_zone, int | float) and 0 <= dead_zone < 1):
        raise GlasError(f"dead_zone must be from 0 to below 1, got {dead_zone!r}")
    first = _require_same(explanations)
    parts = tuple(explanations.values())
    drop = np.stack([part.drop for part in parts])
    sign, agreement = _majority(np.nan_to_num(np.stack([part.direction for part in parts])), dead_zone)

    of_covariates = [part.covariates for part in parts if part.covariates is not None]
    sizes = np.stack([np.abs(part.score).sum() for part in parts])
    if of_covariates:
        sizes += np.stack([np.abs(scores.score).sum() for scores in of_covariates])
    sizes = np.where(sizes > 0, sizes, 1.0)[:, None]
    share = np.stack([part.score for part in parts]) / sizes
    score = np.median(share, axis=0)
    explanation = replace(
        first,
        **_medians(parts),
        score=score,
        effect=float("nan"),  # of no single background
        covers={},
        saliency=draw_scores(first, score),
        settings=first.settings
        | {
            "references": list(explanations),
            "consensus": "median of scores divided by the sum of their sizes",
            "dead_zone": float(dead_zone),
            "evaluations": sum(part.settings["evaluations"] for part in parts),
        },
        covariates=None
        if not of_covariates
        else CovariateScores(
            of_covariates[0].names,
            **_medians(of_covariates),
            score=np.median(np.stack([scores.score for scores in of_covariates]) / sizes, axis=0),
        ),
    )
    return Consensus(dict(explanations), drop, share, sign, agreement, explanation)


def probability_of_background(glas: GLAS, volume: np.ndarray | torch.Tensor, target: Target) -> float:
    """Return ``P(y|B)``, the probability of a class when nothing of the volume is left.

    A reference that the model itself assigns to the class cannot show evidence for it: shading raises the probability.

    Parameters
    ----------
    glas
        Has the model and the background.
    volume
        ``(c, *spatial)``, the volume that the model is fitted to.
    target
        Class index or name.
    """
    array = as_volume(volume)
    predict, device = bind(glas.predict, array)
    background = as_reference(glas.background, array).clone(memory_format=torch.contiguous_format)
    with evaluating(predict):
        (row,) = evaluate(predict, background.unsqueeze(0).to(device))
    return float(row[class_index(target, classes_of(glas.predict), len(row))])


def _majority(direction: np.ndarray, dead_zone: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the sign that most references give each point, ``(m,)``, and the share of references that give it."""
    largest = np.abs(direction).max()
    votes = np.where(np.abs(direction) <= dead_zone * largest, 0, np.sign(direction)).astype(int)
    counts = np.stack([(votes == sign).sum(axis=0) for sign in (-1, 0, 1)])
    most = counts.max(axis=0)
    return np.where((counts == most).sum(axis=0) == 1, counts.argmax(axis=0) - 1, 0), most / len(direction)


def _medians(parts: Sequence[Explanation] | Sequence[CovariateScores]) -> dict[str, Any]:
    """Return the medians of light, shadow, drop, evidence and density over references, of those that there are."""
    medians = {}
    for name in ("light", "shadow", "drop", "evidence", "density"):
        values: list[Any] = [getattr(part, name, None) for part in parts]
        if all(value is not None for value in values):
            medians[name] = np.median(values, axis=0)
    return medians


def _require_same(explanations: Mapping[str, Explanation]) -> Explanation:
    """Return the first explanation, when all are of one volume, class and search."""
    if not isinstance(explanations, Mapping) or len(explanations) < 2:
        raise GlasError(f"a consensus needs explanations of two references or more, by name, got {explanations!r}")
    for name, explanation in explanations.items():
        if not isinstance(explanation, Explanation):
            raise GlasError(
                f"a consensus needs one explanation for each reference, {name!r} has {type(explanation).__name__}"
            )
    (name, first), *others = explanations.items()
    for other_name, other in others:
        difference = _difference(first, other)
        if difference:
            raise GlasError(
                f"a consensus is of one volume, class and search: {name!r} and {other_name!r} differ in {difference}"
            )
    return first


def _difference(first: Explanation, other: Explanation) -> str:
    """Return what two explanations differ in that have to be of one volume, class and search; empty: nothing."""
    if other.target != first.target:
        return "classes"
    if not np.array_equal(other.points, first.points) or other.saliency.shape != first.saliency.shape:
        return "points"
    if abs(other.probability - first.probability) > _SAME_PROBABILITY * max(1.0, abs(first.probability)):
        return "volumes"
    names, own_names = (None if part.covariates is None else part.covariates.names for part in (first, other))
    return "" if names == own_names else "covariates"
