"""Where the saliency of two groups differs: a linear model, permuted, corrected for all regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from glas3d.errors import GlasError
from glas3d.statistics.design import Contrast, contrast
from glas3d.statistics.regions import complete, matrix
from glas3d.statistics.resampling import check_counts, interval, p_values, shuffles

# Relative to a region's values: what is left of them below this is rounding.
_ROUNDING = 1e-12


def compare(
    values: np.ndarray | pd.DataFrame,
    design: pd.DataFrame,
    case: object,
    control: object,
    *,
    group: str = "group",
    covariates: Sequence[str] = (),
    site: str | None = None,
    n_perm: int = 10_000,
    n_boot: int = 1000,
    masker: Any = None,
    tfce: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the saliency of cases with that of controls, region by region or voxel by voxel.

    Ordinary least squares of saliency on group, intercept and covariates; the null is made by Freedman and
    Lane's permutations of what intercept and covariates leave over (Winkler et al. 2014), and family-wise
    p-values count the permutations whose largest ``|t|`` reaches a region's own. Without ``site`` the
    permutations are nilearn's `permuted_ols`. With it, participants are permuted within their site and the
    sites' means are held fixed: what is tested is the difference within sites. All tests are two-sided.
    Without covariates, or with ``site`` alone, the test is exact; with others it is so for large groups.

    Parameters
    ----------
    values
        ``(participants, regions)``; the columns of a DataFrame name the regions (see `region_values`).
    design
        ``participants.tsv``, in the same order; participants of other groups are left out.
    case, control
        Values of the column ``group``.
    covariates
        Columns of numbers, or of two values (sex).
    site
        Column of sites, between which participants must not be exchanged.
    n_perm
        Permutations; no p-value is below ``1 / (n_perm + 1)``.
    n_boot
        Resamples for the interval of ``cohen_d``; 0 leaves it out (as for voxels, where it takes memory of
        ``n_boot`` maps).
    masker
        Fitted nilearn masker whose voxels are the columns of ``values``; for ``tfce`` only.
    tfce
        Also test threshold-free cluster enhancement of the t map (Smith & Nichols 2009, nilearn's).
    seed
        Of permutations and resamples.

    Returns
    -------
    One row a region: ``name n_case n_control mean_case mean_control difference adjusted_difference t
    p_uncorrected p_fwe neglog10p_fwe cohen_d d_low d_high``, with ``tfce p_tfce_fwe neglog10p_tfce_fwe``
    when asked. ``adjusted_difference`` is the model's coefficient, ``p_uncorrected`` Student's, ``cohen_d``
    the difference of the means over the pooled standard deviation, covariates not considered, with a 95 %
    percentile bootstrap interval. Regions without a value in every participant, or without variance, have
    no test.

    Raises
    ------
    GlasError
        See `contrast`; values that do not fit the participants; no region that can be tested.

    Warns
    -----
    GlasWarning
        Regions that some participants lack; see also `contrast`.

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
    data, names = matrix(values, design)
    found = contrast(design, case, control, group=group, covariates=covariates, site=site)
    data = data if found.rows.all() else data[found.rows]  # voxels of many participants are large
    known = complete(data, names)
    residuals, scale = _residuals(data, found.nuisance)
    varied = known & (scale > 0)
    if not varied.any():
        raise GlasError("no region can be tested: none has values that differ between participants")
    if tfce:
        masker = _masker(masker, varied)

    residuals, scale = np.asfortranarray(residuals[:, varied]), scale[varied]  # else nilearn copies them
    tested = found.tested / np.linalg.norm(found.tested)
    t = _t(tested, found.nuisance, residuals, found.dof)
    null, clusters = _null(found, residuals, t, site is not None, n_perm, masker if tfce else None, seed)
    result: dict[str, np.ndarray] = _describe(data, found.case, known)
    result["adjusted_difference"] = _on(varied, tested @ residuals * scale / np.linalg.norm(found.tested))
    result["t"] = _on(varied, t)
    result["p_uncorrected"] = _on(varied, _student(t, found.dof))
    result["p_fwe"] = _on(varied, p_values(t, null))
    result["neglog10p_fwe"] = -np.log10(result["p_fwe"])
    if clusters is not None:
        result["tfce"] = _on(varied, clusters[0])
        result["p_tfce_fwe"] = _on(varied, p_values(*clusters))
        result["neglog10p_tfce_fwe"] = -np.log10(result["p_tfce_fwe"])
    cases, controls = data[found.case][:, varied], data[~found.case][:, varied]
    result["cohen_d"] = _on(varied, cohen_d(cases, controls))
    if n_boot:
        ends = interval(cohen_d, [[cases], [controls]], n_boot, np.random.default_rng([seed, 1]))
        result["d_low"], result["d_high"] = (_on(varied, end) for end in ends)
    return pd.DataFrame({"name": names} | result)


def cohen_d(case: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Difference of means over the pooled standard deviation: ``(n, p)`` and ``(m, p)`` to ``(p,)``.

    NaN where nothing varies within the groups.

    Examples
    --------
    >>> cohen_d(np.array([[3.0], [5.0]]), np.array([[1.0], [3.0]])).round(3)
    array([1.414])
    """
    squares = sum(((one - one.mean(axis=0)) ** 2).sum(axis=0) for one in (case, control))
    pooled = np.sqrt(np.asarray(squares) / (len(case) + len(control) - 2))
    difference = case.mean(axis=0) - control.mean(axis=0)
    return np.asarray(np.divide(difference, pooled, out=np.full(len(difference), np.nan), where=pooled > 0))


