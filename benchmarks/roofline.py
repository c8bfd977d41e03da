"""How far a forward pass is from the least time that this machine could take.

Two limits of the machine are measured: multiplications and additions a second (a large matrix product by the library
that the networks use), and bytes a second (a copy between two tensors that no cache holds). A layer takes at least as
long as its arithmetic at the first or its reading and writing at the second, whichever is longer (Williams et al.
2009); a network run layer by layer takes at least their sum. Only layers that must touch memory are counted:
convolutions, dense layers and poolings, with normalisation and activation counted as part of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.methods import bare_forward_passes
from benchmarks.rows import Log, Row, row
from benchmarks.timing import Entry, Spread, time_in_rounds
from benchmarks.workloads import DEVICE, Workload, workloads
from glas3d import GLAS, Predictor

# Forward passes of a batch that are timed together.
_TIMES = 5
_COUNTED = (nn.Conv2d, nn.Conv3d, nn.Linear, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d)


@dataclass(frozen=True)
class Layer:
    """The operations and bytes of one layer in a forward pass."""

    operations: float
    traffic: float


def layers(net: nn.Module, batch: torch.Tensor) -> list[Layer]:
    """Return what every counted layer does for a batch, float32."""
    counted: list[Layer] = []

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        weights = sum(p.numel() for p in module.parameters(recurse=False))
        operations = 0.0
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            operations = 2 * output.numel() * module.in_channels / module.groups * math.prod(module.kernel_size)
        elif isinstance(module, nn.Linear):
            operations = 2 * output.numel() * module.in_features
        counted.append(Layer(operations, 4.0 * (inputs[0].numel() + output.numel() + weights)))

    hooks = [module.register_forward_hook(count) for module in net.modules() if isinstance(module, _COUNTED)]
    try:
        with torch.inference_mode():
            net(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return counted


def least_seconds(counted: list[Layer], operations: float, traffic: float) -> float:
    """Return the least seconds of a run layer by layer, at so many operations and bytes a second."""
    return sum(max(layer.operations / operations, layer.traffic / traffic) for layer in counted)


def roofline_rows(quick: bool, repeats: int, log: Log) -> Iterator[Row]:
    """Yield forward passes over the machine's limit, and explanations without a network over copying their inputs."""
    for workload in workloads(quick):
        log(f"{workload.name} {workload.shape}: roofline")
        yield from _against_the_machine(workload, repeats, *((256, 2**22) if quick else (3072, 2**28)))
        yield from _without_a_network(workload, repeats)


def _without_a_network(workload: Workload, repeats: int) -> Iterator[Row]:
    """Yield an explanation whose model takes no time, over copying its inputs; no mask takes less than a copy."""
    output = torch.tensor([[0.4, 0.6]], device=DEVICE)
    light, shadow = workload.sigmas
    glas = GLAS(lambda batch: output.expand(len(batch), 2), sigma_light=light, sigma_shadow=shadow)
    inputs = 2 * len(workload.segments.index) + 1
    copied = torch.empty_like(workload.volume)

    def copies() -> None:
        for _ in range(inputs):
            copied.copy_(workload.volume)

    entries: dict[str, Entry] = {
        "explain": lambda: glas.explain(workload.volume, 1, workload.segments),
        "copies": copies,
    }
    for warm in entries.values():
        warm()
    times = time_in_rounds(entries, repeats)
    value = times.of("explain", inputs).median * 1e3
    work = f"{inputs} inputs; {times.of('copies', inputs).median * 1e3:.3g} ms a copy"
    yield row(
        "without a network", workload, "GLAS.explain without a network", "copying its inputs", "lower",
        times.ratio("explain", "copies"), value, unit="ms an input", work=work,
    )  # fmt: skip


def _against_the_machine(workload: Workload, repeats: int, side: int, length: int) -> Iterator[Row]:
    """Yield the forward passes of the network itself and of the fastest engine, over the machine's limit."""
    net = workload.build()
    batch = workload.volume.unsqueeze(0).repeat(2, *[1] * (len(workload.shape) + 1))
    counted = layers(net, batch)
    left, right = torch.rand(2, side, side, device=DEVICE)
    source = torch.rand(length, device=DEVICE)
    target = torch.empty_like(source)
    engines = ("eager", workload.engines[0])

    def forward_passes(engine: str) -> Entry:
        return bare_forward_passes(Predictor(net, "softmax", device=DEVICE).with_engine(engine, 1), [batch] * _TIMES)

    entries = {"product": lambda: left @ right, "copy": lambda: target.copy_(source)}
    entries |= {engine: forward_passes(engine) for engine in engines}
    for warm in entries.values():
        warm()
    times = time_in_rounds(entries, repeats)
    # the best of all rounds: a limit does not depend on luck
    operations, traffic = 2 * side**3 / min(times.seconds["product"]), 8 * length / min(times.seconds["copy"])
    limit = least_seconds(counted, operations, traffic)
    arithmetic = sum(layer.operations for layer in counted) / len(batch)
    moved = sum(layer.traffic for layer in counted) / len(batch)
    work = (
        f"{arithmetic / 1e9:.3g} GFLOP and {moved / 1e6:.3g} MB an input; at best {limit / len(batch) * 1e3:.3g} ms, "
        f"{arithmetic * len(batch) / operations / limit:.0%} of it arithmetic, "
        f"at {operations / 1e9:.0f} GFLOP/s and {traffic / 1e9:.1f} GB/s"
    )
    for engine in engines:
        ratio = Spread.of([seconds / _TIMES / limit for seconds in times.seconds[engine]])
        value = times.of(engine, _TIMES * len(batch)).median * 1e3
        yield row("roofline", workload, engine, "the machine's limit", "lower", ratio, value, work=work)
