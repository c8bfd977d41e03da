"""A predictor that computes only what a mask changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from glas3d.core.accelerate.windows import Windows
from glas3d.core.model import CannotRecompute
from glas3d.predict.interface import BatchIndependent, FittedTransform, NetworkPredictor
from glas3d.predict.recompute.graph import trace
from glas3d.predict.recompute.window_evaluation import evaluate_windows
from glas3d.predict.recompute.windowed_steps import WindowedSteps, follow_windows


class RecomputingPredictor:
    """Evaluates volumes that equal a base except inside windows (`glas3d.core.model.Recomputation`).

    Parameters
    ----------
    predict
        The predictor, its transform fitted to a scan if it is a `FittedTransform`.
    bases
        ``(kinds, c, *spatial)``.
    windows
        The windows of the volumes to come, one `Windows` for each kind.

    Attributes
    ----------
    bases
        ``(kinds, k)``, the probabilities of the bases.
    whole_from
        The first step of the network from which on everything is computed; empty if there is none worth recording.

    Raises
    ------
    CannotRecompute
        The model's steps cannot be followed, or hardly any of them would be saved.
    """

    def __init__(self, predict: NetworkPredictor, bases: torch.Tensor, windows: Sequence[Windows]) -> None:
        if predict.covariates is not None:
            raise CannotRecompute("the model takes covariates next to the volume")
        if isinstance(predict.transform, FittedTransform):
            raise CannotRecompute("the transform is not fitted to a scan")
        self._predict = predict

        def evaluate_bases() -> Any:
            self._steps = _steps_of(predict, bases, windows)
            return self._steps.output

        self.bases = predict.evaluate(evaluate_bases, bases)
        self.whole_from = self._steps.whole_from

    def __call__(self, kind: int, rows: np.ndarray, parts: torch.Tensor) -> torch.Tensor:
        """Return the probabilities ``(n, k)`` of volumes made from a base.

        Parameters
        ----------
        kind
            Which base they equal outside of their windows.
        rows
            ``(n,)``, which of that kind's windows are theirs.
        parts
            ``(n, c, *size)``, the volumes inside these windows.
        """
        return self._predict.evaluate(lambda: evaluate_windows(self._steps, kind, rows, parts), parts)


def _steps_of(predict: NetworkPredictor, bases: torch.Tensor, windows: Sequence[Windows]) -> WindowedSteps:
    net: object = predict.net
    transform: Any = predict.transform
    if isinstance(net, BatchIndependent):
        net = net.steps_for_any_batch((bases if transform is None else transform(bases[:1])).shape[1:])
        if net is None:
            raise CannotRecompute("the exported file fixes the batch")
    return follow_windows(trace(net, transform), bases, windows)
