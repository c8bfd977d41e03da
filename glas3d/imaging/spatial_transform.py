"""Spatial transforms between a participant's native space and the template's."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nibabel.spatialimages import SpatialImage

from glas3d.errors import GlasError
from glas3d.imaging.itk import (
    Deformation,
    Step,
    apply_steps,
    check_matrix,
    is_plain_matrix,
    map_points,
    read_step,
    write_matrix,
)
from glas3d.imaging.matrix_kind import better_reading
from glas3d.imaging.scan import Scan
from glas3d.imaging.space import (
    Interpolation,
    SpaceCheck,
    VoxelGrid,
    check_space,
    grid_of,
    mni_grid,
    resample,
    template_on,
    voxel_to_world,
    world_to_voxel,
)
from glas3d.output import write_json, write_together
from glas3d.reading import read_bytes, read_json_object

FilePath = str | os.PathLike[str]
Direction = Literal["to_template", "to_native"]

_INDEX = "transform.json"
_FORWARD, _INVERSE = "from-native_to-template", "from-template_to-native"


class SpatialTransform(ABC):
    """A transform that brings a scan from its native space to the template, and maps back to native space.

    Attributes
    ----------
    name
        What messages and sidecars call it.
    settings
        The settings of the registration that it is the result of, for the sidecar; empty for one that was read.
    """

    name: str
    settings: Mapping[str, Any]

    def to_template(self, scan: Scan, grid: VoxelGrid) -> Scan:
        """Return the scan on a grid of the template, smoothed first where the grid is coarser (see `resample`).

        Parameters
        ----------
        grid
            A grid in the template's world, such as `mni_grid`.

        Returns
        -------
        A `Scan` of ``grid.shape``; 0 outside the scan's field of view. Its image, name and hash stay the scan's.
        """
        return replace(scan, data=self._resample(scan.data, scan.affine, grid, "to_template"), affine=grid.affine)

    def to_native(self, img: SpatialImage, scan: Scan, interpolation: Interpolation = "linear") -> np.ndarray:
        """Return an image of the template's space on the scan's own grid.

        Parameters
        ----------
        img
            A map; or labels, for which ``interpolation`` is ``"nearest"``.

        Returns
        -------
        An array of ``scan.shape``, of the types that `resample` returns.
        """
        return self._resample(np.asarray(img.dataobj), img.affine, grid_of(scan), "to_native", interpolation)

    def check(self, scan: Scan) -> SpaceCheck:
        """Compare the transformed scan with the template: a transform that belongs to another scan shows here."""
        check = check_space(self.to_template(scan, mni_grid(2)))
        field_of_view = np.ones(scan.shape, np.int32)
        covered = self._resample(field_of_view, scan.affine, mni_grid(4), "to_template", "nearest")
        return replace(check, coverage=float(covered[template_on(4) > 0.1].mean()))

    def save(self, folder: FilePath) -> list[Path]:
        """Write the transform as files that ITK reads, with their order; `load_transform` reads the folder.

        Returns
        -------
        The paths written.
        """
        index, files = self._files()
        return write_together(Path(folder), {**files, _INDEX: write_json(index)})

    @abstractmethod
    def points_to_template(self, points: np.ndarray) -> np.ndarray:
        """Map points ``(m, 3)`` of the native world to the template's, both in RAS+ mm."""

    @abstractmethod
    def points_to_native(self, points: np.ndarray) -> np.ndarray:
        """Map points ``(m, 3)`` of the template's world to the native one, both in RAS+ mm."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Return matrices, names and hashes of files, and the settings, for the sidecar."""

    @abstractmethod
    def _resample(
        self,
        data: np.ndarray,
        affine: np.ndarray,
        grid: VoxelGrid,
        direction: Direction,
        interpolation: Interpolation = "linear",
    ) -> np.ndarray:
        """Return a volume on a grid of the other space."""

    @abstractmethod
    def _files(self) -> tuple[dict[str, Any], dict[str, Callable[[Path], object]]]:
        """Return the content of the index, and a writer for each file that it names."""


