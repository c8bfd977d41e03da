"""Methods that remove parts of the volume and evaluate the model again, by Captum and MONAI."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from glas3d.checks import whole_number
from glas3d.errors import GlasError
from glas3d.evaluate.rivals.rival import Rival, Task, captum, seeded, without_warnings

# Windows along each axis, by the number of axes: about as many as GLAS needs evaluations for its search points.
_TILES = {2: 15, 3: 6}


@dataclass(frozen=True, kw_only=True)
class Occlusion(Rival):
    """The mean drop by a sliding box that is put at the reference (Zeiler & Fergus 2014).

    Parameters
    ----------
    window
        Voxels of the box along each axis; it covers all channels. None: a fifteenth of an image's sides, a sixth of a
        volume's.
    stride
        Voxels from one box to the next along each axis. None: as many as the box has, so that boxes tile the volume.
    """

    window: Sequence[int] | None = None
    stride: Sequence[int] | None = None

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the map, ``(*spatial)``: each voxel has the mean drop of the boxes over it; see `Rival.attribute`.

        Raises
        ------
        GlasError
            ``window`` or ``stride`` does not have a number for each axis.
        """
        shape, channels = task.shape, len(task.difference)
        window = [math.ceil(n / _TILES[len(shape)]) for n in shape] if self.window is None else list(self.window)
        stride = window if self.stride is None else list(self.stride)
        for name, given in (("window", window), ("stride", stride)):
            if len(given) != len(shape):
                raise GlasError(f"{name} must have a number for each of {len(shape)} axes, got {tuple(given)}")
        with without_warnings():
            drops: torch.Tensor = (
                captum()
                .Occlusion(task.value)
                .attribute(
                    task.difference[None],
                    sliding_window_shapes=(channels, *window),
                    strides=(channels, *stride),
                    target=0,
                    perturbations_per_eval=task.batch_size,
                )
            )
        return drops[0].mean(dim=0)


@dataclass(frozen=True, kw_only=True)
class GaussianOcclusion(Rival):
    """The drop by a sliding Gaussian window that fades to the reference (MONAI's ``OcclusionSensitivity``).

    Parameters
    ----------
    window
        Voxels of a window along each axis, one number or one for each. None: two sixteenths of an image's sides, two
        sevenths of a volume's.
    overlap
        The share of a window that the next one covers too, from 0 to below 1.
    box
        First voxel and end along each axis: windows are placed inside only, and the map is NaN elsewhere. None:
        everywhere.
    """

    window: int | Sequence[int] | None = None
    overlap: float = 0.5
    box: Sequence[tuple[int, int]] | None = None

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the map, ``(*spatial)``; see `Rival.attribute`.

        Raises
        ------
        GlasError
            A box that does not have a pair for each axis, or lies outside the volume.
        """
        from monai.visualize.occlusion_sensitivity import OcclusionSensitivity

        shape = task.shape
        parts = _TILES[len(shape)] + 1
        window = [math.ceil(2 * n / parts) for n in shape] if self.window is None else self.window
        box = [(0, n) for n in shape] if self.box is None else list(self.box)
        if len(box) != len(shape) or any(not 0 <= low < end <= n for (low, end), n in zip(box, shape, strict=True)):
            raise GlasError(f"box must hold first voxel and end along each axis of {shape}, got {self.box!r}")
        with without_warnings(), torch.no_grad():
            occlude = OcclusionSensitivity(
                task.value,
                mask_size=window,
                overlap=self.overlap,
                mode="gaussian",
                n_batch=task.batch_size,
                activate=False,
                verbose=False,
            )
            occluded = occlude(task.difference[None], b_box=[edge for pair in box for edge in pair])[0]
            intact = task.value(task.difference[None])
        saliency = torch.full(shape, torch.nan, device=task.difference.device)
        inside = tuple(slice(low, end) for low, end in box)
        saliency[inside] = float(intact) - torch.as_tensor(occluded).to(saliency)[0, 0]
        return saliency


@dataclass(frozen=True, kw_only=True)
class FeatureAblation(Rival):
    """The drop when one region at a time is put at the reference (Captum)."""

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the values of the regions, ``(m,)``; see `Rival.attribute`."""
        return _of_regions(task, captum().FeatureAblation(task.game))


@dataclass(frozen=True, kw_only=True)
class ShapleySampling(Rival):
    """Shapley values of the regions, estimated from random orders (Castro et al. 2009, Captum).

    The values sum to the explained number of the volume less that of the volume without regions.

    Parameters
    ----------
    n_orders
        Random orders of the regions, each with one model evaluation for every region.
    seed
        Of the orders: the same seed gives the same map.

    Raises
    ------
    GlasError
        A number of orders that is not a whole number of at least 1.
    """

    n_orders: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        whole_number("n_orders", self.n_orders, least=1)

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the values of the regions, ``(m,)``; see `Rival.attribute`."""
        with seeded(self.seed, task.difference.device):
            return _of_regions(task, captum().ShapleyValueSampling(task.game), n_samples=self.n_orders)


@dataclass(frozen=True, kw_only=True)
class KernelShap(Rival):
    """Shapley values of the regions, from a weighted regression on random sets of them (Lundberg & Lee 2017).

    Parameters
    ----------
    n_samples
        Random sets of regions, each one model evaluation. None: two for each region, as many as light and shadow.
    seed
        Of the sets: the same seed gives the same map.

    Raises
    ------
    GlasError
        A number of sets that is not a whole number of at least 3.
    """

    n_samples: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_samples is not None:
            whole_number("n_samples", self.n_samples, least=3)

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the values of the regions, ``(m,)``; see `Rival.attribute`."""
        n_samples = max(3, 2 * task.n_regions) if self.n_samples is None else self.n_samples
        with seeded(self.seed, task.difference.device):
            return _of_regions(task, captum().KernelShap(task.game), n_samples=n_samples)


@dataclass(frozen=True, kw_only=True)
class Lime(Rival):
    """Weights of a ridge regression of the explained number on random sets of regions (LIME, Ribeiro et al. 2016).

    Sets are drawn and weighted as by the authors' code for images: each region is in a set with probability 1/2, sets
    are weighted by a Gaussian of width 0.25 of their cosine distance to the whole, and the penalty of the ridge is 1.

    Parameters
    ----------
    n_samples
        Random sets of regions, each one model evaluation.
    seed
        Of the sets: the same seed gives the same map.

    Raises
    ------
    GlasError
        A number of sets that is not a whole number of at least 2.
    """

    n_samples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        whole_number("n_samples", self.n_samples, least=2)

    def attribute(self, task: Task) -> torch.Tensor:
        """Return the values of the regions, ``(m,)``; see `Rival.attribute`."""
        attr = captum()
        from captum._utils.models.linear_model import SkLearnRidge
        from captum.attr._core.lime import get_exp_kernel_similarity_function

        lime = attr.Lime(
            task.game,
            interpretable_model=SkLearnRidge(alpha=1.0),
            similarity_func=get_exp_kernel_similarity_function("cosine", kernel_width=0.25),
        )
        with seeded(self.seed, task.difference.device):
            return _of_regions(task, lime, n_samples=self.n_samples)


def _of_regions(task: Task, method: Any, **settings: Any) -> torch.Tensor:
    """Return what a method of Captum attributes to the regions of the whole volume, ``(m,)``."""
    everything = torch.ones((1, task.n_regions), device=task.difference.device)
    with without_warnings():
        found: torch.Tensor = method.attribute(everything, target=0, perturbations_per_eval=task.batch_size, **settings)
    return found[0].detach()
