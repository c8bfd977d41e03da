"""
A model of your own: scikit-learn, MONAI bundle, ONNX, or a service
===================================================================

Whatever returns probabilities can be explained, as it is. Here a logistic regression of scikit-learn is trained on
simulated scans and explained in four forms: the estimator itself, a MONAI bundle, an ONNX file, and a service behind HTTP.
All four are the same function, and so all four must give the same map.

Needs ``pip install "glas3d[onnx]"`` for the ONNX file.
"""

# %%
import threading
import urllib.request
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from nilearn.maskers import NiftiMasker
from sklearn.linear_model import LogisticRegression

from glas3d import explain_img, load_model
from glas3d.predict import BundleDescription, Standardisation, from_callable, from_estimator, from_onnx, write_bundle
from glas3d.simulate import Simulation, simulate_participants

OUT = Path("glas3d-examples") / "02_own_model"
OUT.mkdir(parents=True, exist_ok=True)

# %%
# Scanners have no unit of intensity, and a logistic regression does not know that. So every scan is divided by its own mean
# before it is used, in training as later.

simulation = Simulation(participants=60, seed=5, resolution=6)
participants = list(simulate_participants(simulation))
scans = []
for each in participants:
    volume = each.volume / each.volume[each.volume > 0].mean()
    scans.append(nib.Nifti1Image(volume.astype(np.float32), simulation.grid.affine))
groups = [each.group for each in participants]
training, new = slice(0, 48), slice(48, 60)

# %%
# scikit-learn, nilearn
# ---------------------
# The masker makes the features of a scan, and ``from_estimator`` keeps the two together.

mask_img = nib.Nifti1Image(
    (np.mean([scan.get_fdata() for scan in scans], axis=0) > 0.3).astype(np.uint8), scans[0].affine
)
masker = NiftiMasker(mask_img, standardize=None).fit()
estimator = LogisticRegression(C=0.1, max_iter=500).fit(masker.transform(scans[training]), groups[training])
accuracy = estimator.score(masker.transform(scans[new]), groups[new])
print(f"trained on 48 participants; right about {accuracy:.0%} of 12 others")

predictors = {"scikit-learn": from_estimator(estimator, masker)}

# %%
# A MONAI bundle
# --------------
# A folder with a configuration and weights, without code. The regression is a network of one layer, and MONAI has one. The
# bundle also states the class names, the voxel grid of its scans, how they are standardised, and the mean of the training
# controls, which is the reference.

grid, shape = simulation.grid, simulation.grid.shape
controls = [scan.get_fdata() for scan, group in zip(scans[training], groups[training], strict=True) if group == "NC"]
reference = np.mean(controls, axis=0, dtype=np.float32)[None]
weights = masker.inverse_transform(estimator.coef_).get_fdata().reshape(1, -1)
network = {
    "_target_": "monai.networks.nets.FullyConnectedNet",
    "in_channels": int(np.prod(shape)),
    "out_channels": 2,
    "hidden_channels": [],
}
linear = torch.nn.Linear(weights.size, 2)
with torch.no_grad():
    # The classes of the estimator are in the order of the alphabet: AD, then NC, whose log-odds it computes.
    linear.weight.copy_(torch.from_numpy(np.concatenate([np.zeros_like(weights), weights])))
    linear.bias.copy_(torch.tensor([0.0, float(estimator.intercept_[0] + (weights @ reference.ravel())[0])]))
net = torch.nn.Sequential()
net.add_module("flatten", torch.nn.Flatten())
net.add_module("output", linear)

centred = Standardisation(torch.from_numpy(reference), torch.ones(1, *shape), "absolute")
description = BundleDescription(
    name="logistic-regression",
    description="A logistic regression of AD against NC on simulated scans.",
    version="1.0.0",
    classes=list(estimator.classes_),
    grid=grid,
    standardisation=centred,
    reference=reference,
    preset={},
    card="# Trained on simulated disease\n",
    skull_stripped=True,
)
write_bundle(OUT / "bundle", net, network, description)
predictors["MONAI bundle"] = load_model(OUT / "bundle")

# %%
# An ONNX file
# ------------
# A file has no class names, no grid of its scans in mm and no standardisation: all are stated.

warnings.simplefilter("ignore", DeprecationWarning)  # torch has a newer exporter, which needs the package onnxscript
torch.onnx.export(
    net,
    (torch.zeros(1, 1, *shape),),
    OUT / "model.onnx",
    dynamic_axes={"scan": {0: "n"}},
    input_names=["scan"],
    dynamo=False,
)
known = {"classes": estimator.classes_, "grid": grid, "transform": lambda batch: batch - torch.from_numpy(reference)}
predictors["ONNX"] = from_onnx(OUT / "model.onnx", activation="softmax", **known)

# %%
# A service
# ---------
# Any function of batches is a model, also one that calls another computer. ``retries`` repeats a call that failed.


class Service(BaseHTTPRequestHandler):
    """Answers a batch of float32 voxels with the probabilities of its scans."""

    def do_POST(self):
        voxels = self.rfile.read(int(self.headers["Content-Length"]))
        batch = torch.frombuffer(bytearray(voxels), dtype=torch.float32).reshape(-1, 1, *shape)
        with torch.no_grad():
            self.send_response(200)
            self.end_headers()
            self.wfile.write(net(batch).softmax(dim=1).numpy().tobytes())

    def log_message(self, *arguments):
        """Write no line for each request."""


server = HTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()


def remote(batch):
    """Return the probabilities ``(n, 2)`` that the service gives a batch ``(n, 1, x, y, z)``."""
    address = f"http://127.0.0.1:{server.server_port}"
    with urllib.request.urlopen(address, np.ascontiguousarray(batch).tobytes(), timeout=30) as response:
        return np.frombuffer(response.read(), dtype=np.float32).reshape(-1, 2).copy()


predictors["service"] = from_callable(remote, "none", name="service", retries=2, as_numpy=True, **known)

# %%
# Explain a new participant with each
# -----------------------------------
# Only the bundle brings a reference. It is given to all, so that they answer the same question.

scan = scans[48]
reference_img = nib.Nifti1Image(reference[0], scan.affine)
results = {
    name: explain_img(scan, predict, "AD", background=reference_img, preset="evidence")
    for name, predict in predictors.items()
}
server.shutdown()
server.server_close()

first = results["scikit-learn"].table["score"]
print(f"{'':14} {'P(AD)':>6}  largest difference of a score, of a range of {np.ptp(first):.3f}")
for name, result in results.items():
    difference = (result.table["score"] - first).abs().max()
    print(f"{name:14} {result.probability:6.3f}  {difference:.6f}")

# %%
# A model of your own in torch needs none of this: ``Predictor(net, activation="softmax")``.

figure = results["service"].plot("mosaic")
figure.savefig(OUT.parent / "02_own_model.png")
figure
