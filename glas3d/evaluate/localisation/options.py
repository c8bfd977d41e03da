"""The options of measuring localisation, declared once for Python and the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glas3d.checks import whole_number
from glas3d.core.settings import RECURSION, SCORE
from glas3d.errors import GlasError
from glas3d.evaluate.rivals.methods import METHODS
from glas3d.explain.options import INPUT, SEARCH
from glas3d.options import option

TABLES = (1, 2, 3, 4)
# Methods with settings of the paper's tables: light and shadow alone, and one sigma for light, shadow and map.
VARIANTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "glas_light": ("glas_paper", {"fusion": "light"}),
    "glas_shadow": ("glas_paper", {"fusion": "shadow"}),
    "glas_sigma5": ("glas_paper", {"sigma_light": 5.0, "sigma_shadow": 5.0, "sigma_spatial": 5.0}),
    "glas_sigma3": ("glas_paper", {"sigma_light": 3.0, "sigma_shadow": 3.0, "sigma_spatial": 3.0}),
}
METHODS_OF_TABLE = {
    1: ("grad_cam", "rise", "glas_sigma5", "glas_sigma3", "glas_paper", "glas_evidence"),
    3: (
        *("gradient", "deconvolution", "grad_cam", "occlusion", "lime", "rise", "mask"),
        *("glas_light", "glas_shadow", "glas_paper", "glas_evidence"),
    ),
}
# The parts that tell the paper's five birds from others; of a head, CUB-200-2011 marks these.
_HEAD = ("crown", "forehead", "left eye", "right eye")
LANDMARKS: Mapping[str, tuple[str, ...]] = {
    "Red_winged_Blackbird": ("left wing", "right wing"),
    "Crested_Auklet": ("beak",),
    "Red_faced_Cormorant": _HEAD,
    "European_Goldfinch": _HEAD,
    "Eared_Grebe": ("left eye", "right eye"),
}


@dataclass(frozen=True, kw_only=True)
class LocalisationOptions:
    """What is measured of maps of images in which people marked objects.

    Parameters
    ----------
    tables
        Numbers of the paper's tables: 1 (distance to a landmark, by class and method), 2 (pointing game by the number
        of search points), 3 (pointing game by method), 4 (overlap by rounds of the recursion). Default: all that the
        data set has the truth for; only CUB-200-2011 has landmarks.
    methods
        Methods of tables 1 and 3, in place of the paper's. Default: those of the paper that the model allows.
    images
        Draw this many images at random. Default: all.
    seed
        Number that the images are drawn by.
    landmarks
        Classes of table 1 with the parts that tell them from others, such as Eared_Grebe="left eye+right eye"; of
        several parts the nearest to the map's highest pixel counts. In Python a mapping from classes to sequences.
        Default: the paper's five birds.
    size
        Rows and columns that the model takes; images are stretched to them, and distances are in these pixels.
    cells
        Search points on each axis.
    points
        Search points on each axis, of table 2.
    rounds
        Rounds of table 4, before the row of the adaptive stop.

    Raises
    ------
    GlasError
        A value that is none of the choices, or outside its range.
    """

    tables: Sequence[int] | None = option(None, group=SCORE, command=tuple[int, ...])
    methods: Sequence[str] | None = option(None, group=SCORE, command=tuple[str, ...])
    images: int | None = option(None, group=INPUT, command=int)
    seed: int = option(0, group=INPUT)
    landmarks: Mapping[str, Sequence[str]] | None = option(None, group=INPUT, command=tuple[str, ...])
    size: tuple[int, int] = option((224, 224), group=INPUT, command=tuple[int, int])
    cells: int = option(15, group=SEARCH)
    points: Sequence[int] = option((12, 15, 22, 25, 30), group=SEARCH, command=tuple[int, ...])
    rounds: int = option(3, group=RECURSION)

    def __post_init__(self) -> None:
        for name in ("cells", "rounds"):
            whole_number(name, getattr(self, name), least=1)
        whole_number("seed", self.seed, least=0)
        if self.images is not None:
            whole_number("images", self.images, least=1)
        for name, least in (("size", 8), ("points", 1)):
            for number in getattr(self, name):
                whole_number(name, number, least=least)
        if len(self.size) != 2:
            raise GlasError(f"size must be two whole numbers, rows and columns, got {tuple(self.size)}")
        if self.tables is not None and (not self.tables or not set(self.tables) <= set(TABLES)):
            raise GlasError(f"tables must be some of {', '.join(map(str, TABLES))}, got {tuple(self.tables)}")
        for name in self.methods or ():
            if name not in (*METHODS, *VARIANTS):
                raise GlasError(f"there is no method {name!r}; choose of {', '.join((*VARIANTS, *METHODS))}")
        if self.methods is not None and (not self.methods or len(set(self.methods)) != len(self.methods)):
            raise GlasError(f"methods must be one or more, each once, got {', '.join(self.methods) or 'none'}")
