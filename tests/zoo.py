"""Bundles as the model zoo of MONAI has them, with a small network, and what MONAI makes of them."""

import json
import warnings

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import DenseNet
from safetensors.torch import save_file

SHAPE = (19, 21, 23)
# Unequal voxels; the axes are left, superior, anterior.
AFFINE = np.array([[-2.0, 0, 0, 18], [0, 0, 2.2, -30], [0, 1.8, 0, -12], [0, 0, 0, 1]])
NETWORK = {
    "_target_": "DenseNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "init_features": 4,
    "growth_rate": 2,
    "block_config": [1],
    "bn_size": 1,
}
READING = [
    {"_target_": "LoadImaged", "keys": "@image_key", "image_only": False},
    {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
]
SOFTMAX = {"_target_": "Compose", "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}]}


def network(seed=5):
    """Return the network of `NETWORK` with weights large enough that its output depends on the scan."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = DenseNet(**{name: value for name, value in NETWORK.items() if name != "_target_"})
        with torch.no_grad():
            net.class_layers.out.weight *= 4
    return net.eval()


def step(target, **arguments):
    """Return a transform of the image as a configuration has it."""
    return {"_target_": target, "keys": "@image_key", **arguments}


def write(folder, transforms=None, *, file="inference.json", metadata=None, weights=True, **content):
    """Write a bundle that preprocesses by ``transforms`` after reading; return its folder.

    Further keywords are entries of its configuration.
    """
    for part in ("configs", "models"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    image = {"type": "image", "num_channels": 1, "spatial_shape": ["16*n"] * 3}
    formats = {"inputs": {"image": image}, "outputs": {"pred": {"num_channels": 2}}}
    stated = {"name": "zoo", "version": "0.1.0", "network_data_format": formats} | (metadata or {})
    (folder / "configs" / "metadata.json").write_text(json.dumps(stated))
    config = {
        "imports": ["$import os"],
        "bundle_root": ".",
        "image_key": "image",
        "device": "$torch.device('cpu')",
        "network_def": NETWORK,
        "network": "$@network_def.to(@device)",
    }
    if transforms is not None:
        config["preprocessing"] = {"_target_": "Compose", "transforms": [*READING, *transforms]}
    config |= content
    (folder / "configs" / file).write_text(json.dumps(config))
    if weights:
        save_file(network().state_dict(), folder / "models" / "model.safetensors")
    return folder


def scan(path, seed=0):
    """Write a scan with air of exactly 0 and unequal axes; return its path."""
    rng = np.random.default_rng(seed)
    data = rng.gamma(2.0, 200.0, SHAPE).astype(np.float32)
    data[:4] = data[:, :, :3] = 0
    data[5:9, 6:12, 8:14] *= 2
    img = nib.Nifti1Image(data, AFFINE)
    img.set_sform(AFFINE, 4)
    img.set_qform(AFFINE, 4)
    nib.save(img, path)
    return path


def preprocessed(bundle, path, key="preprocessing", file="inference.json"):
    """Return what MONAI itself makes of a scan by the bundle's configuration, ``(1, *spatial)``."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / file))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's, about its own code
        output = parser.get_parsed_content(key)({"image": str(path)})["image"]
    return torch.as_tensor(output).as_subclass(torch.Tensor)


def probabilities(volume):
    """Return the probabilities of the network for a preprocessed volume ``(1, *spatial)``."""
    with torch.no_grad():
        return network()(torch.as_tensor(volume, dtype=torch.float32)[None]).softmax(1)[0].double().numpy()
