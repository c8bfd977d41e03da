"""How far a forward is from what this machine could do at best.

The machine's two limits are measured: multiplications and additions a second (a large matrix product by the library
that the networks use), and bytes a second (a copy between two tensors that no cache holds). A layer can take no less
than its arithmetic at the one or its reading and writing at the other, whichever is longer (Williams et al. 2009); a
network run layer by layer no less than their sum. Only layers that must touch memory are counted: convolutions, dense
layers and poolings, with normalisation and activation thought to be part of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.contest import Entry, Spread, compete
from benchmarks.methods import bare
from benchmarks.rows import Row, Say, row
from benchmarks.subjects import DEVICE, Subject, subjects
from glas3d import GLAS, Predictor

# Forwards of a batch that are timed together.
_TIMES = 5
_COUNTED = (nn.Conv2d, nn.Conv3d, nn.Linear, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d)


@dataclass(frozen=True)
class Layer:
    """Operations and bytes of one layer's forward."""

    operations: float
    traffic: float


def layers(net: nn.Module, batch: torch.Tensor) -> list[Layer]:
    """What every counted layer does for a batch, float32."""
    found: list[Layer] = []

    def look(module: nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        weights = sum(p.numel() for p in module.parameters(recurse=False))
        operations = 0.0
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            operations = 2 * made.numel() * module.in_channels / module.groups * math.prod(module.kernel_size)
        elif isinstance(module, nn.Linear):
            operations = 2 * made.numel() * module.in_features
        found.append(Layer(operations, 4.0 * (given[0].numel() + made.numel() + weights)))

    hooks = [module.register_forward_hook(look) for module in net.modules() if isinstance(module, _COUNTED)]
    try:
        with torch.inference_mode():
            net(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def bound(found: list[Layer], operations: float, traffic: float) -> float:
    """Seconds below which no run layer by layer can be, at so many operations and bytes a second."""
    return sum(max(one.operations / operations, one.traffic / traffic) for one in found)


def against_the_machine(quick: bool, repeats: int, say: Say) -> Iterator[Row]:
    """The network itself and the fastest engine, over the machine's limit for the same batch; bare forwards."""
    for subject in subjects(quick):
        say(f"{subject.name} {subject.shape}: roofline")
        yield from _against_the_machine(subject, repeats, *((256, 2**22) if quick else (3072, 2**28)))
        yield from _beside_the_forwards(subject, repeats)


def _beside_the_forwards(subject: Subject, repeats: int) -> Iterator[Row]:
    """An explanation whose model answers at once, over copying its inputs: less than a copy no mask can take."""
    answer = torch.tensor([[0.4, 0.6]], device=DEVICE)
    light, shadow = subject.sigmas
    glas = GLAS(lambda batch: answer.expand(len(batch), 2), sigma_light=light, sigma_shadow=shadow)
    inputs = 2 * len(subject.segments.index) + 1
    place = torch.empty_like(subject.volume)

    def copies() -> None:
        for _ in range(inputs):
            place.copy_(subject.volume)

    entries: dict[str, Entry] = {
        "explain": lambda: glas.explain(subject.volume, 1, subject.segments),
        "copies": copies,
    }
    for warm in entries.values():
        warm()
    times = compete(entries, repeats)
    value = times.of("explain", inputs).median * 1e3
    work = f"{inputs} inputs; {times.of('copies', inputs).median * 1e3:.3g} ms a copy"
    yield row(
        "beside", subject, "GLAS.explain without a network", "copying its inputs", "lower",
        times.ratio("explain", "copies"), value, unit="ms an input", work=work,
    )  # fmt: skip


def _against_the_machine(subject: Subject, repeats: int, side: int, long: int) -> Iterator[Row]:
    net = subject.build()
    batch = subject.volume.unsqueeze(0).repeat(2, *[1] * (len(subject.shape) + 1))
    found = layers(net, batch)
    left, right = torch.rand(2, side, side, device=DEVICE)
    source = torch.rand(long, device=DEVICE)
    there = torch.empty_like(source)
    engines = ("eager", subject.engines[0])

    def forwards(engine: str) -> Entry:
        return bare(Predictor(net, "softmax", device=DEVICE).with_engine(engine, 1), [batch] * _TIMES)

    entries = {"product": lambda: left @ right, "copy": lambda: there.copy_(source)}
    entries |= {engine: forwards(engine) for engine in engines}
    for warm in entries.values():
        warm()
    times = compete(entries, repeats)
    # the machine at its best of all rounds: a limit is no matter of luck
    operations, traffic = 2 * side**3 / min(times.seconds["product"]), 8 * long / min(times.seconds["copy"])
    limit = bound(found, operations, traffic)
    arithmetic = sum(one.operations for one in found) / len(batch)
    moved = sum(one.traffic for one in found) / len(batch)
    work = (
        f"{arithmetic / 1e9:.3g} GFLOP and {moved / 1e6:.3g} MB an input; at best {limit / len(batch) * 1e3:.3g} ms, "
        f"{arithmetic * len(batch) / operations / limit:.0%} of it arithmetic, "
        f"at {operations / 1e9:.0f} GFLOP/s and {traffic / 1e9:.1f} GB/s"
    )
    for engine in engines:
        ratio = Spread.of([seconds / _TIMES / limit for seconds in times.seconds[engine]])
        value = times.of(engine, _TIMES * len(batch)).median * 1e3
        yield row("roofline", subject, engine, "the machine's limit", "lower", ratio, value, work=work)
