"""Where to look, from whatever a user has: an atlas, a grid, places in mm, voxels, or what nilearn fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from glas3d.core.explanation import Explanation
from glas3d.core.search import Grid, inside
from glas3d.errors import GlasError
from glas3d.imaging.atlas import Atlas, Point
from glas3d.imaging.coordinates import Coordinates
from glas3d.imaging.mask import mask_on
from glas3d.imaging.scan import ImageLike, load_scan
from glas3d.imaging.space import VoxelGrid
from glas3d.imaging.transform import Transform


@dataclass(frozen=True, eq=False)
class Where:
    """A search on one grid.

    Attributes
    ----------
    search
        What the core takes.
    atlas
        The regions it is about, where it is.
    names
        Of its points, where they have any.
    mask, mask_home
        Booleans on the grid, and on the scan's own; None: everywhere.
    kind
        How files call it when there is no atlas, such as ``"grid"``.
    space
        The space it is defined in, such as ``"MNI"``; None: the scan's own.
    """

    search: Any
    atlas: Atlas | None
    names: tuple[str, ...] | None
    mask: np.ndarray | None
    mask_home: np.ndarray | None
    mask_record: dict[str, Any] | None
    kind: str
    space: str | None

    def record(self, explanation: Explanation) -> dict[str, Any]:
        """For the sidecar."""
        found: dict[str, Any]
        if self.atlas is not None:
            assert explanation.segments is not None
            table = self.atlas.table
            lost = table.loc[~table["index"].isin(explanation.segments.index), "name"]
            found = {"atlas": self.atlas.name, "sha256": self.atlas.sha256, "regions_without_voxels": lost.tolist()}
        elif isinstance(self.search, Grid):
            found = {"grid": self.search.k}
        else:
            found = {"points" if explanation.segments is None else "segments": len(explanation.points)}
        return found if self.mask_record is None else found | {"mask": self.mask_record}


def parse(search: Any) -> Any:
    """An `Atlas`, `Coordinates`, or what the core takes.

    Raises
    ------
    GlasError
        The name of no shipped atlas, or a mapping that holds neither maps nor coordinates.
    """
    if isinstance(search, str):
        return Atlas.load(search)
    if isinstance(search, Mapping):
        if "rois" in search and "maps" not in search:
            return Coordinates.from_nilearn(search)
        return Atlas.from_nilearn(search)
    return search


def space_of(search: Any) -> str | None:
    """The space of a parsed search, such as ``"MNI"``."""
    return search.space if isinstance(search, Atlas | Coordinates) else None


def refuse_space(search: Any) -> None:
    """Refuse what is not in the template's space, for a scan that is brought there.

    Raises
    ------
    GlasError
        An atlas or places in another space, or in none that is known.
    """
    space = space_of(search)
    if space == "MNI" or not isinstance(search, Atlas | Coordinates):
        return
    what = f"the atlas {search.name}" if isinstance(search, Atlas) else "the places"
    raise GlasError(
        f"a scan brought to the template is searched in the template's space, MNI; the space of {what} is "
        f"{space or 'not said (space=, --atlas-space): perhaps the scan is its own'}"
    )


def place(
    search: Any,
    grid: VoxelGrid,
    point: Point,
    mask_img: ImageLike | None,
    home: VoxelGrid,
    transform: Transform | None = None,
) -> Where:
    """A parsed search brought to a grid.

    Parameters
    ----------
    home
        The scan's own grid.
    transform
        From the mask's space to the grid's, where they differ.

    Raises
    ------
    GlasError
        It does not lie on the grid, or nothing of it lies in the mask.
    """
    mask = mask_home = record = None
    if mask_img is not None:
        scan = load_scan(mask_img, constant=True)
        if transform is None:
            mask = mask_on(scan, grid)
        else:
            inside_mask = replace(scan, data=(scan.data > 0.5).astype(np.float32))
            mask = mask_on(nib.Nifti1Image(transform.to_template(inside_mask, grid).data, grid.affine), grid)
        mask_home = mask_on(scan, home)
        record = {"name": Path(scan.name).name, "sha256": scan.sha256}
    atlas, names, kind = None, None, "points"
    where = search
    if isinstance(search, Atlas):
        atlas, where, kind = search, search.segments(grid, point), "segments"
    elif isinstance(search, Coordinates):
        where, names = search.on(grid), search.names
        if mask is not None:
            kept = np.flatnonzero(inside(where, mask))
            if not len(kept):
                raise GlasError(f"none of {len(names)} places lies in the mask: {', '.join(names[:3])}")
            where, names = where[kept], tuple(names[i] for i in kept)
    elif isinstance(search, Grid):
        kind = "grid"
    return Where(where, atlas, names, mask, mask_home, record, kind, space_of(search))
