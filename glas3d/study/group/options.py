"""What is asked of the groups of a study."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glas3d.bids_names import have_distinct_labels
from glas3d.errors import GlasError
from glas3d.statistics.correlation import Method, check_method
from glas3d.statistics.regions import Normalise, normalised
from glas3d.statistics.resampling import check_counts

VOLUME_CHANGE = "volume change"


@dataclass(frozen=True, kw_only=True)
class GroupSettings:
    """What is asked of the groups of a study, beside their maps.

    Parameters
    ----------
    normalise
        What is compared and correlated: each participant's scores as shares of their sum, min-max normalised as group
        maps are, or as they are (see `glas3d.statistics.regions.normalised`).
    covariates, site, n_perm, n_boot, seed
        See `glas3d.statistics.two_groups.compare`; correlations hold them fixed, too.
    top
        See `glas3d.study.group.group_map.GroupMap`.
    k
        Regions that stability takes for the top (fewer, where there are fewer regions).
    all_pairs
        Compare every two groups, not only case and control.
    voxelwise
        Compare maps voxel by voxel, too.
    tfce
        Test threshold-free cluster enhancement of the voxels' t, too; for ``voxelwise``.
    voxel_mask
        Path of an image: which voxels are compared. None: those of the atlas's regions, or on a grid those of the
        template's brain.
    correlate
        Columns of the participants, such as MMSE, to correlate every region's saliency with, group by group.
    correlation
        Pearson's r or Spearman's rho.
    volume_change
        Path of a table with each participant's change of each region's volume, to correlate saliency with.
    other_run
        Folders of the same study with other models, trained from other seeds: how alike the groups' mean scores are.

    Raises
    ------
    GlasError
        Counts that say nothing, what needs ``voxelwise`` without it, or columns that file names cannot tell apart.
    """

    normalise: Normalise = "share"
    covariates: Sequence[str] = ()
    site: str | None = None
    n_perm: int = 10_000
    n_boot: int = 1000
    top: float = 5.0
    k: int = 10
    seed: int = 0
    all_pairs: bool = False
    voxelwise: bool = False
    tfce: bool = False
    voxel_mask: str | os.PathLike[str] | None = None
    correlate: Sequence[str] = ()
    correlation: Method = "pearson"
    volume_change: str | os.PathLike[str] | None = None
    other_run: Sequence[str | os.PathLike[str]] = ()

    def __post_init__(self) -> None:
        normalised(np.empty(0), self.normalise)
        check_counts(self.n_perm, self.n_boot)
        check_method(self.correlation)
        if not self.voxelwise and (self.tfce or self.voxel_mask is not None):
            raise GlasError(
                f"{'tfce' if self.tfce else 'a voxel mask'} is for a voxelwise comparison, which is not asked"
            )
        names = [*self.correlate, VOLUME_CHANGE]
        if not have_distinct_labels(names):
            told = ", ".join(names[:-1])
            raise GlasError(f"columns to correlate with need letters or digits that tell their files apart, got {told}")

    def record(self) -> dict[str, Any]:
        """For the provenance; files and folders by name."""
        return {
            "Normalise": self.normalise,
            "Covariates": list(self.covariates),
            "Site": self.site,
            "Permutations": self.n_perm,
            "Resamples": self.n_boot,
            "Top": self.top,
            "K": self.k,
            "Seed": self.seed,
            "AllPairs": self.all_pairs,
            "Voxelwise": self.voxelwise,
            "TFCE": self.tfce,
            "VoxelMask": self.voxel_mask and Path(self.voxel_mask).name,
            "Correlate": list(self.correlate),
            "Correlation": self.correlation,
            "VolumeChange": self.volume_change and Path(self.volume_change).name,
            "OtherRuns": [Path(one).name for one in self.other_run],
        }

    @property
    def test(self) -> dict[str, Any]:
        """What all permutation tests take."""
        return {"covariates": self.covariates, "site": self.site, "n_perm": self.n_perm, "seed": self.seed}
