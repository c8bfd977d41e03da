"""Drawn birds that differ in one part: pictures with known truth, in the layout of CUB-200-2011.

The class is the part that is red: the wing of one, the beak of another. All else (size, position, side, colours,
background) is drawn at random, so that nothing but that part tells the classes apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from glas3d.checks import whole_number
from glas3d.output import new_folder

BIRD_PARTS = ("beak", "crown", "throat", "wing", "tail")
"""The parts of a drawn bird, one of which is red."""
BIRDS = tuple(f"Red_{part}ed_Bird" for part in BIRD_PARTS)

_FINER = 4  # drawn at this many times the size, and made smaller by averaging
_RED = np.array([200, 30, 30])
# Body of length 2 around (0, 0), x to the front and y down.
_BODY, _HEAD = ((-1.0, -0.6), (1.0, 0.6)), ((0.75, -1.15), (1.45, -0.45))
_SHAPES: Mapping[str, list[tuple[float, float]]] = {
    "tail": [(-0.85, -0.2), (-1.8, -0.45), (-1.75, 0.15), (-0.8, 0.15)],
    "wing": [(0.45, -0.3), (0.2, 0.25), (-0.6, 0.3), (-1.05, 0.0), (-0.4, -0.35)],
    "beak": [(1.38, -0.95), (1.95, -0.72), (1.38, -0.6)],
    "crown": [(0.8, -0.98), (0.95, -1.2), (1.2, -1.24), (1.38, -1.02)],
    "throat": [(0.95, -0.5), (1.35, -0.52), (1.1, -0.1), (0.85, -0.15)],
}
_LEGS = [((-0.1, 0.55), (-0.15, 1.1)), ((0.25, 0.5), (0.3, 1.1))]


@dataclass(frozen=True, eq=False)
class Bird:
    """A drawn bird.

    Attributes
    ----------
    picture
        ``(rows, cols, 3)`` uint8.
    parts
        Row and column of the centre of each of `BIRD_PARTS`.
    box
        First row and end, first column and end, of the bird.
    """

    picture: np.ndarray
    parts: Mapping[str, tuple[float, float]]
    box: tuple[tuple[int, int], tuple[int, int]]


def draw_bird(red: str, rng: np.random.Generator, shape: tuple[int, int] = (96, 112)) -> Bird:
    """Draw a bird of which one part is red.

    Parameters
    ----------
    red
        One of `BIRD_PARTS`.
    rng
        Draws everything else.
    shape
        Rows and columns.
    """
    rows, columns = shape
    length = min(shape) * rng.uniform(0.15, 0.22)  # half of the body
    side = rng.choice([-1, 1])
    centre = np.array([columns / 2, rows / 2]) + rng.uniform(-1, 1, 2) * (
        (np.array([columns, rows]) / 2) - 2.1 * length
    )
    tilt = rng.uniform(-0.35, 0.35)
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])

    def pixels(points: object) -> np.ndarray:
        """Return x and y in the picture, of points relative to the body."""
        moved: np.ndarray = np.asarray(points, dtype=float) @ turn.T * [side * length, length] + centre
        return moved

    def outline(box: tuple[tuple[float, float], tuple[float, float]]) -> np.ndarray:
        (left, top), (right, bottom) = box
        angle = np.linspace(0, 2 * np.pi, 40)
        return np.stack(
            [
                (left + right) / 2 + (right - left) / 2 * np.cos(angle),
                (top + bottom) / 2 + (bottom - top) / 2 * np.sin(angle),
            ],
            axis=1,
        )

    canvas = Image.fromarray(_background(rng, (rows * _FINER, columns * _FINER)))
    draw = ImageDraw.Draw(canvas)

    def fill(points: object, colour: np.ndarray) -> None:
        draw.polygon([tuple(p) for p in (pixels(points) + 0.5) * _FINER], fill=tuple(int(c) for c in colour))

    body = rng.uniform(60, 190) + rng.uniform(-25, 25, 3)
    colours = {part: body * rng.uniform(0.6, 1.25) + rng.uniform(-10, 10, 3) for part in BIRD_PARTS}
    colours[red] = _RED + rng.uniform(-25, 25, 3)
    colours = {part: colour.clip(0, 255) for part, colour in colours.items()}
    for leg in _LEGS:
        draw.line([tuple(p) for p in (pixels(leg) + 0.5) * _FINER], fill=(50, 45, 40), width=_FINER)
    fill(_SHAPES["tail"], colours["tail"])
    fill(outline(_BODY), body.clip(0, 255))
    fill(outline(_HEAD), body.clip(0, 255))
    for part in ("throat", "crown", "beak", "wing"):
        fill(_SHAPES[part], colours[part])
    fill(outline(((1.14, -0.94), (1.28, -0.8))), np.zeros(3))  # the eye
    picture = np.asarray(canvas.resize((columns, rows), Image.Resampling.BOX))
    corners = np.concatenate([pixels(points) for points in [*_SHAPES.values(), outline(_BODY), outline(_HEAD), *_LEGS]])
    low = np.floor(corners.min(axis=0)).astype(int).clip(0)
    high = (np.ceil(corners.max(axis=0)).astype(int) + 1).clip(max=[columns, rows])
    parts = {part: pixels(np.mean(points, axis=0)) for part, points in _SHAPES.items()}
    return Bird(
        picture,
        {part: (float(parts[part][1]), float(parts[part][0])) for part in BIRD_PARTS},
        ((int(low[1]), int(high[1])), (int(low[0]), int(high[0]))),
    )


def _background(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Return a smooth background with some branches, without red, ``(*shape, 3)`` uint8."""
    colour = np.array([rng.uniform(80, 150), rng.uniform(100, 190), rng.uniform(90, 200)])
    coarse = (colour + rng.normal(scale=35, size=(5, 6, 3))).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(1, 4)):
        ends = rng.uniform(0, 1, (2, 2)) * [shape[1], shape[0]]
        shade = int(rng.uniform(40, 90))
        draw.line([tuple(p) for p in ends], fill=(shade, shade, shade // 2), width=int(_FINER * rng.uniform(1, 3)))
    return np.asarray(image)


def write_birds(folder: Path, n: int, seed: int = 0, shape: tuple[int, int] = (96, 112)) -> Path:
    """Draw birds and write them in the layout of CUB-200-2011, every second one for training.

    Parameters
    ----------
    folder
        New folder of the data set.
    n
        Birds of each class.
    seed
        The same seed draws the same birds.
    shape
        Rows and columns of each picture.

    Raises
    ------
    GlasError
        The folder holds something already, or ``n`` is not a whole number of at least 1.
    """
    whole_number("n", n, least=1)
    rng = np.random.default_rng(seed)
    tables: dict[str, list[str]] = {name: [] for name in _TABLES}
    tables["classes.txt"] = [f"{i} {i:03d}.{name}" for i, name in enumerate(BIRDS, start=1)]
    tables["parts/parts.txt"] = [f"{i} {part}" for i, part in enumerate(BIRD_PARTS, start=1)]
    with new_folder(Path(folder)) as unfinished:
        (unfinished / "parts").mkdir()
        for number in range(n * len(BIRDS)):
            kind = number % len(BIRDS)
            bird = draw_bird(BIRD_PARTS[kind], rng, shape)
            name, image = f"{kind + 1:03d}.{BIRDS[kind]}/{BIRDS[kind]}_{number:04d}.png", number + 1
            path = unfinished / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(bird.picture).save(path)
            (top, bottom), (left, right) = bird.box
            tables["images.txt"].append(f"{image} {name}")
            tables["image_class_labels.txt"].append(f"{image} {kind + 1}")
            tables["train_test_split.txt"].append(f"{image} {1 - number // len(BIRDS) % 2}")
            tables["bounding_boxes.txt"].append(f"{image} {left:.1f} {top:.1f} {right - left:.1f} {bottom - top:.1f}")
            for part, (row, column) in enumerate(bird.parts.values(), start=1):
                tables["parts/part_locs.txt"].append(f"{image} {part} {column:.1f} {row:.1f} 1")
        for table, lines in tables.items():
            (unfinished / table).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Path(folder)


_TABLES = (
    "images.txt",
    "classes.txt",
    "image_class_labels.txt",
    "train_test_split.txt",
    "bounding_boxes.txt",
    "parts/parts.txt",
    "parts/part_locs.txt",
)
