"""Registration of scans in native space to the template, by ANTs."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.eulerangles import euler2mat
from scipy.ndimage import binary_fill_holes

from glas3d.errors import GlasError
from glas3d.imaging.itk import import_simpleitk, read_step, write_matrix
from glas3d.imaging.mask import bright_voxels, mask_on
from glas3d.imaging.scan import ImageLike, Scan, load_scan
from glas3d.imaging.space import VoxelGrid, grid_of, mni_grid, resample_scan, template_on, voxel_to_world
from glas3d.imaging.spatial_transform import Affine, SpatialTransform, Warp

RegistrationKind = Literal["affine", "SyN"]

_MM = 2.0
# Pitch, roll and yaw in degrees, tried in turn until the scan looks like the template.
_STARTS = ((0, 0, 0), (30, 0, 0), (-30, 0, 0), (0, 0, 30), (0, 0, -30), (0, 30, 0), (0, -30, 0))
_GOOD = 0.7  # correlation; a raw T1 reaches 0.83, a failed registration 0.46
_HEAD, _SCALP = 150.0, 12.0  # mm from the top of the head to the chin's level, and to the brain


def register(
    img: ImageLike | Scan, kind: RegistrationKind = "affine", *, seed: int = 1, threads: int = 1
) -> SpatialTransform:
    """Register a scan to the template.

    A raw scan can be given, with skull and neck: the metric (Mattes mutual information, at 2 mm) is computed inside
    the template's brain only. The search starts upright, with the top of the head on the template's, and then from
    six turns of 30 degrees until the scan looks like the template.

    Parameters
    ----------
    img
        Path, image or `Scan`, in any orientation.
    kind
        ``"affine"`` (default; 12 parameters, seconds), or ``"SyN"``, which also deforms (about half a minute).
    seed, threads
        The same seed with one thread (defaults: 1) gives the same transform to the last bit; more threads are faster
        and agree to some hundredths of a millimetre.

    Returns
    -------
    An `Affine`, or a `Warp` whose temporary files live as long as it does: `SpatialTransform.save` keeps them.

    Raises
    ------
    GlasError
        antspyx is not installed, ANTs failed, or the registered scan does not look like the template.
    """
    if kind not in ("affine", "SyN"):
        raise GlasError(f'kind must be "affine" or "SyN", got {kind!r}')
    if threads < 1 or seed < 1:
        raise GlasError(f"threads and seed must be 1 or more, got {threads} and {seed}")
    _require_antspyx()
    import_simpleitk()
    scan = img if isinstance(img, Scan) else load_scan(img)
    name = f"the registration of {Path(scan.name).name}"
    settings = {"kind": kind, "seed": seed, "threads": threads, "antspyx": importlib.metadata.version("antspyx")}
    with tempfile.TemporaryDirectory(prefix="glas3d-") as folder:
        registration = _Registration(Path(folder), scan, name, settings)
        affine = registration.affine()
        return affine if kind == "affine" else registration.warp(affine)


def _require_antspyx() -> None:
    try:
        importlib.import_module("ants")
    except ImportError:
        raise GlasError('registration needs antspyx: pip install "glas3d[register]"') from None


class _Registration:
    """A folder of images, and the transforms that ANTs finds between them."""

    def __init__(self, folder: Path, scan: Scan, name: str, settings: dict[str, Any]) -> None:
        self._folder, self._scan, self._name, self._settings = folder, scan, name, settings
        self._environment = os.environ | {
            "ANTS_RANDOM_SEED": str(settings["seed"]),
            "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(settings["threads"]),
        }
        grid, box = mni_grid(_MM), _box(scan, _MM)
        self._moving = replace(scan, data=resample_scan(scan, box), affine=box.affine)
        brain = np.asarray(template_brain(_MM).dataobj)
        for file, data, affine in (
            ("fixed", template_on(_MM), grid.affine),
            ("mask", brain, grid.affine),
            ("moving", self._moving.data, box.affine),
        ):
            nib.Nifti1Image(np.asarray(data, np.float32), affine).to_filename(folder / f"{file}.nii")

    def affine(self) -> Affine:
        """Return the best affine transform, searched from each start until one is good enough."""
        best, highest = None, 0.0
        centre, head = _centre_of_brain(), _centre_of_head(self._moving)
        for angles in _STARTS:
            turn = euler2mat(*np.radians(angles)[::-1])
            self._run(
                nib.affines.from_matvec(turn, head - turn @ centre),
                type_of_transform="Affine",
                mask_all_stages=True,
                aff_random_sampling_rate=0.4,
                aff_iterations=(2100, 1200, 200, 0),
            )
            step = read_step(self._folder / "result_0GenericAffine.mat")
            assert isinstance(step, np.ndarray)
            candidate = Affine(np.linalg.inv(step), self._name, self._settings)
            check = candidate.check(self._moving)
            if best is None or check.correlation * check.coverage > highest:
                best, highest, correlation = candidate, check.correlation * check.coverage, check.correlation
            if check.problem is None and check.correlation >= _GOOD:
                break
        assert best is not None
        if correlation < 0.5:
            raise GlasError(
                f"{self._scan.name} could not be registered: it correlates {correlation:z.2f} with the template at "
                "best (0.50 needed); is it a whole head, and does its header say where up is?"
            )
        return best

    def warp(self, affine: Affine) -> Warp:
        """Return a deformation on top of an affine transform."""
        self._run(np.linalg.inv(affine.matrix), type_of_transform="SyNOnly", reg_iterations=(40, 20, 10))
        kept = Path(tempfile.mkdtemp(prefix="glas3d-"))
        try:
            for file in ("1Warp.nii.gz", "1InverseWarp.nii.gz"):
                shutil.move(self._folder / f"result_{file}", kept / file)
            forward = (read_step(kept / "1Warp.nii.gz"), np.linalg.inv(affine.matrix))
            inverse = (affine.matrix, read_step(kept / "1InverseWarp.nii.gz"))
            warp = Warp(forward, inverse, self._name, self._settings)
        except BaseException:
            shutil.rmtree(kept, ignore_errors=True)
            raise
        weakref.finalize(warp, shutil.rmtree, kept, ignore_errors=True)
        return warp

    def _run(self, start: np.ndarray, **settings: Any) -> None:
        """Run ANTs from a matrix, in a process of its own."""
        write_matrix(start, self._folder / "start.txt")
        settings["initial_transform"] = str(self._folder / "start.txt")
        (self._folder / "job.json").write_text(json.dumps(settings), encoding="utf-8")
        command = [sys.executable, "-m", "glas3d.imaging.ants_process", str(self._folder)]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
            raise GlasError(f"{self._scan.name} could not be registered, ANTs says: {lines[-1][:200]}")


def template_brain(resolution: float = 1.0) -> nib.Nifti1Image:
    """Return a mask of the template's brain, ventricles included, on `mni_grid`; uint8."""
    brain = binary_fill_holes(template_on(resolution) > 0.1)
    return nib.Nifti1Image(brain.astype(np.uint8), mni_grid(resolution).affine)


