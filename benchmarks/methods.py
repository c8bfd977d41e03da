"""Ours and the rivals', each as it is called: stock, and tuned as ours is.

Every method is bound to a net first, so that the timed call holds nothing but the method. Its map says how much the
answer depends on each voxel, NaN where it was not asked.
"""

from __future__ import annotations

import copy
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.subjects import DEVICE, Subject
from glas3d import GLAS, Predictor
from glas3d.core.threads import torch_threads
from glas3d.predict import keep_memory

TARGET = 1
# Batches of two inputs that ten scans take.
TO_COME = 1170


@contextmanager
def quiet() -> Iterator[None]:
    """Whatever a rival warns about is no figure."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def settle(net: nn.Module, batch: torch.Tensor) -> str:
    """Let `auto` choose for ten scans of 116 regions, and say what it chose: explanations that follow take it."""
    predict: Any = Predictor(net, "softmax", device=DEVICE).with_engine("auto", TO_COME)
    with torch.inference_mode():
        predict(batch)
    chosen: str = predict.engine
    return chosen


def bare(predict: Any, batches: list[torch.Tensor]) -> Callable[[], None]:
    """Forwards alone, with as many threads of torch as an explanation leaves it (docs/engines.md)."""

    def call() -> None:
        with torch_threads(predict.torch_threads), torch.inference_mode():
            for batch in batches:
                predict(batch)

    predict(batches[0])  # settled while torch has its threads
    return call


def _channels_last(net: nn.Module) -> nn.Module:
    """A copy whose channels lie side by side: faster convolutions, where there are any."""
    made = copy.deepcopy(net)
    for tensor in [*made.parameters(), *made.buffers()]:
        if tensor.ndim in (4, 5):
            kept = torch.channels_last if tensor.ndim == 4 else torch.channels_last_3d
            tensor.data = tensor.data.contiguous(memory_format=kept)
    return made


@dataclass(frozen=True)
class Method(ABC):
    """One way to ask a net about one subject's volume.

    Attributes
    ----------
    batch
        Inputs a forward; None: the method's own default.
    """

    subject: Subject
    batch: int | None = None
    name = ""

    @property
    @abstractmethod
    def forwards(self) -> int:
        """Different inputs the net is asked about, the intact one among them where the method asks it."""

    @property
    @abstractmethod
    def places(self) -> int:
        """Regions or windows the answer is about."""

    @abstractmethod
    def bind(self, net: nn.Module) -> Callable[[], Any]:
        """The call that is timed."""

    def tuned(self, net: nn.Module) -> Callable[[], Any]:
        """The call on the net with its channels side by side, in memory that is kept between forwards."""
        call = self.bind(_channels_last(net))

        def kept() -> Any:
            with keep_memory():
                return call()

        return kept

    @abstractmethod
    def planted(self) -> np.ndarray:
        """Voxels of a place the method asks about, boolean `(*spatial)`."""

    @abstractmethod
    def map(self, answer: Any, intact: float) -> np.ndarray:
        """Dependence on every voxel, `(*spatial)`, from what the call gave and `P` of the intact volume."""


@dataclass(frozen=True)
class Ours(Method):
    """`GLAS.explain` with light and shadow, over the subject's regions."""

    name = "glas3d GLAS"
    engine: str = "eager"  # the rivals ask the network itself

    @property
    def forwards(self) -> int:
        return 2 * self.places + 1

    @property
    def places(self) -> int:
        return len(self.subject.segments.index)

    def bind(self, net: nn.Module) -> Callable[[], Any]:
        light, shadow = self.subject.sigmas
        predict = Predictor(net, "softmax", device=DEVICE)
        glas = GLAS(predict, sigma_light=light, sigma_shadow=shadow, batch_size=self.batch, engine=self.engine)
        return lambda: glas.explain(self.subject.volume, TARGET, self.subject.segments)

    def planted(self) -> np.ndarray:
        return self.subject.segments.labels == self.subject.segments.index[0]

    def map(self, answer: Any, intact: float) -> np.ndarray:
        segments = self.subject.segments
        return np.where(np.isin(segments.labels, segments.index), answer.saliency, np.nan)


