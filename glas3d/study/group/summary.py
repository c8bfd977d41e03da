"""Summary of one group next to its map and table: variation, relative density, laterality, ranks, and stability."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd

from glas3d.errors import GlasWarning
from glas3d.statistics.one_group import laterality_test, relative_density_test
from glas3d.statistics.regions import CLR_FLOOR
from glas3d.statistics.stability import bootstrap_ranks
from glas3d.study.group.files import NORMALISED, UNNORMALISED, GroupFiles, units_of
from glas3d.study.group.group_sums import GroupSums, Statistic, keeps_zero
from glas3d.study.group.options import GroupOptions
from glas3d.study.group.participants import GroupScores
from glas3d.study.group.reproducibility import write_fold_stability

_STATISTICS: dict[Statistic, str] = {
    "mean": "Mean over participants",
    "variance": "Variance over participants (n - 1)",
    "overlap": "Share of participants that have the voxel among their top",
}
_NORMALISED = {False: "of saliency, each participant's min-max normalised", True: "of evidence"}


def write_summary(
    files: GroupFiles, name: str, group_map: GroupSums, scores: GroupScores, options: GroupOptions
) -> None:
    """Write the summary of one group.

    Parameters
    ----------
    files
        Writer into the group folder.
    name
        The group's name.
    group_map
        The group's map, to which all participants were added.
    scores
        The group's participants.
    options
        Resamples and seed of the ranks, the top of the overlap, and the regions compared between folds.
    """
    _write_variation(files, name, group_map, options)
    _write_shares(files, name, group_map, scores, options)
    if len(scores) < 2:
        return
    if options.n_boot:
        ranks = bootstrap_ranks(scores.values, options.n_boot, options.seed)
        record: dict[str, Any] = {"Group": name, "N": len(scores), **options.sidecar("n_boot", "seed")}
        description = "Ranks with intervals over participants"
        files.write_table(files.stem(name, desc="ranks"), "regions", ranks, description, **record)
    write_fold_stability(files, name, scores, options.k)


def _write_variation(files: GroupFiles, name: str, group_map: GroupSums, options: GroupOptions) -> None:
    """Write how participants vary, as a table and as maps."""
    record: dict[str, Any] = {"Group": name, "N": len(group_map)}
    top, of_values = options.sidecar("top"), _NORMALISED[group_map.keeps_zero]
    table, description = group_map.variation(), f"How participants vary, {of_values}"
    scale = UNNORMALISED if group_map.keeps_zero else NORMALISED
    stem = files.stem(name, desc="variation")
    files.write_table(stem, "regions", table, description, scale=scale, **record, **top)
    for statistic, description in _STATISTICS.items():
        if statistic != "variance" or len(group_map) > 1:
            img = group_map.statistic_img(statistic)
            more = top if statistic == "overlap" else {}
            text, units = f"{description}, {of_values}", units_of(statistic).replace(NORMALISED, scale)
            files.write_image(files.stem(name), statistic, img, text, units, **record, **more)


def _write_shares(
    files: GroupFiles, name: str, group_map: GroupSums, scores: GroupScores, options: GroupOptions
) -> None:
    """Write the regions' shares of saliency and volume and, where there are two sides, their laterality.

    Both are of each participant's own scores: after min-max the smaller of two sides could be 0.
    """
    values = scores.unnormalised
    signed = keeps_zero(scores.participants[0].records[0].content["Method"])
    record: dict[str, Any] = {
        "Group": name,
        "N": len(scores),
        **options.sidecar("n_perm", "seed"),
        "Scores": "each participant's, unnormalised",
        "Statistic": "Student's t of the mean",
        "DegreesOfFreedom": len(scores) - 1,
        "Exchangeable": "the signs of the participants' values, which are symmetric about the null hypothesis's mean",
        "NullDistribution": "signs of participants flipped at random, largest |t| of each flip",
        "SmallestP": max(2.0 ** (1 - len(scores)), 1 / (1 + options.n_perm)) if len(scores) > 1 else None,
    }
    rows = group_map.table()[["index", "hemisphere", "n_voxels"]].sort_values("index", ignore_index=True)
    chosen = {"n_perm": options.n_perm, "seed": options.seed}
    with warnings.catch_warnings():  # the sidecars record it, and the scores' own tests warn
        warnings.filterwarnings("ignore", "the signs of .* can be flipped", GlasWarning)
        table = relative_density_test(values, scores.n_voxels.astype(float), **chosen)
    table = pd.concat([rows, table], axis=1)[["index", "name", "hemisphere", "n_voxels", *list(table)[1:]]]
    null: dict[str, Any] = {
        "NullHypothesis": "the mean logarithm of the relative density is 0",
        "Floor": f"{CLR_FLOOR:g} of the highest score",
    }
    description = "Share of the saliency and of the volume"
    files.write_table(files.stem(name, desc="relativedensity"), "regions", table, description, **record, **null)
    if files.by_region and any(str(region).endswith("_L") for region in values.columns):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the signs of .* can be flipped", GlasWarning)
            sides = laterality_test(values, signed=signed, **chosen)
        null = {"NullHypothesis": "the mean laterality is 0"}
        null |= {"Laterality": "left - right"} if signed else {}
        stem = files.stem(name, desc="laterality")
        files.write_table(stem, "regions", sides, "Left against right", **record, **null)
