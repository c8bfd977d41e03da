"""Groups compared two by two, region by region, and who was called what."""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.statistics.design import strata
from glas3d.statistics.two_groups import compare
from glas3d.study.group.files import GroupFiles
from glas3d.study.group.options import GroupSettings
from glas3d.study.group.participants import Scores

Pair = tuple[str, str]


def pairs_of(groups: Collection[str], case: str, control: str) -> list[Pair]:
    """Every two groups, as case and control: the case comes first wherever it is one of them, the control last.

    Examples
    --------
    >>> pairs_of(["AD", "MCI", "NC"], "MCI", "NC")
    [('MCI', 'AD'), ('MCI', 'NC'), ('AD', 'NC')]
    """
    return list(combinations(sorted(groups, key=lambda name: (name == control, name != case, name)), 2))


def compare_groups(
    files: GroupFiles, pair: Pair, scores: Scores, pattern: nib.Nifti1Image, settings: GroupSettings, n_pairs: int
) -> pd.DataFrame:
    """Compare two groups region by region and write table and maps.

    ``p_fwe`` is corrected for the regions of one pair. The chance that anything at all comes up among several pairs
    is held by Bonferroni's ``p_fwe_pairs``; Holm's, a region at a time, would not hold it.

    Parameters
    ----------
    scores
        Of both groups.
    pattern
        An image on the participants' grid.
    n_pairs
        Pairs of groups that are compared.
    """
    case, control = pair
    table = compare(
        scores.scaled(settings.normalise), scores.design, case, control, n_boot=settings.n_boot, **settings.test
    )
    table.insert(0, "index", scores.members[0].regions["index"].to_numpy())
    if n_pairs > 1:
        table.insert(list(table).index("p_fwe") + 1, "p_fwe_pairs", np.minimum(table["p_fwe"] * n_pairs, 1))
    facts = comparison_facts(pair, settings) | {"Resamples": settings.n_boot, "Pairs": n_pairs}
    stem = files.name(case, control)
    files.table(stem, "statistics", table, f"{case} against {control}, region by region", **facts)
    if files.atlas is not None:
        maps = {"t": ("t", "Student's t"), "neglog10p_fwe": ("neglog10pfwe", "-log10 of p corrected for all regions")}
        for column, (statistic, description) in maps.items():
            img = files.painted(pattern, table, column)
            files.image(stem, statistic, img, f"{description}, {case} against {control}", **facts)
    return table


def comparison_facts(pair: Pair, settings: GroupSettings) -> dict[str, object]:
    """What sidecars say of a comparison."""
    return {
        "Case": pair[0],
        "Control": pair[1],
        "Normalise": settings.normalise,
        "Covariates": list(settings.covariates),
        "Site": settings.site,
        "Exchangeable": "everyone" if settings.site is None else f"within {settings.site}",
        "Permutations": settings.n_perm,
        "Seed": settings.seed,
    }


def write_strata(files: GroupFiles, pair: Pair, scores: Scores) -> None:
    """Who was called what, and the mean map of each; only for the two groups the model was asked to tell apart."""
    case, control = pair
    members = scores.members
    target = members[0].records[0].content["Method"]["Target"]["class"]
    if target not in pair:
        return
    other = control if target == case else case
    called = [target if one.probability > 0.5 else other for one in members]
    kinds = strata([one.group for one in members], called, case)
    rows = pd.DataFrame(
        {
            "participant_id": [one.participant_id for one in members],
            "group": [one.group for one in members],
            "p": [one.probability for one in members],
            "predicted": called,
            "stratum": kinds,
            "n_sessions": [len(one.records) for one in members],
            "folds": [" ".join(map(str, one.folds)) for one in members],
        }
    )
    rows["folds"] = rows["folds"].where(rows["folds"] != "")
    facts = {"Case": case, "Control": control}
    stem = files.name(case, control, desc="strata")
    p = {"p": {"Description": f"probability of {target}, mean over sessions"}}
    files.table(stem, "predictions", rows, "Who was called what", **facts, **p)
    means = [
        pd.DataFrame(
            {
                "stratum": kind,
                "n": int((kinds == kind).sum()),
                "name": scores.values.columns,
                "mean": scores.values[kinds == kind].mean().to_numpy(),
            }
        )
        for kind in ("tp", "fp", "tn", "fn")
        if (kinds == kind).any()
    ]
    files.table(stem, "regions", pd.concat(means, ignore_index=True), "Mean scores by what people were called", **facts)
