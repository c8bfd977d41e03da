"""Orientation of images: which side is left, and what maps on an image's own grid take from its header."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage

from glas3d.errors import GlasError, GlasWarning, reason

_SAME_SPACE_MM, _OTHER_SPACE_MM = 2.0, 20.0  # how far apart sform and qform may be without a warning
_ROUNDING = 1e-3  # of a quaternion's length


@dataclass(frozen=True)
class Forms:
    """The sform and the qform of a header, 4x4, and their codes; None where the header holds none that is usable."""

    sform: np.ndarray | None
    sform_code: int
    qform: np.ndarray | None
    qform_code: int


def forms_of(header: nib.Nifti1Header) -> Forms:
    """Return sform and qform of a NIfTI header; a quaternion that is too long by rounding is made a unit quaternion.

    A qform that says nothing usable is returned as None with code 0.
    """
    sform, sform_code = header.get_sform(coded=True)
    try:
        qform, qform_code = header.get_qform(coded=True)
    except Exception:  # nibabel raises several kinds for a quaternion that is too long
        qform, qform_code = _qform_of_rounded(header)
    if qform is not None and not (np.isfinite(qform).all() and abs(np.linalg.det(qform[:3, :3])) > 1e-9):
        qform, qform_code = None, 0
    return Forms(sform, int(sform_code), qform, int(qform_code))


def _qform_of_rounded(header: nib.Nifti1Header) -> tuple[np.ndarray | None, int]:
    """Return qform and code with the quaternion's length brought to 1; None and 0 where more than rounding is wrong."""
    header = header.copy()
    vector = np.array([float(header[f"quatern_{axis}"]) for axis in "bcd"])
    length = float(np.linalg.norm(vector))
    if not 1 <= length <= 1 + _ROUNDING:
        return None, 0
    for axis, value in zip("bcd", vector / length * (1 - 1e-7), strict=True):
        header[f"quatern_{axis}"] = value
    try:
        qform, code = header.get_qform(coded=True)
    except Exception:
        return None, 0
    return qform, int(code)


def check_orientation(image: SpatialImage, name: str, *, stacklevel: int = 2) -> None:
    """Warn where an image's header leaves open which side is left, or contradicts itself. One rule for all formats.

    Warns
    -----
    GlasWarning
        The header does not say which side is left (Analyze, NIfTI without codes, MGH without a valid orientation), its
        sform and qform say so differently or put the voxels elsewhere, or its qform is unusable.
    """
    message = _problem(image, name)
    if message:
        warnings.warn(message, GlasWarning, stacklevel=stacklevel + 1)


def _problem(image: SpatialImage, name: str) -> str | None:
    header = image.header
    if not isinstance(header, nib.Nifti1Header):
        if isinstance(header, nib.AnalyzeHeader) and not _has_mat(image):
            return f"{name} is an Analyze image, whose header does not say which side of it is left: check the maps"
        if isinstance(header, nib.freesurfer.mghformat.MGHHeader) and not int(header["goodRASFlag"]):
            return f"{name} holds no valid orientation: nothing says which side of it is left"
        return None
    if not (header["sform_code"] or header["qform_code"]):
        return f"{name} has neither sform nor qform: nothing says which side of it is left"
    forms = forms_of(header)
    if header["qform_code"] and forms.qform is None:
        return f"{name} has a qform that is no rotation: it is ignored, and left and right are those of the sform"
    if not forms.sform_code or not forms.qform_code or forms.sform is None or forms.qform is None:
        return None
    if np.linalg.det(forms.sform[:3, :3]) * np.linalg.det(forms.qform[:3, :3]) < 0:
        return f"sform and qform of {name} disagree on which side of it is left: that of the sform is taken"
    apart = _distance(forms.sform, forms.qform, image.shape)
    allowed = _SAME_SPACE_MM if forms.sform_code == forms.qform_code else _OTHER_SPACE_MM
    if apart > allowed:
        return f"sform and qform of {name} put its voxels up to {apart:z.0f} mm apart: the sform is taken"
    return None


def _has_mat(image: SpatialImage) -> bool:
    """Return whether an Analyze image comes with SPM's ``.mat`` file, which states its orientation."""
    part: Any = image.file_map.get("mat")
    return part is not None and part.filename is not None and Path(part.filename).is_file()


def _distance(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return the largest distance in mm between the corners of a volume by one affine and by another."""
    corners = np.array(list(itertools.product(*((0, n - 1) for n in shape[:3]))))
    moved = nib.affines.apply_affine(one, corners) - nib.affines.apply_affine(other, corners)
    return float(np.linalg.norm(moved, axis=1).max())


def empty_map(image: SpatialImage, affine: np.ndarray, shape: tuple[int, ...], name: str) -> nib.Nifti1Image:
    """Return an empty float32 map on an image's grid: its affine, and its sform and qform with their codes.

    Its voxels take no memory.

    Raises
    ------
    GlasError
        NIfTI-1 cannot hold such a map.
    """
    try:
        img = nib.Nifti1Image(np.broadcast_to(np.float32(0), shape), affine)
        header = image.header
        if isinstance(header, nib.Nifti1Header):  # NIfTI-2 and pairs too
            forms = forms_of(header)
            zooms = np.array(header.get_zooms()[:3], dtype=np.float64)
            if np.isfinite(zooms).all() and (zooms > 0).all():
                img.header.set_zooms(zooms)
            img.set_sform(forms.sform, forms.sform_code, update_affine=False)
            img.set_qform(forms.qform, forms.qform_code, update_affine=True)
        img.header.set_xyzt_units("mm")
        img.header.structarr.tobytes()
    except Exception as error:  # nibabel raises several kinds
        raise GlasError(f"maps on the grid of {name} must fit into NIfTI files, they do not: {reason(error)}") from None
    return img
