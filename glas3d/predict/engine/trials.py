"""What was learned of one network by trying engines on it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from glas3d.predict.engine.builders import Run
from glas3d.predict.engine.fingerprint import fingerprint
from glas3d.predict.engine.fixed_steps import has_fixed_steps, seconds_to_try
from glas3d.predict.interface import NetworkPredictor

_log = logging.getLogger(__name__)


@dataclass
class Trials:
    """The engines that were tried on one network, with batches of one shape, on one device with as many threads.

    Attributes
    ----------
    runs
        What was built, by the engine's name and the number of threads that torch had then.
    failures
        Why an engine could not be built, or was rejected, by its name.
    seconds
        Seconds for one batch, by the name of each engine that ``"auto"`` tried.
    best
        The fastest of these.
    threads
        The number of torch's threads with which the network itself is fastest, as ``"auto"`` measured it.
    n_batches
        How many batches were evaluated so far: as many again are expected.
    may_read
        Whether an engine that is kept in a file may be used: not after one differed from the network.
    inputs
        What the network was given when an engine was compared with it, without values: tensors on the meta device.
    seconds_for_input
        Seconds that the network itself took for one input then.
    """

    runs: dict[tuple[str, int], Run] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    best: str = "eager"
    threads: int = field(default_factory=torch.get_num_threads)
    n_batches: int = 0
    may_read: bool = True
    inputs: tuple[torch.Tensor, ...] = ()
    seconds_for_input: float = 0.0
    _has_fixed_steps: bool | None = None
    _seconds_compared: float = 0.0

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for each engine that was rejected."""
        return tuple(f"{name} {failure}" for name, failure in self.failures.items())

    def has_fixed_steps(self, net: nn.Module) -> bool:
        """Return whether the network is known to make the same steps for all inputs (see `fixed_steps`).

        Then engines need not be compared with it for every scan. That is tried only once comparing has taken as long
        as trying is expected to take: with small networks and few scans it never does.

        Parameters
        ----------
        net
            The network.
        """
        if self._has_fixed_steps is None:
            if self._seconds_compared < seconds_to_try():
                self._seconds_compared += self.seconds_for_input
                return False
            self._has_fixed_steps = has_fixed_steps(net, self.inputs)
        return self._has_fixed_steps

    def leave_out(self, name: str, failure: str) -> None:
        """Use an engine no longer, for a reason in words."""
        self.failures[name] = failure
        self.seconds.pop(name, None)
        for key in [key for key in self.runs if key[0] == name]:
            del self.runs[key]
        self.best = min(self.seconds, key=lambda engine: self.seconds[engine], default="eager")

    def warn_of(self, name: str) -> None:
        """Write to the log why an engine is not used."""
        _log.warning("the engine %s is left out: it %s", name, self.failures[name])


_lock = threading.Lock()
_trials: WeakKeyDictionary[nn.Module, dict[Any, Trials]] = WeakKeyDictionary()


def trials_of(predict: NetworkPredictor, layout: Hashable) -> Trials:
    """Return what was learned of a predictor's network, as its weights are now, for batches of a shape or layout.

    What was built from other weights is forgotten.
    """
    net: Any = predict.net
    output = (predict.activation, predict.gives_log_odds)
    key = (layout, str(predict.device), torch.get_num_threads(), output, fingerprint(net))
    with _lock:
        of_net = _trials.setdefault(net, {})
        for other in [other for other in of_net if other[-1] != key[-1]]:
            del of_net[other]
        return of_net.setdefault(key, Trials())


def forget(predict: NetworkPredictor, layout: Hashable) -> None:
    """Forget what was built of a predictor's network: for a batch of this layout it differed from the network."""
    net: Any = predict.net
    with _lock:
        _trials.pop(net, None)
    trials_of(predict, layout).may_read = False
