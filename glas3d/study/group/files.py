"""Files of the group level: names that say what was compared and where, and a sidecar beside each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.bids_names import bids_label
from glas3d.imaging.atlas import Atlas
from glas3d.output import write_json
from glas3d.study.group.group_map import painted
from glas3d.tables import write_table

_COLUMNS = {
    "n_case": "participants of the case",
    "n_control": "participants of the control",
    "mean_case": "mean of the normalised scores",
    "mean_control": "mean of the normalised scores",
    "difference": "mean of the case less mean of the control",
    "adjusted_difference": "the same with covariates and sites held fixed",
    "t": "Student's t of the adjusted difference",
    "p_uncorrected": "two-sided, of one region",
    "p_fwe": "two-sided, corrected for all regions of the test by the largest statistic of each permutation",
    "p_fwe_pairs": "p_fwe times the number of pairs of groups compared (Bonferroni), at most 1",
    "neglog10p_fwe": "-log10 of p_fwe",
    "cohen_d": "difference of the means over the pooled standard deviation, covariates not considered",
    "d_low": "lower end of the 95 % bootstrap interval of cohen_d",
    "d_high": "upper end of the 95 % bootstrap interval of cohen_d",
    "r": "correlation, of what covariates and sites leave where there are any",
    "low": "lower end of the 95 % interval",
    "high": "upper end of the 95 % interval",
    "p": "two-sided, not corrected",
    "variance": "over participants (n - 1)",
    "overlap": "share of the participants that have the region among their top",
    "laterality": "(left - right) / (left + right)",
    "saliency_share": "of the sum over the regions",
    "volume_share": "of the sum over the regions",
    "density": "saliency_share / volume_share",
    "spearman": "correlation of two runs' mean scores over the regions",
    "jaccard": "regions in the top of both runs over regions in the top of either",
    "stratum": "tp, fp, tn or fn; the case is positive",
}


class GroupFiles:
    """Writes into the group folder, a JSON sidecar beside every file.

    Parameters
    ----------
    place
        The folder.
    atlas
        Everyone was explained with; None: a grid.
    facts
        What every sidecar says: how everyone was explained, and with which software.
    """

    def __init__(self, place: Path, atlas: Atlas | None, facts: Mapping[str, Any]) -> None:
        self.place, self.atlas, self._facts = place, atlas, facts

    def name(self, *groups: str, desc: str = "") -> str:
        """Start of a file's name: the group, or the two compared, where was looked, and what it holds."""
        where = f"desc-grid{desc}"
        if self.atlas is not None:
            where = f"seg-{self.atlas.name}" + (f"_desc-{desc}" if desc else "")
        return f"group-{'vs'.join(bids_label(one) for one in groups)}_{where}"

    def table(self, stem: str, suffix: str, table: pd.DataFrame, description: str, **facts: Any) -> None:
        """``<stem>_<suffix>.tsv`` and its sidecar, which explains the columns."""
        columns = {name: {"Description": _COLUMNS[name]} for name in table.columns if name in _COLUMNS}
        write_table(table)(self.place / f"{stem}_{suffix}.tsv")
        self._sidecar(f"{stem}_{suffix}", {"Description": description, **columns, **facts})

    def image(self, stem: str, statistic: str, img: nib.Nifti1Image, description: str, **facts: Any) -> None:
        """``<stem>_stat-<statistic>_statmap.nii.gz`` and its sidecar."""
        name = f"{stem}_stat-{statistic}_statmap"
        img.to_filename(self.place / f"{name}.nii.gz")
        self._sidecar(name, {"Description": description, **facts})

    def painted(self, pattern: nib.Nifti1Image, table: pd.DataFrame, column: str) -> nib.Nifti1Image:
        """A column of a table with ``index`` on an image's grid, float32; 0 where there is none."""
        assert self.atlas is not None
        return painted(self.atlas, pattern, table["index"], table[column])

    def _sidecar(self, name: str, content: Mapping[str, Any]) -> None:
        write_json({**self._facts, **content})(self.place / f"{name}.json")


def volume_img(inside: np.ndarray, values: np.ndarray, pattern: nib.Nifti1Image) -> nib.Nifti1Image:
    """Values of the voxels of a mask as an image, float32; 0 elsewhere and where there is none."""
    volume = np.zeros(inside.shape, np.float32)
    volume[inside] = np.where(np.isfinite(values), values, 0)
    return nib.Nifti1Image(volume, pattern.affine, pattern.header)
