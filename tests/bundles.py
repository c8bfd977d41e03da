"""A tiny bundle, the paper's network on 8 mm voxels with random weights, and scans to explain with it."""

import nibabel as nib
import numpy as np
import torch
from torch import nn

from glas3d import Predictor
from glas3d.imaging.space import mni_grid, template_on
from glas3d.predict import BundleDescription, PaperNet, Standardisation, write_bundle

GRID = mni_grid(8)
CLASSES = ("NC", "AD")
PRESET = {"sigma_light": 24.0, "sigma_shadow": 36.0, "unit": "mm"}
NETWORK = {"_target_": "glas3d.predict.networks.PaperNet", "shape": list(GRID.shape), "batch_norm": True}


def network(seed=3, shape=GRID.shape, classes=2):
    """Random weights large enough that the output depends on the scan, and statistics unlike a new network's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = PaperNet(shape, classes=classes, batch_norm=True)
        for module in net.modules():
            if isinstance(module, nn.Conv3d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm3d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(1.0, 2.0)
    return net.eval()


def t1(mm=8):
    """Return the template, in a scanner's units."""
    img = nib.Nifti1Image(template_on(mm) * np.float32(500), mni_grid(mm).affine)
    img.set_sform(img.affine, code=4)
    img.set_qform(img.affine, code=4)
    return img


def scan(seed=0):
    """Return ``(1, *GRID.shape)``: the template with noise that depends on the seed."""
    noise = np.random.default_rng(seed).normal(0, 20, GRID.shape)
    return torch.as_tensor(np.asarray(t1().dataobj) + np.where(template_on(8) > 0.05, noise, 0), dtype=torch.float32)[
        None
    ]


def write(folder, net=None, **changed):
    """Write the tiny bundle; return its folder."""
    reference = np.array(template_on(8))[None]
    std = np.random.default_rng(0).uniform(0.1, 0.3, reference.shape).astype(np.float32)
    description = {
        "name": "tiny",
        "description": "Random weights, for tests",
        "version": "0.0.1",
        "classes": CLASSES,
        "grid": GRID,
        "standardisation": Standardisation(torch.as_tensor(reference * np.float32(0.9)), torch.as_tensor(std)),
        "reference": reference,
        "preset": PRESET,
        "card": "# tiny\n",
    }
    write_bundle(folder, net or network(), NETWORK, BundleDescription(**description | changed))
    return folder


def probabilities(predict, volume):
    """Return the probabilities of one scan."""
    return predict.fit(volume)(volume[None])[0]


def factory():
    """Return a predictor, as the model ``tests.bundles:factory``."""
    return Predictor(network(), "softmax", classes=CLASSES, device="cpu")


def no_predictor():
    """Return something else than a predictor."""
    return network()


NOT_CALLABLE = 3


def constant():
    """Return a model whose probabilities are always the same."""
    return Predictor(lambda batch: torch.tensor([[0.25, 0.75]]).expand(len(batch), 2), "none", device="cpu")
