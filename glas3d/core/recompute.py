"""Asking a model about what a spot changes alone, where it knows how to recompute that."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from glas3d.core.gaussian import GaussianMasks, Masks
from glas3d.core.model import CannotRecompute, Predict, Recomputable
from glas3d.core.perturb import Perturbations
from glas3d.core.score import Probabilities, evaluate, evaluate_all
from glas3d.core.windows import Windows, crop, extent
from glas3d.errors import GlasWarning

# A recomputed answer that is further than this from the full forward's is not taken: the cut is too near, or the
# network does something that its graph does not say.
TOLERANCE = 1e-4
# Recomputing must be this much faster, so that a busy machine does not decide.
_WORTH = 0.95
# Batches a kind, at least, where there are as many points: it is decided after the second.
_TURNS = 8
# Values that an input's window counts for: what is cut out of activations and pasted stands beside them (measured: of
# 31 x 31 x 31 voxels 13 at a time are up to twice as fast as 21).
_BESIDE = 2
# Seconds below which a full forward is timed more than once: its first time is its slowest.
_SHORT = 0.1


@dataclass(frozen=True, kw_only=True)
class RecomputationRecord:
    """How the answers of an explanation with a cut were found, for its record.

    Attributes
    ----------
    recomputed
        Whether only what a spot changes was computed.
    reason
        Why not; empty otherwise.
    whole_from
        The first step of the network from which on everything is computed, where it is not one of those that keep a
        change in its place.
    mask_cut_off
        The largest value of a mask that was taken as 0.
    input_change
        The most by which an input differs from the one asked for: that value times the largest ``|I - B|``.
    measured_change
        The largest change of any class's ``P`` against the full forward, over ``checked`` inputs.
    checked
        How many.
    batch_size
        Windows a forward, of light and of shadow.
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
    """Light and shadow of every point, inside windows outside of which they are what they were made from.

    Light is the background but for a spot, shadow the volume but for a spot, and neither where the two are equal.

    Parameters
    ----------
    volume, background, light, shadow, channel
        See `Perturbations`.
    cut
        The mask is taken as 0 where it is below ``exp(-cut^2 / 2)``: for a Gaussian, beyond ``cut`` sigmas.
    batch_size
        Windows a forward, from a window's values.
    """

    def __init__(
        self,
        volume: torch.Tensor,
        background: torch.Tensor,
        light: Masks,
        shadow: Masks,
        cut: float,
        batch_size: Callable[[int], int],
        channel: int | None = None,
    ) -> None:
        self.cut = cut
        self.bases = torch.stack([background, volume])
        self.only = slice(None) if channel is None else slice(channel, channel + 1)
        self._masks = (light, shadow)
        apart = (volume[self.only] - background[self.only]).abs()
        low, high = extent(apart.amax(dim=0) > 0)
        self.windows: list[Windows] = []
        self.mask_cut_off = 0.0
        for masks in self._masks:
            first, last, beyond = _reach(masks, cut, volume[0])
            self.windows.append(Windows.of(first, last, volume.shape[1:]).within(low, high))
            self.mask_cut_off = max(self.mask_cut_off, beyond)
        self._largest = float(apart.max())
        self.batch_size = tuple(
            min(math.ceil(len(one) / _TURNS), batch_size(_BESIDE * len(volume) * math.prod(one.size)))
            for one in self.windows
        )

    @property
    def input_change(self) -> float:
        """The most by which cutting changes an input."""
        return self.mask_cut_off * self._largest

    def batches(self, kind: int) -> list[np.ndarray]:
        """The points of every batch of a kind, each of them spread over all points.

        All are of one size, so that a model sees one shape only: some points come twice.
        """
        m, size = len(self.windows[kind]), self.batch_size[kind]
        number = math.ceil(m / size)
        return [(np.arange(size) * number + turn) % m for turn in range(number)]

    def parts(self, kind: int, rows: np.ndarray) -> torch.Tensor:
        """``(n, c, *size)``: light (kind 0) or shadow (1) of some points, inside their windows."""
        here = self.windows[kind]
        corner = here.corner[rows]
        mask = _within(self._masks[kind], rows, here, self.bases[0, 0])
        below, above = (torch.stack([crop(self.bases[k], at, here.size) for at in corner]) for k in (kind, 1 - kind))
        return self._lit(below, above, mask)

    def whole(self, kind: int, row: int) -> torch.Tensor:
        """``(1, c, *spatial)``: light or shadow of one point, nothing cut off."""
        mask = self._masks[kind].masks(row, torch.empty_like(self.bases[:1, 0]))
        return self._lit(self.bases[kind, None].clone(), self.bases[1 - kind, None], mask)

    def _lit(self, below: torch.Tensor, above: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """As `Perturbations` has it; ``below`` is overwritten."""
        only = below[:, self.only]
        only.copy_(torch.lerp(only, above[:, self.only], mask.unsqueeze(1)))
        return below


def evaluate_changed_windows(
    predict: Predict,
    perturbations: Perturbations,
    changes: WindowedPerturbations,
    check: Callable[[int], None] = lambda classes: None,
    tick: Callable[[int, int], None] = lambda done, total: None,
    beside: Callable[[list[int], int], torch.Tensor] | None = None,
    *,
    always: bool = False,
) -> tuple[Probabilities, RecomputationRecord]:
    """`score.evaluate_all`, computing what a spot changes alone where that is right and faster.

    The first batch of each kind is compared with the full forward. Where ``P`` is further apart than `TOLERANCE`, or
    the full forward is not slower, all is asked in full.

    Parameters
    ----------
    always
        Compare no times, so that the same is done on every machine: recompute wherever it is right.

    Warns
    -----
    GlasWarning
        The model does not offer it, or not for this.
    """
    try:
        if beside is not None:
            raise CannotRecompute("covariates stand beside the volume")
        if not isinstance(predict, Recomputable):
            raise CannotRecompute("the model is a callable that does not say what it computes")
        recompute = predict.recompute(changes.bases, changes.windows)
    except CannotRecompute as error:
        warnings.warn(
            f"cut={changes.cut:g} saves nothing, every input is asked in full: {error}", GlasWarning, stacklevel=3
        )
        return evaluate_all(predict, perturbations, check, tick, beside), RecomputationRecord(
            recomputed=False, reason=str(error)
        )
    intact = recompute.bases[1].to("cpu", torch.float64).numpy()
    check(len(intact))
    answers = np.empty((len(perturbations), len(intact)))
    answers[0] = intact

    def put(kind: int, rows: np.ndarray) -> float:
        """Ask one batch; seconds a volume."""
        start = time.perf_counter()
        parts = changes.parts(kind, rows)
        answers[1 + kind + 2 * rows] = evaluate(lambda batch: recompute(kind, rows, batch), parts)
        return (time.perf_counter() - start) / len(rows)

    batches = [changes.batches(kind) for kind in (0, 1)]
    for kind in (0, 1):
        put(kind, batches[kind][0])
    pairs = [
        (kind, int(row)) for both in zip(*(one[0] for one in batches), strict=False) for kind, row in enumerate(both)
    ]
    pairs = list(dict.fromkeys(pairs))[: max(2, perturbations.batch_size)]
    numbers = [1 + kind + 2 * row for kind, row in pairs]
    full, seconds = _asked_in_full(predict, changes, pairs, perturbations.batch_size)
    measured = float(np.abs(full - answers[numbers]).max())
    found = RecomputationRecord(
        recomputed=True,
        whole_from=recompute.whole_from,
        mask_cut_off=changes.mask_cut_off,
        input_change=changes.input_change,
        measured_change=measured,
        checked=len(numbers),
        batch_size=changes.batch_size,
    )
    if not measured <= TOLERANCE:
        reason = f"it changes P by {measured:.2g}, more than {TOLERANCE:g}"
        return evaluate_all(predict, perturbations, check, tick), replace(found, recomputed=False, reason=reason)
    own = [0.0, 0.0]
    done = 1 + sum(changes.batch_size)
    for turn in range(1, max(map(len, batches))):
        for kind in (0, 1):
            if turn < len(batches[kind]):
                own[kind] = put(kind, batches[kind][turn])
                done += changes.batch_size[kind]
        if turn == 1 and not always and sum(own) / np.count_nonzero(own) > _WORTH * seconds:
            return evaluate_all(predict, perturbations, check, tick), replace(
                found, recomputed=False, reason="the full forward is not slower"
            )
        tick(min(done, len(perturbations)), len(perturbations))
    tick(len(perturbations), len(perturbations))
    return (answers[0], answers[1::2], answers[2::2]), found


def _asked_in_full(
    predict: Predict, changes: WindowedPerturbations, pairs: list[tuple[int, int]], size: int
) -> tuple[np.ndarray, float]:
    """The answers to whole volumes, by kind and point, and seconds a volume; what is short is timed again."""
    best, spent = math.inf, 0.0
    found: list[np.ndarray] = []
    while not found or (spent < _SHORT and best * len(pairs) < _SHORT):
        found = []
        start = time.perf_counter()
        for place in range(0, len(pairs), size):
            batch = torch.cat([changes.whole(*pair) for pair in pairs[place : place + size]])
            found.append(evaluate(predict, batch))
        seconds = time.perf_counter() - start
        spent += seconds
        best = min(best, seconds / len(pairs))
    return np.concatenate(found), best


def _reach(masks: Masks, cut: float, like: torch.Tensor) -> tuple[np.ndarray, np.ndarray, float]:
    """Boxes outside of which each mask is below ``exp(-cut^2 / 2)``, and the largest value there."""
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
    """The masks of some points, inside their windows."""
    corner = windows.corner[rows]
    if isinstance(masks, GaussianMasks):
        return masks.within(rows, corner, windows.size)
    whole = torch.empty_like(like)[None]
    return torch.stack(
        [
            crop(masks.masks(int(row), whole)[0], one, windows.size).clone()
            for row, one in zip(rows, corner, strict=True)
        ]
    )
