"""Evaluate only what a mask changes, where the model can recompute that (documentation: "Speed")."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from glas3d.core.accelerate.windows import Windows, crop, extent
from glas3d.core.agreement import allowed_difference
from glas3d.core.gaussian import GaussianMasks, Masks
from glas3d.core.model import CannotRecompute, Predict, Recomputable, Recomputation
from glas3d.core.perturb import LightAndShadow, Perturbations
from glas3d.core.score import (
    CheckClasses,
    CheckEngine,
    CovariatesOf,
    Outputs,
    ReportProgress,
    accept_engine,
    evaluate,
    evaluate_all,
)
from glas3d.errors import GlasWarning

# Recomputed outputs that differ from those of the full forward pass by more than this (relative to log-odds beyond 1),
# or by more than this share of the effects, are not used: the masks are truncated too early, or the network does
# something that its graph does not show.
TOLERANCE, _SHARE_OF_EFFECT = 1e-4, 0.05
# Inputs with the largest effects that are compared once all are evaluated, at most.
_MOST_CHECKED = 8
# Recomputing must take at most this share of the time, so that a busy machine does not decide.
_WORTH = 0.95
# Least number of batches of each kind, where there are as many points: whether recomputing pays is decided after the
# second.
_LEAST_BATCHES = 8
# An input's window counts this many times its values: the patches that are cut out of activations and pasted need
# memory as well (measured: of 31 x 31 x 31 voxels 13 at a time are up to twice as fast as 21).
_MEMORY_FACTOR = 2
# Full forward passes that take fewer seconds than this are timed more than once: the first time is the slowest.
_SHORT = 0.1

LIGHT, SHADOW = 0, 1


@dataclass(frozen=True, kw_only=True)
class RecomputationRecord:
    """How the probabilities of an explanation with a cut were computed, for its record.

    Attributes
    ----------
    recomputed
        Whether only what a mask changes was computed.
    reason
        Why not; empty otherwise.
    whole_from
        The first step of the network from which on everything is computed, where that step is not known to keep a
        change in its place.
    mask_cut_off
        The largest value of a mask that was taken as 0.
    input_change
        The most by which an input differs from that of the equations: that value times the largest ``|I - B|``.
    measured_change
        The largest difference of any class's output from the full forward pass, over ``checked`` inputs.
    checked
        Number of inputs that were evaluated both ways.
    batch_size
        Windows in a batch, of light and of shadow.
    """

    recomputed: bool
    reason: str = ""
    whole_from: str = ""
    mask_cut_off: float = 0.0
    input_change: float = 0.0
    measured_change: float = 0.0
    checked: int = 0
    batch_size: tuple[int, ...] = ()


class WindowedPerturbations:
    """Light and shadow of every point inside windows; outside of its window an input equals its base.

    The base of light is the background, that of shadow the volume; where the two are equal, no window is needed.

    Parameters
    ----------
    inputs
        The volume, its background and the masks.
    cut
        A mask is taken as 0 where it is below ``exp(-cut^2 / 2)``: for a Gaussian, beyond ``cut`` sigmas.
    batch_size
        Gives the inputs in a batch, from the values of one.

    Attributes
    ----------
    bases
        ``(2, c, *spatial)``: background and volume.
    windows
        The windows of light and of shadow; none for a kind that is not evaluated.
    kinds
        The kinds that are evaluated: `LIGHT`, `SHADOW` or both.
    mask_cut_off, input_change
        See `RecomputationRecord`.
    batch_size
        Windows in a batch, of light and of shadow.
    """

    def __init__(self, inputs: LightAndShadow, cut: float, batch_size: Callable[[int], int]) -> None:
        volume, background = inputs.volume, inputs.background
        self.bases = torch.stack([background, volume])
        self._channels = inputs.channels
        self.inputs = inputs
        self._masks = inputs.ends
        self.kinds = [kind for kind, masks in enumerate(inputs.ends) if masks is not None]
        contrast = (volume[self._channels] - background[self._channels]).abs()
        low, high = extent(contrast.amax(dim=0) > 0)
        self.windows: list[Windows] = []
        self.mask_cut_off = 0.0
        for masks in self._masks:
            if masks is None:
                nothing = np.empty((0, volume.ndim - 1))
                self.windows.append(Windows.of(nothing, nothing, volume.shape[1:]))
                continue
            first, last, beyond = _reach(masks, cut, volume[0])
            self.windows.append(Windows.of(first, last, volume.shape[1:]).within(low, high))
            self.mask_cut_off = max(self.mask_cut_off, beyond)
        self.input_change = self.mask_cut_off * float(contrast.max())
        self.batch_size = tuple(
            min(
                math.ceil(len(windows) / _LEAST_BATCHES),
                batch_size(_MEMORY_FACTOR * len(volume) * math.prod(windows.size)),
            )
            for windows in self.windows
        )

    def batches(self, kind: int) -> list[np.ndarray]:
        """Return the points of every batch of a kind, each batch spread over all points.

        All batches have one size, so that a model sees one shape only: some points come twice.
        """
        m, size = len(self.windows[kind]), self.batch_size[kind]
        number = math.ceil(m / size) if m else 0
        return [(np.arange(size) * number + turn) % m for turn in range(number)]

    def parts(self, kind: int, rows: np.ndarray) -> torch.Tensor:
        """Return light (kind 0) or shadow (1) of some points inside their windows, ``(n, c, *size)``."""
        windows = self.windows[kind]
        corners = windows.corner[rows]
        masks = _within(self._of_kind(kind), rows, windows, self.bases[0, 0])
        below, above = (
            torch.stack([crop(self.bases[base], corner, windows.size) for corner in corners])
            for base in (kind, 1 - kind)
        )
        return self._blend(below, above, masks)

    def whole(self, kind: int, row: int) -> torch.Tensor:
        """Return light or shadow of one point with its mask whole, ``(1, c, *spatial)``."""
        mask = self._of_kind(kind).masks(row, torch.empty_like(self.bases[:1, 0]))
        return self._blend(self.bases[kind, None].clone(), self.bases[1 - kind, None], mask)

    def _of_kind(self, kind: int) -> Masks:
        masks = self._masks[kind]
        assert masks is not None
        return masks

    def _blend(self, below: torch.Tensor, above: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Blend as `Perturbations` does; ``below`` is overwritten."""
        only = below[:, self._channels]
        only.copy_(torch.lerp(only, above[:, self._channels], masks.unsqueeze(1)))
        return below


