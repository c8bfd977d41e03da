"""
Birds that differ in one part
=============================

Fine-grained classes differ in a detail: one bird has a red wing, another a red beak (the paper's figure 4 and table 1).
Here such birds are drawn and written in the layout of CUB-200-2011, a small net learns to tell them apart, and every map
is measured by how far its highest pixel is from the part that makes the class. With CUB-200-2011 itself and a net of
your own the same command is ``glas3d localise CUB_200_2011 --layout cub --model my_models:resnet50 --out birds``.

Needs ``pip install "glas3d[captum]"`` for Grad-CAM; nothing is downloaded.
"""

# %%
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from glas3d import Predictor
from glas3d.evaluate import attribute
from glas3d.evaluate.localisation import localise, read_layout
from glas3d.report import overlay_figure
from glas3d.simulate import BIRD_PARTS, draw_bird, write_birds

OUT = Path("glas3d-examples")
OUT.mkdir(exist_ok=True)
SHAPE = (56, 66)

# %%
# The class is the part that is red. Everything else is drawn at random: size, position, side, colours, background.

folder = OUT / "birds"
shutil.rmtree(folder, ignore_errors=True)
data = read_layout(write_birds(folder, 8, seed=1, shape=SHAPE), "cub")
print(f"{len(data.images)} birds of {len(data.classes)} classes: {', '.join(data.classes)}")

# %%
# A small net, trained on birds drawn from another seed.

torch.manual_seed(0)
torch.set_num_threads(1)
rng, n = np.random.default_rng(0), 2500
x = torch.from_numpy(np.stack([draw_bird(BIRD_PARTS[i % 5], rng, SHAPE).picture for i in range(n)]))
x, y = x.permute(0, 3, 1, 2).float(), torch.arange(n) % 5
net = nn.Sequential(
    nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5),
)  # fmt: skip
EPOCHS, SIZE = 9, 32
optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=EPOCHS * -(-n // SIZE))
for _ in range(EPOCHS):
    for chosen in torch.randperm(n).split(SIZE):
        batch = (x[chosen] - 127) / 128
        batch = batch.flip(-1) if torch.rand(()) < 0.5 else batch
        loss = nn.functional.cross_entropy(net(batch), y[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
net.eval()
predict = Predictor(net, activation="softmax", transform=lambda batch: (batch - 127) / 128, classes=data.classes)

# %%
# Table 1 for these birds: mean distance in pixels from a map's highest pixel to the red part, by class and method. The
# beak of a bird is about 5 pixels long.

landmarks = dict(zip(data.classes, BIRD_PARTS, strict=True))
METHODS = ("grad_cam", "glas_paper", "random")
accuracies = localise(data, predict, tables=(1,), landmarks=landmarks, methods=METHODS, size=SHAPE)
print(f"the net is right about {accuracies.top1:.0%} of the birds\n")
print(accuracies.tables[1].round(1).to_string(index=False))

# %%
# One bird of each class, with the maps of two methods.

SHOWN = ("grad_cam", "glas_paper")
pictures, maps, titles = [], [], []
for image in data.images[:5]:
    picture = np.asarray(Image.open(image.path))
    of_methods = [attribute(picture, predict, image.target, method).map for method in SHOWN]
    pictures += [picture] * 3
    maps += [None, *(each.clip(min=0) / max(each.max(), 1e-12) for each in of_methods)]
    titles += [data.classes[image.target].replace("_", " "), *SHOWN]
figure = overlay_figure(pictures, maps, titles, label="saliency, highest = 1", columns=3, panel_inches=2.2)
figure.savefig(OUT / "07_fine_grained.png", dpi=90)
print(f"written: {OUT / '07_fine_grained.png'}")
