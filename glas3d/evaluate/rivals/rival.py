"""What a rival method is given and what it returns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from glas3d.core.explanation import Explanation
from glas3d.errors import GlasError
from glas3d.evaluate.rivals.methods import Link
from glas3d.evaluate.rivals.value import ExplainedValue, RegionGame

LINEAR = {2: "bilinear", 3: "trilinear"}  # torch's names of linear interpolation, by the number of spatial axes


@dataclass(frozen=True, eq=False)
class Task:
    """A volume, a class and its regions, as every rival method is given them.

    Attributes
    ----------
    value
        The number that is explained; it holds the volume's difference from the reference.
    labels
        ``(*spatial)`` int64 on the model's device: 0 for voxels of no region, 1 to ``m`` for those of the regions.
    n_regions
        The number of regions ``m``.
    explain
        Returns the explanation by GLAS with some settings, and those of a preset where one is named; None: GLAS is not
        among the methods.
    """

    value: ExplainedValue
    labels: torch.Tensor
    n_regions: int
    explain: Callable[[Mapping[str, Any], str | None], Explanation] | None = None

    @classmethod
    def of(cls, value: ExplainedValue, labels: np.ndarray) -> Task:
        """Return the task of a value and labels of any whole numbers, 0 for voxels of no region.

        Raises
        ------
        GlasError
            The labels are not whole numbers on the voxels of the volume, or hold no region.
        """
        shape = tuple(value.difference.shape[1:])
        if labels.shape != shape or labels.dtype.kind not in "iu":
            raise GlasError(f"labels must be whole numbers of shape {shape}, got {labels.dtype} of {labels.shape}")
        numbers = np.unique(labels[labels != 0])
        if not len(numbers):
            raise GlasError("labels must hold a region, all are 0")
        consecutive = np.where(labels == 0, 0, np.searchsorted(numbers, labels) + 1)
        return cls(value, torch.from_numpy(consecutive.astype(np.int64)).to(value.difference.device), len(numbers))

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each spatial axis."""
        return tuple(self.labels.shape)

    @property
    def difference(self) -> torch.Tensor:
        """``(c, *spatial)``, the volume less the reference."""
        return self.value.difference

    @property
    def volume(self) -> torch.Tensor:
        """``(c, *spatial)``, the intact volume."""
        return self.value.reference + self.value.difference

    @property
    def game(self) -> RegionGame:
        """The explained number of sets of regions."""
        return RegionGame(self.value, self.labels)

    @property
    def batch_size(self) -> int:
        """Volumes that the model is given at once."""
        return self.value.batch_size


class Rival(Protocol):
    """An explanation method with its settings, a frozen dataclass.

    Attributes
    ----------
    links
        The numbers of which the method can be made.
    needs
        What of the model it needs beyond evaluations: ``"gradients"``, ``"relu"``.
    """

    links: ClassVar[tuple[Link, ...]] = ("probability", "logit")
    needs: ClassVar[tuple[str, ...]] = ()

    def check(self, value: ExplainedValue, name: str) -> None:
        """Refuse a model that lacks something that the method needs, before anything is computed.

        Parameters
        ----------
        value
            The number that is explained.
        name
            Name of the method, for the message.

        Raises
        ------
        GlasError
            Something is missing.
        """
        value.require(self.needs, name)

    def attribute(self, task: Task) -> torch.Tensor | Explanation:
        """Return the map of a volume, the values of its regions, or the explanation by GLAS, which has both.

        Parameters
        ----------
        task
            The explained number, the volume and its regions.

        Returns
        -------
        ``(*spatial)``, or ``(m,)`` for a method that is about whole regions; `Method` says in which units, and what
        higher values mean.
        """
        ...


def captum() -> Any:
    """Return the module ``captum.attr``.

    Raises
    ------
    GlasError
        Captum is not installed.
    """
    try:
        with without_warnings():
            import captum.attr
    except ImportError as error:
        raise GlasError(f'this method needs captum ({error}): pip install "glas3d[captum]"') from None
    return captum.attr


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence the advice that other libraries give about calls that are meant as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw torch's random numbers from a seed, and leave its generators as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
