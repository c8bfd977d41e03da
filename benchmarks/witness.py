"""Does a method do the work it is timed for? Otherwise its figure is a benchmark of nothing."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.methods import TARGET, Method


class NoWork(AssertionError):
    """A method did less than its figure would claim."""


@dataclass(frozen=True)
class Seen:
    """What a net was asked in one call of a method.

    Attributes
    ----------
    batches
        The inputs, copied; empty unless they were to be kept.
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


def watch(method: Method, net: nn.Module, *, keep: bool = False) -> Seen:
    """Run a method once on the net that will be timed and count the inputs that reach it.

    Raises
    ------
    NoWork
        Not as many different inputs as the method's figure will be divided by.
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
    if len(digests) != method.forwards:
        raise NoWork(
            f"{method.name} on {method.subject.name} must ask {method.forwards} different inputs, "
            f"the net saw {len(digests)} among {sum(sizes)}"
        )
    return Seen(batches, sum(sizes), len(digests), max(sizes))


def reached(call: Callable[[], Any], net: nn.Module) -> tuple[int, Any]:
    """How many inputs reach a net in one call, and what the call gives."""
    sizes: list[int] = []
    hook = net.register_forward_pre_hook(lambda module, given: sizes.append(len(given[0])))
    try:
        found = call()
    finally:
        hook.remove()
    return sum(sizes), found


class Planted(nn.Module):
    """Two logits that depend on the brightness of one place only, relative to the intact volume's."""

    def __init__(self, place: np.ndarray, volume: torch.Tensor) -> None:
        super().__init__()
        where = torch.from_numpy(place.astype(np.float32)).to(volume.device)
        self.register_buffer("where", where / (where * volume).sum())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = (x * self.where).flatten(1).sum(dim=1)
        evidence = 3 * (2 * bright - 1)
        return torch.stack([-evidence, evidence], dim=1)


def reacts(method: Method) -> None:
    """Ask a net that looks at one place only; the method's map has to stand out there.

    Raises
    ------
    NoWork
        The map is flat, or no higher at the planted place than elsewhere.
    """
    volume, place = method.subject.volume, method.planted()
    net = Planted(place, volume).eval()
    with torch.inference_mode():
        intact = float(net(volume.unsqueeze(0)).sigmoid()[0, TARGET])
    found = method.map(method.bind(net)(), intact)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a map without one number is judged below
        low, high = np.nanmin(found), np.nanmax(found)
        inside, elsewhere = np.nanmean(found[place]), np.nanmean(found[~place])
    if not high - low > 1e-4 or not inside - elsewhere > 0.25 * (high - low):
        raise NoWork(
            f"{method.name} on {method.subject.name} does not react to what the net looks at: "
            f"{inside:.4g} there, {elsewhere:.4g} elsewhere, all from {low:.4g} to {high:.4g}"
        )
