"""An engine is built and compared with the network itself before its output is used."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from glas3d.core.agreement import allowed_difference, differ
from glas3d.core.perturb import PerturbedBatch
from glas3d.errors import reason
from glas3d.predict.engine.builders import BlendingNetwork, BlendingRun, Inputs, LeavesInputs, Run
from glas3d.predict.engine.engines import Engine, build, kept
from glas3d.predict.engine.fingerprint import digest
from glas3d.predict.engine.trials import Trials
from glas3d.predict.interface import Batch, NetworkPredictor

# The batch, and the covariates where a network takes some.
Given = tuple[Batch, *tuple[torch.Tensor, ...]]

# Engines are also compared with the network on inputs of this brightness.
_DARKER = 0.1


class EngineFailed(Exception):
    """The reason why an engine cannot run a network, in words."""


class ObservedNetwork(nn.Module):
    """A network that keeps a copy of its last inputs, its last output, and whether it has written to its inputs."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net: nn.Module = net
        self.inputs: Inputs = ()
        self.output: Any = None
        self.writes = False

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return the network's output."""
        self.inputs = tuple(x.clone() for x in inputs)
        self.output = self.net(*inputs)
        self.writes |= not all(torch.equal(x, before) for x, before in zip(inputs, self.inputs, strict=True))
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
    seconds
        How long the network took for the same batch at another brightness; 0 until that was evaluated.
    """

    predict: NetworkPredictor
    inputs: Given
    net: ObservedNetwork
    expected: torch.Tensor
    seconds: float = 0.0

    @classmethod
    def on(cls, predict: NetworkPredictor, inputs: Given) -> Evaluated:
        """Evaluate a predictor's own network."""
        net = ObservedNetwork(predict.net)
        return cls(predict, inputs, net, predict.with_net(net)(*inputs))

    def try_engine(self, engine: Engine, trials: Trials) -> Run | None:
        """Return what an engine builds of the network, or None if it fails; either is recorded in ``trials``.

        It fails where it cannot be built, or where its output differs from the network's own by more than is allowed,
        for this batch or for the same inputs at another brightness: what depends on the values of the inputs may have
        become a constant.
        """
        failure = ""
        for model in dict.fromkeys([self._model() if trials.may_read else None, None]):
            try:
                run = self._agreeing(engine, model)
            except EngineFailed as failed:  # also where what was kept is of another state of the network
                failure = str(failed)
                continue
            trials.runs[engine.name, torch.get_num_threads()] = run
            trials.inputs = tuple(torch.empty_like(x, device="meta") for x in self.net.inputs)
            trials.seconds_for_input = self.seconds / len(self.inputs[0])
            return run
        trials.failures[engine.name] = failure
        return None

    def is_kept(self, engine: Engine, trials: Trials) -> bool:
        """Return whether the user's cache has what an engine builds of the network."""
        model = self._model() if trials.may_read else None
        if model is None:
            return False
        inputs = self._blended() if self._blends(engine) else self.net.inputs
        return kept(engine, inputs, model).path.is_file()

    def _agreeing(self, engine: Engine, model: str | None) -> Run:
        """Return what an engine builds of the network, after it was compared with the network."""
        run = self._built(engine, model)
        darker, expected = self._darker()
        both = torch.cat([self.expected, expected])
        for inputs, own in ((self.inputs, self.expected), (darker, expected)):
            check_agreement(engine, self._output(run, inputs), own, both, log_odds=self.predict.gives_log_odds)
        return run

    def _model(self) -> str | None:
        """Return what identifies the network, so that what is built of it can be kept; None: it is not kept."""
        sha256 = self.predict.info.sha256
        return None if sha256 is None or self.net.writes else f"{sha256} {digest(self.net.net)}"

    def _darker(self) -> tuple[Given, torch.Tensor]:
        """Return the inputs at a tenth of their brightness, and the network's output for them."""
        batch, *covariates = self.inputs
        scaled = batch.scaled(_DARKER) if isinstance(batch, PerturbedBatch) else batch * _DARKER
        darker: Given = (scaled, *covariates)
        start = time.perf_counter()
        output = self.predict.with_net(self.net.net)(*darker)
        self.seconds = time.perf_counter() - start
        return darker, output

    def _built(self, engine: Engine, model: str | None) -> Run:
        if not isinstance(self.net.output, torch.Tensor):
            raise EngineFailed(f"needs one tensor as output, got a {type(self.net.output).__name__}")
        net = LeavesInputs(self.net.net) if self.net.writes else self.net.net
        if self._blends(engine):
            inputs = self._blended()
            n_covariates = len(self.net.inputs) - 1
            with suppress(Exception):  # what cannot be built with blending may be built without
                return BlendingRun(build(engine, BlendingNetwork(net, len(inputs) - n_covariates), inputs, model))
        try:
            return build(engine, net, self.net.inputs, model)
        except Exception as error:  # each library has its own, of every kind
            raise _not_built(error) from error

    def _blends(self, engine: Engine) -> bool:
        """Return whether an engine is given the tensors that the batch is blended of."""
        return engine.blends and isinstance(self.inputs[0], PerturbedBatch)

    def _blended(self) -> Inputs:
        """Return these tensors, and the covariates."""
        batch = self.inputs[0]
        assert isinstance(batch, PerturbedBatch)
        return (*batch.tensors, *self.net.inputs[1:])

    def _output(self, run: Run, inputs: Given) -> torch.Tensor:
        try:
            return self.predict.with_net(run)(*inputs)
        except Exception as error:
            raise _not_built(error) from error


def check_agreement(
    engine: Engine,
    output: torch.Tensor,
    expected: torch.Tensor,
    effects: torch.Tensor,
    *,
    log_odds: bool = False,
) -> None:
    """Refuse an engine whose output differs from the network's own by more than is allowed.

    Parameters
    ----------
    output, expected
        ``(n, k)``, of the engine and of the network.
    effects
        ``(m, k)``, outputs of the network for inputs that differ, by which the effects are measured. Engines of
        reduced precision are allowed their tolerance, relative to the largest of these.
    log_odds
        Whether the outputs are log-odds, which have no natural size: the tolerance is then relative to their range.

    Raises
    ------
    EngineFailed
        They differ.
    """
    own, others = expected.double().cpu().numpy(), effects.double().cpu().numpy()
    came = output.double().cpu().numpy()
    if engine.exact:
        allowed = allowed_difference(others, engine.tolerance)
    else:
        size = np.ptp(others, axis=0).max() if log_odds else np.abs(others).max()
        allowed = np.full(others.shape[1], engine.tolerance * size)
    if not differ(came, own, allowed):
        return
    if came.shape != own.shape:
        raise EngineFailed(f"returns {came.shape}, the network {own.shape}")
    excess = np.nan_to_num(np.abs(came - own), nan=np.inf).max(axis=0)
    worst = int((excess - allowed).argmax())
    raise EngineFailed(f"differs by {excess[worst]:.1e} from the network, more than {allowed[worst]:.2g}")


def _not_built(error: Exception) -> EngineFailed:
    return EngineFailed(f"cannot be built: {type(error).__name__}: {reason(error)}")