def _on(which: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values of some regions among NaN for the others."""
    every = np.full(len(which), np.nan)
    every[which] = values
    return every


def _describe(data: np.ndarray, case: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    """Group sizes, means and their difference."""
    means = [_on(known, data[who][:, known].mean(axis=0)) for who in (case, ~case)]
    sizes = [np.full(len(known), int(who.sum())) for who in (case, ~case)]
    return {
        "n_case": sizes[0],
        "n_control": sizes[1],
        "mean_case": means[0],
        "mean_control": means[1],
        "difference": means[0] - means[1],
    }


def _residuals(data: np.ndarray, nuisance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the nuisance leaves of each region, at unit norm, and that norm: 0 where nothing is left."""
    left = data - nuisance @ (nuisance.T @ data)
    scale = np.linalg.norm(left, axis=0)
    scale = np.where(scale > _ROUNDING * np.linalg.norm(data, axis=0), scale, 0.0)
    left[:, scale == 0] = 0
    return np.divide(left, scale, out=left, where=scale > 0), scale


def _t(tested: np.ndarray, nuisance: np.ndarray, residuals: np.ndarray, dof: int) -> np.ndarray:
    """Student's t of the unit vector ``tested`` beside the orthonormal ``nuisance``, to columns of unit norm."""
    along = tested @ residuals
    rest = 1 - along**2 - ((nuisance.T @ residuals) ** 2).sum(axis=0)
    rest = np.where(rest > _ROUNDING, rest, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.nan_to_num(along * np.sqrt(dof / rest), nan=0.0, posinf=np.inf, neginf=-np.inf))


def _student(t: np.ndarray, dof: int) -> np.ndarray:
    from scipy.stats import t as student

    return np.asarray(2 * student.sf(np.abs(t), dof))


def _null(
    found: Contrast, residuals: np.ndarray, t: np.ndarray, blocked: bool, n_perm: int, masker: Any, seed: int
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """The largest ``|t|`` of each permutation; with a masker also TFCE and its largest of each permutation."""
    from nilearn.mass_univariate import permuted_ols

    def nilearn(order: np.ndarray, count: int) -> dict[str, np.ndarray]:
        """`permuted_ols` of the participants' residuals on the design in another order."""
        # without an intercept column of ours: nilearn would take it for a test of the intercept and swap signs
        fixed = np.ascontiguousarray(found.covariates[order]) if found.covariates.shape[1] else None
        x = np.ascontiguousarray(found.tested[order][:, None])
        options = {"masker": masker, "tfce": True} if masker is not None else {}
        return dict(permuted_ols(x, residuals, fixed, n_perm=count, random_state=seed, **options))

    intact = np.arange(len(found.case))
    perfect = not np.isfinite(t).all()  # which nilearn takes for no value
    if masker is not None and perfect:
        raise GlasError("TFCE needs finite t values, in some voxel all of a group are alike")
    if not blocked and not perfect:
        answer = nilearn(intact, n_perm)
        clusters = None if masker is None else (answer["tfce"][0], answer["h0_max_tfce"][0])
        return answer["h0_max_t"][0], clusters

    tested, nuisance = found.tested / np.linalg.norm(found.tested), found.nuisance
    largest, enhanced = np.empty(n_perm), np.empty(n_perm)
    for i, order in enumerate(shuffles(found.blocks, n_perm, np.random.default_rng([seed, 0]))):
        # reordering the design in place of the residuals is the same, and moves less
        largest[i] = np.abs(_t(tested[order], nuisance[order], residuals, found.dof)).max()
        if masker is not None:
            enhanced[i] = np.abs(nilearn(order, 0)["tfce"]).max()
    return largest, None if masker is None else (nilearn(intact, 0)["tfce"][0], enhanced)


def _masker(masker: Any, varied: np.ndarray) -> Any:
    """A masker of the voxels that can be tested."""
    import nibabel as nib
    from nilearn.maskers import NiftiMasker

    mask = getattr(masker, "mask_img_", None)
    if mask is None:
        raise GlasError("TFCE needs the fitted masker that the voxels came from, got none")
    inside = np.asarray(mask.dataobj) != 0
    if int(inside.sum()) != len(varied):
        raise GlasError(f"the masker must hold the voxels of the values: it has {inside.sum()}, they {len(varied)}")
    kept = np.zeros(inside.shape, np.uint8)
    kept[inside] = varied
    return NiftiMasker(nib.Nifti1Image(kept, mask.affine)).fit()
