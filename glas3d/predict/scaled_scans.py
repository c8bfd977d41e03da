"""Scaled scans that need not fit into memory, and statistics of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch

from glas3d.predict.intensity import SMALLEST_DEVIATION, Standardisation

_IN_MEMORY = 16  # scans in memory at a time, unless all are


class ScaledScans(Protocol):
    """Scans ready for training: a tensor ``(n, c, *spatial)``, or what is indexed like one.

    They are divided by their `intensity_scale`, unless their intensities are absolute.
    """

    @property
    def shape(self) -> Any:
        """``(n, c, *spatial)``."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> torch.Tensor: ...


def standardisation_of(scaled: ScaledScans) -> Standardisation:
    """Return the standardisation by scans, a few of them in memory at a time; see `Standardisation.of`."""
    if isinstance(scaled, torch.Tensor):
        return Standardisation.of(scaled)
    mean = mean_scan(scaled).double()
    squares = torch.zeros(tuple(scaled.shape[1:]), dtype=torch.float64)
    for rows in in_parts(torch.arange(len(scaled))):
        squares += (scaled[rows].double() - mean).square().sum(dim=0)
    std = (squares / (len(scaled) - 1)).sqrt().float()
    return Standardisation(mean.float(), std.clamp_min(SMALLEST_DEVIATION))


def mean_scan(scaled: ScaledScans, rows: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean of scans, ``(c, *spatial)`` float32, a few of them in memory at a time.

    Parameters
    ----------
    rows
        Indices of the scans; None: all.
    """
    rows = torch.arange(len(scaled)) if rows is None else rows
    total = torch.zeros(tuple(scaled.shape[1:]), dtype=torch.float64)
    for part in in_parts(rows):
        total += scaled[part].double().sum(dim=0)
    return (total / len(rows)).float()


def in_parts(rows: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield indices in parts of as many as may be in memory at a time."""
    for first in range(0, len(rows), _IN_MEMORY):
        yield rows[first : first + _IN_MEMORY]
