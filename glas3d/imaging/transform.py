"""There and back: between a participant's native space and the template's."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from glas3d.errors import GlasError
from glas3d.hashing import file_sha256
from glas3d.imaging.itk import Step, carry, check_matrix, field_grids, map_points, read_step, write_matrix
from glas3d.imaging.scan import Scan
from glas3d.imaging.space import SpaceCheck, VoxelGrid, check_space, grid_of, mni_grid, resample, template_on, world
from glas3d.output import write_json, write_together

Interpolation = Literal["linear", "nearest"]
FilePath = str | os.PathLike[str]

_INDEX = "transform.json"
_FORTH, _BACK = "from-native_to-template", "from-template_to-native"


class Transform(ABC):
    """Brings a scan from its native space onto the template, and what is found there home.

    Attributes
    ----------
    name
        What messages and sidecars call it.
    made
        How it was found, for the sidecar: the settings of a registration.
    """

    name: str
    made: Mapping[str, Any]

    def to_template(self, scan: Scan, grid: VoxelGrid) -> Scan:
        """The scan on a grid of the template, smoothed first where the grid is coarser (see `resample`).

        Parameters
        ----------
        grid
            In the template's world, such as `mni_grid`.

        Returns
        -------
        A `Scan` of ``grid.shape``; 0 outside the scan's field of view. Its image, name and hash stay the scan's.
        """
        return replace(scan, data=self._carried(scan.data, scan.affine, grid, "linear", home=False), affine=grid.affine)

    def home(self, img: SpatialImage, scan: Scan, interpolation: Interpolation = "linear") -> np.ndarray:
        """An image in the template's space on the scan's own grid.

        Parameters
        ----------
        img
            A map, or labels, for which ``interpolation`` is ``"nearest"``.

        Returns
        -------
        ``scan.shape``, in the types `resample` gives.
        """
        return self._carried(np.asarray(img.dataobj), img.affine, grid_of(scan), interpolation, home=True)

    def check(self, scan: Scan) -> SpaceCheck:
        """How far the moved scan looks like a brain in MNI space: the transform of another scan shows here."""
        found = check_space(self.to_template(scan, mni_grid(2)))
        ones = np.ones(scan.shape, np.int32)
        seen = self._carried(ones, scan.affine, mni_grid(4), "nearest", home=False)
        return replace(found, coverage=float(seen[template_on(4) > 0.1].mean()))

    def save(self, folder: FilePath) -> list[Path]:
        """Write it as files ITK can read, and the order they come in; `load_transform` takes the folder.

        Returns
        -------
        The paths written.
        """
        index, files = self._files()
        return write_together(Path(folder), {**files, _INDEX: write_json(index)})

    @abstractmethod
    def points_to_template(self, points: np.ndarray) -> np.ndarray:
        """Points ``(m, 3)`` of the native world to the template's, both in RAS+ mm."""

    @abstractmethod
    def points_home(self, points: np.ndarray) -> np.ndarray:
        """Points ``(m, 3)`` of the template's world to the native one, both in RAS+ mm."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Matrices, names and hashes of files, and how it was made, for the sidecar."""

    @abstractmethod
    def _carried(
        self, data: np.ndarray, affine: np.ndarray, grid: VoxelGrid, interpolation: Interpolation, *, home: bool
    ) -> np.ndarray:
        """A volume on a grid of the other space."""

    @abstractmethod
    def _files(self) -> tuple[dict[str, Any], dict[str, Callable[[Path], object]]]:
        """What to read in which order, and what writes it."""


@dataclass(frozen=True, eq=False, repr=False)
class Affine(Transform):
    """A matrix: the volume stays as it is, its affine moves, and one interpolation does.

    Attributes
    ----------
    matrix
        4x4, native world to template world, both RAS+ in mm.

    Examples
    --------
    >>> Affine(np.diag([1.0, 1.0, 1.0, 1.0]), "identity").points_home(np.array([[-24.0, -20.0, -14.0]]))
    array([[-24., -20., -14.]])
    """

    matrix: np.ndarray
    name: str = "the matrix"
    made: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", check_matrix(self.matrix, self.name))

    def __repr__(self) -> str:
        return f"Affine({self.name})"

    def points_to_template(self, points: np.ndarray) -> np.ndarray:
        """See `Transform`."""
        return world(points, self.matrix)

    def points_home(self, points: np.ndarray) -> np.ndarray:
        """See `Transform`."""
        return world(points, np.linalg.inv(self.matrix))

    def record(self) -> dict[str, Any]:
        """See `Transform`."""
        return {"name": Path(self.name).name, "matrix": self.matrix.tolist(), **self.made}

    def _carried(
        self, data: np.ndarray, affine: np.ndarray, grid: VoxelGrid, interpolation: Interpolation, *, home: bool
    ) -> np.ndarray:
        matrix = np.linalg.inv(self.matrix) if home else self.matrix
        return resample(nib.Nifti1Image(data, matrix @ affine), grid, interpolation)

    def _files(self) -> tuple[dict[str, Any], dict[str, Callable[[Path], object]]]:
        name, step = f"{_FORTH}_0.txt", np.linalg.inv(self.matrix)
        index = {"name": self.name, "made": dict(self.made), "matrix": self.matrix.tolist(), _FORTH: [name]}
        return index, {name: lambda path: write_matrix(step, path)}


