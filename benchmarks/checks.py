"""Checks that a method does the work that it is timed for; otherwise its figure would mean nothing."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.methods import Method


class InsufficientWork(AssertionError):
    """A method does less work than its figure would claim."""


@dataclass(frozen=True)
class ObservedInputs:
    """The inputs that a net receives in one call of a method.

    Attributes
    ----------
    batches
        The inputs, copied; empty unless they were kept.
    inputs
        Inputs in all, padding and repetitions included.
    different
        Inputs that differ from each other.
    largest
        Inputs of the largest batch.
    """

    batches: list[torch.Tensor]
    inputs: int
    different: int
    largest: int


def observe(method: Method, net: nn.Module, *, keep: bool = False) -> ObservedInputs:
    """Run a method once on the net that will be timed and return the inputs that reach the net.

    Raises
    ------
    InsufficientWork
        The number of different inputs is not the number by which the method's figure will be divided.
    """
    batches: list[torch.Tensor] = []
    sizes: list[int] = []
    digests: set[bytes] = set()

    def look(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        batch = given[0].detach()
        sizes.append(len(batch))
        digests.update(hashlib.blake2b(row.contiguous().cpu().numpy().tobytes()).digest() for row in batch)
        if keep:
            batches.append(torch.Tensor(batch.clone()))

    call = method.bind(net)
    hook = net.register_forward_pre_hook(look)
    try:
        call()
    finally:
        hook.remove()
    if len(digests) != method.evaluations:
        raise InsufficientWork(
            f"{method.name} on {method.workload.name} must evaluate {method.evaluations} different inputs, "
            f"the net saw {len(digests)} among {sum(sizes)}"
        )
    return ObservedInputs(batches, sum(sizes), len(digests), max(sizes))


def count_inputs(call: Callable[[], Any], net: nn.Module) -> tuple[int, Any]:
    """Return how many inputs reach a net in one call, and what the call returns."""
    sizes: list[int] = []
    hook = net.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    try:
        result = call()
    finally:
        hook.remove()
    return sum(sizes), result


class Planted(nn.Module):
    """A net whose two logits depend only on the brightness of some voxels, relative to the intact volume."""

    def __init__(self, voxels: np.ndarray, volume: torch.Tensor) -> None:
        super().__init__()
        weight = torch.from_numpy(voxels.astype(np.float32)).to(volume.device)
        self.register_buffer("weight", weight / (weight * volume).sum())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = (x * self.weight).flatten(1).sum(dim=1)
        evidence = 3 * (2 * bright - 1)
        return torch.stack([-evidence, evidence], dim=1)


def check_reaction(method: Method) -> None:
    """Explain a net that looks at one region or window only: the method's map must stand out there.

    Raises
    ------
    InsufficientWork
        The map is flat, or no higher at the planted voxels than elsewhere.
    """
    planted = method.planted()
    net = Planted(planted, method.workload.volume).eval()
    saliency = method.map(method.bind(net)())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a map without any number is judged below
        low, high = np.nanmin(saliency), np.nanmax(saliency)
        inside, elsewhere = np.nanmean(saliency[planted]), np.nanmean(saliency[~planted])
    if not high - low > 1e-4 or not inside - elsewhere > 0.25 * (high - low):
        raise InsufficientWork(
            f"{method.name} on {method.workload.name} does not react to what the net looks at: "
            f"{inside:.4g} there, {elsewhere:.4g} elsewhere, all from {low:.4g} to {high:.4g}"
        )
