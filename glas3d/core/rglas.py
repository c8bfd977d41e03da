"""RGLAS: explain, put out what was found, and look again (Algorithm 1, as docs/method.md reads it)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from glas3d.core.explanation import Explanation
from glas3d.core.glas import GLAS
from glas3d.core.model import device_of
from glas3d.core.perturb import blend
from glas3d.core.saliency import minmax
from glas3d.core.score import FrozenModel, Target, check_single, evaluate
from glas3d.core.search import Grid, Search, Segments, resolve_search
from glas3d.core.settings import RecursionSettings
from glas3d.core.volume import as_reference, as_volume
from glas3d.errors import GlasError


@dataclass(frozen=True, eq=False)
class Round:
    """One round of the recursion.

    Attributes
    ----------
    explanation
        Of the image as the rounds before left it, over the points they left.
    points
        ``(m,)`` which of the search's points those are.
    saliency
        ``S``, ``(*spatial)`` float32 in [0, 1]: the round's map, min-max normalised.
    removed
        Which of the search's points this round removed.
    probability
        ``P(y|I)`` after the round's map was put out.
    measure
        ``sqrt(mean(S) / P(y|I))``, which stops the recursion above ``stop``.
    kept
        Whether the map counts in the fused one.
    """

    explanation: Explanation
    points: np.ndarray
    saliency: np.ndarray
    removed: np.ndarray
    probability: float
    measure: float
    kept: bool


@dataclass(frozen=True, eq=False)
class RecursiveExplanation:
    """All rounds, and their maps fused.

    Attributes
    ----------
    saliency
        ``S_fuse``, ``(*spatial)`` float32 in [0, 1].
    values
        ``(m,)`` the fused map at each of the search's points, or each segment's value.
    rounds
        In order; the first is always kept.
    reason
        Why it ended.
    """

    saliency: np.ndarray
    values: np.ndarray
    rounds: tuple[Round, ...]
    reason: str

    def __repr__(self) -> str:
        return f"RecursiveExplanation({len(self.rounds)} rounds on {self.saliency.shape}, ended: {self.reason})"


class RGLAS:
    """Recursive GLAS: several pieces of evidence, in order of strength.

    Parameters
    ----------
    glas
        Explains each round.
    threshold, stop, max_iterations, floor
        See `glas3d.core.settings.RecursionSettings`.

    Raises
    ------
    GlasError
        Numbers outside their range.
    """

    def __init__(
        self,
        glas: GLAS,
        threshold: float = RecursionSettings.threshold,
        stop: float = RecursionSettings.stop,
        max_iterations: int = RecursionSettings.max_iterations,
        *,
        floor: float | None = RecursionSettings.floor,
    ) -> None:
        if not isinstance(glas, GLAS):
            raise GlasError(f"RGLAS recurses on a GLAS, got {type(glas).__name__}")
        if glas.settings.channel is not None:
            raise GlasError(f"a recursion puts out all channels, got channel={glas.settings.channel}")
        self.glas = glas
        self.settings = RecursionSettings(threshold=threshold, stop=stop, max_iterations=max_iterations, floor=floor)

    def explain(
        self,
        volume: np.ndarray | torch.Tensor,
        target: Target = 1,
        search: Search | Sequence[Sequence[float]] = Grid(15),  # noqa: B008 (frozen)
        spacing: Sequence[float] | None = None,
        *,
        mask: np.ndarray | None = None,
    ) -> RecursiveExplanation:
        """Explain one volume for one class; see `GLAS.explain`.

        Returns
        -------
        The fused map with every round. The recursion ends when the measure says so, when no point is left,
        when a round removes none, or after ``max_iterations``; the first round's map is always kept.
        """
        check_single(target, "a recursion")
        image = as_volume(volume)
        background = as_reference(self.glas.background, image)
        points, segments = resolve_search(search, image.shape[1:], mask)
        glas = copy.copy(self.glas)
        glas.predict = FrozenModel(glas.predict, image)
        left = np.arange(len(points))
        fused = np.zeros(image.shape[1:])
        values = np.zeros(len(points))
        rounds: list[Round] = []
        reason = "as many rounds as allowed were made"
        for number in range(self.settings.max_iterations):
            remaining: Search = points[left] if segments is None else _only(segments, left)
            explanation = glas.explain(image, target, remaining, spacing)
            assert isinstance(explanation, Explanation)
            if segments is None:
                drawn = minmax(explanation.saliency)
                found = drawn[_nearest(points[left], drawn.shape)]
            else:
                found = minmax(explanation.score)
                drawn = _only(segments, left).paint(found)
            removed = left[found > self.settings.threshold]
            image = blend(image, background, torch.as_tensor(drawn)[None], out=torch.empty((1, *image.shape)))[0]
            probability = self._probability(glas, image, explanation.target)
            measure = math.sqrt(float(drawn.mean()) / probability) if probability > 0 else math.inf
            over = measure > self.settings.stop
            gone = self.settings.floor is not None and probability <= self.settings.floor
            # a round that put out what was left is the last one, and not one of residues
            kept = not over or gone or number == 0
            rounds.append(Round(explanation, left, drawn, removed, probability, measure, kept))
            if kept:
                fused += drawn
                values[left] += found
            left = np.setdiff1d(left, removed)
            if gone or over or len(left) == 0 or len(removed) == 0:
                reason = (
                    f"P fell to {probability:.3g}, not above {self.settings.floor:g}"
                    if gone
                    else f"the measure {measure:.3g} is above {self.settings.stop:g}"
                    if over
                    else "no point is left"
                    if len(left) == 0
                    else "a round removed no point"
                )
                break
        if segments is None:
            saliency = minmax(fused).astype(np.float32)
            values = saliency[_nearest(points, saliency.shape)].astype(np.float64)
        else:
            # a segment alone is flat, and yet its own maximum
            values = minmax(values) if len(values) > 1 else np.sign(rounds[0].explanation.score)
            saliency = segments.paint(values)
        return RecursiveExplanation(saliency, values, tuple(rounds), reason)

    @staticmethod
    def _probability(glas: GLAS, image: torch.Tensor, column: int) -> float:
        device = device_of(glas.predict)
        return float(evaluate(glas.predict, image.unsqueeze(0).to(device))[0, column])


def _only(segments: Segments, which: np.ndarray) -> Segments:
    return replace(segments, index=segments.index[which], points=segments.points[which])


def _nearest(points: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Index of the voxel nearest to each point, within the image."""
    voxels = np.clip(np.rint(points).astype(int), 0, np.asarray(shape) - 1)
    return tuple(voxels.T)
