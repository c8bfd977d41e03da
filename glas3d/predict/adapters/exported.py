"""What the adapters of exported files share: the batches that a file allows, and the way from a file to a predictor."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from glas3d.checks import is_number
from glas3d.errors import GlasError
from glas3d.imaging.space import VoxelGrid
from glas3d.predict.interface import Activation, FittedTransform, ModelInfo, Network, Transform
from glas3d.predict.model_output import model_errors, rows
from glas3d.predict.predictor import Predictor
from glas3d.reading import check_regular


@dataclass(frozen=True)
class AllowedBatches:
    """The batches that an exported file allows.

    Attributes
    ----------
    name
        Name of the file, for messages.
    input_shape
        ``(c, *spatial)`` of an input, None for an axis whose size the file leaves open.
    smallest, largest
        Number of inputs in a batch; None: any number.
    """

    name: str
    input_shape: tuple[int | None, ...]
    smallest: int
    largest: int | None

    def evaluate(self, net: Callable[[torch.Tensor], Any], batch: torch.Tensor) -> torch.Tensor:
        """Return ``(n, k)`` for a batch ``(n, c, *spatial)``, in parts of the sizes that the file allows.

        A part that is too small is filled up with its last input.

        Raises
        ------
        GlasError
            The file does not take inputs of this shape.
        """
        came = tuple(batch.shape[1:])
        if len(came) != len(self.input_shape) or not _fits(self.input_shape, came):
            shape = ", ".join("any" if n is None else str(n) for n in self.input_shape)
            raise GlasError(f"the model {self.name} takes inputs of (channels, *spatial) ({shape}), got {came}")
        outputs = []
        for part in torch.split(batch, self.largest or len(batch)):
            missing = self.smallest - len(part)
            filled = part if missing <= 0 else torch.cat([part, part[-1:].expand(missing, *came)])
            with model_errors(self.name, filled):
                outputs.append(rows(net(filled), filled, self.name)[: len(part)])
        return torch.cat(outputs)


@dataclass(frozen=True)
class ExportedModel:
    """A model as it was read from an exported file.

    Attributes
    ----------
    net
        ``(n, c, *spatial)`` to ``(n, k)``, for any number of inputs.
    batches
        The batches that the file allows.
    sha256
        Hash of everything that decides the outputs.
    device
        Where the network takes its inputs.
    """

    net: Network
    batches: AllowedBatches
    sha256: str
    device: torch.device


def predictor_of_file(
    path: str | os.PathLike[str],
    read: Callable[[Path], ExportedModel],
    activation: Activation,
    *,
    transform: Transform | FittedTransform | None,
    classes: Sequence[str] | None,
    grid: VoxelGrid | None,
    value_range: tuple[float, float] | None,
) -> Predictor:
    """Return the predictor of an exported file.

    Parameters
    ----------
    read
        Reads the file and refuses what cannot be used.
    activation, transform, classes
        See `Predictor`.
    grid
        The voxel grid that the model's scans must have; None: it is not known.
    value_range
        Lowest and highest intensity that the network takes; None: they are not known.

    Raises
    ------
    GlasError
        The file does not exist, cannot be read, or takes scans of another shape than the grid's.
    """
    if value_range is not None:
        check_range(value_range)
    file = Path(path)
    check_regular(file, "a model")
    model = read(file)
    channels, *spatial = model.batches.input_shape
    if grid is not None and not _fits(spatial, grid.shape):
        raise GlasError(f"the model {file} takes scans of {tuple(spatial)} voxels, the grid given has {grid.shape}")
    info = ModelInfo(
        name=file.name, sha256=model.sha256, channels=channels, grid=grid, value_range=value_range, from_file=True
    )
    return Predictor(model.net, activation, transform, model.device, classes=classes, info=info)


def check_range(value_range: tuple[float, float]) -> None:
    """Refuse a range of intensities that is none.

    Raises
    ------
    GlasError
        It is not a number and a greater one.
    """
    if not (all(map(is_number, value_range)) and value_range[0] < value_range[1]):
        raise GlasError(f"value_range must be the lowest and the highest intensity, got {value_range!r}")


def _fits(allowed: Sequence[int | None], shape: Sequence[int]) -> bool:
    return all(n in (None, m) for n, m in zip(allowed, shape, strict=False))
