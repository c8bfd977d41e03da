"""Seconds to a map that follows the model: what regions truly do to it is known, and every map must agree with that.

The scan is the template with noise, darker in some regions, as if tissue were lost there. Twins have the same noise,
bit for bit, and some of these regions healed. The true effect of a region is the mean of what its loss adds to the
log-odds when it comes last and when it comes first, and 0 where nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from benchmarks.checks import InsufficientWork, count_inputs
from benchmarks.methods import TARGET, channels_last, resolve_auto
from benchmarks.rows import Row, row
from benchmarks.timing import time_in_rounds
from benchmarks.workloads import DEVICE, Workload, brain, trained
from glas3d import GLAS, Predictor
from glas3d.core.accelerate.refine import CoarseToFine
from glas3d.core.explanation import Explanation
from glas3d.core.glas import default_batch_size
from glas3d.predict import keep_memory

LEAST_CORRELATION = 0.93
_LOST = 0.4  # share of the brightness
_SIGMA_MM = 1.0  # of the preset "evidence"
_BUDGET, _QUICK_BUDGET = 0.4, 1.0  # of the search that masks regions together, as share of the model evaluations

Call = Callable[[], np.ndarray]


@dataclass(frozen=True)
class KnownTruth:
    """A scan of which every region's true effect on a network can be measured.

    Attributes
    ----------
    workload
        The network and its regions.
    every
        Of the regions, each of this number has lost tissue.
    """

    workload: Workload
    every: int

    @property
    def lost(self) -> list[int]:
        """The labels of the regions that have lost tissue."""
        return list(self.workload.segments.index[:: self.every])

    @cached_property
    def _healthy(self) -> torch.Tensor:
        return replace(self.workload, noise=0.0).volume

    @cached_property
    def reference(self) -> torch.Tensor:
        """The mean of healthy scans ``(c, *spatial)``: the template with the mean of the noise."""
        return self._healthy + self.workload.noise * (2 / np.pi) ** 0.5

    def scan(self, regions: Iterable[int]) -> torch.Tensor:
        """Return the scan ``(c, *spatial)`` that has lost tissue in some regions, with the same noise each time."""
        noise = self.workload.volume - self._healthy
        lost = torch.from_numpy(np.isin(self.workload.segments.labels, list(regions))).to(noise.device)
        return self._healthy * torch.where(lost, 1 - _LOST, 1.0) + noise

    def effects(self, net: nn.Module) -> np.ndarray:
        """Return the true effect of every region ``(m,)``, in log-odds."""

        def log_odds(regions: Iterable[int]) -> float:
            with torch.no_grad():
                return float(_log_odds(net)(self.scan(regions)[None]))

        effects = np.zeros(len(self.workload.segments.index))
        for region in self.lost:
            others = [other for other in self.lost if other != region]
            last, first = log_odds(self.lost) - log_odds(others), log_odds([region]) - log_odds([])
            effects[list(self.workload.segments.index).index(region)] = (last + first) / 2
        return effects

    def glas(self, net: nn.Module, engine: str, *, budget: float | None = None, **settings: Any) -> Call:
        """Return an explanation that gives the evidence of each region, or its drop where that alone is evaluated.

        With a budget, regions are masked together and divided where they matter.
        """
        sigma = _SIGMA_MM / (self.workload.mm or 1.0)
        glas = GLAS(
            Predictor(net, "softmax", device=DEVICE), background=self.reference.cpu().numpy(), kernel="segment",
            sigma_light=sigma, sigma_shadow=sigma, link="logit", engine=engine, **settings,
        )  # fmt: skip
        volume = self.scan(self.lost)

        def call() -> np.ndarray:
            if budget is not None:
                found = CoarseToFine(glas, budget).explain(volume, TARGET, self.workload.segments).explanation
            else:
                found = cast(Explanation, glas.explain(volume, TARGET, self.workload.segments))
            return found.drop if found.evidence is None else found.evidence

        return call

    def ablation(self, net: nn.Module, batch: int) -> Call:
        """Return Captum's own loop over the regions, each put at the reference."""
        from captum.attr import FeatureAblation

        segments = self.workload.segments
        numbers = segments.paint(np.arange(1, len(segments.index) + 1)).astype(int)  # 0: all other voxels
        mask = torch.from_numpy(numbers).to(DEVICE)[None, None]
        first = torch.from_numpy(np.unique(numbers, return_index=True)[1][1:])
        ablation = FeatureAblation(_log_odds(net))
        volume, reference = self.scan(self.lost)[None], self.reference[None]

        def call() -> np.ndarray:
            with torch.no_grad():
                drops = ablation.attribute(volume, baselines=reference, feature_mask=mask, perturbations_per_eval=batch)
            of_regions: np.ndarray = drops.mean(dim=1).flatten()[first].cpu().numpy()
            return of_regions

        return call


