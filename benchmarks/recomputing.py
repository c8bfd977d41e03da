"""Recomputing only what a spot changes (docs/speed.md) against full forwards, by the network itself and by `auto`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.contest import Entry, compete
from benchmarks.rows import Row, Say, row
from benchmarks.subjects import DEVICE, Subject, brain, densenet, residual, trained
from glas3d import GLAS, Predictor

_ANSWERS = ("light", "drop")


@dataclass(frozen=True)
class Case:
    """A net and its volume, the spots in voxels, the cut in sigmas, and how many points are asked."""

    subject: Subject
    sigmas: tuple[float, float]
    cut: float
    points: int
    batch: int | None = None


def cases(quick: bool) -> Iterator[Case]:
    if quick:
        yield Case(_dark(brain((48, 56, 48), 4.0, (2, 2, 1), 4), trained=True), (3, 3), 5, 4)
        return
    paper = _dark(brain((91, 109, 91), 2.0, (2, 3, 4), 24), trained=True)
    yield Case(paper, (10, 15), 7, 16)
    yield Case(paper, (4, 6), 5, 24)
    yield Case(paper, (3, 3), 5, 24)
    yield Case(_dark(brain((48, 56, 48), 4.0, (2, 3, 4), 24), trained=True), (3, 3), 5, 64)
    # single inputs, as many as a full forward of these has room for beside others
    for name, net in (("MONAI ResNet18", residual), ("MONAI DenseNet121", densenet)):
        yield Case(_dark(Subject(name, (96,) * 3, net, (2, 1, 1), 2, 2.25)), (3, 3), 5, 3, batch=2)


def _dark(subject: Subject, *, trained: bool = False) -> Subject:
    """A subject without noise in the air, by the shipped model's weights where asked."""
    return Subject(
        f"{subject.name}, trained" if trained else subject.name, subject.shape,
        (lambda: _trained(subject)) if trained else subject.net, subject.windows, subject.regions, subject.mm,
        noise=0.0,
    )  # fmt: skip


def _trained(subject: Subject) -> torch.nn.Module:
    return trained(subject.shape)


def recomputed(quick: bool, repeats: int, say: Say) -> Iterator[Row]:
    """Full over recomputed, and the largest change of `P`."""
    for case in cases(quick):
        say(f"{case.subject.name} {case.subject.shape}: recomputed, sigma {case.sigmas}")
        yield from _against_full(case, repeats)


def _against_full(case: Case, repeats: int) -> Iterator[Row]:
    subject, fast = case.subject, case.subject.engines[0]
    net = subject.build()
    points = _inside(subject, case.points)
    answers: dict[str, Any] = {}

    def explain(name: str, engine: str, cut: float | None = None) -> Entry:
        light, shadow = case.sigmas
        predict = Predictor(net, device=DEVICE)
        glas = GLAS(
            predict, sigma_light=light, sigma_shadow=shadow, batch_size=case.batch, engine=engine, cut=cut
        )  # fmt: skip

        def call() -> None:
            answers[name] = glas.explain(subject.volume, 1, points)

        return call

    full = {"eager": "every input in full", fast: f"every input in full by {fast}"}
    entries = {"cut": explain("cut", "eager", case.cut)} | {name: explain(name, name) for name in full}
    for call in entries.values():
        call()
    times = compete(entries, repeats)
    change = max(float(np.abs(getattr(answers["eager"], x) - getattr(answers["cut"], x)).max()) for x in _ANSWERS)
    how = answers["cut"].settings["recomputed"]
    work = (
        f"sigma {case.sigmas[0]:g}/{case.sigmas[1]:g} voxels, {len(points)} points, "
        + ("recomputed" if how["recomputed"] else f"asked in full: {how['reason']}")
        + ("; P equal bit for bit" if change == 0 else f"; P changes by {change:.0e}")
    )
    value = times.of("cut", 2 * len(points) + 1).median * 1e3
    for name, against in full.items():
        ratio = times.ratio(name, "cut")
        yield row("recomputed", subject, f"cut={case.cut:g}", against, "higher", ratio, value, work=work)


def _inside(subject: Subject, count: int) -> np.ndarray:
    """Points inside the brain, spread evenly over its voxels in memory's order."""
    inside = np.argwhere(subject.volume[0].cpu().numpy() > 0.2)
    return inside[np.linspace(0, len(inside) - 1, count).round().astype(int)].astype(float)
