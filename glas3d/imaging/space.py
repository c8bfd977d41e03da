"""Voxel grids and MNI space: resample images, and check whether a scan is in MNI space."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from glas3d.errors import GlasError
from glas3d.hashing import file_sha256
from glas3d.imaging.scan import Scan
from glas3d.imaging.tissue import air_level
from glas3d.user_cache import UserCache

MNI = "MNI152NLin2009aSym"

Interpolation = Literal["linear", "nearest"]
Tissue = Literal["t1", "gm", "wm"]

_SAMPLES_MM = 1.0  # the width of a voxel that larger ones are taken to average over, too
_RESAMPLED_BY = ("nilearn", "scipy", "numpy")  # the packages that `resample` uses
_MOST_KEPT = 2_000_000  # voxels

# The field of view of the usual 2 mm MNI grid (91 x 109 x 91), in mm between the centres of the outer voxels.
_FOV_LOW, _FOV_HIGH = np.array([-90.0, -126.0, -72.0]), np.array([90.0, 90.0, 108.0])


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """A shape and an affine, which together say where the voxels of a volume are.

    Attributes
    ----------
    shape
        Number of voxels along each axis.
    affine
        4x4, voxel to world (RAS+) in mm.
    """

    shape: tuple[int, ...]
    affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a voxel in mm along each axis."""
        return tuple(float(v) for v in nib.affines.voxel_sizes(self.affine))

    def same_as(self, other: VoxelGrid) -> bool:
        """Return whether both grids have the same voxels, to a thousandth of a mm."""
        return self.shape == other.shape and np.allclose(self.affine, other.affine, atol=1e-3)


def grid_of(scan: Scan) -> VoxelGrid:
    """Return the grid that a scan was recorded on."""
    return VoxelGrid(scan.shape, scan.affine)


