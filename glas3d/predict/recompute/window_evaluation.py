"""The evaluation of a network on volumes that equal a base except inside windows, computing only what can differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from glas3d.core.accelerate.windows import Windows, crop
from glas3d.predict.recompute.rules import GlobalMean, Neighbourhood, Pointwise
from glas3d.predict.recompute.windowed_steps import WindowedSteps, execute, reads_shape_alone


def evaluate_windows(steps: WindowedSteps, kind: int, rows: np.ndarray, parts: torch.Tensor) -> Any:
    """Return the network's output for ``n`` volumes that equal a base except inside windows.

    Parameters
    ----------
    steps
        The network's steps, and their windows.
    kind
        Which base the volumes equal.
    rows
        ``(n,)``, which of that kind's windows are theirs.
    parts
        ``(n, c, *size)``, the volumes inside these windows.
    """
    return _Evaluation(steps, kind, rows).output(parts)


class _Evaluation:
    """The evaluation of one batch."""

    def __init__(self, steps: WindowedSteps, kind: int, rows: np.ndarray) -> None:
        self.steps, self.kind, self.rows = steps, kind, rows
        self.windows = steps.windows[kind]
        self.values: dict[fx.Node, Any] = {}
        self.n = 0

    def output(self, parts: torch.Tensor) -> Any:
        self.n = len(parts)
        for node in self.steps.order:
            if node.op == "output":
                return fx.node.map_arg(node.args[0], self._whole)
            self.values[node] = parts if node.op == "placeholder" else self._step(node)
            for source in self.steps.unneeded_after[node]:
                self.values.pop(source, None)
        raise AssertionError("a graph ends with its output")

    def _step(self, node: fx.Node) -> Any:
        """Return the output of one step, inside its windows if it has some."""
        steps, rule = self.steps, self.steps.rules.get(node)
        inputs = node.all_input_nodes
        source = inputs[0]
        if reads_shape_alone(node) and source in steps.shapes:
            empty = torch.empty((self.n, *steps.shapes[source][1:]), device="meta")
            return execute(steps.traced, node, lambda _: empty)
        if isinstance(rule, GlobalMean) and source in self.windows:
            return self._mean(node, rule, source)
        if node not in self.windows:
            return execute(steps.traced, node, self._whole)
        windows = self.windows[node]
        if isinstance(rule, Neighbourhood):
            corner, size = rule.needed(windows)
            result = rule.apply(self._part(source, corner[self.rows], size, rule.outside))
            if node in steps.divisors:
                result = result / self._stacked(steps.divisors[node][0], windows.corner[self.rows], windows.size)
            return result
        assert isinstance(rule, Pointwise)
        spatial = inputs if rule.spatial is None else [inputs[i] for i in rule.spatial]
        return execute(
            steps.traced,
            node,
            lambda input_: self._inside(input_, windows) if input_ in spatial else steps.constants[input_],
        )

    def _inside(self, node: fx.Node, windows: Windows) -> Any:
        """Return what a pointwise step reads of one of its inputs inside its windows."""
        corner = windows.corner[self.rows]
        if node not in self.steps.constants:
            return self._part(node, corner, windows.size)
        value = self.steps.constants[node]
        ndim = len(windows.shape)
        if not isinstance(value, torch.Tensor) or all(n == 1 for n in value.shape[-ndim:]):
            return value
        value = value.reshape((1,) * (ndim + 2 - value.ndim) + tuple(value.shape))[0]
        return self._stacked(value.expand(*value.shape[:1], *windows.shape), corner, windows.size)

    def _whole(self, node: fx.Node) -> Any:
        """Return a step's output everywhere: that of the base, and inside the windows what was computed."""
        if node in self.steps.constants:
            return self.steps.constants[node]
        if node not in self.windows:
            return self.values[node]
        shape = self.windows[node].shape
        return self._part(node, np.zeros((self.n, len(shape)), dtype=np.int64), shape)

    def _part(self, node: fx.Node, corner: np.ndarray, size: Sequence[int], outside: float = 0.0) -> torch.Tensor:
        """Return a step's output in boxes of one size, at corners ``(n, ndim)``; boxes may leave the volume."""
        windows, value, base = self.windows[node], self.values[node], self.steps.bases.get(node)
        if windows.size == tuple(size) and np.array_equal(windows.corner[self.rows], corner):
            return value  # type: ignore[no-any-return]
        assert base is not None, f"the base of {node} is not kept"
        part = _empty((self.n, value.shape[1], *size), like=value)
        for source, start, extent in (
            (base[self.kind].expand(self.n, *base.shape[1:]), np.zeros_like(corner), windows.shape),
            (value, windows.corner[self.rows], windows.size),
        ):
            low, high = np.maximum(corner, start), np.minimum(corner + size, start + extent)
            for i, n in enumerate(high - low):
                if source is not value and (n < size).any():
                    part[i].fill_(outside)
                if (n > 0).all():
                    crop(part[i], low[i] - corner[i], n).copy_(crop(source[i], low[i] - start[i], n))
        return part

    def _stacked(self, value: torch.Tensor, corner: np.ndarray, size: Sequence[int]) -> torch.Tensor:
        """Return boxes of one size of a value that all volumes share, ``(c, *spatial)`` to ``(n, c, *size)``."""
        return torch.stack([crop(value, first, size) for first in corner])

    def _mean(self, node: fx.Node, rule: GlobalMean, source: fx.Node) -> torch.Tensor:
        """Return the mean over space: the base's, and what the windows add to it."""
        windows, value = self.windows[source], self.values[source]
        axes = tuple(range(2, value.ndim))
        before = self._stacked(self.steps.bases[source][self.kind], windows.corner[self.rows], windows.size)
        added = (value - before).sum(dim=axes, keepdim=rule.keepdim) / np.prod(windows.shape)
        mean: torch.Tensor = self.steps.bases[node][self.kind] + added
        return mean


def _empty(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Return new memory, with the channels last if another tensor has them last."""
    last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    layout = last if like.is_contiguous(memory_format=last) and not like.is_contiguous() else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=layout)