@dataclass(frozen=True, eq=False, repr=False)
class Affine(SpatialTransform):
    """A matrix: the volume stays as it is, its affine moves, and one interpolation suffices.

    Attributes
    ----------
    matrix
        4x4, native world to template world, both RAS+ in mm.
    certain
        Whether the matrix is known to be of that kind, as one from an ITK file is. `check` compares others with what
        else they could be, such as a matrix of FLIRT.

    Examples
    --------
    >>> Affine(np.diag([1.0, 1.0, 1.0, 1.0]), "identity").points_to_native(np.array([[-24.0, -20.0, -14.0]]))
    array([[-24., -20., -14.]])
    """

    matrix: np.ndarray
    name: str = "the matrix"
    settings: Mapping[str, Any] = field(default_factory=dict)
    certain: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", check_matrix(self.matrix, self.name))

    def __repr__(self) -> str:
        return f"Affine({self.name})"

    def check(self, scan: Scan) -> SpaceCheck:
        """See `SpatialTransform`."""
        check = super().check(scan)
        return check if self.certain else replace(check, reading=better_reading(self.matrix, scan))

    def points_to_template(self, points: np.ndarray) -> np.ndarray:
        """See `SpatialTransform`."""
        return np.asarray(apply_affine(self.matrix, points))

    def points_to_native(self, points: np.ndarray) -> np.ndarray:
        """See `SpatialTransform`."""
        return np.asarray(apply_affine(np.linalg.inv(self.matrix), points))

    def record(self) -> dict[str, Any]:
        """See `SpatialTransform`."""
        return {"name": Path(self.name).name, "matrix": self.matrix.tolist(), **self.settings}

    def _resample(
        self,
        data: np.ndarray,
        affine: np.ndarray,
        grid: VoxelGrid,
        direction: Direction,
        interpolation: Interpolation = "linear",
    ) -> np.ndarray:
        matrix = self.matrix if direction == "to_template" else np.linalg.inv(self.matrix)
        return resample(nib.Nifti1Image(data, matrix @ affine), grid, interpolation)

    def _files(self) -> tuple[dict[str, Any], dict[str, Callable[[Path], object]]]:
        name, step = f"{_FORWARD}_0.txt", np.linalg.inv(self.matrix)
        index = {
            "name": Path(self.name).name,
            "settings": dict(self.settings),
            "matrix": self.matrix.tolist(),
            _FORWARD: [name],
        }
        return index, {name: lambda path: write_matrix(step, path)}


@dataclass(frozen=True, eq=False, repr=False)
class Warp(SpatialTransform):
    """A chain of matrices and displacement fields, in the order of ``antsApplyTransforms``.

    Attributes
    ----------
    forward
        The steps that bring a native image to the template. As in ANTs they map points the other way, from the
        template to native space: for each voxel wanted they say where in the image its value is.
    inverse
        The steps that bring an image of the template to native space.

    Raises
    ------
    GlasError
        A field covers too little of the brain, or the two chains do not undo each other.
    """

    forward: tuple[Step, ...]
    inverse: tuple[Step, ...]
    name: str = "the warp"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        brain = voxel_to_world(np.argwhere(template_on(4) > 0.1)[::7], mni_grid(4).affine)
        native = map_points(brain, self.forward)
        for steps, ends in ((self.forward, (brain, native)), (self.inverse, (native, brain))):
            for step in (step for step in steps if isinstance(step, Deformation)):
                share = max(_covered(each.grid, end) for each in step.fields for end in ends)
                if share < 0.75:
                    raise GlasError(
                        f"a warp must cover the brain (75% needed), the field of {step.path} covers {share:z.0%}"
                    )
        error = float(np.median(np.linalg.norm(map_points(native, self.inverse) - brain, axis=1)))
        if not error <= 2:
            raise GlasError(
                f"a warp and its inverse must undo each other (2 mm allowed), forward and back again {self.name} "
                f"misses by {error:.1f} mm"
            )

    def __repr__(self) -> str:
        return f"Warp({self.name})"

    def points_to_template(self, points: np.ndarray) -> np.ndarray:
        """See `SpatialTransform`."""
        return map_points(points, self.inverse)

    def points_to_native(self, points: np.ndarray) -> np.ndarray:
        """See `SpatialTransform`."""
        return map_points(points, self.forward)

    def record(self) -> dict[str, Any]:
        """See `SpatialTransform`."""

        def step_record(step: Step) -> Any:
            if isinstance(step, Deformation):
                return {"name": step.path.name, "sha256": step.sha256}
            return {"matrix": step.tolist()}

        return {
            "name": Path(self.name).name,
            _FORWARD: [step_record(step) for step in self.forward],
            _INVERSE: [step_record(step) for step in self.inverse],
            **self.settings,
        }

    def _resample(
        self,
        data: np.ndarray,
        affine: np.ndarray,
        grid: VoxelGrid,
        direction: Direction,
        interpolation: Interpolation = "linear",
    ) -> np.ndarray:
        steps = self.forward if direction == "to_template" else self.inverse
        if interpolation == "nearest":
            kind = np.int32 if data.dtype.kind in "iub" and data.dtype.itemsize != 2 else data.dtype  # as in resample
            return apply_steps(data.astype(kind), affine, grid, steps, "nearest")
        finer = _finer(grid, min(nib.affines.voxel_sizes(affine)))
        moved = apply_steps(data, affine, finer, steps, "linear")
        return resample(nib.Nifti1Image(moved, finer.affine), grid)

    def _files(self) -> tuple[dict[str, Any], dict[str, Callable[[Path], object]]]:
        files: dict[str, Callable[[Path], object]] = {}
        index: dict[str, Any] = {"name": Path(self.name).name, "settings": dict(self.settings)}
        for direction, steps in ((_FORWARD, self.forward), (_INVERSE, self.inverse)):
            index[direction] = []
            for number, step in enumerate(steps):
                name = f"{direction}_{number}{_suffix(step)}"
                files[name] = _writer(step)
                index[direction].append(name)
        return index, files


