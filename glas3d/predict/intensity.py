"""The normalisation of intensities, after the masks and before the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from glas3d.errors import GlasError

# About the standard deviation of noise, on the scale of scaled scans.
SMALLEST_DEVIATION = 0.03


def intensity_scale(volume: np.ndarray | torch.Tensor) -> float:
    """Return a scan's brightness: the 90th percentile of its positive intensities, about that of white matter in T1.

    Raises
    ------
    GlasError
        No intensity is positive.
    """
    values = volume.cpu().numpy() if isinstance(volume, torch.Tensor) else np.asarray(volume)
    positive = values[values > 0]
    if positive.size == 0:
        raise GlasError("a scan's brightness needs positive intensities, this scan has none")
    return float(np.percentile(positive, 90))


@dataclass(frozen=True, eq=False)
class Standardisation:
    """The transform that scales a scan to the brightness of the training scans, then standardises every voxel.

    ``(x / scale - mean) / std``: the scale is that of the intact scan and fixed by `fit`; mean and standard
    deviation are those of the training scans, voxel by voxel.

    Attributes
    ----------
    mean, std
        ``(c, *spatial)`` float32, on the scale of scaled scans; ``std`` is greater than 0.
    """

    mean: torch.Tensor
    std: torch.Tensor

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
        scale = intensity_scale(volume)
        mean, std = self.mean.to(volume.device), self.std.to(volume.device)
        return FittedStandardisation(1 / (std * scale), -mean / std, scale)


@dataclass(frozen=True, eq=False)
class FittedStandardisation:
    """A `Standardisation` with the scale of one intact scan: ``x * gain + offset``, voxel by voxel."""

    gain: torch.Tensor
    offset: torch.Tensor
    scale: float

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the standardised values of a batch ``(n, c, *spatial)`` in the scan's units."""
        return torch.addcmul(self.offset, batch, self.gain)

    def to_scan_units(self, reference: np.ndarray) -> np.ndarray:
        """Return a volume on the model's intensity scale in the units of the scan that this is fitted to."""
        return reference * np.float32(self.scale)
