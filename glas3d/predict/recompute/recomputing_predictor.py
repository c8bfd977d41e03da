"""A network's answers to volumes that differ from a base inside windows alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from glas3d.core.model import CannotRecompute
from glas3d.core.windows import Windows, crop
from glas3d.predict.interface import BatchIndependent, FittedTransform, NetworkPredictor
from glas3d.predict.recompute.graph import trace
from glas3d.predict.recompute.rules import GlobalMean, Neighbourhood, Pointwise
from glas3d.predict.recompute.windowed_steps import Plan, asks_shape, execute, make_plan


class RecomputingPredictor:
    """A predictor's answers to volumes that are a base but for windows (`glas3d.core.model.Recomputation`).

    Parameters
    ----------
    predictor
        Its transform fitted, where it has to be.
    bases
        ``(kinds, c, *spatial)``.
    windows
        One a kind.

    Raises
    ------
    CannotRecompute
        The model's steps cannot be followed, or hardly any of them would be saved.
    """

    def __init__(self, predictor: NetworkPredictor, bases: torch.Tensor, windows: Sequence[Windows]) -> None:
        if predictor.covariates is not None:
            raise CannotRecompute("the model takes covariates beside the volume")
        self._predictor = predictor
        transform = predictor.transform
        if isinstance(transform, FittedTransform):
            raise CannotRecompute("the transform is not fitted to a scan")

        def planned() -> Any:
            net: object = predictor.net
            if isinstance(net, BatchIndependent):
                net = net.steps_for_any_batch((bases if transform is None else transform(bases[:1])).shape[1:])
                if net is None:
                    raise CannotRecompute("the exported file fixes the batch")
            self._plan = make_plan(trace(net, transform), bases, windows)
            return self._plan.answer

        self.bases = predictor.evaluate(planned, bases)
        self.whole_from = self._plan.whole_from

    def __call__(self, kind: int, rows: np.ndarray, parts: torch.Tensor) -> torch.Tensor:
        """``(n, k)``: the answers to volumes made from a base.

        Parameters
        ----------
        kind
            Which base.
        rows
            Which windows.
        parts
            ``(n, c, *size)``: the volumes inside them.
        """
        return self._predictor.evaluate(lambda: follow(self._plan, kind, rows, parts), parts)


def follow(plan: Plan, kind: int, rows: np.ndarray, parts: torch.Tensor) -> Any:
    """What the network answers, as it stands; see `RecomputingPredictor`."""
    return _Run(plan, kind, rows).answer(parts)


class _Run:
    """One batch."""

    def __init__(self, plan: Plan, kind: int, rows: np.ndarray) -> None:
        self.plan, self.kind, self.rows = plan, kind, rows
        self.windows = plan.windows[kind]
        self.values: dict[fx.Node, Any] = {}
        self.n = 0

    def answer(self, parts: torch.Tensor) -> Any:
        self.n = len(parts)
        for node in self.plan.order:
            if node.op == "output":
                return fx.node.map_arg(node.args[0], self._whole)
            self.values[node] = parts if node.op == "placeholder" else self._step(node)
            for source in self.plan.last[node]:
                self.values.pop(source, None)
        raise AssertionError("a graph ends with its output")

    def _step(self, node: fx.Node) -> Any:
        plan, rule = self.plan, self.plan.rules.get(node)
        inputs = node.all_input_nodes
        source = inputs[0]
        if asks_shape(node) and source in plan.shapes:
            empty = torch.empty((self.n, *plan.shapes[source][1:]), device="meta")
            return execute(plan.traced, node, lambda _: empty)
        if isinstance(rule, GlobalMean) and source in self.windows:
            return self._mean(node, rule, source)
        if node not in self.windows:
            return execute(plan.traced, node, self._whole)
        here = self.windows[node]
        if isinstance(rule, Neighbourhood):
            corner, size = rule.needed(here)
            found = rule.apply(self._part(source, corner[self.rows], size, rule.outside))
            if node in plan.divisors:
                found = found / self._stacked(plan.divisors[node][0], here.corner[self.rows], here.size)
            return found
        assert isinstance(rule, Pointwise)
        spatial = inputs if rule.spatial is None else [inputs[i] for i in rule.spatial]
        return execute(plan.traced, node, lambda one: self._at(one, here) if one in spatial else plan.constants[one])

    def _at(self, node: fx.Node, here: Windows) -> Any:
        """What a pointwise step reads inside its windows."""
        corner = here.corner[self.rows]
        if node not in self.plan.constants:
            return self._part(node, corner, here.size)
        value = self.plan.constants[node]
        ndim = len(here.shape)
        if not isinstance(value, torch.Tensor) or all(n == 1 for n in value.shape[-ndim:]):
            return value
        value = value.reshape((1,) * (ndim + 2 - value.ndim) + tuple(value.shape))[0]
        return self._stacked(value.expand(*value.shape[:1], *here.shape), corner, here.size)

    def _whole(self, node: fx.Node) -> Any:
        """A step's answer everywhere: the base, and inside the windows what was computed."""
        if node in self.plan.constants:
            return self.plan.constants[node]
        if node not in self.windows:
            return self.values[node]
        shape = self.windows[node].shape
        return self._part(node, np.zeros((self.n, len(shape)), dtype=np.int64), shape)

    def _part(self, node: fx.Node, corner: np.ndarray, size: Sequence[int], outside: float = 0.0) -> torch.Tensor:
        """A step's answer in boxes ``(n, ndim)`` of one size, which may leave the volume."""
        own, value, base = self.windows[node], self.values[node], self.plan.bases.get(node)
        if own.size == tuple(size) and np.array_equal(own.corner[self.rows], corner):
            return value  # type: ignore[no-any-return]
        assert base is not None, f"the base of {node} is not kept"
        part = _empty((self.n, value.shape[1], *size), like=value)
        for source, start, extent in (
            (base[self.kind].expand(self.n, *base.shape[1:]), np.zeros_like(corner), own.shape),
            (value, own.corner[self.rows], own.size),
        ):
            low, high = np.maximum(corner, start), np.minimum(corner + size, start + extent)
            for i, n in enumerate(high - low):
                if source is not value and (n < size).any():
                    part[i].fill_(outside)
                if (n > 0).all():
                    crop(part[i], low[i] - corner[i], n).copy_(crop(source[i], low[i] - start[i], n))
        return part

    def _stacked(self, value: torch.Tensor, corner: np.ndarray, size: Sequence[int]) -> torch.Tensor:
        """Boxes of one size of what is the same for all, ``(c, *spatial)`` to ``(n, c, *size)``."""
        return torch.stack([crop(value, one, size) for one in corner])

    def _mean(self, node: fx.Node, rule: GlobalMean, source: fx.Node) -> torch.Tensor:
        """The base's mean, and what the windows add to it."""
        here, value = self.windows[source], self.values[source]
        axes = tuple(range(2, value.ndim))
        before = self._stacked(self.plan.bases[source][self.kind], here.corner[self.rows], here.size)
        added = (value - before).sum(dim=axes, keepdim=rule.keepdim) / np.prod(here.shape)
        mean: torch.Tensor = self.plan.bases[node][self.kind] + added
        return mean


def _empty(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Fresh memory, its channels last where those of another tensor are."""
    last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    layout = last if like.is_contiguous(memory_format=last) and not like.is_contiguous() else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=layout)
