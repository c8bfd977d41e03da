"""Whether the transform before a network may be applied to a volume and its background once, in place of every batch.

Where a transform ``t`` is affine voxel by voxel, ``t(V + (B - V) m) = t(V) + (t(B) - t(V)) m`` for every mask ``m``:
blending then comes after it. That is not taken on trust. Where it does not hold, as where values are clipped, every
batch is transformed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from glas3d.core.model import HasTransform, Predict
from glas3d.core.perturb import LightAndShadow, PerturbedBatch

# How far a transformed blend may be from the blend of what was transformed, as a share of the largest value.
_ROUNDING = 2e-6
# Masks of one value everywhere on which the two are compared.
_EVEN = (0.25, 0.75)


def transformed_once(
    predict: Predict, inputs: LightAndShadow, numbers: tuple[int, ...]
) -> tuple[Predict, LightAndShadow]:
    """Apply a model's transform to the volume and the background, if blending may come after it.

    The transform of blends is compared with the blend of what was transformed: for even masks, for one that is random
    in every voxel and channel, and for masks of the points.

    Parameters
    ----------
    predict
        The model, its transform fitted to the volume.
    inputs
        The volume, its background and the masks.
    numbers
        The inputs that are compared, by their numbers in `Perturbations`.

    Returns
    -------
    The model without its transform and the inputs after it; both as they were given where they are not the same.
    """
    parts = predict.without_transform() if isinstance(predict, HasTransform) else None
    if parts is None:
        return predict, inputs
    transform, rest = parts
    try:
        volume, background = (_transformed(transform, end.clone()) for end in (inputs.volume, inputs.background))
        after = replace(inputs, volume=volume, background=background)
        largest = torch.maximum(volume.abs().max(), background.abs().max())
        pairs = _blends(inputs, after, numbers)
        same = all(bool((_transformed(transform, b) - a).abs().max() <= _ROUNDING * largest) for b, a in pairs)
    except Exception:  # a transform may fail in any way, such as on a background of zeros; or memory is short
        return predict, inputs
    return (rest, after) if same else (predict, inputs)


def _transformed(transform: Callable[[torch.Tensor], torch.Tensor], volume: torch.Tensor) -> torch.Tensor:
    """Return ``(c, *spatial)`` after the transform, which may write over it.

    Raises
    ------
    TypeError
        The transform changes more than values.
    """
    values = transform(volume.unsqueeze(0))
    if type(values) is not torch.Tensor or values.dtype != volume.dtype or values.shape[1:] != volume.shape:
        raise TypeError
    return values[0]


def _blends(
    before: LightAndShadow, after: LightAndShadow, numbers: tuple[int, ...]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield blends ``(c, *spatial)`` of the volume and the background before the transform, and the same after it."""
    random = torch.rand(before.volume.shape, generator=torch.Generator().manual_seed(0)).to(before.volume.device)
    for weight in (*_EVEN, random):
        yield (
            torch.lerp(before.background, before.volume, weight),
            torch.lerp(after.background, after.volume, weight),
        )
    for number in numbers:
        yield tuple(PerturbedBatch(inputs, [number]).written()[0] for inputs in (before, after))  # type: ignore[misc]
