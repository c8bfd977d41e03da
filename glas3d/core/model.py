"""What a model may offer to the method, one protocol an offer.

A model is any callable that turns a batch ``(n, c, *spatial)`` into probabilities ``(n, k)``; nothing more is needed.
Each protocol below is an offer beyond that. A model makes an offer by having its members, and the method looks for
offers by ``isinstance`` alone: a class that wraps a model passes an offer on by having the members itself, and an
object whose method is None does not make that offer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from glas3d.core.accelerate.windows import Windows
from glas3d.core.perturb import PerturbedBatch
from glas3d.errors import GlasError


class Predict(Protocol):
    """A model: turns a batch, and covariates where it takes some, into probabilities."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the probabilities ``(n, k)`` of a batch.

        Called with ``(batch,)``, ``(n, c, *spatial)`` float32 intensities before any normalisation, or with
        ``(batch, covariates)``, the latter ``(n, q)`` float32. The result is a tensor or whatever NumPy reads as an
        array; ``(n,)`` is one column. It may be written over by the next call, and the batch may be written over by
        this one: the method hands out no memory that it reads again.
        """
        ...


@runtime_checkable
class HasDevice(Protocol):
    """A model that computes on a device of its own."""

    @property
    def device(self) -> torch.device | str:
        """The device on which batches are made for it; a model without this member gets them on the CPU."""
        ...


@runtime_checkable
class HasClasses(Protocol):
    """A model whose outputs may have names."""

    @property
    def classes(self) -> Sequence[str] | None:
        """The name of each output column, in order, so that a target can be given by name; None: no names."""
        ...


@runtime_checkable
class HasActivation(Protocol):
    """A model that records what turns its network's outputs into probabilities."""

    @property
    def activation(self) -> str:
        """``"softmax"``, ``"sigmoid"`` or ``"none"``."""
        ...


@runtime_checkable
class HasLogits(Protocol):
    """A model whose probabilities are made of logits, which tell apart what probabilities near 0 or 1 do not."""

    def log_odds(self) -> Predict:
        """Return the same model, whose outputs are the log-odds of each class against all others, ``(n, k)``.

        Raises
        ------
        NoLogOdds
            The model's outputs are no probabilities of classes.
        """
        ...


@runtime_checkable
class HasCovariates(Protocol):
    """A model that may take covariates next to the volume."""

    @property
    def covariates(self) -> Sequence[str] | None:
        """Names of the covariates, in the order in which the model takes them; None: it takes none."""
        ...


@runtime_checkable
class Fittable(Protocol):
    """A model whose preprocessing depends on the scan, such as a normalisation by the scan's own mean."""

    def fit(self, volume: torch.Tensor) -> Predict:
        """Return the model for one scan: its preprocessing is derived from the intact scan and then fixed.

        Parameters
        ----------
        volume
            ``(c, *spatial)`` float32 on the CPU, intensities before normalisation. Light and shadow of this volume
            are then all preprocessed alike; otherwise masking one place would change every voxel.
        """
        ...


@runtime_checkable
class HasTransform(Protocol):
    """A model that may apply a transform to its inputs before anything else."""

    def without_transform(self) -> tuple[Callable[[torch.Tensor], torch.Tensor], Predict] | None:
        """Return the transform of a batch, and the model that takes batches after it; None: there is no transform.

        The transform may write over the batch.
        """
        ...


@runtime_checkable
class TakesPerturbedBatches(Protocol):
    """A model that is given perturbed volumes as what they are blended of, and writes them itself if it must."""

    def perturbed(self, batch: PerturbedBatch, *covariates: torch.Tensor) -> Any:
        """Return the probabilities ``(n, k)`` of a batch, and of covariates ``(n, q)`` where the model takes some."""
        ...


@runtime_checkable
class HasState(Protocol):
    """A model that knows when it has changed, so that what was learned of it need not be tried for every scan."""

    def state(self) -> State | None:
        """Return all that decides the model's output for a batch; None: it cannot be known."""
        ...


@dataclass(frozen=True)
class State:
    """All that decides a model's output for a batch, whatever the scan.

    Attributes
    ----------
    owner
        What is known of the model is forgotten together with this object, such as its network.
    key
        Two models of one owner give the same outputs if their keys are equal.
    kept
        Objects whose identities are part of the key.
    """

    owner: object
    key: Hashable
    kept: tuple[object, ...] = ()