def evaluate_changed_windows(
    predict: Predict,
    perturbations: Perturbations,
    check: CheckClasses = lambda n_classes: None,
    progress: ReportProgress = lambda done, total: None,
    covariates: CovariatesOf | None = None,
    check_engine: CheckEngine = accept_engine,
    *,
    cut: float,
    always: bool,
    batch_size: Callable[[int], int],
) -> tuple[Outputs, RecomputationRecord]:
    """Evaluate all inputs as `score.evaluate_all` does, computing only what a mask changes where that pays.

    Inputs of the first batches are compared with the full forward pass, and in the end those of all: each time the
    inputs whose masks have the largest effects. Where an output differs by more than `TOLERANCE` or a twentieth of the
    largest effect of light or shadow, or the full forward pass is not slower, every input is evaluated in full.

    Parameters
    ----------
    predict, perturbations, check, progress, covariates, check_engine
        See `score.evaluate_all`.
    cut
        A mask is taken as 0 where it is below ``exp(-cut^2 / 2)``.
    always
        Compare no times, so that every machine does the same: recompute wherever the probabilities are right.
    batch_size
        Gives the inputs in a batch, from the values of one.

    Warns
    -----
    GlasWarning
        The model cannot recompute, or not these inputs.
    """
    windowed = WindowedPerturbations(perturbations.inputs, cut, batch_size)
    try:
        recomputation = _prepare(predict, windowed, covariates)
    except CannotRecompute as error:
        warnings.warn(
            f"cut={cut:g} saves nothing, every input is evaluated in full: {error}", GlasWarning, stacklevel=4
        )
        record = RecomputationRecord(recomputed=False, reason=str(error))
        return evaluate_all(predict, perturbations, check, progress, covariates, check_engine), record
    run = _Run(predict, recomputation, windowed)
    check(run.probabilities.shape[1])
    run.evaluate_turn(0)
    record, seconds_in_full, reason = run.compare(predict, perturbations.batch_size)
    if not reason and run.turns > 1 and run.evaluate_turn(1) > _WORTH * seconds_in_full and not always:
        reason = "the full forward pass is not slower"
    if reason:
        record = replace(record, recomputed=False, reason=reason)
        return evaluate_all(predict, perturbations, check, progress, check_engine=check_engine), record
    if run.turns > 1:
        progress(run.done, len(perturbations))
    for turn in range(2, run.turns):
        run.evaluate_turn(turn)
        progress(run.done, len(perturbations))
    if run.turns > 1:
        end, _, reason = run.compare(predict, min(perturbations.batch_size, _MOST_CHECKED))
        record = replace(
            record,
            recomputed=not reason,
            reason=reason,
            measured_change=max(record.measured_change, end.measured_change),
            checked=record.checked + end.checked,
        )
    if reason:
        return evaluate_all(predict, perturbations, check, progress, check_engine=check_engine), record
    progress(len(perturbations), len(perturbations))
    numbers = perturbations.numbers
    return Outputs.of(perturbations.inputs, numbers, run.probabilities[numbers]), record


