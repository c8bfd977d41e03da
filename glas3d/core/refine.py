"""Coarse to fine: ask at a part of the points, where it matters, and estimate the others (docs/coarse_to_fine.md)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch

from glas3d.core.axes import per_axis
from glas3d.core.explanation import Explanation, draw_scores
from glas3d.core.glas import GLAS, Progress
from glas3d.core.score import FrozenModel, Target, check_single, fuse
from glas3d.core.search import Grid, Search, resolve_search
from glas3d.core.volume import as_volume
from glas3d.errors import GlasError

# Correlation lengths tried, in mean distances of neighbouring points; the likeliest one is taken.
_LENGTHS = (0.7, 1.0, 1.5, 2.0, 3.0, 4.5)
_COARSE = 0.4  # share of the budget that goes evenly over the volume first
_ROUNDS = 4  # in which the rest is asked, each where the ones before it point
_NUGGET = 1e-6  # added to correlations: rounding, so that close points stay independent enough to invert
_CANDIDATES = 4  # times as many as are chosen in a round, from which they are
_FEWEST = 4  # points, below which nothing is estimated
_DEVIATIONS = 2.0  # above its estimate a score may lie
_SURE = 1e-7  # probabilities nearer to 0 or 1 are rounding of float32


class Kriging:
    """A smooth function known at some points, estimated at all: Gaussian-process regression (kriging).

    The covariance is Matern's of smoothness 5/2, of the likeliest of some correlation lengths. With ``K = L L^T`` over
    the points asked, one factor ``L`` extended to all points gives the estimate and its variance.

    Parameters
    ----------
    points
        ``(m, ndim)`` coordinates, in mean distances of neighbouring points.
    asked
        ``(q,)`` which of them are known.
    values
        ``(q,)`` what is known there.
    """

    def __init__(self, points: np.ndarray, asked: np.ndarray, values: np.ndarray) -> None:
        self._points = points
        centred = values - values.mean()
        known = points[asked]
        apart = _apart(known, known)
        best = math.inf
        for length in _LENGTHS:
            factor = np.linalg.cholesky(_matern(apart / length) + _NUGGET * np.eye(len(asked)))
            white = _solve(factor, centred[:, None])[:, 0]
            spread = max(float((white**2).mean()), float(np.finfo(np.float64).tiny))
            # minus the log likelihood, with the variance that makes it largest
            unlikely = 0.5 * len(asked) * math.log(spread) + float(np.log(np.diagonal(factor)).sum())
            if unlikely < best:
                best, self.length, self._spread = unlikely, length, spread
                lower, weights = factor, white
        self._rows = _solve(lower, self._covariance(known))
        self._size = len(asked)
        self.estimate = values.mean() + weights @ self._rows
        self._left = np.clip(1 - (self._rows**2).sum(axis=0), 0, None)

    @property
    def deviation(self) -> np.ndarray:
        """``(m,)`` standard deviation of the estimate."""
        return np.asarray(np.sqrt(self._spread * self._left))

    def at(self, some: np.ndarray, room: int) -> Kriging:
        """The same at some of the points alone, to which ``room`` of them may be added."""
        here = copy.copy(self)
        here._points, here.estimate, here._left = self._points[some], self.estimate[some], self._left[some]
        here._rows = np.zeros((self._size + room, len(some)))
        here._rows[: self._size] = self._rows[:, some]
        return here

    def add(self, point: int) -> None:
        """Let a point be known, whatever its value: it makes its neighbours surer, their estimates stay."""
        rows = self._rows[: self._size]
        row = self._covariance(self._points[[point]])[0] - rows[:, point] @ rows
        row /= math.sqrt(self._left[point] + _NUGGET)
        self._rows[self._size] = row
        self._size += 1
        self._left = np.clip(self._left - row**2, 0, None)

    def _covariance(self, some: np.ndarray) -> np.ndarray:
        return _matern(_apart(some, self._points) / self.length)


def _apart(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    one, other = (torch.as_tensor(np.ascontiguousarray(points)) for points in (some, others))
    return np.asarray(torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist").numpy())


def _matern(distance: np.ndarray) -> np.ndarray:
    r = torch.as_tensor(distance) * math.sqrt(5)
    falling = r.neg().exp_()
    return np.asarray((r * r).div_(3).add_(r).add_(1).mul_(falling).numpy())


def _solve(lower: np.ndarray, right: np.ndarray) -> np.ndarray:
    one, other = torch.as_tensor(lower), torch.as_tensor(np.ascontiguousarray(right))
    return np.asarray(torch.linalg.solve_triangular(one, other, upper=False).numpy())


def farthest_points(points: np.ndarray, count: int) -> np.ndarray:
    """``count`` of ``(m, ndim)`` points, spread: from the middle one, each the farthest from those before it."""
    middle = ((points - points.mean(axis=0)) ** 2).sum(axis=1)
    chosen = [int(middle.argmin())]
    nearest = np.full(len(points), np.inf)
    for _ in range(count - 1):
        nearest = np.minimum(nearest, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(nearest.argmax()))
    return np.array(chosen)


@dataclass(frozen=True, eq=False)
class Refinement:
    """A map of all points from the answers at some.

    Attributes
    ----------
    explanation
        Of all ``m`` points: light, shadow, drop and score as answered where asked, else as estimated; the map is made
        of them (Eq. 3).
    evaluated
        ``(m,)`` bool, the points at which the model was evaluated.
    deviation
        ``(m,)`` standard deviation of each point's score by the estimate; 0 where asked.
    """

    explanation: Explanation
    evaluated: np.ndarray
    deviation: np.ndarray


class CoarseToFine:
    """The explanation of a grid, or of an atlas by its centroids, from a share of its forwards.

    Two fifths of what may be asked go evenly over the volume, the rest in rounds where light times shadow is high or
    might be: where the estimate plus two of its standard deviations is highest. The answers to light and to shadow are
    estimated each by a `Kriging`, probabilities as log odds, and the score is made of the two. Spots must be about as
    wide as the points are apart, or wider: evidence that falls between the points asked first is not found.

    Parameters
    ----------
    glas
        Asks.
    budget
        Share of the ``2m + 1`` forwards of all points, above 0 and at most 1; at least four points are asked.
    tolerance
        End sooner: once no point's score is expected to be off by more than this share of the highest one. 0: use the
        budget.

    Raises
    ------
    GlasError
        Numbers outside their range.
    """

    def __init__(self, glas: GLAS, budget: float = 0.25, *, tolerance: float = 0.0) -> None:
        if not isinstance(glas, GLAS):
            raise GlasError(f"a coarse-to-fine search is one of a GLAS, got {type(glas).__name__}")
        if not (isinstance(budget, int | float | np.number) and 0 < budget <= 1):
            raise GlasError(f"budget must be a share of the forwards, above 0 and at most 1, got {budget!r}")
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

        Raises
        ------
        GlasError
            Spots that take their shape from segments; several targets; what `GLAS.explain` refuses.
        """
        check_single(target, "a coarse-to-fine search")
        image = as_volume(volume)
        shape = tuple(image.shape[1:])
        points, segments = resolve_search(search, shape, mask)
        kernel = self.glas.settings.kernel
        if kernel not in ("gaussian", "exponential"):
            raise GlasError(
                "a coarse-to-fine search estimates spots from those around them, and with "
                f'kernel="{kernel}" every one has its own shape'
            )
        places = _in_steps(points, per_axis(1.0 if spacing is None else spacing, len(shape), "spacing"))
        m = len(points)
        # every round asks the intact volume again
        budget = m if self.budget == 1 else min(m, max(_FEWEST, int(self.budget * (2 * m + 1) - _ROUNDS - 1) // 2))
        first = m if budget == m else min(budget, max(_FEWEST, round(_COARSE * budget)))
        rounds = min(_ROUNDS, budget - first)
        asking = self.glas.replace(predict=FrozenModel(self.glas.predict, image))
        light, drop = np.empty(m), np.empty(m)
        asked, chosen = np.empty(0, dtype=np.intp), farthest_points(places, first)
        forwards = 0
        for number in range(rounds + 1):
            asking.progress = _after(self.glas.progress, forwards, 2 * budget + rounds + 1)
            (part,) = cast(tuple[Explanation], asking.explain(image, [target], points[chosen], spacing))
            forwards += part.settings["evaluations"]
            light[chosen], drop[chosen] = part.light, part.drop
            asked = np.concatenate([asked, chosen])
            room = 0 if number == rounds else first + (budget - first) * (number + 1) // rounds - len(asked)
            estimate = _Estimate(places, asked, light, drop, part.probability, self.glas)
            if room == 0 or estimate.deviation.max() <= self.tolerance * np.abs(estimate.score).max():
                break
            chosen = estimate.promising(room)
        whole = replace(
            part,
            points=points,
            segments=segments,
            light=estimate.light,
            shadow=estimate.shadow,
            drop=estimate.drop,
            score=estimate.score,
            settings=part.settings
            | {
                "evaluations": forwards,
                "coarse_to_fine": {"budget": self.budget, "tolerance": self.tolerance},
            },
        )
        known = np.zeros(m, dtype=bool)
        known[asked] = True
        return Refinement(replace(whole, saliency=draw_scores(whole, whole.score)), known, estimate.deviation)


class _Estimate:
    """Light, drop and score of all points, from those asked.

    Probabilities are estimated as log odds, where they are smooth: a network's answer is a sigmoid of something that
    follows the spots gently, and flat or steep only after it. Answers that are none (regression) are taken as they are.
    """

    def __init__(
        self,
        places: np.ndarray,
        asked: np.ndarray,
        light: np.ndarray,
        drop: np.ndarray,
        intact: float,
        glas: GLAS,
    ) -> None:
        self._asked, self._settings, self._intact = asked, glas.settings, intact
        answers = [light[asked], intact - drop[asked]]
        self._odds = all(one.min() >= -_SURE and one.max() <= 1 + _SURE for one in answers)
        self._fields = [Kriging(places, asked, _log_odds(one) if self._odds else one) for one in answers]
        self.light, shaded = (self._answer(field.estimate) for field in self._fields)
        self.drop = intact - shaded
        self.light[asked], self.drop[asked] = light[asked], drop[asked]
        self.shadow = np.abs(self.drop) + self._settings.gamma
        self.score = fuse(self.light, self.shadow, self._settings.fusion)

    def _answer(self, estimate: np.ndarray) -> np.ndarray:
        """What the model is expected to answer, from a field's estimate."""
        return np.asarray(1 / (1 + np.exp(-estimate))) if self._odds else estimate.copy()

    def _highest(self, light: Kriging, shaded: Kriging) -> np.ndarray:
        """What each score may be, two deviations of light and shadow from the estimate."""
        most = self._answer(light.estimate + _DEVIATIONS * light.deviation)
        ends = (self._answer(shaded.estimate + way * _DEVIATIONS * shaded.deviation) for way in (-1, 1))
        below, above = (np.abs(self._intact - end) for end in ends)
        return fuse(most, np.maximum(below, above) + self._settings.gamma, self._settings.fusion)

    @property
    def deviation(self) -> np.ndarray:
        """``(m,)`` of the score, 0 where asked: half of how much higher it may be."""
        deviation = np.asarray(self._highest(*self._fields) - self.score) / _DEVIATIONS
        deviation[self._asked] = 0
        return deviation

    def promising(self, count: int) -> np.ndarray:
        """Points to ask next: one after another where the score may be highest, each making its neighbours surer.

        They are sought among so many that may be highest now, as the others hardly come to be.
        """
        highest = self._highest(*self._fields)
        highest[self._asked] = -np.inf
        candidates = np.argsort(-highest, kind="stable")[: min(_CANDIDATES * count, len(highest) - len(self._asked))]
        light, shaded = (field.at(candidates, count) for field in self._fields)
        chosen: list[int] = []
        for _ in range(count):
            may_be = self._highest(light, shaded)
            may_be[chosen] = -np.inf
            chosen.append(int(may_be.argmax()))
            for field in (light, shaded):
                field.add(chosen[-1])
        return np.asarray(candidates[chosen])


def _log_odds(probability: np.ndarray) -> np.ndarray:
    inside = probability.clip(_SURE, 1 - _SURE)
    return np.asarray(np.log(inside / (1 - inside)))


def _in_steps(points: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Coordinates in mean distances of neighbouring points."""
    places: np.ndarray = points * np.asarray(spacing)
    extent = np.ptp(places, axis=0)
    axes = extent > 0
    if not axes.any():
        return places
    step = (float(np.prod(extent[axes])) / len(points)) ** (1 / np.count_nonzero(axes))
    scaled: np.ndarray = places / step
    return scaled


def _after(progress: Progress, done: int, total: int) -> Progress:
    """Progress of a part, told as that of the whole."""
    if not callable(progress):
        return progress
    return lambda part, _: progress(done + part, total)
