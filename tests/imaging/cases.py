"""Inputs of the tests of imaging and explain: small images in every pose, heads, and a known model."""

from contextlib import contextmanager
from functools import cache

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from nibabel.eulerangles import euler2mat

from glas3d.errors import GlasError
from glas3d.imaging.space import VoxelGrid, mni_grid, resample, template_on
from glas3d.predict import ModelInfo, Predictor

SHAPE = (7, 8, 9)


def data(shape=SHAPE, seed=0):
    """Return values that all differ, without symmetry."""
    return np.random.default_rng(seed).uniform(1, 100, shape).astype(np.float32)


def affine(axes="RAS", spacing=(2.0, 3.0, 4.0), angles=(0.0, 0.0, 0.0), origin=(-7.0, -12.0, 18.0)):
    """Return an affine whose array axes point to ``axes``, then turned about x, y and z."""
    ornt = nib.orientations.axcodes2ornt(axes)
    directions = np.zeros((3, 3))
    for array_axis, (world_axis, sign) in enumerate(ornt):
        directions[int(world_axis), array_axis] = sign * spacing[array_axis]
    return nib.affines.from_matvec(euler2mat(*angles[::-1]) @ directions, origin)


POSES = {
    "RAS": affine(),
    "LAS": affine("LAS"),
    "PSR": affine("PSR"),
    "oblique": affine(angles=(0.2, -0.3, 0.5)),
    "oblique-LPS": affine("LPS", angles=(-0.4, 0.1, 0.2)),
    "1x1x5": affine(spacing=(1.0, 1.0, 5.0)),
}


def around(pose, shape, grid):
    """Return a pose moved so that a volume of ``shape`` has its middle in the middle of ``grid``."""
    placed, middle = POSES[pose].copy(), [(np.array(n) - 1) / 2 for n in (grid.shape, shape)]
    placed[:3, 3] += nib.affines.apply_affine(grid.affine, middle[0])
    placed[:3, 3] -= nib.affines.apply_affine(POSES[pose], middle[1])
    return placed


def patched(path, **fields):
    """Overwrite fields of an uncompressed NIfTI-1 file's header, unchecked."""
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)
    return path


@contextmanager
def refused(match, name=""):
    """Expect a `GlasError` in one readable line that matches ``match`` and contains ``name``."""
    with pytest.raises(GlasError, match=match) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert str(name) in message
    assert 10 < len(message.replace(str(name), "")) < 250


# Heads. 6 mm is the coarsest round number at which every AAL region owns a voxel.


def head_grid(axes="RAS", mm=6.0, angles=(0.0, 0.0, 0.0)):
    """Return a grid over the whole MNI head, with three unequal axes."""
    low, high = np.array([-90.0, -126.0, -72.0]), np.array([90.0, 90.0, 96.0])
    if any(angles):  # the turned box must hold the head too
        low, high = low - 6, high + 6
    order = nib.orientations.axcodes2ornt(axes)[:, 0].astype(int)
    spacing = np.broadcast_to(np.asarray(mm, dtype=float), 3)
    shape = np.ceil((high - low)[order] / spacing).astype(int) + 1
    placed = affine(axes, spacing, angles, origin=(0, 0, 0))
    placed[:3, 3] = euler2mat(*angles[::-1]) @ ((low + high) / 2) - placed[:3, :3] @ ((shape - 1) / 2)
    assert len(set(shape)) == 3
    return VoxelGrid(tuple(int(n) for n in shape), placed)


@cache
def _head(grid, tissue):
    return resample(nib.Nifti1Image(template_on(2, tissue), mni_grid(2).affine), grid)


def head(grid, scale=700.0, tissue="t1"):
    """Return the template on a grid, in raw units like a scanner's."""
    return nib.Nifti1Image(_head(grid, tissue) * np.float32(scale), grid.affine)


HEADS = {
    "RAS": head_grid(),
    "LAS": head_grid("LAS"),
    "PSR": head_grid("PSR"),
    "oblique": head_grid("RAS", angles=(0.12, -0.1, 0.2)),
    "oblique-LIP": head_grid("LIP", mm=(5.0, 6.0, 7.0), angles=(-0.1, 0.15, 0.1)),
}


def planted(img, mask):
    """A "model" that says 1 when the region ``mask`` is bright: a logistic of its mean intensity."""
    where = torch.as_tensor(np.flatnonzero(mask))
    intact = float(np.asarray(img.dataobj, dtype=np.float64)[np.asarray(mask, dtype=bool)].mean())

    def region(batch):
        p = torch.sigmoid(8 * (batch.flatten(1)[:, where].mean(dim=1) / intact - 0.5))
        return torch.stack([1 - p, p], dim=1)

    return region


def mask_of(atlas, grid, name="Hippocampus_L"):
    return atlas.on(grid) == int(atlas.table.set_index("name").loc[name, "index"])


def seen(img, atlas, name="Hippocampus_L"):
    """Return a model of this scan that depends on one region only."""
    return planted(img, mask_of(atlas, VoxelGrid(img.shape, img.affine), name))


def values(img):
    return np.asarray(img.dataobj)


def with_info(predict, **info):
    classes = info.pop("classes", ("NC", "AD"))
    transform = info.pop("transform", None)
    model = ModelInfo(name="toy", **info)
    return Predictor(predict, activation="none", transform=transform, classes=classes, device="cpu", info=model)


def assert_same(one, other, rtol=1e-5):
    pd.testing.assert_frame_equal(one.table, other.table, rtol=rtol)
    np.testing.assert_allclose(values(one.saliency_img), values(other.saliency_img), rtol=rtol)