def _prepare(predict: Predict, windowed: WindowedPerturbations, covariates: CovariatesOf | None) -> Recomputation:
    if covariates is not None:
        raise CannotRecompute("the model takes covariates next to the volume")
    if not isinstance(predict, Recomputable):
        raise CannotRecompute("the model is a callable that does not say what it computes")
    return predict.recompute(windowed.bases[windowed.kinds], [windowed.windows[kind] for kind in windowed.kinds])


class _Run:
    """The evaluation of all windows, in turns of one batch of light and one of shadow.

    Attributes
    ----------
    probabilities
        ``(2m + 2, k)`` float64, the outputs, numbered as `Perturbations` numbers its inputs.
    turns
        How many there are.
    """

    def __init__(self, predict: Predict, recomputation: Recomputation, windowed: WindowedPerturbations) -> None:
        self._recomputation, self._windowed = recomputation, windowed
        self._batches = [windowed.batches(kind) for kind in (LIGHT, SHADOW)]
        self.turns = max(map(len, self._batches))
        bases = recomputation.bases.to("cpu", torch.float64).numpy()
        self._bases = dict(zip(windowed.kinds, bases, strict=True))
        m = windowed.inputs.m
        self.probabilities = np.full((2 * m + 2, bases.shape[1]), np.nan)
        self.probabilities[0] = (
            self._bases[SHADOW] if SHADOW in self._bases else evaluate(predict, windowed.bases[SHADOW, None].clone())[0]
        )
        self._is_done = np.zeros(len(self.probabilities), dtype=bool)
        self._is_done[0] = True
        if LIGHT in self._bases:
            self.probabilities[-1] = self._bases[LIGHT]
            self._is_done[-1] = windowed.inputs.bare

    @property
    def done(self) -> int:
        """Inputs evaluated so far."""
        return int(self._is_done.sum())

    def evaluate_turn(self, turn: int) -> float:
        """Evaluate one batch of each kind that has one left; return the mean seconds for each volume."""
        seconds = []
        for kind in (LIGHT, SHADOW):
            if turn < len(self._batches[kind]):
                rows = self._batches[kind][turn]
                start = time.perf_counter()
                parts = self._windowed.parts(kind, rows)
                self.probabilities[_numbers(kind, rows)] = self._evaluate(kind, rows, parts)
                seconds.append((time.perf_counter() - start) / len(rows))
                self._is_done[_numbers(kind, rows)] = True
        return sum(seconds) / len(seconds)

    def _evaluate(self, kind: int, rows: np.ndarray, parts: torch.Tensor) -> np.ndarray:
        number = self._windowed.kinds.index(kind)
        return evaluate(lambda batch: self._recomputation(number, rows, batch), parts)

    def compare(self, predict: Predict, batch_size: int) -> tuple[RecomputationRecord, float, str]:
        """Evaluate the inputs with the largest effects in full too, of those that were evaluated so far.

        Parameters
        ----------
        predict
            The model.
        batch_size
            Inputs of a full forward pass, and how many are compared, but at least a light and a shadow.

        Returns
        -------
        The record of how they differ, the seconds for each volume in full, and why the recomputed probabilities cannot
        be used; empty: they can.
        """
        pairs = self._largest_effects(max(2, batch_size))
        numbers = np.array([_numbers(kind, np.asarray(row)) for kind, row in pairs])
        in_full, seconds = _evaluate_in_full(predict, self._windowed, pairs, batch_size)
        change = np.abs(in_full - self.probabilities[numbers])
        allowed = np.stack([self._allowed(kind) for kind, _ in pairs])
        worst = np.unravel_index((change - allowed).argmax(), change.shape)
        reason = f"it changes an output by {change[worst]:.2g}, more than {allowed[worst]:.2g}"
        record = RecomputationRecord(
            recomputed=True,
            whole_from=self._recomputation.whole_from,
            mask_cut_off=self._windowed.mask_cut_off,
            input_change=self._windowed.input_change,
            measured_change=float(change.max()),
            checked=len(numbers),
            batch_size=self._windowed.batch_size,
        )
        return record, seconds, "" if (change <= allowed).all() else reason

    def _allowed(self, kind: int) -> np.ndarray:
        """Return how far the outputs of one kind may be from those of the full forward pass, ``(k,)``."""
        rows = self._rows_done(kind)
        outputs = self.probabilities[_numbers(kind, rows)]
        return allowed_difference(np.vstack([self._bases[kind], outputs]), TOLERANCE, _SHARE_OF_EFFECT)

    def _largest_effects(self, count: int) -> list[tuple[int, int]]:
        """Return kind and point of the inputs evaluated so far that differ most from their bases, of both kinds."""
        of_kind = []
        for kind in self._windowed.kinds:
            rows = self._rows_done(kind)
            effect = np.abs(self.probabilities[_numbers(kind, rows)] - self._bases[kind]).max(axis=1)
            of_kind.append([(kind, int(row)) for row in rows[np.argsort(-effect, kind="stable")]])
        return [pair for both in itertools.zip_longest(*of_kind) for pair in both if pair is not None][:count]

    def _rows_done(self, kind: int) -> np.ndarray:
        """Return the points of a kind that were evaluated so far."""
        return np.flatnonzero(self._is_done[1 + kind : -1 : 2])


