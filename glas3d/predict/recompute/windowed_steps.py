"""How far a change inside windows comes, step by step, and what of the base has to be kept for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from glas3d.core.model import CannotRecompute
from glas3d.core.windows import Windows
from glas3d.predict.recompute.rules import GlobalMean, Neighbourhood, Pointwise, Rule, rule_of

# Windows that hold more than this of an activation cost more to cut and paste than they save.
LARGEST_SHARE = 0.8

Boxes = dict[fx.Node, Windows]


@dataclass(frozen=True, eq=False)
class Plan:
    """The steps of a network, and where each one's answer can differ from the base's.

    Attributes
    ----------
    traced
        The steps.
    order
        Those that depend on the volume, in order.
    rules
        How they keep a change in its place; steps that are missing are done on the whole.
    windows
        One mapping a kind of perturbation: where a step's answer differs; steps that are missing differ anywhere.
    constants
        What the steps that do not depend on the volume give.
    bases
        ``(kinds, c, *spatial)`` of the steps whose base is needed again.
    shapes
        Of a step's base, for those that give a tensor.
    divisors
        What the sums of a pooling are divided by, ``(1, 1, *spatial)``.
    last
        Which steps' answers nobody needs after a step.
    answer
        The network's own, to the bases.
    whole_from
        The first step that was not known to keep changes in their place, in words; empty: there is none before
        everything has changed.
    """

    traced: fx.GraphModule
    order: tuple[fx.Node, ...]
    rules: Mapping[fx.Node, Rule]
    windows: tuple[Boxes, ...]
    constants: Mapping[fx.Node, Any]
    bases: Mapping[fx.Node, torch.Tensor]
    shapes: Mapping[fx.Node, tuple[int, ...]]
    divisors: Mapping[fx.Node, torch.Tensor]
    last: Mapping[fx.Node, tuple[fx.Node, ...]]
    answer: Any
    whole_from: str


def make_plan(traced: fx.GraphModule, bases: torch.Tensor, windows: Sequence[Windows]) -> Plan:
    """Ask the network about the bases, and follow the windows through it.

    Parameters
    ----------
    bases
        ``(kinds, c, *spatial)``: what the perturbed volumes of each kind are made from.
    windows
        Where they can differ from it, one a kind.

    Raises
    ------
    CannotRecompute
        The windows hold most of the volume.
    """
    if all(one.share > LARGEST_SHARE for one in windows):
        raise CannotRecompute(f"the spots reach {min(one.share for one in windows):.0%} of the volume or more")
    return _Planner(traced, windows).plan(bases)


class _Planner:
    def __init__(self, traced: fx.GraphModule, windows: Sequence[Windows]) -> None:
        self.traced = traced
        self.ndim = len(windows[0].shape)
        self.given = windows
        self.windows: tuple[Boxes, ...] = tuple({} for _ in windows)
        self.rules: dict[fx.Node, Rule] = {}
        self.values: dict[fx.Node, Any] = {}
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.constants: dict[fx.Node, Any] = {}
        self.divisors: dict[fx.Node, torch.Tensor] = {}
        self.needed: set[fx.Node] = set()
        self.pulling: set[fx.Node] = set()
        self.whole_from = ""

    def plan(self, bases: torch.Tensor) -> Plan:
        order: list[fx.Node] = []
        answer: Any = None
        nodes = list(self.traced.graph.nodes)
        until = {source: node for node in nodes for source in node.all_input_nodes}
        last = {node: tuple(source for source in node.all_input_nodes if until[source] is node) for node in nodes}
        for node in nodes:
            if node.op == "output":
                answer = fx.node.map_arg(node.args[0], self._value)
                order.append(node)
            elif node.op == "placeholder":
                self.values[node] = bases
                order.append(node)
            elif node.op == "get_attr" or all(source in self.constants for source in node.all_input_nodes):
                self.constants[node] = execute(self.traced, node, self.constants.__getitem__)
                continue
            else:
                self.values[node] = execute(self.traced, node, self._value)
                order.append(node)
            self._follow(node, len(bases))
            for source in last[node]:
                if source not in self.needed:
                    self.values.pop(source, None)
        return Plan(
            traced=self.traced,
            order=tuple(order),
            rules=self.rules,
            windows=self.windows,
            constants=self.constants,
            bases={node: self.values[node] for node in self.needed},
            shapes=self.shapes,
            divisors=self.divisors,
            last=last,
            answer=answer,
            whole_from=self.whole_from,
        )

    def _value(self, node: fx.Node) -> Any:
        return self.constants[node] if node in self.constants else self.values[node]

    def _follow(self, node: fx.Node, kinds: int) -> None:
        """Where the answer of one step differs, and whose base is needed to find it."""
        value = self.values.get(node)
        is_map = isinstance(value, torch.Tensor) and value.ndim == self.ndim + 2 and len(value) == kinds
        if isinstance(value, torch.Tensor):
            self.shapes[node] = tuple(value.shape)
        rule = None if node.op in ("placeholder", "output") else rule_of(self.traced, node, self.constants)
        if isinstance(rule, GlobalMean) and rule.ndim != self.ndim:
            rule = None
        if isinstance(rule, Pointwise) and not (is_map and self._in_place(node, rule)):
            rule = None
        if isinstance(rule, Neighbourhood) and (not is_map or len(rule.kernel) != self.ndim):
            rule = None
        if rule is not None:
            self.rules[node] = rule
        for kind, boxes in enumerate(self.windows):
            found: Windows | None = None
            if node.op == "placeholder":
                found = self.given[kind]
            elif rule is not None and is_map:
                found = self._through(node, rule, boxes)
            if found is not None and (node.op == "placeholder" or found.share <= LARGEST_SHARE):
                boxes[node] = found
        if isinstance(rule, Neighbourhood) and rule.counted is not None:
            size = self.shapes[node.all_input_nodes[0]][2:]
            self.divisors[node] = rule.counted(value.new_ones((1, 1, *size)))  # type: ignore[union-attr]
        changed = [source for source in node.all_input_nodes if any(source in boxes for boxes in self.windows)]
        if asks_shape(node) or not changed:
            return
        if rule is None and not self.whole_from and node.op != "output":
            self.whole_from = _said(self.traced, node)
        if isinstance(rule, Neighbourhood) and self._pulled(node, rule):
            return
        for source in changed:
            for boxes in self.windows:
                if source in boxes and not (isinstance(rule, Pointwise) and boxes.get(node) is boxes[source]):
                    self.needed.add(source)
        if isinstance(rule, GlobalMean):
            self.needed.add(node)

    def _through(self, node: fx.Node, rule: Rule, boxes: Boxes) -> Windows | None:
        """A step's own windows; None: it is done on the whole."""
        sources = [source for source in node.all_input_nodes if source not in self.constants]
        if isinstance(rule, GlobalMean) or any(source not in boxes for source in sources):
            return None
        if isinstance(rule, Neighbourhood):
            return rule.through(boxes[sources[0]], self.shapes[node][2:])
        found = boxes[sources[0]]
        for source in sources[1:]:
            if boxes[source] is not found:
                found = found.joined(boxes[source])
        return found

    def _in_place(self, node: fx.Node, rule: Pointwise) -> bool:
        """Whether every tensor that a pointwise step takes has the space of its answer, or none."""
        space = self.shapes.get(node, ())[2:]
        for place, source in enumerate(node.all_input_nodes):
            value = self._value(source)
            if not isinstance(value, torch.Tensor) or (rule.spatial is not None and place not in rule.spatial):
                continue
            if source not in self.constants:
                if tuple(value.shape[2:]) != space:
                    return False
            elif value.ndim > self.ndim + 2 or (value.ndim == self.ndim + 2 and len(value) != 1):
                return False
        return True

    def _pulled(self, node: fx.Node, rule: Neighbourhood) -> bool:
        """Whether a step without padding takes nothing of the base.

        Pooling in cells that do not overlap would need a voxel more here and there of what a convolution before it
        gave. The convolution is asked for it, so that nothing is cut or pasted between the two, nor kept.
        """
        if any(rule.padding) or rule.counted is not None:
            return False
        chain = [node.all_input_nodes[0]]
        while isinstance(self.rules.get(chain[-1]), Pointwise) and len(chain[-1].users) == 1:
            before = [source for source in chain[-1].all_input_nodes if source not in self.constants]
            if len(before) != 1:
                return False
            chain.append(before[0])
        if len(chain[-1].users) != 1 or not isinstance(self.rules.get(chain[-1]), Neighbourhood):
            return False
        if chain[-1] in self.pulling:  # its input is as it asked for: it cannot ask again
            return False
        if any((node in boxes) != (chain[-1] in boxes) for boxes in self.windows):
            return False
        shape = self.shapes[chain[0]][2:]
        taken = [(boxes, *rule.needed(boxes[node])) for boxes in self.windows if node in boxes]
        if any((corner + size > np.asarray(shape)).any() for _, corner, size in taken):  # a last cell that sticks out
            return False
        for boxes, corner, size in taken:
            pulled = Windows.of(corner, corner + np.asarray(size), shape)
            boxes.update(dict.fromkeys(chain, pulled))
        self.pulling.add(node)
        return True


def execute(traced: fx.GraphModule, node: fx.Node, value: Any) -> Any:
    """One step as the network has it, its inputs by ``value``."""
    args, kwargs = fx.node.map_arg(node.args, value), fx.node.map_arg(node.kwargs, value)
    if node.op == "call_module":
        return traced.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    if node.op == "get_attr":
        found: Any = traced
        for name in str(node.target).split("."):
            found = getattr(found, name)
        return found
    return node.target(*args, **kwargs)  # type: ignore[operator]


def asks_shape(node: fx.Node) -> bool:
    """Whether a step asks for nothing of a tensor but its shape."""
    if node.op == "call_method":
        return node.target in ("size", "dim")
    if node.target is torch.ops.aten.sym_size.int:
        return True
    return node.op == "call_function" and node.target is getattr and node.args[1] in ("shape", "ndim")


def _said(traced: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "call_module":
        return f"{node.target} ({type(traced.get_submodule(str(node.target))).__name__})".removeprefix("net.")
    return str(node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target))
