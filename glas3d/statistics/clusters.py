"""Clusters of significant voxels: their sizes, all their peaks, and the regions that they lie in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage

from glas3d.display import fields_repr
from glas3d.errors import GlasError

# Peaks of a cluster are at least this far apart, in mm, as in SPM and nilearn.
PEAK_DISTANCE = 8.0
NO_REGION = "no region"


@dataclass(frozen=True, eq=False)
class ClusterTables:
    """The clusters of a map of a statistic.

    Attributes
    ----------
    clusters
        One row a cluster, the largest first: ``cluster n_voxels volume n_peaks x y z statistic p index name regions``.
        ``volume`` is in mm3; ``x y z`` (mm), ``statistic``, ``p``, ``index`` and ``name`` are those of the highest
        peak. ``regions`` lists the share of the cluster's voxels in each region, the largest first, such as
        ``Hippocampus_L 0.75, Amygdala_L 0.25``.
    peaks
        One row a peak, clusters in the same order and the highest peak first: ``cluster peak x y z statistic p index
        name``.
    """

    clusters: pd.DataFrame
    peaks: pd.DataFrame

    __repr__ = fields_repr


def cluster_tables(
    statistic: np.ndarray,
    p: np.ndarray,
    affine: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    names: Mapping[int, str] | None = None,
    level: float = 0.05,
    distance: float = PEAK_DISTANCE,
) -> ClusterTables:
    """Find the clusters of significant voxels and all their peaks.

    A cluster is of voxels of one sign whose corrected p is at most ``level`` and that share faces. A peak is a voxel,
    or a set of touching voxels of one value, without a neighbour (of 26) in the cluster that is further from 0; of such
    a set it is the voxel nearest to the centre. Of peaks that are nearer to each other than ``distance`` the highest
    counts. nilearn's ``get_clusters_table`` keeps at most four peaks of a cluster and no set of voxels of one value,
    which the voxels of a region are; it is not used for this reason.

    Parameters
    ----------
    statistic
        A volume; its sign tells increases from decreases. NaN where nothing was tested.
    p
        The corrected p-value of each voxel, of the same shape; NaN where nothing was tested.
    affine
        ``(4, 4)``, from voxels to mm.
    labels
        The region of each voxel, whole numbers of the same shape, 0 for none. Default: no region anywhere.
    names
        The regions' names, by label.
    level
        Largest p of a significant voxel.
    distance
        Least distance of two peaks of a cluster, in mm.

    Raises
    ------
    GlasError
        Volumes of different shapes.

    Examples
    --------
    >>> t, p = np.zeros((4, 5, 6)), np.ones((4, 5, 6))
    >>> t[1, 1:3, 2], p[1, 1:3, 2] = [3, 5], 0.01
    >>> found = cluster_tables(t, p, np.diag([2.0, 2.0, 2.0, 1.0]))
    >>> found.clusters[["n_voxels", "volume", "x", "y", "z"]].values.tolist()
    [[2.0, 16.0, 2.0, 4.0, 4.0]]
    """
    regions = np.zeros(statistic.shape, dtype=int) if labels is None else labels
    if statistic.ndim != 3 or not statistic.shape == p.shape == regions.shape:
        shapes = f"{statistic.shape}, {p.shape} and {regions.shape}"
        raise GlasError(f"statistic, p and labels must be volumes of one shape, got {shapes}")
    name_of = {0: NO_REGION, **(names or {})}
    significant = np.nan_to_num(p, nan=1.0) <= level
    found = []
    for sign in (1, -1):
        parts, _ = ndimage.label(significant & (sign * np.nan_to_num(statistic) > 0))
        found += [(sign, box, parts[box] == number) for number, box in enumerate(ndimage.find_objects(parts), 1)]
    found.sort(key=lambda each: (-int(each[2].sum()), [side.start for side in each[1]]))
    clusters, peaks = [], []
    volume_of_voxel = round(abs(float(np.linalg.det(affine[:3, :3]))), 9)
    for number, (sign, box, inside) in enumerate(found, 1):
        own = []
        start = np.array([side.start for side in box])
        heights = np.where(inside, sign * statistic[box], -np.inf)
        for order, voxel in enumerate(_peaks(heights, affine, distance), 1):
            at = tuple(start + voxel)
            x, y, z = _world(start + voxel, affine)
            region = int(regions[at])
            own.append(
                {"cluster": number, "peak": order, "x": x, "y": y, "z": z, "statistic": statistic[at], "p": p[at]}
                | {"index": region or None, "name": name_of.get(region, str(region))}
            )
        peaks += own
        highest = {key: value for key, value in own[0].items() if key not in ("cluster", "peak")}
        size = int(inside.sum())
        clusters.append(
            {"cluster": number, "n_voxels": size, "volume": size * volume_of_voxel, "n_peaks": len(own)}
            | highest
            | {"regions": _shares(regions[box][inside], name_of)}
        )
    at_peak = ["x", "y", "z", "statistic", "p", "index", "name"]
    return ClusterTables(
        _table(clusters, ["cluster", "n_voxels", "volume", "n_peaks", *at_peak, "regions"]),
        _table(peaks, ["cluster", "peak", *at_peak]),
    )


def _peaks(values: np.ndarray, affine: np.ndarray, distance: float) -> list[np.ndarray]:
    """Return the voxels of the peaks, the highest first; values outside the cluster are minus infinity."""
    inside = np.isfinite(values)
    highest = inside & (values == ndimage.maximum_filter(values, 3, mode="constant", cval=-np.inf))
    # a voxel of the same value that has a higher neighbour: what touches it is on a slope
    sloping = np.where(inside & ~highest, values, -np.inf)
    on_slope = highest & (ndimage.maximum_filter(sloping, 3, mode="constant", cval=-np.inf) == values)
    parts, _ = ndimage.label(highest, np.ones((3, 3, 3)))
    refused = set(np.unique(parts[on_slope]).tolist())
    candidates = []
    for number, place in enumerate(ndimage.find_objects(parts), 1):
        if number in refused:
            continue
        voxels = np.argwhere(parts[place] == number) + [each.start for each in place]
        positions = _world(voxels, affine)
        middle = int(((positions - positions.mean(axis=0)) ** 2).sum(axis=1).argmin())
        candidates.append((float(values[tuple(voxels[middle])]), voxels[middle], positions[middle]))
    candidates.sort(key=lambda each: -each[0])
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for _, voxel, position in candidates:
        if all(np.linalg.norm(position - other) >= distance for _, other in kept):
            kept.append((voxel, position))
    return [voxel for voxel, _ in kept]


def _world(voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the world coordinates in mm of voxels ``(..., 3)``."""
    return np.asarray(voxels @ affine[:3, :3].T + affine[:3, 3], dtype=float)


def _shares(regions: np.ndarray, names: Mapping[int, str]) -> str:
    """Return the share of voxels in each region, as text."""
    index, counts = np.unique(regions, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return ", ".join(f"{names.get(int(index[i]), str(index[i]))} {counts[i] / len(regions):.3g}" for i in order)


def _table(rows: list[dict[str, object]], columns: list[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"index": "Int64"} if len(table) else {})