def mni_grid(resolution: float) -> VoxelGrid:
    """Return a grid over the MNI field of view with voxels of ``resolution`` mm, RAS+.

    At 1 mm it has 181 x 217 x 181 voxels and at 2 mm 91 x 109 x 91, as is usual. Coarser grids are padded to
    multiples of 8 (48 x 56 x 48 at 4 mm), so that a network can halve them three times.

    Raises
    ------
    GlasError
        The resolution is not from 0.5 to 16 mm.
    """
    if not 0.5 <= resolution <= 16:
        raise GlasError(f"resolution must be from 0.5 to 16 mm, got {resolution}")
    # rounded up, except for rounding errors of a division such as 180 / 0.9
    counts = np.ceil((_FOV_HIGH - _FOV_LOW) / resolution - 1e-6).astype(int) + 1
    if resolution > 2:
        counts = -(-counts // 8) * 8
    affine = np.diag([resolution, resolution, resolution, 1.0])
    centre = (_FOV_LOW + _FOV_HIGH) / 2
    # voxel centres on whole millimetres where the resolution allows it
    affine[:3, 3] = np.floor(centre - (counts - 1) * resolution / 2 + 0.5)
    return VoxelGrid((int(counts[0]), int(counts[1]), int(counts[2])), affine)


def resample(img: SpatialImage, grid: VoxelGrid, interpolation: Interpolation = "linear") -> np.ndarray:
    """Return the values of an image on another grid; 0 outside its field of view.

    Linear resampling to larger voxels smooths first, so that a coarse voxel is an average rather than one
    sample: along each axis by a Gaussian whose squared FWHM is that of the larger voxels less 1 mm squared (or less
    the square of the image's own voxels, where these are smaller), or 4/3 of the difference of the squared voxel
    sizes, where that is less.

    Parameters
    ----------
    img
        3D image.
    grid
        Where the values are wanted.
    interpolation
        ``"linear"`` (default), or ``"nearest"`` for labels.

    Returns
    -------
    ``grid.shape``; float32 for linear, for nearest the image's own type (int32 for integers not of 16 bits).
    """
    data = np.asarray(img.dataobj)
    if interpolation == "linear":
        data = data.astype(np.float32)
    elif data.dtype.kind in "iub" and data.dtype.itemsize != 2:
        data = data.astype(np.int32)
    own = VoxelGrid(img.shape, img.affine)
    if own.same_as(grid):
        return data
    inside = _inside(own, grid)
    if not inside.any():
        return np.zeros(grid.shape, data.dtype)
    from nilearn.image import resample_img, smooth_img  # takes a second to import, and scikit-learn with it

    # The field of view ends at the outer voxels' faces, interpolation at their centres: one more voxel all around
    # keeps rounding in the affines from losing whole outer slices.
    shifted = own.affine.copy()
    shifted[:3, 3] -= own.affine[:3, :3].sum(axis=1)
    image = nib.Nifti1Image(np.pad(data, 1, mode="edge"), shifted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # advice about binary images
        if interpolation == "linear" and (fwhm := _blur(own, grid)).any():
            image = smooth_img(image, fwhm=tuple(fwhm))
        moved = resample_img(
            image,
            target_affine=grid.affine,
            target_shape=grid.shape,
            interpolation=interpolation,
            copy_header=True,
            force_resample=True,
        )
    return np.where(inside, np.asarray(moved.dataobj, dtype=data.dtype), data.dtype.type(0))


def _inside(own: VoxelGrid, grid: VoxelGrid) -> np.ndarray:
    """Return which of a grid's voxel centres lie in the field of view of the grid ``own``."""
    to_own = np.linalg.inv(own.affine) @ grid.affine
    axes = np.ogrid[tuple(slice(n) for n in grid.shape)]
    inside = np.ones(grid.shape, dtype=bool)
    for row, n in zip(to_own[:3], own.shape, strict=True):
        index = row[0] * axes[0] + row[1] * axes[1] + row[2] * axes[2] + row[3]
        inside &= (index >= -0.5 - 1e-6) & (index <= n - 0.5 + 1e-6)
    return inside


def _blur(own: VoxelGrid, grid: VoxelGrid) -> np.ndarray:
    """Return the FWHM in mm, along each axis of the grid ``own``, that widens its voxels to those of a coarser grid.

    The voxels of MR images are samples more than averages: those of 1 mm and of half the coarser width are therefore
    smoothed by the same width, and the same head recorded with either gives the same values. Less than the difference
    of squares is never smoothed, and nothing where the voxels are as wide as the grid's.
    """
    sizes = np.array(own.spacing)
    widths = np.linalg.norm(grid.affine[:3, :3].T @ (own.affine[:3, :3] / sizes), axis=0)
    squared = np.minimum(widths**2 - np.minimum(sizes, _SAMPLES_MM) ** 2, (widths**2 - sizes**2) * 4 / 3)
    return np.where(widths > sizes + 1e-3, np.sqrt(np.clip(squared, 0, None)), 0.0)


def resample_scan(scan: Scan, grid: VoxelGrid) -> np.ndarray:
    """Return a scan's intensities on another grid, ``grid.shape`` float32; air outside its field of view.

    See `resample`, and `glas3d.imaging.tissue.air_level` for the intensity of air, which is 0 in most scans.
    """
    air = np.float32(0 if grid_of(scan).same_as(grid) else air_level(scan.data))
    if not air:
        return resample(nib.Nifti1Image(scan.data, scan.affine), grid)
    return resample(nib.Nifti1Image(scan.data - air, scan.affine), grid) + air


def voxel_to_world(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the world coordinates in mm of voxel coordinates ``(m, 3)``; the affine is the voxels'."""
    return np.asarray(nib.affines.apply_affine(affine, points), dtype=np.float64)


def world_to_voxel(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the voxel coordinates of world coordinates ``(m, 3)`` in mm; the affine is the voxels'."""
    return np.asarray(nib.affines.apply_affine(np.linalg.inv(affine), points), dtype=np.float64)


def template(tissue: Tissue = "t1") -> nib.Nifti1Image:
    """Return the ICBM152 2009a nonlinear symmetric template that nilearn ships: 1 mm, brain only, in [0, 1].

    Parameters
    ----------
    tissue
        ``"t1"`` (default): T1 intensities; ``"gm"``, ``"wm"``: the probability of grey or white matter.
    """
    img: Any = nib.load(_template_file(tissue))
    return nib.Nifti1Image(np.asarray(img.dataobj, dtype=np.float32) / 255.0, img.affine)


def _template_file(tissue: Tissue) -> Path:
    name = f"mni_icbm152_{tissue}_tal_nlin_sym_09a_converted.nii.gz"
    return Path(str(files("nilearn") / "datasets" / "data" / name))


def template_values(grid: VoxelGrid, tissue: Tissue = "t1") -> np.ndarray:
    """Return the values of `template` on a grid, read-only.

    Those of a grid of up to two million voxels are kept in the user's cache.
    """
    parts = (*(file_sha256(path) for path in (_template_file(tissue), Path(__file__))), *map(version, _RESAMPLED_BY))
    entry = UserCache("templates", most_files=16).entry(grid.shape, grid.affine.tolist(), *parts)
    stored = entry.read()
    if stored is not None:
        return np.frombuffer(stored, np.float32).reshape(grid.shape)  # read-only, as bytes are
    values = resample(template(tissue), grid)
    if values.size <= _MOST_KEPT:
        entry.write(values.tobytes())
    values.setflags(write=False)
    return values


@lru_cache(maxsize=8)
def template_on(resolution: float, tissue: Tissue = "t1") -> np.ndarray:
    """Return the values of `template` on `mni_grid`, read-only."""
    return template_values(mni_grid(resolution), tissue)


@dataclass(frozen=True)
class SpaceCheck:
    """How similar a scan is to a brain in MNI space; `problem` is None when it is similar enough.

    Attributes
    ----------
    coverage
        Share of the template's brain inside the scan's field of view.
    distance
        Distance between the centres of mass of scan and template, in mm.
    overlap
        Share of the template's brain where the scan is bright; of its grey or white matter, where the scan correlates
        best with that, because a map of one tissue is dark in the others.
    correlation
        Largest absolute Pearson correlation with the T1, grey or white matter template inside the brain,
        so that grey matter maps and other contrasts pass.
    reading
        As what the matrix that brought the scan there would fit plainly better; None: as what it was taken for.
    """

    coverage: float
    distance: float
    overlap: float
    correlation: float
    reading: str | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong, in words for a message."""
        problems = []
        if self.coverage < 0.75:
            problems.append(f"its field of view holds {self.coverage:z.0%} of the brain (75% needed)")
        if self.distance > 25:
            problems.append(f"its centre of mass is {self.distance:z.0f} mm off (25 mm allowed)")
        if self.overlap < 0.5:
            problems.append(f"it is bright in {self.overlap:z.0%} of the brain (50% needed)")
        if self.correlation < 0.5:
            problems.append(f"it correlates {self.correlation:z.2f} with the template (0.50 needed)")
        if self.reading is not None:
            problems.append(
                f"its matrix fits better as {self.reading}, and must be from native to template world, both RAS+ in mm"
            )
        return ", ".join(problems) or None


def air_intensity(scan: Scan) -> np.floating[Any]:
    """Return the intensity of the air around the head: the median on the scan's faces. It is not 0 in CT."""
    faces = [np.take(scan.data, [0, -1], axis=axis).ravel() for axis in range(3)]
    intensity: np.floating[Any] = np.median(np.concatenate(faces))
    return intensity


def check_space(scan: Scan) -> SpaceCheck:
    """Compare a scan with the template at 4 mm: on a scan in its native space an atlas would name the wrong anatomy."""
    grid = mni_grid(4)
    brain = template_on(4) > 0.1
    coverage = float(_inside(grid_of(scan), grid)[brain].mean())
    values = resample(nib.Nifti1Image(scan.data - air_intensity(scan), scan.affine), grid)
    magnitude = np.abs(values)
    bright = magnitude > 0.15 * np.percentile(magnitude, 98)
    if not bright.any():
        return SpaceCheck(coverage, float("inf"), 0.0, 0.0)
    spacing = np.array(grid.spacing)
    distance = float(np.linalg.norm((np.argwhere(bright).mean(axis=0) - np.argwhere(brain).mean(axis=0)) * spacing))
    inside = values[brain]
    correlation, tissue = 0.0, brain
    if inside.std() > 0:
        tissues: Sequence[Tissue] = ("t1", "gm", "wm")
        of = {t: abs(float(np.corrcoef(inside, template_on(4, t)[brain])[0, 1])) for t in tissues}
        best = max(tissues, key=lambda t: of[t])
        correlation, tissue = of[best], template_on(4, best) > 0.1
    return SpaceCheck(coverage, distance, float(bright[tissue].mean()), correlation)
