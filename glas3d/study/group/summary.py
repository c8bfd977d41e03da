"""One group beside its map and table: how participants vary, ranks, sides, density, and stability over folds."""

from __future__ import annotations

import pandas as pd

from glas3d.statistics.regions import density, laterality
from glas3d.statistics.stability import bootstrap_ranks, run_stability
from glas3d.study.group.files import GroupFiles
from glas3d.study.group.group_map import GroupMap, Statistic
from glas3d.study.group.options import GroupSettings
from glas3d.study.group.participants import Scores
from glas3d.study.group.voxel_map import PointMap

_STATISTICS: dict[Statistic, str] = {
    "mean": "Mean over participants",
    "variance": "Variance over participants (n - 1)",
    "overlap": "Share of participants that have the place among their top",
}
_NORMALISED = "of saliency, each participant's min-max normalised"


def describe(files: GroupFiles, name: str, group: GroupMap | PointMap, scores: Scores, settings: GroupSettings) -> None:
    """Write everything about one group beside its map and table."""
    table = group.table()
    n = {"Group": name, "N": len(scores)}
    top = {"Top": settings.top}
    files.table(
        files.name(name, desc="variation"),
        "regions",
        group.variation(),
        f"How participants vary, {_NORMALISED}",
        **n,
        **top,
    )
    for statistic, description in _STATISTICS.items():
        if statistic != "variance" or len(scores) > 1:
            more = top if statistic == "overlap" else {}
            img = group.statistic_img(statistic)
            files.image(files.name(name), statistic, img, f"{description}, {_NORMALISED}", **n, **more)
    files.table(files.name(name, desc="density"), "regions", density(table), "Saliency beside volume", **n)
    if files.atlas is not None and table["name"].str.endswith("_L").any():
        files.table(files.name(name, desc="laterality"), "regions", laterality(table), "Left against right", **n)
    if len(scores) < 2:
        return
    if settings.n_boot:
        ranks = bootstrap_ranks(scores.values, settings.n_boot, settings.seed)
        drawn = {"Resamples": settings.n_boot, "Seed": settings.seed}
        files.table(
            files.name(name, desc="ranks"), "regions", ranks, "Ranks with intervals over participants", **n, **drawn
        )
    one_fold = [one.folds for one in scores.members]
    folds = sorted({fold for fold in one_fold if len(fold) == 1})
    means = {f"fold-{fold}": scores.values[[one == (fold,) for one in one_fold]].mean() for (fold,) in folds}
    write_stability(files, name, "fold", means, settings, **n)


def write_stability(
    files: GroupFiles, name: str, what: str, means: dict[str, pd.Series], settings: GroupSettings, **facts: object
) -> None:
    """How alike a group's mean scores are over folds or runs, pair by pair and in sum; nothing for one alone."""
    if len(means) < 2:
        return
    runs = pd.DataFrame(means).T
    k = min(settings.k, int(runs.notna().all().sum()) - 1)
    found = run_stability(runs, k)
    said = f"Spearman's correlation and Jaccard index of the top {k} of {what}s' mean scores"
    files.table(files.name(name, desc=f"{what}pairs"), "stability", found.pairs, f"{said}, pair by pair", K=k, **facts)
    summary = f"{said}, over all pairs, with the jackknife's 95 % interval"
    files.table(files.name(name, desc=f"{what}s"), "stability", found.summary, summary, K=k, **facts)
