"""A linear model of two groups of unequal variance, and the null distributions of its statistic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from glas3d.errors import GlasError
from glas3d.statistics.choices import Null
from glas3d.statistics.design import TwoGroupDesign

# Relative to a region's values: residuals below this are rounding.
ROUNDING = 1e-12
# Numbers in one block of null statistics: large enough for fast products, small enough to leave memory to the values.
BLOCK = 2**13

_NULL_HYPOTHESES = {
    "sign-flip": (
        "the adjusted means of {groups} are equal; errors are symmetric, and may spread differently in each group"
    ),
    "bootstrap-t": "the adjusted means of {groups} are equal; errors may have another distribution in each group",
    "permutation": (
        "{groups} have the same distribution once covariates are held fixed; unequal spread is rejected, too"
    ),
}


def null_hypothesis(null: Null, n_groups: int = 2) -> str:
    """Return the null hypothesis that a null distribution stands for, in words.

    Examples
    --------
    >>> null_hypothesis("permutation", 3)[:40]
    'all groups have the same distribution on'
    """
    return _NULL_HYPOTHESES[null].format(groups="the two groups" if n_groups == 2 else "all groups")


@dataclass(frozen=True, eq=False)
class GroupModel:
    """Least squares on group, intercept and covariates, with a variance of its own for each group.

    The statistic is Aspin and Welch's v, the square root with sign of G (Winkler et al. 2014, table 2) with the two
    groups as variance groups. Without covariates it is Welch's t.

    Attributes
    ----------
    basis
        ``(n, q)`` orthonormal basis of the design, rotated so that the cases' part of it is diagonal.
    of_case
        ``(q,)`` squared length of the cases' part of each column of the basis; the controls' is 1 less it.
    contrast
        ``(q,)`` the difference of the groups in terms of the basis.
    case
        ``(n,)`` bool: which participants are cases.
    """

    basis: np.ndarray
    of_case: np.ndarray
    contrast: np.ndarray
    case: np.ndarray

    @property
    def free(self) -> tuple[float, float]:
        """Degrees of freedom of the residuals of cases and controls, the trace of their part of the residual maker."""
        n_case, n_control, on_case = int(self.case.sum()), int((~self.case).sum()), float(self.of_case.sum())
        return n_case - on_case, n_control - (len(self.of_case) - on_case)


def group_model(design: TwoGroupDesign) -> GroupModel:
    """Make the model of a design.

    Raises
    ------
    GlasError
        Covariates that leave a group without any variance of its own.
    """
    tested = design.tested / np.linalg.norm(design.tested)
    basis = np.column_stack([design.basis, tested])
    of_case, turn = np.linalg.eigh(basis[design.case].T @ basis[design.case])
    basis = basis @ turn
    model = GroupModel(
        basis=basis,
        of_case=np.clip(of_case, 0.0, 1.0),
        contrast=basis.T @ design.tested / (design.tested @ design.tested),
        case=design.case,
    )
    for name, free in zip(("cases", "controls"), model.free, strict=True):
        if free < 1e-6:
            raise GlasError(f"the covariates leave no variation within the {name}: hold fewer of them fixed")
    return model


def observed(model: GroupModel, residuals: np.ndarray, effect: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the statistic v and its degrees of freedom by Welch and Satterthwaite, ``(p,)`` each.

    Parameters
    ----------
    residuals
        ``(n, p)`` residuals of the whole model.
    effect
        ``(p,)`` the adjusted difference of the groups.
    """
    squares = [(residuals[rows] ** 2).sum(axis=0) for rows in (model.case, ~model.case)]
    case, control = (total / free for total, free in zip(squares, model.free, strict=True))
    variance, of_case = _variance(model, case, control)
    with np.errstate(divide="ignore", invalid="ignore"):
        v = np.nan_to_num(effect / np.sqrt(variance), nan=0.0, posinf=np.inf, neginf=-np.inf)
        dof = 1 / (of_case**2 / model.free[0] + (1 - of_case) ** 2 / model.free[1])
    return np.asarray(v), np.asarray(dof)


