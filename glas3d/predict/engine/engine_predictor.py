"""A predictor whose network is run by an engine: the one that was chosen, or the one that pays."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence

import torch
from torch import nn

from glas3d.core.accelerate.windows import Windows
from glas3d.core.model import Recomputation
from glas3d.core.perturb import PerturbedBatch
from glas3d.core.threads import torch_threads
from glas3d.errors import GlasError
from glas3d.predict.engine.auto import AutomaticChoice
from glas3d.predict.engine.clock import current_clock
from glas3d.predict.engine.comparison import EngineFailed, Evaluated, Given, check_agreement
from glas3d.predict.engine.engines import ENGINES, check_engine
from glas3d.predict.engine.fixed_steps import hooks_on_all_modules
from glas3d.predict.engine.trials import Trials, forget, trials_of
from glas3d.predict.interface import Batch, ModelInfo, NetworkPredictor, Transform

# One thread at a time tries engines: others would disturb its times, and would build the same.
_choosing = threading.RLock()


class EnginePredictor:
    """A predictor whose network is run by an engine.

    Parameters
    ----------
    predict
        The predictor, fitted to a volume.
    engine
        One of `ENGINES`, or ``"auto"``.
    n_batches
        How many batches will be evaluated. ``"auto"`` decides by the clock in use, see `glas3d.predict.use_clock`.

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

    def __init__(self, predict: NetworkPredictor, engine: str, n_batches: int) -> None:
        check_engine(engine, predict.device)
        if not isinstance(predict.net, nn.Module):
            if engine not in ("auto", "eager"):
                raise GlasError(
                    f"the engine {engine} runs torch modules, the model {predict.info.name} is none: leave engine out"
                )
            engine = "eager"
        self._predict, self._given_engine, self._n_batches = predict, engine, n_batches
        self._clock = current_clock()
        self._threads = self.engine_threads = torch.get_num_threads()
        self._by_layout: dict[Hashable, NetworkPredictor] = {}
        self.engine = engine
        self.notes: tuple[str, ...] = ()
        self._trials = Trials()  # those of the last batch

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

    def log_odds(self) -> EnginePredictor:
        """Return the predictor of log-odds, its network run by the same engine."""
        return EnginePredictor(self._predict.log_odds(), self._given_engine, self._n_batches)

    def without_transform(self) -> tuple[Transform, EnginePredictor] | None:
        """Return the predictor's transform, and the predictor without it on the same engine; None: there is none."""
        parts = self._predict.without_transform()
        return None if parts is None else (parts[0], EnginePredictor(parts[1], self._given_engine, self._n_batches))

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
        """Return the predictor's output for a batch; the first batch of a shape decides which engine runs it.

        The network and the transform may write over the batch.
        """
        return self._evaluate(batch, *covariates)

    def perturbed(self, batch: PerturbedBatch, *covariates: torch.Tensor) -> torch.Tensor:
        """Return the output for a batch of perturbed volumes, which an engine may blend in its own graph.

        Only the network is part of the graph, and a transform comes between blending and the network: a batch for a
        predictor with a transform is written first.
        """
        return self._evaluate(batch if self._predict.transform is None else batch.written(), *covariates)

    def _evaluate(self, batch: Batch, *covariates: torch.Tensor) -> torch.Tensor:
        inputs: Given = (batch, *covariates)
        if self._given_engine == "eager":
            return self._predict.consume(*inputs)
        layout = _layout(batch)
        if layout in self._by_layout:
            return self._by_layout[layout].consume(*inputs)
        with _choosing, torch_threads(self._threads):  # those of the explanation; perhaps fewer are faster
            trials = trials_of(self._predict, layout)
            if self._given_engine == "auto":
                choice = AutomaticChoice(self._predict, inputs, trials, self._clock)
                self._by_layout[layout], output = choice.make(self._n_batches)
                self.engine, self.notes = trials.best, trials.notes()
            else:
                self._by_layout[layout], output = self._use_given(trials, inputs)
            self.engine_threads = torch.get_num_threads()
            self._trials = trials
        return output

    def may_differ(self) -> bool:
        """Return whether the engine that ran the last batch may differ from the network for another scan.

        See `glas3d.core.model.EngineModel.may_differ`.
        """
        net = self._predict.net
        if hooks_on_all_modules() or not ENGINES[self.engine].exact or not isinstance(net, nn.Module):
            return True
        return not self._trials.has_fixed_steps(net)

    def check(
        self,
        expected: torch.Tensor,
        rows: torch.Tensor,
        batch: Batch,
        *covariates: torch.Tensor,
        output: torch.Tensor | None = None,
    ) -> bool:
        """Compare the engine that ran the last batch with the network itself; one that differs is built anew.

        See `glas3d.core.model.EngineModel.check`.
        """
        if self.engine == "eager":
            return True
        if isinstance(batch, PerturbedBatch) and self._predict.transform is not None:
            batch = batch.written()
        layout = _layout(batch)

        def output_again() -> torch.Tensor:
            own = batch if isinstance(batch, PerturbedBatch) else batch.clone()
            return self._evaluate(own, *(values.clone() for values in covariates))

        try:
            came = output_again() if output is None else output
            self._check_agreement(came, expected[rows[: len(came)]], expected)
            return True
        except EngineFailed:
            forget(self._predict, layout)
            self._by_layout.clear()
        try:
            came = output_again()
            if self.engine != "eager":
                self._check_agreement(came, expected[rows], expected)
        except EngineFailed as failure:
            self._leave_out(self.engine, str(failure), layout)
        return False

    def _check_agreement(self, output: torch.Tensor, expected: torch.Tensor, effects: torch.Tensor) -> None:
        log_odds = self._predict.gives_log_odds
        check_agreement(ENGINES[self.engine], output, expected, effects, log_odds=log_odds)

    def _leave_out(self, name: str, failure: str, layout: Hashable) -> None:
        """Use the network itself in place of an engine, unless that was chosen by name and computes exactly."""
        with torch_threads(self._threads):
            trials = trials_of(self._predict, layout)
        trials.leave_out(name, failure)
        if self._given_engine == name and ENGINES[name].exact:
            model = self._predict.info.name
            raise GlasError(f"the engine {name} {failure}: evaluate the model {model} without it")
        trials.warn_of(name)
        self._by_layout[layout] = self._predict
        self.engine, self.notes = "eager", trials.notes()

    def _use_given(self, trials: Trials, inputs: Given) -> tuple[NetworkPredictor, torch.Tensor]:
        """Return the predictor with the engine that was chosen by name, compared with the network itself once."""
        name, key = self._given_engine, (self._given_engine, self._threads)
        if key not in trials.runs and name not in trials.failures:
            Evaluated.on(self._predict, inputs).try_engine(ENGINES[name], trials)
        if name in trials.failures:
            if ENGINES[name].exact:
                model = self._predict.info.name
                raise GlasError(f"the engine {name} {trials.failures[name]}: evaluate the model {model} without it")
            trials.warn_of(name)
            self.engine, self.notes = "eager", trials.notes()  # reduced precision is an offer
            return self._predict, self._predict(*inputs)
        predict = self._predict.with_net(trials.runs[key])
        return predict, predict(*inputs)


def _layout(batch: Batch) -> Hashable:
    """Return what an engine is built for: the shape of a batch, or of the tensors that it is blended of."""
    return batch.layout if isinstance(batch, PerturbedBatch) else tuple(batch.shape)
