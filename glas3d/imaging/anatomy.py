"""Names for positions in the brain: the region of an atlas that a point lies in, or the nearest one."""

from __future__ import annotations

import numpy as np

from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import voxel_to_world, world_to_voxel

_NEAR_MM = 10.0


def anatomy_of(points: np.ndarray, atlas: Atlas) -> list[str]:
    """Return where points lie: ``in Hippocampus_L``, ``3 mm from Hippocampus_L``, or ``outside of all regions``.

    Parameters
    ----------
    points
        ``(m, 3)`` world coordinates in mm, in the space of the atlas.
    atlas
        Regions more than 10 mm away are not named.

    Examples
    --------
    >>> anatomy_of(np.array([[-25.0, -21.0, -10.0], [-38.0, -30.0, -2.0], [0.0, 0.0, 200.0]]), Atlas.load("AAL"))
    ['in Hippocampus_L', '2 mm from Hippocampus_L', 'outside of all regions']
    """
    labels, affine = np.asarray(atlas.labels_img.dataobj), atlas.labels_img.affine
    names = dict(zip(atlas.table["index"], atlas.table["name"], strict=True))
    reach = np.ceil(_NEAR_MM / np.linalg.norm(affine[:3, :3], axis=0)).astype(int)
    positions = []
    for point in np.asarray(points, dtype=np.float64).reshape(-1, 3):
        centre = np.rint(world_to_voxel(point[None], affine)[0]).astype(int)
        low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, labels.shape)
        window = labels[tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))]
        voxels = np.argwhere(window)
        if (centre >= 0).all() and (centre < labels.shape).all() and labels[tuple(centre)]:
            positions.append(f"in {names[int(labels[tuple(centre)])]}")
            continue
        distances = np.linalg.norm(voxel_to_world(voxels + low, affine) - point, axis=1)
        if not distances.size or distances.min() > _NEAR_MM:
            positions.append("outside of all regions")
            continue
        nearest = voxels[int(distances.argmin())]
        positions.append(f"{max(distances.min(), 1):z.0f} mm from {names[int(window[tuple(nearest)])]}")
    return positions
