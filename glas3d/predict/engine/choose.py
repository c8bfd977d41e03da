"""A predictor whose forwards an engine runs: the one asked for, or the one that pays."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from glas3d.core.model import Recomputation
from glas3d.core.threads import torch_threads
from glas3d.core.windows import Windows
from glas3d.errors import GlasError, reason
from glas3d.predict.engine.builders import ENGINES, TOLERANCE, Engine, Inputs, Run, build, digest, fingerprint

if TYPE_CHECKING:
    from glas3d.predict.predictor import Predictor

_log = logging.getLogger(__name__)

# "auto" builds an engine when what is left to ask would take this many times as long as building.
_PAYS = 4.0
# An engine must be this much faster than the one before it to take its place, so that a busy machine does not decide.
_WORTH = 0.95


class EngineFailed(Exception):
    """Why an engine cannot run a network, in words."""


@dataclass
class _Known:
    """What is known of one network in batches of one shape, on one device with as many threads.

    Attributes
    ----------
    runs
        What was built, by an engine's name and the threads that torch had then.
    failed
        Why another could not be, or was left.
    seconds
        A batch, of the engines that were tried by ``"auto"``.
    best
        Of these.
    threads
        Of torch, with which the network itself answers fastest, as ``"auto"`` found.
    asked
        Batches that it was asked so far: as many again are expected to come.
    """

    runs: dict[tuple[str, int], Run] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    best: str = "eager"
    threads: int = field(default_factory=torch.get_num_threads)
    asked: int = 0


def _notes(known: _Known) -> tuple[str, ...]:
    return tuple(f"{name} {why}" for name, why in known.failed.items())


def _left_out(name: str, known: _Known) -> None:
    _log.warning("the engine %s is left out: it %s", name, known.failed[name])


_known: WeakKeyDictionary[nn.Module, dict[Any, _Known]] = WeakKeyDictionary()


def check_engine(engine: str, device: torch.device) -> None:
    """Refuse an engine that there is not, or not here.

    Raises
    ------
    GlasError
        No such engine, its library is not installed, or it does not run on this device.
    """
    if engine == "auto":
        return
    if engine not in ENGINES:
        raise GlasError(f"engine must be one of auto, {', '.join(ENGINES)}, got {engine!r}")
    chosen = ENGINES[engine]
    if chosen.version is None:
        raise GlasError(
            f'the engine {engine} needs {chosen.library}, which is missing: pip install "glas3d[{chosen.extra}]"'
        )
    if device.type not in chosen.devices:
        raise GlasError(f"the engine {engine} runs on {' and '.join(chosen.devices)}, the model is on {device.type}")


class _Watched(nn.Module):
    """A network, and what it was given and gave last."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.inputs: Inputs = ()
        self.answer: Any = None

    def forward(self, *inputs: torch.Tensor) -> Any:
        self.inputs = inputs
        self.answer = self.net(*inputs)
        return self.answer


