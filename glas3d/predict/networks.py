"""The paper's network for brain scans, and the autoencoder that pre-trains it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

FILTERS = 10


def encoder(channels: int, *, batch_norm: bool) -> nn.Sequential:
    """Three blocks of a 3x3x3 convolution with 10 filters, ReLU and 2x2x2 max pooling."""
    layers: list[nn.Module] = []
    for i in range(3):
        layers.append(nn.Conv3d(channels if i == 0 else FILTERS, FILTERS, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm3d(FILTERS))
        layers += [nn.ReLU(), nn.MaxPool3d(2)]
    return nn.Sequential(*layers)


class PaperNet(nn.Module):
    """Three 3x3x3 convolutions of 10 filters, dense 32 and 16, one logit a class (Oh, Kim & Oh 2020, IV.E).

    The paper leaves pooling and activation open; they are those of the authors' earlier network (Oh et al.
    2019): ReLU and a 2x2x2 max pooling after every convolution. Softmax belongs to the `Predictor`.

    Parameters
    ----------
    shape
        Voxels an axis of the input, at least 8 each.
    channels
        Input channels.
    classes
        Outputs.
    batch_norm
        Batch normalisation after every convolution; the paper's network has none.
    dropout
        Share of the dense inputs dropped in training.
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
        """``(n, channels, *shape)`` to ``(n, classes)`` logits."""
        logits: torch.Tensor = self.classifier(self.encoder(x))
        return logits


class Autoencoder(nn.Module):
    """The paper network's convolutions with a mirrored decoder, trained to give back its input.

    Parameters
    ----------
    channels
        Input channels.
    batch_norm
        As in the network that is to be pre-trained.
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
        """``(n, channels, *shape)`` to the same shape."""
        decoded: torch.Tensor = self.decoder(self.encoder(x))
        # an odd axis loses a voxel to each pooling
        missing = [n - d for n, d in zip(x.shape[2:], decoded.shape[2:], strict=True)]
        padding = [side for n in reversed(missing) for side in (0, n)]
        return nn.functional.pad(decoded, padding)
