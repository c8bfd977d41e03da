"""A second input of numbers beside the volume, such as age or a test score, ranked beside the regions.

A covariate is a player like a spot. Shadow replaces it alone by its reference value; light keeps it alone: the volume
is background and the other covariates have their reference values. So in the light of a spot, too, every covariate has
its reference value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from glas3d.core.gaussian import Masks
from glas3d.errors import GlasError


@dataclass(frozen=True, eq=False)
class Covariates:
    """One participant's covariates, and the values that stand for "unknown".

    Attributes
    ----------
    names
        ``q`` of them, in the order the model takes them.
    values, reference
        ``(q,)`` float64.
    """

    names: tuple[str, ...]
    values: np.ndarray
    reference: np.ndarray

    @classmethod
    def of(
        cls, values: Mapping[str, float], reference: Mapping[str, float], order: Sequence[str] | None = None
    ) -> Covariates:
        """From one number a name.

        Parameters
        ----------
        values, reference
            The participant's, and what replaces them: a control group's mean, for instance.
        order
            The names a model states; None: as ``values`` has them.

        Raises
        ------
        GlasError
            A name without a value, without a reference, or that the model does not know; a value that is no number.

        Examples
        --------
        >>> Covariates.of({"age": 71.5}, {"age": 68.0}).values
        array([71.5])
        >>> Covariates.of({"age": 71.5}, {})
        Traceback (most recent call last):
        glas3d.errors.GlasError: every covariate needs a reference value, 'age' has none
        """
        names = tuple(values) if order is None else tuple(order)
        if not names:
            raise GlasError("covariates must have a name and a value each, got none")
        if len(set(names)) < len(names):
            raise GlasError(f"every covariate must have a name of its own, got {', '.join(names)}")
        for kind, given in (("value", values), ("reference value", reference)):
            unknown = [name for name in given if name not in names]
            if unknown:
                raise GlasError(f"covariates must be of {', '.join(names)}, got a {kind} for {unknown[0]!r}")
            missing = [name for name in names if name not in given]
            if missing:
                raise GlasError(f"every covariate needs a {kind}, {missing[0]!r} has none")
        made = []
        for kind, given in (("value", values), ("reference value", reference)):
            row = np.array([_number(given[name]) for name in names])
            if not np.isfinite(row).all():
                wrong = names[int(np.flatnonzero(~np.isfinite(row))[0])]
                raise GlasError(f"a covariate's {kind} must be a finite number, {wrong!r} has {given[wrong]!r}")
            made.append(row)
        return cls(names, *made)

    def rows(self, numbers: list[int], size: int, points: int) -> np.ndarray:
        """The covariates of a batch of `Perturbations`, ``(size, q)``; spare rows hold the reference.

        Parameters
        ----------
        numbers
            Of the inputs: 0 is intact, then light and shadow of the points, then of the covariates.
        points
            How many points come before the covariates.
        """
        rows = np.tile(self.reference, (size, 1))
        for row, number in enumerate(numbers):
            own = (number - 1) // 2 - points  # which covariate is lit or shaded; negative: a point is
            lit = number % 2 == 1
            if not lit:
                rows[row] = self.values
            if own >= 0:
                rows[row, own] = self.values[own] if lit else self.reference[own]
        return rows


@dataclass(frozen=True, eq=False)
class CovariateScores:
    """What the covariates say about one class: light, shadow, drop and score of each, as of a point."""

    names: tuple[str, ...]
    light: np.ndarray
    shadow: np.ndarray
    drop: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class WithCovariates:
    """Masks with ``more`` empty ones behind: a covariate has no place in the volume."""

    first: Masks
    more: int

    def __len__(self) -> int:
        return len(self.first) + self.more

    def masks(self, start: int, out: torch.Tensor) -> torch.Tensor:
        """See `glas3d.core.gaussian.Masks`."""
        placed = max(0, min(len(out), len(self.first) - start))
        if placed:
            self.first.masks(start, out[:placed])
        out[placed:] = 0.0
        return out


def _number(value: object) -> float:
    """NaN for what is no single number; text is none, even where it could be read as one."""
    if isinstance(value, str) or np.ndim(value):  # type: ignore[arg-type]
        return float("nan")
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return float("nan")
