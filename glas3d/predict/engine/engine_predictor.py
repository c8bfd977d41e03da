"""A predictor whose network is run by an engine: the one that was chosen, or the one that pays."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from glas3d.core.model import Recomputation
from glas3d.core.threads import torch_threads
from glas3d.core.windows import Windows
from glas3d.errors import GlasError, reason
from glas3d.predict.engine.builders import Inputs, Run
from glas3d.predict.engine.clock import Clock, current_clock
from glas3d.predict.engine.engines import ENGINES, Engine, build, check_engine
from glas3d.predict.engine.fingerprint import digest
from glas3d.predict.engine.trials import Trials, trials_of
from glas3d.predict.interface import ModelInfo, NetworkPredictor

_log = logging.getLogger(__name__)

# "auto" builds an engine when the batches to come would take this many times as long as building.
_PAYS = 4.0
# An engine must be this much faster than the one before it to replace it, so that a busy machine does not decide.
_WORTH = 0.95


class EngineFailed(Exception):
    """The reason why an engine cannot run a network, in words."""


class EnginePredictor:
    """A predictor whose network is run by an engine.

    Parameters
    ----------
    predict
        The predictor, fitted to a volume.
    engine
        One of `ENGINES`, or ``"auto"``.
    n_batches
        How many batches will be evaluated.
    clock
        Seconds, by which ``"auto"`` decides; None: the clock in use, see `use_clock`.

    Attributes
    ----------
    engine, version
        The engine that ran the last batch, and the version of its library.
    engine_threads
        How many threads it had, its own or torch's.
    notes
        Which engines were tried and rejected, and why.

    Raises
    ------
    GlasError
        What `check_engine` refuses; when called, an engine chosen by name that cannot run this network, or whose
        output differs from the network's own.
    """

    def __init__(self, predict: NetworkPredictor, engine: str, n_batches: int, clock: Clock | None = None) -> None:
        check_engine(engine, predict.device)
        if not isinstance(predict.net, nn.Module):
            if engine not in ("auto", "eager"):
                raise GlasError(
                    f"the engine {engine} runs torch modules, the model {predict.info.name} is none: leave engine out"
                )
            engine = "eager"
        self._predict, self._given_engine, self._n_batches = predict, engine, n_batches
        self._clock = current_clock() if clock is None else clock
        self._threads = self.engine_threads = torch.get_num_threads()
        self._by_shape: dict[tuple[int, ...], NetworkPredictor] = {}
        self.engine = engine
        self.notes: tuple[str, ...] = ()

    # What the core looks for in a model (glas3d.core.model), passed on by name.

    @property
    def device(self) -> torch.device:
        """The predictor's device."""
        return self._predict.device

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The predictor's names of its outputs."""
        return self._predict.classes

    @property
    def covariates(self) -> tuple[str, ...] | None:
        """The predictor's names of its covariates."""
        return self._predict.covariates

    @property
    def info(self) -> ModelInfo:
        """The description of the model."""
        return self._predict.info

    def fit(self, volume: torch.Tensor) -> NetworkPredictor:
        """Return the predictor itself, fitted to a volume."""
        return self._predict.fit(volume)

    def recompute(self, bases: torch.Tensor, windows: Sequence[Windows]) -> Recomputation:
        """Return what recomputes with the predictor's own network."""
        return self._predict.recompute(bases, windows)

    def with_engine(self, engine: str, n_batches: int) -> EnginePredictor:
        """Return the predictor with another engine."""
        return EnginePredictor(self._predict, engine, n_batches)

    @property
    def version(self) -> str | None:
        """Version of the engine's library; None until ``"auto"`` has chosen one."""
        return ENGINES[self.engine].version if self.engine in ENGINES else None

    @property
    def torch_threads(self) -> int:
        """How many threads torch should have from now on."""
        # torch's wait busily for work, in the way of an engine that has its own
        return 1 if self.engine != "auto" and ENGINES[self.engine].own_threads else self.engine_threads

    def __call__(self, batch: torch.Tensor, *covariates: torch.Tensor) -> torch.Tensor:
        """Return the predictor's output for a batch; the first batch of a shape decides which engine runs it."""
        inputs, shape = (batch, *covariates), tuple(batch.shape)
        if self._given_engine == "eager":
            return self._predict(*inputs)
        if shape in self._by_shape:
            return self._by_shape[shape](*inputs)
        choose = self._choose if self._given_engine == "auto" else self._use_given
        with torch_threads(self._threads):  # those of the explanation; perhaps fewer are faster
            self._by_shape[shape], output = choose(trials_of(self._predict, shape), inputs)
            self.engine_threads = torch.get_num_threads()
        return output

    def _use_given(self, trials: Trials, inputs: Inputs) -> tuple[NetworkPredictor, torch.Tensor]:
        """Return the predictor with the engine that was chosen by name, compared with the network itself once."""
        name, key = self._given_engine, (self._given_engine, self._threads)
        if key not in trials.runs and name not in trials.failures:
            observed = _ObservedNetwork(self._predict.net)
            expected = self._predict.with_net(observed)(*inputs)
            self._try(ENGINES[name], trials, observed, expected, inputs)
        if name in trials.failures:
            if ENGINES[name].exact:
                model = self._predict.info.name
                raise GlasError(f"the engine {name} {trials.failures[name]}: evaluate the model {model} without it")
            _warn_rejected(name, trials)
            self.engine, self.notes = "eager", trials.notes()  # reduced precision is an offer
            return self._predict, self._predict(*inputs)
        predict = self._predict.with_net(trials.runs[key])
        return predict, predict(*inputs)

    def _choose(self, trials: Trials, inputs: Inputs) -> tuple[NetworkPredictor, torch.Tensor]:
        """Return the predictor with the fastest of the engines whose building pays for the batches to come."""
        n_expected = self._n_batches + trials.n_batches
        trials.n_batches += self._n_batches
        torch.set_num_threads(trials.threads)
        observed = _ObservedNetwork(self._predict.net)
        expected = None
        if "eager" not in trials.seconds:
            expected, trials.seconds["eager"] = self._timed(self._predict.with_net(observed), inputs)
        for engine in self._candidates(trials):
            fastest = trials.seconds[trials.best]
            # trying costs some batches too
            if n_expected * fastest < _PAYS * (engine.expected_seconds(observed.net) + 3 * fastest):
                continue
            if expected is None or len(trials.seconds) == 1:  # the first time of all is the slowest
                expected, again = self._timed(self._predict.with_net(observed), inputs)
                trials.seconds["eager"] = min(trials.seconds["eager"], again)
                if len(trials.seconds) == 1:
                    self._halve_threads(trials, inputs)
            self._try_for_speed(engine, trials, observed, expected, inputs)
        self.engine, self.notes = trials.best, trials.notes()
        if trials.best == "eager":
            if expected is None or trials.threads != self._threads:  # whose last bits may differ
                expected = self._predict(*inputs)
            return self._predict, expected
        predict = self._predict.with_net(trials.runs[trials.best, trials.threads])
        return predict, predict(*inputs)

    def _candidates(self, trials: Trials) -> Iterator[Engine]:
        """Yield the engines that ``"auto"`` may try here and has not tried yet."""
        for engine in ENGINES.values():
            tried = engine.name in trials.seconds or engine.name in trials.failures
            if not tried and engine.exact and self.device.type in engine.devices and engine.version is not None:
                yield engine

    def _try_for_speed(
        self, engine: Engine, trials: Trials, observed: _ObservedNetwork, expected: torch.Tensor, inputs: Inputs
    ) -> None:
        """Build an engine, and take it if it is faster than the best one so far."""
        run = self._try(engine, trials, observed, expected, inputs)
        if run is None:
            _warn_rejected(engine.name, trials)
            return
        predict = self._predict.with_net(run)
        trials.seconds[engine.name] = min(self._timed(predict, inputs)[1] for _ in range(2))
        if trials.seconds[engine.name] < _WORTH * trials.seconds[trials.best]:
            trials.best = engine.name

    def _halve_threads(self, trials: Trials, inputs: Inputs) -> None:
        """Halve the number of torch's threads, as often as the network itself is faster with fewer.

        There may be more threads than free processors: in a container with a share of them, or next to other workers.
        """
        while trials.threads > 1 and self.device.type == "cpu":
            torch.set_num_threads(trials.threads // 2)
            least = _WORTH * trials.seconds["eager"]
            times = [self._timed(self._predict, inputs)[1]]
            if times[0] < least:
                times.append(self._timed(self._predict, inputs)[1])
            if max(times) >= least:
                break
            trials.seconds["eager"], trials.threads = min(times), trials.threads // 2
        torch.set_num_threads(trials.threads)

    def _try(
        self, engine: Engine, trials: Trials, observed: _ObservedNetwork, expected: torch.Tensor, inputs: Inputs
    ) -> Run | None:
        """Build an engine and compare it with the network's own output; None, and a record, if it fails."""
        try:
            if not isinstance(observed.output, torch.Tensor):
                raise EngineFailed(f"needs one tensor as output, got a {type(observed.output).__name__}")
            try:
                sha256 = self._predict.info.sha256
                model = None if sha256 is None else f"{sha256} {digest(observed.net)}"
                run = build(engine, observed.net, observed.inputs, model)
                output = self._predict.with_net(run)(*inputs)
            except Exception as error:  # each library has its own, of every kind
                raise EngineFailed(f"cannot be built: {type(error).__name__}: {reason(error)}") from error
            # of probabilities; of numbers beyond 1, relative to their size
            scale = max(1.0, float(expected.abs().max()))
            same_shape = output.shape == expected.shape
            difference = float((output - expected).abs().max()) / scale if same_shape else float("inf")
            if not difference <= engine.tolerance:
                raise EngineFailed(f"differs by {difference:.1e} from the network, more than {engine.tolerance:g}")
        except EngineFailed as failure:
            trials.failures[engine.name] = str(failure)
            return None
        trials.runs[engine.name, torch.get_num_threads()] = run
        return run

    def _timed(self, predict: NetworkPredictor, inputs: Inputs) -> tuple[torch.Tensor, float]:
        """Return the output for a batch, and the seconds that it took."""
        start = self._clock()
        output = predict(*inputs)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return output, self._clock() - start


class _ObservedNetwork(nn.Module):
    """A network that keeps its last inputs and output."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net: nn.Module = net
        self.inputs: Inputs = ()
        self.output: Any = None

    def forward(self, *inputs: torch.Tensor) -> Any:
        self.inputs = inputs
        self.output = self.net(*inputs)
        return self.output


def _warn_rejected(name: str, trials: Trials) -> None:
    _log.warning("the engine %s is left out: it %s", name, trials.failures[name])
