"""An engine is built and compared with the network itself before its output is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from glas3d.errors import reason
from glas3d.predict.engine.builders import Inputs, Run
from glas3d.predict.engine.engines import Engine, build
from glas3d.predict.engine.fingerprint import digest
from glas3d.predict.engine.trials import Trials
from glas3d.predict.interface import NetworkPredictor


class EngineFailed(Exception):
    """The reason why an engine cannot run a network, in words."""


class ObservedNetwork(nn.Module):
    """A network that keeps its last inputs and output."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net: nn.Module = net
        self.inputs: Inputs = ()
        self.output: Any = None

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return the network's output."""
        self.inputs = inputs
        self.output = self.net(*inputs)
        return self.output


@dataclass
class Evaluated:
    """A network that was evaluated on one batch.

    Attributes
    ----------
    predict
        The predictor of the network.
    inputs
        The batch and its covariates.
    net
        The network, with what the predictor gave it and what it returned.
    expected
        The predictor's output.
    """

    predict: NetworkPredictor
    inputs: Inputs
    net: ObservedNetwork
    expected: torch.Tensor

    @classmethod
    def on(cls, predict: NetworkPredictor, inputs: Inputs) -> Evaluated:
        """Evaluate a predictor's own network."""
        net = ObservedNetwork(predict.net)
        return cls(predict, inputs, net, predict.with_net(net)(*inputs))

    def try_engine(self, engine: Engine, trials: Trials) -> Run | None:
        """Return what an engine builds of the network, or None if it fails; either is recorded in ``trials``.

        It fails where it cannot be built, or where its output differs from the network's own by more than its
        tolerance: of probabilities, and of numbers beyond 1 relative to the largest.
        """
        try:
            run = self._built(engine)
            output = self._output(run)
            scale = max(1.0, float(self.expected.abs().max()))
            same_shape = output.shape == self.expected.shape
            difference = float((output - self.expected).abs().max()) / scale if same_shape else float("inf")
            if not difference <= engine.tolerance:
                raise EngineFailed(f"differs by {difference:.1e} from the network, more than {engine.tolerance:g}")
        except EngineFailed as failure:
            trials.failures[engine.name] = str(failure)
            return None
        trials.runs[engine.name, torch.get_num_threads()] = run
        return run

    def _built(self, engine: Engine) -> Run:
        if not isinstance(self.net.output, torch.Tensor):
            raise EngineFailed(f"needs one tensor as output, got a {type(self.net.output).__name__}")
        sha256 = self.predict.info.sha256
        model = None if sha256 is None else f"{sha256} {digest(self.net.net)}"
        try:
            return build(engine, self.net.net, self.net.inputs, model)
        except Exception as error:  # each library has its own, of every kind
            raise _not_built(error) from error

    def _output(self, run: Run) -> torch.Tensor:
        try:
            return self.predict.with_net(run)(*self.inputs)
        except Exception as error:
            raise _not_built(error) from error


def _not_built(error: Exception) -> EngineFailed:
    return EngineFailed(f"cannot be built: {type(error).__name__}: {reason(error)}")
