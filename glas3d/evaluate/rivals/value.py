"""The model as a rival method meets it: one number of a volume, and the same number of a set of regions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from glas3d.core.agreement import allowed_difference, differ
from glas3d.core.covariates import Covariates
from glas3d.core.foreign_code import failures_of, is_out_of_memory
from glas3d.core.link import log_odds
from glas3d.core.model import NoLogOdds, Predict, classes_of
from glas3d.core.modules import EvalMode, modules_in
from glas3d.core.score import Target, bind, class_index
from glas3d.core.volume import Background, as_reference, as_volume
from glas3d.errors import GlasError, GlasWarning
from glas3d.evaluate.rivals.methods import Link
from glas3d.predict import Predictor
from glas3d.predict.device import exact_kernels
from glas3d.predict.model_output import columns, model_errors, one_tensor

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class ExplainedValue(nn.Module):
    """The number that is explained, of volumes that are given as differences from the reference.

    A difference ``d`` stands for the volume ``B + d``: where a method of another library puts 0, the reference ``B``
    stands. All methods have the same reference by this alone, whether they take one or not.

    Parameters
    ----------
    predict
        The model; its preprocessing is fitted to the volume.
    volume
        ``(c, *spatial)``, intensities before normalisation.
    target
        Index or name of the explained class.
    reference
        What stands where the volume is removed: a number, ``(*spatial)`` or ``(c, *spatial)``.
    link
        ``"probability"``: the model's output for the class. ``"logit"``: its log-odds against all other classes.
        ``"auto"``: log-odds where the model has logits or its outputs are probabilities, else its output.
    batch_size
        Volumes that the model is given at once.
    covariates
        The participant's, where the model takes some: it is given their values with every volume.

    Attributes
    ----------
    evaluations
        Model evaluations so far; a backward pass counts as two.
    link
        The link that was resolved.
    target
        Index of the explained class.
    intact, removed
        The explained number of the intact volume, and of the reference.
    probability
        The model's output for the class, of the intact volume.
    why_no_log_odds
        Why ``"auto"`` found no log-odds; empty if it did or was not given.

    Raises
    ------
    GlasError
        The target is no class, log-odds cannot be had, or a model that takes covariates is given none.
    """

    def __init__(
        self,
        predict: Predict,
        volume: Any,
        target: Target,
        *,
        reference: Background = 0.0,
        link: Link | Literal["auto"] = "probability",
        batch_size: int = 2,
        covariates: Covariates | None = None,
    ) -> None:
        super().__init__()
        array = as_volume(volume)
        if link not in ("probability", "logit", "auto"):
            raise GlasError(f"link must be probability, logit or auto, got {link!r}")
        self._predict, device = bind(predict, array)
        # captum reaches layers by way of this module
        self.modules_of_model = nn.ModuleList(top_level(modules_in(self._predict)))
        self.reference = as_reference(reference, array).to(device)
        self.difference = array.to(device) - self.reference
        self.batch_size = batch_size
        self._covariates = None if covariates is None else torch.as_tensor(covariates.values[None]).to(self.reference)
        self.evaluations = 0
        # Not `eval()`: each module of the model keeps its mode, and libraries that put a wrapper "back" into training
        # mode leave this one alone.
        self.training = False
        self.target, self.link, self.why_no_log_odds = -1, link, ""
        self.intact = self.removed = self.probability = float("nan")
        self._resolve(target)

    def forward(self, difference: torch.Tensor) -> torch.Tensor:
        """Return the number of each volume, ``(n, 1)``, and count the evaluations.

        Parameters
        ----------
        difference
            ``(n, c, *spatial)``, the volumes less the reference.
        """
        values = torch.cat([self._values(part) for part in torch.split(difference, self.batch_size)])
        n = len(values)
        self.evaluations += n
        if values.requires_grad:
            values.register_hook(lambda gradient: self._count_backward(n))  # type: ignore[no-untyped-call]
        return values.unsqueeze(1)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """Hold the model in eval mode without gradients of its weights, and leave everything of it as it was."""
        modules = modules_in(self._predict)
        states = [
            (module, module.training, {name: dict(vars(module)[name]) for name in _HOOKS if name in vars(module)})
            for module in modules
        ]
        weights = list(dict.fromkeys(p for module in modules for p in module.parameters(recurse=False)))
        gradients = [(weight.requires_grad, weight.grad) for weight in weights]
        try:
            for weight in weights:
                weight.requires_grad_(False)
            with EvalMode(modules) as evaluation, evaluation.watching(), exact_kernels(), torch.inference_mode(False):
                yield
        finally:
            for weight, (required, gradient) in zip(weights, gradients, strict=True):
                weight.requires_grad_(required)
                weight.grad = gradient
            for module, training, hooks in states:
                module.training = training
                for name, kept in hooks.items():
                    current = vars(module)[name]
                    current.clear()
                    current.update(kept)

    def require(self, needs: Sequence[str], method: str) -> None:
        """Refuse a model that lacks something that a method needs.

        Parameters
        ----------
        needs
            ``"gradients"``: gradients flow from the output to the input. ``"relu"``: every ReLU is a module
            ``nn.ReLU``, whose gradient can be replaced.
        method
            Name of the method, for the message.

        Raises
        ------
        GlasError
            Something is missing.
        """
        if "gradients" in needs:
            self._require_gradients(method)
        if "relu" in needs:
            self._require_relu(method)

    @cached_property
    def shapes_of_outputs(self) -> dict[nn.Module, tuple[int, ...]]:
        """The shape of the output for the volume of each module on whose output the number depends."""
        outputs: dict[nn.Module, torch.Tensor] = {}

        def keep(module: nn.Module, _: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.requires_grad:
                outputs[module] = output

        with self._evaluated(keep, gradients=True) as (value, _):
            gradients = torch.autograd.grad(value, list(outputs.values()), allow_unused=True) if outputs else ()
        return {
            module: tuple(output.shape)
            for (module, output), gradient in zip(outputs.items(), gradients, strict=True)
            if gradient is not None
        }

    def _require_gradients(self, method: str) -> None:
        needed = f"{method} needs a torch network through which gradients flow to its input, got none: its output"
        try:
            with self._evaluated(gradients=True) as (value, probe):
                (gradient,) = torch.autograd.grad(value, probe, allow_unused=True) if value.requires_grad else (None,)
        except Exception as error:  # whatever the code of a model raises when it is given such a tensor
            if is_out_of_memory(error):
                raise
            raise GlasError(f"{needed} cannot be had of a tensor that requires gradients") from error
        if gradient is None:
            raise GlasError(f"{needed} does not depend on its input by way of torch")

    def _require_relu(self, method: str) -> None:
        """Count the ReLUs of a forward pass, and those of them that are modules."""
        of_modules = 0

        def count(module: nn.Module, *_: object) -> None:
            nonlocal of_modules
            of_modules += isinstance(module, nn.ReLU)

        with _CountedRelus() as relus, self._evaluated(count):
            pass
        if relus.count == 0:
            raise GlasError(f"{method} changes the gradient of ReLUs, this model has none")
        if of_modules < relus.count:
            raise GlasError(
                f"{method} needs every ReLU of the network as a module nn.ReLU, "
                f"{relus.count - of_modules} of {relus.count} are functions"
            )

    @contextmanager
    def _evaluated(
        self, hook: Callable[..., None] = lambda *_: None, *, gradients: bool = False
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Evaluate the volume for a check, which is not counted, and yield its number and the input of the model.

        Parameters
        ----------
        hook
            Called with each module that is evaluated, its inputs and its output.
        gradients
            Whether gradients flow to the input.
        """
        with self.prepared(), torch.set_grad_enabled(gradients):
            probe = self.difference[None].clone().requires_grad_(gradients)
            handle = nn.modules.module.register_module_forward_hook(hook)
            try:
                values = self._values(probe)
            finally:
                handle.remove()
            yield values.sum(), probe

    def _count_backward(self, n: int) -> None:
        self.evaluations += 2 * n

    def _values(self, difference: torch.Tensor) -> torch.Tensor:
        """Return ``(n,)`` numbers of at most a batch."""
        outputs, activation = self._outputs(self.reference + difference)
        if self.link == "logit":
            return self._log_odds(outputs, activation)
        return _activated(outputs, activation)[:, self.target]

    def _log_odds(self, outputs: torch.Tensor, activation: str) -> torch.Tensor:
        """Return the log-odds ``(n,)`` of the class of outputs and the activation that they lack, see `_outputs`."""
        if activation == "readout":
            raise NoLogOdds(
                'link="logit" needs the logits of a class, a readout gives other numbers: link="probability"'
            )
        return log_odds(outputs, activation)[:, self.target]

    def _outputs(self, batch: torch.Tensor) -> tuple[torch.Tensor, str]:
        """Return the model's outputs ``(n, k)`` and the activation that they still lack."""
        predict = self._predict
        covariates = () if self._covariates is None else (self._covariates.expand(len(batch), -1),)
        output: Any
        if not isinstance(predict, Predictor):
            with failures_of(f"the model does not take a batch of {tuple(batch.shape)}"):
                output = predict(batch, *covariates)
            return columns(one_tensor(output), batch), "none"
        with model_errors(predict.info.name, batch):
            transform: Any = predict.transform
            output = predict.net(batch if transform is None else transform(batch), *covariates)
        if predict.readout is None:
            return columns(one_tensor(output), batch), predict.activation
        if predict.activation != "none":
            output = _activated(one_tensor(output), predict.activation)
        return columns(one_tensor(predict.readout(output), "readout"), batch, "readout"), "readout"

    def _resolve(self, target: Target) -> None:
        """Evaluate the intact volume and the reference once to check them, and choose target and link."""
        classes = classes_of(self._predict)
        if isinstance(target, str):
            class_index(target, classes, None)
        if self._covariates is None and isinstance(self._predict, Predictor) and self._predict.covariates is not None:
            raise GlasError(
                f"the model {self._predict.info.name} takes the covariates {', '.join(self._predict.covariates)}: "
                "give their values"
            )
        both = torch.stack([self.difference, torch.zeros_like(self.difference)])
        with self.prepared(), torch.no_grad():
            parts = [self._outputs(self.reference + one[None]) for one in both]
            activation = parts[0][1]
            outputs = torch.cat([output for output, _ in parts])
            self._check_independence(both, outputs)
        probabilities = _activated(outputs, activation)
        if not torch.isfinite(probabilities).all():
            raise GlasError(f"a model must return finite outputs, got {probabilities.flatten().tolist()[:4]} ...")
        self.target = class_index(target, classes, probabilities.shape[1])
        self.probability = float(probabilities[0, self.target])
        explained = probabilities[:, self.target]
        if self.link != "probability":
            try:
                explained = self._log_odds(outputs, activation)
                self.link = "logit"
            except NoLogOdds as why:
                if self.link == "logit":
                    raise
                self.link, self.why_no_log_odds = "probability", str(why)
        self.intact, self.removed = explained.tolist()

    def _check_independence(self, both: torch.Tensor, alone: torch.Tensor) -> None:
        """Evaluate volumes one at a time where their outputs differ in a batch; refuse a model that is random."""
        outputs = alone.cpu().double().numpy()
        allowed = allowed_difference(outputs)
        together = self._outputs(self.reference + both)[0].cpu().double().numpy()
        if not differ(together, outputs, allowed):
            return
        again = np.concatenate([self._outputs(self.reference + one[None])[0].cpu().double().numpy() for one in both])
        if differ(again, outputs, allowed):
            raise GlasError(
                "a model must give the same scan the same output each time, this model's changed by "
                f"{np.abs(again - outputs).max():.2g}"
            )
        self.batch_size = 1
        warnings.warn(
            "the output for a scan depends on the other inputs of its batch: inputs are evaluated one at a time",
            GlasWarning,
            stacklevel=4,
        )


