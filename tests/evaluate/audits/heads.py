"""A head on an anisotropic part of the MNI grid, and models that read one thing of it by known weights."""

import nibabel as nib
import numpy as np
import torch

from glas3d import Atlas, Predictor
from glas3d.imaging.space import VoxelGrid, resample, template
from glas3d.predict import ModelInfo

CLASSES = ("NC", "AD")
GRID = VoxelGrid((23, 36, 20), np.array([[8.0, 0, 0, -88], [0, 6, 0, -122], [0, 0, 9, -72], [0, 0, 0, 1]]))
HEALTHY = (resample(template(), GRID) * 1000).astype(np.float32)
BLOB = np.array([20, 5, 16])  # a voxel outside the brain


def segments():
    return Atlas.load("AAL").segments(GRID)


def region(*names):
    """Return the voxels of regions, ``GRID.shape`` bool."""
    table = Atlas.load("AAL").table
    return np.isin(segments().labels, table.loc[table["name"].isin(names), "index"])


def blob(size_mm=10.0):
    """Return a bright blob outside the brain."""
    distance = ((np.indices(GRID.shape) - BLOB.reshape(3, 1, 1, 1)) * np.reshape(GRID.spacing, (3, 1, 1, 1))) ** 2
    return np.exp(-distance.sum(axis=0) / (2 * size_mm**2)).astype(np.float32)


def patient(*names, loss=0.4):
    """Return the healthy head with less intensity in some regions."""
    return np.where(region(*names), HEALTHY * np.float32(1 - loss), HEALTHY)


def reader(weights, scale=1.0, reference=HEALTHY, grid=GRID, name="reader"):
    """Return a model whose log-odds of AD are linear: ``scale`` for each unit of ``sum(weights * (x - reference))``."""
    fixed = torch.as_tensor(weights, dtype=torch.float64)
    offset = float((fixed * torch.as_tensor(reference)).sum())

    def logits(batch):
        z = scale * ((batch[:, 0].double() * fixed).sum(dim=(1, 2, 3)) - offset)
        return torch.stack([torch.zeros_like(z), z], dim=1)

    info = ModelInfo(name=name, grid=grid, channels=1, reference=reference[None])
    return Predictor(logits, "softmax", classes=CLASSES, device="cpu", info=info)


def img(volume, grid=GRID):
    return nib.Nifti1Image(volume.astype(np.float32), grid.affine)


def made(kind):
    """Return the scan and the model of a kind, by which the log-odds of the scan are 5."""
    scan = patient("Hippocampus_L", "Hippocampus_R", "Temporal_Inf_L")
    if kind == "regions":
        weights = -region("Hippocampus_L", "Hippocampus_R", "Temporal_Inf_L").astype(float)
    elif kind == "blob":
        scan, weights = np.maximum(scan, 1000 * blob()), blob()
    elif kind == "brightness":
        scan, weights = scan * np.float32(1.15), np.ones(GRID.shape)
    difference = float((weights * (scan.astype(np.float64) - HEALTHY)).sum())
    return scan, weights, reader(weights, 5 / difference, name=f"reader of {kind}")