def _numbers(kind: int | np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the numbers that `Perturbations` gives to light or shadow of some points."""
    return np.asarray(1 + kind + 2 * rows)


def _evaluate_in_full(
    predict: Predict, windowed: WindowedPerturbations, pairs: list[tuple[int, int]], batch_size: int
) -> tuple[np.ndarray, float]:
    """Return the probabilities of whole volumes, by kind and point, and seconds for each.

    What takes a short time is timed again.
    """
    best, spent = math.inf, 0.0
    probabilities: list[np.ndarray] = []
    while not probabilities or (spent < _SHORT and best * len(pairs) < _SHORT):
        probabilities = []
        start = time.perf_counter()
        for first in range(0, len(pairs), batch_size):
            batch = torch.cat([windowed.whole(*pair) for pair in pairs[first : first + batch_size]])
            probabilities.append(evaluate(predict, batch))
        seconds = time.perf_counter() - start
        spent += seconds
        best = min(best, seconds / len(pairs))
    return np.concatenate(probabilities), best


def _reach(masks: Masks, cut: float, like: torch.Tensor) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the boxes outside of which each mask is below ``exp(-cut^2 / 2)``, and the largest value there."""
    least = math.exp(-0.5 * cut * cut)
    if isinstance(masks, GaussianMasks):
        return masks.reach(least)
    low, high, beyond = [], [], 0.0
    for row in range(len(masks)):
        mask = masks.masks(row, torch.empty_like(like)[None])[0]
        first, last = extent(mask > least)
        low.append(first)
        high.append(last)
        crop(mask, first, last - first).zero_()
        beyond = max(beyond, float(mask.max()))
    return np.stack(low), np.stack(high), beyond


def _within(masks: Masks, rows: np.ndarray, windows: Windows, like: torch.Tensor) -> torch.Tensor:
    """Return the masks of some points inside their windows."""
    corners = windows.corner[rows]
    if isinstance(masks, GaussianMasks):
        return masks.within(rows, corners, windows.size)
    whole = torch.empty_like(like)[None]
    return torch.stack(
        [
            crop(masks.masks(int(row), whole)[0], corner, windows.size).clone()
            for row, corner in zip(rows, corners, strict=True)
        ]
    )
