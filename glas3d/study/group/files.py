"""Files of the group level: names that tell the groups and the atlas, and a JSON sidecar for each file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.bids_names import bids_label
from glas3d.core.search import paint
from glas3d.explain.table import DESCRIPTIONS
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.map_header import describe_map
from glas3d.imaging.space import VoxelGrid
from glas3d.output import Columns, Writer, described_table, write_each, write_json
from glas3d.statistics.choices import Normalise

# Scales of scores: as group maps take them, and as participants' tables have them.
NORMALISED = "0 to 1, each participant's scores min-max normalised"
UNNORMALISED = "score of the participants' tables"
SCALES: Mapping[Normalise, str] = {
    "minmax": NORMALISED,
    "share": "share of the sum of the participant's scores",
    "clr": "centred log-ratio, natural logarithm",
    "none": UNNORMALISED,
}

_SIGNIFICANT = -math.log10(0.05)
_P, _SHARE, _COUNT, _CORRELATION = "p-value, 0 to 1", "share, 0 to 1", "count", "correlation, -1 to 1"
_SD = "standard deviations"
_COLUMNS = {
    "index": DESCRIPTIONS["index"],
    "name": DESCRIPTIONS["name"],
    "hemisphere": DESCRIPTIONS["hemisphere"],
    "n_voxels": DESCRIPTIONS["n_voxels"],
    "n": ("Number of participants", _COUNT),
    "participant_id": ("Identifier of the participant", ""),
    "group": ("Group of the participant", ""),
    "n_sessions": DESCRIPTIONS["n_sessions"],
    "n_case": ("participants of the case", _COUNT),
    "n_control": ("participants of the control", _COUNT),
    "difference": ("mean of the case less mean of the control", NORMALISED),
    "adjusted_difference": ("the same with covariates and sites held fixed", NORMALISED),
    "t": ("statistic of the adjusted difference, or of the mean, see Statistic", "t"),
    "f": ("statistic of the differences of all groups, see Statistic", "F"),
    "dof_groups": ("degrees of freedom of the differences of the groups", "degrees of freedom"),
    "dof": (
        "degrees of freedom of t or F, by Welch and Satterthwaite where spreads may differ, or of the residuals",
        "degrees of freedom",
    ),
    "n_folds": ("number of folds that were tested; the smallest p-value of a fold counts, times this number", _COUNT),
    "p_uncorrected": ("two-sided, of one row, from the draws of the null distribution, see NullDistribution", _P),
    "p_fdr": ("p_uncorrected adjusted for the false discovery rate over the regions (Benjamini and Hochberg)", _P),
    "p_fwe": ("two-sided, corrected for all regions of the test by the largest statistic of each draw", _P),
    "p_tfce_fwe": ("two-sided, corrected for all voxels by the largest enhanced statistic of each draw", _P),
    "p_fwe_pairs": ("p_fwe times the number of pairs of groups compared (Bonferroni), at most 1", _P),
    "tfce": ("threshold-free cluster enhancement of the statistic", "arbitrary"),
    "neglog10p_tfce_fwe": ("-log10 of p_tfce_fwe", "-log10 of a p-value"),
    "neglog10p_fwe": ("-log10 of p_fwe", "-log10 of a p-value"),
    "cohen_d": ("difference of the means over the pooled standard deviation, covariates not considered", _SD),
    "hedges_g": ("cohen_d without its bias in small groups (Hedges)", _SD),
    "d_low": ("lower end of the 95 % interval of the standardised difference, by the noncentral t", _SD),
    "d_high": ("upper end of the 95 % interval of the standardised difference, by the noncentral t", _SD),
    "r": ("correlation, of the residuals on covariates and sites where there are any", _CORRELATION),
    "z": ("r over a standard error that allows unequal spread; the statistic that is tested", "standard errors"),
    "low": ("lower end of the 95 % interval", ""),
    "high": ("upper end of the 95 % interval", ""),
    "mean": ("mean over participants", NORMALISED),
    "variance": ("variance over participants (n - 1)", f"{NORMALISED}, squared"),
    "overlap": ("share of the participants that have the region among their top", _SHARE),
    "rank": ("rank of the region by the mean over participants, 1 the highest", "rank"),
    "left": ("mean of the scores of the left region, unnormalised", UNNORMALISED),
    "right": ("mean of the scores of the right region, unnormalised", UNNORMALISED),
    "laterality": (
        "mean over participants of (left - right) / (|left| + |right|); of evidence of left - right",
        "index, -1 to 1",
    ),
    "saliency_share": ("mean over participants of the share of the sum over the regions", _SHARE),
    "volume_share": ("the region's volume over the sum over the regions", _SHARE),
    "relative_density": ("geometric mean over participants of saliency_share / volume_share", "ratio"),
    "first": ("one fold or run of the pair", ""),
    "second": ("the other fold or run of the pair", ""),
    "measure": ("measure of agreement: spearman or jaccard", ""),
    "n_runs": ("number of folds or runs", _COUNT),
    "n_pairs": ("number of pairs of folds or runs", _COUNT),
    "spearman": ("correlation of two runs' mean scores over the regions", _CORRELATION),
    "jaccard": ("regions in the top of both runs over regions in the top of either", _SHARE),
    "predicted": ("class that the model predicts, that of the highest output", ""),
    "stratum": ("tp, fp, tn or fn; the case is positive, every other class is negative", ""),
    "folds": ("numbers of the folds whose models explained the participant", "index"),
    "n_regions": ("number of regions", _COUNT),
    "n_peaks": ("number of peaks in the cluster", _COUNT),
    "peak": ("number of the peak in its cluster, the highest first", "index"),
    "cluster": ("number of the cluster, from the smallest p", "index"),
}
# What tables of several meanings of a column have, by the column that tells them apart.
_INTERVALS = {
    "laterality": "-1 to 1",
    "relative_density": "ratio",
    "rank": "rank",
    "measure": "that of the measure",
    "r": _CORRELATION,
}


def units_of(column: str) -> str:
    """Return the units of a column, which a map of it has, too."""
    return _COLUMNS[column][1]


class GroupFiles:
    """Writes files into the group folder, with a JSON sidecar for each.

    Parameters
    ----------
    folder
        The folder, which exists.
    atlas
        The atlas that everyone was explained with; None for a grid, and for participants' own parcellations.
    common
        What every sidecar records: how everyone was explained, and with which software.
    parcellation
        The name of participants' own parcellations; None where they have none.
    """

    def __init__(
        self, folder: Path, atlas: Atlas | None, common: Mapping[str, Any], parcellation: str | None = None
    ) -> None:
        self.folder, self.atlas, self._common = folder, atlas, common
        self._regions = parcellation if atlas is None else atlas.name

    @property
    def by_region(self) -> bool:
        """Whether rows of tables are regions, not points of a grid."""
        return self._regions is not None

    def stem(self, *groups: str, desc: str = "") -> str:
        """Return the start of the names of a group's files, or of a comparison's."""
        return group_stem(self._regions, *groups, desc=desc)

    def write_table(self, *table: Any, **record: Any) -> None:
        """Write a table and its sidecar, see `table_files`."""
        write_each(self.folder, self.table_files(*table, **record))

    def table_files(
        self,
        stem: str,
        suffix: str,
        table: pd.DataFrame,
        description: str,
        columns: Columns | None = None,
        *,
        scale: str = "",
        **record: Any,
    ) -> dict[str, Writer]:
        """Return the writers of ``<stem>_<suffix>.tsv`` and of its sidecar, which describes the columns.

        Parameters
        ----------
        stem, suffix, table, description
            Names of the files, the table, and what it holds.
        columns
            Description and units of columns that mean something else in this table than in others.
        scale
            The scale of the values that are compared, correlated or averaged. Default: each participant's scores,
            min-max normalised.
        **record
            Further entries of the sidecar.
        """
        known = dict(_COLUMNS)
        interval = next((units for name, units in _INTERVALS.items() if name in table), NORMALISED)
        known |= {name: (known[name][0], interval) for name in ("low", "high")}
        if scale:
            known = {name: (text, units.replace(NORMALISED, scale)) for name, (text, units) in known.items()}
        known |= columns or {}
        more = {**self._common, "Description": description, **record}
        return described_table(f"{stem}_{suffix}", table, known, **more)

    def write_image(
        self, stem: str, statistic: str, img: nib.Nifti1Image, description: str, units: str, **record: Any
    ) -> None:
        """Write ``<stem>_stat-<statistic>_statmap.nii.gz`` and its sidecar.

        The header says what the map holds. Maps of p-values are displayed from 0.05.
        """
        name = f"{stem}_stat-{statistic}_statmap"
        threshold = _SIGNIFICANT if statistic.startswith("neglog10p") else None
        describe_map(img, statistic, stem.partition("_")[0].removeprefix("group-"), threshold=threshold)
        img.to_filename(self.folder / f"{name}.nii.gz")
        sidecar = {**self._common, "Description": description, "Units": units, **record}
        write_json(sidecar)(self.folder / f"{name}.json")


def group_stem(regions: str | None, *groups: str, desc: str = "") -> str:
    """Return the start of the names of a group's files, or of a comparison's.

    Parameters
    ----------
    regions
        The name of the atlas, or of participants' own parcellations; None for a grid.
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
    if regions is not None:
        search = f"seg-{regions}" + (f"_desc-{desc}" if desc else "")
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
