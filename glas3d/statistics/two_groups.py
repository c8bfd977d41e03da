"""Where the saliency of two groups differs: means of groups of unequal spread, corrected for all regions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from glas3d.errors import GlasError, GlasWarning
from glas3d.statistics.choices import Null, check_counts, check_null
from glas3d.statistics.design import TwoGroupDesign, two_group_design
from glas3d.statistics.effect_size import cohen_d, cohen_d_interval, hedges_g
from glas3d.statistics.group_model import BLOCK, ROUNDING, group_model, null_statistics, observed
from glas3d.statistics.regions import as_matrix, complete_regions
from glas3d.statistics.resampling import as_extreme, false_discovery, p_values, shuffles

Enhance = Callable[[np.ndarray], np.ndarray]

# A t of a map under the null is limited to this before clusters are enhanced, where all of a group may be alike.
_LARGEST_T = 1e4
# Sign flips of so few residuals reject too often: 3 against 10 with normal values 14 % of 300 data sets, 33 % where the
# 3 spread twice as much.
_TOO_FEW_FOR_SPREAD = 3


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
    enhance = None if tfce_mask is None else _enhancement(tfce_mask, varied)
    least = _smallest_p(design, null)

    if not varied.all():
        residuals, norms = residuals[:, varied], norms[varied]
    t, dof, effect, draws = _test(design, residuals, null, n_perm, np.random.default_rng([seed, 0]))
    tests = {"adjusted_difference": effect * norms, "t": t, "dof": dof, **_resampled(t, draws, n_perm, least, enhance)}
    cases, controls = data[design.case][:, varied], data[~design.case][:, varied]
    if null == "sign-flip":
        _warn_of_skew(cases, controls)
    tests["cohen_d"] = cohen_d(cases, controls)
    tests["hedges_g"] = hedges_g(cases, controls)
    if n_boot:
        tests["d_low"], tests["d_high"] = cohen_d_interval(tests["cohen_d"], len(cases), len(controls))
    columns = {name: _scatter(varied, column) for name, column in tests.items()}
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


def _resampled(
    t: np.ndarray, draws: Iterator[np.ndarray], n_perm: int, least: float, enhance: Enhance | None
) -> dict[str, np.ndarray]:
    """Return the columns of p-values, and those of cluster enhancement."""
    if enhance is not None and not np.isfinite(t).all():
        raise GlasError("TFCE needs finite t values, in some voxel all of a group are alike")
    tfce = None if enhance is None else enhance(t)
    largest, largest_tfce, n_as_extreme = [], [], np.zeros(len(t))
    for block in draws:
        largest.append(np.abs(block).max(axis=1))
        n_as_extreme += as_extreme(t, block).sum(axis=0)
        if enhance is not None:
            largest_tfce += [np.abs(enhance(np.clip(one, -_LARGEST_T, _LARGEST_T))).max() for one in block]
    uncorrected = np.maximum((1 + n_as_extreme) / (1 + n_perm), least)
    columns = {
        "p_uncorrected": uncorrected,
        "p_fdr": false_discovery(uncorrected),
        **_corrected("p_fwe", t, np.concatenate(largest), least),
    }
    if tfce is not None:
        columns |= {"tfce": tfce, **_corrected("p_tfce_fwe", tfce, np.array(largest_tfce), least)}
    return columns


def smallest_p(sizes: Sequence[tuple[int, int]], null: Null) -> float:
    """Return the smallest two-sided p-value that groups of this size can give.

    It is that of the exact test that exchanges participants. Where spreads may differ, two or three participants of a
    group tell nothing of its spread: their residuals have 2 or 4 patterns of signs, and p is not below 1 in as many.

    Parameters
    ----------
    sizes
        Numbers of cases and controls that may be exchanged: of each site, or of all.
    null
        How the null distribution is made.

    Examples
    --------
    >>> smallest_p([(3, 3)], "permutation"), smallest_p([(3, 3)], "sign-flip")
    (0.1, 0.25)
    """
    ways = math.prod(math.comb(n_case + n_control, n_case) for n_case, n_control in sizes)
    mirrored = all(n_case == n_control for n_case, n_control in sizes)
    least = min(1.0, (2 if mirrored else 1) / ways)
    fewest = min(sum(n_case for n_case, _ in sizes), sum(n_control for _, n_control in sizes))
    if null != "permutation" and 1 <= fewest <= _TOO_FEW_FOR_SPREAD:
        least = max(least, 0.5 ** (fewest - 1))
    return least


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


def _warn_of_skew(case: np.ndarray, control: np.ndarray) -> None:
    """Warn where values are so skewed that the mean difference is, too: flipped signs are not.

    The third central moment of the mean difference is compared with its standard error for normal values. Its square
    is 1 on average over regions where values are normal.
    """
    from scipy.stats import chi2

    moment, variance = np.zeros(case.shape[1]), np.zeros(case.shape[1])
    for values, sign in ((case, 1), (control, -1)):
        n = len(values)
        centred = values - values.mean(axis=0)
        moment += sign * (centred**3).mean(axis=0) / n**2
        variance += 6 * (centred**2).mean(axis=0) ** 3 * (n - 2) / ((n + 1) * (n + 3)) / n**4
    known = variance > 0
    if not known.any():
        return
    squares = moment[known] ** 2 / variance[known]
    count = int(known.sum())
    if squares.mean() > max(2.0, float(chi2.ppf(0.999, count)) / count):
        n_skewed = int((squares > 3.84).sum())
        message = (
            f"values are skewed, differently or in groups of different size, in {n_skewed} of {count} regions or "
            "voxels: flipped signs assume symmetric values and may reject too often, null='bootstrap-t' "
            "(--null bootstrap-t) does not assume it"
        )
        warnings.warn(message, GlasWarning, stacklevel=3)


def _scatter(where: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return values of some regions among NaN for the others."""
    scattered = np.full(len(where), np.nan)
    scattered[where] = values
    return scattered


def _corrected(name: str, observed_t: np.ndarray, largest: np.ndarray, least: float) -> dict[str, np.ndarray]:
    """Return columns of the family-wise p-value and its negative logarithm."""
    p = np.maximum(p_values(observed_t, largest), least)
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
    norms = np.where(norms > ROUNDING * np.linalg.norm(data, axis=0), norms, 0.0)
    left[:, norms == 0] = 0
    return np.divide(left, norms, out=left, where=norms > 0), norms


def _enhancement(mask: np.ndarray, varied: np.ndarray) -> Enhance:
    """Return the function that enhances clusters in values of the voxels that can be tested; faces make neighbours."""
    from tfce import tfce

    inside = np.asarray(mask, dtype=bool)
    if inside.ndim != 3 or int(inside.sum()) != len(varied):
        raise GlasError(
            f"the mask must be a volume whose voxels are the columns of the values, got {inside.sum()} voxels in "
            f"{inside.shape} for {len(varied)} columns"
        )
    kept = np.zeros(inside.shape, dtype=bool)
    kept[inside] = varied

    def enhance(values: np.ndarray) -> np.ndarray:
        volume = np.zeros(kept.shape, np.float32)
        volume[kept] = values
        return np.asarray(tfce(volume, connectivity=6, E=0.5, H=2.0)[kept], dtype=float)

    return enhance