def _suffix(step: Step) -> str:
    if not isinstance(step, Deformation):
        return ".txt"
    return ".nii.gz" if step.path.name.endswith(".nii.gz") else step.path.suffix


def _writer(step: Step) -> Callable[[Path], object]:
    if isinstance(step, Deformation):
        # read at once: the file may lie in the folder that is written to
        content = read_bytes(step.path, "a transform", None)
        return lambda path: path.write_bytes(content)
    return lambda path: write_matrix(step, path)


def _covered(grid: VoxelGrid, points: np.ndarray) -> float:
    """Return the share of points, in mm, that lie in a grid's field of view."""
    voxels = world_to_voxel(points, grid.affine)
    return float(((voxels >= -0.5) & (voxels <= np.array(grid.shape) - 0.5)).all(axis=1).mean())


def _finer(grid: VoxelGrid, spacing: float) -> VoxelGrid:
    """Return the grid with its voxels divided to about ``spacing`` mm, or 1 mm where that is larger."""
    parts = np.rint(np.array(grid.spacing) / max(spacing, 1.0)).astype(int).clip(1)
    inner = nib.affines.from_matvec(np.diag(1 / parts), 0.5 / parts - 0.5)
    return VoxelGrid(tuple(int(n) for n in np.array(grid.shape) * parts), grid.affine @ inner)