@runtime_checkable
class RunsOnEngine(Protocol):
    """A model whose network can be run by an inference engine (documentation: "Engines")."""

    def with_engine(self, engine: str, n_batches: int) -> Predict:
        """Return the same model, its network run by an engine; the result may be an `EngineModel`.

        Parameters
        ----------
        engine
            The engine's name, ``"eager"`` (the network itself) or ``"auto"`` (the fastest that pays).
        n_batches
            How many batches will be evaluated, by which ``"auto"`` decides what pays.

        Raises
        ------
        GlasError
            The engine is not known, or cannot run here.
        """
        ...


@runtime_checkable
class EngineModel(Protocol):
    """A model that runs on an engine and reports which. All members are read after its first batch."""

    @property
    def engine(self) -> str:
        """Name of the engine that ran the last batch."""
        ...

    @property
    def version(self) -> str | None:
        """Version of the engine's library, if it has one."""
        ...

    @property
    def engine_threads(self) -> int:
        """How many threads the engine used."""
        ...

    @property
    def torch_threads(self) -> int:
        """How many threads torch should use from the second batch on, so that the two do not compete."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Which engines were tried and rejected, and why, one sentence each."""
        ...

    def may_differ(self) -> bool:
        """Return whether the engine that ran the last batch may differ from the network for another scan.

        False: it computes exactly, it was compared with the network as that is now, and the network is known to make
        the same steps for all scans.
        """
        ...

    def check(
        self,
        expected: torch.Tensor,
        rows: torch.Tensor,
        batch: torch.Tensor | PerturbedBatch,
        *covariates: torch.Tensor,
        output: torch.Tensor | None = None,
    ) -> bool:
        """Compare the engine that ran the last batch with the network itself; one that differs is built anew.

        Parameters
        ----------
        expected
            ``(q, k)``, the outputs of the network itself for ``q`` inputs.
        rows
            ``(n,)``, which of these inputs each row of the batch is.
        batch, *covariates
            ``(n, c, *spatial)`` of the shape of the last batch, and ``(n, p)`` where the model takes covariates.
        output
            ``(r, k)``, what the engine gave for the first ``r`` rows of the batch, where it has evaluated them before;
            None: it evaluates the batch.

        Returns
        -------
        Whether the engine agrees, so that what it gave before may be used.

        Raises
        ------
        GlasError
            An engine that was chosen by name differs from the network, also when it was built anew.
        """
        ...


@runtime_checkable
class Recomputable(Protocol):
    """A model that can compute only what a mask changes (documentation: "Speed")."""

    def recompute(self, bases: torch.Tensor, windows: Sequence[Windows]) -> Recomputation:
        """Prepare the evaluation of volumes that equal a base except inside windows.

        Parameters
        ----------
        bases
            ``(kinds, c, *spatial)``, what the volumes of each kind equal outside of their windows.
        windows
            The windows of the volumes to come, one `Windows` for each kind.

        Raises
        ------
        CannotRecompute
            The model's steps cannot be followed, or hardly any computation would be saved.
        """
        ...


class Recomputation(Protocol):
    """What `Recomputable.recompute` returns: evaluates volumes that equal a base except inside windows.

    Attributes
    ----------
    bases
        ``(kinds, k)``, the probabilities of the bases.
    whole_from
        The first step of the network from which on everything is computed; empty when that is not worth recording.
    """

    bases: torch.Tensor
    whole_from: str

    def __call__(self, kind: int, rows: np.ndarray, parts: torch.Tensor) -> Any:
        """Return the probabilities ``(n, k)`` of some volumes.

        Parameters
        ----------
        kind
            Which base they equal outside of their windows.
        rows
            ``(n,)``, which of that kind's windows are theirs.
        parts
            ``(n, c, *size)``, the volumes inside these windows.
        """
        ...


class NoLogOdds(GlasError):
    """Says why a model has no log-odds of its classes."""


class CannotRecompute(Exception):
    """Says, in words, why a model evaluates every input in full."""


def device_of(predict: Predict) -> torch.device:
    """Return the device on which a model takes its batches: its own, else the CPU."""
    return torch.device(predict.device if isinstance(predict, HasDevice) else "cpu")


def classes_of(predict: Predict) -> Sequence[str] | None:
    """Return the names of a model's output columns, or None when it gives no names."""
    return predict.classes if isinstance(predict, HasClasses) else None