@dataclass(frozen=True)
class MonaiOcclusion(Method):
    """MONAI `OcclusionSensitivity(mode="gaussian")` in a box of the middle; window and overlap are its defaults."""

    name = "MONAI OcclusionSensitivity"
    overlap = 0.6

    @property
    def forwards(self) -> int:
        return self.places

    @property
    def places(self) -> int:
        return math.prod(self.subject.windows)

    @property
    def _box(self) -> list[tuple[int, int]]:
        """First voxel and end, an axis: as large as makes `windows` windows of it."""
        window = self.subject.window
        step, edge = int(window * (1 - self.overlap)), (window - 1) // 2
        found = []
        for n, k in zip(self.subject.shape, self.subject.windows, strict=True):
            length = window + step * (k - 1) - 2 * edge
            found.append(((n - length) // 2, (n - length) // 2 + length))
        return found

    def bind(self, net: nn.Module) -> Callable[[], Any]:
        with quiet():
            from monai.visualize import OcclusionSensitivity

        batch = {} if self.batch is None else {"n_batch": self.batch}
        occlude = OcclusionSensitivity(
            net, mask_size=self.subject.window, overlap=self.overlap, mode="gaussian", verbose=False, **batch
        )
        volume, box = self.subject.volume.unsqueeze(0), [edge for axis in self._box for edge in axis]

        def call() -> Any:
            with quiet():
                return occlude(volume, b_box=box)

        return call

    def planted(self) -> np.ndarray:
        place = np.zeros(self.subject.shape, dtype=bool)
        place[tuple(slice(low, low + 2) for low, _ in self._box)] = True
        return place

    def map(self, answer: Any, intact: float) -> np.ndarray:
        occluded = torch.as_tensor(answer[0]).cpu().numpy()[0, TARGET]
        full = np.full(self.subject.shape, np.nan)
        full[tuple(slice(low, end) for low, end in self._box)] = intact - occluded
        return full


@dataclass(frozen=True)
class CaptumAblation(Method):
    """Captum `FeatureAblation` with the regions as `feature_mask`; what is in none of them is one region more."""

    name = "Captum FeatureAblation"

    @property
    def forwards(self) -> int:
        return self.places + 1

    @property
    def places(self) -> int:
        return len(np.unique(self._features))

    @property
    def _features(self) -> np.ndarray:
        segments = self.subject.segments
        kept = np.where(np.isin(segments.labels, segments.index), segments.labels, 0)
        return np.unique(kept, return_inverse=True)[1].reshape(kept.shape)

    def bind(self, net: nn.Module) -> Callable[[], Any]:
        with quiet():
            from captum.attr import FeatureAblation

        ablation = FeatureAblation(net)
        mask = torch.from_numpy(self._features)[None, None].to(DEVICE)
        batch = {} if self.batch is None else {"perturbations_per_eval": self.batch}

        def call() -> Any:
            with quiet():
                return ablation.attribute(
                    self.subject.volume.unsqueeze(0), baselines=0.0, target=TARGET, feature_mask=mask, **batch
                )

        return call

    def planted(self) -> np.ndarray:
        return self.subject.segments.labels == self.subject.segments.index[0]

    def map(self, answer: Any, intact: float) -> np.ndarray:
        return answer[0].mean(dim=0).cpu().numpy()


@dataclass(frozen=True)
class CaptumOcclusion(Method):
    """Captum `Occlusion` with windows that tile the whole volume."""

    name = "Captum Occlusion"

    @property
    def forwards(self) -> int:
        return self.places + 1

    @property
    def places(self) -> int:
        return math.prod(self.subject.windows)

    @property
    def _window(self) -> tuple[int, ...]:
        """Captum takes no step larger than the window, so few windows are large ones: tiles."""
        tiles = (-(-n // k) for n, k in zip(self.subject.shape, self.subject.windows, strict=True))
        return (len(self.subject.volume), *tiles)

    def bind(self, net: nn.Module) -> Callable[[], Any]:
        with quiet():
            from captum.attr import Occlusion

        occlusion = Occlusion(net)
        batch = {} if self.batch is None else {"perturbations_per_eval": self.batch}

        def call() -> Any:
            with quiet():
                return occlusion.attribute(
                    self.subject.volume.unsqueeze(0),
                    sliding_window_shapes=self._window,
                    strides=self._window,
                    baselines=0.0,
                    target=TARGET,
                    **batch,
                )

        return call

    def planted(self) -> np.ndarray:
        place = np.zeros(self.subject.shape, dtype=bool)
        place[tuple(slice(0, n) for n in self._window[1:])] = True
        return place

    def map(self, answer: Any, intact: float) -> np.ndarray:
        return answer[0].mean(dim=0).cpu().numpy()


RIVALS: tuple[type[Method], ...] = (MonaiOcclusion, CaptumAblation, CaptumOcclusion)
