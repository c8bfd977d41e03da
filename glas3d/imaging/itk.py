"""Transforms in ITK's files and world: read, written, and applied to images and points by SimpleITK."""

from __future__ import annotations

import importlib
import io
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import apply_affine

from glas3d.errors import GlasError, reason
from glas3d.hashing import file_sha256
from glas3d.imaging.orientation import check_orientation
from glas3d.imaging.scan import read_image
from glas3d.imaging.space import Interpolation, VoxelGrid
from glas3d.reading import check_regular, open_regular, read_text

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # between ITK's world and nibabel's, in both directions
_VECTORS = 1007  # NIfTI's intent code
_MORE = "more than one transform in the file"
_LIMIT_S = 120.0  # a composite of 200 MB is read in some seconds


@dataclass(frozen=True, eq=False)
class Field:
    """A displacement field, which maps points of its own space.

    Attributes
    ----------
    vectors
        ``(x, y, z, 3)`` float32, displacements in RAS+ mm; 0 outside.
    grid
        The voxel grid of the vectors.
    """

    vectors: np.ndarray
    grid: VoxelGrid


@dataclass(frozen=True, eq=False)
class Deformation:
    """A transform that is no matrix, as a file holds it.

    Attributes
    ----------
    path, sha256
        The file and its hash.
    parts
        4x4 matrices in RAS+ mm and fields, in the order in which a point passes them.
    """

    path: Path
    sha256: str
    parts: tuple[np.ndarray | Field, ...]

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields among the parts."""
        return tuple(part for part in self.parts if isinstance(part, Field))


Step = np.ndarray | Deformation
"""A 4x4 matrix in RAS+ mm, or a deformation; both map points of the target grid to the image."""


def import_simpleitk() -> Any:
    """Return the module ``SimpleITK``.

    Raises
    ------
    GlasError
        It is not installed.
    """
    try:
        return importlib.import_module("SimpleITK")
    except ImportError:
        raise GlasError('transforms of ITK and ANTs need SimpleITK: pip install "glas3d[transforms]"') from None


def read_step(path: Path) -> Step:
    """Return the step that a file holds: a matrix if the transform is affine, else a deformation.

    Raises
    ------
    GlasError
        The file does not exist, is damaged, or holds no matrices and displacement fields that can be read.
    """
    check_regular(path, "a transform")
    if path.name.endswith((".nii", ".nii.gz")):
        return Deformation(path, file_sha256(path), (_read_field(path),))
    if is_plain_matrix(path):
        return np.linalg.inv(_read_matrix(path))
    parts = _read_parts(path)
    if any(isinstance(part, Field) for part in parts):
        return Deformation(path, file_sha256(path), parts)
    product = np.eye(4)
    for part in parts:
        assert isinstance(part, np.ndarray)
        product = part @ product
    return product


def is_plain_matrix(path: Path) -> bool:
    """Return whether a file is the text of a matrix alone, which does not say of what kind it is."""
    if path.name.endswith((".nii", ".nii.gz")):
        return False
    with open_regular(path) as file:
        start = file.read(64)
    return not (start.startswith((b"#Insight", b"\x89HDF")) or b"\x00" in start)


def _read_parts(path: Path) -> tuple[np.ndarray | Field, ...]:
    """Read a transform of ITK in a process of its own, which a damaged file may end or hang."""
    import_simpleitk()
    with tempfile.TemporaryDirectory(prefix="glas3d-") as folder:
        target = Path(folder) / "parts.npz"
        command = [sys.executable, "-m", "glas3d.imaging.itk_process", str(path), str(target)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise GlasError(f"{_no_transform(path)}: reading it takes longer than {_LIMIT_S:z.0f} s") from None
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            why = f"reading it ends with {_end_of(done.returncode)}" if done.returncode < 0 or not lines else lines[-1]
            raise GlasError(f"{_no_transform(path)}: {why[:200]}")
        if _MORE in done.stderr:  # a warning of SimpleITK
            raise GlasError(f"a transform must be one, or a composite, {path} holds several that are none")
        with np.load(target, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    parts: list[np.ndarray | Field] = []
    for number in range(len(arrays)):
        if (matrix := arrays.get(f"matrix{number}")) is not None:
            parts.append(check_matrix(_LPS @ matrix @ _LPS, str(path)))
        elif (vectors := arrays.get(f"vectors{number}")) is not None:
            parts.append(_field(vectors, _LPS @ arrays[f"affine{number}"], path))
    return tuple(parts)


def _no_transform(path: Path) -> str:
    return f"a transform must be one that ITK reads, {path} is not"


def _end_of(status: int) -> str:
    """Return what ended a process, by its status."""
    try:
        return f"the signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    except ValueError:
        return f"status {status}"


def _field(vectors: np.ndarray, affine: np.ndarray, path: Path) -> Field:
    """Return a field of ITK, whose vectors are in its world."""
    if not (np.isfinite(vectors).all() and np.isfinite(affine).all()):
        raise GlasError(f"a warp must hold finite displacements, {path} holds NaN or infinity")
    x, y, z = vectors.shape[:3]
    ras = np.asarray(vectors, np.float32) * np.float32(np.diag(_LPS)[:3])
    return Field(ras, VoxelGrid((x, y, z), np.asarray(affine, dtype=np.float64)))


def _read_matrix(path: Path) -> np.ndarray:
    try:
        return check_matrix(np.loadtxt(io.StringIO(read_text(path, "a transform")), dtype=np.float64), str(path))
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


def _read_field(path: Path) -> Field:
    """Read a displacement field as ITK writes it to NIfTI: ``(x, y, z, 1, 3)``, of vector intent, in LPS+ mm."""
    img: Any = read_image(path, "a warp")
    intent = int(img.header["intent_code"])
    if img.ndim != 5 or img.shape[3:] != (1, 3) or intent != _VECTORS:
        raise GlasError(
            f"a warp must be ITK's displacement field (x, y, z, 1, 3) of vector intent, "
            f"{path} has shape {img.shape} and intent code {intent}"
        )
    check_orientation(img, str(path), stacklevel=4)
    try:
        vectors = np.asarray(img.dataobj, dtype=np.float32)[:, :, :, 0]
    except Exception as error:  # a damaged file can raise anything
        raise GlasError(f"a warp must be complete, {path} is truncated or damaged: {reason(error)}") from None
    return _field(vectors, img.affine, path)


def write_matrix(matrix: np.ndarray, path: Path) -> None:
    """Write a 4x4 matrix in RAS+ mm as ITK's text file, with every digit."""
    lps = _LPS @ matrix @ _LPS
    numbers = " ".join(repr(float(v)) for v in (*lps[:3, :3].ravel(), *lps[:3, 3]))
    text = ("#Insight Transform File V1.0", "#Transform 0", "Transform: AffineTransform_double_3_3")
    path.write_text("\n".join([*text, f"Parameters: {numbers}", "FixedParameters: 0 0 0", ""]), encoding="ascii")


