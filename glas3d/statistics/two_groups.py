"""Where the saliency of two groups differs: a linear model, permuted, corrected for all regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from glas3d.errors import GlasError
from glas3d.statistics.choices import check_counts
from glas3d.statistics.design import TwoGroupDesign, two_group_design
from glas3d.statistics.regions import as_matrix, complete_regions
from glas3d.statistics.resampling import bootstrap_interval, p_values, shuffles

# Relative to a region's values: residuals below this are rounding.
_ROUNDING = 1e-12


def compare(
    values: np.ndarray | pd.DataFrame,
    participants: pd.DataFrame,
    case: object,
    control: object,
    *,
    group: str = "group",
    covariates: Sequence[str] = (),
    site: str | None = None,
    n_perm: int = 10_000,
    n_boot: int = 1000,
    tfce_mask: np.ndarray | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the saliency of cases with that of controls, region by region or voxel by voxel.

    Ordinary least squares of saliency on group, intercept and covariates; the null is made by Freedman and
    Lane's permutations of the residuals on intercept and covariates (Winkler et al. 2014), and family-wise
    p-values count the permutations whose largest ``|t|`` reaches a region's own. Without ``site`` the
    permutations are nilearn's `permuted_ols`. With it, participants are permuted within their site and the
    sites' means are held fixed, so that the difference within sites is tested. All tests are two-sided.
    Without covariates, or with ``site`` alone, the test is exact; with others it is so for large groups.

    Parameters
    ----------
    values
        ``(participants, regions)``; the columns of a DataFrame name the regions (see
        `glas3d.statistics.regions.region_values`).
    participants
        Table of the participants, in the same order; participants of other groups are left out.
    case, control
        Values of the column ``group``.
    group
        The column of groups.
    covariates
        Columns of numbers, or of two values (sex), to hold fixed.
    site
        Column of sites, between which participants must not be exchanged. Default: one site.
    n_perm
        Number of permutations; no p-value is below ``1 / (n_perm + 1)``.
    n_boot
        Number of resamples for the interval of ``cohen_d``; 0 leaves it out (as for voxels, where it takes memory of
        ``n_boot`` maps).
    tfce_mask
        A volume, bool, whose voxels inside are the columns of ``values``; with it, threshold-free cluster enhancement
        of the t map is tested, too (Smith & Nichols 2009, nilearn's). Default: it is not tested.
    seed
        Seed of permutations and resamples.

    Returns
    -------
    One row a region: ``name n_case n_control mean_case mean_control difference adjusted_difference t
    p_uncorrected p_fwe neglog10p_fwe cohen_d d_low d_high``, with ``tfce p_tfce_fwe neglog10p_tfce_fwe``
    where ``tfce_mask`` is given. ``adjusted_difference`` is the model's coefficient, ``p_uncorrected`` Student's,
    ``cohen_d`` the difference of the means over the pooled standard deviation, covariates not considered, with a
    95 % percentile bootstrap interval. Regions without a value in every participant, or without variance, have
    no test.

    Raises
    ------
    GlasError
        See `glas3d.statistics.design.two_group_design`; values that do not fit the participants or the mask; no
        region that can be tested.

    Warns
    -----
    GlasWarning
        Regions that some participants lack; see also `glas3d.statistics.design.two_group_design`.

    Examples
    --------
    >>> people = pd.DataFrame({"group": ["AD"] * 5 + ["NC"] * 5})
    >>> rng = np.random.default_rng(0)
    >>> values = pd.DataFrame({"Hippocampus_L": rng.normal(size=10), "Amygdala_L": rng.normal(size=10)})
    >>> values.loc[:4, "Hippocampus_L"] += 5
    >>> compare(values, people, "AD", "NC", n_perm=199)[["name", "p_fwe"]].round(2).values.tolist()
    [['Hippocampus_L', 0.01], ['Amygdala_L', 0.23]]
    """
    check_counts(n_perm, n_boot)
    data, names = as_matrix(values, participants)
    design = two_group_design(participants, case, control, group=group, covariates=covariates, site=site)
    data = data if design.rows.all() else data[design.rows]  # voxels of many participants are large
    known = complete_regions(data, names)
    residuals, norms = _residuals(data, design.basis)
    varied = known & (norms > 0)
    if not varied.any():
        raise GlasError("no region can be tested: none has values that differ between participants")
    masker = None if tfce_mask is None else _masker(tfce_mask, varied)

    residuals, norms = np.asfortranarray(residuals[:, varied]), norms[varied]  # else nilearn copies them
    tested = design.tested / np.linalg.norm(design.tested)
    t = _t_values(tested, design.basis, residuals, design.dof)
    null = _null(design, residuals, t, site is not None, n_perm, masker, seed)
    tests = {
        "adjusted_difference": tested @ residuals * norms / np.linalg.norm(design.tested),
        "t": t,
        "p_uncorrected": _student_p(t, design.dof),
        **_corrected("p_fwe", t, null.largest_t),
    }
    if null.tfce is not None and null.largest_tfce is not None:
        tests |= {"tfce": null.tfce, **_corrected("p_tfce_fwe", null.tfce, null.largest_tfce)}
    cases, controls = data[design.case][:, varied], data[~design.case][:, varied]
    tests["cohen_d"] = cohen_d(cases, controls)
    if n_boot:
        rng = np.random.default_rng([seed, 1])
        tests["d_low"], tests["d_high"] = bootstrap_interval(cohen_d, [[cases], [controls]], n_boot, rng)
    columns = {name: _scatter(varied, column) for name, column in tests.items()}
    return pd.DataFrame({"name": names} | _group_means(data, design.case, known) | columns)


