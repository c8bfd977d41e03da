"""A figure of the highest-scoring regions on the template, above axial slices of the map (as the paper's figure 12)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import fill

import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from nilearn.plotting import plot_roi

from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import template
from glas3d.report.figure_files import png_writer
from glas3d.report.maps import BrainMap, add_colour_bar, draw_slices, new_figure
from glas3d.report.ranks import COLOURS, highest_places, highest_rows, ranks_img


def regions_figure(
    saliency_img: nib.Nifti1Image, table: pd.DataFrame, atlas: Atlas, *, title: str, cuts: int = 7
) -> Callable[[Path], None]:
    """Draw the figure of a group and return a function that saves it as PNG to a path and closes it.

    Parameters
    ----------
    saliency_img
        A map of regions in MNI space.
    table
        The regions of the map, with ``index``, ``name``, ``rank`` and ``x``, ``y``, ``z`` in mm.
    atlas
        The atlas of these regions.
    title
        The figure's title.
    cuts
        How many axial slices the second row shows.
    """
    brain_map = BrainMap(saliency_img, title, "saliency, the largest is 1", template())
    return png_writer(five_regions_figure(brain_map, table, atlas, cuts=cuts), 110)


def five_regions_figure(
    brain_map: BrainMap, table: pd.DataFrame, atlas: Atlas | None = None, *, cuts: int = 7
) -> Figure:
    """Draw the five highest-scoring regions in the paper's colours, above axial slices of the map.

    Parameters
    ----------
    brain_map
        The map of the regions or points.
    table
        Its table, with ``index``, ``name``, ``score``, ``rank`` and ``x``, ``y``, ``z`` in mm.
    atlas
        The atlas of the regions, whose finer voxels are drawn. None (default): the voxels of the map.
    cuts
        How many axial slices the second row shows.

    Returns
    -------
    A matplotlib figure that pyplot does not manage.
    """
    highest, places = highest_rows(table), highest_places(table)
    if atlas is None or not brain_map.is_in_mni:
        labels_img = ranks_img(brain_map.img, table)
    else:
        labels = np.asarray(atlas.labels_img.dataobj)
        ranks = np.zeros(labels.shape, dtype=np.int16)
        for place in reversed(places):
            ranks[np.isin(labels, place.rows["index"])] = place.rank
        labels_img = nib.Nifti1Image(ranks, atlas.labels_img.affine)
    with new_figure(14, 7) as figure:
        top = figure.add_axes((0.02, 0.50, 0.78, 0.40))
        bottom = figure.add_axes((0.02, 0.03, 0.90, 0.40))
        if len(highest):
            first = highest.iloc[0]
            plot_roi(
                labels_img,
                bg_img=brain_map.background,
                axes=top,
                figure=figure,
                cut_coords=(float(first["x"]), float(highest["y"].mean()), float(highest["z"].mean())),
                cmap=ListedColormap(COLOURS[: len(highest)]),
                vmin=1,
                vmax=max(len(highest), 2),
                colorbar=False,
                black_bg=False,
                draw_cross=False,
                alpha=0.85,
            )
            handles = [
                Patch(
                    facecolor=COLOURS[place.rank - 1],
                    edgecolor="black",
                    label=f"{place.rank}  {fill(place.names, 26)}",
                )
                for place in places
            ]
            title = "Five highest-scoring regions" if len(highest) == len(COLOURS) else "Highest-scoring regions"
            figure.legend(handles=handles, title=title, loc="upper left", bbox_to_anchor=(0.80, 0.88), frameon=False)
        else:
            top.set_axis_off()
            top.text(0.5, 0.5, "no region scores higher than the others", ha="center", fontsize=12)
        draw_slices(brain_map, bottom, list(_slices(highest, cuts)), "z")
        figure.text(0.02, 0.455, "Saliency by region, axial slices (x, y, z in mm; L, R: the head's)", fontsize=11)
        add_colour_bar(figure, brain_map, bottom=0.08, tall=0.28)
        figure.text(0.02, 0.945, brain_map.title, fontsize=14, weight="bold")
    return figure


def _slices(highest: pd.DataFrame, cuts: int) -> np.ndarray:
    """Return the heights of axial slices in mm: 8 mm apart, downwards, around the mean height of the regions."""
    middle = 4 * np.round(float(highest["z"].mean()) / 4) if len(highest) else 0.0
    return np.asarray(middle + 8.0 * np.arange(cuts // 2, cuts // 2 - cuts, -1))
