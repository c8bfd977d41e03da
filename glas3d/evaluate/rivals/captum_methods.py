"""Methods of Captum, called on one volume and returning one map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from glas3d.checks import whole_number
from glas3d.errors import GlasError
from glas3d.evaluate.rivals.rival import LINEAR, Scores, feature_labels, spatial_shape, without_warnings


def _captum() -> Any:
    """Return the module ``captum.attr``.

    Raises
    ------
    GlasError
        Captum is not installed.
    """
    try:
        with without_warnings():
            import captum.attr
    except ImportError as error:
        raise GlasError(f'this method needs captum ({error}): pip install "glas3d[captum]"') from None
    return captum.attr


@dataclass(frozen=True, kw_only=True)
class GradCam:
    """Grad-CAM (Selvaraju et al. 2017): a convolution's channels weighted by their gradients, positive part only.

    Attributes
    ----------
    layer
        The name of the module whose channels are weighted, as ``named_modules`` has it. None: the last convolution.
    """

    layer: str | None = None

    def attribute(self, model: nn.Module, volume: torch.Tensor, target: int) -> torch.Tensor:
        """Return the map of one volume, interpolated to its voxels; see `Rival.attribute`.

        Parameters
        ----------
        model
            A module that turns a batch ``(n, c, *spatial)`` into scores ``(n, k)``.
        volume
            ``(c, *spatial)``.
        target
            The column that is explained.

        Raises
        ------
        GlasError
            Captum is not installed, or the module has no such layer.
        """
        captum, shape = _captum(), spatial_shape(volume)
        with without_warnings():
            cam = captum.LayerGradCam(model, self._layer(model))
            coarse = cam.attribute(volume.unsqueeze(0), target=target, relu_attributions=True)
            fine: torch.Tensor = captum.LayerAttribution.interpolate(coarse, shape, LINEAR[len(shape)])
        return fine[0, 0].detach()

    def _layer(self, model: nn.Module) -> nn.Module:
        modules: dict[str, nn.Module] = dict(model.named_modules())
        if self.layer is not None:
            if self.layer not in modules:
                raise GlasError(f"layer must name a module of the network, got {self.layer!r}")
            return modules[self.layer]
        convolutions = [module for module in modules.values() if isinstance(module, nn.Conv2d | nn.Conv3d)]
        if not convolutions:
            raise GlasError("Grad-CAM needs a network with a convolution, or the name of a layer")
        return convolutions[-1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lime:
    """LIME (Ribeiro et al. 2016): a linear model of the score, fitted to random sets of regions left in the volume.

    Attributes
    ----------
    features
        ``(*spatial)`` whole numbers: the region of each voxel.
    n_samples
        How many random sets, each one model evaluation.
    background
        The intensity of voxels that are taken out.
    batch_size
        Perturbed volumes in a batch.
    seed
        Of the random sets: the same seed gives the same map.
    """

    features: np.ndarray | torch.Tensor = field(repr=False)
    n_samples: int = 1000
    background: float = 0.0
    batch_size: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n_samples", "batch_size"):
            whole_number(name, getattr(self, name), least=1)

    def attribute(self, model: Scores, volume: torch.Tensor, target: int) -> torch.Tensor:
        """Return the map of one volume: each voxel has the weight of its region; see `Rival.attribute`.

        Parameters
        ----------
        model
            Turns a batch ``(n, c, *spatial)`` into scores ``(n, k)``.
        volume
            ``(c, *spatial)``.
        target
            The column that is explained.

        Raises
        ------
        GlasError
            Captum is not installed, or ``features`` is not on the voxels of the volume.
        """
        captum, labels = _captum(), feature_labels(self.features, volume)
        with without_warnings(), torch.random.fork_rng():
            torch.manual_seed(self.seed)
            weights: torch.Tensor = captum.Lime(model).attribute(
                volume.unsqueeze(0),
                baselines=self.background,
                target=target,
                n_samples=self.n_samples,
                feature_mask=labels,
                perturbations_per_eval=self.batch_size,
            )
        return weights[0, 0]


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureAblation:
    """How much the score falls when one region at a time is replaced by a background.

    Attributes
    ----------
    features
        ``(*spatial)`` whole numbers: the region of each voxel.
    background
        The intensity that takes a region's place.
    batch_size
        Perturbed volumes in a batch; None: Captum's choice, 1.
    """

    features: np.ndarray | torch.Tensor = field(repr=False)
    background: float = 0.0
    batch_size: int | None = None

    def attribute(self, model: Scores, volume: torch.Tensor, target: int) -> torch.Tensor:
        """Return the map of one volume: each voxel has the drop of its region; see `Rival.attribute`.

        Parameters
        ----------
        model
            Turns a batch ``(n, c, *spatial)`` into scores ``(n, k)``.
        volume
            ``(c, *spatial)``.
        target
            The column that is explained.

        Raises
        ------
        GlasError
            Captum is not installed, or ``features`` is not on the voxels of the volume.
        """
        captum, labels = _captum(), feature_labels(self.features, volume)
        with without_warnings():
            drops: torch.Tensor = captum.FeatureAblation(model).attribute(
                volume.unsqueeze(0),
                baselines=self.background,
                target=target,
                feature_mask=labels,
                **_per_batch(self.batch_size),
            )
        return drops[0].mean(dim=0)


@dataclass(frozen=True, kw_only=True)
class Occlusion:
    """How much the score falls when a sliding box is replaced by a background (Zeiler & Fergus 2014).

    Attributes
    ----------
    window
        Voxels of the box along each axis; it covers all channels.
    stride
        Voxels from one box to the next along each axis. None: as many as the box has, so that boxes tile the volume.
    background
        The intensity that takes the box's place.
    batch_size
        Perturbed volumes in a batch; None: Captum's choice, 1.
    """

    window: Sequence[int]
    stride: Sequence[int] | None = None
    background: float = 0.0
    batch_size: int | None = None

    def attribute(self, model: Scores, volume: torch.Tensor, target: int) -> torch.Tensor:
        """Return the map of one volume: each voxel has the mean drop of the boxes over it; see `Rival.attribute`.

        Parameters
        ----------
        model
            Turns a batch ``(n, c, *spatial)`` into scores ``(n, k)``.
        volume
            ``(c, *spatial)``.
        target
            The column that is explained.

        Raises
        ------
        GlasError
            Captum is not installed, or ``window`` or ``stride`` does not have a number for each axis.
        """
        captum, shape = _captum(), spatial_shape(volume)
        stride = self.window if self.stride is None else self.stride
        for name, given in (("window", self.window), ("stride", stride)):
            if len(given) != len(shape):
                raise GlasError(f"{name} must have a number for each of {len(shape)} axes, got {tuple(given)}")
        with without_warnings():
            drops: torch.Tensor = captum.Occlusion(model).attribute(
                volume.unsqueeze(0),
                sliding_window_shapes=(len(volume), *self.window),
                strides=(len(volume), *stride),
                baselines=self.background,
                target=target,
                **_per_batch(self.batch_size),
            )
        return drops[0].mean(dim=0)


def _per_batch(batch_size: int | None) -> dict[str, int]:
    return {} if batch_size is None else {"perturbations_per_eval": batch_size}
