"""Whether any of several groups differs: one test of all their means, for groups of unequal spread."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from glas3d.errors import GlasError, GlasWarning
from glas3d.statistics.choices import Null, check_counts, check_null
from glas3d.statistics.corrected import corrected_columns, enhancement, scattered, smallest_p
from glas3d.statistics.design import GroupsDesign, groups_design
from glas3d.statistics.group_model import BLOCK, ROUNDING, null_products
from glas3d.statistics.regions import as_matrix, complete_regions
from glas3d.statistics.resampling import shuffles
from glas3d.statistics.skewness import warn_of_skew

# A group's variance counts as at least this much of the variance of all, so that groups without any can be weighted.
_LEAST_VARIANCE = 1e-9
# Voxels whose matrices are in memory together, which are as many numbers a voxel as the design has columns, squared.
_AT_ONCE = 2**13


@dataclass(frozen=True, eq=False)
class _Model:
    """Least squares on groups and covariates, with one or more sets of participants that have a variance of their own.

    Attributes
    ----------
    basis
        ``(n, q)`` orthonormal basis of the design.
    contrasts
        ``(q, s)`` what of the basis are the differences of the groups, orthonormal.
    parts
        The rows of each set of participants that have one variance.
    crossed
        ``(sets, q, q)``: the products of the basis with itself over the rows of each set.
    free
        ``(sets,)`` degrees of freedom of the residuals of each set, the trace of its part of the residual maker.
    """

    basis: np.ndarray
    contrasts: np.ndarray
    parts: tuple[np.ndarray, ...]
    crossed: np.ndarray
    free: np.ndarray

    def statistic(self, along: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return G and its second degrees of freedom, ``(..., p)`` each.

        Parameters
        ----------
        along
            ``(sets, q, ..., p)`` products of the values of each set with the basis.
        total
            ``(sets, ..., p)`` sums of squares of the values of each set.
        """
        fitted = along.sum(axis=0)
        squares = np.stack(
            [
                part_total
                - 2 * (part_along * fitted).sum(axis=0)
                + np.einsum("i...,ij,j...->...", fitted, part_crossed, fitted, optimize=True)
                for part_total, part_along, part_crossed in zip(total, along, self.crossed, strict=True)
            ]
        )
        squares = np.where(squares > ROUNDING * total, squares, 0.0)
        mean = squares.sum(axis=0) / self.free.sum()
        shaped = (-1,) + (1,) * (squares.ndim - 1)
        variances = np.maximum(squares / self.free.reshape(shaped), _LEAST_VARIANCE * mean)
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = np.where(mean > 0, mean / variances, 1.0)  # relative, so that all scales are solved alike
            g = self._quadratic(fitted, weights) / mean
        sizes = np.array([len(rows) for rows in self.parts], dtype=float).reshape(shaped) * weights
        s = self.contrasts.shape[1]
        uneven = ((1 - sizes / sizes.sum(axis=0)) ** 2 / self.free.reshape(shaped)).sum(axis=0)
        g = g / s / (1 + 2 * (s - 1) / (s * (s + 2)) * uneven)
        with np.errstate(divide="ignore"):
            dof = s * (s + 2) / (3 * uneven) if len(self.parts) > 1 else np.full(g.shape, self.free.sum())
        return np.asarray(np.nan_to_num(g, nan=0.0, posinf=np.inf)), np.asarray(dof)

    def _quadratic(self, fitted: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the contrasts' weighted sum of squares, ``(..., p)``."""
        effect = self.contrasts.T @ fitted.reshape(len(fitted), -1)
        if len(self.parts) == 1:
            return np.asarray((effect**2).sum(axis=0).reshape(fitted.shape[1:]))
        weights = weights.reshape(len(weights), -1)
        squares = np.empty(effect.shape[1])
        for start in range(0, len(squares), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            information = np.tensordot(weights[:, some].T, self.crossed, axes=1)
            spread = self.contrasts.T @ np.linalg.solve(information, self.contrasts)
            own = effect[:, some].T[..., None]
            squares[some] = (own * np.linalg.solve(spread, own)).sum(axis=(-2, -1))
        return np.asarray(squares.reshape(fitted.shape[1:]))


def compare_all(
    values: np.ndarray | pd.DataFrame,
    participants: pd.DataFrame,
    groups: Sequence[object],
    *,
    group: str = "group",
    covariates: Sequence[str] = (),
    site: str | None = None,
    null: Null = "sign-flip",
    n_perm: int = 10_000,
    tfce_mask: np.ndarray | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Test whether the saliency of any of several groups differs, region by region or voxel by voxel.

    Saliency is fitted by least squares on groups, covariates and sites. The null hypothesis is that the adjusted means
    of all groups are equal; their spread may differ. The statistic is G of Winkler et al. (2014) with a variance for
    each group, without covariates Welch's F (1951). For two groups it is the square of the statistic of
    `glas3d.statistics.two_groups.compare`, where the null distributions are described; ``"permutation"`` is Fisher's F.

    Parameters
    ----------
    values
        ``(participants, regions)``; the columns of a DataFrame name the regions.
    participants
        Table of the participants, in the same order; participants of other groups are left out.
    groups
        Values of the column ``group``, two or more.
    group, covariates, site, null, n_perm, tfce_mask, seed
        See `glas3d.statistics.two_groups.compare`; clusters of the map of F are enhanced.

    Returns
    -------
    One row a region: ``name n f dof_groups dof p_uncorrected p_fdr p_fwe neglog10p_fwe``, with ``mean_<group>`` for
    each group after ``n``, and ``tfce p_tfce_fwe neglog10p_tfce_fwe`` where ``tfce_mask`` is given. ``dof_groups`` and
    ``dof`` are the degrees of freedom of F, the second by Welch's approximation. The p-values are of the draws; those
    of pairs of groups are not among them. Regions without a value in every participant, or without variance, have no
    test.

    Raises
    ------
    GlasError
        See `glas3d.statistics.design.groups_design`; values that do not fit the participants or the mask; covariates
        that leave a group without variation; no region that can be tested.

    Warns
    -----
    GlasWarning
        See `glas3d.statistics.two_groups.compare`.

    Examples
    --------
    >>> people = pd.DataFrame({"group": ["AD"] * 5 + ["MCI"] * 5 + ["NC"] * 5})
    >>> values = pd.DataFrame(np.random.default_rng(0).normal(size=(15, 2)), columns=["Hippocampus_L", "Amygdala_L"])
    >>> values.loc[:4, "Hippocampus_L"] += 5
    >>> compare_all(values, people, ["AD", "MCI", "NC"], n_perm=199)[["name", "p_fwe"]].round(3).values.tolist()
    [['Hippocampus_L', 0.005], ['Amygdala_L', 0.97]]
    """
    check_counts(n_perm, 0)
    check_null(null)
    data, names = as_matrix(values, participants)
    design = groups_design(participants, groups, group=group, covariates=covariates, site=site)
    data = data if design.rows.all() else data[design.rows]
    known = complete_regions(data, names)
    rest = data - design.basis @ (design.basis.T @ data)
    norms = np.linalg.norm(rest, axis=0)
    varied = known & (norms > ROUNDING * np.linalg.norm(data, axis=0))
    if not varied.any():
        raise GlasError("no region can be tested: none has values that differ between participants")
    enhance = None if tfce_mask is None else enhancement(tfce_mask, varied)
    least = _smallest_p(design, null)
    if null == "sign-flip":
        warn_of_skew([data[rows][:, varied] for rows in design.members.T])

    model = _model(design, [str(name) for name in groups], null)
    rest = rest[:, varied] / norms[varied]
    along, total = _products(model, rest)
    f, dof = model.statistic(along, total)
    draws = _null(model, design, rest, null, n_perm, np.random.default_rng([seed, 0]))
    tests = {
        "f": f,
        "dof_groups": np.full(len(f), float(model.contrasts.shape[1])),
        "dof": dof,
        **corrected_columns(f, draws, n_perm, least, enhance),
    }
    means = {
        f"mean_{name}": scattered(known, data[rows][:, known].mean(axis=0))
        for name, rows in zip(groups, design.members.T, strict=True)
    }
    columns = {name: scattered(varied, column) for name, column in tests.items()}
    return pd.DataFrame({"name": names, "n": len(data)} | means | columns)


def _model(design: GroupsDesign, names: Sequence[str], null: Null) -> _Model:
    """Make the model of a design; under permutations all participants have one variance."""
    fixed = design.basis
    apart = design.members - fixed @ (fixed.T @ design.members)
    left, size, _ = np.linalg.svd(apart, full_matrices=False)
    tested = left[:, size > 1e-8 * size[0]]
    basis = np.hstack([fixed, tested])
    contrasts = np.eye(basis.shape[1])[:, fixed.shape[1] :]
    groups = (np.arange(len(basis)),) if null == "permutation" else tuple(map(np.flatnonzero, design.members.T))
    crossed = np.stack([basis[rows].T @ basis[rows] for rows in groups])
    free = np.array([len(rows) - np.trace(part) for rows, part in zip(groups, crossed, strict=True)])
    for name, number in zip(names if len(groups) > 1 else ["groups"], free, strict=True):
        if number < 1e-6:
            raise GlasError(f"the covariates leave no variation within {name}: hold fewer of them fixed")
    return _Model(basis, contrasts, groups, crossed, free)


def _products(model: _Model, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the products of values ``(n, p)`` with the basis and their sums of squares, of each set."""
    along = np.stack([model.basis[rows].T @ values[rows] for rows in model.parts])
    return along, np.stack([(values[rows] ** 2).sum(axis=0) for rows in model.parts])


def _null(
    model: _Model, design: GroupsDesign, rest: np.ndarray, null: Null, n_perm: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Generate statistics under the null hypothesis, in blocks ``(draws, p)``; ``rest`` are residuals on covariates."""
    if null != "permutation":
        left = rest - model.basis @ (model.basis.T @ rest)
        left[:, (left**2).sum(axis=0) <= ROUNDING] = 0  # the groups are apart without noise
        for along, total in null_products(model.basis, model.parts, left, null, n_perm, rng):
            yield model.statistic(along, total)[0]
        return
    size = max(1, min(n_perm, BLOCK // rest.shape[1]))
    orders = shuffles(design.blocks, n_perm, rng)
    for start in range(0, n_perm, size):
        # reordering the design in place of the residuals is the same, and moves less
        chosen = np.stack([next(orders) for _ in range(min(size, n_perm - start))])
        along = np.stack([column[chosen] @ rest for column in model.basis.T])[None]
        yield model.statistic(along, np.broadcast_to((rest**2).sum(axis=0), along[:, 0].shape))[0]


def _smallest_p(design: GroupsDesign, null: Null) -> float:
    """Return the smallest p-value of a design; warn where it exceeds 0.05."""
    blocks = design.blocks if null == "permutation" else np.zeros(len(design.members), dtype=int)
    least = smallest_p([design.members[blocks == b].sum(axis=0).tolist() for b in np.unique(blocks)], null)
    if least > 0.05:
        sizes = ", ".join(map(str, design.members.sum(axis=0)))
        message = (
            f"with groups of {sizes} participants no p-value of all groups can be below {least:.2g}, so that none can "
            "reach 0.05"
        )
        warnings.warn(message, GlasWarning, stacklevel=3)
    return least
