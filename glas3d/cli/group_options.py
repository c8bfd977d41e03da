"""Options of the group level, and what it says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from glas3d.cli.cohort_options import Who
from glas3d.cli.parameters import FLAG, SEVERAL
from glas3d.cli.terminal import print_table, progress, say


@dataclass(frozen=True, kw_only=True)
class Groups:
    """What is asked of the groups.

    Parameters
    ----------
    normalise
        What is compared and correlated: each participant's scores as shares of their sum, min-max normalised as group
        maps are, or as they are.
    covariates
        Columns of participants.tsv to hold fixed in comparisons and correlations, such as age sex.
    site
        Column of sites; participants are exchanged within their site only.
    n_perm
        Permutations of a test.
    n_boot
        Resamples for intervals; 0: none.
    top
        Overlap counts who has a region among their highest top % of voxels.
    seed
        Of permutations and resamples.
    all_pairs
        Compare every two groups, not only case and control.
    voxelwise
        Compare maps voxel by voxel, too.
    tfce
        Test threshold-free cluster enhancement, too; with --voxelwise.
    voxel_mask
        Image of the voxels to compare; default: those of the atlas's regions, on a grid those of the template's brain.
    correlate
        Columns of participants.tsv to correlate every region's saliency with, such as MMSE.
    correlation
        Of what kind.
    volume_change
        Table of the change of each region's volume, to correlate saliency with: participant_id and a column a region,
        or participant_id name change.
    other_run
        Results of the same participants by models trained from another seed: how alike the groups' regions are.
    """

    normalise: Literal["share", "minmax", "none"] = "share"
    covariates: Annotated[tuple[str, ...], SEVERAL] = ()
    site: str | None = None
    n_perm: int = 10_000
    n_boot: int = 1000
    top: float = 5.0
    seed: int = 0
    all_pairs: Annotated[bool, FLAG] = False
    voxelwise: Annotated[bool, FLAG] = False
    tfce: Annotated[bool, FLAG] = False
    voxel_mask: Path | None = None
    correlate: Annotated[tuple[str, ...], SEVERAL] = ()
    correlation: Literal["pearson", "spearman"] = "pearson"
    volume_change: Path | None = None
    other_run: Annotated[tuple[Path, ...], SEVERAL] = ()

    def summarise(self, bids_dir: Path, out: Path, who: Who, atlas: str | None, *, native: bool) -> None:
        """Map and compare the groups of a study, told to the user."""
        from glas3d.study.group.level import summarise_groups

        columns = (*self.covariates, *([self.site] if self.site else []), *self.correlate)
        people = who.read(bids_dir, columns, native=native).everyone
        with progress("steps") as tick:
            found = summarise_groups(
                out, people, case=who.case, control=who.control, atlas=atlas, progress=tick, **asdict(self)
            )
        if who.case in found.tables:
            n = found.groups[who.case]
            print_table(found.tables[who.case], f"Ten best regions of {who.case}, {n} participants")
        for what, table in found.tests.items():
            best = table.sort_values("p_fwe").iloc[0]
            below = int((table["p_fwe"] <= 0.05).sum())
            say(
                f"{what}: {below} of {len(table)} at p <= 0.05 corrected; "
                f"the smallest p is {best['p_fwe']:.3g}, of {best['name']}"
            )
        for what, voxels in found.voxels.items():
            place = " ".join(f"{value:.0f}" for value in voxels.peak)
            say(
                f"{what}, voxels: {voxels.n_below} of {voxels.n_voxels} at p <= 0.05 corrected; "
                f"the smallest p is {voxels.p:.3g}, at {place} mm"
            )
        say(f"Written to {found.folder}: {', '.join(f'{name} {n}' for name, n in found.groups.items())} participants")
