"""The test of two or more groups of a study: which participants it has, and within what their maps are exchangeable."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from glas3d.errors import GlasError, GlasWarning, listed
from glas3d.statistics.choices import covariate_column
from glas3d.statistics.corrected import smallest_p
from glas3d.statistics.design import groups_design, two_group_design
from glas3d.statistics.folds import compare_all_within_folds, compare_within_folds
from glas3d.statistics.group_model import null_hypothesis
from glas3d.statistics.omnibus import compare_all
from glas3d.statistics.regions import CLR_FLOOR
from glas3d.statistics.two_groups import compare
from glas3d.study.group.options import GroupOptions
from glas3d.study.group.participants import GroupScores, ParticipantResults
from glas3d.tables import MISSING

# The groups that are compared: case and control, or three and more that are tested together.
Groups = tuple[str, ...]

_UNEQUAL_SPREAD = (
    "Welch's t, with covariates Aspin and Welch's v (G of Winkler et al. 2014 with the groups as variance groups)"
)
_UNEQUAL_SPREAD_OF_ALL = "Welch's F, with covariates G of Winkler et al. (2014) with the groups as variance groups"
# The statistic of two groups, and that of more.
_STATISTICS = {
    "sign-flip": (_UNEQUAL_SPREAD, _UNEQUAL_SPREAD_OF_ALL),
    "bootstrap-t": (_UNEQUAL_SPREAD, _UNEQUAL_SPREAD_OF_ALL),
    "permutation": ("Student's t", "Fisher's F"),
}
_METHODS = {
    "sign-flip": "signs of the residuals within the groups flipped at random",
    "bootstrap-t": "residuals drawn with replacement within the groups",
    "permutation": "Freedman and Lane's permutations",
}


def compare_values(
    values: np.ndarray | pd.DataFrame, scores: GroupScores, groups: Groups, options: GroupOptions, **more: Any
) -> pd.DataFrame:
    """Compare two groups, or test more together, within the folds where their maps are by the models of several.

    Parameters
    ----------
    values
        ``(participants, regions)`` or voxels, of the participants of ``scores``.
    scores
        The participants of the groups.
    groups
        Case and control, or three groups and more.
    options
        Options of the test.
    **more
        Other options of `glas3d.statistics.two_groups.compare` or `glas3d.statistics.omnibus.compare_all`.
    """
    chosen: dict[str, Any] = {
        "covariates": options.covariates,
        "site": options.site,
        "null": options.null,
        "n_perm": options.n_perm,
        "seed": options.seed,
        **more,
    }
    folds = fold_labels(scores.participants)
    if len(groups) > 2:
        if folds is None:
            return compare_all(values, scores.design, groups, **chosen)
        return compare_all_within_folds(values, scores.design, groups, folds, **chosen)
    chosen = {"n_boot": options.n_boot} | chosen
    if folds is None:
        return compare(values, scores.design, groups[0], groups[1], **chosen)
    return compare_within_folds(values, scores.design, groups[0], groups[1], folds, **chosen)


def statistic_column(groups: Groups) -> str:
    """Return the column of the statistic in the table of a comparison."""
    return "t" if len(groups) == 2 else "f"


def fold_labels(participants: Sequence[ParticipantResults]) -> list[str] | None:
    """Return which models explained each participant, where they were trained on others of them; None for one model.

    The labels of participants trained the models of other folds, so that maps are exchangeable within a fold only.
    """
    labels = [" ".join(map(str, each.folds)) for each in participants]
    return labels if len(set(labels)) > 1 else None


def difference_sidecar(
    groups: Groups, scores: GroupScores, options: GroupOptions, table: pd.DataFrame
) -> dict[str, object]:
    """Return what sidecars record of a test of groups, ``table`` being what `compare_values` returned."""
    statistic = statistic_column(groups)
    named = {"Case": groups[0], "Control": groups[1]} if len(groups) == 2 else {"Groups": list(groups)}
    dof = table["dof"].dropna()
    record: dict[str, object] = {
        **named,
        **options.sidecar("normalise", "covariates", "site", "null", "n_perm", "seed"),
        "Statistic": _STATISTICS[options.null][len(groups) > 2],
        "DegreesOfFreedom": [float(dof.min()), float(dof.max())],
        "NullDistribution": f"{_METHODS[options.null]}, largest |{statistic}| of each draw",
        "NullHypothesis": null_hypothesis(options.null, len(groups)),
        "Exchangeable": _exchangeable(scores, options),
        "SmallestP": _smallest_p(groups, scores, options),
    }
    if len(groups) > 2:
        record["DegreesOfFreedomOfGroups"] = len(groups) - 1
    if options.normalise == "clr":
        record["Floor"] = f"{CLR_FLOOR:g} of each participant's highest score"
    return record


def _smallest_p(groups: Groups, scores: GroupScores, options: GroupOptions) -> float | None:
    """Return the smallest p-value that a test of these groups can give; None where no fold can be tested."""
    folds = fold_labels(scores.participants) or [""] * len(scores)
    by_site = options.null == "permutation" and options.site is not None
    sites = scores.design[options.site].astype(str).tolist() if by_site else [""] * len(scores)
    counts = pd.crosstab([folds, sites], [each.group for each in scores.participants]).reindex(columns=list(groups))
    tests = [of_fold for _, of_fold in counts.groupby(level=0) if (of_fold.sum() > 1).all()]
    if not tests:
        return None
    least = min(smallest_p(of_fold.to_numpy().tolist(), options.null) for of_fold in tests)
    return float(min(1.0, len(tests) * max(least, 1 / (1 + options.n_perm))))


def _exchangeable(scores: GroupScores, options: GroupOptions) -> str:
    in_sample = {record.content["InSample"] for each in scores.participants for record in each.records}
    if True in in_sample:
        return "nobody: the labels of these participants trained the models, and p-values do not hold"
    within = "the participants" if options.null == "permutation" else "the signs or the residuals of a group"
    if options.null == "permutation" and options.site is not None:
        within += f" within {options.site}"
    if fold_labels(scores.participants) is not None:
        return f"{within} within each fold; the smallest p-value of the folds counts, times their number"
    return within


def with_covariates(scores: GroupScores, options: GroupOptions) -> GroupScores:
    """Return the participants that have every covariate and a site, where the others are to be left out.

    Raises
    ------
    GlasError
        A column that does not exist.

    Warns
    -----
    GlasWarning
        Participants that are left out.
    """
    columns = [covariate_column(name) for name in options.covariates] + ([options.site] if options.site else [])
    if options.on_missing == "fail" or not columns:
        return scores
    for column in columns:
        check_column(scores.design, column)
    wanted = scores.design[columns]
    known = ~(wanted.isna() | wanted.isin(MISSING)).any(axis=1).to_numpy()
    if known.all():
        return scores
    lacking = [each.participant_id for each, has in zip(scores.participants, known, strict=True) if not has]
    message = f"without {' or '.join(columns)}, and left out of the tests: {listed(lacking)}"
    warnings.warn(message, GlasWarning, stacklevel=3)
    return scores.select(known)


def check_column(design: pd.DataFrame, column: str) -> None:
    """Refuse a column that the table of participants does not have."""
    if column not in design:
        raise GlasError(f"participants need a column {column}, the table has {', '.join(map(str, design.columns))}")


def check_groups(scores: GroupScores, groups: Groups, options: GroupOptions) -> None:
    """Refuse a test of groups that cannot be made, before anything is computed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GlasWarning)  # the test itself warns
        design = with_covariates(scores, options).design
        chosen: dict[str, Any] = {"covariates": options.covariates, "site": options.site}
        if len(groups) == 2:
            two_group_design(design, groups[0], groups[1], **chosen)
        else:
            groups_design(design, groups, **chosen)


def warn_of_shares(table: pd.DataFrame, pair: Groups) -> None:
    """Warn where shares both rise and fall: a share falls where another rises."""
    found = table[table["p_fwe"] <= 0.05]
    rising, falling = (found.loc[found["difference"] * sign > 0, "name"].tolist() for sign in (1, -1))
    if rising and falling:
        message = (
            f"shares of saliency of {pair[0]} are higher in {listed(rising)} and lower in {listed(falling)}: a share "
            'also falls where another rises, normalise="clr" (--normalise clr) tells the two apart'
        )
        warnings.warn(message, GlasWarning, stacklevel=3)
