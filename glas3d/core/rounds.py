"""What explanations in several rounds have in common: one volume and target, and a model fitted to that volume once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from glas3d.core.glas import GLAS
from glas3d.core.model import HasLogits, HasState, HasTransform, Predict, Recomputable, RunsOnEngine, classes_of
from glas3d.core.score import Target, bind
from glas3d.core.search import Search, Segments, resolve_search
from glas3d.core.volume import as_volume
from glas3d.errors import GlasError


class FrozenModel:
    """A model that stays fitted to the intact volume, whatever it is evaluated on: it has no ``fit``.

    Parameters
    ----------
    predict
        The model.
    intact
        ``(c, *spatial)``, the volume it is fitted to.
    """

    def __init__(self, predict: Predict, intact: torch.Tensor) -> None:
        self._predict, self.device = bind(predict, intact)
        self.classes = classes_of(predict)
        # None where the model does not offer it
        self.recompute = self._predict.recompute if isinstance(self._predict, Recomputable) else None
        self.with_engine = self._predict.with_engine if isinstance(self._predict, RunsOnEngine) else None
        self.without_transform = self._predict.without_transform if isinstance(self._predict, HasTransform) else None
        self.log_odds = self._predict.log_odds if isinstance(self._predict, HasLogits) else None
        # of the model itself, so that it is tried once: not in every round, nor with every volume
        self.state = predict.state if isinstance(predict, HasState) else None

    def __call__(self, batch: torch.Tensor) -> Any:
        """Return the model's own output."""
        return self._predict(batch)


@dataclass(frozen=True, eq=False)
class Prepared:
    """One volume, ready to be explained in rounds.

    Attributes
    ----------
    glas
        Explains with the model frozen to the intact volume.
    volume
        ``(c, *spatial)`` float32 on the CPU.
    points, segments
        The points of the whole search, and its segments when it has some.
    """

    glas: GLAS
    volume: torch.Tensor
    points: np.ndarray
    segments: Segments | None


def prepare_rounds(
    glas: GLAS,
    volume: np.ndarray | torch.Tensor,
    target: Target,
    search: Search | Sequence[Sequence[float]],
    mask: np.ndarray | None,
    *,
    name: str,
) -> Prepared:
    """Check what is explained in rounds, resolve its search and freeze the model to it.

    Parameters
    ----------
    glas
        Explains each round.
    volume, target, search, mask
        See `GLAS.explain`; there is one target only.
    name
        What messages call the method: ``"a recursion"``.

    Raises
    ------
    GlasError
        Several targets, or an input that does not fit.
    """
    if not isinstance(target, str | int | np.integer):
        raise GlasError(f"{name} follows one target, a class index or name, got {target!r}")
    array = as_volume(volume)
    points, segments = resolve_search(search, array.shape[1:], mask)
    return Prepared(glas.replace(predict=FrozenModel(glas.predict, array)), array, points, segments)
