"""Targets made from one region of unaltered scans: the truth is known although nobody changed an image.

After Siegel et al. 2025 (arXiv:2508.02560): a model that learns to tell high from low values of one region's own
intensity or volume has to use that region. Nothing is planted, so that the scans may be real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy import ndimage

from glas3d.bids_names import bids_id
from glas3d.display import fields_repr
from glas3d.errors import GlasError
from glas3d.explain.table import DESCRIPTIONS
from glas3d.imaging.scan import ImageLike, Scan, load_scan
from glas3d.imaging.space import VoxelGrid, grid_of
from glas3d.output import described_table, write_json, write_together
from glas3d.predict.intensity import scaled
from glas3d.simulate.regions import atlas_of, check_regions
from glas3d.tables import write_table

Measure = Literal["intensity", "volume"]

HIGH, MIDDLE, LOW = "high", "middle", "low"
_LEAST = 4  # participants, for a residual and two groups
_LARGEST_SHARE = 10.0  # values of tissue maps stay far below, intensities of scans do not

_REGION_COLUMNS = DESCRIPTIONS | {
    "planted": ("1: the region of the target, else 0", "0 or 1"),
    "correlation": (
        "Correlation of the region's own measure with the target, over participants",
        "correlation, -1 to 1",
    ),
}


@dataclass(frozen=True, eq=False)
class RegionTargets:
    """Targets made from one region, and the truth about them.

    Attributes
    ----------
    participants
        One row a participant: ``participant_id``, ``group`` (``high``, ``low``, or ``middle`` between the two),
        ``target`` (what the groups are made of) and ``value`` (the region's intensity or volume itself).
    regions
        One row a region of the atlas: ``index``, ``name``, ``planted`` (1: the target's region) and ``correlation`` of
        the region's own measure with the target, over participants. A model can also learn the target from regions
        that correlate with it.
    measure
        ``"intensity"`` or ``"volume"``.
    """

    participants: pd.DataFrame
    regions: pd.DataFrame
    measure: Measure

    __repr__ = fields_repr

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``participants.tsv``, its sidecar and ``desc-planted_regions.tsv``, and return their paths.

        The table is for ``--participants-tsv`` of `glas3d train` and `glas3d cohort`, with ``--case high`` and
        ``--control low``.
        """
        units = {"intensity": "1, the brightness of tissue", "volume": "mL"}[self.measure]
        columns = {
            "participant_id": {"Description": "Identifier of the participant"},
            "group": {
                "Description": "Where the target is among those of all participants",
                "Levels": {HIGH: "among the highest", MIDDLE: "in neither group", LOW: "among the lowest"},
            },
            "target": {"Description": "The value, or its residual if it was adjusted", "Units": units},
            "value": {"Description": f"{self.measure} of the region", "Units": units},
        }
        return write_together(
            Path(folder),
            {
                "participants.tsv": write_table(self.participants),
                "participants.json": write_json(columns),
                **described_table("desc-planted_regions", self.regions, _REGION_COLUMNS),
            },
        )


def region_targets(
    participant_ids: Sequence[str],
    scans: Sequence[ImageLike],
    region: str,
    *,
    atlas: str | Path = "AAL",
    measure: Measure = "intensity",
    adjusted: bool = True,
    share: float = 0.5,
) -> RegionTargets:
    """Return targets made from one region's own intensity or volume in scans that are left as they are.

    Parameters
    ----------
    participant_ids
        Ids of the participants, with or without ``sub-``.
    scans
        Their scans in MNI space, as paths or images, one a participant.
    region
        Name of the region.
    atlas
        Its atlas, by its name or path. Default: AAL.
    measure
        ``"intensity"`` (default): the region's mean intensity, relative to the brightness of the scan's tissue;
        ``"volume"``: the sum of the region's values times the volume of a voxel, in mL, for maps of tissue such as
        modulated grey matter.
    adjusted
        Whether the target is the residual of the region's value after a linear regression on the mean over all other
        regions, so that it is the region's own and not the whole brain's. Default: yes.
    share
        Share of the participants in each of the two groups, up to a half. The others, between the two, are of the
        group ``middle``. Default: a half.

    Returns
    -------
    The targets, and how each region correlates with them.

    Raises
    ------
    GlasError
        Fewer than four participants, another number of scans, an unknown region, a scan in which the region has no
        voxel, values that do not vary, an impossible share, or a volume of scans that are no maps of tissue.

    Examples
    --------
    >>> from glas3d.study import read_cohort
    >>> scans = read_cohort("data").everyone  # doctest: +SKIP
    >>> targets = region_targets(scans["participant_id"], scans["path"], "Hippocampus_L")  # doctest: +SKIP
    >>> targets.save("hippocampus")  # doctest: +SKIP
    """
    ids = [bids_id(label, "sub") for label in participant_ids]
    if len(ids) != len(scans) or len(ids) < _LEAST:
        raise GlasError(
            f"targets need at least {_LEAST} participants with one scan each, got {len(ids)} participants and "
            f"{len(scans)} scans"
        )
    if measure not in get_args(Measure):
        raise GlasError(f"measure must be one of {', '.join(get_args(Measure))}, got {measure!r}")
    if not 0 < share <= 0.5:
        raise GlasError(f"share must be above 0 and at most 0.5, got {share}")
    check_regions(atlas, (region,))
    table = atlas_of(atlas).table
    measures = _measures([load_scan(scan) for scan in scans], atlas, measure)
    own = measures[:, table["name"].tolist().index(region)]
    missing = [name for name, value in zip(ids, own, strict=True) if np.isnan(value)]
    if missing:
        raise GlasError(f"{region} must have voxels in every scan, it has none in that of {missing[0]}")
    others = np.nanmean(np.delete(measures, table["name"].tolist().index(region), axis=1), axis=1)
    target = own - np.polyval(np.polyfit(others, own, 1), others) if adjusted else own
    if np.ptp(target) <= 1e-9 * max(np.abs(own).max(), 1e-9):
        raise GlasError(f"the target must differ between participants, {region} has the same {measure} in all")
    ranks = pd.Series(target).rank(method="first")
    count = int(np.floor(share * len(ids)))
    groups = np.select([ranks > len(ids) - count, ranks <= count], [HIGH, LOW], MIDDLE)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = [np.corrcoef(values, target)[0, 1] for values in measures.T]
    return RegionTargets(
        pd.DataFrame({"participant_id": ids, "group": groups, "target": target, "value": own}),
        table[["index", "name"]].assign(planted=(table["name"] == region).astype(int), correlation=correlation),
        measure,
    )


def _measures(scans: Sequence[Scan], atlas: str | Path, measure: Measure) -> np.ndarray:
    """Return the measure of every region in every scan, ``(scans, regions)``; NaN where a region has no voxel."""
    index = atlas_of(atlas).table["index"].to_numpy()
    measures = np.full((len(scans), len(index)), np.nan)
    grid: VoxelGrid | None = None
    for row, scan in enumerate(scans):
        if grid is None or not grid.same_as(grid_of(scan)):
            grid = grid_of(scan)
            labels = atlas_of(atlas).on(grid)
            present = np.isin(index, labels)
        if measure == "intensity":
            measures[row, present] = ndimage.mean(scaled(scan.data), labels, index[present])
            continue
        if scan.data.max() > _LARGEST_SHARE:
            raise GlasError(
                f"volumes need maps of tissue, whose values are shares of voxels, {scan.name} reaches "
                f"{scan.data.max():g}"
            )
        millilitres = abs(np.linalg.det(grid.affine[:3, :3])) / 1000
        measures[row, present] = ndimage.sum_labels(scan.data, labels, index[present]) * millilitres
    return measures
