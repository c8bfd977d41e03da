"""What the doors to Captum and Quantus share: a model whose activation is stated, and one map for each input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from glas3d.core.explanation import Explanation
from glas3d.core.glas import GLAS
from glas3d.core.model import classes_of
from glas3d.core.score import Target, class_index
from glas3d.core.search import Search
from glas3d.errors import GlasError
from glas3d.predict import Predictor
from glas3d.predict.interface import Activation, FittedTransform, Transform

Targets = Target | Sequence[Target] | np.ndarray | torch.Tensor


def as_predictor(
    model: Predictor | nn.Module | Callable[[torch.Tensor], Any],
    activation: Activation | None,
    transform: Transform | FittedTransform | None,
    device: str | torch.device | None,
) -> Predictor:
    """Return a `Predictor` as it is, or make one of a model and the activation that its caller states.

    Parameters
    ----------
    model
        A `Predictor`, a torch module, or a callable.
    activation, transform
        Those of the `Predictor` that is made; both None if ``model`` is a `Predictor`.
    device
        Where the model is evaluated. None: where the module is, because Captum and Quantus leave that to their users.

    Raises
    ------
    GlasError
        A module or callable comes without an activation, or a `Predictor`, which states its own, comes with one.
    """
    if isinstance(model, Predictor):
        if activation is not None or transform is not None or device is not None:
            raise GlasError("a Predictor states its own activation, transform and device: give them to it")
        return model
    if activation is None:
        raise GlasError(
            "a model does not say whether its outputs are logits or probabilities: "
            'give activation="softmax", "sigmoid" or "none", or a Predictor'
        )
    if device is None:
        tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
        device = tensors[0].device if tensors else "cpu"
    return Predictor(model, activation, transform, device)


def saliency_maps(
    glas: GLAS,
    inputs: torch.Tensor,
    target: Targets,
    search: Search | Sequence[Sequence[float]],
    spacing: Sequence[float] | None,
) -> torch.Tensor:
    """Return one saliency map for each input, ``(n, *spatial)`` float32 on the CPU.

    Parameters
    ----------
    glas
        The explainer.
    inputs
        ``(n, c, *spatial)``, two or three spatial axes.
    target
        One class for all inputs, or one class for each.
    search, spacing
        See `GLAS.explain`; the same for all inputs.

    Raises
    ------
    GlasError
        ``inputs`` is not a batch, the number of targets is neither 1 nor ``n``, or `GLAS.explain` refuses something.
    """
    if inputs.ndim not in (4, 5):
        raise GlasError(
            f"inputs must be a batch (n, c, *spatial) with two or three spatial axes, got {tuple(inputs.shape)}"
        )
    maps = torch.empty((len(inputs), *inputs.shape[2:]))
    columns = _columns(target, len(inputs), classes_of(glas.predict))
    for volume, column, saliency in zip(inputs, columns, maps, strict=True):
        explanation = glas.explain(volume, column, search, spacing)
        assert isinstance(explanation, Explanation)
        saliency.copy_(torch.from_numpy(explanation.saliency))
    return maps


def _columns(target: Targets, n: int, classes: Sequence[str] | None) -> list[int]:
    """Return the class index of each input, checked before the model is evaluated."""
    plain: Any = target.tolist() if isinstance(target, np.ndarray | np.generic | torch.Tensor) else target
    targets = list(plain) if isinstance(plain, list | tuple) else [plain]
    if len(targets) == 1:
        targets = targets * n
    if len(targets) != n:
        raise GlasError(f"target must be one class, or one for each input: got {len(targets)} for {n} inputs")
    return [class_index(each, classes, None) for each in targets]