def null_statistics(
    model: GroupModel, residuals: np.ndarray, null: Null, n_perm: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Generate statistics under the null hypothesis, in blocks ``(draws, p)``, ``n_perm`` draws in all.

    Parameters
    ----------
    residuals
        ``(n, p)`` residuals of the whole model, see `null_products`.
    """
    groups = [np.flatnonzero(model.case), np.flatnonzero(~model.case)]
    for along, total in null_products(model.basis, groups, residuals, null, n_perm, rng):
        yield _statistic(model, along, total)


def null_products(
    basis: np.ndarray,
    groups: Sequence[np.ndarray],
    residuals: np.ndarray,
    null: Null,
    n_perm: int,
    rng: np.random.Generator,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Generate what a model needs of draws from the null distribution, ``n_perm`` draws in all.

    The residuals of the whole model, each over the square root of 1 less its leverage (without covariates, times
    ``sqrt(n / (n - 1))``), have their signs flipped at random, or are drawn with replacement within their group
    (``"bootstrap-t"``); all regions of a participant together. The model is to be fitted to each draw.

    Parameters
    ----------
    basis
        ``(n, q)`` orthonormal basis of the design.
    groups
        The rows of each group.
    residuals
        ``(n, p)`` residuals of the whole model.

    Yields
    ------
    The groups' products with the basis, ``(groups, q, draws, p)``, and sums of squares, ``(groups, draws, p)``.
    """
    room = 1 - np.clip((basis**2).sum(axis=1), 0.0, 1.0)
    factors = 1 / np.sqrt(np.where(room > 1e-9, room, 1.0))[:, None]
    parts = [residuals[rows] * factors[rows] for rows in groups]
    squares = [part**2 if null == "bootstrap-t" else (part**2).sum(axis=0) for part in parts]
    p = residuals.shape[1]
    block = max(1, min(n_perm, BLOCK // p))
    for start in range(0, n_perm, block):
        count = min(block, n_perm - start)
        along = np.zeros((len(groups), basis.shape[1], count, p))
        total = np.empty((len(groups), count, p))
        for g, rows in enumerate(groups):
            if null == "bootstrap-t":
                drawn = rng.integers(len(rows), size=(count, len(rows)))
                total[g] = _times_drawn(drawn, np.ones(len(rows))) @ squares[g]
            else:
                signs = rng.integers(2, size=(count, len(rows))) * 2.0 - 1.0
                total[g] = squares[g]
            for j in range(basis.shape[1]):
                weights = basis[rows, j]
                if np.abs(weights).max() > 1e-12:
                    turned = _times_drawn(drawn, weights) if null == "bootstrap-t" else signs * weights
                    along[g, j] = turned @ parts[g]
        yield along, total


def _times_drawn(drawn: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return, for each draw, the summed weights of the places at which a participant was drawn, ``(draws, n)``."""
    count, n = drawn.shape
    where = (np.arange(count)[:, None] * n + drawn).ravel()
    sums = np.bincount(where, np.broadcast_to(weights, (count, n)).ravel(), minlength=count * n)
    return sums.reshape(count, n)


def _statistic(model: GroupModel, along: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return v from the groups' products with the basis, ``(2, q, draws, p)``, and sums of squares."""
    fitted = along.sum(axis=0)
    variances = []
    for g, (share, free) in enumerate(zip((model.of_case, 1 - model.of_case), model.free, strict=True)):
        rest = total[g] - 2 * (along[g] * fitted).sum(axis=0) + np.tensordot(share, fitted**2, axes=1)
        variances.append(np.where(rest > ROUNDING * total[g], rest, 0.0) / free)
    effect = np.tensordot(model.contrast, fitted, axes=1)
    variance, _ = _variance(model, *variances)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nan_to_num(effect / np.sqrt(variance), nan=0.0, posinf=np.inf, neginf=-np.inf))


def _variance(model: GroupModel, case: np.ndarray, control: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the variance of the difference and the part of it that is the cases', from the groups' variances."""
    variance, part = np.zeros(case.shape), np.zeros(case.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        for share, weight in zip(model.of_case, model.contrast**2, strict=True):
            if weight < 1e-15 * (model.contrast**2).sum():
                continue
            from_case = share / case if share > 1e-9 else np.zeros(case.shape)
            from_control = (1 - share) / control if share < 1 - 1e-9 else np.zeros(case.shape)
            each = weight / (from_case + from_control)
            variance += each
            # of two infinite precisions only a mixed column can have both; half is as good as any
            ratio = np.nan_to_num(from_case / (from_case + from_control), nan=float(share > 0.5))
            part += each * ratio
        return variance, np.where(variance > 0, part / variance, 0.5)