def load_transform(
    source: np.ndarray | FilePath | Sequence[FilePath] | SpatialTransform,
    inverse: FilePath | Sequence[FilePath] | None = None,
) -> SpatialTransform:
    """Read a transform between a scan's native space and the template.

    Parameters
    ----------
    source
        - A 4x4 array, or a text file of one: native world to template world, both RAS+ in mm. FLIRT's are not, and
          are warned of by `explain_img`, as is an inverse, where they fit the scan plainly better as what they are.
        - An ITK or ANTs file, or a sequence of them in the order of ``antsApplyTransforms``: what brings the native
          image to the template, such as ``[sub_1Warp.nii.gz, sub_0GenericAffine.mat]`` of ``antsRegistration``
          with the template fixed, or fMRIPrep's ``from-T1w_to-MNI152NLin2009cAsym_mode-image_xfm.h5``.
        - A folder that `SpatialTransform.save` wrote.
    inverse
        The inverse of every warp of ``source``, in the same order: ``sub_1InverseWarp.nii.gz``, or
        ``from-MNI152NLin2009cAsym_to-T1w_mode-image_xfm.h5``. None (default): the file of that name next to the
        warp. Matrices need none.

    Returns
    -------
    An `Affine` when all steps are matrices, else a `Warp`.

    Raises
    ------
    GlasError
        A file does not exist or is not a transform, a matrix cannot be inverted, or a warp has no inverse.
    """
    if isinstance(source, SpatialTransform):
        return source
    if isinstance(source, np.ndarray):
        return Affine(source, "the matrix given", certain=False)
    if isinstance(source, str | os.PathLike):
        source = [source]
    if not isinstance(source, Sequence) or not source:
        raise GlasError(f"a transform must be a 4 x 4 array, a path or several paths, got {source!r:.80}")
    if not all(isinstance(item, str | os.PathLike) for item in source):
        return Affine(np.array(source, dtype=object), "the matrix given", certain=False)
    paths = [Path(item) for item in source]
    if len(paths) == 1 and paths[0].is_dir():
        return _from_folder(paths[0])
    inverses = [] if inverse is None else [inverse] if isinstance(inverse, str | os.PathLike) else list(inverse)
    forward = tuple(read_step(path) for path in paths)
    warps = [step.path for step in forward if isinstance(step, Deformation)]
    if inverses and len(inverses) != len(warps):
        raise GlasError(f"inverse must have one file a warp, got {len(inverses)} for {len(warps)} warps")
    given = dict(zip(warps, map(Path, inverses), strict=False))
    backward = tuple(_inverse_of(step, given) for step in reversed(forward))
    transform = _transform_of(forward, backward, ", ".join(path.name for path in paths))
    if isinstance(transform, Affine) and len(paths) == 1 and is_plain_matrix(paths[0]):
        return replace(transform, certain=False)
    return transform


def _transform_of(forward: tuple[Step, ...], inverse: tuple[Step, ...], name: str) -> SpatialTransform:
    if any(isinstance(step, Deformation) for step in (*forward, *inverse)):
        return Warp(forward, inverse, name)
    product = np.eye(4)
    for step in forward:
        assert isinstance(step, np.ndarray)
        product = step @ product
    return Affine(np.linalg.inv(product), name)


def _inverse_of(step: Step, given: dict[Path, Path]) -> Step:
    if not isinstance(step, Deformation):
        return np.linalg.inv(step)
    if step.path in given:
        return read_step(given[step.path])
    path = _path_of_inverse(step.path)
    if path is None or not path.is_file():
        example = f", such as {path.name}" if path is not None else ""
        raise GlasError(f"a warp holds no inverse of its own, give the inverse of {step.path} as inverse={example}")
    return read_step(path)


def _path_of_inverse(path: Path) -> Path | None:
    """Return the name that ANTs and fMRIPrep give to the inverse of a warp."""
    name = path.name
    for warp, inverse in (("1Warp.nii", "1InverseWarp.nii"), ("Composite.h5", "InverseComposite.h5")):
        if warp in name and inverse not in name:
            return path.with_name(name.replace(warp, inverse))
    parts = name.split("_")
    ends = {part.split("-", 1)[0]: number for number, part in enumerate(parts) if part.startswith(("from-", "to-"))}
    if len(ends) < 2:
        return None
    origin, aim = parts[ends["from"]].removeprefix("from-"), parts[ends["to"]].removeprefix("to-")
    parts[ends["from"]], parts[ends["to"]] = f"from-{aim}", f"to-{origin}"
    return path.with_name("_".join(parts))


def _from_folder(folder: Path) -> SpatialTransform:
    try:
        index = read_json_object(folder / _INDEX, "the index of a transform")
        name, settings = str(index["name"]), dict(index["settings"])
        if "matrix" in index:
            return Affine(np.array(index["matrix"]), name, settings)
        forward, inverse = (tuple(folder / str(file) for file in index[key]) for key in (_FORWARD, _INVERSE))
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, GlasError):
            raise
        raise GlasError(f"a folder of a transform must hold {_INDEX} as save wrote it, {folder} does not") from None
    return Warp(tuple(map(read_step, forward)), tuple(map(read_step, inverse)), name, settings)
