"""`Predictor`: a model, the activation of its outputs, and the preprocessing that it needs."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, get_args

import torch
from torch import nn

from glas3d.checks import refuse_formulas
from glas3d.core.accelerate.windows import Windows
from glas3d.core.foreign_code import failures_of
from glas3d.core.link import log_odds
from glas3d.core.model import NoLogOdds, Recomputation, State
from glas3d.core.modules import EvalMode, modules_in, refuse_without_values
from glas3d.core.perturb import PerturbedBatch
from glas3d.display import ShownInNotebooks, Summary
from glas3d.errors import GlasError
from glas3d.predict.device import choose_device, exact_kernels, tensors_of
from glas3d.predict.engine.builders import BlendingRun
from glas3d.predict.engine.engine_predictor import EnginePredictor
from glas3d.predict.engine.fingerprint import fingerprint
from glas3d.predict.interface import Activation, Batch, FittedTransform, ModelInfo, Network, Readout, Transform
from glas3d.predict.model_output import columns, one_tensor
from glas3d.predict.precision import in_own_precision
from glas3d.predict.recompute.recomputing_predictor import RecomputingPredictor

_Arguments = ParamSpec("_Arguments")


def _activation_required(init: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """Say which activations there are when none is given, in place of Python's own message."""

    @functools.wraps(init)
    def checked(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        if len(args) < 3 and "activation" not in kwargs:  # the object itself and its model come first
            raise GlasError(
                'a Predictor needs the activation of its model: give "softmax", "sigmoid" or "none" (the outputs are '
                "taken as they are)"
            )
        init(*args, **kwargs)

    return checked


class Predictor(ShownInNotebooks):
    """Probabilities, or any other numbers, from a model.

    Parameters
    ----------
    net
        A torch module or any callable, ``(n, c, *spatial)`` to ``(n, k)``. A module is evaluated in eval mode
        and left as it was; it is copied when it has to move to another device. Where its weights are of half or double
        precision, it is given inputs of that type.
    activation
        What turns the model's outputs into probabilities: ``"softmax"`` (over axis 1), ``"sigmoid"`` (a single logit
        ``z`` becomes the two columns ``1 - sigmoid(z), sigmoid(z)``), or ``"none"`` when the outputs are probabilities
        already, or no probabilities at all: the numbers of a regressor may be negative (documentation: "Targets that
        are not probabilities"). It has no default: nothing is guessed.
    transform
        Applied after the masks: a callable, or an object whose ``fit(volume)`` returns one. Where it is affine in each
        voxel, an explanation applies it once instead of to every batch (documentation: "Engines").
    device
        ``"auto"``: where the module is, or CUDA when that is the CPU and the machine has CUDA.
    readout
        What of the activated output is explained, for models whose output is more than ``(n, k)``: a callable,
        ``(n, k, *anything)`` to ``(n, j)`` or ``(n,)``, such as `RegionMean`. With ``activation="none"`` it is
        given whatever the model returns, be it a list, a dictionary or an object.
    classes
        Names of the outputs (of the readout's, if there is one), so that a target can be given by name.
    covariates
        Names of the numbers that the model takes next to the volume, in their order: it is then called as
        ``net(batch, table)`` with a ``table`` of shape ``(n, q)``.
    info
        The description of the model; models loaded from files bring it.

    Raises
    ------
    GlasError
        Not a model, a transform, a readout or a device, no activation, or one that is none of the three.

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

    >>> Predictor(net)
    Traceback (most recent call last):
    glas3d.errors.GlasError: a Predictor needs the activation of its model: give "softmax", "sigmoid" or "none" ...
    """

    @_activation_required
    def __init__(
        self,
        net: Network,
        activation: Activation,
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
        if isinstance(net, nn.Module) and str(device) != "meta":  # where a model may be tried without computing
            refuse_without_values(modules_in(net))
        self.activation: Activation = activation
        self.transform = transform
        self.readout = readout
        self.classes = None if classes is None else tuple(classes)
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise GlasError(f"every class needs a name of its own, got {', '.join(self.classes)}")
        refuse_formulas("the name of a class", map(str, self.classes or ()))
        self.covariates = None if covariates is None else tuple(covariates)
        self.device = choose_device(net, device)
        if isinstance(net, nn.Module) and any(t.device != self.device for t in tensors_of(net)):
            net = copy.deepcopy(net).to(self.device)
        self.info = info or ModelInfo(name=type(net).__name__)
        self.net = in_own_precision(net)
        self.gives_log_odds = False
        self._modules = self._modules_found()
        self._is_watched = self._is_no_probability = False

    def __repr__(self) -> str:
        facts = self._facts()
        name, activation = facts.pop("model"), facts.pop("activation")
        return f"Predictor({name}: {activation}, {', '.join(facts.values())})"

    def _summary(self) -> Summary:
        return Summary(f"Predictor {self.info.name}", self._facts())

    def _facts(self) -> dict[str, str]:
        grid, info = self.info.grid, self.info
        classes = "" if self.classes is None else f" over {', '.join(self.classes)}"
        facts = {"model": info.name, "activation": f"{self.activation}{classes}"}
        if self.readout is not None:
            facts["readout"] = f"readout {getattr(self.readout, '__name__', None) or self.readout!r}"
        if self.covariates:
            facts["covariates"] = f"covariates {', '.join(self.covariates)}"
        if grid is not None:
            size = " x ".join(f"{v:.3g}" for v in dict.fromkeys(grid.spacing))
            facts["grid"] = f"{' x '.join(map(str, grid.shape))} voxels of {size} mm"
        facts["reference"] = "no reference" if info.reference is None else "a reference of its own"
        return facts | {"device": f"on {self.device}"}

    def fit(self, volume: torch.Tensor) -> Predictor:
        """Return the same predictor with its transform fitted to one intact scan, ``(c, *spatial)``."""
        if not isinstance(self.transform, FittedTransform):
            return self
        fitted = copy.copy(self)
        intact = torch.as_tensor(volume, device=self.device).clone()  # what is fitted may write to it
        with failures_of(f"the transform cannot be fitted to a scan of {tuple(intact.shape)}"):
            fitted.transform = self.transform.fit(intact)
        if not callable(fitted.transform):
            raise GlasError(f"the fit of a transform must return a callable, got {type(fitted.transform).__name__}")
        fitted._modules = fitted._modules_found()
        return fitted

    def log_odds(self) -> Predictor:
        """Return the same predictor, whose outputs ``(n, k)`` are the log-odds of each class against all others.

        They are float64 and come from the network's own logits: of a softmax ``z_y - logsumexp(z of the others)``, of
        one logit ``-z, z``, of several sigmoids ``z`` itself. With ``activation="none"`` they come from the
        probabilities.

        Raises
        ------
        NoLogOdds
            The predictor has a readout; when evaluated without an activation: outputs that are no probabilities.
        """
        if self.readout is not None:
            raise NoLogOdds(
                f"the output of a readout is no class of the model {self.info.name}, and has no log-odds: "
                'give link="probability"'
            )
        other = copy.copy(self)
        other.gives_log_odds = True
        return other

    def __call__(self, batch: Batch, table: torch.Tensor | None = None) -> torch.Tensor:
        """Return ``(n, k)`` float32 probabilities of a batch, or what the readout makes of them.

        Parameters
        ----------
        batch
            ``(n, c, *spatial)`` float32, intensities before the transform. It is left as it is, also by a network or
            transform that writes to its input.
        table
            ``(n, q)``: the covariates, where the model takes them.

        Raises
        ------
        GlasError
            The model does not take the batch, it or its readout returns something else than ``(n, k)``, or another
            number of columns than there are names; it returns probabilities where the activation is not ``"none"``.
        """
        with torch.inference_mode(False):
            return self.consume(
                batch if isinstance(batch, PerturbedBatch) else torch.as_tensor(batch, dtype=torch.float32).clone(),
                None if table is None else torch.as_tensor(table, dtype=torch.float32).clone(),
            )

    def consume(self, batch: Batch, table: torch.Tensor | None = None) -> torch.Tensor:
        """Return what a call returns, for a batch that the network and its transform may write over.

        Parameters
        ----------
        batch, table
            As when called.
        """
        transform = self.transform
        if isinstance(transform, FittedTransform):
            raise GlasError("this transform is fitted to a scan: call predict.fit(volume)(batch)")
        if isinstance(batch, PerturbedBatch):
            if isinstance(self.net, BlendingRun) and transform is None:
                tensors = *batch.tensors, *self._covariate_values(table, len(batch))
                return self.evaluate(lambda: self.net(*tensors), batch)
            batch = batch.written()
        batch = torch.as_tensor(batch, dtype=torch.float32, device=self.device)
        covariates = self._covariate_values(table, len(batch))
        return self.evaluate(lambda: self.net(batch if transform is None else transform(batch), *covariates), batch)

    def evaluate(self, forward: Callable[[], Any], batch: Batch) -> torch.Tensor:
        """Return ``(n, k)`` float32 from a forward pass that is made with the network in eval mode.

        Parameters
        ----------
        forward
            Makes the forward pass and returns the network's output.
        batch
            The inputs, for their number and for messages.
        """
        # not inference mode: what a module keeps of its input could never be trained with
        no_gradients = torch.inference_mode(False), torch.no_grad()
        with no_gradients[0], no_gradients[1], EvalMode(self._modules) as evaluation, exact_kernels():
            with failures_of(f"the model does not take a batch of {tuple(batch.shape)}"):
                output = self._watched(forward, evaluation)
            of = "model" if self.readout is None else "readout"
            if self.gives_log_odds:
                table = self._log_odds(columns(one_tensor(output), batch, dtype=torch.float64))
            elif self.readout is None:
                table = columns(self._activated(one_tensor(output)), batch)
            else:
                activated = output if self.activation == "none" else self._activated(one_tensor(output))
                with failures_of(f"the readout does not take the output for a batch of {tuple(batch.shape)}"):
                    read = self.readout(activated)
                table = columns(one_tensor(read, "readout"), batch, "readout")
            if self.classes is not None and table.shape[1] != len(self.classes):
                raise GlasError(f"{len(self.classes)} classes are named, the {of} gives {table.shape[1]}")
            return table

    def _watched(self, forward: Callable[[], Any], evaluation: EvalMode) -> Any:
        """Make a forward pass; the first one is watched for modules in training mode that were not found."""
        if self._is_watched:
            return forward()
        with evaluation.watching():
            output = forward()
        self._is_watched = True
        return output

    def _modules_found(self) -> list[nn.Module]:
        """Return the modules that an evaluation of this predictor may call."""
        return modules_in(self.net, self.transform, self.readout)

    def without_transform(self) -> tuple[Transform, Predictor] | None:
        """Return the transform of a batch, and the predictor without it; None: there is no transform."""
        transform = self.transform
        if transform is None or isinstance(transform, FittedTransform):
            return None
        rest = copy.copy(self)
        rest.transform = None

        def transformed(batch: torch.Tensor) -> torch.Tensor:
            with exact_kernels():
                return transform(batch)

        return transformed, rest

    def state(self) -> State | None:
        """Return what decides the output for a batch: the network as it is now, and what comes before and after it.

        None for a callable that is no torch module, whose state cannot be known.
        """
        if not isinstance(self.net, nn.Module):
            return None
        parts = [part for part in (self.transform, self.readout) if part is not None]
        of_parts = tuple(fingerprint(part) if isinstance(part, nn.Module) else id(part) for part in parts)
        output = (self.activation, self.gives_log_odds, self.classes, str(self.device))
        return State(self.net, (fingerprint(self.net), of_parts, output), tuple(parts))

    def with_net(self, net: Network) -> Predictor:
        """Return a copy of this predictor that evaluates another network, on the same device."""
        other = copy.copy(self)
        other.net = net
        other._modules = list(dict.fromkeys([*self._modules, *other._modules_found()]))
        return other

    def with_engine(self, engine: str, n_batches: int) -> EnginePredictor:
        """Return the same predictor with its network run by an engine (documentation: "Engines").

        Parameters
        ----------
        engine
            The engine's name, or ``"auto"``: the fastest of those whose building pays for the batches to come.
        n_batches
            How many batches will be evaluated.

        Raises
        ------
        GlasError
            The engine does not exist, its library is missing, or it does not run here; in the first evaluation: it
            cannot run this network.
        """
        return EnginePredictor(self, engine, n_batches)

    def recompute(self, bases: torch.Tensor, windows: Sequence[Windows]) -> Recomputation:
        """Return what evaluates volumes that equal a base except inside windows, computing only what can differ.

        Parameters
        ----------
        bases
            ``(kinds, c, *spatial)``.
        windows
            The windows of the volumes to come, one `Windows` for each kind.

        Raises
        ------
        CannotRecompute
            The model's steps cannot be followed, or hardly any of them would be saved.
        """
        return RecomputingPredictor(self, bases, windows)

    def _covariate_values(self, table: torch.Tensor | None, n: int) -> tuple[torch.Tensor, ...]:
        """Return what the model is given next to a batch of ``n`` volumes."""
        names = self.covariates
        if table is None:
            if names is None:
                return ()
            raise GlasError(f"the model {self.info.name} takes the covariates {', '.join(names)}: give their values")
        values = torch.as_tensor(table, dtype=torch.float32, device=self.device)
        if names is None:
            raise GlasError(f"the model {self.info.name} takes no covariates, got {tuple(values.shape)} of them")
        if tuple(values.shape) != (n, len(names)):
            raise GlasError(f"the covariates of a batch of {n} must be ({n}, {len(names)}), got {tuple(values.shape)}")
        return (values,)

    def _log_odds(self, table: torch.Tensor) -> torch.Tensor:
        """Return the log-odds of the network's outputs, ``(n, k)`` float64."""
        if self.activation == "softmax":
            _refuse_one_output(table)
        self._refuse_probabilities(table)
        return log_odds(table, self.activation)

    def _activated(self, logits: torch.Tensor) -> torch.Tensor:
        if self.activation == "none":
            return logits
        logits = logits.to(torch.float32)
        logits = logits.unsqueeze(1) if logits.ndim == 1 else logits
        if logits.ndim == 0:
            return logits
        self._refuse_probabilities(logits)
        if self.activation == "softmax":
            _refuse_one_output(logits)
            return logits.softmax(dim=1)
        p = logits.sigmoid()
        return torch.cat([1 - p, p], dim=1) if p.shape[1] == 1 else p

    def _refuse_probabilities(self, outputs: torch.Tensor) -> None:
        """Refuse outputs that are probabilities, which another activation would press together.

        Logits of whatever kind are not all within [0, 1] with a sum of 1. Outputs of 0 and 1 alone may be set by hand.
        The first evaluation, of the intact scan, tells; later ones would make a device wait.
        """
        if self.activation == "none" or self._is_no_probability or outputs.ndim < 2 or outputs.shape[1] < 2:
            return
        if outputs.is_meta:  # these have no values, and are refused by name later
            return
        within, between = (outputs >= 0) & (outputs <= 1), (outputs > 0) & (outputs < 1)
        if bool(within.all()) and bool(between.any()) and bool(((outputs.sum(dim=1) - 1).abs() <= 1e-5).all()):
            raise GlasError(
                "the model returns probabilities already, its outputs are from 0 to 1 and add up to 1: give "
                f'activation="none" in place of "{self.activation}", which would change them'
            )
        self._is_no_probability = True


def _refuse_one_output(logits: torch.Tensor) -> None:
    if logits.shape[1] == 1:
        raise GlasError('softmax over one output is always 1: a one-logit model needs activation="sigmoid"')


def model_info(predict: Predictor | Callable[..., Any]) -> ModelInfo:
    """Return the description of a model; of a bare callable it holds the name alone."""
    return predict.info if isinstance(predict, Predictor) else ModelInfo(name=getattr(predict, "__name__", "callable"))
