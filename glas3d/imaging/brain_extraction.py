"""The brain of a T1-weighted scan with its skull, extracted by deepbet."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import warnings
from typing import Any

import nibabel as nib
import numpy as np

from glas3d.errors import GlasError, reason
from glas3d.hashing import arrays_sha256
from glas3d.imaging.scan import Scan

_BRAIN_ML = (500.0, 2500.0)  # of any adult's, with ventricles; that of something else is smaller or larger


def is_automatic(brain_mask: Any) -> bool:
    """Return whether a brain mask is to be made: ``"auto"``, which the command line gives as a path."""
    return isinstance(brain_mask, str | os.PathLike) and os.fspath(brain_mask) == "auto"


def brain_mask_of(scan: Scan) -> tuple[Scan, dict[str, Any]]:
    """Find the brain of a scan by deepbet (Fisch et al. 2024, doi:10.1016/j.compbiomed.2024.108845), on the CPU.

    Its networks, for T1-weighted scans of adults, come with its package; nothing is downloaded.

    Parameters
    ----------
    scan
        A T1-weighted scan in any orientation.

    Returns
    -------
    A mask of 0 and 1 on the scan's own grid, and the record of it for the sidecar: name and version of the library, and
    the hash of the mask.

    Raises
    ------
    GlasError
        deepbet is not installed, fails, or finds nothing of a brain's size.
    """
    try:
        deepbet: Any = importlib.import_module("deepbet")
    except ImportError:
        raise GlasError('an automatic brain mask needs deepbet: pip install "glas3d[brain-mask]"') from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library, about versions of torch
            extraction = deepbet.BrainExtraction(no_gpu=True)
            img = nib.Nifti1Image(scan.data, scan.affine)
            extracted = np.asarray(extraction.run(img)[1].dataobj)
    except Exception as error:  # its networks and its assertions can raise anything
        raise GlasError(f"deepbet finds no brain in {scan.name}: {reason(error)}; give a mask of it") from None
    data = (extracted > 0).astype(np.float32)
    volume = float(data.sum()) * abs(float(np.linalg.det(scan.affine[:3, :3]))) / 1000
    if data.shape != scan.shape or not _BRAIN_ML[0] <= volume <= _BRAIN_ML[1]:
        raise GlasError(
            f"deepbet finds no brain in {scan.name}: what it finds has {volume:z.0f} ml, and a brain has "
            f"{_BRAIN_ML[0]:z.0f} to {_BRAIN_ML[1]:z.0f}; give a mask of it"
        )
    digest = arrays_sha256(data, scan.affine)
    mask_img = nib.Nifti1Image(data, scan.affine)
    mask = Scan(data, scan.affine, mask_img, f"the brain mask of {scan.name}", digest)
    return mask, {"name": "deepbet", "version": importlib.metadata.version("deepbet"), "sha256": digest}
