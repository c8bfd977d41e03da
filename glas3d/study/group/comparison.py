"""Comparison of groups, two by two and region by region, and what the model predicted for their participants."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from itertools import combinations
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.errors import GlasWarning
from glas3d.statistics.design import strata
from glas3d.study.group.files import SCALES, GroupFiles, paint_regions, units_of
from glas3d.study.group.group_difference import (
    Groups,
    compare_values,
    difference_sidecar,
    warn_of_shares,
    with_covariates,
)
from glas3d.study.group.options import GroupOptions
from glas3d.study.group.participants import GroupScores

# Columns of the comparison that are also written as maps: their names in files, and their descriptions.
_MAPS = {
    "t": ("t", "t statistic"),
    "f": ("F", "F statistic"),
    "neglog10p_fwe": ("neglog10pfwe", "-log10 of p corrected for all regions"),
}


def group_pairs(groups: Collection[str], case: str, control: str) -> list[Groups]:
    """Return every two groups, as case and control; ``case`` comes first in its pairs and ``control`` last.

    Examples
    --------
    >>> group_pairs(["AD", "MCI", "NC"], "MCI", "NC")
    [('MCI', 'AD'), ('MCI', 'NC'), ('AD', 'NC')]
    """
    return list(combinations(sorted(groups, key=lambda name: (name == control, name != case, name)), 2))


def compare_groups(
    files: GroupFiles,
    groups: Groups,
    scores: GroupScores,
    pattern: nib.Nifti1Image,
    options: GroupOptions,
    n_pairs: int = 1,
    *,
    values: pd.DataFrame | None = None,
    what: str = "",
    desc: str = "",
    **record: Any,
) -> pd.DataFrame:
    """Compare two groups, or test more together, region by region and write table and maps.

    ``p_fwe`` is corrected for the regions of one test. The chance of any false positive among several pairs is
    bounded by Bonferroni's ``p_fwe_pairs``; Holm's correction, a region at a time, would not bound it.

    Parameters
    ----------
    files
        Writer into the group folder.
    groups
        Case and control, or three groups and more.
    scores
        The participants of the groups.
    pattern
        An image on the participants' grid.
    options
        Options of the test.
    n_pairs
        Number of pairs of groups that are compared.
    values
        What is compared in place of the scores, participants by regions.
    what, desc
        What the files then hold, in words and in their names.
    **record
        More for the sidecars.

    Returns
    -------
    The table of `glas3d.study.group.group_difference.compare_values` with the column ``index``, and ``p_fwe_pairs``
    for several pairs.
    """
    scores = with_covariates(scores, options)
    compared = scores.normalised(options.normalise) if values is None else values.loc[scores.values.index]
    table = compare_values(compared, scores, groups, options)
    record = difference_sidecar(groups, scores, options, table) | record
    if len(groups) == 2:
        record["Pairs"] = n_pairs
        if options.normalise == "share" and values is None:
            warn_of_shares(table, groups)
    table.insert(0, "index", scores.region_index)
    if n_pairs > 1:
        table.insert(list(table).index("p_fwe") + 1, "p_fwe_pairs", np.minimum(table["p_fwe"] * n_pairs, 1))
    stem, names = files.stem(*groups, desc=desc), what or " against ".join(groups)
    measured = "normalised scores" if values is None else "slopes"
    of_group = dict.fromkeys(("case", "control"), "") | {name: f" of {name}" for name in groups}
    scale = str(record.get("Unit", SCALES[options.normalise]))  # slopes have a unit of their own
    means = {f"mean_{name}": (f"mean of the {measured}{of}", scale) for name, of in of_group.items()}
    files.write_table(stem, "statistics", table, f"{names}, region by region", means, scale=scale, **record)
    if files.atlas is not None:
        for column, (name, description) in _MAPS.items():
            if column in table:
                img = paint_regions(files.atlas, pattern, table["index"], table[column])
                files.write_image(stem, name, img, f"{description}, {names}", units_of(column), **record)
    return table


def write_strata(files: GroupFiles, pair: Groups, scores: GroupScores) -> None:
    """Write each participant's prediction, and the mean scores of true and false positives and negatives.

    The prediction is the class with the highest output; where outputs are not known, the target if its probability is
    above 0.5, and else the other group. Every class but the case is negative.

    Nothing is written where the explained class is neither of the two groups, which is warned of.

    Parameters
    ----------
    files
        Writer into the group folder.
    pair
        Case and control.
    scores
        The participants of both groups.
    """
    case, control = pair
    participants = scores.participants
    target = participants[0].records[0].content["Method"]["Target"]["class"]
    if target not in pair:
        message = (
            f"no table of true and false positives and negatives: the models explain {target}, which is neither "
            f"{case} nor {control}"
        )
        warnings.warn(message, GlasWarning, stacklevel=4)
        return
    other = control if target == case else case
    truth = [each.group for each in participants]
    predicted = [each.predicted or (target if each.probability > 0.5 else other) for each in participants]
    stratum = strata(truth, [case if name == case else control for name in predicted], case)
    predictions = pd.DataFrame(
        {
            "participant_id": [each.participant_id for each in participants],
            "group": truth,
            "p": [each.probability for each in participants],
            "predicted": predicted,
            "stratum": stratum,
            "n_sessions": [len(each.records) for each in participants],
            "folds": [" ".join(map(str, each.folds)) or None for each in participants],
        }
    )
    record: dict[str, Any] = {"Case": case, "Control": control}
    stem = files.stem(case, control, desc="strata")
    probability = {"p": (f"probability of {target}, mean over sessions", "probability")}
    description = "The model's prediction for each participant"
    files.write_table(stem, "predictions", predictions, description, probability, **record)
    description = "Mean scores of true and false positives and negatives"
    files.write_table(stem, "regions", _stratum_means(scores.values, stratum), description, **record)


def _stratum_means(values: pd.DataFrame, stratum: np.ndarray) -> pd.DataFrame:
    """Return mean scores, one row a stratum with participants and region: ``stratum n name mean``."""
    tables = []
    for name in ("tp", "fp", "tn", "fn"):
        rows = stratum == name
        if rows.any():
            means = values[rows].mean().to_numpy()
            tables.append(pd.DataFrame({"stratum": name, "n": int(rows.sum()), "name": values.columns, "mean": means}))
    return pd.concat(tables, ignore_index=True)
