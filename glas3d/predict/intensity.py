"""The normalisation of intensities, after the masks and before the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from glas3d.display import fields_repr
from glas3d.errors import GlasError
from glas3d.imaging.tissue import air_level, tissue_contrast

Intensities = Literal["relative", "absolute"]
"""Whether the unit of a scan's intensities is the scanner's, or means something, as in a map of grey matter."""

# About the standard deviation of noise, on the scale of scaled scans.
SMALLEST_DEVIATION = 0.03


def intensity_scale(volume: np.ndarray | torch.Tensor) -> float:
    """Return a scan's brightness: the 90th percentile of tissue's intensity over air, about that of white matter in T1.

    What is tissue and what is air is defined in `glas3d.imaging.tissue`.

    Raises
    ------
    GlasError
        No intensity is positive.
    """
    return air_and_scale(volume)[1]


def air_and_scale(volume: np.ndarray | torch.Tensor) -> tuple[float, float]:
    """Return the intensity of air in a scan, 0 in most, and its `intensity_scale`.

    Parameters
    ----------
    volume
        ``(x, y, z)`` or ``(c, x, y, z)``.
    """
    values = volume.cpu().numpy() if isinstance(volume, torch.Tensor) else np.asarray(volume)
    values = values if values.dtype.kind == "f" else values.astype(np.float64)
    air = air_level(values)
    tissue = tissue_contrast(values, air)
    if tissue.size == 0:
        raise GlasError("a scan's brightness needs positive intensities, this scan has none")
    return air, float(np.percentile(tissue, 90))


def scaled(volume: np.ndarray, intensities: Intensities = "relative") -> np.ndarray:
    """Return a scan on the scale that networks are trained on: air is 0, and the brightness of its tissue is 1.

    Absolute intensities are returned as they are: the brightest tissue of a map of grey matter is the thickest, and
    dividing by it would undo a part of the atrophy.
    """
    if intensities == "absolute":
        return volume
    air, scale = air_and_scale(volume)
    return (volume - np.float32(air)) / np.float32(scale)


@dataclass(frozen=True, eq=False)
class Standardisation:
    """The transform that scales a scan to the brightness of the training scans, then standardises every voxel.

    ``((x - air) / scale - mean) / std``: air and scale are those of the intact scan and fixed by `fit`, or 0 and 1 for
    absolute intensities; mean and standard deviation are those of the training scans, voxel by voxel.

    Attributes
    ----------
    mean, std
        ``(c, *spatial)`` float32, on the scale of scaled scans; ``std`` is greater than 0.
    intensities
        ``"relative"`` (default): scans are scaled; ``"absolute"``: they are not, as their unit means something.
    """

    mean: torch.Tensor
    std: torch.Tensor
    intensities: Intensities = "relative"

    __repr__ = fields_repr

    @classmethod
    def of(cls, scaled: torch.Tensor, floor: float = SMALLEST_DEVIATION) -> Standardisation:
        """Return the standardisation by scaled training scans ``(n, c, *spatial)``.

        Parameters
        ----------
        floor
            Smallest standard deviation, about that of noise: where no training scan has signal, the signal of a
            new scan should not count for much.
        """
        return cls(scaled.mean(dim=0), scaled.std(dim=0).clamp_min(floor))

    def fit(self, volume: torch.Tensor) -> FittedStandardisation:
        """Return the transform with the scale of one intact scan, ``(c, *spatial)``."""
        if volume.shape != self.mean.shape:
            raise GlasError(f"the model takes scans of {tuple(self.mean.shape)}, got {tuple(volume.shape)}")
        air, scale = (0.0, 1.0) if self.intensities == "absolute" else air_and_scale(volume)
        mean, std = self.mean.to(volume.device), self.std.to(volume.device)
        gain, offset = 1 / (std * scale), -mean / std
        return FittedStandardisation(gain, offset - air * gain if air else offset, scale, air)


@dataclass(frozen=True, eq=False)
class FittedStandardisation:
    """A `Standardisation` with air and scale of one intact scan: ``x * gain + offset``, voxel by voxel."""

    gain: torch.Tensor
    offset: torch.Tensor
    scale: float
    air: float = 0.0

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the standardised values of a batch ``(n, c, *spatial)`` in the scan's units."""
        return torch.addcmul(self.offset, batch, self.gain)

    def to_scan_units(self, reference: np.ndarray) -> np.ndarray:
        """Return a volume on the model's intensity scale in the units of the scan that this is fitted to."""
        in_units = reference * np.float32(self.scale)
        return in_units + np.float32(self.air) if self.air else in_units