@dataclass(frozen=True, eq=False, repr=False)
class Warp(Transform):
    """Matrices and displacement fields, in the order of ``antsApplyTransforms``.

    Attributes
    ----------
    forth
        What brings a native image onto the template: maps points of the template to native ones.
    back
        The other way.

    Raises
    ------
    GlasError
        A field that holds too little of the brain, or ways there and back that do not undo each other.
    """

    forth: tuple[Step, ...]
    back: tuple[Step, ...]
    name: str = "the warp"
    made: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        brain = world(np.argwhere(template_on(4) > 0.1)[::7], mni_grid(4).affine)
        native = map_points(brain, self.forth)
        for steps, ends in ((self.forth, (brain, native)), (self.back, (native, brain))):
            for path in (step for step in steps if isinstance(step, Path)):
                share = max(_covered(grid, end) for grid in field_grids(path) for end in ends)
                if share < 0.75:
                    raise GlasError(f"a warp must cover the brain (75% needed), the field of {path} covers {share:.0%}")
        missed = float(np.median(np.linalg.norm(map_points(native, self.back) - brain, axis=1)))
        if not missed <= 2:
            raise GlasError(
                f"a warp and its inverse must undo each other (2 mm allowed), there and back {self.name} "
                f"misses by {missed:.1f} mm"
            )

    def __repr__(self) -> str:
        return f"Warp({self.name})"

    def points_to_template(self, points: np.ndarray) -> np.ndarray:
        """See `Transform`."""
        return map_points(points, self.back)

    def points_home(self, points: np.ndarray) -> np.ndarray:
        """See `Transform`."""
        return map_points(points, self.forth)

    def record(self) -> dict[str, Any]:
        """See `Transform`."""

        def said(step: Step) -> Any:
            if isinstance(step, Path):
                return {"name": step.name, "sha256": file_sha256(step)}
            return {"matrix": step.tolist()}

        return {
            "name": Path(self.name).name,
            _FORTH: [said(step) for step in self.forth],
            _BACK: [said(step) for step in self.back],
            **self.made,
        }

    def _carried(
        self, data: np.ndarray, affine: np.ndarray, grid: VoxelGrid, interpolation: Interpolation, *, home: bool
    ) -> np.ndarray:
        steps = self.back if home else self.forth
        if interpolation == "nearest":
            kind = np.int32 if data.dtype.kind in "iub" and data.dtype.itemsize != 2 else data.dtype  # as resample
            values = np.unique(np.append(data, 0)).astype(kind)
            air = int(np.searchsorted(values, 0))
            # by their number in the row: ANTs takes float32, which joins labels above 2^24
            codes = carry(np.searchsorted(values, data) - air, affine, grid, steps, "nearestNeighbor")
            return np.asarray(values[np.rint(codes).astype(int) + air])
        finer = _finer(grid, min(nib.affines.voxel_sizes(affine)))
        moved = carry(data, affine, finer, steps, "linear")
        return resample(nib.Nifti1Image(moved, finer.affine), grid)

    def _files(self) -> tuple[dict[str, Any], dict[str, Callable[[Path], object]]]:
        files: dict[str, Callable[[Path], object]] = {}
        index: dict[str, Any] = {"name": self.name, "made": dict(self.made)}
        for way, steps in ((_FORTH, self.forth), (_BACK, self.back)):
            index[way] = []
            for number, step in enumerate(steps):
                name = f"{way}_{number}{_suffix(step)}"
                files[name] = _writer(step)
                index[way].append(name)
        return index, files


def _suffix(step: Step) -> str:
    if not isinstance(step, Path):
        return ".txt"
    return ".nii.gz" if step.name.endswith(".nii.gz") else step.suffix


def _writer(step: Step) -> Callable[[Path], object]:
    if isinstance(step, Path):
        content = step.read_bytes()  # now: the folder written to may be its own
        return lambda path: path.write_bytes(content)
    return lambda path: write_matrix(step, path)


def _covered(grid: VoxelGrid, points: np.ndarray) -> float:
    """The share of points in a grid's field of view."""
    index = world(points, np.linalg.inv(grid.affine))
    return float(((index >= -0.5) & (index <= np.array(grid.shape) - 0.5)).all(axis=1).mean())


