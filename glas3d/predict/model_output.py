"""Check what a model returns, and turn the errors of other libraries into one sentence."""

from __future__ import annotations

from collections.abc import Sized
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from glas3d.core.foreign_code import failures_of
from glas3d.core.score import unusual_kind
from glas3d.errors import GlasError


def one_tensor(output: Any, of: str = "model") -> torch.Tensor:
    """Return an output as a tensor.

    Parameters
    ----------
    of
        What gave the output, for the message: ``"model"`` or ``"readout"``.

    Raises
    ------
    GlasError
        The output is a list, a dictionary or an object.
    """
    try:
        tensor = torch.as_tensor(output)
    except Exception:  # an output may be of any kind, and fail in any way
        advice = (
            ": glas3d.predict.FirstOutput(net) takes the first of several outputs, "
            'a readout with activation="none" any of them'
        )
        raise GlasError(
            f"a {of} must return one tensor (n, classes), got {type(output).__name__}{advice if of == 'model' else ''}"
        ) from None
    if not tensor.is_meta and (unusual := unusual_kind(tensor)):  # a model may be tried where nothing is computed
        raise GlasError(f"a {of} must return one tensor (n, classes) of numbers, got {unusual}")
    return tensor


def columns(output: torch.Tensor, batch: Sized, of: str = "model", dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return an output as ``(n, k)``, float32 by default, a row for each input of the batch.

    Raises
    ------
    GlasError
        The output has another number of rows, or more axes.
    """
    table = output.unsqueeze(1) if output.ndim == 1 else output
    if table.ndim != 2 or len(table) != len(batch):
        n, came = len(batch), tuple(table.shape)
        advice = ": give a readout, which says what of it is explained" if of == "model" and len(came) > 2 else ""
        raise GlasError(f"a {of} must return ({n}, classes) for a batch of {n}, got {came}{advice}")
    return table.to(dtype)


def rows(output: Any, batch: torch.Tensor, name: str) -> torch.Tensor:
    """Return what a named model gave as a tensor with one row for each input of the batch.

    Raises
    ------
    GlasError
        The output holds no numbers, or another number of rows.
    """
    tensor: torch.Tensor
    if isinstance(output, torch.Tensor):
        tensor = output
    else:
        try:
            tensor = torch.from_numpy(np.array([] if output is None else output, dtype=np.float32))
        except (TypeError, ValueError):
            raise GlasError(
                f"the model {name} must return numbers, one row for each input, got {type(output).__name__}"
            ) from None
    if tensor.ndim == 0 or len(tensor) != len(batch):
        came = len(tensor) if tensor.ndim else "a single number"
        raise GlasError(f"the model {name} must return {len(batch)} rows for a batch of {len(batch)}, got {came}")
    return tensor


def model_errors(name: str, batch: torch.Tensor) -> AbstractContextManager[None]:
    """Raise whatever another library raises over a batch as a `GlasError`, in one sentence."""
    return failures_of(f"the model {name} does not take a batch of {tuple(batch.shape)}")
