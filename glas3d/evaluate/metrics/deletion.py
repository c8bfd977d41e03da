"""The deletion curve: how fast does the probability fall when the map's highest regions are removed first?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from glas3d.checks import whole_number
from glas3d.core.explanation import Explanation
from glas3d.core.glas import GLAS
from glas3d.core.modules import evaluating
from glas3d.core.perturb import blend
from glas3d.core.score import bind, evaluate
from glas3d.core.volume import as_reference, as_volume
from glas3d.errors import GlasError


@dataclass(frozen=True, eq=False)
class DeletionCurve:
    """The probability of a class while more and more of a volume is removed, highest-scoring parts first.

    Attributes
    ----------
    share
        ``(s + 1,)`` float64: the share of the searched voxels that is removed, from 0 to 1.
    probability
        ``(s + 1,)`` float64: ``P(y|.)`` of the volume without them.
    area
        The area under the curve. It is small when the probability rests on what the map ranks first.
    """

    share: np.ndarray
    probability: np.ndarray
    area: float


def deletion_curve(
    glas: GLAS, volume: np.ndarray | torch.Tensor, explanation: Explanation, steps: int = 20
) -> DeletionCurve:
    """Remove what an explanation ranks first, evaluate the model, remove more, and so on.

    Whole segments are removed in the order of their scores; without segments, voxels in the order of the map. The
    metric is the deletion metric of Petsiuk et al. (2018), with any background in place of black.

    Parameters
    ----------
    glas
        Gives the model, and the background that takes the place of what is removed. The background need not be the
        one that the explanation was made with: a map that is right stays right under another one.
    volume
        The explained volume, ``(c, *spatial)``.
    explanation
        The explanation that is judged.
    steps
        How many times more is removed. The model is evaluated ``steps + 1`` times.

    Returns
    -------
    The curve and the area under it.

    Raises
    ------
    GlasError
        ``steps`` is not a whole number of at least 1, the volume has another shape than the explanation, or the
        explanation has covariates.

    Examples
    --------
    >>> image = torch.zeros(1, 6, 8)
    >>> image[0, 2, 3] = 1.0
    >>> glas = GLAS(lambda batch: batch.amax(dim=(1, 2, 3))[:, None], sigma_light=1, sigma_shadow=1)
    >>> explanation = glas.explain(image, 0, [[2, 3], [4, 6]])
    >>> deletion_curve(glas, image, explanation, steps=4).probability
    array([1., 0., 0., 0., 0.])
    """
    steps = whole_number("steps", steps, least=1)
    array = as_volume(volume)
    if tuple(array.shape[1:]) != explanation.saliency.shape:
        raise GlasError(
            f"a deletion curve needs the explained volume of {explanation.saliency.shape}, got {tuple(array.shape)}"
        )
    if explanation.covariates is not None:
        raise GlasError(
            f"a deletion curve is of a volume alone, got covariates: {', '.join(explanation.covariates.names)}"
        )
    predict, device = bind(glas.predict, array)
    intact, background = array.to(device), as_reference(glas.background, array).to(device)
    order, n_parts = _removal_order(explanation)
    searched = np.isfinite(order).sum()
    shares, probabilities = [], []
    batch_size = int(explanation.settings["batch_size"])
    with evaluating(predict):
        for start in range(0, steps + 1, batch_size):
            step = np.arange(start, min(start + batch_size, steps + 1))
            removed = order * steps < n_parts * step.reshape(-1, *[1] * order.ndim)
            masks = torch.as_tensor(removed, dtype=torch.float32, device=device)
            batch = blend(intact, background, masks, out=torch.empty((len(removed), *array.shape), device=device))
            probabilities.append(evaluate(predict, batch)[:, explanation.target])
            shares.append(removed.reshape(len(removed), -1).sum(axis=1) / searched)
    share, probability = np.concatenate(shares), np.concatenate(probabilities)
    area = (np.diff(share) * (probability[1:] + probability[:-1]) / 2).sum()
    return DeletionCurve(share, probability, float(area))


def _removal_order(explanation: Explanation) -> tuple[np.ndarray, int]:
    """Return each voxel's turn, ``(*spatial)``, infinite where nothing is searched, and the number of turns."""
    segments = explanation.segments
    values = explanation.saliency.ravel() if segments is None else explanation.score
    turn = np.empty(len(values))
    turn[np.argsort(-values, kind="stable")] = np.arange(len(values))
    if segments is None:
        return turn.reshape(explanation.saliency.shape), len(values)
    return np.where(np.isin(segments.labels, segments.index), segments.paint(turn), np.inf), len(values)
