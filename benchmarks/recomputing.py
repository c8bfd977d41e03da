"""Recomputing only what a mask changes (docs/speed.md) against full forward passes, eager and by the fastest engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.rows import Log, Row, row
from benchmarks.timing import Entry, time_in_rounds
from benchmarks.workloads import DEVICE, Workload, brain, densenet, residual, trained
from glas3d import GLAS, Predictor

_FIELDS = ("light", "drop")


@dataclass(frozen=True)
class Case:
    """A workload with its masks, and how many points are evaluated.

    Attributes
    ----------
    sigmas
        Sigmas of light and shadow, in voxels.
    cut
        Where masks are truncated, in sigmas.
    points
        How many points are recomputed: as many as in use, so that fixed costs weigh as much as there.
    whole
        How many of them are also evaluated in full, for comparison.
    batch
        Inputs in a batch of full forward passes; None: the default.
    """

    workload: Workload
    sigmas: tuple[float, float]
    cut: float
    points: int
    whole: int
    batch: int | None = None


def cases(quick: bool) -> Iterator[Case]:
    if quick:
        yield Case(_dark(brain((48, 56, 48), 4.0, (2, 2, 1), 4), trained=True), (3, 3), 5, 8, 4)
        return
    paper = _dark(brain((91, 109, 91), 2.0, (2, 3, 4), 24), trained=True)
    yield Case(paper, (10, 15), 7, 116, 12)
    yield Case(paper, (4, 6), 5, 400, 12)
    yield Case(paper, (3, 3), 5, 400, 12)
    yield Case(_dark(brain((48, 56, 48), 4.0, (2, 3, 4), 24), trained=True), (3, 3), 5, 400, 40)
    for name, net in (("MONAI ResNet18", residual), ("MONAI DenseNet121", densenet)):
        yield Case(_dark(Workload(name, (96,) * 3, net, (2, 1, 1), 2, 2.25)), (3, 3), 5, 24, 3)


def _dark(workload: Workload, *, trained: bool = False) -> Workload:
    """Return a workload without noise in the air; ``trained``: with the shipped model's weights."""
    return Workload(
        f"{workload.name}, trained" if trained else workload.name, workload.shape,
        (lambda: _trained(workload)) if trained else workload.net, workload.windows, workload.regions, workload.mm,
        noise=0.0,
    )  # fmt: skip


def _trained(workload: Workload) -> torch.nn.Module:
    return trained(workload.shape)


def recomputing_rows(quick: bool, repeats: int, log: Log) -> Iterator[Row]:
    """Yield the time of full evaluation over that of recomputing, and the largest change of any probability."""
    for case in cases(quick):
        log(f"{case.workload.name} {case.workload.shape}: recomputed, sigma {case.sigmas}")
        yield from _against_full(case, repeats)


def _against_full(case: Case, repeats: int) -> Iterator[Row]:
    workload, fast = case.workload, case.workload.engines[0]
    net = workload.build()
    points = _inside(workload, case.points)
    explanations: dict[str, Any] = {}

    def explain(name: str, engine: str, points: np.ndarray, cut: float | None = None) -> Entry:
        light, shadow = case.sigmas
        predict = Predictor(net, "softmax", device=DEVICE)
        glas = GLAS(
            predict, sigma_light=light, sigma_shadow=shadow, batch_size=case.batch, engine=engine, cut=cut
        )  # fmt: skip

        def call() -> None:
            explanations[name] = glas.explain(workload.volume, 1, points)

        return call

    full = {"eager": "every input in full", fast: f"every input in full by {fast}"}
    entries = {"cut": explain("cut", "eager", points, case.cut)}
    entries |= {name: explain(name, name, points[: case.whole]) for name in full}
    for call in entries.values():
        call()
    times = time_in_rounds(entries, repeats)
    eager, cut = explanations["eager"], explanations["cut"]
    change = max(float(np.abs(getattr(eager, x) - getattr(cut, x)[: case.whole]).max()) for x in _FIELDS)
    how = cut.settings["recomputed"]
    work = (
        f"sigma {case.sigmas[0]:g}/{case.sigmas[1]:g} voxels, {len(points)} points, {case.whole} of them also in full, "
        + ("recomputed" if how["recomputed"] else f"evaluated in full: {how['reason']}")
        + ("; P equal bit for bit" if change == 0 else f"; P changes by {change:.0e}")
    )
    inputs, whole = 2 * len(points) + 1, 2 * case.whole + 1
    value = times.of("cut", inputs).median * 1e3
    for name, against in full.items():
        ratio = times.ratio(name, "cut", whole, inputs)
        yield row("recomputed", workload, f"cut={case.cut:g}", against, "higher", ratio, value, work=work)


def _inside(workload: Workload, count: int) -> np.ndarray:
    """Return points inside the brain, spread evenly, in random order."""
    inside = np.argwhere(workload.volume[0].cpu().numpy() > 0.2)
    chosen = np.linspace(0, len(inside) - 1, count).round().astype(int)
    return inside[np.random.default_rng(0).permutation(chosen)].astype(float)
