"""Figures of a map in the brain: axial slices, a glass brain, the cortical surface.

What a map hardly says is transparent in them, as `display_range` tells, so that the anatomy shows and weak regions do
not look strong. Colours differ in lightness as well as in hue.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from textwrap import wrap
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from nibabel.spatialimages import SpatialImage
from nilearn.datasets import load_fsaverage, load_fsaverage_data
from nilearn.plotting import plot_glass_brain, plot_stat_map, plot_surf_stat_map
from nilearn.surface import SurfaceImage

from glas3d.errors import GlasError
from glas3d.imaging.map_header import display_range
from glas3d.imaging.space import voxel_to_world

SIGNED, UNSIGNED = "RdBu_r", "YlOrRd"  # on light anatomy the darkest colour is the loudest
_FADING = 2  # how fast a map fades from the begin of its display range to the median
_SLICES, _APART_MM = 12, 8.0
_LABEL_LINES = 2  # of text that fit next to a colour bar


@dataclass(frozen=True, eq=False)
class BrainMap:
    """A map of the brain, with what a reader of its figures must know.

    Attributes
    ----------
    img
        The map, 3D.
    title
        Title of its figures.
    label
        What its values are, with units, for the colour bar.
    background
        The anatomy under the map, in the same world coordinates. None: the map is drawn on white.
    is_in_mni
        Whether the map is in MNI space, in which glass brains and surfaces are.
    """

    img: SpatialImage
    title: str
    label: str
    background: SpatialImage | None = None
    is_in_mni: bool = True

    # Computed once: a figure needs them for every slice and colour bar, and a map of 1 mm has seven million voxels.

    @cached_property
    def values(self) -> np.ndarray:
        """``(x, y, z)`` float64, read-only; what is not finite is 0."""
        values = np.nan_to_num(np.asarray(self.img.dataobj, dtype=np.float64), posinf=0.0, neginf=0.0)
        values.setflags(write=False)
        return values

    @cached_property
    def display_range(self) -> tuple[float, float]:
        """The `display_range` of the values."""
        return display_range(self.values)

    @cached_property
    def is_signed(self) -> bool:
        """Whether there are values below 0."""
        return bool((self.values < 0).any())

    def opacity(self, values: np.ndarray) -> np.ndarray:
        """Return how opaque values of the map are: 1 within the display range, 0 up to the median of all sizes."""
        lowest, _ = self.display_range
        if lowest == 0:
            return np.zeros(np.shape(values))
        median = min(self.median, lowest * (1 - 1e-6))
        return np.asarray(np.clip((np.abs(values) - median) / (lowest - median), 0, 1) ** _FADING)

    @cached_property
    def median(self) -> float:
        """The median of the sizes of all values other than 0; 0 for an empty map."""
        sizes = np.abs(self.values)
        sizes = sizes[sizes > 0]
        return float(np.median(sizes)) if sizes.size else 0.0

    @property
    def scale(self) -> tuple[Normalize, Colormap]:
        """The colours of the map: of a signed one as far below 0 as above.

        Where most values are above half of the largest, as for a saturated output, colours begin at their median.
        """
        _, largest = self.display_range
        largest = largest or 1.0
        if self.is_signed:
            shades = np.concatenate([np.linspace(0, 0.4, 128), np.linspace(0.6, 1, 128)])  # no white on light anatomy
            return Normalize(-largest, largest), ListedColormap(matplotlib.colormaps[SIGNED](shades))
        first = self.median if largest / 2 < self.median < largest else 0.0
        return Normalize(first, largest), ListedColormap(matplotlib.colormaps[UNSIGNED](np.linspace(0.2, 1, 256)))

    def on_mni(self) -> None:
        """Refuse a map that is not in MNI space.

        Raises
        ------
        GlasError
            It is not, or is not known to be.
        """
        if not self.is_in_mni:
            raise GlasError(
                "glass brains and surfaces are in MNI space, and this map is not known to be: draw a mosaic, or "
                "explain the scan with a transform to the template"
            )


def mosaic_figure(brain_map: BrainMap, *, slices: int = _SLICES, columns: int = 6, axis: str = "z") -> Figure:
    """Draw slices of a map over the anatomy, from the bottom to the top of the brain.

    Parameters
    ----------
    brain_map
        The map.
    slices
        How many slices.
    columns
        Slices in a row.
    axis
        ``"z"`` (default) for axial slices, ``"y"`` for coronal and ``"x"`` for sagittal ones.

    Returns
    -------
    A matplotlib figure that pyplot does not manage.
    """
    if axis not in ("x", "y", "z") or slices < 1 or columns < 1:
        raise GlasError(f"a mosaic has slices along x, y or z, and at least one, got {slices} along {axis!r}")
    cuts = _cuts(brain_map, slices, "xyz".index(axis))
    rows = [cuts[i : i + columns] for i in range(0, len(cuts), columns)]
    width = 1.75 * max(map(len, rows)) + 1.1
    tall = {"z": 2.1, "y": 1.75, "x": 1.6}[axis]
    height = tall * len(rows) + 0.55
    with new_figure(width, height) as figure:
        inside = (width - 1.1) / width
        for number, row in enumerate(rows):
            bottom = (height - 0.5 - tall * (number + 1)) / height
            axes = figure.add_axes((0.005, bottom, inside * len(row) / len(rows[0]), tall / height * 0.97))
            draw_slices(brain_map, axes, row, axis)
        _finish(figure, brain_map)
    return figure


def glass_figure(brain_map: BrainMap) -> Figure:
    """Draw a map on a glass brain: its highest values along each line of sight, from three sides.

    Parameters
    ----------
    brain_map
        A map in MNI space.

    Raises
    ------
    GlasError
        It is not in MNI space.
    """
    brain_map.on_mni()
    norm, colours = brain_map.scale
    lowest, _ = brain_map.display_range
    with new_figure(10.5, 3.5) as figure:
        axes = figure.add_axes((0.005, 0.02, 0.895, 0.84))
        plot_glass_brain(
            nib.Nifti1Image(brain_map.values.astype(np.float32), brain_map.img.affine),
            axes=axes,
            figure=figure,
            display_mode="lyrz",
            cmap=colours,
            vmin=norm.vmin,
            vmax=norm.vmax,
            threshold=lowest or 1e-6,
            plot_abs=False,
            symmetric_cbar=brain_map.is_signed,
            colorbar=False,
            alpha=0.6,
            resampling_interpolation="nearest",
        )
        _finish(figure, brain_map, hidden_below=lowest)
    return figure


def surface_figure(brain_map: BrainMap) -> Figure:
    """Draw a map on the inflated cortex of fsaverage5, from outside and from inside.

    The values are those of the voxels between the white matter and the pial surface. What lies deep, such as the
    amygdala, does not reach the cortex: see a mosaic or a glass brain.

    Parameters
    ----------
    brain_map
        A map in MNI space.

    Raises
    ------
    GlasError
        It is not in MNI space.
    """
    brain_map.on_mni()
    mesh, inflated = load_fsaverage("fsaverage5"), load_fsaverage("fsaverage5")["inflated"]
    sulci = load_fsaverage_data("fsaverage5", mesh_type="inflated", data_type="sulcal")
    img = nib.Nifti1Image(brain_map.values.astype(np.float32), brain_map.img.affine)
    projected = SurfaceImage.from_volume(
        mesh["pial"], img, inner_mesh=mesh["white_matter"], interpolation="nearest_most_frequent"
    )
    texture = SurfaceImage(inflated, projected.data)
    norm, colours = brain_map.scale
    lowest, _ = brain_map.display_range
    with new_figure(8.2, 6.4) as figure:
        for number, (hemisphere, view) in enumerate(
            (("left", "lateral"), ("right", "lateral"), ("left", "medial"), ("right", "medial"))
        ):
            axes = figure.add_axes(
                (0.01 + 0.44 * (number % 2), 0.46 - 0.45 * (number // 2), 0.44, 0.46), projection="3d"
            )
            plot_surf_stat_map(
                inflated,
                texture,
                bg_map=sulci,
                hemi=hemisphere,
                view=view,
                axes=axes,
                figure=figure,
                cmap=colours,
                vmin=norm.vmin,
                vmax=norm.vmax,
                threshold=lowest or 1e-6,
                symmetric_cbar=brain_map.is_signed,
                colorbar=False,
                bg_on_data=False,
            )
            axes.set_title(f"{hemisphere}, {view}", fontsize=9, y=0.93)
        _finish(figure, brain_map, hidden_below=lowest)
    return figure


def ladder_figure(maps: Mapping[str, BrainMap], *, title: str, slices: int = 7) -> Figure:
    """Draw the same axial slices of several maps, one row each, such as the scales of the masks.

    Each row has its own colour scale, from 0 to its own largest value, so that patterns are compared and not sizes.

    Parameters
    ----------
    maps
        The maps, by what is written next to their row; the last one says where to slice.
    title
        The figure's title.
    slices
        How many slices.
    """
    cuts = _cuts(list(maps.values())[-1], slices, 2)
    tall, wide, left = 1.9, 1.45 * slices, 1.25
    width, height = left + wide + 1.1, tall * len(maps) + 0.5
    with new_figure(width, height) as figure:
        for number, (name, brain_map) in enumerate(maps.items()):
            bottom = (height - 0.45 - tall * (number + 1)) / height
            axes = figure.add_axes((left / width, bottom, wide / width, tall / height * 0.95))
            draw_slices(brain_map, axes, cuts, "z")
            figure.text(0.1 / width, bottom + 0.5 * tall / height, name, fontsize=9.5, va="center")
            add_colour_bar(figure, brain_map, bottom=bottom + 0.25 * tall / height, tall=0.5 * tall / height, label="")
        figure.text(0.1 / width, 1 - 0.12 / height, title, fontsize=11, weight="bold", va="top")
    return figure


def draw_slices(brain_map: BrainMap, axes: Axes, cuts: Sequence[float], axis: str) -> None:
    """Draw slices next to each other, with the anatomy under them."""
    values, affine = brain_map.values.astype(np.float32), brain_map.img.affine
    norm, colours = brain_map.scale
    img = nib.Nifti1Image(values, affine)
    opacity = brain_map.opacity(values).astype(np.float32)
    # nilearn takes no image of one opacity, such as that of a map without values, and stretches the range of any other
    transparency: dict[str, Any] = {"transparency": float(opacity.flat[0])}
    if np.ptp(opacity) > 0:
        transparency = {"transparency": nib.Nifti1Image(opacity, affine), "transparency_range": [0, 1]}
    plot_stat_map(
        img,
        bg_img=brain_map.background,
        axes=axes,
        figure=axes.figure,
        display_mode=axis,
        cut_coords=list(cuts),
        cmap=colours,
        vmin=norm.vmin,
        vmax=norm.vmax,
        threshold=None,
        **transparency,
        black_bg=False,
        symmetric_cbar=brain_map.is_signed,
        colorbar=False,
        annotate=True,
        resampling_interpolation="nearest",
    )


def _cuts(brain_map: BrainMap, slices: int, axis: int) -> list[float]:
    """Return where to slice, in mm: 8 mm apart or closer, around what is worth showing, within the map."""
    values = brain_map.values
    lowest, _ = brain_map.display_range
    everywhere = voxel_to_world(np.argwhere(values != 0), brain_map.img.affine)[:, axis]
    if not len(everywhere):
        everywhere = voxel_to_world(np.argwhere(np.ones(values.shape, bool)), brain_map.img.affine)[:, axis]
        shown = everywhere
    else:
        shown = voxel_to_world(np.argwhere(np.abs(values) >= lowest), brain_map.img.affine)[:, axis]
    low, high = np.percentile(shown, [2, 98])
    spacing = min(_APART_MM, max((everywhere.max() - everywhere.min()) / slices, 1.0))
    span = spacing * (slices - 1)
    if high - low > span:  # everything that is worth showing is within the slices
        span = high - low
        spacing = span / max(slices - 1, 1)
    first = (low + high) / 2 - span / 2
    first = float(np.clip(first, everywhere.min(), max(everywhere.max() - span, everywhere.min())))
    return [float(np.round(first + spacing * i)) for i in range(slices)]


def _finish(figure: Figure, brain_map: BrainMap, *, hidden_below: float | None = None) -> None:
    """Add the title and the colour bar."""
    width, height = figure.get_size_inches()
    add_colour_bar(figure, brain_map, hidden_below=hidden_below)
    figure.text(0.1 / width, 1 - 0.12 / height, brain_map.title, fontsize=11, weight="bold", va="top")


def add_colour_bar(
    figure: Figure,
    brain_map: BrainMap,
    *,
    bottom: float = 0.14,
    tall: float = 0.64,
    hidden_below: float | None = None,
    label: str | None = None,
) -> None:
    """Add a colour bar on the right, whose colours fade as those of the map do.

    Parameters
    ----------
    figure, brain_map
        The figure, and the map that it shows.
    bottom, tall
        Position and height of the bar, as shares of the figure's height.
    hidden_below
        What is smaller is not shown at all. None (default): it fades.
    label
        Text next to the bar. None (default): what the values of the map are.
    """
    width, height = figure.get_size_inches()
    norm, colours = brain_map.scale
    assert norm.vmin is not None
    assert norm.vmax is not None
    values = np.linspace(norm.vmin, norm.vmax, 256)
    shades = colours(norm(values))
    opacity = brain_map.opacity(values) if hidden_below is None else (np.abs(values) >= hidden_below).astype(float)
    shades[:, :3] = opacity[:, None] * shades[:, :3] + (1 - opacity[:, None]) * np.array([0.93, 0.93, 0.93])
    axes = figure.add_axes((1 - 0.98 / width, bottom, 0.13 / width, tall))
    power = math.floor(math.log10(norm.vmax)) if norm.vmax > 0 else 0
    power = 0 if -3 < power < 3 else power
    bar = figure.colorbar(
        ScalarMappable(Normalize(norm.vmin / 10.0**power, norm.vmax / 10.0**power), ListedColormap(shades)), cax=axes
    )
    label = brain_map.label if label is None else label
    label = label if power == 0 else f"{label}, $10^{{{power}}}$".lstrip(", ")
    lines = wrap(label, int(tall * height / 0.075))
    if len(lines) <= _LABEL_LINES:
        bar.set_label("\n".join(lines), fontsize=8)
    else:  # next to a short bar, the end of a long text would be beyond the figure
        figure.text(0.995, 0.012, label, ha="right", va="bottom", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_linewidth(0.5)


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """Give a new figure, which nilearn may draw into by pyplot, and which pyplot does not manage afterwards."""
    figure = plt.figure(figsize=(width, height), facecolor="white")
    try:
        yield figure
    finally:
        plt.close(figure)
