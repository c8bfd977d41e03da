"""What the doors to other libraries share: a model whose activation is stated, and one map an input."""

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
from glas3d.predict.predictor import Activation, FittedTransform, Predictor, Transform

Targets = Target | Sequence[Target] | np.ndarray | torch.Tensor


def as_predictor(
    model: Predictor | nn.Module | Callable[[torch.Tensor], Any],
    activation: Activation | None,
    transform: Transform | FittedTransform | None,
    device: str | torch.device | None,
) -> Predictor:
    """A `Predictor` as it is, or one of a model and the activation its caller states.

    Parameters
    ----------
    device
        None: where the module is; those libraries leave it to their users.

    Raises
    ------
    GlasError
        No activation for a bare model, or one for a `Predictor`, which states its own.
    """
    if isinstance(model, Predictor):
        if activation is not None or transform is not None or device is not None:
            raise GlasError("a Predictor states its own activation, transform and device: give them to it")
        return model
    if activation is None:
        raise GlasError(
            "a model does not say whether it answers with logits or probabilities: "
            'give activation="softmax", "sigmoid" or "none", or a Predictor'
        )
    if device is None:
        tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
        device = tensors[0].device if tensors else "cpu"
    return Predictor(model, activation, transform, device)


def maps(
    glas: GLAS,
    inputs: torch.Tensor,
    target: Targets,
    search: Search | Sequence[Sequence[float]],
    spacing: Sequence[float] | None,
) -> torch.Tensor:
    """One saliency map an input, ``(n, *spatial)`` float32 on the CPU.

    Parameters
    ----------
    inputs
        ``(n, c, *spatial)``.
    target
        One class for all inputs, or one an input.

    Raises
    ------
    GlasError
        Inputs that are no batch, as many targets as neither 1 nor ``n``, or what `GLAS.explain` refuses.
    """
    if inputs.ndim not in (4, 5):
        raise GlasError(
            f"inputs must be a batch (n, c, *spatial) with two or three spatial axes, got {tuple(inputs.shape)}"
        )
    drawn = torch.empty((len(inputs), *inputs.shape[2:]))
    columns = _columns(target, len(inputs), classes_of(glas.predict))
    for one, column, into in zip(inputs, columns, drawn, strict=True):
        explanation = glas.explain(one, column, search, spacing)
        assert isinstance(explanation, Explanation)
        into.copy_(torch.from_numpy(explanation.saliency))
    return drawn


def _columns(target: Targets, n: int, classes: Sequence[str] | None) -> list[int]:
    """The class of each input; checked before anything is asked."""
    plain: Any = target.tolist() if isinstance(target, np.ndarray | np.generic | torch.Tensor) else target
    each = list(plain) if isinstance(plain, list | tuple) else [plain]
    if len(each) == 1:
        each = each * n
    if len(each) != n:
        raise GlasError(f"target must be one class, or one an input: got {len(each)} for {n} inputs")
    return [class_index(one, classes, None) for one in each]
