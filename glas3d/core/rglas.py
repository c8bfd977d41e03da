"""RGLAS: explain, mask out the evidence, and explain again (Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from glas3d.core.explanation import Explanation
from glas3d.core.glas import GLAS
from glas3d.core.model import device_of
from glas3d.core.modules import evaluating
from glas3d.core.perturb import blend
from glas3d.core.rounds import Prepared, prepare_rounds
from glas3d.core.saliency import minmax, positive_share
from glas3d.core.score import Target, evaluate
from glas3d.core.search import Grid, Search, Segments
from glas3d.core.settings import RecursionSettings, Settings
from glas3d.core.volume import as_reference
from glas3d.counts import counted
from glas3d.display import ShownInNotebooks, Summary
from glas3d.errors import GlasError


@dataclass(frozen=True, eq=False)
class Round:
    """One round of the recursion.

    Attributes
    ----------
    explanation
        The explanation of the image that the earlier rounds left, at the points that they left.
    points
        ``(m,)`` indices of these points among the points of the search.
    saliency
        ``S``, ``(*spatial)`` float32 in [0, 1]: the round's map, min-max normalised (of signed evidence: with negative
        values set to 0, divided by its maximum).
    values
        ``(m,)``, that map at each of these points, or each segment's value.
    removed
        Indices, among the points of the search, of the points that this round removed.
    probability
        ``P(y|I)`` after the round's map was masked out.
    measure
        ``sqrt(mean(S) / P(y|I))``, which ends the recursion when it is above ``stop``.
    kept
        Whether the round's map is part of the fused map.
    """

    explanation: Explanation
    points: np.ndarray
    saliency: np.ndarray
    values: np.ndarray
    removed: np.ndarray
    probability: float
    measure: float
    kept: bool


@dataclass(frozen=True, eq=False)
class RecursiveExplanation(ShownInNotebooks):
    """All rounds of a recursion, and their maps fused.

    Attributes
    ----------
    saliency
        ``S_fuse``, ``(*spatial)`` float32 in [0, 1].
    values
        ``(m,)`` the fused map at each point of the search, or each segment's value.
    rounds
        All rounds in order; the first is always kept.
    reason
        Why the recursion ended.
    """

    saliency: np.ndarray
    values: np.ndarray
    rounds: tuple[Round, ...]
    reason: str

    def __repr__(self) -> str:
        return (
            f"RecursiveExplanation({counted(len(self.rounds), 'round')} on {self.saliency.shape}, ended: {self.reason})"
        )

    def _summary(self) -> Summary:
        rows = [
            (
                number,
                f"{each.explanation.probability:.4f}",
                f"{each.probability:.4f}",
                len(each.removed),
                "yes" if each.kept else "no",
            )
            for number, each in enumerate(self.rounds, start=1)
        ]
        columns = ("round", "P before", "P after", "points removed", "in the fused map")
        facts = {"map": " x ".join(map(str, self.saliency.shape)), "ended": self.reason}
        return Summary("Recursive explanation", facts, columns, rows)


class RGLAS(ShownInNotebooks):
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
        A number outside its range, or a GLAS that masks one channel alone.
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
            raise GlasError(f"a recursion masks out all channels, got channel={glas.settings.channel}")
        self.glas = glas
        self.settings = RecursionSettings(threshold=threshold, stop=stop, max_iterations=max_iterations, floor=floor)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in asdict(self.settings).items())
        return f"RGLAS({self.glas!r}, {settings})"

    def _summary(self) -> Summary:
        facts = self.glas._summary().facts
        return Summary("RGLAS: recursive Gaussian light and shadow", {**facts, **asdict(self.settings)})

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
        The fused map with every round. The recursion ends when the measure is above ``stop``, when no point is left,
        when a round removes none, or after ``max_iterations``; the first round's map is always kept.

        Raises
        ------
        GlasError
            Several targets; what `GLAS.explain` refuses.
        """
        return self.glas.with_link(lambda glas: self._explain(glas, volume, target, search, spacing, mask))

    def _explain(
        self,
        glas: GLAS,
        volume: np.ndarray | torch.Tensor,
        target: Target,
        search: Search | Sequence[Sequence[float]],
        spacing: Sequence[float] | None,
        mask: np.ndarray | None,
    ) -> RecursiveExplanation:
        prepared = prepare_rounds(glas, volume, target, search, mask, name="a recursion")
        normalise = normalisation(glas.settings)
        image, left = prepared.volume, np.arange(len(prepared.points))
        background = as_reference(self.glas.background, image)
        fused, values = np.zeros(image.shape[1:]), np.zeros(len(left))
        rounds: list[Round] = []
        reason = ""
        while not reason:
            explanation, saliency, own_values = _explain_round(prepared, image, target, left, spacing)
            image = blend(image, background, torch.as_tensor(saliency)[None], out=torch.empty((1, *image.shape)))[0]
            probability = _probability(prepared.glas, image, explanation.target)
            measure = math.sqrt(float(saliency.mean()) / probability) if probability > 0 else math.inf
            removed = left[own_values > self.settings.threshold]
            # a round that masked out the last evidence counts; one that is over the measure shows residues alone
            kept = measure <= self.settings.stop or self._at_floor(probability) or not rounds
            rounds.append(Round(explanation, left, saliency, own_values, removed, probability, measure, kept))
            if kept:
                fused += saliency
                values[left] += own_values
            left = np.setdiff1d(left, removed)
            reason = self._end(rounds, len(left))
        if prepared.segments is None:
            saliency = normalise(fused).astype(np.float32)
            values = saliency[_nearest(prepared.points, saliency.shape)].astype(np.float64)
        else:
            # one segment alone is flat, and yet its own maximum
            alone = len(values) == 1 and normalise is minmax
            values = np.sign(rounds[0].explanation.score) if alone else normalise(values)
            saliency = prepared.segments.paint(values)
        return RecursiveExplanation(saliency, values, tuple(rounds), reason)

    def _at_floor(self, probability: float) -> bool:
        return self.settings.floor is not None and probability <= self.settings.floor

    def _end(self, rounds: Sequence[Round], n_left: int) -> str:
        """Return why the recursion ends after its last round; empty: it continues."""
        last = rounds[-1]
        if self._at_floor(last.probability):
            return f"P fell to {last.probability:.3g}, not above {self.settings.floor:g}"
        if last.measure > self.settings.stop:
            return f"the measure {last.measure:.3g} is above {self.settings.stop:g}"
        if n_left == 0:
            return "no point is left"
        if len(last.removed) == 0:
            return "a round removed no point"
        return "as many rounds as allowed were made" if len(rounds) == self.settings.max_iterations else ""


