"""The score drop: how much does the probability fall when what the map marks is masked out by ``1 - S``?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from glas3d.core.agreement import allowed_difference, differ
from glas3d.core.glas import GLAS
from glas3d.core.model import classes_of
from glas3d.core.modules import evaluating
from glas3d.core.perturb import blend
from glas3d.core.score import Target, bind, class_index, evaluate
from glas3d.core.volume import as_reference, as_volume
from glas3d.display import fields_repr
from glas3d.errors import GlasError


@dataclass(frozen=True, eq=False)
class ScoreDrop:
    """The probability of a class before and after maps are masked out, one map at a time.

    Attributes
    ----------
    intact
        ``P(y|I)`` of the intact volume.
    remaining
        ``(k,)`` float64: ``P(y|.)`` after each of ``k`` maps is masked out.
    """

    intact: float
    remaining: np.ndarray

    __repr__ = fields_repr

    @property
    def drop(self) -> np.ndarray:
        """How much the probability falls by each map, ``(k,)``; negative where it rises."""
        return np.asarray(self.intact - self.remaining)


def score_drop(
    glas: GLAS,
    volume: np.ndarray | torch.Tensor,
    maps: Sequence[np.ndarray] | np.ndarray,
    target: Target,
    batch_size: int = 4,
) -> ScoreDrop:
    """Mask out each of several maps by ``I (1 - S) + B S`` and evaluate the model (Oh et al. 2020, figure 5).

    A map that is right lowers the probability more than the same values do elsewhere: compare with maps that
    `rearranged` makes.

    Parameters
    ----------
    glas
        Gives the model, and the background ``B``.
    volume
        The volume ``I``, ``(c, *spatial)``.
    maps
        ``k`` maps ``S``, each ``(*spatial)`` with values from 0 (keep) to 1 (mask out).
    target
        Index or name of the class.
    batch_size
        Masked volumes in a batch.

    Raises
    ------
    GlasError
        A map is not on the voxels of the volume or has values outside [0, 1], or the target is not a class.

    Examples
    --------
    >>> image = torch.zeros(1, 6, 8)
    >>> image[0, 2, 3] = 1.0
    >>> glas = GLAS(lambda batch: batch.amax(dim=(1, 2, 3))[:, None], sigma_light=1, sigma_shadow=1)
    >>> right = image[0].numpy()
    >>> wrong = rearranged(right, np.arange(48).reshape(6, 8))
    >>> score_drop(glas, image, [right, wrong], target=0).drop
    array([1., 0.])
    """
    array = as_volume(volume)
    shape = tuple(array.shape[1:])
    for saliency in maps:
        if np.shape(saliency) != shape or not (np.min(saliency) >= 0 and np.max(saliency) <= 1):
            raise GlasError(f"maps must be of shape {shape} with values from 0 to 1, got one of {np.shape(saliency)}")
    predict, device = bind(glas.predict, array)
    intact, background = array.to(device), as_reference(glas.background, array).to(device)
    strengths = torch.zeros((len(maps) + 1, *shape), dtype=torch.float32)
    for strength, saliency in zip(strengths[1:], maps, strict=True):
        strength.copy_(torch.as_tensor(saliency))
    outputs = []
    with evaluating(predict):
        for masks in torch.split(strengths, batch_size):
            out = torch.empty((len(masks), *array.shape), device=device)
            outputs.append(evaluate(predict, blend(intact, background, masks.to(device), out=out)))
        alone = evaluate(predict, intact[None].clone())
    probabilities = np.concatenate(outputs)
    if differ(alone[0], probabilities[0], allowed_difference(probabilities)):
        raise GlasError(
            "a score drop needs outputs that depend on their own input alone, this model's changed by "
            f"{np.abs(alone[0] - probabilities[0]).max():.2g} within a batch: give batch_size=1, unless it is random"
        )
    column = class_index(target, classes_of(glas.predict), probabilities.shape[1])
    return ScoreDrop(float(probabilities[0, column]), probabilities[1:, column])


def rearranged(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return a map with exactly the same values in other voxels: the highest value where ``order`` is highest.

    Parameters
    ----------
    values
        A map, ``(*spatial)``.
    order
        ``(*spatial)``, for example the negative distance from the centre, or smooth noise.

    Examples
    --------
    >>> rearranged(np.array([5.0, 0.0, 1.0]), np.array([0, 1, 2]))
    array([0., 1., 5.])
    """
    elsewhere = np.empty(values.size, dtype=values.dtype)
    elsewhere[np.asarray(order).ravel().argsort()] = np.sort(values.ravel())
    return elsewhere.reshape(values.shape)
