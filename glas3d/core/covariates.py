"""Covariates: numbers that a model takes next to the volume, such as age or a test score, ranked next to the regions.

A covariate is lit and shaded as a point is. Its shadow replaces it alone by its reference value; its light keeps it
alone: the volume is background and the other covariates have their reference values. In the light of a point, too,
every covariate has its reference value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from glas3d.core.gaussian import Masks, SeparableMasks
from glas3d.errors import GlasError


@dataclass(frozen=True, eq=False)
class Covariates:
    """One participant's covariates, and the reference values that replace them.

    Attributes
    ----------
    names
        Names of the ``q`` covariates, in the order in which the model takes them.
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
        """Return covariates from one number for each name.

        Parameters
        ----------
        values, reference
            The participant's values, and those that replace them: a control group's mean, for instance.
        order
            The model's names, in its order; None: the order of ``values``.

        Raises
        ------
        GlasError
            A name without a value or without a reference, or that the model does not have; a value that is not a
            finite number.

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
        for kind, numbers in (("value", values), ("reference value", reference)):
            unknown = [name for name in numbers if name not in names]
            if unknown:
                raise GlasError(f"covariates must be of {', '.join(names)}, got a {kind} for {unknown[0]!r}")
            missing = [name for name in names if name not in numbers]
            if missing:
                raise GlasError(f"every covariate needs a {kind}, {missing[0]!r} has none")
        arrays = []
        for kind, numbers in (("value", values), ("reference value", reference)):
            row = np.array([_number(numbers[name]) for name in names])
            if not np.isfinite(row).all():
                wrong = names[int(np.flatnonzero(~np.isfinite(row))[0])]
                raise GlasError(f"a covariate's {kind} must be a finite number, {wrong!r} has {numbers[wrong]!r}")
            arrays.append(row)
        return cls(names, *arrays)

    def rows(self, numbers: list[int], size: int, points: int) -> np.ndarray:
        """Return the covariates of one batch of `Perturbations`, ``(size, q)``; spare rows hold the reference.

        Parameters
        ----------
        numbers
            The numbers of the inputs: 0 is intact, then light and shadow of the points, then of the covariates.
        size
            Inputs in the batch.
        points
            How many points come before the covariates.
        """
        rows = np.tile(self.reference, (size, 1))
        for row, number in enumerate(numbers):
            # which one is lit or shaded; negative: a point is; beyond the last: the background is evaluated
            covariate = (number - 1) // 2 - points
            lit = number % 2 == 1
            if not lit:
                rows[row] = self.values
            if 0 <= covariate < len(self.names):
                rows[row, covariate] = (self.values if lit else self.reference)[covariate]
        return rows


@dataclass(frozen=True, eq=False)
class CovariateScores:
    """Light, shadow, drop, score and evidence of each covariate for one class, ``(q,)`` each, as a point has them."""

    names: tuple[str, ...]
    light: np.ndarray
    shadow: np.ndarray
    drop: np.ndarray
    score: np.ndarray
    evidence: np.ndarray | None = None


@dataclass(frozen=True)
class WithEmptyMasks:
    """The masks of points, followed by ``more`` empty ones for covariates, which have no place in the volume."""

    first: Masks
    more: int

    def __len__(self) -> int:
        return len(self.first) + self.more

    def masks(self, start: int, out: torch.Tensor) -> torch.Tensor:
        """Write masks into ``out`` as `glas3d.core.gaussian.Masks` says."""
        of_points = max(0, min(len(out), len(self.first) - start))
        if of_points:
            self.first.masks(start, out[:of_points])
        out[of_points:] = 0.0
        return out

    def factors(self) -> tuple[torch.Tensor, ...] | None:
        """Return the factors of the points' masks (see `glas3d.core.gaussian.SeparableMasks`)."""
        return self.first.factors() if isinstance(self.first, SeparableMasks) else None


def _number(value: object) -> float:
    """Return a float; NaN for anything but a single number. Text is not a number, even where it reads as one."""
    if isinstance(value, str) or np.ndim(value):  # type: ignore[arg-type]
        return float("nan")
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return float("nan")
