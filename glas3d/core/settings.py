"""The settings of the method: each is declared here, and only here.

The keywords of `glas3d.GLAS`, `glas3d.explain_img` and `glas3d.explain_image`, the options of the commands, the keys of
configuration files, and the settings in sidecars are derived from these dataclasses (see `glas3d.options`).
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

from glas3d.checks import whole_number
from glas3d.core.axes import per_axis
from glas3d.errors import GlasError
from glas3d.options import option

Kernel = Literal["gaussian", "exponential", "ellipsoid", "segment"]
Distance = Literal["euclidean", "squared"]
Fusion = Literal["product", "light", "shadow", "mean"]
Link = Literal["probability", "logit", "auto"]
Unit = Literal["voxel", "mm"]
Point = Literal["centroid", "medoid"]

MASKS, SALIENCY, SCORE, SPEED = "Masks and scales", "Saliency map", "Score and mode", "Speed"
RECURSION = "Recursion"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of `glas3d.GLAS`, checked; they are recorded in every sidecar.

    Parameters
    ----------
    sigma_light
        Standard deviation of the light mask, in ``unit`` (in Python also one number for each axis). Default: that of
        the model or of the preset, which is 20 mm in the paper's (in Python: 10 voxels in `GLAS`, and 5 pixels of 224
        in `explain_image`).
    sigma_shadow
        Standard deviation of the shadow mask, in ``unit``. Default: that of the model or of the preset, which is 30
        mm in the paper's (in Python: 15 voxels in `GLAS`, and 3 pixels of 224 in `explain_image`).
    sigma_spatial
        How far the score of a point spreads in the map (Eq. 3); atlas regions do not use it. Default: that of the
        model's preset, else 8.5 mm, or 6 voxels if the unit is voxel.
    unit
        Unit of ``sigma_light``, ``sigma_shadow`` and ``sigma_spatial`` when you set them. Default: voxel; the sigmas
        of a preset are in mm.
    kernel
        Shape of the masks: ``gaussian``; ``exponential``, which is ``exp(-|x - mu| / sigma^2)``; and for atlas regions
        also ``ellipsoid``, a Gaussian with the region's own covariance plus ``sigma^2``, or ``segment``, the region
        itself, smoothed by ``sigma``. Default: that of the model or of the preset (evidence: segment).
    distance
        The distance ``D`` of Eq. 3, by which the scores of points or of a grid spread: ``euclidean`` or ``squared``.
        Default: euclidean.
    fusion
        How light and shadow become a score: their ``product`` (the paper), ``light`` or ``shadow`` alone, which takes
        half of the model evaluations, or ``mean``: the evidence of a region, with its sign, which is the mean of what
        it adds to the background alone and of what the whole loses without it. Default: that of the model or of the
        preset (paper: product; evidence: mean).
    link
        Scale on which scores are made: ``probability`` (the paper), ``logit`` (log-odds of the target against all
        other classes, from the network's own logits, which still differ where probabilities are all but 1), or
        ``auto``: log-odds where the model has them, else its output. Log-odds cannot be multiplied: choose another
        ``fusion`` than product. Default: that of the model or of the preset (paper: probability; evidence: auto).
    density
        Divide light and shadow by the sum of their masks over voxels: scores then compare tissue of regions of
        different size. Default: the effect of the whole region.
    gamma
        Number added to the shadow, so that it is never 0 (Eq. 2). Default: 1e-5.
    channel
        Mask this channel alone, counted from 0: light keeps nothing of the other channels, shadow leaves them as they
        are. Default: mask all channels together.
    batch_size
        Number of inputs in one forward pass. Default: chosen by the size of the volume.
    cut
        Set the mask to 0 beyond this many sigmas (for example 5.5) and recompute only what changes, where that is
        correct and faster. At 6.8 or more nothing is lost. Masks of another shape than a Gaussian are 0 below
        ``exp(-cut^2 / 2)``. Default: compute every model evaluation in full.
    cut_always
        With ``cut``, do not compare times first, so that every machine does the same. Default: compare.
    engine
        Software that runs the network: ``auto`` (the fastest that is worth building), ``eager`` (PyTorch itself),
        ``openvino``, ``onnx``, ``compile``, ``channels_last``, ``autocast`` (bfloat16), or on CUDA ``cudagraphs``.
        Probabilities agree with those of ``eager`` within 1e-4, of ``autocast`` within 5e-3. Default: auto.

    Raises
    ------
    GlasError
        A value that is none of the choices, or outside its range.
    """

    sigma_light: float | tuple[float, ...] = option(10.0, group=MASKS, command=float)
    sigma_shadow: float | tuple[float, ...] = option(15.0, group=MASKS, command=float)
    sigma_spatial: float | tuple[float, ...] = option(6.0, group=SALIENCY, command=float)
    unit: Unit = option("voxel", group=MASKS)
    kernel: Kernel = option("gaussian", group=MASKS)
    distance: Distance = option("euclidean", group=SALIENCY)
    fusion: Fusion = option("product", group=SCORE)
    link: Link = option("probability", group=SCORE)
    density: bool = option(False, group=SCORE)
    gamma: float = option(1e-5, group=SCORE)
    channel: int | None = option(None)
    batch_size: int | None = option(None, group=SPEED)
    cut: float | None = option(None, group=SPEED)
    cut_always: bool = option(False)
    engine: str = option("auto", group=SPEED)

    def __post_init__(self) -> None:
        for name, choices in (
            ("unit", get_args(Unit)),
            ("kernel", get_args(Kernel)),
            ("distance", get_args(Distance)),
            ("fusion", get_args(Fusion)),
            ("link", get_args(Link)),
        ):
            if getattr(self, name) not in choices:
                raise GlasError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("sigma_light", "sigma_shadow", "sigma_spatial"):
            values = per_axis(getattr(self, name), None, name)
            object.__setattr__(self, name, values if len(values) > 1 else values[0])
        if self.distance == "euclidean" and isinstance(self.sigma_spatial, tuple) and len(set(self.sigma_spatial)) > 1:
            raise GlasError(
                f'sigma_spatial must be one number for distance="euclidean", got {self.sigma_spatial}; '
                'distance="squared" takes one for each axis'
            )
        if self.fusion == "product" and self.link != "probability":
            raise GlasError(
                f'link="{self.link}" gives negative light, whose product with the shadow would turn the order round: '
                'give fusion="mean", "light" or "shadow" too'
            )
        if not isinstance(self.engine, str):
            raise GlasError(f"engine must be the name of an engine, got {self.engine!r}")
        if not (isinstance(self.gamma, int | float) and 0 <= self.gamma < float("inf")):
            raise GlasError(f"gamma must be 0 or a positive number, got {self.gamma!r}")
        if self.cut is not None:
            (cut,) = per_axis(self.cut, 1, "cut")
            object.__setattr__(self, "cut", cut)
        for name in ("cut_always", "density"):
            if not isinstance(getattr(self, name), bool):
                raise GlasError(f"{name} must be true or false, got {getattr(self, name)!r}")
        for name, least in (("batch_size", 1), ("channel", 0)):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, whole_number(name, value, least))

    @property
    def keeps_zero(self) -> bool:
        """Whether a score of 0 means that a point is neither for the class nor against it."""
        return self.fusion == "mean"

    @property
    def evaluates_light(self) -> bool:
        """Whether the fusion needs the light of each point."""
        return self.fusion != "shadow"

    @property
    def evaluates_shadow(self) -> bool:
        """Whether the fusion needs the shadow of each point."""
        return self.fusion != "light"


