"""Artefacts of scanners, by MONAI's transforms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from glas3d.simulate.simulation import Artefact

_TRUNCATED = (0.4, 0.6)  # share of the radius of k-space that truncation takes away
_STRIPES = (0.04, 0.1)  # amplitude of the stripes of a spike, relative to the brightest tissue
_ZOOM = (0.5, 0.7)  # the voxels of a scan of low resolution are larger by one over this


def with_artefacts(volume: np.ndarray, artefacts: Sequence[Artefact], rng: np.random.Generator) -> np.ndarray:
    """Return a volume with the artefacts of a scanner.

    Every artefact is drawn whether it is wanted or not, so that each is the same whichever the others are.

    Parameters
    ----------
    volume
        ``(x, y, z)``, the signal in units in which the brightest tissue is about 1.
    artefacts
        ``"gibbs"``: ringing of a k-space that is truncated (MONAI's ``GibbsNoise``); ``"spike"``: stripes of a spike in
        k-space (``KSpaceSpikeNoise``); ``"low-resolution"``: larger voxels (``RandSimulateLowResolution``).
    rng
        Source of all random numbers.
    """
    # imported here: MONAI takes seconds to load, and most simulations have no artefacts
    from monai.transforms.intensity.array import GibbsNoise, KSpaceSpikeNoise
    from monai.transforms.spatial.array import RandSimulateLowResolution

    truncated, amplitude, zoom = rng.uniform(*_TRUNCATED), rng.uniform(*_STRIPES), rng.uniform(*_ZOOM)
    spike = tuple(int(n // 2 + rng.integers(n // 12 + 1, n // 4 + 1)) for n in volume.shape)
    image = torch.as_tensor(volume[None], dtype=torch.float32)
    if "gibbs" in artefacts:
        image = torch.as_tensor(GibbsNoise(alpha=truncated)(image))
    if "spike" in artefacts:
        # stripes of an empty scan: in a scan with signal their phase would be that of its own k-space, and twins differ
        intensity = float(np.log(amplitude * volume.size))
        image = image + torch.as_tensor(KSpaceSpikeNoise(loc=spike, k_intensity=intensity)(torch.zeros_like(image)))
    if "low-resolution" in artefacts:
        lower = RandSimulateLowResolution(prob=1.0, downsample_mode="area", zoom_range=(zoom, zoom))
        image = torch.as_tensor(lower(image))
    return np.asarray(image[0], dtype=np.float64)
