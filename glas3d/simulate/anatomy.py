"""The template brain that participants are made from: its T1 intensities, tissues and extent on the MNI grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import nibabel as nib
import numpy as np
from sklearn.mixture import GaussianMixture

from glas3d.errors import GlasError
from glas3d.imaging.mask import MORE_THAN_A_BRAIN, share_outside_brain
from glas3d.imaging.scan import Scan, load_scan
from glas3d.imaging.space import check_space, mni_grid, resample, resample_scan, template, template_on
from glas3d.predict.intensity import intensity_scale
from glas3d.simulate.simulation import COLIN27, ICBM152

COLIN27_PATH = Path("/usr/share/mricron/templates/ch2bet.nii.gz")

_EMPTY = 0.05  # T1 intensity, in the template's units, up to which a voxel holds no brain


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A template brain on an MNI grid.

    Attributes
    ----------
    t1
        ``(x, y, z)`` T1 intensities; that of white matter is about 0.85 and that of fluid about 0.25.
    grey, white, brain
        ``(x, y, z)`` shares of grey matter, white matter and brain in each voxel.
    """

    t1: np.ndarray
    grey: np.ndarray
    white: np.ndarray
    brain: np.ndarray


@lru_cache(maxsize=4)
def anatomy(name: str, resolution: float) -> Anatomy:
    """Return a template brain on the MNI grid.

    Parameters
    ----------
    name
        ``"ICBM152"``, with the tissues that come with it; ``"Colin27"`` or the path of a T1w scan of a brain without
        skull in MNI space, whose tissues are classified by their intensities (see `_classified`).
    resolution
        Voxel size in mm.

    Raises
    ------
    GlasError
        The file does not exist, or is no brain without skull in MNI space.
    """
    if name == ICBM152:
        t1 = template()
        brain = resample(_like(t1, np.asarray(t1.dataobj) > _EMPTY), mni_grid(resolution))
        return Anatomy(template_on(resolution), template_on(resolution, "gm"), template_on(resolution, "wm"), brain)
    maps = _classified(_template_scan(name))
    images = [nib.Nifti1Image(values, mni_grid(1).affine) for values in (maps.t1, maps.grey, maps.white, maps.brain)]
    return Anatomy(*(resample(image, mni_grid(resolution)) for image in images))


def _template_scan(name: str) -> Scan:
    """Return a template's scan after a check that it can be one."""
    path = COLIN27_PATH if name == COLIN27 else Path(name)
    if name == COLIN27 and not path.is_file():
        raise GlasError(
            f"the template Colin27 must be at {path}, where Debian's package mricron-data puts it (apt install "
            "mricron-data); it is not there"
        )
    scan = load_scan(path)
    problem = check_space(scan).problem
    if problem is None and share_outside_brain(resample_scan(scan, mni_grid(1)), mni_grid(1)) > MORE_THAN_A_BRAIN:
        problem = "it holds more than a brain"
    if problem is not None:
        raise GlasError(
            f"a template must be a T1w scan of a brain without skull in MNI space, {path} is not: {problem}"
        )
    return scan


def _classified(scan: Scan) -> Anatomy:
    """Return a template at 1 mm, its tissues by a mixture of three normal distributions of its intensities.

    The mixture (scikit-learn's) is fitted to the brain's voxels; the share of a tissue is the posterior probability of
    its class. Intensities are scaled to the brightness of the ICBM152 template.
    """
    values = np.maximum(resample_scan(scan, mni_grid(1)), 0)
    brain = values > _EMPTY * np.percentile(values[values > 0], 99)
    inside = values[brain].astype(np.float64)[:, None]
    mixture = GaussianMixture(3, means_init=np.percentile(inside, [10, 45, 85])[:, None], random_state=0)
    mixture.fit(inside[::37])
    posteriors = mixture.predict_proba(inside)
    _, grey, white = np.argsort(mixture.means_[:, 0])
    shares = np.zeros((2, *values.shape), np.float32)
    shares[:, brain] = posteriors[:, [grey, white]].T
    brightness = intensity_scale(np.asarray(template().dataobj)) / intensity_scale(values)
    return Anatomy(values * np.float32(brightness), shares[0], shares[1], brain.astype(np.float32))


def _like(img: nib.Nifti1Image, values: np.ndarray) -> nib.Nifti1Image:
    return nib.Nifti1Image(values.astype(np.float32), img.affine)
