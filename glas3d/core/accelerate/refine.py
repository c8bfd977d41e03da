"""Evaluate the model at a share of the points and estimate the others (documentation: "Coarse to fine")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
import torch

from glas3d.core.accelerate.kriging import Kriging, farthest_points
from glas3d.core.accelerate.region_groups import RegionGroups
from glas3d.core.axes import per_axis
from glas3d.core.cover import Cover
from glas3d.core.explanation import Explanation, draw_scores
from glas3d.core.glas import GLAS
from glas3d.core.rounds import Prepared, prepare_rounds
from glas3d.core.score import Target, fuse
from glas3d.core.search import Grid, Search
from glas3d.core.settings import Fusion, Settings
from glas3d.errors import GlasError
from glas3d.progress import Progress

_COARSE = 0.4  # share of the budget that is spread evenly over the volume first
_ROUNDS = 4  # in which the rest of the budget is spent, each where the rounds before it point
_CANDIDATES = 4  # times as many points are considered as are chosen in a round
_FEWEST = 4  # least number of evaluated points
_DEVIATIONS = 2.0  # by which light and shadow may lie off their estimates
_ROUNDING = 1e-7  # probabilities nearer to 0 or 1 than this are rounding of float32


@dataclass(frozen=True, eq=False)
class Refinement:
    """A map of all points, from model evaluations at some.

    Attributes
    ----------
    explanation
        All ``m`` points: light, shadow, drop and score, computed where the model was evaluated and estimated
        elsewhere; the map is made of these scores (Eq. 3).
    evaluated
        ``(m,)`` bool, the points at which the model was evaluated, each by itself.
    deviation
        ``(m,)`` standard deviation of each point's estimated score, 0 where the model was evaluated; None for regions
        that were masked in groups, where it is not known.
    together
        ``(m,)``, how many regions were masked together with each, itself among them; None where points were evaluated
        by themselves.
    """

    explanation: Explanation
    evaluated: np.ndarray
    deviation: np.ndarray | None = None
    together: np.ndarray | None = None


class CoarseToFine:
    """The explanation of a grid or of an atlas from a share of its model evaluations.

    Two fifths of the budget are spread evenly over the volume. The rest is spent in rounds, where it matters.

    **Round masks.** That is where the score is large or may be, for the class or against it: where its size is largest
    with light and shadow two standard deviations from their estimates. The probabilities under light and under shadow
    are each estimated by `Kriging` as log odds, and the score is made of the two. The masks must be about as wide as
    the points are apart, or wider: evidence that falls between the first points is not noticed.

    **Masks of the regions' own shape.** Neighbouring regions are masked together, in groups. The groups that do most
    are divided in two, and their halves are masked. What a group does that is not divided any more is shared among its
    regions by their number of voxels (`RegionGroups`). Evidence of regions that cancels within a group is not noticed.

    Parameters
    ----------
    glas
        Explains each round.
    budget
        Share of the ``2m + 1`` model evaluations of all points, above 0 and at most 1; at least four points are
        evaluated.
    tolerance
        End sooner: once no point's score is expected to be off by more than this share of the highest score. 0: use
        the whole budget.

    Raises
    ------
    GlasError
        A number outside its range.
    """

    def __init__(self, glas: GLAS, budget: float = 0.25, *, tolerance: float = 0.0) -> None:
        if not isinstance(glas, GLAS):
            raise GlasError(f"a coarse-to-fine search is one of a GLAS, got {type(glas).__name__}")
        if not (isinstance(budget, int | float | np.number) and 0 < budget <= 1):
            raise GlasError(f"budget must be a share of the model evaluations, above 0 and at most 1, got {budget!r}")
        if not (isinstance(tolerance, int | float | np.number) and 0 <= tolerance < 1):
            raise GlasError(f"tolerance must be a share of the highest score, from 0 to below 1, got {tolerance!r}")
        self.glas, self.budget, self.tolerance = glas, float(budget), float(tolerance)

    def explain(
        self,
        volume: np.ndarray | torch.Tensor,
        target: Target = 1,
        search: Search | Sequence[Sequence[float]] = Grid(15),  # noqa: B008 (frozen)
        spacing: Sequence[float] | None = None,
        *,
        mask: np.ndarray | None = None,
    ) -> Refinement:
        """Explain one volume for one class; see `GLAS.explain`.

        Returns
        -------
        The map of all points of the search, and which of them were evaluated.

        Raises
        ------
        GlasError
            Masks of ellipsoids; masks of the regions' own shape with a fusion that is neither the mean of both ends nor
            shadow; several targets; what `GLAS.explain` refuses.
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
    ) -> Refinement:
        prepared = prepare_rounds(glas, volume, target, search, mask, name="a coarse-to-fine search")
        settings = glas.settings
        if settings.kernel == "ellipsoid":
            raise GlasError(
                "a coarse-to-fine search estimates scores from those of the points around, and with "
                f'kernel="{settings.kernel}" every mask has its own shape'
            )
        by_groups = settings.kernel == "segment"
        if by_groups and settings.fusion not in ("mean", "shadow"):
            raise GlasError(
                "a coarse-to-fine search shares the score of a group of regions among them, which takes "
                f'fusion="mean" or "shadow", got "{settings.fusion}"'
            )
        positions = prepared.points * per_axis(1.0 if spacing is None else spacing, prepared.points.shape[1], "spacing")
        covers = prepared.glas.covers(prepared.volume, search, spacing, mask=mask)
        rounds = _Rounds(self, prepared, target, spacing)
        return (self._by_groups if by_groups else self._by_points)(rounds, positions, covers)

    def _by_points(self, rounds: _Rounds, positions: np.ndarray, covers: Mapping[str, Cover]) -> Refinement:
        """Evaluate some of the points, and estimate the others."""
        m, positions = len(positions), _in_steps(positions)
        light, drop = np.empty(m), np.empty(m)
        evaluated = np.empty(0, dtype=np.intp)
        new = farthest_points(positions, rounds.count)
        while True:
            part = rounds.explain(rounds.prepared.points[new])
            light[new], drop[new] = part.light, part.drop
            evaluated = np.concatenate([evaluated, new])
            estimate = _Estimate(positions, evaluated, light, drop, part, rounds.prepared.glas.settings, covers)
            certain = estimate.deviation.max() <= self.tolerance * np.abs(estimate.scores.score).max()
            if certain or not rounds.count:
                break
            new = estimate.promising(rounds.count)
        is_evaluated = np.zeros(m, dtype=bool)
        is_evaluated[evaluated] = True
        return Refinement(rounds.whole(part, estimate.scores), is_evaluated, estimate.deviation)

    def _by_groups(self, rounds: _Rounds, positions: np.ndarray, covers: Mapping[str, Cover]) -> Refinement:
        """Evaluate groups of regions, and divide those that do most."""
        segments = rounds.prepared.segments
        assert segments is not None  # masks of the regions' shape are refused without regions when covers are made
        groups = RegionGroups(segments, positions)
        new = groups.first(rounds.count)
        while True:
            part = rounds.explain(groups.as_segments(new))
            groups.add(new, part)
            certain = groups.largest_divisible <= self.tolerance * groups.largest
            if certain or rounds.count < 2:
                break
            new = groups.divided(rounds.count // 2)
        light, drop = groups.shared()
        scores = _Scores(rounds.prepared.glas.settings, part.bare, covers, part.bare + light, drop)
        return Refinement(rounds.whole(part, scores), groups.together == 1, together=groups.together)


class _Rounds:
    """The rounds of a search: each evaluates the model at more points, or on more groups, within the budget.

    Parameters
    ----------
    search
        Has the budget.
    prepared, target, spacing
        What is explained.

    Attributes
    ----------
    count
        How many points or groups the next round evaluates; 0: the budget is spent.
    """

    def __init__(
        self, search: CoarseToFine, prepared: Prepared, target: Target, spacing: Sequence[float] | None
    ) -> None:
        glas = prepared.glas
        ends, in_common = glas.settings.evaluates_light + glas.settings.evaluates_shadow, 1 + glas.evaluates_background
        self.prepared, self._search, self._target, self._spacing = prepared, search, target, spacing
        self._progress, self._evaluations, self._done = glas.progress, 0, 0
        schedule = self._scheduled(len(prepared.points), ends, in_common)
        self._left, self._total = schedule, ends * schedule[-1] + in_common * len(schedule)

    def _scheduled(self, m: int, ends: int, in_common: int) -> list[int]:
        """Return how many of ``m`` points are evaluated by the end of each round, by ``ends`` evaluations each.

        Every round repeats the ``in_common`` evaluations of no point: the intact volume, and the background.
        """
        share = self._search.budget
        within = int(share * (ends * m + in_common) - (_ROUNDS + 1) * in_common) // ends
        budget = m if share == 1 else min(m, max(_FEWEST, within))
        first = m if budget == m else min(budget, max(_FEWEST, round(_COARSE * budget)))
        rounds = min(_ROUNDS, budget - first)
        return [first] + [first + (budget - first) * number // rounds for number in range(1, rounds + 1)]

    @property
    def count(self) -> int:
        return self._left[0] - self._done if self._left else 0

    def explain(self, search: Search | np.ndarray) -> Explanation:
        """Explain points, or groups of regions as segments: a round."""
        glas = self.prepared.glas
        glas.progress = _continued(self._progress, self._evaluations, self._total)
        (part,) = cast(tuple[Explanation], glas.explain(self.prepared.volume, [self._target], search, self._spacing))
        self._left = self._left[1:]
        self._done += len(part.points)
        self._evaluations += part.settings["evaluations"]
        return part

    def whole(self, part: Explanation, scores: _Scores) -> Explanation:
        """Return the explanation of all points, from that of the last round and the scores of all."""
        settings = {
            "evaluations": self._evaluations,
            "coarse_to_fine": {"budget": self._search.budget, "tolerance": self._search.tolerance},
        }
        has_evidence, fusion = part.evidence is not None, self.prepared.glas.settings.fusion
        whole = replace(
            part,
            points=self.prepared.points,
            segments=self.prepared.segments,
            light=scores.light,
            shadow=scores.shadow,
            drop=scores.drop,
            score=scores.score,
            evidence=scores.fused("mean") if has_evidence else None,
            density=scores.fused(fusion, density=True) if has_evidence else None,
            covers=scores.covers,
            settings=part.settings | settings,
        )
        return replace(whole, saliency=draw_scores(whole, whole.score))


@dataclass(frozen=True, eq=False)
class _Scores:
    """The scores of all points, from their ends.

    Attributes
    ----------
    settings
        The settings that make the score.
    bare
        The output for the background alone.
    covers
        What the masks of all points cover, where evidence or density is made.
    light, drop
        ``(m,)``; NaN for an end that is not evaluated.
    """

    settings: Settings
    bare: float
    covers: Mapping[str, Cover]
    light: np.ndarray
    drop: np.ndarray

    @property
    def shadow(self) -> np.ndarray:
        return np.asarray(np.abs(self.drop) + self.settings.gamma)

    @cached_property
    def score(self) -> np.ndarray:
        return self.fused(self.settings.fusion, density=self.settings.density)

    def fused(self, fusion: Fusion, *, density: bool = False) -> np.ndarray:
        """Return the scores that a fusion makes of the ends."""
        return self.of(self.light, self.drop, slice(None), fusion, density=density)

    def of(
        self, light: np.ndarray, drop: np.ndarray, rows: slice | np.ndarray, fusion: Fusion, *, density: bool
    ) -> np.ndarray:
        """Return the scores of some of the points, ``rows``, with other ends."""
        sums = {f"{end}_sum": cover.sums[rows] for end, cover in self.covers.items()} if density else {}
        settings = self.settings
        return fuse(fusion, light, drop, self.bare, link=settings.link, gamma=settings.gamma, **sums)


class _Estimate:
    """Light, drop and score of all points, from those at which the model was evaluated.

    Probabilities are estimated as log odds, where they are smooth: a network's output is a sigmoid of something that
    follows the masks gently, and only the sigmoid is flat or steep. Outputs that are log-odds already, or not
    probabilities (regression), are estimated as they are.

    Parameters
    ----------
    positions
        ``(m, ndim)`` of all points, in mean distances of neighbouring points.
    evaluated
        ``(q,)`` which of them were evaluated.
    light, drop
        ``(m,)``, of which the evaluated ones are read; NaN for an end that is not evaluated.
    part
        The explanation of some of the points, whose outputs for the intact volume and the background hold for all.
    settings, covers
        See `_Scores`.

    Attributes
    ----------
    scores
        The scores of all points.
    """

    def __init__(
        self,
        positions: np.ndarray,
        evaluated: np.ndarray,
        light: np.ndarray,
        drop: np.ndarray,
        part: Explanation,
        settings: Settings,
        covers: Mapping[str, Cover],
    ) -> None:
        intact = part.output
        self._evaluated, self._settings, self._intact = evaluated, settings, intact
        outputs = [light[evaluated], intact - drop[evaluated]]
        of_ends = [values for values in outputs if not np.isnan(values).any()]
        self._odds = settings.link == "probability" and all(
            values.min() >= -_ROUNDING and values.max() <= 1 + _ROUNDING for values in of_ends
        )
        self._estimates: list[Kriging | None] = [
            None
            if np.isnan(values).any()
            else Kriging(positions, evaluated, _log_odds(values) if self._odds else values)
            for values in outputs
        ]
        of_all, shaded = (
            np.full(len(positions), np.nan) if kriging is None else self._output(kriging.estimate)
            for kriging in self._estimates
        )
        drops = intact - shaded
        of_all[evaluated], drops[evaluated] = light[evaluated], drop[evaluated]
        self.scores = _Scores(settings, part.bare, covers, of_all, drops)

    def _output(self, estimate: np.ndarray) -> np.ndarray:
        """Return the model's expected output, from an estimate of its log odds."""
        return np.asarray(1 / (1 + np.exp(-estimate))) if self._odds else estimate.copy()

    def _bound(self, estimates: Sequence[Kriging | None], rows: slice | np.ndarray, sign: int) -> np.ndarray:
        """Return how high (1) or low (-1) scores of points may be, both ends two deviations off their estimates."""
        light, shaded = estimates
        settings = self._settings
        n = len(self.scores.light[rows])
        lit, drop = np.full(n, np.nan), np.full(n, np.nan)
        if light is not None:
            lit = self._output(light.estimate + sign * _DEVIATIONS * light.deviation)
        if shaded is not None:
            ends = (self._output(shaded.estimate + side * _DEVIATIONS * shaded.deviation) for side in (-sign, sign))
            towards, away = (self._intact - end for end in ends)
            # the mean rises with the drop itself, the other fusions with its size
            drop = towards if settings.keeps_zero else np.maximum(np.abs(towards), np.abs(away))
        return self.scores.of(lit, drop, rows, settings.fusion, density=settings.density)

    def _largest(self, estimates: Sequence[Kriging | None], rows: slice | np.ndarray) -> np.ndarray:
        """Return how large the score of some points may be, for the class or against it."""
        high, low = (self._bound(estimates, rows, sign) for sign in (1, -1))
        return np.asarray(np.maximum(np.abs(high), np.abs(low)))

    @property
    def deviation(self) -> np.ndarray:
        """``(m,)`` standard deviation of the score: half of how much higher it may be, 0 where it was evaluated."""
        deviation = np.asarray(self._bound(self._estimates, slice(None), 1) - self.scores.score) / _DEVIATIONS
        deviation[self._evaluated] = 0
        return deviation

    def promising(self, count: int) -> np.ndarray:
        """Choose the points to evaluate next: one after another where the score may be largest, whatever its sign.

        Each chosen point makes the estimates around it more certain before the next one is chosen. The candidates are
        the points whose scores may be largest now, as the others hardly come to be the largest.
        """
        largest = self._largest(self._estimates, slice(None))
        largest[self._evaluated] = -np.inf
        remaining = len(largest) - len(self._evaluated)
        candidates = np.argsort(-largest, kind="stable")[: min(_CANDIDATES * count, remaining)]
        parts = [None if kriging is None else kriging.at(candidates, count) for kriging in self._estimates]
        chosen: list[int] = []
        for _ in range(count):
            largest = self._largest(parts, candidates)
            largest[chosen] = -np.inf
            chosen.append(int(largest.argmax()))
            for kriging in parts:
                if kriging is not None:
                    kriging.add(chosen[-1])
        return np.asarray(candidates[chosen])


def _log_odds(probability: np.ndarray) -> np.ndarray:
    inside = probability.clip(_ROUNDING, 1 - _ROUNDING)
    return np.asarray(np.log(inside / (1 - inside)))


def _in_steps(positions: np.ndarray) -> np.ndarray:
    """Return coordinates in mean distances of neighbouring points."""
    size = np.ptp(positions, axis=0)
    axes = size > 0
    if not axes.any():
        return positions
    step = (float(np.prod(size[axes])) / len(positions)) ** (1 / np.count_nonzero(axes))
    scaled: np.ndarray = positions / step
    return scaled


def _continued(progress: Progress, done: int, total: int) -> Progress:
    """Return progress that reports one round as a part of all rounds."""
    if not callable(progress):
        return progress
    return lambda part, _: progress(done + part, total)