def template_brain_in_native(scan: Scan, transform: SpatialTransform) -> nib.Nifti1Image:
    """Return a mask of a scan's brain: the template's, mapped to native space.

    Returns
    -------
    A uint8 image on the scan's own grid, for use as ``mask_img``.
    """
    brain = template_brain()
    share = transform.to_native(nib.Nifti1Image(np.asarray(brain.dataobj, np.float32), brain.affine), scan)
    return nib.Nifti1Image((share > 0.5).astype(np.uint8), scan.affine)


def without_skull(scan: Scan, mask_img: ImageLike | Scan) -> Scan:
    """Return the scan with 0 outside a mask in the scan's own space."""
    return replace(scan, data=np.where(mask_on(mask_img, grid_of(scan)), scan.data, np.float32(0)))


def _box(scan: Scan, mm: float) -> VoxelGrid:
    """Return an upright grid of ``mm`` that holds a scan."""
    ends = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    corners = voxel_to_world(ends * np.array(scan.shape) - 0.5, scan.affine)
    low, high = corners.min(axis=0), corners.max(axis=0)
    counts = np.ceil((high - low) / mm).astype(int).clip(1)
    affine = nib.affines.from_matvec(np.diag([mm] * 3), (low + high) / 2 - (counts - 1) * mm / 2)
    return VoxelGrid((int(counts[0]), int(counts[1]), int(counts[2])), affine)


@lru_cache(maxsize=1)
def _centre_of_brain() -> np.ndarray:
    """Return the centre of mass of the template's brain, in mm."""
    brain = template_brain(_MM)
    return np.asarray(voxel_to_world(np.argwhere(np.asarray(brain.dataobj)), brain.affine).mean(axis=0))


def _centre_of_head(scan: Scan) -> np.ndarray:
    """Return where the middle of the brain should be, from the top of the head: a neck pulls the centre of mass."""
    head = voxel_to_world(np.argwhere(bright_voxels(scan)), scan.affine)
    top = np.percentile(head[:, 2], 99.8)
    x, y = head[head[:, 2] > top - _HEAD, :2].mean(axis=0)
    brain = template_brain(_MM)
    height = voxel_to_world(np.argwhere(np.asarray(brain.dataobj)), brain.affine)[:, 2].max() - _centre_of_brain()[2]
    return np.array([x, y, top - _SCALP - height])
