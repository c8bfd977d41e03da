"""Figures: the best regions on the template above axial slices of the map (after the paper's figure 12)."""

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
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from nilearn.plotting import plot_roi, plot_stat_map

from glas3d.imaging.atlas import Atlas
from glas3d.imaging.space import template

COLOURS = ("red", "green", "blue", "yellow", "purple")  # of ranks 1 to 5, as in the paper


def best_regions_figure(
    saliency_img: nib.Nifti1Image, table: pd.DataFrame, atlas: Atlas, *, title: str, cuts: int = 7
) -> Callable[[Path], None]:
    """Draw the figure; the writer it returns saves it as PNG and closes it.

    Parameters
    ----------
    saliency_img
        Atlas-wise map in MNI space.
    table
        Its regions, with ``index``, ``name`` and ``rank``.
    atlas
        Where the regions are.
    title
        Above everything.
    cuts
        Axial slices of the second row.
    """
    best = table.dropna(subset=["rank"]).sort_values("rank").head(len(COLOURS))
    labels = np.asarray(atlas.labels_img.dataobj)
    ranks = np.zeros(labels.shape, dtype=np.int16)
    for rank, index in enumerate(best["index"], start=1):
        ranks[labels == index] = rank
    ranks_img = nib.Nifti1Image(ranks, atlas.labels_img.affine)
    brain = template()
    figure = plt.figure(figsize=(14, 7), facecolor="white")
    try:
        top = figure.add_axes((0.02, 0.50, 0.78, 0.40))
        bottom = figure.add_axes((0.02, 0.03, 0.95, 0.40))
        first = best.iloc[0]
        plot_roi(
            ranks_img,
            bg_img=brain,
            axes=top,
            cut_coords=(float(first["x"]), float(best["y"].mean()), float(best["z"].mean())),
            cmap=ListedColormap(COLOURS[: len(best)]),
            vmin=1,
            vmax=max(len(best), 2),
            colorbar=False,
            black_bg=False,
            draw_cross=False,
            alpha=0.85,
        )
        handles = [
            Patch(facecolor=colour, edgecolor="black", label=f"{rank}  {name}")
            for rank, (colour, name) in enumerate(zip(COLOURS, best["name"], strict=False), start=1)
        ]
        figure.legend(
            handles=handles,
            title="Five best regions",
            loc="upper left",
            bbox_to_anchor=(0.80, 0.88),
            frameon=False,
        )
        plot_stat_map(
            saliency_img,
            bg_img=brain,
            axes=bottom,
            display_mode="z",
            cut_coords=list(_slices(best, cuts)),
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

    return png(figure, 110)


def png(figure: Figure, dpi: int) -> Callable[[Path], None]:
    """A writer for `write_together`: saves a figure without a date or a version, and closes it."""

    def save(path: Path) -> None:
        try:
            figure.savefig(path, dpi=dpi, format="png", metadata={"Software": None})
        finally:
            plt.close(figure)

    return save


def _slices(best: pd.DataFrame, cuts: int) -> np.ndarray:
    """Axial slices 8 mm apart, downwards, around the best regions' mean height."""
    middle = 4 * np.round(float(best["z"].mean()) / 4)
    return np.asarray(middle + 8.0 * np.arange(cuts // 2, cuts // 2 - cuts, -1))
