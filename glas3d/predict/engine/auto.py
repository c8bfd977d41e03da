"""What ``engine="auto"`` chooses: the fastest of the engines that are expected to save more time than they take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from glas3d.predict.engine.clock import Clock
from glas3d.predict.engine.comparison import Evaluated, Given
from glas3d.predict.engine.engines import ENGINES, Engine
from glas3d.predict.engine.trials import Trials
from glas3d.predict.interface import NetworkPredictor

# Batches of the fastest engine so far that comparing and timing another takes.
_TRIAL = 3
# An engine must be this much faster than the one before it to replace it, so that a busy machine does not decide.
_WORTH = 0.95


@dataclass
class AutomaticChoice:
    """The choice of an engine for one network and batches of one shape.

    Attributes
    ----------
    predict
        The predictor of the network.
    inputs
        The first batch of the shape, and its covariates.
    trials
        What was learned of the network before.
    clock
        Returns seconds.
    """

    predict: NetworkPredictor
    inputs: Given
    trials: Trials
    clock: Clock

    def make(self, n_batches: int) -> tuple[NetworkPredictor, torch.Tensor]:
        """Choose an engine for so many batches, and torch's threads; return its predictor and the first output."""
        trials, threads = self.trials, torch.get_num_threads()
        n_expected = n_batches + trials.n_batches
        trials.n_batches += n_batches
        torch.set_num_threads(trials.threads)
        n_modules = sum(1 for _ in self.predict.net.modules()) if isinstance(self.predict.net, nn.Module) else 0
        own = None
        if "eager" not in trials.seconds:
            own, trials.seconds["eager"] = self._evaluate_own()
        for engine in self._candidates():
            if not self._pays(engine, own, n_expected, n_modules):
                continue
            if own is None or len(trials.seconds) == 1:  # the first time of all is the slowest
                own, again = self._evaluate_own()
                trials.seconds["eager"] = min(trials.seconds["eager"], again)
                if len(trials.seconds) == 1:
                    self._halve_threads()
            self._try(engine, own)
        if trials.best != "eager":
            chosen = self.predict.with_net(trials.runs[trials.best, trials.threads])
            return chosen, chosen(*self.inputs)
        if own is None or trials.threads != threads:  # by other threads the last bits may differ
            return self.predict, self.predict(*self.inputs)
        return self.predict, own.expected

    def _pays(self, engine: Engine, own: Evaluated | None, n_expected: int, n_modules: int) -> bool:
        """Return whether an engine is expected to save more of so many batches than trying it takes."""
        trials = self.trials
        fastest = trials.seconds[trials.best]
        saved = n_expected * (fastest - trials.seconds["eager"] / engine.speedup) - _TRIAL * fastest
        if saved >= engine.expected_seconds(n_modules):
            return True
        return saved >= engine.seconds_to_load and own is not None and own.is_kept(engine, trials)

    def _candidates(self) -> Iterator[Engine]:
        """Yield the engines that may be tried here and were not tried yet."""
        device = self.predict.device.type
        for engine in ENGINES.values():
            tried = engine.name in self.trials.seconds or engine.name in self.trials.failures
            if not tried and engine.exact and device in engine.devices and engine.version is not None:
                yield engine

    def _try(self, engine: Engine, own: Evaluated) -> None:
        """Build an engine, and take it if it is faster than the best one so far."""
        trials = self.trials
        run = own.try_engine(engine, trials)
        if run is None:
            trials.warn_of(engine.name)
            return
        predict = self.predict.with_net(run)
        trials.seconds[engine.name] = min(self._seconds(predict) for _ in range(2))
        if trials.seconds[engine.name] < _WORTH * trials.seconds[trials.best]:
            trials.best = engine.name

    def _halve_threads(self) -> None:
        """Halve the number of torch's threads, as often as the network itself is faster with fewer.

        There may be more threads than free processors: in a container with a share of them, or next to other workers.
        """
        trials = self.trials
        while trials.threads > 1 and self.predict.device.type == "cpu":
            torch.set_num_threads(trials.threads // 2)
            least = _WORTH * trials.seconds["eager"]
            times = [self._seconds(self.predict)]
            if times[0] < least:
                times.append(self._seconds(self.predict))
            if max(times) >= least:
                break
            trials.seconds["eager"], trials.threads = min(times), trials.threads // 2
        torch.set_num_threads(trials.threads)

    def _evaluate_own(self) -> tuple[Evaluated, float]:
        """Evaluate the network itself; also return the seconds that it took."""
        start = self.clock()
        own = Evaluated.on(self.predict, self.inputs)
        return own, self._since(start)

    def _seconds(self, predict: NetworkPredictor) -> float:
        """Return the seconds that a predictor takes for the batch."""
        start = self.clock()
        predict(*self.inputs)
        return self._since(start)

    def _since(self, start: float) -> float:
        if self.predict.device.type == "cuda":
            torch.cuda.synchronize(self.predict.device)
        return self.clock() - start