def apply_steps(
    data: np.ndarray, affine: np.ndarray, grid: VoxelGrid, steps: Sequence[Step], interpolation: Interpolation
) -> np.ndarray:
    """Return a volume on another grid through a chain of steps, ordered as for ``antsApplyTransforms``.

    Parameters
    ----------
    data, affine
        The volume ``(x, y, z)`` and its affine.
    grid
        Where its values are wanted.
    interpolation
        ``"linear"``, or ``"nearest"`` for labels.

    Returns
    -------
    ``grid.shape``, float32 or of the type of the labels; 0 outside the volume's field of view.
    """
    itk = import_simpleitk()
    labels = interpolation == "nearest"
    moved = itk.Resample(
        _image(data if labels else np.asarray(data, np.float32), affine),
        [int(n) for n in grid.shape],
        _composite(steps),
        itk.sitkNearestNeighbor if labels else itk.sitkLinear,
        *_geometry(grid.affine),
        0.0,
    )
    return np.asarray(itk.GetArrayFromImage(moved)).transpose()


def map_points(points: np.ndarray, steps: Sequence[Step]) -> np.ndarray:
    """Map points ``(m, 3)`` in RAS+ mm through a chain of steps, the first step first; float64."""
    composite = _composite(steps)
    lps = apply_affine(_LPS, np.asarray(points, dtype=np.float64).reshape(-1, 3))
    mapped = [composite.TransformPoint(point) for point in lps.tolist()]
    return np.asarray(apply_affine(_LPS, np.array(mapped).reshape(-1, 3)))


def _composite(steps: Sequence[Step]) -> Any:
    """Return a chain of steps as a transform of SimpleITK, which passes a point to the last transform first."""
    itk = import_simpleitk()
    composite = itk.CompositeTransform(3)
    parts = [part for step in steps for part in (step.parts if isinstance(step, Deformation) else (step,))]
    for part in reversed(parts):
        if isinstance(part, Field):
            vectors = part.vectors.astype(np.float64) * np.diag(_LPS)[:3]
            image = _image(vectors, part.grid.affine, isVector=True)
            composite.AddTransform(itk.DisplacementFieldTransform(image))
        else:
            lps = _LPS @ part @ _LPS
            composite.AddTransform(itk.AffineTransform(lps[:3, :3].ravel().tolist(), lps[:3, 3].tolist()))
    return composite


def _image(data: np.ndarray, affine: np.ndarray, **kind: bool) -> Any:
    """Return a volume, or vectors along the last axis, as an image of SimpleITK."""
    axes = (2, 1, 0, 3)[: data.ndim]
    image = import_simpleitk().GetImageFromArray(np.ascontiguousarray(data.transpose(axes)), **kind)
    origin, spacing, direction = _geometry(affine)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    return image


def _geometry(affine: np.ndarray) -> tuple[list[float], list[float], list[float]]:
    """Return origin, spacing and direction of an affine in ITK's world; its axes may be sheared."""
    lps = _LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return lps[:3, 3].tolist(), spacing.tolist(), (lps[:3, :3] / spacing).ravel().tolist()
