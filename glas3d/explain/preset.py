"""Sigmas and units: what was given, what was chosen with the model, and what the paper used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from glas3d.imaging.space import VoxelGrid

# The paper's sigmas, 10 and 15 voxels, read on a 2 mm grid. Its sigma_spatial of 6 voxels divides a distance by
# sigma^2, so in mm it is 6 * sqrt(2): 2 d / 72 = d / 36.
PAPER_PRESET = {"sigma_light": 20.0, "sigma_shadow": 30.0}  # mm
_SPATIAL_MM = {"euclidean": 6 * 2**0.5, "squared": 12.0}
_OTHER_SETTINGS = ("kernel", "distance", "fusion", "gamma")


def fill(
    given: Mapping[str, Any], unit: str | None, preset: Mapping[str, Any], grid: VoxelGrid, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of `GLAS`: those given, filled up from the preset, and that from the paper.

    Parameters
    ----------
    given
        ``sigma_light``, ``sigma_shadow`` and ``sigma_spatial``; None where nothing was given.
    unit
        Of the sigmas given; None: voxels, or mm when none was given.
    preset
        Chosen with the model; its ``unit`` is voxels unless it says mm.
    grid
        Turns voxels into mm and back.
    settings
        Others that were given.
    """
    settings = {name: preset[name] for name in _OTHER_SETTINGS if name in preset} | dict(settings)
    squared = settings.get("distance", "euclidean") == "squared"
    if unit is None:
        unit = "mm" if all(value is None for value in given.values()) else "voxel"
    filled = settings | {"unit": unit}
    for name, value in given.items():
        if value is not None:
            filled[name] = value
            continue
        if name in preset:
            stored, stored_unit = preset[name], preset.get("unit", "voxel")
        elif name != "sigma_spatial":
            stored, stored_unit = PAPER_PRESET[name], "mm"
        elif unit == "voxel":
            stored, stored_unit = 6.0, "voxel"
        else:
            stored, stored_unit = _SPATIAL_MM["squared" if squared else "euclidean"], "mm"
        # in exp(-D / sigma^2) it is sigma^2 that is a length, and it is one for all axes
        root = not squared if name == "sigma_spatial" else settings.get("kernel") == "exponential"
        filled[name] = _convert(stored, stored_unit, unit, grid, root)
    return filled


def _convert(value: Any, stored: str, wanted: str, grid: VoxelGrid, root: bool) -> Any:
    if stored == wanted:
        return value
    spacing = np.array(grid.spacing)
    if root:
        spacing = np.sqrt(np.full(len(spacing), spacing.mean()))
    converted = np.asarray(value) * spacing if wanted == "mm" else np.asarray(value) / spacing
    return float(converted[0]) if np.allclose(converted, converted[0]) else tuple(map(float, converted))
