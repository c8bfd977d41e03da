"""GLAS and the rivals as they are timed: stock, and tuned as GLAS is.

Every method is bound to a net first, so that the timed call holds nothing but the method. Its map holds how much the
model depends on each voxel, NaN in voxels that the method does not cover.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.workloads import DEVICE, Workload
from glas3d import GLAS, Predictor
from glas3d.core.threads import torch_threads
from glas3d.evaluate.rivals import ExplainedValue, FeatureAblation, GaussianOcclusion, Occlusion, Rival, Task
from glas3d.predict import keep_memory

TARGET = 1
# Batches of two inputs that ten scans of 116 regions take.
BATCHES_TO_COME = 1170


def resolve_auto(net: nn.Module, batch: torch.Tensor) -> str:
    """Let ``auto`` choose an engine for ten scans of 116 regions and return its name; later explanations use it too."""
    predict: Any = Predictor(net, "softmax", device=DEVICE).with_engine("auto", BATCHES_TO_COME)
    with torch.inference_mode():
        predict(batch)
    chosen: str = predict.engine
    return chosen


def bare_forward_passes(predict: Any, batches: list[torch.Tensor]) -> Callable[[], None]:
    """Return a call of forward passes alone, with as many threads of torch as an explanation uses (docs/engines.md)."""

    def call() -> None:
        with torch_threads(predict.torch_threads), torch.inference_mode():
            for batch in batches:
                predict(batch)

    predict(batches[0])  # the engine is resolved while torch has all its threads
    return call


def channels_last(net: nn.Module) -> nn.Module:
    """Return a copy whose channels are adjacent in memory, which makes some convolutions faster."""
    made = copy.deepcopy(net)
    for tensor in [*made.parameters(), *made.buffers()]:
        if tensor.ndim in (4, 5):
            memory_format = torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d
            tensor.data = tensor.data.contiguous(memory_format=memory_format)
    return made


@dataclass(frozen=True)
class Method(ABC):
    """A method with the workload that it explains.

    Attributes
    ----------
    workload
        The net, its volume and its regions.
    batch
        Inputs in a batch; None: the method's own default.
    """

    workload: Workload
    batch: int | None = None
    name = ""

    @property
    @abstractmethod
    def evaluations(self) -> int:
        """The number of different inputs evaluated, the intact one among them if the method evaluates it."""

    @property
    @abstractmethod
    def n_parts(self) -> int:
        """The number of regions or windows that the map is about."""

    @abstractmethod
    def bind(self, net: nn.Module) -> Callable[[], Any]:
        """Return the call that is timed."""

    def tuned(self, net: nn.Module) -> Callable[[], Any]:
        """Return the call on the net with adjacent channels, in memory that is kept between forward passes."""
        call = self.bind(channels_last(net))

        def kept() -> Any:
            with keep_memory():
                return call()

        return kept

    @abstractmethod
    def planted(self) -> np.ndarray:
        """Return the voxels of one region or window, boolean ``(*spatial)``."""

    @abstractmethod
    def map(self, result: Any) -> np.ndarray:
        """Return the map ``(*spatial)`` from what the call returned."""


@dataclass(frozen=True)
class Glas(Method):
    """`GLAS.explain` with light and shadow, over the workload's regions."""

    name = "glas3d GLAS"
    engine: str = "eager"  # the rivals evaluate the network itself

    @property
    def evaluations(self) -> int:
        return 2 * self.n_parts + 1

    @property
    def n_parts(self) -> int:
        return len(self.workload.segments.index)

    def bind(self, net: nn.Module) -> Callable[[], Any]:
        light, shadow = self.workload.sigmas
        predict = Predictor(net, "softmax", device=DEVICE)
        glas = GLAS(predict, sigma_light=light, sigma_shadow=shadow, batch_size=self.batch, engine=self.engine)
        return lambda: glas.explain(self.workload.volume, TARGET, self.workload.segments)

    def planted(self) -> np.ndarray:
        return self.workload.segments.labels == self.workload.segments.index[0]

    def map(self, result: Any) -> np.ndarray:
        segments = self.workload.segments
        return np.where(np.isin(segments.labels, segments.index), result.saliency, np.nan)


