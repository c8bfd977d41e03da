"""The paper's network for brain scans, and the autoencoder that pre-trains it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

FILTERS = 10


def encoder(channels: int, *, batch_norm: bool) -> nn.Sequential:
    """Return three blocks of a 3x3x3 convolution with 10 filters, ReLU and 2x2x2 max pooling."""
    layers: list[nn.Module] = []
    for i in range(3):
        layers.append(nn.Conv3d(channels if i == 0 else FILTERS, FILTERS, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm3d(FILTERS))
        layers += [nn.ReLU(), nn.MaxPool3d(2)]
    return nn.Sequential(*layers)


class PaperNet(nn.Module):
    """The paper's network: three 3x3x3 convolutions of 10 filters, dense layers of 32 and 16, one logit for each class.

    It is described in section IV.E of Oh, Kim & Oh (2020).

    The paper does not state pooling and activation; they are those of the authors' earlier network (Oh et al.
    2019): ReLU and a 2x2x2 max pooling after every convolution. Softmax is left to the `Predictor`.

    Parameters
    ----------
    shape
        Number of voxels on each axis of the input, at least 8.
    channels
        Number of input channels.
    classes
        Number of outputs.
    batch_norm
        Whether batch normalisation follows every convolution; in the paper's network it does not.
    dropout
        Share of the inputs of the dense layers that is dropped in training.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: int = 1,
        classes: int = 2,
        *,
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder(channels, batch_norm=batch_norm)
        flat = FILTERS * math.prod(n // 8 for n in shape)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(flat, 32),
            nn.ReLU(),
            nn.Linear(32, 16),
            nn.ReLU(),
            nn.Linear(16, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``(n, classes)`` logits of a batch ``(n, channels, *shape)``."""
        logits: torch.Tensor = self.classifier(self.encoder(x))
        return logits


class Autoencoder(nn.Module):
    """The convolutions of the paper's network with a mirrored decoder, to be trained to reproduce its input.

    Parameters
    ----------
    channels
        Number of input channels.
    batch_norm
        Whether the network to be pre-trained has batch normalisation.
    """

    def __init__(self, channels: int = 1, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.encoder = encoder(channels, batch_norm=batch_norm)
        blocks: list[nn.Module] = []
        for i in range(3):
            blocks += [
                nn.Upsample(scale_factor=2),
                nn.Conv3d(FILTERS, channels if i == 2 else FILTERS, 3, padding=1),
            ]
            if i < 2:
                blocks.append(nn.ReLU())
        self.decoder = nn.Sequential(*blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a reproduction of a batch ``(n, channels, *shape)``, in the same shape."""
        decoded: torch.Tensor = self.decoder(self.encoder(x))
        # an odd axis loses a voxel to each pooling
        missing = [n - d for n, d in zip(x.shape[2:], decoded.shape[2:], strict=True)]
        padding = [side for n in reversed(missing) for side in (0, n)]
        return nn.functional.pad(decoded, padding)
