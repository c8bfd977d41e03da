"""The sigmas and other settings that were not given: those of the model's preset, else those of the paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from glas3d.core.settings import MASKS, SALIENCY, SCORE, Settings
from glas3d.explain.notes import Note, voxel_sigmas
from glas3d.imaging.space import VoxelGrid

# The paper's sigmas, 10 and 15 voxels, read on a 2 mm grid. Its sigma_spatial of 6 voxels divides a distance by
# sigma^2, so in mm it is 6 * sqrt(2): 2 d / 72 = d / 36.
PAPER_PRESET = {"sigma_light": 20.0, "sigma_shadow": 30.0}  # mm
_SPATIAL_MM = {"euclidean": 6 * 2**0.5, "squared": 12.0}
# What a bundle may choose: how masks look and scores are made, not how fast they are computed.
_CHOOSABLE = {setting.name for setting in fields(Settings) if setting.metadata["group"] in (MASKS, SALIENCY, SCORE)}
_SIGMAS = ("sigma_light", "sigma_shadow", "sigma_spatial")


def fill(given: Mapping[str, Any], preset: Mapping[str, Any], grid: VoxelGrid) -> dict[str, Any]:
    """Return the settings of `GLAS`: those given, else those of the model's preset, else the paper's.

    Parameters
    ----------
    given
        Settings by their names. Sigmas are in ``given["unit"]``; without it in voxels, or in mm when no sigma was
        given.
    preset
        Settings that were chosen with the model; its ``unit`` is voxels unless it says mm.
    grid
        Grid of the model, whose spacing converts voxels to mm and back.
    """
    chosen = {name: value for name, value in preset.items() if name in _CHOOSABLE}
    settings = {name: value for name, value in {**chosen, **given}.items() if name not in (*_SIGMAS, "unit")}
    squared = settings.get("distance", "euclidean") == "squared"
    unit = given.get("unit") or ("voxel" if any(name in given for name in _SIGMAS) else "mm")
    filled = settings | {"unit": unit}
    for name in _SIGMAS:
        if name in given:
            filled[name] = given[name]
            continue
        if name in preset:
            stored, stored_unit = preset[name], preset.get("unit", "voxel")
        elif name != "sigma_spatial":
            stored, stored_unit = PAPER_PRESET[name], "mm"
        elif unit == "voxel":
            stored, stored_unit = 6.0, "voxel"
        else:
            stored, stored_unit = _SPATIAL_MM["squared" if squared else "euclidean"], "mm"
        # in exp(-D / sigma^2) sigma^2 is a length, the same for all axes
        root = not squared if name == "sigma_spatial" else settings.get("kernel") == "exponential"
        filled[name] = _convert(stored, stored_unit, unit, grid, root)
    return filled


def notes_on_unit(given: Mapping[str, Any], grid: VoxelGrid) -> list[Note]:
    """Return a note where sigmas were given without a unit, and are therefore in voxels; none elsewhere.

    Parameters
    ----------
    given, grid
        See `fill`.
    """
    names = [name for name in _SIGMAS if name in given]
    return [voxel_sigmas(names, grid.spacing)] if names and "unit" not in given else []


def _convert(value: Any, stored: str, wanted: str, grid: VoxelGrid, root: bool) -> Any:
    if stored == wanted:
        return value
    spacing = np.array(grid.spacing)
    if root:
        spacing = np.sqrt(np.full(len(spacing), spacing.mean()))
    converted = np.asarray(value) * spacing if wanted == "mm" else np.asarray(value) / spacing
    return float(converted[0]) if np.allclose(converted, converted[0]) else tuple(map(float, converted))
