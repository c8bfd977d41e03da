"""What every rival method offers, and what they share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch

from glas3d.errors import GlasError

Scores = Callable[[torch.Tensor], torch.Tensor]
LINEAR = {2: "bilinear", 3: "trilinear"}  # torch's names of linear interpolation, by the number of spatial axes


class Rival(Protocol):
    """An explanation method with its settings."""

    def attribute(self, model: Any, volume: torch.Tensor, target: int) -> torch.Tensor:
        """Return the map of one volume.

        Parameters
        ----------
        model
            Turns a batch ``(n, c, *spatial)`` into scores ``(n, k)``; each method says whether it needs
            probabilities, gradients or a module.
        volume
            ``(c, *spatial)`` float32, two or three spatial axes, on the model's device.
        target
            The column of the scores that is explained.

        Returns
        -------
        ``(*spatial)`` float32 on the volume's device; higher values mean more evidence for the target.
        """
        ...


def spatial_shape(volume: torch.Tensor) -> tuple[int, ...]:
    """Return the spatial axes of a volume ``(c, *spatial)``.

    Raises
    ------
    GlasError
        The volume does not have two or three spatial axes.
    """
    if volume.ndim not in (3, 4):
        raise GlasError(f"a volume must be (c, *spatial) with two or three spatial axes, got {tuple(volume.shape)}")
    return tuple(volume.shape[1:])


def feature_labels(features: np.ndarray | torch.Tensor, volume: torch.Tensor) -> torch.Tensor:
    """Return labels of the voxels as Captum takes them: ``(1, 1, *spatial)`` int64, 0, 1, 2, ... without gaps.

    Raises
    ------
    GlasError
        The labels are not whole numbers on the voxels of the volume.
    """
    labels = features.cpu().numpy() if isinstance(features, torch.Tensor) else np.asarray(features)
    shape = spatial_shape(volume)
    if labels.shape != shape or labels.dtype.kind not in "iu":
        raise GlasError(f"features must be whole numbers of shape {shape}, got {labels.dtype} of shape {labels.shape}")
    numbered = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    return torch.from_numpy(numbered)[None, None].to(volume.device)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence the advice that other libraries give about calls that are meant as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
