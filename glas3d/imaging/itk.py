"""Transforms in ITK's files and world: read, written, and applied to images and points by ANTs."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from glas3d.errors import GlasError
from glas3d.imaging.space import VoxelGrid

Step = np.ndarray | Path
"""A 4x4 matrix in RAS+ mm, or a file with a displacement field; both map points of the target grid to the image."""

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # between ITK's world and nibabel's, in both directions
_VECTORS = 1007  # NIfTI's intent code


def import_ants() -> Any:
    """Return the module ``ants`` of antspyx.

    Raises
    ------
    GlasError
        antspyx is not installed.
    """
    try:
        return importlib.import_module("ants")
    except ImportError:
        raise GlasError('ITK transforms and registration need antspyx: pip install "glas3d[register]"') from None


def read_step(path: Path) -> Step:
    """Return the step that a file holds: a matrix if the transform is affine, else the path itself.

    Raises
    ------
    GlasError
        The file does not exist, or ITK cannot read it as a transform.
    """
    if not path.is_file():
        raise GlasError(f"no such file: {path}")
    if path.name.endswith((".nii", ".nii.gz")):
        field_grids(path)
        return path
    if is_plain_matrix(path):
        return np.linalg.inv(_read_matrix(path))
    transform = _read(path)
    # the origin and a point on each axis give the matrix; random points show whether it is all there is
    points = np.vstack([np.zeros(3), 100 * np.eye(3), np.random.default_rng(0).uniform(-90, 90, (60, 3))])
    mapped = np.array([transform.apply_to_point(tuple(map(float, point))) for point in points])
    matrix = nib.affines.from_matvec((mapped[1:4] - mapped[0]).T / 100, mapped[0])
    affine = np.allclose(nib.affines.apply_affine(matrix, points), mapped, atol=1e-3)
    if _grids_of(transform) or not affine:
        return path
    return check_matrix(_LPS @ matrix @ _LPS, str(path))


def is_plain_matrix(path: Path) -> bool:
    """Return whether a file is the text of a matrix alone, which does not say of what kind it is."""
    if path.name.endswith((".nii", ".nii.gz")):
        return False
    with path.open("rb") as file:
        start = file.read(64)
    return not (start.startswith((b"#Insight", b"\x89HDF")) or b"\x00" in start)


def _read(path: Path) -> Any:
    try:
        return import_ants().read_transform(str(path), precision="double")
    except RuntimeError:
        raise GlasError(f"a transform must be one that ITK reads, {path} is not") from None


def _read_matrix(path: Path) -> np.ndarray:
    try:
        return check_matrix(np.loadtxt(path, dtype=np.float64), str(path))
    except (ValueError, UnicodeDecodeError) as error:
        if isinstance(error, GlasError):
            raise
        raise GlasError(f"a transform must be an ITK file or a text of 4 x 4 numbers, {path} is neither") from None


def check_matrix(matrix: np.ndarray, name: str) -> np.ndarray:
    """Return a 4x4 matrix between the spaces of two heads as float64, checked.

    Raises
    ------
    GlasError
        The matrix has another shape, is not finite, does not end in the row 0 0 0 1, cannot be inverted, or mirrors.
    """
    try:
        matrix = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        raise GlasError(f"a transform's matrix must hold real numbers, {name} does not") from None
    if matrix.shape != (4, 4):
        raise GlasError(f"a transform's matrix must be 4 x 4, {name} has shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise GlasError(f"a transform's matrix must be finite, {name} holds NaN or infinity")
    if not np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-6):
        raise GlasError(f"a transform's matrix must end in the row 0 0 0 1, {name} ends in {matrix[3].tolist()}")
    volume = float(np.linalg.det(matrix[:3, :3]))
    if abs(volume) < 1e-6:
        raise GlasError(f"a transform's matrix must have an inverse, {name} has determinant {volume:.3g}")
    if volume < 0:
        raise GlasError(f"a transform must not swap left and right, {name} mirrors: its determinant is {volume:.3g}")
    return matrix


def field_grids(path: Path) -> list[VoxelGrid]:
    """Return the grids of the displacement fields in a file, in their order.

    Raises
    ------
    GlasError
        The image is not a displacement field as ITK writes it.
    """
    if not path.name.endswith((".nii", ".nii.gz")):
        return _grids_of(_read(path))
    try:
        img: Any = nib.load(path)
    except Exception as error:  # nibabel has many of its own
        raise GlasError(f"a warp must be an image nibabel can read, {path} is not: {error}") from None
    intent = int(img.header["intent_code"])
    if img.ndim != 5 or img.shape[3:] != (1, 3) or intent != _VECTORS:
        raise GlasError(
            f"a warp must be ITK's displacement field (x, y, z, 1, 3) of vector intent, "
            f"{path} has shape {img.shape} and intent code {intent}"
        )
    return [VoxelGrid(img.shape[:3], np.asarray(img.affine, dtype=np.float64))]


def _grids_of(transform: Any) -> list[VoxelGrid]:
    """Return the grids that a transform's fixed parameters describe.

    Those of a field are its size, origin, spacing and direction; a composite lists those of
    its parts one after another.
    """
    numbers = np.asarray(transform.fixed_parameters, dtype=np.float64)
    grids, at = [], 0
    while at + 18 <= len(numbers):
        size, origin, spacing, direction = np.split(numbers[at : at + 18], [3, 6, 9])
        axes = direction.reshape(3, 3)
        whole = np.array_equal(size, np.rint(size)) and size.min() > 1
        if whole and spacing.min() > 0 and np.allclose(axes @ axes.T, np.eye(3), atol=1e-4):
            shape = (int(size[0]), int(size[1]), int(size[2]))
            grids.append(VoxelGrid(shape, _LPS @ nib.affines.from_matvec(axes * spacing, origin)))
            at += 18
        else:
            at += 1
    return grids


def write_matrix(matrix: np.ndarray, path: Path) -> None:
    """Write a 4x4 matrix in RAS+ mm as ITK's text file, with every digit."""
    lps = _LPS @ matrix @ _LPS
    numbers = " ".join(repr(float(v)) for v in (*lps[:3, :3].ravel(), *lps[:3, 3]))
    text = ("#Insight Transform File V1.0", "#Transform 0", "Transform: AffineTransform_double_3_3")
    path.write_text("\n".join([*text, f"Parameters: {numbers}", "FixedParameters: 0 0 0", ""]), encoding="ascii")


