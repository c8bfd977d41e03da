"""Where the saliency of two groups differs: means of groups of unequal spread, corrected for all regions."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from glas3d.errors import GlasError, GlasWarning
from glas3d.statistics.choices import Null, check_counts, check_null
from glas3d.statistics.corrected import corrected_columns, enhancement, scattered, smallest_p
from glas3d.statistics.design import TwoGroupDesign, two_group_design
from glas3d.statistics.effect_size import cohen_d, cohen_d_interval, hedges_g
from glas3d.statistics.group_model import BLOCK, ROUNDING, group_model, null_statistics, observed
from glas3d.statistics.regions import as_matrix, complete_regions
from glas3d.statistics.resampling import shuffles
from glas3d.statistics.skewness import warn_of_skew


def compare(
    values: np.ndarray | pd.DataFrame,
    participants: pd.DataFrame,
    case: object,
    control: object,
    *,
    group: str = "group",
    covariates: Sequence[str] = (),
    site: str | None = None,
    null: Null = "sign-flip",
    n_perm: int = 10_000,
    n_boot: int = 1000,
    tfce_mask: np.ndarray | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the saliency of cases with that of controls, region by region or voxel by voxel.

    Saliency is fitted by least squares on group, intercept, covariates and sites. The null hypothesis is that the
    adjusted means of the two groups are equal; their spread may differ. The statistic is Welch's t, with covariates
    Aspin and Welch's v, which is the signed square root of G of Winkler et al. (2014) with a variance for each group.

    The null distribution is made from the residuals of this model within the groups, all regions together: their signs
    are flipped (``"sign-flip"``), which assumes symmetric errors, or they are drawn with replacement
    (``"bootstrap-t"``), which does not and has less power. Family-wise p-values count the draws whose largest ``|t|``
    reaches a region's own. Both are approximate for small groups. ``"permutation"`` is Student's t with Freedman and
    Lane's permutations, within sites: it tests whether the two groups have the same distribution, so that it also
    rejects where only their spread differs. All tests are two-sided. No p-value is below the smallest one that an
    exact test of groups of this size could give.

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
        Columns of numbers or of categories (sex, scanner) to hold fixed; see
        `glas3d.statistics.design.nuisance_design`.
    site
        Column of sites, whose means are held fixed. Default: one site.
    null
        How the null distribution is made: ``"sign-flip"``, ``"bootstrap-t"`` or ``"permutation"``.
    n_perm
        Number of draws from the null distribution; no p-value is below ``1 / (n_perm + 1)``.
    n_boot
        0 leaves out the interval of ``cohen_d``; any other number includes it.
    tfce_mask
        A volume, bool, whose voxels inside are the columns of ``values``; with it, threshold-free cluster enhancement
        of the t map is tested, too (Smith & Nichols 2009, integrated exactly). Default: it is not tested.
    seed
        Seed of the draws.

    Returns
    -------
    One row a region: ``name n_case n_control mean_case mean_control difference adjusted_difference t dof
    p_uncorrected p_fdr p_fwe neglog10p_fwe cohen_d hedges_g d_low d_high``, with ``tfce p_tfce_fwe
    neglog10p_tfce_fwe`` where ``tfce_mask`` is given. ``adjusted_difference`` is the model's coefficient, ``dof``
    Welch and Satterthwaite's, ``p_uncorrected`` that of the draws, ``p_fdr`` Benjamini and Hochberg's of it,
    ``cohen_d`` the difference of the means over the pooled standard deviation, covariates not considered, with the
    95 % interval of the noncentral t, and ``hedges_g`` the same without its bias in small groups. Regions without a
    value in every participant, or without variance, have no test.

    Raises
    ------
    GlasError
        See `glas3d.statistics.design.two_group_design`; values that do not fit the participants or the mask; no
        region that can be tested.

    Warns
    -----
    GlasWarning
        Regions that some participants lack; groups so small that no p-value can reach 0.05; values so skewed that
        ``"sign-flip"`` may reject too often; see also `glas3d.statistics.design.two_group_design`.

    Examples
    --------
    >>> people = pd.DataFrame({"group": ["AD"] * 5 + ["NC"] * 5})
    >>> rng = np.random.default_rng(0)
    >>> values = pd.DataFrame({"Hippocampus_L": rng.normal(size=10), "Amygdala_L": rng.normal(size=10)})
    >>> values.loc[:4, "Hippocampus_L"] += 5
    >>> compare(values, people, "AD", "NC", n_perm=199)[["name", "p_fwe"]].round(2).values.tolist()
    [['Hippocampus_L', 0.01], ['Amygdala_L', 0.34]]
    """
    check_counts(n_perm, n_boot)
    check_null(null)
    data, names = as_matrix(values, participants)
    design = two_group_design(participants, case, control, group=group, covariates=covariates, site=site)
    data = data if design.rows.all() else data[design.rows]  # voxels of many participants are large
    known = complete_regions(data, names)
    residuals, norms = _residuals(data, design.basis)
    varied = known & (norms > 0)
    if not varied.any():
        raise GlasError("no region can be tested: none has values that differ between participants")
    enhance = None if tfce_mask is None else enhancement(tfce_mask, varied)
    least = _smallest_p(design, null)

    if not varied.all():
        residuals, norms = residuals[:, varied], norms[varied]
    t, dof, effect, draws = _test(design, residuals, null, n_perm, np.random.default_rng([seed, 0]))
    tests = {
        "adjusted_difference": effect * norms,
        "t": t,
        "dof": dof,
        **corrected_columns(t, draws, n_perm, least, enhance),
    }
    cases, controls = data[design.case][:, varied], data[~design.case][:, varied]
    if null == "sign-flip":
        warn_of_skew([cases, controls])
    tests["cohen_d"] = cohen_d(cases, controls)
    tests["hedges_g"] = hedges_g(cases, controls)
    if n_boot:
        tests["d_low"], tests["d_high"] = cohen_d_interval(tests["cohen_d"], len(cases), len(controls))
    columns = {name: scattered(varied, column) for name, column in tests.items()}
    return pd.DataFrame({"name": names} | _group_means(data, design.case, known) | columns)


