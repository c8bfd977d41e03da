"""`Predictor`: a model, the activation of its answers, and what it needs done to a scan first."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from torch import nn

from glas3d.core.model import Recomputation
from glas3d.core.score import is_out_of_memory
from glas3d.core.windows import Windows
from glas3d.errors import GlasError, reason
from glas3d.imaging.space import VoxelGrid
from glas3d.predict.engine.choose import WithEngine

Activation = Literal["softmax", "sigmoid", "none"]
Transform = Callable[[torch.Tensor], torch.Tensor]
Readout = Callable[[Any], torch.Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelInfo:
    """What a model says about itself.

    Attributes
    ----------
    name
        For messages and sidecars.
    sha256
        Of its weights and configuration; None for a module made in Python.
    channels
        Input channels; None: unknown.
    grid
        The grid its scans must be on; None: any.
    reference
        ``(c, *spatial)`` float32 on the model's intensity scale, what spots put in place of tissue
        (a control group's mean); None: it brings none.
    preset
        Settings of `GLAS` that were chosen with it, such as ``sigma_light``.
    """

    name: str
    sha256: str | None = None
    channels: int | None = None
    grid: VoxelGrid | None = None
    reference: np.ndarray | None = None
    preset: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class FittedTransform(Protocol):
    """A transform whose settings come from the intact scan.

    Normalisation that depends on the image's content is fitted once on the intact scan and frozen;
    otherwise masking one spot would change every voxel.
    """

    def fit(self, volume: torch.Tensor) -> Transform:
        """The transform for batches made from ``volume``, ``(c, *spatial)``."""
        ...


class Predictor:
    """Probabilities, or any other numbers, from a model.

    Parameters
    ----------
    net
        A torch module or any callable, ``(n, c, *spatial)`` to ``(n, k)``. A module is used in eval mode
        and left as it was; it is copied when it has to move to another device.
    activation
        What turns its answers into probabilities: ``"softmax"`` (over axis 1), ``"sigmoid"`` (a single logit
        ``z`` becomes the two columns ``1 - sigmoid(z), sigmoid(z)``), or ``"none"`` when they are probabilities
        already, or none at all: a regressor's numbers may be negative (docs/method.md tells how they score).
        Nothing is guessed.
    transform
        Applied to every batch after the masks: a callable, or an object whose ``fit(volume)`` gives one.
    device
        ``"auto"``: where the module is, or CUDA when that is the CPU and there is one.
    readout
        What of the activated answer is explained, for models that answer with more than ``(n, k)``: a callable,
        ``(n, k, *anything)`` to ``(n, j)`` or ``(n,)``, such as `RegionMean`. With ``activation="none"`` it is
        given whatever the model answers, be it a list, a dict or an object.
    classes
        Names of the outputs (the readout's, where there is one), so that a target can be named.
    covariates
        Names of the numbers it takes beside the volume, in their order: it is then asked with
        ``net(batch, table)``, ``table`` of shape ``(n, q)``.
    info
        What the model says about itself; models loaded from files bring it.

    Raises
    ------
    GlasError
        Something that is no model, no readout, or an activation that is none of the three.

    Examples
    --------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(24, 2))
    >>> predict = Predictor(net, activation="softmax", classes=("NC", "AD"), device="cpu")
    >>> predict(torch.zeros(3, 1, 2, 3, 4)).sum(dim=1).round(decimals=4)
    tensor([1., 1., 1.])

    A segmentation network: how much of the slice at the top is class 1?

    >>> segment = nn.Conv3d(1, 2, 1)
    >>> top = lambda p: p[:, 1, :, :, -1].mean(dim=(1, 2))
    >>> Predictor(segment, activation="softmax", readout=top, device="cpu")(torch.zeros(3, 1, 2, 3, 4)).shape
    torch.Size([3, 1])
    """

    def __init__(
        self,
        net: nn.Module | Callable[[torch.Tensor], Any],
        activation: Activation = "softmax",
        transform: Transform | FittedTransform | None = None,
        device: str | torch.device = "auto",
        *,
        readout: Readout | None = None,
        classes: Sequence[str] | None = None,
        covariates: Sequence[str] | None = None,
        info: ModelInfo | None = None,
    ) -> None:
        if not callable(net):
            raise GlasError(f"a model must be a torch module or a callable, got {type(net).__name__}")
        if activation not in get_args(Activation):
            raise GlasError(f"activation must be one of {', '.join(get_args(Activation))}, got {activation!r}")
        if transform is not None and not callable(transform) and not isinstance(transform, FittedTransform):
            raise GlasError(f"transform must be callable or have fit(), got {type(transform).__name__}")
        if readout is not None and not callable(readout):
            raise GlasError(f"readout must be callable, got {type(readout).__name__}")
        self.activation = activation
        self.transform = transform
        self.readout = readout
        self.classes = None if classes is None else tuple(classes)
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise GlasError(f"every class needs a name of its own, got {', '.join(self.classes)}")
        self.covariates = None if covariates is None else tuple(covariates)
        self.device = _choose(net, device)
        if isinstance(net, nn.Module) and any(t.device != self.device for t in _tensors(net)):
            net = copy.deepcopy(net).to(self.device)
        self.net = net
        self.info = info or ModelInfo(name=type(net).__name__)

    def fit(self, volume: torch.Tensor) -> Predictor:
        """The same predictor with its transform frozen to one intact scan, ``(c, *spatial)``."""
        if not isinstance(self.transform, FittedTransform):
            return self
        bound = copy.copy(self)
        bound.transform = self.transform.fit(torch.as_tensor(volume, device=self.device))
        return bound

    def __call__(self, batch: torch.Tensor, table: torch.Tensor | None = None) -> torch.Tensor:
        """``(n, c, *spatial)`` float32 to ``(n, k)`` float32 probabilities, or what the readout makes of them.

        Parameters
        ----------
        batch
            Intensities before the transform.
        table
            ``(n, q)``: the covariates, where the model takes them.

        Raises
        ------
        GlasError
            The model does not take the batch, it or its readout answers with something else than ``(n, k)``, or
            the readout with another number of columns than there are names.
        """
        if isinstance(self.transform, FittedTransform):
            raise GlasError("this transform is fitted to a scan: call predict.fit(volume)(batch)")
        batch = torch.as_tensor(batch, dtype=torch.float32, device=self.device)
        beside = self._beside(table, len(batch))
        transform = self.transform
        return self.asked(lambda: self.net(batch if transform is None else transform(batch), *beside), batch)

    def recompute(self, bases: torch.Tensor, windows: Sequence[Windows]) -> Recomputation:
        """The same model, computing only what lies inside windows of volumes that are otherwise a base.

        Parameters
        ----------
        bases
            ``(kinds, c, *spatial)``.
        windows
            Of the volumes to come, one `Windows` a kind.

        Raises
        ------
        CannotRecompute
            The model's steps cannot be followed, or hardly any of them would be saved.
        """
        from glas3d.predict.recompute.recompute import Changed  # which builds on this module

        return Changed(self, bases, windows)

    def asked(self, forward: Callable[[], Any], batch: torch.Tensor) -> torch.Tensor:
        """``(n, k)`` float32 from what a forward of the network on a batch gives, in eval mode."""
        # TF32 would be off by a thousandth, and the fastest cuDNN kernels do not repeat their bits
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), _evaluating(self.net), exact:
            try:
                answer = forward()
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                raise GlasError(f"the model does not take a batch of {tuple(batch.shape)}: {reason(error)}") from error
            if self.readout is None:
                return _columns(self._activated(_tensor(answer)), batch)
            whole = answer if self.activation == "none" else self._activated(_tensor(answer))
            columns = _columns(_tensor(self.readout(whole), "readout"), batch, "readout")
            if self.classes is not None and columns.shape[1] != len(self.classes):
                raise GlasError(f"{len(self.classes)} classes are named, the readout gives {columns.shape[1]}")
            return columns

    def with_engine(self, engine: str, n_batches: int) -> WithEngine:
        """The same predictor, its network run by an engine (docs/engines.md).

        Parameters
        ----------
        engine
            Its name, or ``"auto"``: the fastest of those whose building pays for the batches to come.
        n_batches
            How many will be asked.

        Raises
        ------
        GlasError
            No such engine, its library is missing, or it does not run here; when asked, it cannot run this network.
        """
        return WithEngine(self, engine, n_batches)

    def _beside(self, table: torch.Tensor | None, n: int) -> tuple[torch.Tensor, ...]:
        """What the model is given beside the volumes."""
        names = self.covariates
        if table is None:
            if names is None:
                return ()
            raise GlasError(f"the model {self.info.name} takes the covariates {', '.join(names)}: give their values")
        rows = torch.as_tensor(table, dtype=torch.float32, device=self.device)
        if names is None:
            raise GlasError(f"the model {self.info.name} states no covariates, got {tuple(rows.shape)} of them")
        if tuple(rows.shape) != (n, len(names)):
            raise GlasError(f"the covariates of a batch of {n} must be ({n}, {len(names)}), got {tuple(rows.shape)}")
        return (rows,)

    def _activated(self, logits: torch.Tensor) -> torch.Tensor:
        if self.activation == "none":
            return logits
        logits = logits.to(torch.float32)
        logits = logits.unsqueeze(1) if logits.ndim == 1 else logits
        if logits.ndim == 0:
            return logits
        if self.activation == "softmax":
            if logits.shape[1] == 1:
                raise GlasError('softmax over one output is always 1: a one-logit model needs activation="sigmoid"')
            return logits.softmax(dim=1)
        p = logits.sigmoid()
        return torch.cat([1 - p, p], dim=1) if p.shape[1] == 1 else p


def info_of(predict: Predictor | Callable[..., Any]) -> ModelInfo:
    """What a model says about itself; a bare callable has a name."""
    return predict.info if isinstance(predict, Predictor) else ModelInfo(name=getattr(predict, "__name__", "callable"))


def _tensor(answer: Any, by: str = "model") -> torch.Tensor:
    try:
        return torch.as_tensor(answer)
    except (TypeError, ValueError, RuntimeError):
        other = 'FirstOutput(net) takes the first of several, a readout with activation="none" any of them'
        raise GlasError(
            f"a {by} must answer with one tensor (n, classes), got {type(answer).__name__}"
            + (f": {other}" if by == "model" else "")
        ) from None


def _columns(answer: torch.Tensor, batch: torch.Tensor, by: str = "model") -> torch.Tensor:
    columns = answer.unsqueeze(1) if answer.ndim == 1 else answer
    if columns.ndim != 2 or len(columns) != len(batch):
        n, came = len(batch), tuple(columns.shape)
        other = ": give a readout, which says what of it is explained" if by == "model" and len(came) > 2 else ""
        raise GlasError(f"a {by} must answer a batch of {n} with ({n}, classes), got {came}{other}")
    return columns.to(torch.float32)


def _tensors(net: nn.Module) -> list[torch.Tensor]:
    return [*net.parameters(), *net.buffers()]


def _choose(net: object, device: str | torch.device) -> torch.device:
    if device != "auto":
        try:
            chosen = torch.device(device)
        except RuntimeError:
            raise GlasError(f"device must be auto or one of torch's, such as cpu or cuda, got {device!r}") from None
        if chosen.type != "cuda":
            return chosen
        if not torch.cuda.is_available():
            raise GlasError(f"device must be one this machine has, got {device!r} and there is no CUDA")
        return torch.device("cuda", torch.cuda.current_device() if chosen.index is None else chosen.index)
    current = next((t.device for t in _tensors(net)), None) if isinstance(net, nn.Module) else None
    if current is not None and current.type != "cpu":
        return current
    if isinstance(net, nn.Module) and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


@contextmanager
def _evaluating(net: object) -> Iterator[None]:
    """Eval mode for every submodule, and each one's own mode back afterwards."""
    training = [m for m in net.modules() if m.training] if isinstance(net, nn.Module) else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