def _activated(outputs: torch.Tensor, activation: str) -> torch.Tensor:
    """Return probabilities from logits, as `Predictor` does; outputs without a pending activation stay as they are."""
    if activation == "softmax":
        return outputs.softmax(dim=1)
    if activation == "sigmoid":
        p = outputs.sigmoid()
        return torch.cat([1 - p, p], dim=1) if p.shape[1] == 1 else p
    return outputs


class RegionGame:
    """The explained number of a set of regions: those of the set as they are, the others at the reference.

    Voxels of no region are always as they are.

    Parameters
    ----------
    value
        The number of a volume.
    labels
        ``(*spatial)`` int64: 0 for voxels of no region, and 1 to ``m`` for those of the regions.
    """

    def __init__(self, value: ExplainedValue, labels: torch.Tensor) -> None:
        self._value, self._labels = value, labels

    def __call__(self, present: torch.Tensor) -> torch.Tensor:
        """Return the numbers ``(n, 1)`` of sets ``(n, m)`` of regions, 1 where a region is in the set."""
        values = [self._one_batch(part) for part in torch.split(present, self._value.batch_size)]
        return torch.cat(values)

    def _one_batch(self, present: torch.Tensor) -> torch.Tensor:
        weights = torch.cat([torch.ones_like(present[:, :1]), present], dim=1).to(self._value.difference.dtype)
        values: torch.Tensor = self._value(self._value.difference * weights[:, self._labels].unsqueeze(1))
        return values


def top_level(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """Return the modules that are in none of the others."""
    inner = {id(child) for module in modules for child in module.modules() if child is not module}
    return [module for module in modules if id(module) not in inner]


def is_convolution(module: nn.Module) -> bool:
    """Return whether a module is a convolution of images or volumes."""
    return isinstance(module, nn.Conv2d | nn.Conv3d)


class _CountedRelus(TorchFunctionMode):
    """Counts the calls of ReLU, by modules and by functions alike."""

    count = 0

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        self.count += getattr(function, "__name__", "") in ("relu", "relu_")
        return function(*arguments, **(keywords or {}))
