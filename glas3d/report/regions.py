"""A figure of the highest-scoring regions on the template, above axial slices of the map (as the paper's figure 12)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg", force=False)

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from nilearn.plotting import plot_roi, plot_stat_map

from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import template
from glas3d.report.png import png_writer

COLOURS = ("red", "green", "blue", "yellow", "purple")  # the colours of ranks 1 to 5, as in the paper


def regions_figure(
    saliency_img: nib.Nifti1Image, table: pd.DataFrame, atlas: Atlas, *, title: str, cuts: int = 7
) -> Callable[[Path], None]:
    """Draw the figure and return a function that saves it as PNG to a path and closes it.

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
    highest = table.dropna(subset=["rank"]).sort_values("rank").head(len(COLOURS))
    labels = np.asarray(atlas.labels_img.dataobj)
    ranks = np.zeros(labels.shape, dtype=np.int16)
    for rank, index in enumerate(highest["index"], start=1):
        ranks[labels == index] = rank
    ranks_img = nib.Nifti1Image(ranks, atlas.labels_img.affine)
    brain = template()
    figure = plt.figure(figsize=(14, 7), facecolor="white")
    try:
        top = figure.add_axes((0.02, 0.50, 0.78, 0.40))
        bottom = figure.add_axes((0.02, 0.03, 0.95, 0.40))
        first = highest.iloc[0]
        plot_roi(
            ranks_img,
            bg_img=brain,
            axes=top,
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
            Patch(facecolor=colour, edgecolor="black", label=f"{rank}  {name}")
            for rank, (colour, name) in enumerate(zip(COLOURS, highest["name"], strict=False), start=1)
        ]
        figure.legend(
            handles=handles,
            title="Five highest-scoring regions",
            loc="upper left",
            bbox_to_anchor=(0.80, 0.88),
            frameon=False,
        )
        plot_stat_map(
            saliency_img,
            bg_img=brain,
            axes=bottom,
            display_mode="z",
            cut_coords=list(_slices(highest, cuts)),
            cmap="inferno",
            vmin=0,
            vmax=float(np.nanmax(np.asarray(saliency_img.dataobj))) or 1.0,
            threshold=1e-6,
            black_bg=False,
            colorbar=True,
            cbar_tick_format="%.2g",
        )
        figure.text(0.02, 0.455, "Saliency by region, axial slices (x, y, z in mm; L, R: the head's)", fontsize=11)
        figure.text(0.995, 0.22, "saliency, group maximum = 1", rotation=90, va="center", ha="right", fontsize=10)
        figure.text(0.02, 0.945, title, fontsize=14, weight="bold")
    except BaseException:
        plt.close(figure)
        raise

    return png_writer(figure, 110)


def _slices(highest: pd.DataFrame, cuts: int) -> np.ndarray:
    """Return the heights of axial slices in mm: 8 mm apart, downwards, around the mean height of the regions."""
    middle = 4 * np.round(float(highest["z"].mean()) / 4)
    return np.asarray(middle + 8.0 * np.arange(cuts // 2, cuts // 2 - cuts, -1))
