"""The picture of docs/method.md: a scan, and what the model is shown of it at the left hippocampus.

`python docs/measure/method_figures.py docs/figures/light-and-shadow.png` draws it in seconds.
"""

import sys

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from glas3d import GLAS
from glas3d.imaging import template
from glas3d.imaging.space import world_to_voxel

POINT_MM = (-25.0, -20.0, -10.0)  # in the left hippocampus
SIGMA_MM = 20.0

scan = template()
volume = np.asarray(scan.dataobj, np.float32)
volume /= np.percentile(volume, 99.8)
point = world_to_voxel(np.array([POINT_MM]), scan.affine)
shown = []


def record(batch):
    """Keep the inputs of the model, which has nothing to say of them."""
    shown.extend(batch.clone())
    return torch.full((len(batch), 2), 0.5)


def inputs_of(image):
    """Return the intact image, the image in the light of the mask, and in its shadow."""
    shown.clear()
    glas = GLAS(record, sigma_light=SIGMA_MM, sigma_shadow=SIGMA_MM, unit="mm", batch_size=1)
    glas.explain(image[None], target=1, search=point, spacing=scan.header.get_zooms()[:3])
    different = []
    for each in shown:
        if not any(torch.equal(each, other) for other in different):
            different.append(each)
    by_sum = sorted(different, key=lambda each: -float(each.sum()))
    intact, *rest = by_sum
    shadow, light = sorted(rest, key=lambda each: float(each[(0, *np.rint(point[0]).astype(int))]))
    return intact[0].numpy(), light[0].numpy(), shadow[0].numpy()


_, mask, _ = inputs_of(np.ones_like(volume))
intact, light, shadow = inputs_of(volume)
panels = {"scan  I": intact, "mask  G": mask, "light  I · G": light, "shadow  I · (1 - G)": shadow}
coronal = round(point[0, 1])
figure, axes = plt.subplots(1, 4, figsize=(10, 2.6), layout="constrained")
for axis, (title, image) in zip(axes, panels.items(), strict=True):
    axis.imshow(image[:, coronal].T, origin="lower", cmap="gray", vmin=0, vmax=1)
    axis.set_title(title, fontsize=11)
    axis.set_axis_off()
    axis.text(0.03, 0.97, "L", color="white", va="top", transform=axis.transAxes)
    axis.text(0.97, 0.97, "R", color="white", va="top", ha="right", transform=axis.transAxes)
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "light-and-shadow.png", dpi=110)