def _test(
    design: TwoGroupDesign, residuals: np.ndarray, null: Null, n_perm: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Iterator[np.ndarray]]:
    """Return t, degrees of freedom and adjusted difference, ``(p,)`` each, and the blocks of null statistics.

    ``residuals`` are those on the covariates, at unit norm.
    """
    tested = design.tested / np.linalg.norm(design.tested)
    along = tested @ residuals
    effect = along / np.linalg.norm(design.tested)
    if null == "permutation":
        t = _student_t(along, (design.basis.T @ residuals)[:, None], design.dof)[0]
        dof = np.full(len(t), float(design.dof))
        return t, dof, effect, _permuted(design, tested, residuals, n_perm, rng)
    model = group_model(design)
    left = np.outer(-tested, along)
    left += residuals
    left[:, (left**2).sum(axis=0) <= ROUNDING] = 0  # the groups are apart without noise
    t, dof = observed(model, left, effect)
    return t, dof, effect, null_statistics(model, left, null, n_perm, rng)


def _permuted(
    design: TwoGroupDesign, tested: np.ndarray, residuals: np.ndarray, n_perm: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Generate Student's t of permuted participants, in blocks ``(draws, p)``."""
    size = max(1, min(n_perm, BLOCK // residuals.shape[1]))
    orders = shuffles(design.blocks, n_perm, rng)
    for start in range(0, n_perm, size):
        # reordering the design in place of the residuals is the same, and moves less
        chosen = np.stack([next(orders) for _ in range(min(size, n_perm - start))])
        fixed = np.stack([column[chosen] @ residuals for column in design.basis.T])
        yield _student_t(tested[chosen] @ residuals, fixed, design.dof)


def _student_t(along: np.ndarray, fixed: np.ndarray, dof: int) -> np.ndarray:
    """Return Student's t of columns of unit norm, from their products with the tested column and the fixed ones."""
    rest = 1 - along**2 - (fixed**2).sum(axis=0)
    rest = np.where(rest > ROUNDING, rest, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nan_to_num(along * np.sqrt(dof / rest), nan=0.0, posinf=np.inf, neginf=-np.inf))


def _smallest_p(design: TwoGroupDesign, null: Null) -> float:
    """Return the smallest p-value of a design; warn where it exceeds 0.05."""
    blocks = design.blocks if null == "permutation" else np.zeros(len(design.case), dtype=int)
    sizes = [(int(design.case[blocks == b].sum()), int((~design.case)[blocks == b].sum())) for b in np.unique(blocks)]
    least = smallest_p(sizes, null)
    if least > 0.05:
        message = (
            f"with {int(design.case.sum())} participants against {int((~design.case).sum())} no two-sided p-value "
            f"can be below {least:.2g}, so that none can reach 0.05"
        )
        warnings.warn(message, GlasWarning, stacklevel=3)
    return least


def _group_means(data: np.ndarray, case: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    """Return columns of group sizes, means and their difference."""
    n_case, n_control = (np.full(len(known), int(rows.sum())) for rows in (case, ~case))
    mean_case, mean_control = (scattered(known, data[rows][:, known].mean(axis=0)) for rows in (case, ~case))
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
    norms = np.where(norms > ROUNDING * np.linalg.norm(data, axis=0), norms, 0.0)
    left[:, norms == 0] = 0
    return np.divide(left, norms, out=left, where=norms > 0), norms
