# %% [markdown]
# # Words: where does a captioner look for each word it says?
#
# A small network learns to say "a red circle left of a blue square" of drawings made here. One call of GLAS then
# explains every word of a caption, from the same lit and shaded copies of the drawing (the paper's figure 11), and
# because the drawings are made here, it can be counted how often a word's map points at the object it is about.
#
# Nothing is downloaded; it takes less than a minute on one core.

# %%
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from glas3d import GLAS, Grid
from glas3d.predict import Captioner

OUT = Path("glas3d-examples")
OUT.mkdir(exist_ok=True)
torch.manual_seed(11)
torch.set_num_threads(1)  # so small a network gains nothing from more

# %% [markdown]
# ## Drawings
# RGB, 64 rows and 80 columns, one or two objects on a grey canvas. Drawings of one object matter: light that leaves one
# object and shadow that hides one make just such images, and a network should have an answer to what it is asked.

# %%
ROWS, COLUMNS, CANVAS = 64, 80, 0.55
COLOURS = {
    "red": (0.85, 0.15, 0.15),
    "green": (0.15, 0.65, 0.25),
    "blue": (0.15, 0.3, 0.85),
    "yellow": (0.95, 0.85, 0.2),
}
SHAPES = ("circle", "square", "triangle")
VOCABULARY = ("<start>", "<end>", "a", *COLOURS, *SHAPES, "left", "above", "of")


