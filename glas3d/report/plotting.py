"""Figures of results in memory: what `plot` of a result draws."""

from __future__ import annotations

from typing import Any

import nibabel as nib
from matplotlib.figure import Figure

from glas3d.explain.result import ScanExplanation
from glas3d.explain.table import scales_of
from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import template
from glas3d.report.kinds import Shown, draw
from glas3d.report.maps import BrainMap


def plot(result: Any, kind: str | None = None, **options: Any) -> Figure:
    """Draw a figure of a result, see `glas3d.display.Drawn.plot`."""
    return draw(shown_of(result), kind, **options)


def shown_of(result: Any) -> Shown:
    """Return a result as figures need it."""
    if isinstance(result, ScanExplanation):
        return _of_scan(result)
    raise NotImplementedError


def _of_scan(result: ScanExplanation) -> Shown:
    provenance, search = result.provenance, result.provenance["Search"]
    is_in_mni = result.is_in_mni and provenance.get("Transform") is None
    background = template() if is_in_mni else None
    if background is None and result.scan is not None:
        background = nib.Nifti1Image(result.scan.data, result.scan.affine)
    target = result.class_name
    units = scales_of(provenance)
    title = f"{result.scan.stem if result.scan is not None else result.stem}: {result.outcome}"
    atlas = Atlas.recorded(search)
    brain_map = BrainMap(result.saliency_img, title, f"score: {units['score']}", background, is_in_mni)
    parts = {name: _of_scan(part) for name, part in result.parts.items()}
    return Shown(title, target, units, result.table, brain_map, atlas, parts)
