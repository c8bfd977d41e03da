"""Test of out-of-fold maps by relabelling: labels are permuted, models trained with them, and all maps made again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from glas3d.errors import GlasError, GlasWarning
from glas3d.statistics.corrected import corrected_columns, smallest_p
from glas3d.statistics.design import TwoGroupDesign, two_group_design
from glas3d.statistics.group_model import ROUNDING
from glas3d.statistics.regions import as_matrix
from glas3d.statistics.resampling import shuffles

NULL_HYPOTHESIS = (
    "the labels are independent of the scans: the scans of both groups have the same distribution, in every region"
)

Evidence = Callable[[np.ndarray], np.ndarray | pd.DataFrame]


def compare_relabelled(
    evidence: Evidence,
    participants: pd.DataFrame,
    case: object,
    control: object,
    *,
    group: str = "group",
    site: str | None = None,
    n_perm: int = 99,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare two groups by out-of-fold maps, with models that are trained again for every relabelling.

    The labels of participants trained the models that explain others, so that maps of several folds are not
    exchangeable. Labels are, if they are independent of the scans: everything that is computed from scans and labels,
    training and explaining too, is computed again with permuted labels, and the statistic of the true labels is one
    like any other. The test is exact for that null hypothesis, whatever the models do with the labels. Family-wise
    p-values count the relabellings whose largest ``|t|`` (Welch's) reaches a region's own.

    The null hypothesis is about all regions together. Where it is false, which regions differ is less certain: models
    of true labels may shift evidence between regions in which nothing differs.

    Parameters
    ----------
    evidence
        A function of labels, ``(participants,)`` values of the column ``group``, that trains the models with them and
        returns the maps of all participants, ``(participants, regions)``. It must do the same for all labels and
        depend on nothing else: a seed in it must be fixed.
    participants
        Table of the participants of the two groups.
    case, control, group
        See `glas3d.statistics.two_groups.compare`.
    site
        Column of sites: labels are permuted within them. Default: one site.
    n_perm
        Number of relabellings; no p-value is below ``1 / (n_perm + 1)``.
    seed
        Seed of the relabellings.

    Returns
    -------
    One row a region: ``name n_case n_control mean_case mean_control difference t p_uncorrected p_fdr p_fwe
    neglog10p_fwe``.

    Raises
    ------
    GlasError
        Participants of other groups; see also `glas3d.statistics.two_groups.compare`.

    Warns
    -----
    GlasWarning
        Groups or sites so small that no p-value can reach 0.05.
    """
    every = relabellings(participants, case, control, group=group, site=site, n_perm=n_perm, seed=seed)
    tables = (group_statistics(evidence(labels), labels, case, control) for labels in every)
    return relabelled_table(tables, participants, case, control, group=group, site=site)


def relabellings(
    participants: pd.DataFrame,
    case: object,
    control: object,
    *,
    group: str = "group",
    site: str | None = None,
    n_perm: int,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Generate labels ``(participants,)``: first the true ones, then ``n_perm`` times permuted ones.

    Parameters
    ----------
    participants, case, control, group, site, n_perm, seed
        See `compare_relabelled`.

    Raises
    ------
    GlasError
        Too few relabellings, participants of other groups, or a column without a value.
    """
    if n_perm < 19:
        raise GlasError(f"relabellings must be at least 19, for a p-value to be 0.05, got {n_perm}")
    design = two_group_design(participants, case, control, group=group, site=site)
    if not design.rows.all():
        others = int((~design.rows).sum())
        raise GlasError(f"labels are permuted between {case} and {control}, {others} participants have another")
    if (least := _smallest_p(design)) > 0.05:
        message = f"labels can be permuted in so few ways that no p-value can be below {least:.2g} and none reach 0.05"
        warnings.warn(message, GlasWarning, stacklevel=2)
    labels = participants[group].to_numpy()
    yield labels
    for order in shuffles(design.blocks, n_perm, np.random.default_rng([seed, 0])):
        yield labels[order]


def group_statistics(
    values: np.ndarray | pd.DataFrame, labels: np.ndarray, case: object, control: object
) -> pd.DataFrame:
    """Return ``name n_case n_control mean_case mean_control difference t`` of the maps by models of some labels.

    ``t`` is Welch's, NaN where nothing varies or some participant has no value.

    Parameters
    ----------
    values
        ``(participants, regions)``.
    labels
        ``(participants,)``: the labels of this relabelling.
    case, control
        See `compare_relabelled`.
    """
    data, names = as_matrix(values)
    groups = [data[labels == name] for name in (case, control)]
    means = [rows.mean(axis=0) for rows in groups]
    error = np.zeros(len(names))
    for rows in groups:
        variance = rows.var(axis=0, ddof=1)
        error += np.where(variance > ROUNDING * (rows**2).mean(axis=0), variance, 0) / len(rows)
    difference = means[0] - means[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = difference / np.sqrt(error)
    sizes = {name: len(rows) for name, rows in zip(("n_case", "n_control"), groups, strict=True)}
    found = {"mean_case": means[0], "mean_control": means[1], "difference": difference, "t": t}
    return pd.DataFrame({"name": names, **sizes, **found})


def relabelled_table(
    tables: Iterator[pd.DataFrame],
    participants: pd.DataFrame,
    case: object,
    control: object,
    *,
    group: str = "group",
    site: str | None = None,
) -> pd.DataFrame:
    """Return the test of the first of several tables of `group_statistics`, that of the true labels, among the others.

    Parameters
    ----------
    tables
        The tables of all relabellings, see `relabellings`.
    participants, case, control, group, site
        See `compare_relabelled`.
    """
    observed = next(tables)
    every = np.stack([table["t"].to_numpy(dtype=float) for table in tables])
    tested = observed["t"].notna().to_numpy()
    t = observed.loc[tested, "t"].to_numpy(dtype=float)
    least = _smallest_p(two_group_design(participants, case, control, group=group, site=site))
    null = np.nan_to_num(every[:, tested], posinf=np.inf, neginf=-np.inf)
    columns = corrected_columns(t, iter([null]), len(null), least)
    found = pd.DataFrame(columns, index=np.flatnonzero(tested)).reindex(range(len(observed)))
    return pd.concat([observed, found], axis=1)


def _smallest_p(design: TwoGroupDesign) -> float:
    """Return the smallest p-value of all relabellings."""
    blocks = [design.blocks == block for block in np.unique(design.blocks)]
    sizes = [(int(design.case[rows].sum()), int((~design.case)[rows].sum())) for rows in blocks]
    return smallest_p(sizes, "permutation")