def cohen_d(case: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Return Cohen's d, the difference of means over the pooled standard deviation.

    Parameters
    ----------
    case, control
        ``(n, p)`` and ``(m, p)``.

    Returns
    -------
    ``(p,)``, NaN where nothing varies within the groups.

    Examples
    --------
    >>> cohen_d(np.array([[3.0], [5.0]]), np.array([[1.0], [3.0]])).round(3)
    array([1.414])
    """
    squares = sum(((values - values.mean(axis=0)) ** 2).sum(axis=0) for values in (case, control))
    pooled = np.sqrt(np.asarray(squares) / (len(case) + len(control) - 2))
    difference = case.mean(axis=0) - control.mean(axis=0)
    return np.asarray(np.divide(difference, pooled, out=np.full(len(difference), np.nan), where=pooled > 0))


@dataclass(frozen=True, eq=False)
class _Null:
    """The permutation distribution of the largest statistic over regions.

    Attributes
    ----------
    largest_t
        ``(n_perm,)`` largest ``|t|`` of each permutation.
    tfce
        ``(p,)`` enhanced t; None where it is not tested.
    largest_tfce
        ``(n_perm,)`` largest ``|tfce|`` of each permutation; None where it is not tested.
    """

    largest_t: np.ndarray
    tfce: np.ndarray | None = None
    largest_tfce: np.ndarray | None = None


def _scatter(where: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return values of some regions among NaN for the others."""
    scattered = np.full(len(where), np.nan)
    scattered[where] = values
    return scattered


def _corrected(name: str, observed: np.ndarray, largest: np.ndarray) -> dict[str, np.ndarray]:
    """Return columns of the family-wise p-value and its negative logarithm."""
    p = p_values(observed, largest)
    return {name: p, f"neglog10{name}": -np.log10(p)}


def _group_means(data: np.ndarray, case: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    """Return columns of group sizes, means and their difference."""
    n_case, n_control = (np.full(len(known), int(rows.sum())) for rows in (case, ~case))
    mean_case, mean_control = (_scatter(known, data[rows][:, known].mean(axis=0)) for rows in (case, ~case))
    return {
        "n_case": n_case,
        "n_control": n_control,
        "mean_case": mean_case,
        "mean_control": mean_control,
        "difference": mean_case - mean_control,
    }


def _residuals(data: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each region's residuals on an orthonormal basis, at unit norm, and that norm, 0 where none are left."""
    left = data - basis @ (basis.T @ data)
    norms = np.linalg.norm(left, axis=0)
    norms = np.where(norms > _ROUNDING * np.linalg.norm(data, axis=0), norms, 0.0)
    left[:, norms == 0] = 0
    return np.divide(left, norms, out=left, where=norms > 0), norms


def _t_values(tested: np.ndarray, basis: np.ndarray, residuals: np.ndarray, dof: int) -> np.ndarray:
    """Return Student's t, ``(p,)``, of a unit vector in a model with an orthonormal basis, for columns of unit norm."""
    along = tested @ residuals
    rest = 1 - along**2 - ((basis.T @ residuals) ** 2).sum(axis=0)
    rest = np.where(rest > _ROUNDING, rest, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nan_to_num(along * np.sqrt(dof / rest), nan=0.0, posinf=np.inf, neginf=-np.inf))


def _student_p(t: np.ndarray, dof: int) -> np.ndarray:
    from scipy.stats import t as student

    return np.asarray(2 * student.sf(np.abs(t), dof))


def _null(
    design: TwoGroupDesign, residuals: np.ndarray, t: np.ndarray, blocked: bool, n_perm: int, masker: Any, seed: int
) -> _Null:
    """Permute participants, by nilearn where they may all be exchanged, else within blocks."""
    from nilearn.mass_univariate import permuted_ols

    def by_nilearn(order: np.ndarray, count: int) -> dict[str, np.ndarray]:
        """Test the participants' residuals on the design in another order, with ``count`` permutations."""
        # without an intercept column of ours: nilearn would take it for a test of the intercept and swap signs
        fixed = np.ascontiguousarray(design.covariates[order]) if design.covariates.shape[1] else None
        x = np.ascontiguousarray(design.tested[order][:, None])
        options = {"masker": masker, "tfce": True} if masker is not None else {}
        return dict(permuted_ols(x, residuals, fixed, n_perm=count, random_state=seed, **options))

    identity = np.arange(len(design.case))
    infinite = not np.isfinite(t).all()  # which nilearn takes for no value
    if masker is not None and infinite:
        raise GlasError("TFCE needs finite t values, in some voxel all of a group are alike")
    if not blocked and not infinite:
        result = by_nilearn(identity, n_perm)
        if masker is None:
            return _Null(result["h0_max_t"][0])
        return _Null(result["h0_max_t"][0], result["tfce"][0], result["h0_max_tfce"][0])

    tested, basis = design.tested / np.linalg.norm(design.tested), design.basis
    largest_t, largest_tfce = np.empty(n_perm), np.empty(n_perm)
    for i, order in enumerate(shuffles(design.blocks, n_perm, np.random.default_rng([seed, 0]))):
        # reordering the design in place of the residuals is the same, and moves less
        largest_t[i] = np.abs(_t_values(tested[order], basis[order], residuals, design.dof)).max()
        if masker is not None:
            largest_tfce[i] = np.abs(by_nilearn(order, 0)["tfce"]).max()
    if masker is None:
        return _Null(largest_t)
    return _Null(largest_t, by_nilearn(identity, 0)["tfce"][0], largest_tfce)


def _masker(mask: np.ndarray, varied: np.ndarray) -> Any:
    """Return nilearn's masker, which its TFCE needs, of the voxels that can be tested."""
    import nibabel as nib
    from nilearn.maskers import NiftiMasker

    inside = np.asarray(mask, dtype=bool)
    if inside.ndim != 3 or int(inside.sum()) != len(varied):
        raise GlasError(
            f"the mask must be a volume whose voxels are the columns of the values, got {inside.sum()} voxels in "
            f"{inside.shape} for {len(varied)} columns"
        )
    kept = np.zeros(inside.shape, np.uint8)
    kept[inside] = varied
    return NiftiMasker(nib.Nifti1Image(kept, np.eye(4))).fit()
