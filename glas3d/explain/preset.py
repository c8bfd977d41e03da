"""The settings that were not given: those of a preset, of the model's bundle, or the default, in this order.

A call that gives a sigma, kernel, fusion or link and no preset starts from ``"paper"``, so that a call that names only
sigmas is the paper's. A bundle that brings one of them starts from the preset that it names, else from ``"paper"`` too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from glas3d.core.settings import MASKS, SALIENCY, SCORE, Settings
from glas3d.explain.notes import Note, voxel_sigmas
from glas3d.explain.options import Preset
from glas3d.imaging.space import VoxelGrid

# The preset of a call that chooses nothing, with a model that brings nothing: for scans what follows models
# and ranks small regions well (docs/truth.md), for images the paper's.
DEFAULT: Preset = "evidence"
OF_IMAGES: Preset = "paper"
PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "paper": {"kernel": "gaussian", "fusion": "product", "link": "probability", "density": False},
    "evidence": {"kernel": "segment", "fusion": "mean", "link": "auto", "density": False},
}
# The paper's sigmas, 10 and 15 voxels, read on a 2 mm grid. Its sigma_spatial of 6 voxels divides a distance by
# sigma^2, so in mm it is 6 * sqrt(2): 2 d / 72 = d / 36.
PAPER_PRESET = {"sigma_light": 20.0, "sigma_shadow": 30.0}  # mm
_SPATIAL_MM = {"euclidean": 6 * 2**0.5, "squared": 12.0}
# Masks that are regions themselves partition the brain with these, and follow models closely (docs/truth.md); round
# ones are about as large as a region.
EVIDENCE_PRESET = {"sigma_light": 1.0, "sigma_shadow": 1.0}  # mm
_EVIDENCE_ROUND = {"sigma_light": 8.0, "sigma_shadow": 12.0}  # mm
_SIGMAS = ("sigma_light", "sigma_shadow", "sigma_spatial")
_STARTING = (*_SIGMAS, "kernel", "fusion", "link")
# What a bundle may choose: how masks look and scores are made, not how fast they are computed.
_CHOOSABLE = {setting.name for setting in fields(Settings) if setting.metadata["group"] in (MASKS, SALIENCY, SCORE)}


def preset_of(
    given: Mapping[str, Any], of_model: Mapping[str, Any], preset: Preset | None, default: Preset = DEFAULT
) -> Preset:
    """Return the preset that settings start from (see this module); where nothing is chosen it is the default."""
    if preset is not None or any(name in given for name in _STARTING):
        return preset or "paper"
    if any(name in of_model for name in _STARTING):
        return of_model.get("preset", "paper")  # type: ignore[no-any-return]
    return default


def layers(
    given: Mapping[str, Any],
    of_model: Mapping[str, Any],
    preset: Preset | None,
    values: Mapping[str, Any],
) -> Sequence[Mapping[str, Any]]:
    """Return where settings come from: for each, the first of these that has it.

    Parameters
    ----------
    given, of_model
        Settings by their names: those that were given, and those of the model's bundle.
    preset
        The preset that was given by name, if one was.
    values
        The settings of the preset that all start from.
    """
    chosen = {name: value for name, value in of_model.items() if name in _CHOOSABLE}
    named = preset is not None or any(name in given for name in _STARTING)
    return (given, values, chosen) if named else (given, chosen, values)


def merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return each setting of the first layer that has it, without sigmas and their unit."""
    settings = {name: value for part in reversed(parts) for name, value in part.items()}
    return {name: value for name, value in settings.items() if name not in (*_SIGMAS, "unit")}


def values_of(preset: Preset, *, regions: bool) -> dict[str, Any]:
    """Return how a preset makes masks and scores, without sigmas; only regions have masks of their own shape."""
    values = dict(PRESETS[preset])
    return values if regions else values | {"kernel": "gaussian"}


def fill(
    given: Mapping[str, Any],
    of_model: Mapping[str, Any],
    grid: VoxelGrid,
    preset: Preset | None = None,
    *,
    regions: bool = True,
) -> dict[str, Any]:
    """Return the settings of `GLAS` for a scan.

    Parameters
    ----------
    given
        Settings by their names. Sigmas are in ``given["unit"]``; without it in voxels, or in mm when no sigma was
        given.
    of_model
        Settings that were chosen with the model; its ``unit`` is voxels unless it says mm.
    grid
        Grid of the model, whose spacing converts voxels to mm and back.
    preset
        The preset that was given by name, if one was.
    regions
        Whether masks may take the shape of the regions that are searched.
    """
    start = preset_of(given, of_model, preset)
    values = values_of(start, regions=regions)
    parts = layers(given, of_model, preset, values)
    settings = merged(parts)
    evidence = EVIDENCE_PRESET if settings["kernel"] == "segment" else _EVIDENCE_ROUND
    values |= (PAPER_PRESET if start == "paper" else evidence) | {"unit": "mm"}
    squared = settings.get("distance", "euclidean") == "squared"
    unit = given.get("unit") or ("voxel" if any(name in given for name in _SIGMAS) else "mm")
    filled = settings | {"unit": unit}
    for name in _SIGMAS:
        if name in given:
            filled[name] = given[name]
            continue
        source = next((part for part in parts if name in part), None)
        if source is not None:
            stored, stored_unit = source[name], source.get("unit", "voxel")
        elif unit == "voxel":
            stored, stored_unit = 6.0, "voxel"
        else:
            stored, stored_unit = _SPATIAL_MM["squared" if squared else "euclidean"], "mm"
        # in exp(-D / sigma^2) sigma^2 is a length, the same for all axes
        root = not squared if name == "sigma_spatial" else settings["kernel"] == "exponential"
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