def _finer(grid: VoxelGrid, spacing: float) -> VoxelGrid:
    """The grid with its voxels divided to about ``spacing``, or 1 mm."""
    parts = np.rint(np.array(grid.spacing) / max(spacing, 1.0)).astype(int).clip(1)
    inner = nib.affines.from_matvec(np.diag(1 / parts), 0.5 / parts - 0.5)
    return VoxelGrid(tuple(int(n) for n in np.array(grid.shape) * parts), grid.affine @ inner)


def load_transform(
    source: np.ndarray | FilePath | Sequence[FilePath] | Transform,
    inverse: FilePath | Sequence[FilePath] | None = None,
) -> Transform:
    """A transform between a scan's native space and the template.

    Parameters
    ----------
    source
        - A 4x4 array, or a text file of one: native world to template world, both RAS+ in mm (not FSL's, whose
          matrices are between voxels).
        - An ITK or ANTs file, or a sequence of them in the order of ``antsApplyTransforms``: what brings the native
          image onto the template, such as ``[sub_1Warp.nii.gz, sub_0GenericAffine.mat]`` of ``antsRegistration``
          with the template fixed, or fMRIPrep's ``from-T1w_to-MNI152NLin2009cAsym_mode-image_xfm.h5``.
        - A folder that `Transform.save` wrote.
    inverse
        The way home of every warp of ``source``, in the same order: ``sub_1InverseWarp.nii.gz``, or
        ``from-MNI152NLin2009cAsym_to-T1w_mode-image_xfm.h5``. None: the file of that name beside the warp.
        Matrices need none.

    Returns
    -------
    An `Affine` when all is matrices, else a `Warp`.

    Raises
    ------
    GlasError
        A file that is not there or not a transform, a matrix that cannot be inverted, or a warp without a way home.
    """
    if isinstance(source, Transform):
        return source
    if isinstance(source, np.ndarray):
        return Affine(source, "the matrix given")
    if isinstance(source, str | os.PathLike):
        source = [source]
    if not isinstance(source, Sequence) or not source:
        raise GlasError(f"a transform must be a 4 x 4 array, a path or several paths, got {source!r:.80}")
    if not all(isinstance(one, str | os.PathLike) for one in source):
        return Affine(np.array(source, dtype=object), "the matrix given")
    paths = [Path(one) for one in source]
    if len(paths) == 1 and paths[0].is_dir():
        return _from_folder(paths[0])
    ways = [] if inverse is None else [inverse] if isinstance(inverse, str | os.PathLike) else list(inverse)
    forth = tuple(read_step(path) for path in paths)
    warps = [step for step in forth if isinstance(step, Path)]
    if ways and len(ways) != len(warps):
        raise GlasError(f"inverse must have one file a warp, got {len(ways)} for {len(warps)} warps")
    given = dict(zip(warps, map(Path, ways), strict=False))
    back = tuple(_way_back(step, given) for step in reversed(forth))
    return _of(forth, back, ", ".join(map(str, paths)))


def _of(forth: tuple[Step, ...], back: tuple[Step, ...], name: str) -> Transform:
    if any(isinstance(step, Path) for step in (*forth, *back)):
        return Warp(forth, back, name)
    whole = np.eye(4)
    for step in forth:
        assert isinstance(step, np.ndarray)
        whole = step @ whole
    return Affine(np.linalg.inv(whole), name)


def _way_back(step: Step, given: dict[Path, Path]) -> Step:
    if not isinstance(step, Path):
        return np.linalg.inv(step)
    if step in given:
        return read_step(given[step])
    beside = _beside(step)
    if beside is None or not beside.is_file():
        such = f", such as {beside.name}" if beside is not None else ""
        raise GlasError(f"a warp has no way home of its own, give the inverse of {step} as inverse={such}")
    return read_step(beside)


def _beside(path: Path) -> Path | None:
    """What ANTs and fMRIPrep call the inverse of a warp."""
    name = path.name
    for one, other in (("1Warp.nii", "1InverseWarp.nii"), ("Composite.h5", "InverseComposite.h5")):
        if one in name and other not in name:
            return path.with_name(name.replace(one, other))
    parts = name.split("_")
    ends = {part.split("-", 1)[0]: number for number, part in enumerate(parts) if part.startswith(("from-", "to-"))}
    if len(ends) < 2:
        return None
    origin, aim = parts[ends["from"]].removeprefix("from-"), parts[ends["to"]].removeprefix("to-")
    parts[ends["from"]], parts[ends["to"]] = f"from-{aim}", f"to-{origin}"
    return path.with_name("_".join(parts))


def _from_folder(folder: Path) -> Transform:
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        name, made = str(index["name"]), dict(index["made"])
        if "matrix" in index:
            return Affine(np.array(index["matrix"]), name, made)
        forth, back = (tuple(folder / str(one) for one in index[way]) for way in (_FORTH, _BACK))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, GlasError):
            raise
        raise GlasError(f"a folder of a transform must hold {_INDEX} as save wrote it, {folder} does not") from None
    return Warp(tuple(map(read_step, forth)), tuple(map(read_step, back)), name, made)