@contextmanager
def _files(steps: Sequence[Step]) -> Iterator[list[str]]:
    """Yield the paths of files that hold the steps; those of matrices are removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="glas3d-") as folder:
        names = []
        for number, step in enumerate(steps):
            if isinstance(step, np.ndarray):
                write_matrix(step, Path(folder) / f"{number}.txt")
                names.append(f"{folder}/{number}.txt")
            else:
                names.append(str(step))
        yield names


def ants_image(data: np.ndarray, affine: np.ndarray) -> Any:
    """Return a volume as an image of ANTs, float32, with any affine that can be inverted."""
    lps = _LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    origin, sizes = [float(v) for v in lps[:3, 3]], [float(v) for v in spacing]
    return import_ants().from_numpy(np.asarray(data, np.float32), origin, sizes, lps[:3, :3] / spacing)


def apply_steps(
    data: np.ndarray, affine: np.ndarray, grid: VoxelGrid, steps: Sequence[Step], interpolator: str
) -> np.ndarray:
    """Return a volume on another grid through a chain of steps, ordered as for ``antsApplyTransforms``.

    Parameters
    ----------
    data, affine
        The volume ``(x, y, z)`` and its affine.
    grid
        Where its values are wanted.
    interpolator
        ANTs' name of it, such as ``"linear"`` or ``"nearestNeighbor"``.

    Returns
    -------
    ``grid.shape`` float32; 0 outside the volume's field of view.
    """
    fixed = ants_image(np.zeros(grid.shape, np.float32), grid.affine)
    with _files(steps) as names:
        moved = import_ants().apply_transforms(
            fixed, ants_image(data, affine), names, interpolator, whichtoinvert=[False] * len(names)
        )
    return np.asarray(moved.numpy())


def map_points(points: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
    """Map points ``(m, 3)`` in RAS+ mm through a chain of steps, the first step first; float64."""
    table = pd.DataFrame(points @ _LPS[:3, :3], columns=["x", "y", "z"])
    with _files(steps) as names:
        mapped = import_ants().apply_transforms_to_points(3, table, names, whichtoinvert=[False] * len(names))
    return np.asarray(np.asarray(mapped[["x", "y", "z"]], dtype=np.float64) @ _LPS[:3, :3])
