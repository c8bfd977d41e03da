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
    """A net and its volume, spots and cut, and how much is asked.

    Attributes
    ----------
    sigmas
        Of light and shadow, in voxels.
    cut
        In sigmas.
    points
        That are recomputed: as many as in use, so that what comes once weighs as much as there.
    whole
        Of these, asked in full for comparison.
    batch
        Inputs a full forward; None: the default.
    """

    subject: Subject
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
        yield Case(_dark(Subject(name, (96,) * 3, net, (2, 1, 1), 2, 2.25)), (3, 3), 5, 24, 3)


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

    def explain(name: str, engine: str, places: np.ndarray, cut: float | None = None) -> Entry:
        light, shadow = case.sigmas
        predict = Predictor(net, "softmax", device=DEVICE)
        glas = GLAS(
            predict, sigma_light=light, sigma_shadow=shadow, batch_size=case.batch, engine=engine, cut=cut
        )  # fmt: skip

        def call() -> None:
            answers[name] = glas.explain(subject.volume, 1, places)

        return call

    full = {"eager": "every input in full", fast: f"every input in full by {fast}"}
    entries = {"cut": explain("cut", "eager", points, case.cut)}
    entries |= {name: explain(name, name, points[: case.whole]) for name in full}
    for call in entries.values():
        call()
    times = compete(entries, repeats)
    eager, cut = answers["eager"], answers["cut"]
    change = max(float(np.abs(getattr(eager, x) - getattr(cut, x)[: case.whole]).max()) for x in _ANSWERS)
    how = cut.settings["recomputed"]
    work = (
        f"sigma {case.sigmas[0]:g}/{case.sigmas[1]:g} voxels, {len(points)} points, {case.whole} of them also in full, "
        + ("recomputed" if how["recomputed"] else f"asked in full: {how['reason']}")
        + ("; P equal bit for bit" if change == 0 else f"; P changes by {change:.0e}")
    )
    inputs, whole = 2 * len(points) + 1, 2 * case.whole + 1
    value = times.of("cut", inputs).median * 1e3
    for name, against in full.items():
        ratio = times.ratio(name, "cut", whole, inputs)
        yield row("recomputed", subject, f"cut={case.cut:g}", against, "higher", ratio, value, work=work)


def _inside(subject: Subject, count: int) -> np.ndarray:
    """Points inside the brain, spread evenly, in no order."""
    inside = np.argwhere(subject.volume[0].cpu().numpy() > 0.2)
    chosen = np.linspace(0, len(inside) - 1, count).round().astype(int)
    return inside[np.random.default_rng(0).permutation(chosen)].astype(float)
