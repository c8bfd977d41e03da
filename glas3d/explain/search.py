"""Where to search, from what a user has: an atlas, a grid, coordinates in mm, voxels, or what nilearn fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import nibabel as nib
import numpy as np

from glas3d.core.search import Grid, Segments, inside
from glas3d.core.settings import Point
from glas3d.errors import GlasError
from glas3d.explain.inputs import file_record
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.coordinates import Coordinates
from glas3d.imaging.mask import mask_on
from glas3d.imaging.scan import ImageLike, load_scan
from glas3d.imaging.space import VoxelGrid
from glas3d.imaging.spatial_transform import SpatialTransform


@dataclass(frozen=True, eq=False)
class ResolvedSearch:
    """A search on the grid of the model.

    Attributes
    ----------
    search
        What `GLAS.explain` takes.
    atlas
        The atlas whose regions are searched, if an atlas is searched.
    names
        Names of the points, where they have any.
    mask, native_mask
        Booleans on the grid of the model, and on the scan's own grid; None: everywhere.
    mask_record
        Name and hash of the mask's file.
    kind
        Label for file names where there is no atlas, such as ``"grid"``.
    space
        The space in which it is defined, such as ``"MNI"``; None: the scan's own.
    """

    search: Any
    atlas: Atlas | None
    names: tuple[str, ...] | None
    mask: np.ndarray | None
    native_mask: np.ndarray | None
    mask_record: dict[str, Any] | None
    kind: str
    space: str | None

    def record(self, points: np.ndarray, segments: Segments | None) -> dict[str, Any]:
        """Return what the sidecar records of the search."""
        record: dict[str, Any]
        if self.atlas is not None:
            assert segments is not None
            table = self.atlas.table
            lost = table.loc[~table["index"].isin(segments.index), "name"]
            record = {"atlas": self.atlas.name, "sha256": self.atlas.sha256, "regions_without_voxels": lost.tolist()}
        elif isinstance(self.search, Grid):
            record = {"grid": self.search.k}
        else:
            record = {"points" if segments is None else "segments": len(points)}
        return record if self.mask_record is None else record | {"mask": self.mask_record}


def parse_search(search: Any) -> Any:
    """Return an `Atlas`, `Coordinates`, or what `GLAS.explain` takes.

    Raises
    ------
    GlasError
        A name of no shipped atlas, or a mapping that holds neither maps nor coordinates.
    """
    if isinstance(search, str):
        return Atlas.load(search)
    if isinstance(search, Mapping):
        if "rois" in search and "maps" not in search:
            return Coordinates.from_nilearn(search)
        return Atlas.from_nilearn(search)
    return search


def space_of(search: Any) -> str | None:
    """Return the space of a parsed search, such as ``"MNI"``."""
    return search.space if isinstance(search, Atlas | Coordinates) else None


def refuse_other_space(search: Any) -> None:
    """Refuse a search outside the template's space, for a scan that is brought to the template.

    Raises
    ------
    GlasError
        An atlas or coordinates in another space, or in one that is not stated.
    """
    space = space_of(search)
    if space == "MNI" or not isinstance(search, Atlas | Coordinates):
        return
    owner = f"the atlas {search.name}" if isinstance(search, Atlas) else "the coordinates"
    raise GlasError(
        f"a scan brought to the template is searched in the template's space, MNI; the space of {owner} is "
        f"{space or 'not stated (space=, --atlas-space): perhaps the scan is its own'}"
    )


def search_on_grid(
    search: Any,
    grid: VoxelGrid,
    point: Point,
    mask_img: ImageLike | None,
    native: VoxelGrid,
    transform: SpatialTransform | None = None,
) -> ResolvedSearch:
    """Bring a parsed search to the grid of the model.

    Parameters
    ----------
    search
        A search that `parse_search` returned.
    grid
        The grid of the model.
    point
        Search point of an atlas region: its centroid or its medoid.
    mask_img
        Image inside which to search; None: search everywhere.
    native
        The scan's own grid.
    transform
        From the mask's space to that of ``grid``, where they differ.

    Raises
    ------
    GlasError
        The search does not lie on the grid, or nothing of it lies in the mask.
    """
    mask = native_mask = record = None
    if mask_img is not None:
        scan = load_scan(mask_img, constant=True)
        if transform is None:
            mask = mask_on(scan, grid)
        else:
            binary = replace(scan, data=(scan.data > 0.5).astype(np.float32))
            mask = mask_on(nib.Nifti1Image(transform.to_template(binary, grid).data, grid.affine), grid)
        native_mask = mask_on(scan, native)
        record = file_record(scan)
    atlas, names, kind = None, None, "points"
    on_grid = search
    if isinstance(search, Atlas):
        atlas, on_grid, kind = search, search.segments(grid, point), "segments"
    elif isinstance(search, Coordinates):
        on_grid, names = search.on(grid), search.names
        if mask is not None:
            kept = np.flatnonzero(inside(on_grid, mask))
            if not len(kept):
                raise GlasError(f"none of {len(names)} coordinates lies in the mask: {', '.join(names[:3])}")
            on_grid, names = on_grid[kept], tuple(names[i] for i in kept)
    elif isinstance(search, Grid):
        kind = "grid"
    return ResolvedSearch(on_grid, atlas, names, mask, native_mask, record, kind, space_of(search))
