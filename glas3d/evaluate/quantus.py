"""GLAS as an ``explain_func`` of Quantus.

Quantus calls such a function with its module, a batch and the classes, and passes ``explain_func_kwargs`` on as
keywords. Quantus guesses which axis holds the channels, but not for volumes: there, pass ``channel_first=True``. ::

    metric(model=net, x_batch=x, y_batch=y, channel_first=True, explain_func=explain_func,
           explain_func_kwargs={"activation": "softmax", "search": Grid(15), "sigma_light": 20})

This module does not import Quantus; the extra ``glas3d[quantus]`` installs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from glas3d.core.glas import GLAS
from glas3d.core.search import Grid, Search
from glas3d.errors import GlasError
from glas3d.evaluate.batch_maps import Targets, as_predictor, saliency_maps
from glas3d.predict import Predictor
from glas3d.predict.interface import Activation, FittedTransform, Transform


def explain_func(
    model: Predictor | nn.Module | Callable[[torch.Tensor], Any],
    inputs: np.ndarray | torch.Tensor,
    targets: Targets,
    *,
    activation: Activation | None = None,
    transform: Transform | FittedTransform | None = None,
    device: str | torch.device | None = None,
    search: Search | Sequence[Sequence[float]] = Grid(15),  # noqa: B008 (frozen)
    spacing: Sequence[float] | None = None,
    **settings: Any,
) -> np.ndarray:
    """Return the saliency map of every input (Eq. 1-3), unnormalised.

    Parameters
    ----------
    model
        The module that Quantus judges; outside Quantus also a `Predictor` or a callable.
    inputs
        ``(n, c, *spatial)``, channels first, before normalisation.
    targets
        One class for all inputs, or one for each input.
    activation
        What turns the model's outputs into probabilities: ``"softmax"``, ``"sigmoid"`` or ``"none"``; a `Predictor`
        states its own. It is never guessed, and Quantus' own ``softmax`` does not reach this function.
    transform, device
        Those of the `Predictor` made from a module; ``device`` None: where the module is.
    search, spacing
        See `GLAS.explain`; the same for all inputs.
    **settings
        Settings of `GLAS`: ``sigma_light``, ``background``, ...

    Returns
    -------
    ``(n, 1, *spatial)`` float32: all channels are lit and shaded together, so they share a map.

    Raises
    ------
    GlasError
        No activation is stated, or `GLAS` refuses something.

    Examples
    --------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(144, 2))
    >>> explain_func(net, np.ones((4, 3, 6, 8)), np.array([0, 1, 1, 0]), activation="softmax", search=Grid(3)).shape
    (4, 1, 6, 8)
    """
    glas = GLAS(as_predictor(model, activation, transform, device), **settings)
    try:
        batch = torch.as_tensor(inputs, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise GlasError(f"inputs must be an array of numbers (n, c, *spatial), got {type(inputs).__name__}") from None
    return saliency_maps(glas, batch, targets, search, spacing).unsqueeze(1).numpy()