def bind_rival(rival: Rival, net: nn.Module, workload: Workload, labels: np.ndarray, batch: int) -> Callable[[], Any]:
    """Return the call of a rival on a net, for the regions of ``labels``."""
    predict = Predictor(net, "softmax", device=DEVICE)
    value = ExplainedValue(predict, workload.volume, TARGET, batch_size=batch)
    task = Task.of(value, labels)

    def call() -> Any:
        with value.prepared():
            return rival.attribute(task)

    return call


class RivalMethod(Method):
    """A rival of `glas3d.evaluate.rivals`."""

    stock_batch = 1  # inputs in a batch that the rival's library takes by default

    @abstractmethod
    def rival(self) -> Rival:
        """Return the rival with its settings for this workload."""

    @property
    def labels(self) -> np.ndarray:
        """The regions of the rival, ``(*spatial)``."""
        return np.ones(self.workload.shape, dtype=int)

    def bind(self, net: nn.Module) -> Callable[[], Any]:
        return bind_rival(self.rival(), net, self.workload, self.labels, self.batch or self.stock_batch)

    def map(self, result: Any) -> np.ndarray:
        return result.cpu().numpy()


@dataclass(frozen=True)
class MonaiOcclusion(RivalMethod):
    """MONAI `OcclusionSensitivity(mode="gaussian")` in a box in the middle; the overlap is MONAI's default."""

    name = "MONAI OcclusionSensitivity"
    overlap = 0.6
    stock_batch = 16

    @property
    def evaluations(self) -> int:
        return self.n_parts + 1

    @property
    def n_parts(self) -> int:
        return math.prod(self.workload.windows)

    @property
    def _box(self) -> list[tuple[int, int]]:
        """First voxel and end along each axis, so large that `windows` windows fit."""
        window = self.workload.window
        step, edge = int(window * (1 - self.overlap)), (window - 1) // 2
        box = []
        for n, k in zip(self.workload.shape, self.workload.windows, strict=True):
            length = window + step * (k - 1) - 2 * edge
            box.append(((n - length) // 2, (n - length) // 2 + length))
        return box

    def rival(self) -> Rival:
        return GaussianOcclusion(window=self.workload.window, overlap=self.overlap, box=self._box)

    def planted(self) -> np.ndarray:
        voxels = np.zeros(self.workload.shape, dtype=bool)
        voxels[tuple(slice(low, low + 2) for low, _ in self._box)] = True
        return voxels


@dataclass(frozen=True)
class CaptumAblation(RivalMethod):
    """Captum `FeatureAblation` over the regions."""

    name = "Captum FeatureAblation"

    @property
    def evaluations(self) -> int:
        return self.n_parts + 1

    @property
    def n_parts(self) -> int:
        return len(self.workload.segments.index)

    @property
    def labels(self) -> np.ndarray:
        return self.workload.segments.paint(np.arange(1, self.n_parts + 1)).astype(int)

    def rival(self) -> Rival:
        return FeatureAblation()

    def map(self, result: Any) -> np.ndarray:
        segments = self.workload.segments
        return np.where(self.labels > 0, segments.paint(result.cpu().numpy()), np.nan)

    def planted(self) -> np.ndarray:
        return self.workload.segments.labels == self.workload.segments.index[0]


@dataclass(frozen=True)
class CaptumOcclusion(RivalMethod):
    """Captum `Occlusion` with windows that tile the whole volume."""

    name = "Captum Occlusion"

    @property
    def evaluations(self) -> int:
        return self.n_parts + 1

    @property
    def n_parts(self) -> int:
        return math.prod(self.workload.windows)

    @property
    def _window(self) -> tuple[int, ...]:
        """Voxels of a window along each axis: few windows are large, because Captum takes no gaps between them."""
        return tuple(-(-n // k) for n, k in zip(self.workload.shape, self.workload.windows, strict=True))

    def rival(self) -> Rival:
        return Occlusion(window=self._window)

    def planted(self) -> np.ndarray:
        voxels = np.zeros(self.workload.shape, dtype=bool)
        voxels[tuple(slice(0, n) for n in self._window)] = True
        return voxels


RIVALS: tuple[type[Method], ...] = (MonaiOcclusion, CaptumAblation, CaptumOcclusion)
