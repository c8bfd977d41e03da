"""What the parts of this package know of each other: the kinds of a predictor's settings, and what a predictor offers.

Engines and recomputing are given a predictor and know it by the protocol `NetworkPredictor` alone, so that none of them
imports the class `glas3d.predict.Predictor`, which imports them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from glas3d.core.accelerate.windows import Windows
from glas3d.core.model import Recomputation
from glas3d.core.perturb import PerturbedBatch
from glas3d.display import fields_repr
from glas3d.imaging.scan import Scan
from glas3d.imaging.space import VoxelGrid, grid_of, resample_scan

Activation = Literal["softmax", "sigmoid", "none"]
Network = nn.Module | Callable[..., Any]
Transform = Callable[[torch.Tensor], torch.Tensor]
Readout = Callable[[Any], torch.Tensor]
Batch = torch.Tensor | PerturbedBatch


@runtime_checkable
class Invertible(Protocol):
    """A fitted transform that can bring a reference from the model's intensity scale to that of the scan."""

    def to_scan_units(self, reference: np.ndarray) -> np.ndarray:
        """Return the reference ``(c, *spatial)`` in the intensities of the scan it was fitted to."""
        ...


@runtime_checkable
class FittedTransform(Protocol):
    """A transform whose settings come from the intact scan.

    A normalisation that depends on the content of a scan is fitted once to the intact scan and then fixed; otherwise
    masking one place would change every voxel.
    """

    def fit(self, volume: torch.Tensor) -> Transform:
        """Return the transform for batches that are made from ``volume``, ``(c, *spatial)``."""
        ...


class ScanResampling(Protocol):
    """Brings a scan to the voxel grid of a model that depends on the scan's own, such as by a voxel size."""

    def grid_for(self, grid: VoxelGrid) -> VoxelGrid:
        """Return the model's grid for a scan that was recorded on ``grid``."""
        ...

    def resample(self, scan: Scan) -> np.ndarray:
        """Return a scan's intensities on that grid, float32."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelInfo:
    """The description of a model.

    Attributes
    ----------
    name
        Name for messages and sidecars.
    sha256
        Hash of its weights and configuration; None for a module made in Python.
    channels
        Number of input channels; None: unknown.
    channel_names
        Names of the input channels in their order, as the preprocessing of a bundle joins them; None: unknown.
    grid
        The voxel grid that scans are resampled to before they reach the model; None: any grid, or that of
        ``resampling``.
    resampling
        Resamples scans to a voxel grid that depends on their own; None: they are taken as they are.
    reference
        ``(c, *spatial)`` float32 on the model's intensity scale: what masks put in place of tissue, such as the mean
        of a control group; None: the model brings none.
    preset
        Settings of `GLAS` that were chosen with the model, such as ``sigma_light``.
    skull_stripped
        Whether its scans are of a brain alone, without skull; None: not stated, and no scan is checked.
    preprocessing
        What is done to its scans before the network, step by step, as its bundle states it.
    value_range
        Lowest and highest intensity that the network takes, after the transform; None: not stated.
    from_file
        Whether the network comes from a file, so that the intensities it takes are known only if they are stated.
    caution
        What its author states that every reader of its results must know, as a statement, a colon and what follows
        from it; empty: nothing.
    """

    name: str
    sha256: str | None = None
    channels: int | None = None
    channel_names: tuple[str, ...] | None = None
    grid: VoxelGrid | None = None
    reference: np.ndarray | None = None
    preset: Mapping[str, Any] = field(default_factory=dict)
    skull_stripped: bool | None = None
    resampling: ScanResampling | None = None
    preprocessing: tuple[str, ...] = ()
    value_range: tuple[float, float] | None = None
    from_file: bool = False
    caution: str = ""

    __repr__ = fields_repr

    def grid_for(self, grid: VoxelGrid) -> VoxelGrid:
        """Return the voxel grid on which the model takes a scan that was recorded on ``grid``."""
        if self.grid is not None:
            return self.grid
        return grid if self.resampling is None else self.resampling.grid_for(grid)

    def resampled(self, scan: Scan) -> np.ndarray:
        """Return a scan's intensities on the model's grid, float32."""
        if self.grid is None and self.resampling is not None:
            return self.resampling.resample(scan)
        return resample_scan(scan, self.grid_for(grid_of(scan)))


class NetworkPredictor(Protocol):
    """What engines and recomputing need of a predictor (`glas3d.predict.Predictor`)."""

    net: Network
    activation: Activation
    transform: Transform | FittedTransform | None
    classes: tuple[str, ...] | None
    covariates: tuple[str, ...] | None
    device: torch.device
    info: ModelInfo
    gives_log_odds: bool

    def __call__(self, batch: Batch, table: torch.Tensor | None = None) -> torch.Tensor:
        """Return the probabilities ``(n, k)`` of a batch ``(n, c, *spatial)`` and covariates ``(n, q)``."""
        ...

    def consume(self, batch: Batch, table: torch.Tensor | None = None) -> torch.Tensor:
        """Return what a call returns, for a batch that the network and its transform may write over."""
        ...

    def evaluate(self, forward: Callable[[], Any], batch: Batch) -> torch.Tensor:
        """Return the probabilities ``(n, k)`` that come of a forward pass through the network."""
        ...

    def log_odds(self) -> NetworkPredictor:
        """Return the same predictor, whose outputs are log-odds."""
        ...

    def without_transform(self) -> tuple[Transform, NetworkPredictor] | None:
        """Return the transform of a batch, and the predictor that takes batches after it; None: there is none."""
        ...

    def with_net(self, net: Network) -> NetworkPredictor:
        """Return a copy that evaluates another network."""
        ...

    def fit(self, volume: torch.Tensor) -> NetworkPredictor:
        """Return the same predictor with its transform fitted to one intact scan, ``(c, *spatial)``."""
        ...

    def recompute(self, bases: torch.Tensor, windows: Sequence[Windows]) -> Recomputation:
        """Return what evaluates volumes that equal a base except inside windows."""
        ...


@runtime_checkable
class BatchIndependent(Protocol):
    """A network that evaluates batches of fixed sizes, and knows its own steps for batches of any size."""

    def steps_for_any_batch(self, shape: Sequence[int]) -> nn.Module | None:
        """Return the network's steps for inputs of ``shape``, ``(c, *spatial)``; None: they hold a fixed batch size."""
        ...
