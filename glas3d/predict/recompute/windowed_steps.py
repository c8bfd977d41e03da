"""The steps of a network, and the windows in which the output of each step can differ from that of the base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from glas3d.core.accelerate.windows import Windows
from glas3d.core.model import CannotRecompute
from glas3d.predict.recompute.rules import GlobalMean, Neighbourhood, Pointwise, Rule, rule_of

# Windows that hold more than this of an activation take more time to cut out and paste than they save.
LARGEST_SHARE = 0.8

StepWindows = dict[fx.Node, Windows]


@dataclass(frozen=True, eq=False)
class WindowedSteps:
    """The steps of a network, and where the output of each one can differ from that of the base.

    Attributes
    ----------
    traced
        The network as a graph.
    order
        The steps that depend on the volume, in order.
    rules
        How each step confines a change; a step without a rule is computed as a whole.
    windows
        For each kind of perturbation, where the output of a step differs; of a step without windows, anywhere.
    constants
        The outputs of the steps that do not depend on the volume.
    bases
        ``(kinds, c, *spatial)``, the base's outputs of the steps for which they are needed again.
    shapes
        The shapes of the base's outputs, of those that are tensors.
    divisors
        ``(1, 1, *spatial)``, what the sums of an average pooling are divided by.
    unneeded_after
        After each step, the steps whose outputs no later step reads.
    output
        The network's output for the bases.
    whole_from
        The first step that has no rule, in words; empty if there is none before everything has changed.
    """

    traced: fx.GraphModule
    order: tuple[fx.Node, ...]
    rules: Mapping[fx.Node, Rule]
    windows: tuple[StepWindows, ...]
    constants: Mapping[fx.Node, Any]
    bases: Mapping[fx.Node, torch.Tensor]
    shapes: Mapping[fx.Node, tuple[int, ...]]
    divisors: Mapping[fx.Node, torch.Tensor]
    unneeded_after: Mapping[fx.Node, tuple[fx.Node, ...]]
    output: Any
    whole_from: str


def follow_windows(
    traced: fx.GraphModule, bases: torch.Tensor, windows: Sequence[Windows], largest_share: float = LARGEST_SHARE
) -> WindowedSteps:
    """Evaluate a network on the bases, and follow the windows through its steps.

    Parameters
    ----------
    traced
        The network as a graph; see `trace`.
    bases
        ``(kinds, c, *spatial)``: what the perturbed volumes of each kind equal outside of their windows.
    windows
        Where the volumes can differ from their base, one for each kind.
    largest_share
        A step whose windows hold a larger share of its output is computed as a whole.

    Raises
    ------
    CannotRecompute
        The windows hold most of the volume.
    """
    if all(of_kind.share > largest_share for of_kind in windows):
        raise CannotRecompute(f"the masks reach {min(of_kind.share for of_kind in windows):z.0%} of the volume or more")
    return _Follower(traced, bases, windows, largest_share).follow()


class _Follower:
    """Follows windows through a network, step by step, and collects what `WindowedSteps` holds."""

    def __init__(
        self, traced: fx.GraphModule, bases: torch.Tensor, windows: Sequence[Windows], largest_share: float
    ) -> None:
        self.traced, self.bases = traced, bases
        self.ndim = len(windows[0].shape)
        self.input_windows, self.largest_share = windows, largest_share
        self.windows: tuple[StepWindows, ...] = tuple({} for _ in windows)
        self.rules: dict[fx.Node, Rule] = {}
        self.values: dict[fx.Node, Any] = {}
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.constants: dict[fx.Node, Any] = {}
        self.divisors: dict[fx.Node, torch.Tensor] = {}
        self.needed: set[fx.Node] = set()
        self.pulling: set[fx.Node] = set()
        self.whole_from = ""

    def follow(self) -> WindowedSteps:
        nodes = list(self.traced.graph.nodes)
        last_reader = {source: node for node in nodes for source in node.all_input_nodes}
        unneeded_after = {
            node: tuple(source for source in node.all_input_nodes if last_reader[source] is node) for node in nodes
        }
        order: list[fx.Node] = []
        output: Any = None
        for node in nodes:
            if node.op == "output":
                output = fx.node.map_arg(node.args[0], self._value)
            elif node.op == "placeholder":
                self.values[node] = self.bases
            elif node.op == "get_attr" or all(source in self.constants for source in node.all_input_nodes):
                self.constants[node] = execute(self.traced, node, self.constants.__getitem__)
                continue
            else:
                self.values[node] = execute(self.traced, node, self._value)
            order.append(node)
            self._follow_step(node)
            for source in unneeded_after[node]:
                if source not in self.needed:
                    self.values.pop(source, None)
        return WindowedSteps(
            traced=self.traced,
            order=tuple(order),
            rules=self.rules,
            windows=self.windows,
            constants=self.constants,
            bases={node: self.values[node] for node in self.needed},
            shapes=self.shapes,
            divisors=self.divisors,
            unneeded_after=unneeded_after,
            output=output,
            whole_from=self.whole_from,
        )

    def _value(self, node: fx.Node) -> Any:
        return self.constants[node] if node in self.constants else self.values[node]

    def _follow_step(self, node: fx.Node) -> None:
        """Note where the output of one step differs, and which base outputs are needed to compute it."""
        value = self.values.get(node)
        if isinstance(value, torch.Tensor):
            self.shapes[node] = tuple(value.shape)
        rule = self._rule(node)
        if rule is not None:
            self.rules[node] = rule
        if node.op == "placeholder":
            for boxes, of_kind in zip(self.windows, self.input_windows, strict=True):
                boxes[node] = of_kind
        elif rule is not None and self._is_map(node):
            for boxes in self.windows:
                windows = self._windows_through(node, rule, boxes)
                if windows is not None and windows.share <= self.largest_share:
                    boxes[node] = windows
        if isinstance(rule, Neighbourhood) and rule.divisor is not None:
            size = self.shapes[node.all_input_nodes[0]][2:]
            self.divisors[node] = rule.divisor(self.values[node].new_ones((1, 1, *size)))
        self._note_needed(node, rule)

    def _is_map(self, node: fx.Node) -> bool:
        """Return whether a step's output has the axes of the volume, for each kind."""
        value = self.values.get(node)
        return isinstance(value, torch.Tensor) and value.ndim == self.ndim + 2 and len(value) == len(self.bases)

    def _rule(self, node: fx.Node) -> Rule | None:
        if node.op in ("placeholder", "output"):
            return None
        rule = rule_of(self.traced, node, self.constants)
        match rule:
            case GlobalMean():
                applies = rule.ndim == self.ndim
            case Pointwise():
                applies = self._is_map(node) and self._keeps_space(node, rule)
            case Neighbourhood():
                applies = self._is_map(node) and len(rule.kernel) == self.ndim
            case None:
                applies = False
        return rule if applies else None

    def _windows_through(self, node: fx.Node, rule: Rule, boxes: StepWindows) -> Windows | None:
        """Return the windows of a step's output; None: it is computed as a whole."""
        sources = [source for source in node.all_input_nodes if source not in self.constants]
        if isinstance(rule, GlobalMean) or any(source not in boxes for source in sources):
            return None
        if isinstance(rule, Neighbourhood):
            return rule.through(boxes[sources[0]], self.shapes[node][2:])
        windows = boxes[sources[0]]
        for source in sources[1:]:
            if boxes[source] is not windows:
                windows = windows.joined(boxes[source])
        return windows

    def _keeps_space(self, node: fx.Node, rule: Pointwise) -> bool:
        """Return whether every tensor that a pointwise step takes has the space of its output, or none."""
        space = self.shapes.get(node, ())[2:]
        for position, source in enumerate(node.all_input_nodes):
            value = self._value(source)
            if not isinstance(value, torch.Tensor) or (rule.spatial is not None and position not in rule.spatial):
                continue
            if source not in self.constants:
                if tuple(value.shape[2:]) != space:
                    return False
            elif value.ndim > self.ndim + 2 or (value.ndim == self.ndim + 2 and len(value) != 1):
                return False
        return True

    def _note_needed(self, node: fx.Node, rule: Rule | None) -> None:
        """Note which base outputs a step needs, and the first step that is computed as a whole."""
        changed = [source for source in node.all_input_nodes if any(source in boxes for boxes in self.windows)]
        if reads_shape_alone(node) or not changed:
            return
        if rule is None and not self.whole_from and node.op != "output":
            self.whole_from = _description(self.traced, node)
        if isinstance(rule, Neighbourhood) and self._pull(node, rule):
            return
        for source in changed:
            for boxes in self.windows:
                if source in boxes and not (isinstance(rule, Pointwise) and boxes.get(node) is boxes[source]):
                    self.needed.add(source)
        if isinstance(rule, GlobalMean):
            self.needed.add(node)

    def _pull(self, node: fx.Node, rule: Neighbourhood) -> bool:
        """Enlarge the windows before a step without padding, if it then needs nothing of the base.

        Pooling in cells that do not overlap would need a few more voxels of the output of the convolution before it.
        The convolution computes them too, so that between the two nothing is cut out, pasted or kept.

        Returns
        -------
        Whether the windows were enlarged.
        """
        if any(rule.padding) or rule.divisor is not None:
            return False
        chain = self._chain_to_neighbourhood(node)
        if chain is None or chain[-1] in self.pulling:  # its windows are enlarged already for what it reads itself
            return False
        if any((node in boxes) != (chain[-1] in boxes) for boxes in self.windows):
            return False
        shape = self.shapes[chain[0]][2:]
        taken = [(boxes, *rule.needed(boxes[node])) for boxes in self.windows if node in boxes]
        if any((corner + size > np.asarray(shape)).any() for _, corner, size in taken):  # a last cell that sticks out
            return False
        for boxes, corner, size in taken:
            enlarged = Windows.of(corner, corner + np.asarray(size), shape)
            boxes.update(dict.fromkeys(chain, enlarged))
        self.pulling.add(node)
        return True

    def _chain_to_neighbourhood(self, node: fx.Node) -> list[fx.Node] | None:
        """Return the pointwise steps before a step, back to a neighbourhood step; None if others read one of them."""
        chain = [node.all_input_nodes[0]]
        while isinstance(self.rules.get(chain[-1]), Pointwise) and len(chain[-1].users) == 1:
            sources = [source for source in chain[-1].all_input_nodes if source not in self.constants]
            if len(sources) != 1:
                return None
            chain.append(sources[0])
        if len(chain[-1].users) != 1 or not isinstance(self.rules.get(chain[-1]), Neighbourhood):
            return None
        return chain


def execute(traced: fx.GraphModule, node: fx.Node, value: Callable[[fx.Node], Any]) -> Any:
    """Return the output of one step of the network; ``value`` gives its inputs."""
    args, kwargs = fx.node.map_arg(node.args, value), fx.node.map_arg(node.kwargs, value)
    if node.op == "call_module":
        return traced.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    if node.op == "get_attr":
        attribute: Any = traced
        for name in str(node.target).split("."):
            attribute = getattr(attribute, name)
        return attribute
    return node.target(*args, **kwargs)  # type: ignore[operator]


def reads_shape_alone(node: fx.Node) -> bool:
    """Return whether a step reads nothing of a tensor but its shape."""
    if node.op == "call_method":
        return node.target in ("size", "dim")
    if node.target is torch.ops.aten.sym_size.int:
        return True
    return node.op == "call_function" and node.target is getattr and node.args[1] in ("shape", "ndim")


def _description(traced: fx.GraphModule, node: fx.Node) -> str:
    """Return a step in words, such as ``classifier.0 (Flatten)``."""
    if node.op == "call_module":
        return f"{node.target} ({type(traced.get_submodule(str(node.target))).__name__})".removeprefix("net.")
    return str(node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target))
