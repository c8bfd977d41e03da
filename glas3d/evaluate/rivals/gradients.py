"""Methods that follow gradients of the explained number to the voxels, by Captum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from glas3d.checks import is_number, whole_number
from glas3d.errors import GlasError
from glas3d.evaluate.rivals.rival import LINEAR, Rival, Task, captum, seeded, without_warnings
from glas3d.evaluate.rivals.value import ExplainedValue, is_convolution


def _attributed(task: Task, method: Callable[[Any, nn.Module], Any], **settings: Any) -> torch.Tensor:
    """Return what a method of Captum attributes to the volume, ``(c, *spatial)``."""
    with without_warnings():
        found: torch.Tensor = method(captum(), task.value).attribute(
            task.difference[None].clone(), target=0, **settings
        )
    return found[0].detach()


@contextmanager
def _no_relu_in_place(model: nn.Module) -> Iterator[None]:
    """Let no ReLU write over its input: torch refuses to hook the gradient of one that does."""
    in_place = [module for module in model.modules() if isinstance(module, nn.ReLU) and module.inplace]
    try:
        for module in in_place:
            module.inplace = False
        yield
    finally:
        for module in in_place:
            module.inplace = True


@dataclass(frozen=True, kw_only=True)
class Gradient(Rival):
    """The size of the gradient, the largest over channels (Simonyan et al. 2014)."""

    needs: ClassVar = ("gradients",)

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the map, ``(*spatial)``; see `Rival.attribute`."""
        return _attributed(task, lambda attr, value: attr.Saliency(value)).amax(dim=0)


@dataclass(frozen=True, kw_only=True)
class InputXGradient(Rival):
    """The gradient times what the volume has over the reference, summed over channels (Shrikumar et al. 2016)."""

    needs: ClassVar = ("gradients",)

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the map, ``(*spatial)``; see `Rival.attribute`."""
        return _attributed(task, lambda attr, value: attr.InputXGradient(value)).sum(dim=0)


@dataclass(frozen=True, kw_only=True)
class Deconvolution(Rival):
    """The gradient with a ReLU that passes positive gradients back (Zeiler & Fergus 2014), summed over channels."""

    needs: ClassVar = ("gradients", "relu")

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the map, ``(*spatial)``; see `Rival.attribute`."""
        with _no_relu_in_place(task.value):
            return _attributed(task, lambda attr, value: attr.Deconvolution(value)).sum(dim=0)


@dataclass(frozen=True, kw_only=True)
class GuidedBackprop(Rival):
    """The gradient with a ReLU that passes positive gradients of active units back (Springenberg et al. 2015)."""

    needs: ClassVar = ("gradients", "relu")

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the map summed over channels, ``(*spatial)``; see `Rival.attribute`."""
        with _no_relu_in_place(task.value):
            return _attributed(task, lambda attr, value: attr.GuidedBackprop(value)).sum(dim=0)


@dataclass(frozen=True, kw_only=True)
class SmoothGrad(Rival):
    """The size of the mean gradient of noisy copies of the volume, the largest over channels (Smilkov et al. 2017).

    Parameters
    ----------
    n_samples
        Noisy copies, each a forward and a backward pass.
    noise
        Standard deviation of the noise, as a share of the range of the volume's intensities.
    seed
        Of the noise: the same seed gives the same map.

    Raises
    ------
    GlasError
        A number outside its range.
    """

    needs: ClassVar = ("gradients",)
    n_samples: int = 24
    noise: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        whole_number("n_samples", self.n_samples, least=1)
        if not (is_number(self.noise) and self.noise >= 0):
            raise GlasError(f"noise must be 0 or a positive number, got {self.noise!r}")

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the map, ``(*spatial)``; see `Rival.attribute`."""
        deviation = self.noise * float(task.volume.max() - task.volume.min())
        with seeded(self.seed, task.difference.device):
            mean = _attributed(
                task,
                lambda attr, value: attr.NoiseTunnel(attr.Saliency(value)),
                nt_samples=self.n_samples,
                nt_samples_batch_size=1,  # so that the noise does not depend on the size of a batch
                stdevs=deviation,
                abs=False,
            )
        return mean.abs().amax(dim=0)


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(Rival):
    """The gradient integrated from the reference to the volume, times their difference (Sundararajan et al. 2017).

    The voxels' values sum to the explained number of the volume less that of the reference.

    Parameters
    ----------
    n_steps
        Points of the Gauss-Legendre rule, each a forward and a backward pass.

    Raises
    ------
    GlasError
        A number of steps that is not a whole number of at least 1.
    """

    needs: ClassVar = ("gradients",)
    n_steps: int = 24

    def __post_init__(self) -> None:
        whole_number("n_steps", self.n_steps, least=1)

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the map summed over channels, ``(*spatial)``; see `Rival.attribute`."""
        found = _attributed(
            task,
            lambda attr, value: attr.IntegratedGradients(value),
            n_steps=self.n_steps,
            internal_batch_size=task.batch_size,
        )
        return found.sum(dim=0).to(task.difference.dtype)


@dataclass(frozen=True, kw_only=True)
class GradCam(Rival):
    """A convolution's channels weighted by their mean gradients, positive part only (Grad-CAM, Selvaraju et al. 2017).

    Parameters
    ----------
    layer
        Name of the module whose channels are weighted, as ``named_modules`` of the network has it. None: the last
        convolution on which the output depends.
    """

    needs: ClassVar = ("gradients",)
    layer: str | None = None

    def check(self, value: ExplainedValue, name: str) -> None:
        """Refuse a network without such a layer; see `Rival.check`."""
        super().check(value, name)
        self._layer(value)

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the map interpolated to the voxels of the volume, ``(*spatial)``; see `Rival.attribute`.

        Raises
        ------
        GlasError
            The network has no such layer, or its output is no map.
        """
        attr, shape, layer = captum(), task.shape, self._layer(task.value)
        with without_warnings():
            coarse = attr.LayerGradCam(task.value, layer).attribute(
                task.difference[None].clone(), target=0, relu_attributions=True
            )
            fine: torch.Tensor = attr.LayerAttribution.interpolate(coarse, shape, LINEAR[len(shape)])
        return fine[0, 0].detach()

    def _layer(self, value: ExplainedValue) -> nn.Module:
        named: dict[str, nn.Module] = {}
        for network in value.modules_of_model:
            named |= {name: module for name, module in network.named_modules() if name not in named}
        if self.layer is None:
            candidates = [module for module in value.modules_of_model.modules() if is_convolution(module)]
            if not candidates:
                raise GlasError("grad_cam needs a network with a convolution, this model has none")
        elif self.layer in named:
            candidates = [named[self.layer]]
        else:
            raise GlasError(f"layer must name a module of the network, got {self.layer!r}")
        axes = value.difference.ndim - 1
        shapes = value.shapes_of_outputs
        maps = [module for module in candidates if len(shapes.get(module, ())) == 2 + axes]
        if not maps:
            got = "this model has none" if self.layer is None else f"got {self.layer!r}"
            if self.layer is not None and candidates[0] in shapes:
                got += f", whose output is {shapes[candidates[0]]}"
            raise GlasError(
                f"grad_cam needs a layer whose output is a map (n, channels, {axes} axes) that the model's output "
                f"depends on, {got}"
            )
        return maps[-1]
