"""The regions of an atlas in which disease is planted: their labels and their shares of the voxels of a grid."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from glas3d.errors import GlasError
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import mni_grid, resample

_EDGE_MM = 1.0  # standard deviation of the smoothed edge of a region


@lru_cache(maxsize=4)
def atlas_of(atlas: str | Path) -> Atlas:
    """Return an atlas by its name or path, loaded once."""
    return Atlas.load(atlas, space=None if Atlas.shipped_name(str(atlas)) else "MNI")


def check_regions(atlas: str | Path, regions: Sequence[str]) -> None:
    """Refuse names of regions that an atlas does not have, or that are given twice.

    Raises
    ------
    GlasError
        The atlas cannot be read, no region is given, or a name is unknown or given twice.
    """
    names = atlas_of(atlas).table["name"].tolist()
    if not regions:
        raise GlasError("regions must name at least one region, got none")
    for region in regions:
        if region not in names:
            near = difflib.get_close_matches(region, names, 1, 0.6)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise GlasError(f"regions must be names of the atlas {atlas}, which has no {region!r}{hint}")
    if len(set(regions)) < len(regions):
        raise GlasError(f"regions must be given once each, got {', '.join(regions)}")


@lru_cache(maxsize=8)
def region_shares(resolution: float, regions: tuple[str, ...], atlas: str | Path = "AAL") -> np.ndarray:
    """Return each voxel's share in regions, ``(n, x, y, z)`` from 0 to 1, on the MNI grid."""
    shares = np.stack([_share(resolution, region, atlas) for region in regions])
    shares.setflags(write=False)
    return shares


@lru_cache(maxsize=256)
def _share(resolution: float, region: str, atlas: str | Path) -> np.ndarray:
    of_names = atlas_of(atlas)
    index = of_names.table.set_index("name")["index"]
    img = of_names.labels_img
    # in the atlas's own voxels, so that the share of a coarse voxel is right
    sigma = _EDGE_MM / np.linalg.norm(img.affine[:3, :3], axis=0)
    smooth = gaussian_filter((np.asarray(img.dataobj) == index[region]).astype(np.float32), sigma)
    return resample(type(img)(smooth, img.affine), mni_grid(resolution))
