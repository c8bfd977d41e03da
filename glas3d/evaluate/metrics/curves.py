"""Deletion and insertion: how fast does the probability fall or rise with what a map ranks first?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.stats import rankdata

from glas3d.checks import whole_number
from glas3d.core.explanation import Explanation
from glas3d.core.glas import GLAS, default_batch_size
from glas3d.core.model import classes_of
from glas3d.core.modules import evaluating
from glas3d.core.perturb import blend
from glas3d.core.reference import references
from glas3d.core.score import Target, bind, class_index, evaluate
from glas3d.core.volume import Background, as_reference, as_volume
from glas3d.display import fields_repr
from glas3d.errors import GlasError
from glas3d.evaluate.metrics.paired import finite_array

Kind = Literal["deletion", "insertion"]


@dataclass(frozen=True, eq=False)
class RankingCurve:
    """The probability of a class while more and more of a volume is removed or put back, highest-scoring parts first.

    Attributes
    ----------
    share
        ``(s + 1,)`` float64: the share of the searched voxels that is removed or put back, from 0 to 1.
    probability
        ``(s + 1,)`` float64: ``P(y|.)`` of the volume then.
    area
        The area under the curve. By deletion it is small, and by insertion large, when the probability rests on what
        the map ranks first.
    """

    share: np.ndarray
    probability: np.ndarray
    area: float

    __repr__ = fields_repr


@dataclass(frozen=True, eq=False)
class RankingCurves:
    """Deletion and insertion with each of several references.

    Attributes
    ----------
    deletion, insertion
        The curves by the names of the references.
    """

    deletion: Mapping[str, RankingCurve]
    insertion: Mapping[str, RankingCurve]

    @property
    def deletion_area(self) -> float:
        """The mean area under the deletion curves; small for a map that is right."""
        return float(np.mean([curve.area for curve in self.deletion.values()]))

    @property
    def insertion_area(self) -> float:
        """The mean area under the insertion curves; large for a map that is right."""
        return float(np.mean([curve.area for curve in self.insertion.values()]))


def deletion_curve(
    glas: GLAS,
    volume: np.ndarray | torch.Tensor,
    ranking: Explanation | np.ndarray,
    steps: int = 20,
    *,
    target: Target | None = None,
) -> RankingCurve:
    """Remove what a map ranks first, evaluate the model, remove more, and so on.

    Whole segments are removed in the order of their scores; without segments, voxels in the order of the map, and
    voxels of one value together. The metric is the deletion metric of Petsiuk et al. (2018), with any background in
    place of black.

    Parameters
    ----------
    glas
        Gives the model, and the background that takes the place of what is removed. The background need not be the
        one that the map was made with: a map that is right stays right under another one.
    volume
        The explained volume, ``(c, *spatial)``.
    ranking
        The explanation that is judged, or any map ``(*spatial)``.
    steps
        How many times more is removed. The model is evaluated ``steps + 1`` times.
    target
        Index or name of the class, for a map; an explanation has its own.

    Returns
    -------
    The curve and the area under it.

    Raises
    ------
    GlasError
        ``steps`` is not a whole number of at least 1, the volume has another shape than the map, the explanation has
        covariates, or there is no class, or two.

    Examples
    --------
    >>> image = torch.zeros(1, 6, 8)
    >>> image[0, 2, 3] = 1.0
    >>> glas = GLAS(lambda batch: batch.amax(dim=(1, 2, 3))[:, None], sigma_light=1, sigma_shadow=1)
    >>> explanation = glas.explain(image, 0, [[2, 3], [4, 6]])
    >>> deletion_curve(glas, image, explanation, steps=4).probability
    array([1., 0., 0., 0., 0.])
    """
    return _curve(glas, volume, ranking, steps, target, "deletion")


def insertion_curve(
    glas: GLAS,
    volume: np.ndarray | torch.Tensor,
    ranking: Explanation | np.ndarray,
    steps: int = 20,
    *,
    target: Target | None = None,
) -> RankingCurve:
    """Put back what a map ranks first into the background, evaluate the model, put back more, and so on.

    It is the insertion metric of Petsiuk et al. (2018), whose background is a blurred image. Voxels outside all
    segments stay as they are.

    Parameters
    ----------
    glas, volume, ranking, steps, target
        As `deletion_curve` takes them.

    Examples
    --------
    >>> image = torch.zeros(1, 6, 8)
    >>> image[0, 2, 3] = 1.0
    >>> glas = GLAS(lambda batch: batch.amax(dim=(1, 2, 3))[:, None], sigma_light=1, sigma_shadow=1)
    >>> insertion_curve(glas, image, image[0].numpy(), steps=4, target=0).probability
    array([0., 1., 1., 1., 1.])
    """
    return _curve(glas, volume, ranking, steps, target, "insertion")


def ranking_curves(
    glas: GLAS,
    volume: np.ndarray | torch.Tensor,
    ranking: Explanation | np.ndarray,
    backgrounds: Mapping[str, Background],
    steps: int = 20,
    *,
    target: Target | None = None,
) -> RankingCurves:
    """Return the deletion and the insertion curve with each of several references.

    One reference may hide what another shows, so a map is judged by several.

    Parameters
    ----------
    glas, volume, ranking, steps, target
        As `deletion_curve` takes them; the explainer's own background is not used.
    backgrounds
        References by their names.

    Raises
    ------
    GlasError
        See `deletion_curve`; or no reference.
    """
    each = references(glas, backgrounds)
    curves = {
        kind: {name: _curve(own, volume, ranking, steps, target, kind) for name, own in each.items()}
        for kind in ("deletion", "insertion")
    }
    return RankingCurves(curves["deletion"], curves["insertion"])


def _curve(
    glas: GLAS,
    volume: np.ndarray | torch.Tensor,
    ranking: Explanation | np.ndarray,
    steps: int,
    target: Target | None,
    kind: Kind,
) -> RankingCurve:
    """Return the curve of one kind; see `deletion_curve`."""
    article = "an" if kind == "insertion" else "a"
    steps = whole_number("steps", steps, least=1)
    array = as_volume(volume)
    explanation = ranking if isinstance(ranking, Explanation) else None
    saliency = finite_array(ranking if explanation is None else explanation.saliency, "a map")
    if tuple(array.shape[1:]) != saliency.shape:
        raise GlasError(
            f"{article} {kind} curve needs the explained volume of {saliency.shape}, got {tuple(array.shape)}"
        )
    if explanation is not None and explanation.covariates is not None:
        names = ", ".join(explanation.covariates.names)
        raise GlasError(f"{article} {kind} curve is of a volume alone, got covariates: {names}")
    if (target is None) == (explanation is None):
        raise GlasError(f"{article} {kind} curve needs one class, an explanation's own or the target of a map")
    predict, device = bind(glas.predict, array)
    intact, background = array.to(device), as_reference(glas.background, array).to(device)
    turn, n_turns = _turns(saliency) if explanation is None else _turns_of(explanation)
    searched = np.isfinite(turn)
    shares, outputs = [], []
    size = default_batch_size(array.numel(), device)
    if explanation is not None:
        size = int(explanation.settings["batch_size"])
    with evaluating(predict):
        for start in range(0, steps + 1, size):
            step = np.arange(start, min(start + size, steps + 1))
            taken = turn * steps < n_turns * step.reshape(-1, *[1] * turn.ndim)
            removed = taken if kind == "deletion" else searched & ~taken
            masks = torch.as_tensor(removed, dtype=torch.float32, device=device)
            batch = blend(intact, background, masks, out=torch.empty((len(removed), *array.shape), device=device))
            outputs.append(evaluate(predict, batch))
            shares.append(taken.reshape(len(taken), -1).sum(axis=1) / searched.sum())
    share, table = np.concatenate(shares), np.concatenate(outputs)
    column = explanation.target if explanation is not None else 0
    if target is not None:
        column = class_index(target, classes_of(glas.predict), table.shape[1])
    probability = table[:, column]
    area = (np.diff(share) * (probability[1:] + probability[:-1]) / 2).sum()
    return RankingCurve(share, probability, float(area))


def _turns(saliency: np.ndarray) -> tuple[np.ndarray, int]:
    """Return each voxel's turn in the order of a map, ``(*spatial)``, and the number of turns.

    Voxels of one value, such as those of a painted region, have the turn of the last of them, so that no more is
    taken than a step is due.
    """
    return rankdata(-saliency, method="max").reshape(saliency.shape) - 1.0, saliency.size


def _turns_of(explanation: Explanation) -> tuple[np.ndarray, int]:
    """Return each voxel's turn, ``(*spatial)``, infinite where nothing is searched, and the number of turns."""
    segments = explanation.segments
    values = explanation.saliency.ravel() if segments is None else explanation.score
    turn = np.empty(len(values))
    turn[np.argsort(-values, kind="stable")] = np.arange(len(values))
    if segments is None:
        return turn.reshape(explanation.saliency.shape), len(values)
    return np.where(np.isin(segments.labels, segments.index), segments.paint(turn), np.inf), len(values)
