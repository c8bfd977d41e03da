"""An explanation of a small scan by a function, of which pages are made."""

import nibabel as nib
import numpy as np
import pytest
import torch

from glas3d import Predictor, explain_img
from glas3d.imaging.space import VoxelGrid, resample, template
from glas3d.report.webpage import content
from glas3d.report.webpage.content import Figure

AFFINE = np.array([[6.0, 0, 0, -87], [0, 6, 0, -123], [0, 0, 6, -69], [0, 0, 0, 1]])
SHAPE = (30, 36, 28)


@pytest.fixture(autouse=True)
def _no_figures(request, monkeypatch):
    """Spare tests the drawing of figures, which takes most of the time; `draws_figures` lets them."""
    if "draws_figures" not in request.fixturenames:
        figure = Figure(b"png", "a figure", "A figure.")
        monkeypatch.setattr(content, "_figure", lambda *_: figure)


@pytest.fixture
def draws_figures():
    """Let a test draw figures."""


@pytest.fixture(scope="session")
def scan_path(tmp_path_factory):
    """Return the path of the template as a participant's scan, on 6 mm voxels and axes of three lengths."""
    img = nib.Nifti1Image(resample(template(), VoxelGrid(SHAPE, AFFINE)) * np.float32(500), AFFINE)
    path = tmp_path_factory.mktemp("source") / "sub-07_T1w.nii.gz"
    nib.save(img, path)
    return path


def brightness_of(labels):
    """Return a model that finds AD where the left hippocampus (37) is bright, and the right amygdala (42) dark."""
    weights = torch.as_tensor((3.0 * (labels == 37) - 2.0 * (labels == 42)) / 500, dtype=torch.float32)

    def model(batch):
        z = (batch[:, 0] * weights).sum(dim=(1, 2, 3)) / 20
        p = torch.sigmoid(z)
        return torch.stack([1 - p, p], dim=1)

    return Predictor(model, activation="none", classes=("NC", "AD"))


@pytest.fixture(scope="session")
def explained(scan_path, few):
    """Return the explanation of the scan, in evidence."""
    predict = brightness_of(few.on(VoxelGrid(SHAPE, AFFINE)))
    sharp = {"sigma_light": 1, "sigma_shadow": 1, "unit": "mm"}  # so that masks are a partition
    return explain_img(scan_path, predict, "AD", few, preset="evidence", background=0, assume_space="MNI", **sharp)
