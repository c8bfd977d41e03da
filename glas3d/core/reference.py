"""References: the same question with several things put in place of tissue, and what they agree on.

A shadow asks what the answer loses when a place is replaced, so it depends on what replaces it: for a linear model
the drop is ``w.(G (x - B))``, and ``B`` alone can turn its sign (docs/theory.md). No reference is right for every
model. Here each keeps its own answer, and beside them stand what most of them say and how many say it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from glas3d.checks import whole_number
from glas3d.core.covariates import CovariateScores
from glas3d.core.explanation import Explanation, draw_scores
from glas3d.core.glas import GLAS
from glas3d.core.model import classes_of
from glas3d.core.score import Target, bind, class_index, evaluate
from glas3d.core.volume import Background, as_reference, as_volume
from glas3d.errors import GlasError

_SAME_PROBABILITY = 1e-4  # of one intact volume, whatever the batches


def references(glas: GLAS, backgrounds: Mapping[str, Background]) -> dict[str, GLAS]:
    """One explainer a reference, by its name.

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
    >>> found = {name: one.explain(image, 0, [[2, 3], [4, 6]]) for name, one in each.items()}
    >>> agreed = consensus(found)
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
    """What ``k`` references say about the same ``m`` points.

    Attributes
    ----------
    explanations
        Of each reference, whole.
    drop
        ``(k, m)`` float64, the signed drops, one row a reference.
    share
        ``(k, m)`` float64, each reference's scores divided by the sum of their sizes.
    sign
        ``(m,)`` what most references say: 1 the place speaks for the class, -1 against it, 0 neither, or as many say
        one thing as another. A drop in the dead zone says neither.
    agreement
        ``(m,)`` in [1/k, 1]: the share of references that say it.
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
        """Of the references, in the order of the rows."""
        return tuple(self.explanations)

    def flips(self, top: int = 20) -> np.ndarray:
        """How much of one reference's best is lost under another: ``(k, k)`` in [0, 1], 0 on the diagonal.

        Row ``a``, column ``b``: the share of the ``top`` points of ``a`` that are not among the ``top`` of ``b``.
        """
        top = whole_number("top", top, least=1)
        best = [set(np.argsort(-row, kind="stable")[:top].tolist()) for row in self.share]
        return np.array([[len(a - b) / len(a) for b in best] for a in best])

    def __repr__(self) -> str:
        return (
            f"Consensus({', '.join(self.names)}: {len(self.sign)} points, "
            f"all references agree on the sign of {np.mean(self.agreement == 1):.0%})"
        )


def consensus(explanations: Mapping[str, Explanation], *, dead_zone: float = 0.01) -> Consensus:
    """What several references agree on.

    Each reference's scores are divided by the sum of their sizes (so that a reference under which the answer moves
    more has no more say), and the consensus score of a point is their median. It lies between what any majority of
    the references give that point: one misleading reference of three cannot carry it away.

    Parameters
    ----------
    explanations
        One a reference, of the same volume, class and points.
    dead_zone
        A drop says nothing about the sign when its size is at most this share of the largest drop of all.

    Raises
    ------
    GlasError
        Fewer than two references, or explanations of different volumes, classes or points.
    """
    if not (isinstance(dead_zone, int | float) and 0 <= dead_zone < 1):
        raise GlasError(f"dead_zone must be from 0 to below 1, got {dead_zone!r}")
    first = _alike(explanations)
    found = tuple(explanations.values())
    drop = np.stack([one.drop for one in found])
    largest = np.abs(drop).max()
    votes = np.where(np.abs(drop) <= dead_zone * largest, 0, np.sign(drop)).astype(int)
    counts = np.stack([(votes == sign).sum(axis=0) for sign in (-1, 0, 1)])
    most = counts.max(axis=0)
    sign = np.where((counts == most).sum(axis=0) == 1, counts.argmax(axis=0) - 1, 0)

    beside = [one.covariates for one in found if one.covariates is not None]
    sizes = np.stack([np.abs(one.score).sum() for one in found])
    if beside:
        sizes += np.stack([np.abs(one.score).sum() for one in beside])
    sizes = np.where(sizes > 0, sizes, 1.0)[:, None]
    share = np.stack([one.score for one in found]) / sizes
    score = np.median(share, axis=0)
    covariates = None
    if beside:
        covariates = CovariateScores(
            beside[0].names,
            light=np.median([one.light for one in beside], axis=0),
            shadow=np.median([one.shadow for one in beside], axis=0),
            drop=np.median([one.drop for one in beside], axis=0),
            score=np.median(np.stack([one.score for one in beside]) / sizes, axis=0),
        )
    explanation = replace(
        first,
        light=np.median([one.light for one in found], axis=0),
        shadow=np.median([one.shadow for one in found], axis=0),
        drop=np.median(drop, axis=0),
        score=score,
        saliency=draw_scores(first, score),
        settings=first.settings
        | {
            "references": list(explanations),
            "consensus": "median of scores divided by the sum of their sizes",
            "dead_zone": float(dead_zone),
            "evaluations": sum(one.settings["evaluations"] for one in found),
        },
        covariates=covariates,
    )
    return Consensus(dict(explanations), drop, share, sign, most / len(found), explanation)


def probability_of_background(glas: GLAS, volume: np.ndarray | torch.Tensor, target: Target) -> float:
    """``P(y|B)``: what the model says when nothing of the volume is left.

    A reference that the model itself takes for the class cannot show evidence for it: shading raises the answer.
    """
    array = as_volume(volume)
    predict, device = bind(glas.predict, array)
    with torch.inference_mode():
        answer = evaluate(predict, as_reference(glas.background, array).unsqueeze(0).contiguous().to(device))[0]
    return float(answer[class_index(target, classes_of(glas.predict), len(answer))])


def _alike(explanations: Mapping[str, Explanation]) -> Explanation:
    """The first of them, when all are of one volume, class and points."""
    if not isinstance(explanations, Mapping) or len(explanations) < 2:
        raise GlasError(f"a consensus needs explanations of two references or more, by name, got {explanations!r}")
    for name, one in explanations.items():
        if not isinstance(one, Explanation):
            raise GlasError(f"a consensus is of one explanation a reference, {name!r} has {type(one).__name__}")
    name, first = next(iter(explanations.items()))
    for other, one in explanations.items():
        differs = (
            "classes"
            if one.target != first.target
            else "points"
            if not np.array_equal(one.points, first.points) or one.saliency.shape != first.saliency.shape
            else "volumes"
            if abs(one.probability - first.probability) > _SAME_PROBABILITY * max(1.0, abs(first.probability))
            else "covariates"
            if _names(one) != _names(first)
            else None
        )
        if differs:
            raise GlasError(
                f"a consensus is of one volume, class and search: {name!r} and {other!r} differ in {differs}"
            )
    return first


def _names(one: Explanation) -> tuple[str, ...] | None:
    return None if one.covariates is None else one.covariates.names