@dataclass(frozen=True, kw_only=True)
class RecursionSettings:
    """The settings of `glas3d.RGLAS` (Algorithm 1), checked.

    Parameters
    ----------
    threshold
        With ``recursive``: each round removes the points whose value in its normalised map, from 0 to 1, is above
        this (``t1`` of Algorithm 1). Default: 0.8.
    stop
        With ``recursive``: end when ``sqrt(mean(S) / P(y|I))`` is above this (``t2`` of Algorithm 1). ``S`` is the
        normalised map of the round, and ``P(y|I)`` the target's probability after the map was removed from the image.
        Default: 5.
    max_iterations
        With ``recursive``: largest number of rounds. Default: 10.
    floor
        With ``recursive``: end also when the target's probability has fallen to this value; the map of that round is
        kept. For two classes 0.5 is a good choice: the probability then seldom falls low enough for ``stop``, and
        later rounds show noise. Not part of Algorithm 1. Default: none.

    Raises
    ------
    GlasError
        A number outside its range.
    """

    threshold: float = option(0.8, group=RECURSION)
    stop: float = option(5.0, group=RECURSION)
    max_iterations: int = option(10, group=RECURSION)
    floor: float | None = option(None, group=RECURSION)

    def __post_init__(self) -> None:
        threshold, stop, rounds, floor = self.threshold, self.stop, self.max_iterations, self.floor
        if not (_is_real(threshold) and 0 <= threshold < 1):
            raise GlasError(f"threshold must be from 0 to below 1, got {threshold!r}")
        if not (_is_real(stop) and stop > 0):
            raise GlasError(f"stop must be greater than 0, got {stop!r}")
        object.__setattr__(self, "max_iterations", whole_number("max_iterations", rounds, least=1))
        if floor is not None and not (_is_real(floor) and 0 <= floor < 1):
            raise GlasError(f"floor must be a probability below 1, got {floor!r}")


def _is_real(value: Any) -> bool:
    """Return whether a value is a real number of Python or NumPy."""
    return isinstance(value, Real)