def inside(shape, row, column, size):
    """Pixels of an object, ``(64, 80)`` booleans."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    y, x = y - row, x - column
    if shape == "circle":
        return y**2 + x**2 <= size**2
    if shape == "square":
        return np.maximum(abs(y), abs(x)) <= 0.9 * size
    return (abs(x) <= 0.55 * (y + size)) & (y <= 0.8 * size)


def draw(rng, alone=False):
    """An image ``(3, 64, 80)``, its caption, and the pixels of each object in the order they are named."""
    beside = rng.random() < 0.5
    places = np.array([[32, 20], [32, 60]] if beside else [[16, 40], [48, 40]])  # the first is named first
    places = places + rng.uniform(-1, 1, (2, 2)) * ([14, 7] if beside else [4, 20])
    colours, shapes = rng.choice(list(COLOURS), 2, replace=False), rng.choice(SHAPES, 2)
    named = list(zip(places, colours, shapes, strict=True))
    if alone:
        named = [named[rng.integers(2)]]
    image = np.full((3, ROWS, COLUMNS), CANVAS)
    objects = []
    for place, colour, shape in named:
        objects.append(inside(shape, *place, rng.uniform(9, 13)))
        image[:, objects[-1]] = np.array(COLOURS[colour])[:, None]
    image += rng.normal(0, 0.03, image.shape)
    phrases = [f"a {colour} {shape}" for _, colour, shape in named]
    return image.astype(np.float32), (" left of " if beside else " above ").join(phrases).split(), objects


# %% [markdown]
# ## A captioner
# A convolutional encoder that keeps places apart, and a recurrent decoder that sees its features at every word. It is
# trained by teacher forcing: every word given the true words before it.


# %%
class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 32, 4, stride=4), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(32 * 8 * 10, 128), nn.ReLU()),
        )

    def forward(self, images):
        return self.body(4 * (images - CANVAS))  # about -2 to 2


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(len(VOCABULARY), 32)
        self.lstm = nn.LSTM(32 + 128, 96, batch_first=True)
        self.say = nn.Linear(96, len(VOCABULARY))

    def every_word(self, features, words):
        seen = features[:, None].expand(-1, words.shape[1], -1)
        return self.say(self.lstm(torch.cat([self.embed(words), seen], dim=2))[0])

    def forward(self, features, words):
        return self.every_word(features, words)[:, -1]


rng = np.random.default_rng(11)
drawings = [draw(rng, alone=i % 4 == 0) for i in range(4000)]
images = torch.from_numpy(np.stack([image for image, _, _ in drawings]))
number = {word: i for i, word in enumerate(VOCABULARY)}
longest = max(len(words) for _, words, _ in drawings) + 1
said = torch.full((len(drawings), longest + 1), number["<end>"])
said[:, 0] = number["<start>"]
for row, (_, words, _) in zip(said, drawings, strict=True):
    row[1 : len(words) + 1] = torch.tensor([number[word] for word in words])

began = time.perf_counter()
encoder, decoder = Encoder(), Decoder()
EPOCHS, BATCH = 8, 16
optimiser = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()], lr=3e-3)
steps = EPOCHS * (len(images) // BATCH)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
for _ in range(EPOCHS):
    order = torch.randperm(len(images))
    for chosen in order[: len(images) // BATCH * BATCH].split(BATCH):
        logits = decoder.every_word(encoder(images[chosen]), said[chosen, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), said[chosen, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
print(f"trained in {time.perf_counter() - began:.0f} s")

# %% [markdown]
# `Captioner` takes the two halves as they are. What it says of drawings it has not seen:

# %%
captioner = Captioner(decoder, VOCABULARY, "<start>", "<end>", max_words=12, encode=encoder)
held_out = [draw(rng) for _ in range(200)]
right = [drawing for drawing in held_out if captioner.caption(drawing[0]) == drawing[1]]
print(f"{len(right)} of {len(held_out)} held-out drawings of two objects are captioned without a mistake")

# %% [markdown]
# ## One call, every word
# `about(words)` answers an image with the probability of each word given those before it. The spots are a Gaussian of
# 8 pixels for light and 6 for shadow, smaller than an object (9 to 13 pixels from its middle to its edge), and leave the
# canvas's grey, not black: a grey patch is what a drawing without that object looks like. In the map's `exp(-D / sigma^2)`
# it is `sigma^2` that is a length, here 6 pixels, about a cell of the grid.

# %%
SETTINGS = {"sigma_light": 8, "sigma_shadow": 6, "sigma_spatial": 2.5, "background": CANVAS}
SEARCH = Grid((12, 15))


def explain(image, words):
    return GLAS(captioner.about(words), **SETTINGS).explain(image, target=range(len(words)), search=SEARCH)


EMPTY = np.full_like(held_out[0][0], CANVAS)


def content(words):
    """Places of the words that say something of the drawing."""
    return [i for i, word in enumerate(words) if word not in ("a", "of")]


def owed(drawing):
    """How much of the least sure content word is owed to the drawing: its probability above that of an empty canvas."""
    full, empty = captioner.about(drawing[1])(np.stack([drawing[0], EMPTY]))
    return float((full - empty)[content(drawing[1])].min())


# the caption that owes most to its drawing, of those that tell two shapes side by side apart; its maps have no say in it
image, words, objects = max((d for d in right if "left" in d[1] and d[1][2] != d[1][-1]), key=owed)
explanations = explain(image, words)
names = captioner.about(words).classes
print(f"{' '.join(words)}: {explanations[0].settings['evaluations']} inputs explain {len(words)} words")
for name, explanation in zip(names, explanations, strict=True):
    row, column = explanation.points[explanation.score.argmax()]
    print(
        f"  {name:8s} P = {explanation.probability:.3f}, highest score {explanation.score.max():.3f} "
        f"at row {row:.0f}, column {column:.0f}"
    )

# %% [markdown]
# ## Does a word's map point at its object?
# Over sixty held-out drawings: how often the map's highest pixel lies in the object the word is about, in the other
# one, and how often a pixel chosen blindly would (the object's share of the drawing). Beside that, how probable the word
# is, after the same words, on a canvas with nothing on it.

# %%
found = {word: [] for word in (*COLOURS, *SHAPES)}
for drawing, said_of_it, shown in right[:60]:
    explained = explain(drawing, said_of_it)
    empty = captioner.about(said_of_it)(EMPTY[None])[0]
    for place, which in ((1, 0), (2, 0), (-2, 1), (-1, 1)):  # the first object's colour and shape, the second's
        highest = np.unravel_index(explained[place].saliency.argmax(), (ROWS, COLUMNS))
        row = (shown[which][highest], shown[1 - which][highest], shown[which].mean(), float(empty[place]))
        found[said_of_it[place]].append(row)
print(f"{'word':10s}{'times':>6s}{'its object':>12s}{'the other':>11s}{'chance':>8s}{'P on an empty canvas':>22s}")
found["all"] = [row for rows in found.values() for row in rows]
for word, rows in found.items():
    hit, other, chance, nothing = np.mean(rows, axis=0)
    print(f"{word:10s}{len(rows):6d}{hit:12.0%}{other:11.0%}{chance:8.0%}{nothing:22.2f}")

# %% [markdown]
# A word that the network says of an empty canvas too needs no evidence, so that its map has little to point at: look at
# the last column before reading a map. (The same holds for a class of a classifier, which docs/darkness.md measures.)

# %%
empty = captioner.about(words)(EMPTY[None])[0]
figure, axes = plt.subplots(2, 3, figsize=(12.5, 6.6), layout="constrained", sharex=True, sharey=True)
figure.suptitle(
    "Every word of a caption from one call. White: the objects; cross: the map's highest pixel", fontsize=12
)
picture = np.clip(np.moveaxis(image, 0, -1), 0, 1)
axes.flat[0].imshow(picture)
axes.flat[0].set_title(f'the captioner says\n"{" ".join(words)}"')
for axis, i in zip(axes.flat[1:], content(words), strict=True):
    explanation = explanations[i]
    axis.imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=1)
    seen = axis.imshow(1000 * explanation.saliency, cmap="inferno", vmin=0, alpha=0.75)
    for one in objects:
        axis.contour(one, levels=[0.5], colors="white", linewidths=1)
    row, column = np.unravel_index(explanation.saliency.argmax(), explanation.saliency.shape)
    axis.plot(column, row, "+", color="cyan", markersize=13, markeredgewidth=2)
    before = " ".join(words[:i])
    axis.set_title(f'{before} ...\n"{words[i]}": P = {explanation.probability:.2f}, empty canvas {empty[i]:.2f}')
    bar = figure.colorbar(seen, ax=axis, shrink=0.75, label="saliency (Eq. 3), thousandths")
    bar.set_ticks(np.linspace(0, 1000 * explanation.saliency.max(), 4))
    bar.formatter = "{x:.2g}"
for axis in axes[-1]:
    axis.set_xlabel("column, px")
for axis in axes[:, 0]:
    axis.set_ylabel("row, px")
figure.savefig(OUT / "10_words.png", dpi=90)
print(f"written: {OUT / '10_words.png'}")