class WithEngine:
    """A predictor asked by an engine.

    Parameters
    ----------
    predict
        Bound to a volume.
    engine
        One of `ENGINES`, or ``"auto"``.
    batches
        How many will be asked.

    Attributes
    ----------
    engine, version
        That ran the last batch.
    engine_threads
        With how many threads, its own or torch's.
    notes
        Which engines were tried and left, and why.

    Raises
    ------
    GlasError
        What `check_engine` refuses; when called, an engine that was asked for and cannot run this network, or answers
        otherwise than it does.
    """

    def __init__(self, predict: Predictor, engine: str, batches: int) -> None:
        check_engine(engine, predict.device)
        if not isinstance(predict.net, nn.Module):
            if engine not in ("auto", "eager"):
                raise GlasError(
                    f"the engine {engine} runs torch modules, the model {predict.info.name} is none: leave engine out"
                )
            engine = "eager"
        self._predict, self._asked, self._batches = predict, engine, batches
        self._threads = self.engine_threads = torch.get_num_threads()
        self._by: dict[tuple[int, ...], Callable[..., torch.Tensor]] = {}
        self.engine = engine
        self.notes: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name == "_predict":
            raise AttributeError(name)
        return getattr(self._predict, name)

    # What the core's protocols look for (glas3d.core.model) is named here: from Python 3.12 on, isinstance no longer
    # finds what __getattr__ passes on.
    @property
    def device(self) -> torch.device:
        """The predictor's device."""
        return self._predict.device

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The predictor's names of its outputs."""
        return self._predict.classes

    def fit(self, volume: torch.Tensor) -> Predictor:
        """Return the predictor itself, fitted to a volume; see `Predictor.fit`."""
        return self._predict.fit(volume)

    def recompute(self, bases: torch.Tensor, windows: Sequence[Windows]) -> Recomputation:
        """Prepare recomputing with the predictor's own network; see `Predictor.recompute`."""
        return self._predict.recompute(bases, windows)

    def with_engine(self, engine: str, n_batches: int) -> WithEngine:
        """Return the predictor with another engine; see `Predictor.with_engine`."""
        return self._predict.with_engine(engine, n_batches)

    @property
    def version(self) -> str | None:
        """Of the engine's library; None until ``"auto"`` has chosen one."""
        return ENGINES[self.engine].version if self.engine in ENGINES else None

    @property
    def torch_threads(self) -> int:
        """How many torch had better have from now on."""
        # torch's wait for more work by counting, in the way of an engine that has its own
        return 1 if self.engine != "auto" and ENGINES[self.engine].own_threads else self.engine_threads

    def __call__(self, batch: torch.Tensor, *beside: torch.Tensor) -> torch.Tensor:
        """As the predictor; the first batch of a shape settles which engine runs it."""
        if self._asked == "eager":
            return self._predict(batch, *beside)
        shape = tuple(batch.shape)
        if shape in self._by:
            return self._by[shape](batch, *beside)
        settle = self._chosen if self._asked == "auto" else self._given
        with torch_threads(self._threads):  # those of the explanation; perhaps fewer do better
            self._by[shape], answer = settle(batch, *beside)
            self.engine_threads = torch.get_num_threads()
        return answer

    def _with(self, run: Any) -> Predictor:
        found = copy.copy(self._predict)
        found.net = run
        return found

    def _knowledge(self, batch: torch.Tensor) -> _Known:
        """Of the network as it is now: what was built from other weights is forgotten."""
        net: Any = self._predict.net
        device = self._predict.device
        key = (tuple(batch.shape), str(device), torch.get_num_threads(), self._predict.activation, fingerprint(net))
        known = _known.setdefault(net, {})
        for other in [other for other in known if other[-1] != key[-1]]:
            del known[other]
        return known.setdefault(key, _Known())

    def _given(self, batch: torch.Tensor, *beside: torch.Tensor) -> tuple[Callable[..., torch.Tensor], torch.Tensor]:
        """The engine asked for, held against the network itself once."""
        known, built = self._knowledge(batch), (self._asked, self._threads)
        if built not in known.runs and self._asked not in known.failed:
            watched = _Watched(self._predict.net)  # type: ignore[arg-type]
            right = self._with(watched)(batch, *beside)
            self._try(ENGINES[self._asked], known, watched, right, batch, *beside)
        if self._asked in known.failed:
            if ENGINES[self._asked].tolerance <= TOLERANCE:
                name = self._predict.info.name
                raise GlasError(
                    f"the engine {self._asked} {known.failed[self._asked]}: ask the model {name} without it"
                )
            _left_out(self._asked, known)
            self.engine, self.notes = "eager", _notes(known)  # reduced precision is an offer
            return self._predict, self._predict(batch, *beside)
        asked = self._with(known.runs[built])
        return asked, asked(batch, *beside)

    def _chosen(self, batch: torch.Tensor, *beside: torch.Tensor) -> tuple[Callable[..., torch.Tensor], torch.Tensor]:
        """The fastest of the engines whose building pays for the batches to come."""
        net: Any = self._predict.net
        known = self._knowledge(batch)
        to_come = self._batches + known.asked
        known.asked += self._batches
        torch.set_num_threads(known.threads)
        watched = _Watched(net)
        right = None
        if "eager" not in known.seconds:
            right, known.seconds["eager"] = self._timed(self._with(watched), batch, *beside)
        device = self._predict.device.type
        for engine in ENGINES.values():
            if engine.name in known.seconds or engine.name in known.failed or device not in engine.devices:
                continue
            if engine.version is None or engine.tolerance > TOLERANCE:
                continue
            left = to_come * known.seconds[known.best]
            # trying costs some batches too
            if left < _PAYS * (engine.seconds(net) + 3 * known.seconds[known.best]):
                continue
            if right is None or len(known.seconds) == 1:  # the first time of all is its slowest
                right, again = self._timed(self._with(watched), batch, *beside)
                known.seconds["eager"] = min(known.seconds["eager"], again)
                if len(known.seconds) == 1:
                    self._fewer_threads(known, batch, *beside)
            run = self._try(engine, known, watched, right, batch, *beside)
            if run is None:
                _left_out(engine.name, known)
                continue
            times = [self._timed(self._with(run), batch, *beside)[1] for _ in range(2)]
            known.seconds[engine.name] = min(times)
            if known.seconds[engine.name] < _WORTH * known.seconds[known.best]:
                known.best = engine.name
        self.engine, self.notes = known.best, _notes(known)
        if known.best == "eager":
            if right is None or known.threads != self._threads:  # whose last bits may be others
                right = self._predict(batch, *beside)
            return self._predict, right
        asked = self._with(known.runs[known.best, known.threads])
        return asked, asked(batch, *beside)

    def _fewer_threads(self, known: _Known, batch: torch.Tensor, *beside: torch.Tensor) -> None:
        """Half of torch's threads, as often as the network itself is faster by them.

        There may be more than there are processors to have: a container's share, or other workers beside this one.
        """
        while known.threads > 1 and self._predict.device.type == "cpu":
            torch.set_num_threads(known.threads // 2)
            least = _WORTH * known.seconds["eager"]
            times = [self._timed(self._predict, batch, *beside)[1]]
            if times[0] < least:
                times.append(self._timed(self._predict, batch, *beside)[1])
            if max(times) >= least:
                break
            known.seconds["eager"], known.threads = min(times), known.threads // 2
        torch.set_num_threads(known.threads)

    def _try(
        self,
        engine: Engine,
        known: _Known,
        watched: _Watched,
        right: torch.Tensor,
        batch: torch.Tensor,
        *beside: torch.Tensor,
    ) -> Run | None:
        """Build an engine and hold it against the network's own answers."""
        try:
            if not isinstance(watched.answer, torch.Tensor):
                raise EngineFailed(f"answers with a {type(watched.answer).__name__} and not with one tensor")
            try:
                sha = self._predict.info.sha256
                model = None if sha is None else f"{sha} {digest(watched.net)}"
                run = build(engine, watched.net, watched.inputs, model)
                came = self._with(run)(batch, *beside)
            except Exception as error:  # each library has its own, of every kind
                raise EngineFailed(f"cannot be built: {type(error).__name__}: {reason(error)}") from error
            # of probabilities; of numbers beyond 1, in their own size
            scale = max(1.0, float(right.abs().max()))
            apart = float((came - right).abs().max()) / scale if came.shape == right.shape else float("inf")
            if not apart <= engine.tolerance:
                raise EngineFailed(f"answers {apart:.1e} from the network, more than {engine.tolerance:g}")
        except EngineFailed as why:
            known.failed[engine.name] = str(why)
            return None
        known.runs[engine.name, torch.get_num_threads()] = run
        return run

    def _timed(self, predict: Predictor, batch: torch.Tensor, *beside: torch.Tensor) -> tuple[torch.Tensor, float]:
        start = time.perf_counter()
        answer = predict(batch, *beside)
        if self._predict.device.type == "cuda":
            torch.cuda.synchronize(self._predict.device)
        return answer, time.perf_counter() - start