def _log_odds(net: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what gives the log-odds of the target of two classes, ``(n,)``."""

    def log_odds(batch: torch.Tensor) -> torch.Tensor:
        logits = net(batch)
        difference: torch.Tensor = logits[:, TARGET] - logits[:, 1 - TARGET]
        return difference

    return log_odds


def _kept(call: Call) -> Call:
    """Return the call in memory that is kept between forward passes."""

    def in_kept_memory() -> np.ndarray:
        with keep_memory():
            return call()

    return in_kept_memory


def equal_truth_rows(quick: bool, repeats: int) -> Iterator[Row]:
    """Yield the seconds of Captum's map over those of GLAS, all of which follow the model.

    Raises
    ------
    InsufficientWork
        A map does not follow the model, or a method evaluates fewer inputs than it has regions.
    """
    if quick:
        workload = brain((16, 24, 16), 12.0, (2, 2, 1), 8)
    else:
        workload = brain((91, 109, 91), 2.0, (4, 5, 6), 116)
    workload = replace(workload, name="paper's net, trained", net=lambda: trained(workload.shape))
    budget = _QUICK_BUDGET if quick else _BUDGET
    truth, net = KnownTruth(workload, 2 if quick else 19), workload.build()
    batch = default_batch_size(workload.volume.numel(), torch.device(DEVICE))
    engine = resolve_auto(net, workload.volume.unsqueeze(0).repeat(batch, 1, 1, 1, 1))
    calls: dict[str, Call] = {
        f"glas3d evidence by {engine}": truth.glas(net, engine, fusion="mean"),
        f"glas3d shadow alone by {engine}": truth.glas(net, engine, fusion="shadow"),
        f"glas3d evidence, refine {budget:g}, by {engine}": truth.glas(net, engine, budget=budget, fusion="mean"),
        f"glas3d shadow alone, refine {budget:g}, by {engine}": truth.glas(net, engine, budget=budget, fusion="shadow"),
        "Captum FeatureAblation, stock": truth.ablation(net, 1),
        "Captum FeatureAblation, tuned": _kept(truth.ablation(channels_last(net), batch)),
    }
    expected = truth.effects(net)
    correlations = {}
    for name, call in calls.items():
        own = float(np.corrcoef(call(), expected)[0, 1])
        correlations[name] = own
        if not own >= LEAST_CORRELATION:
            raise InsufficientWork(f"{name} must follow the model, r >= {LEAST_CORRELATION}, got {own:.3f}")
    inputs, _ = count_inputs(calls["Captum FeatureAblation, stock"], net)
    if inputs < len(expected):
        raise InsufficientWork(f"Captum must evaluate {len(expected)} inputs, the net saw {inputs}")
    times = time_in_rounds(calls, repeats)
    ours, rivals = ([name for name in calls if name.startswith("glas3d") is own] for own in (True, False))
    for own in ours:
        for rival in rivals:
            seconds = times.of(own).median
            work = (
                f"{len(expected)} regions, {len(truth.lost)} of them with an effect; r {correlations[rival]:.3f} and "
                f"{correlations[own]:.3f}; glas3d {seconds:.3g} s"
            )
            yield row(
                "equal truth", workload, rival, own, "higher", times.ratio(rival, own), times.of(rival).median,
                unit="s a map", work=work,
            )  # fmt: skip
