"""An interactive view of a map: three planes that follow the pointer, in a notebook or a browser."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
from nilearn.plotting import view_img

from glas3d.errors import GlasError
from glas3d.imaging.map_header import display_range
from glas3d.imaging.space import voxel_to_world
from glas3d.report.plotting import shown_of


def view(result: Any, *, threshold: float | None = None, **options: Any) -> Any:
    """Return an interactive view of the map of a result, drawn by `nilearn.plotting.view_img`.

    Parameters
    ----------
    result
        A result with a map of the brain.
    threshold
        What is smaller is transparent. None (default): see `glas3d.imaging.map_header.display_range`.
    **options
        Those of `nilearn.plotting.view_img`.

    Returns
    -------
    What a notebook shows, with the methods ``open_in_browser()`` and ``save_as_html(file)``.

    Raises
    ------
    GlasError
        The result has no map of the brain.
    """
    shown = shown_of(result)
    brain_map = shown.brain_map
    if brain_map is None:
        raise GlasError(f"a view needs a map of the brain, {shown.title} has none")
    values = brain_map.values
    lowest, largest = display_range(values)
    highest = np.argwhere(np.abs(values) == np.abs(values).max())[:1]
    chosen = {
        "bg_img": brain_map.background,
        "title": shown.title,
        "threshold": (lowest or 1e-6) if threshold is None else threshold,
        "cmap": brain_map.scale[1],
        "vmax": largest or 1.0,
        "vmin": None if brain_map.is_signed else 0,
        "symmetric_cmap": brain_map.is_signed,
        "cut_coords": voxel_to_world(highest, brain_map.img.affine)[0].tolist(),
        "resampling_interpolation": "nearest",
        "black_bg": False,
    }
    return view_img(nib.Nifti1Image(values.astype(np.float32), brain_map.img.affine), **(chosen | options))
