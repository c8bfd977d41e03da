"""Files of the group level: names that tell the groups and the atlas, and a JSON sidecar for each file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.bids_names import bids_label
from glas3d.core.search import paint
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import VoxelGrid
from glas3d.output import write_json
from glas3d.tables import write_table

_COLUMNS = {
    "n_case": "participants of the case",
    "n_control": "participants of the control",
    "mean_case": "mean of the normalised scores",
    "mean_control": "mean of the normalised scores",
    "difference": "mean of the case less mean of the control",
    "adjusted_difference": "the same with covariates and sites held fixed",
    "t": "statistic of the adjusted difference, see Statistic",
    "f": "statistic of the differences of all groups, see Statistic",
    "dof_groups": "degrees of freedom of the differences of the groups",
    "dof": "degrees of freedom of t or F, by Welch and Satterthwaite where spreads may differ, or of the residuals",
    "n_folds": "number of folds that were tested; the smallest p-value of a fold counts, times this number",
    "p_uncorrected": "two-sided, of one row, from the draws of the null distribution, see NullDistribution",
    "p_fdr": "p_uncorrected adjusted for the false discovery rate over the regions (Benjamini and Hochberg)",
    "p_fwe": "two-sided, corrected for all regions of the test by the largest statistic of each draw",
    "p_fwe_pairs": "p_fwe times the number of pairs of groups compared (Bonferroni), at most 1",
    "neglog10p_fwe": "-log10 of p_fwe",
    "cohen_d": "difference of the means over the pooled standard deviation, covariates not considered",
    "hedges_g": "cohen_d without its bias in small groups (Hedges)",
    "d_low": "lower end of the 95 % interval of the standardised difference, by the noncentral t",
    "d_high": "upper end of the 95 % interval of the standardised difference, by the noncentral t",
    "r": "correlation, of the residuals on covariates and sites where there are any",
    "z": "r over a standard error that allows unequal spread; the statistic that is tested",
    "low": "lower end of the 95 % interval",
    "high": "upper end of the 95 % interval",
    "variance": "over participants (n - 1)",
    "overlap": "share of the participants that have the region among their top",
    "left": "mean of the scores of the left region, unnormalised",
    "right": "mean of the scores of the right region, unnormalised",
    "laterality": "mean over participants of (left - right) / (|left| + |right|); of evidence of left - right",
    "saliency_share": "mean over participants of the share of the sum over the regions",
    "volume_share": "of the sum over the regions",
    "relative_density": "geometric mean over participants of saliency_share / volume_share",
    "spearman": "correlation of two runs' mean scores over the regions",
    "jaccard": "regions in the top of both runs over regions in the top of either",
    "stratum": "tp, fp, tn or fn; the case is positive",
}


class GroupFiles:
    """Writes files into the group folder, with a JSON sidecar for each.

    Parameters
    ----------
    folder
        The folder, which exists.
    atlas
        The atlas that everyone was explained with; None for a grid.
    common
        What every sidecar records: how everyone was explained, and with which software.
    """

    def __init__(self, folder: Path, atlas: Atlas | None, common: Mapping[str, Any]) -> None:
        self.folder, self.atlas, self._common = folder, atlas, common

    def stem(self, *groups: str, desc: str = "") -> str:
        """Return the start of the names of a group's files, or of a comparison's."""
        return group_stem(self.atlas, *groups, desc=desc)

    def write_table(self, stem: str, suffix: str, table: pd.DataFrame, description: str, **record: Any) -> None:
        """Write ``<stem>_<suffix>.tsv`` and its sidecar, which explains the columns."""
        columns = {name: {"Description": _COLUMNS[name]} for name in table.columns if name in _COLUMNS}
        write_table(table)(self.folder / f"{stem}_{suffix}.tsv")
        self._write_sidecar(f"{stem}_{suffix}", {"Description": description, **columns, **record})

    def write_image(self, stem: str, statistic: str, img: nib.Nifti1Image, description: str, **record: Any) -> None:
        """Write ``<stem>_stat-<statistic>_statmap.nii.gz`` and its sidecar."""
        name = f"{stem}_stat-{statistic}_statmap"
        img.to_filename(self.folder / f"{name}.nii.gz")
        self._write_sidecar(name, {"Description": description, **record})

    def _write_sidecar(self, name: str, content: Mapping[str, Any]) -> None:
        write_json({**self._common, **content})(self.folder / f"{name}.json")


def group_stem(atlas: Atlas | None, *groups: str, desc: str = "") -> str:
    """Return the start of the names of a group's files, or of a comparison's.

    Parameters
    ----------
    atlas
        The atlas that everyone was explained with; None for a grid.
    groups
        The group, or the two that are compared.
    desc
        What the file holds, beyond a group's map and table.

    Examples
    --------
    >>> group_stem(None, "AD", "NC", desc="strata")
    'group-ADvsNC_desc-gridstrata'
    """
    search = f"desc-grid{desc}"
    if atlas is not None:
        search = f"seg-{atlas.name}" + (f"_desc-{desc}" if desc else "")
    return f"group-{'vs'.join(bids_label(name) for name in groups)}_{search}"


def paint_regions(atlas: Atlas, pattern: nib.Nifti1Image, index: pd.Series, values: pd.Series) -> nib.Nifti1Image:
    """Return regions' values in their voxels, on the grid of an image, float32; 0 where there is no value."""
    numbers = values.to_numpy(dtype=float)
    known = np.isfinite(numbers)
    labels = atlas.on(VoxelGrid(pattern.shape, pattern.affine))
    return nib.Nifti1Image(paint(labels, index.to_numpy()[known], numbers[known]), pattern.affine, pattern.header)


def voxels_img(inside: np.ndarray, values: np.ndarray, pattern: nib.Nifti1Image) -> nib.Nifti1Image:
    """Return values of the voxels of a mask as an image, float32; 0 elsewhere and where there is no value."""
    volume = np.zeros(inside.shape, np.float32)
    volume[inside] = np.where(np.isfinite(values), values, 0)
    return nib.Nifti1Image(volume, pattern.affine, pattern.header)
