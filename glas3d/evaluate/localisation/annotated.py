"""Images in which people marked objects: the class, boxes and landmarks of each, as every data set has them here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from glas3d.errors import GlasError

# First row and end, first column and end, in pixels of the image; the edges of a pixel are at integers.
Box = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class AnnotatedImage:
    """An image with what people marked in it.

    Attributes
    ----------
    path
        The image.
    target
        Index of its class from 0, in the order that models of this data set are trained with.
    boxes
        The boxes of its objects, all of this class.
    landmarks
        Row and column of each part that is visible, by the names of the parts; the centres of pixels are at integers.
    bottom
        Rows at the bottom that are no part of the picture.
    """

    path: Path
    target: int
    boxes: tuple[Box, ...]
    landmarks: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    bottom: int = 0


@dataclass(frozen=True)
class AnnotatedImages:
    """A data set of images in which people marked objects.

    Attributes
    ----------
    layout
        Name of the layout it was read in.
    classes
        Names of all classes, in the order of their indices.
    images
        The images of one part of the data set.
    """

    layout: str
    classes: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]

    def of_classes(self, names: Iterable[str]) -> AnnotatedImages:
        """Return the images of some classes alone.

        Raises
        ------
        GlasError
            There is no such class, or it has no image here.
        """
        wanted = set()
        for name in names:
            if name not in self.classes:
                raise GlasError(
                    f"there is no class {name!r} in this data set, its classes are such as {self.classes[0]}"
                )
            wanted.add(self.classes.index(name))
        images = tuple(image for image in self.images if image.target in wanted)
        for target in sorted(wanted - {image.target for image in images}):
            raise GlasError(f"there is no image of the class {self.classes[target]} in this part of the data set")
        return AnnotatedImages(self.layout, self.classes, images)

    def drawn(self, n: int, seed: int) -> AnnotatedImages:
        """Return ``n`` images drawn at random, in the order of the data set; all if there are no more."""
        if n >= len(self.images):
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.images), n, replace=False))
        return AnnotatedImages(self.layout, self.classes, tuple(self.images[i] for i in chosen))
