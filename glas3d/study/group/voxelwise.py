"""Comparison of groups voxel by voxel, corrected over all voxels, and by threshold-free cluster enhancement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.errors import GlasError
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.mask import mask_on
from glas3d.imaging.registration import template_brain
from glas3d.imaging.space import VoxelGrid, voxel_to_world
from glas3d.statistics.choices import Normalise
from glas3d.statistics.clusters import PEAK_DISTANCE, cluster_tables
from glas3d.statistics.regions import normalised
from glas3d.study.group.files import GroupFiles, units_of, voxels_img
from glas3d.study.group.group_difference import (
    Groups,
    compare_values,
    difference_sidecar,
    statistic_column,
    with_covariates,
)
from glas3d.study.group.memory import check_memory, too_large
from glas3d.study.group.options import GroupOptions
from glas3d.study.group.participants import GroupScores, ParticipantResults

# Columns of the comparison that are written as maps: their names in files, and their descriptions.
_MAPS = {
    "t": ("t", "t statistic"),
    "f": ("F", "F statistic"),
    "neglog10p_fwe": ("neglog10pfwe", "-log10 of p corrected for all voxels"),
    "tfce": ("tfce", "Threshold-free cluster enhancement of the statistic"),
    "neglog10p_tfce_fwe": ("neglog10ptfcefwe", "-log10 of p of TFCE corrected for all voxels"),
}


# The group level's grid is that of the template, or of scans that were in its space.
_AXES = {
    "x": "position of the highest voxel, left to right, in the space of the template",
    "y": "position, back to front, in the space of the template",
    "z": "position, bottom to top, in the space of the template",
}


@dataclass(frozen=True)
class VoxelwiseResult:
    """A voxelwise comparison in short.

    Attributes
    ----------
    n_voxels
        Number of voxels tested.
    n_below
        Number of them with a corrected p of at most 0.05 (that of TFCE where it is tested).
    p
        The smallest corrected p.
    peak
        Its position, x y z in mm; of several voxels with that p, the one with the largest statistic.
    """

    n_voxels: int
    n_below: int
    p: float
    peak: tuple[float, float, float]


def check_voxels(
    atlas: Atlas | None, pattern: nib.Nifti1Image, compared: Sequence[GroupScores], options: GroupOptions
) -> None:
    """Refuse voxelwise comparisons that cannot be made, before any map is made.

    Parameters
    ----------
    atlas
        The atlas that everyone was explained with; None: maps are compared.
    pattern
        An image on the participants' grid.
    compared
        The participants of each comparison.
    options
        The mask.

    Raises
    ------
    GlasError
        A mask without a voxel there, or too many participants and voxels for this machine's memory.
    """
    grid = VoxelGrid(pattern.shape, pattern.affine)
    inside, _ = _voxels_to_compare(None if atlas is None else atlas.on(grid), grid, options.voxel_mask)
    for scores in compared:
        check_memory(len(scores), int(inside.sum()))


def compare_voxels(
    files: GroupFiles, groups: Groups, scores: GroupScores, pattern: nib.Nifti1Image, options: GroupOptions
) -> VoxelwiseResult:
    """Compare two groups, or test more together, voxel by voxel.

    Maps of t or F, of -log10 corrected p and of TFCE are written, and tables of the clusters of significant voxels.

    Each participant's map is the mean over sessions, on the scale of the options: with an atlas the regions' normalised
    scores in their voxels, on a grid the whole map, normalised before it is masked.

    Parameters
    ----------
    files
        Writer into the group folder.
    groups
        Case and control, or three groups and more.
    scores
        The participants of the groups, on one grid.
    pattern
        An image on that grid.
    options
        Options of the test, the mask, and whether TFCE is tested.

    Raises
    ------
    GlasError
        A mask without a voxel there, too many participants and voxels for this machine's memory, or what
        `glas3d.statistics.two_groups.compare` refuses.
    """
    grid = VoxelGrid(pattern.shape, pattern.affine)
    labels = None if files.atlas is None else files.atlas.on(grid)
    inside, mask_name = _voxels_to_compare(labels, grid, options.voxel_mask)
    scores = with_covariates(scores, options)
    table = _compare(groups, scores, labels, inside, options)
    column = statistic_column(groups)
    statistic, corrected = ("tfce", "p_tfce_fwe") if options.tfce else (column, "p_fwe")
    p = table[corrected].to_numpy()
    record = difference_sidecar(groups, scores, options, table) | {
        "Mask": mask_name,
        "Voxels": int(table[column].notna().sum()),
        "NormalisedOver": "the map" if labels is None else "the regions",
    }
    stem, names = files.stem(*groups, desc="voxels"), " against ".join(groups)
    for name, (label, description) in _MAPS.items():
        if name in table:
            img = voxels_img(inside, table[name].to_numpy(), pattern)
            files.write_image(stem, label, img, f"{description}, {names}", units_of(name), **record)
    _write_clusters(files, stem, names, table, column, corrected, inside, labels, grid, record)
    tested = table[column].notna().to_numpy()
    smallest = float(np.nanmin(p)) if np.isfinite(p).any() else float("nan")  # no fold was large enough
    of_peak = (p == smallest) | (tested & np.isnan(smallest))
    peak = int(np.nanargmax(np.where(of_peak, table[statistic].abs(), np.nan)))
    x, y, z = voxel_to_world(np.argwhere(inside)[[peak]], grid.affine)[0]
    return VoxelwiseResult(int(tested.sum()), int((p <= 0.05).sum()), smallest, (x, y, z))


def _write_clusters(
    files: GroupFiles,
    stem: str,
    names: str,
    table: pd.DataFrame,
    column: str,
    corrected: str,
    inside: np.ndarray,
    labels: np.ndarray | None,
    grid: VoxelGrid,
    record: Mapping[str, Any],
) -> None:
    """Write the clusters of significant voxels and their peaks, with the regions of the atlas, else those of AAL."""
    atlas = files.atlas or Atlas.load("AAL")
    statistic, p = (np.full(inside.shape, np.nan) for _ in range(2))
    statistic[inside], p[inside] = table[column], table[corrected]
    found = cluster_tables(
        statistic,
        p,
        grid.affine,
        labels=atlas.on(grid) if labels is None else labels,
        names=dict(zip(atlas.table["index"].astype(int), atlas.table["name"].astype(str), strict=True)),
    )
    own: dict[str, Any] = {
        "Atlas": atlas.name,
        "Clusters": f"voxels of one sign with {corrected} of at most 0.05 that share faces",
        "PeakDistance": PEAK_DISTANCE,
    }
    columns = {
        **{axis: (text, "mm") for axis, text in _AXES.items()},
        "n_voxels": ("voxels of the cluster", "voxels"),
        "volume": ("volume of the cluster", "mm3"),
        "regions": (f"share of the cluster's voxels in each region of {atlas.name}", ""),
        "index": (f"index of the region of {atlas.name} at the peak", "index"),
        "name": (f"region of {atlas.name} at the peak", ""),
        column: ("statistic at the peak, see Statistic", "F" if column == "f" else column),
        corrected: ("corrected p at the peak", "p-value, 0 to 1"),
    }
    renamed = {"statistic": column, "p": corrected}
    for suffix, rows, description in (
        ("clusters", found.clusters, "Clusters of significant voxels"),
        ("peaks", found.peaks, f"Peaks of the clusters, at least {PEAK_DISTANCE:g} mm apart within a cluster"),
    ):
        files.write_table(
            stem, suffix, rows.rename(columns=renamed), f"{description}, {names}", columns, **record, **own
        )


def _compare(
    groups: Groups, scores: GroupScores, labels: np.ndarray | None, inside: np.ndarray, options: GroupOptions
) -> pd.DataFrame:
    """Return the comparison of groups, one row a voxel of the mask."""
    n_voxels = int(inside.sum())
    check_memory(len(scores), n_voxels)
    try:
        values = _voxel_values(scores, labels, inside, options.normalise)
        more: dict[str, Any] = {"tfce_mask": inside if options.tfce else None}
        if len(groups) == 2:
            more["n_boot"] = 0
        return compare_values(values, scores, groups, options, **more)
    except MemoryError:
        raise GlasError(too_large(len(scores), n_voxels)) from None


def _voxels_to_compare(labels: np.ndarray | None, grid: VoxelGrid, mask: Path | None) -> tuple[np.ndarray, str]:
    """Return which voxels are compared, bool on the grid, and a description for sidecars."""
    chosen = None if mask is None else mask_on(str(mask), grid)
    name = "" if mask is None else mask.name
    if labels is None:
        if chosen is not None:
            return chosen, name
        size = min(max(min(grid.spacing), 1.0), 4.0)  # mm: much smaller voxels than those compared are of no use
        return mask_on(template_brain(size), grid), "the template's brain"
    if chosen is None:
        return labels > 0, "the atlas's regions"
    if not (chosen & (labels > 0)).any():
        raise GlasError(f"the mask {mask} holds no voxel of the atlas's regions")
    return chosen & (labels > 0), f"the atlas's regions within {name}"


def _voxel_values(
    scores: GroupScores, labels: np.ndarray | None, inside: np.ndarray, normalise: Normalise
) -> np.ndarray:
    """Return the participants' normalised maps, ``(participants, voxels)``."""
    if labels is not None:
        return scores.normalised(normalise).to_numpy()[:, np.searchsorted(scores.region_index, labels[inside])]
    values = np.empty((len(scores), int(inside.sum())))
    for row, participant in zip(values, scores.participants, strict=True):
        row[:] = normalised(_mean_map(participant), normalise)[inside]
    return values


def _mean_map(participant: ParticipantResults) -> np.ndarray:
    volumes = [np.asarray(session.saliency_img.dataobj, dtype=np.float64) for session in participant.sessions()]
    return np.asarray(sum(volumes) / len(volumes))