def normalisation(settings: Settings) -> Callable[[np.ndarray], np.ndarray]:
    """Return what scales the scores or the map of a round to [0, 1]: min-max (Algorithm 1), or with the zero kept.

    Signed evidence keeps its zero: what speaks against the class, or not at all, is not masked out.
    """
    return positive_share if settings.keeps_zero else minmax


def _explain_round(
    prepared: Prepared, image: torch.Tensor, target: Target, left: np.ndarray, spacing: Sequence[float] | None
) -> tuple[Explanation, np.ndarray, np.ndarray]:
    """Explain the image at the points that are left; return also the normalised map and its value at each of them."""
    points, segments = prepared.points[left], prepared.segments
    normalise = normalisation(prepared.glas.settings)
    if segments is None:
        explanation = prepared.glas.explain(image, target, points, spacing)
        assert isinstance(explanation, Explanation)
        saliency = normalise(explanation.saliency)
        return explanation, saliency, saliency[_nearest(points, saliency.shape)]
    remaining: Segments = replace(segments, index=segments.index[left], points=points)
    explanation = prepared.glas.explain(image, target, remaining, spacing)
    assert isinstance(explanation, Explanation)
    values = normalise(explanation.score)
    return explanation, remaining.paint(values), values


def _probability(glas: GLAS, image: torch.Tensor, column: int) -> float:
    batch = image.clone().unsqueeze(0).to(device_of(glas.predict))  # the model may write over it
    with evaluating(glas.predict):
        return float(evaluate(glas.predict, batch)[0, column])


def _nearest(points: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Return the index of the voxel nearest to each point, within the image."""
    voxels = np.clip(np.rint(points).astype(int), 0, np.asarray(shape) - 1)
    return tuple(voxels.T)
