"""Callables as predictors: functions of this process, and services behind a network."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from glas3d.checks import whole_number
from glas3d.core.foreign_code import described, is_out_of_memory
from glas3d.errors import GlasError
from glas3d.imaging.space import VoxelGrid
from glas3d.predict.interface import Activation, FittedTransform, ModelInfo, Transform
from glas3d.predict.model_output import rows
from glas3d.predict.predictor import Predictor

_log = logging.getLogger(__name__)


def from_callable(
    call: Callable[[Any], Any],
    activation: Activation,
    *,
    name: str | None = None,
    retries: int = 0,
    wait: float = 1.0,
    on: type[Exception] | tuple[type[Exception], ...] = Exception,
    as_numpy: bool = False,
    transform: Transform | FittedTransform | None = None,
    classes: Sequence[str] | None = None,
    grid: VoxelGrid | None = None,
) -> Predictor:
    """Return a predictor of any callable that takes batches, in this process or behind a network.

    Parameters
    ----------
    call
        ``(n, c, *spatial)`` float32 to ``(n, k)`` or ``(n,)``: a tensor, an array or nested lists.
    name, retries, wait, on
        See `Retrying`.
    as_numpy
        Give NumPy arrays to ``call`` instead of tensors.
    activation, transform, classes
        See `Predictor`.
    grid
        The voxel grid that the model's scans must have, if it is known; scans are resampled to it.

    Raises
    ------
    GlasError
        A setting that is not possible; during an evaluation, see `Retrying`.

    Examples
    --------
    >>> service = lambda batch: batch.mean(axis=(1, 2, 3)).tolist()
    >>> from_callable(service, "sigmoid", as_numpy=True)(torch.zeros(2, 1, 3, 3))
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    on_tensors = call if not as_numpy else lambda batch: call(batch.cpu().numpy())
    name = name or str(getattr(call, "__name__", type(call).__name__))
    net = Retrying(on_tensors, name=name, retries=retries, wait=wait, on=on)
    return Predictor(net, activation, transform, classes=classes, info=ModelInfo(name=name, grid=grid))


class Retrying:
    """A callable of batches whose failures are tried again, and in the end reported in one sentence.

    Parameters
    ----------
    call
        Takes a batch and returns one row for each input. It sets its own time limit.
    name
        Name of the model, for messages.
    retries
        How often a batch that failed is tried again.
    wait
        Seconds before the first retry, doubled before each further one.
    on
        Errors after which a batch is tried again. Other errors end the evaluation at once, as does a wrong number
        of rows.

    Raises
    ------
    GlasError
        When called: every attempt failed, or the output is not one row of numbers for each input.
    """

    def __init__(
        self,
        call: Callable[[Any], Any],
        *,
        name: str,
        retries: int = 2,
        wait: float = 1.0,
        on: type[Exception] | tuple[type[Exception], ...] = Exception,
    ) -> None:
        if not callable(call):
            raise GlasError(f"a model must be callable, got {type(call).__name__}")
        retries = whole_number("retries", retries, least=0)
        if not 0 <= wait < float("inf"):
            raise GlasError(f"wait must be 0 or a positive number of seconds, got {wait!r}")
        self.call, self.name, self.retries, self.wait, self.on = call, name, retries, wait, on

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the output for a batch, after as many retries as are allowed."""
        attempt = 0
        while True:
            attempt += 1
            try:
                # a call that fails may have written to its batch before
                return rows(self.call(copy.deepcopy(batch) if attempt <= self.retries else batch), batch, self.name)
            except GlasError:
                raise
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                if attempt > self.retries or not isinstance(error, self.on):
                    times = "once" if attempt == 1 else f"{attempt} times"
                    raise GlasError(
                        f"the model {self.name} was evaluated {times} on a batch of {tuple(batch.shape)} and failed: "
                        f"{described(error)}"
                    ) from error
                _log.warning("%s failed (attempt %d): %s: %s", self.name, attempt, type(error).__name__, error)
            time.sleep(self.wait * 2 ** (attempt - 1))
