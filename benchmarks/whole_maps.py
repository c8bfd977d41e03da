"""A whole map of a photograph by each method of the paper's table 3, with as many evaluations as its authors use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from benchmarks.checks import InsufficientWork, count_inputs
from benchmarks.methods import TARGET, bind_rival, resolve_auto
from benchmarks.rows import Row, row
from benchmarks.timing import time_in_rounds
from benchmarks.workloads import DEVICE, Workload, workloads
from glas3d import GLAS, Grid, Predictor
from glas3d.core.glas import default_batch_size
from glas3d.evaluate import rivals

_BATCH = 16
Call = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class MapMethod(ABC):
    """A method that makes one map of a photograph.

    Attributes
    ----------
    workload
        A photograph and its net.
    timed
        Inputs evaluated in the timed call.
    published
        Inputs that the authors evaluate: every input costs the same, so the time is multiplied.
    """

    workload: Workload
    timed: int
    published: int
    name = ""

    @abstractmethod
    def bind(self, net: nn.Module) -> Call:
        """Return the call that is timed; it returns a map ``(*spatial)``."""

    @property
    def work(self) -> str:
        """How many evaluations are made, in words."""
        timed = "" if self.timed == self.published else f", {self.timed:,} of them timed"
        return f"{self.published:,} evaluations{timed}"


@dataclass(frozen=True)
class GlasMap(MapMethod):
    """GLAS on the paper's grid."""

    name = "glas3d GLAS"
    engine: str = "auto"

    def bind(self, net: nn.Module) -> Call:
        cells = round(((self.timed - 1) / 2) ** 0.5)
        light, shadow = self.workload.sigmas
        predict = Predictor(net, "softmax", device=DEVICE)
        glas = GLAS(predict, sigma_light=light, sigma_shadow=shadow, engine=self.engine)
        return lambda: torch.as_tensor(glas.explain(self.workload.volume, TARGET, Grid(cells)).saliency)  # type: ignore[union-attr]


@dataclass(frozen=True)
class GradCamMap(MapMethod):
    """Captum `LayerGradCam` of the last convolution, interpolated."""

    name = "Captum LayerGradCam"

    def bind(self, net: nn.Module) -> Call:
        return bind_rival(rivals.GradCam(), net, self.workload, _whole(self.workload), _BATCH)


@dataclass(frozen=True)
class LimeMap(MapMethod):
    """Captum `Lime` over the superpixels of scikit-image, which are part of the time."""

    name = "Captum Lime"

    def bind(self, net: nn.Module) -> Call:
        from skimage.segmentation import slic

        picture = self.workload.volume.cpu().numpy() / 255
        method = rivals.Lime(n_samples=self.timed)

        def call() -> torch.Tensor:
            superpixels = slic(picture, n_segments=60, channel_axis=0, start_label=1)
            weights = bind_rival(method, net, self.workload, superpixels, _BATCH)()
            return torch.as_tensor(weights)[torch.from_numpy(superpixels) - 1]

        return call


@dataclass(frozen=True)
class RiseMap(MapMethod):
    """RISE with masks of 7 x 7 cells, half of them kept."""

    name = "RISE"

    def bind(self, net: nn.Module) -> Call:
        return bind_rival(rivals.Rise(n_masks=self.timed), net, self.workload, _whole(self.workload), _BATCH)


@dataclass(frozen=True)
class MaskMap(MapMethod):
    """MASK with a mask of 28 x 28 cells."""

    name = "MASK"

    def bind(self, net: nn.Module) -> Call:
        return bind_rival(rivals.Mask(n_steps=self.timed), net, self.workload, _whole(self.workload), _BATCH)


def _whole(workload: Workload) -> np.ndarray:
    """Return labels of the volume as one region, for methods that are not about regions."""
    return np.ones(workload.shape, dtype=int)


def map_methods(workload: Workload, quick: bool) -> list[MapMethod]:
    """Return the methods, GLAS first."""
    if quick:
        return [
            GlasMap(workload, 19, 19), GlasMap(workload, 19, 19, engine="eager"), GradCamMap(workload, 1, 1),
            LimeMap(workload, 20, 20), MaskMap(workload, 3, 300), RiseMap(workload, 20, 4000),
        ]  # fmt: skip
    return [
        GlasMap(workload, 451, 451), GlasMap(workload, 451, 451, engine="eager"), GradCamMap(workload, 1, 1),
        LimeMap(workload, 1000, 1000), MaskMap(workload, 60, 300), RiseMap(workload, 480, 4000),
    ]  # fmt: skip


def whole_map_rows(quick: bool, repeats: int) -> Iterator[Row]:
    """Yield the seconds of a whole map by each method, over those of GLAS."""
    workload = next(each for each in workloads(quick) if each.mm is None)
    net = workload.build()
    size = default_batch_size(workload.volume.numel(), torch.device(DEVICE))
    resolve_auto(net, workload.volume.unsqueeze(0).repeat(size, 1, 1, 1))
    methods = {
        f"{method.name} by {method.engine}" if isinstance(method, GlasMap) else method.name: method
        for method in map_methods(workload, quick)
    }
    calls: dict[str, Call] = {}
    for name, method in methods.items():
        calls[name] = method.bind(net)
        inputs, saliency = count_inputs(calls[name], net)
        if inputs < method.timed and not (isinstance(method, GlasMap) and method.engine == "auto"):
            raise InsufficientWork(f"{name} must evaluate {method.timed} inputs, the net saw {inputs}")
        empty = not float(saliency.std()) > 0 and not isinstance(method, GradCamMap)  # nothing may speak for a class
        if saliency.shape != workload.shape or not bool(saliency.isfinite().all()) or empty:
            raise InsufficientWork(
                f"{name} made no map: {tuple(saliency.shape)}, from {float(saliency.min())} to {float(saliency.max())}"
            )
    times = time_in_rounds(calls, repeats)
    share = {name: method.timed / method.published for name, method in methods.items()}
    glas = next(iter(methods))
    for name, method in methods.items():
        if name != glas:
            yield row(
                "maps", workload, name, glas, "higher", times.ratio(name, glas, share[name], share[glas]),
                times.of(name, share[name]).median, unit="s a map", work=method.work,
            )  # fmt: skip
