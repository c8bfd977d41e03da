# %% [markdown]
# # Words: which part of an image does a captioner use for each word?
#
# A small network learns captions such as "a red circle left of a blue square" for drawings made here. One call of GLAS
# then explains every word of a caption, from the same lit and shaded copies of the drawing (the paper's figure 11).
# Because the drawings are made here, we can count how often a word's map is highest on the object that the word names.
#
# Nothing is downloaded. It takes less than a minute on one core.

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
# A drawing is RGB, with 64 rows and 80 columns, and has one or two objects on a grey canvas. Drawings of one object matter:
# light that leaves one object and shadow that hides one make such images, and the network should know them.

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
    """Return the pixels of an object, ``(64, 80)`` booleans."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    y, x = y - row, x - column
    if shape == "circle":
        return y**2 + x**2 <= size**2
    if shape == "square":
        return np.maximum(abs(y), abs(x)) <= 0.9 * size
    return (abs(x) <= 0.55 * (y + size)) & (y <= 0.8 * size)


def draw(rng, alone=False):
    """Return an image ``(3, 64, 80)``, its caption, and the pixels of each object in the order of the caption."""
    horizontal = rng.random() < 0.5
    centres = np.array([[32, 20], [32, 60]] if horizontal else [[16, 40], [48, 40]])  # the first is named first
    centres = centres + rng.uniform(-1, 1, (2, 2)) * ([14, 7] if horizontal else [4, 20])
    colours, shapes = rng.choice(list(COLOURS), 2, replace=False), rng.choice(SHAPES, 2)
    named = list(zip(centres, colours, shapes, strict=True))
    if alone:
        named = [named[rng.integers(2)]]
    image = np.full((3, ROWS, COLUMNS), CANVAS)
    objects = []
    for centre, colour, shape in named:
        objects.append(inside(shape, *centre, rng.uniform(9, 13)))
        image[:, objects[-1]] = np.array(COLOURS[colour])[:, None]
    image += rng.normal(0, 0.03, image.shape)
    phrases = [f"a {colour} {shape}" for _, colour, shape in named]
    return image.astype(np.float32), (" left of " if horizontal else " above ").join(phrases).split(), objects


# %% [markdown]
# ## A captioner
# A convolutional encoder keeps positions apart, and a recurrent decoder gets its features at every word. The captioner is
# trained by teacher forcing: it learns each word given the true words before it.


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
        self.to_logits = nn.Linear(96, len(VOCABULARY))

    def every_word(self, features, words):
        repeated = features[:, None].expand(-1, words.shape[1], -1)
        return self.to_logits(self.lstm(torch.cat([self.embed(words), repeated], dim=2))[0])

    def forward(self, features, words):
        return self.every_word(features, words)[:, -1]


rng = np.random.default_rng(11)
drawings = [draw(rng, alone=i % 4 == 0) for i in range(4000)]
images = torch.from_numpy(np.stack([image for image, _, _ in drawings]))
number = {word: i for i, word in enumerate(VOCABULARY)}
longest = max(len(words) for _, words, _ in drawings) + 1
captions = torch.full((len(drawings), longest + 1), number["<end>"])
captions[:, 0] = number["<start>"]
for row, (_, words, _) in zip(captions, drawings, strict=True):
    row[1 : len(words) + 1] = torch.tensor([number[word] for word in words])

start = time.perf_counter()
encoder, decoder = Encoder(), Decoder()
EPOCHS, BATCH = 8, 16
optimiser = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()], lr=3e-3)
steps = EPOCHS * (len(images) // BATCH)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
for _ in range(EPOCHS):
    order = torch.randperm(len(images))
    for chosen in order[: len(images) // BATCH * BATCH].split(BATCH):
        logits = decoder.every_word(encoder(images[chosen]), captions[chosen, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), captions[chosen, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
print(f"trained in {time.perf_counter() - start:.0f} s")

# %% [markdown]
# `Captioner` takes the encoder and the decoder as they are. How well does it caption drawings that it has not seen?

# %%
captioner = Captioner(decoder, VOCABULARY, "<start>", "<end>", max_words=12, encode=encoder)
held_out = [draw(rng) for _ in range(200)]
right = [drawing for drawing in held_out if captioner.caption(drawing[0]) == drawing[1]]
print(f"{len(right)} of {len(held_out)} held-out drawings of two objects are captioned without a mistake")

# %% [markdown]
# ## One call, every word
# `about(words)` is a model: for an image it returns the probability of each word given the words before it. The masks are
# Gaussians of 8 pixels for light and 6 for shadow, smaller than an object (9 to 13 pixels from its middle to its edge).
# The background is the canvas's grey and not black, because a drawing without an object is grey there. In the map's
# `exp(-D / sigma^2)`, `sigma^2` is a length, here 6 pixels, about one cell of the grid.

# %%
SETTINGS = {"sigma_light": 8, "sigma_shadow": 6, "sigma_spatial": 2.5, "background": CANVAS}
SEARCH = Grid((12, 15))


def explain(image, words):
    return GLAS(captioner.about(words), **SETTINGS).explain(image, target=range(len(words)), search=SEARCH)


EMPTY = np.full_like(held_out[0][0], CANVAS)


def content(words):
    """Return the positions of the words that describe the drawing."""
    return [i for i, word in enumerate(words) if word not in ("a", "of")]


def evidence(drawing):
    """Return the least probability, over the content words, above that on an empty canvas."""
    full, empty = captioner.about(drawing[1])(np.stack([drawing[0], EMPTY]))
    return float((full - empty)[content(drawing[1])].min())


# of the captions with two different shapes side by side, the one that depends most on its drawing; maps play no part
image, words, objects = max((d for d in right if "left" in d[1] and d[1][2] != d[1][-1]), key=evidence)
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
# The table counts, over sixty held-out drawings, how often the map's highest pixel lies in the object that the word names,
# how often in the other object, and how often a random pixel would (the object's share of the drawing). The last column is
# the probability of the word, after the same words, for an empty canvas.

# %%
hits = {word: [] for word in (*COLOURS, *SHAPES)}
for drawing, caption, shown in right[:60]:
    explained = explain(drawing, caption)
    empty = captioner.about(caption)(EMPTY[None])[0]
    for position, which in ((1, 0), (2, 0), (-2, 1), (-1, 1)):  # the first object's colour and shape, the second's
        highest = np.unravel_index(explained[position].saliency.argmax(), (ROWS, COLUMNS))
        row = (shown[which][highest], shown[1 - which][highest], shown[which].mean(), float(empty[position]))
        hits[caption[position]].append(row)
print(f"{'word':10s}{'times':>6s}{'its object':>12s}{'the other':>11s}{'chance':>8s}{'P on an empty canvas':>22s}")
hits["all"] = [row for rows in hits.values() for row in rows]
for word, rows in hits.items():
    hit, other, chance, nothing = np.mean(rows, axis=0)
    print(f"{word:10s}{len(rows):6d}{hit:12.0%}{other:11.0%}{chance:8.0%}{nothing:22.2f}")

# %% [markdown]
# A word that is probable for an empty canvas needs no evidence, so its map has little to mark: look at the last column
# before you read a map. (The same holds for a class of a classifier; docs/darkness.md measures it.)

# %%
empty = captioner.about(words)(EMPTY[None])[0]
figure, axes = plt.subplots(2, 3, figsize=(12.5, 6.6), layout="constrained", sharex=True, sharey=True)
figure.suptitle(
    "Every word of a caption explained by one call. White: the objects; cross: the map's highest pixel", fontsize=12
)
picture = np.clip(np.moveaxis(image, 0, -1), 0, 1)
axes.flat[0].imshow(picture)
axes.flat[0].set_title(f'caption\n"{" ".join(words)}"')
for axis, i in zip(axes.flat[1:], content(words), strict=True):
    explanation = explanations[i]
    axis.imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=1)
    shown = axis.imshow(1000 * explanation.saliency, cmap="inferno", vmin=0, alpha=0.75)
    for pixels in objects:
        axis.contour(pixels, levels=[0.5], colors="white", linewidths=1)
    row, column = np.unravel_index(explanation.saliency.argmax(), explanation.saliency.shape)
    axis.plot(column, row, "+", color="cyan", markersize=13, markeredgewidth=2)
    before = " ".join(words[:i])
    axis.set_title(f'{before} ...\n"{words[i]}": P = {explanation.probability:.2f}, empty canvas {empty[i]:.2f}')
    bar = figure.colorbar(shown, ax=axis, shrink=0.75, label="saliency (Eq. 3), thousandths")
    bar.set_ticks(np.linspace(0, 1000 * explanation.saliency.max(), 4))
    bar.formatter = "{x:.2g}"
for axis in axes[-1]:
    axis.set_xlabel("column, px")
for axis in axes[:, 0]:
    axis.set_ylabel("row, px")
figure.savefig(OUT / "10_words.png", dpi=90)
print(f"written: {OUT / '10_words.png'}")
