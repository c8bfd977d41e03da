"""GLAS: light and shade a volume, ask the model, draw the map (docs/method.md)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
import torch

from glas3d.core import saliency, score
from glas3d.core.gaussian import Kernel, per_axis, spots
from glas3d.core.perturb import Perturbations
from glas3d.core.saliency import Distance
from glas3d.core.score import Fusion, Predict, Target
from glas3d.core.search import Grid, Search, Segments, resolve
from glas3d.errors import GlasError

Background = float | np.ndarray | torch.Tensor
Progress = bool | Callable[[int, int], None]

# Values a batch by default. On a CPU small batches keep a network's activations in cache and in memory that the
# allocator does not give back between forwards (measured: 2 to 4 scans of 48 x 56 x 48 are twice as fast as 32).
_BATCH_VALUES = {"cpu": 2**19, "cuda": 2**24}
_SMALLEST_BATCH, _LARGEST_BATCH = 2, 64


def _batch_size(values: int, device: torch.device) -> int:
    fitting = _BATCH_VALUES.get(device.type, _BATCH_VALUES["cuda"]) // values
    return max(_SMALLEST_BATCH, min(_LARGEST_BATCH, fitting))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of `GLAS`, checked; ``asdict`` of it goes into every sidecar.

    Raises
    ------
    GlasError
        A setting that is none of its choices, or a sigma that is not greater than 0.
    """

    sigma_light: float | tuple[float, ...] = 10.0
    sigma_shadow: float | tuple[float, ...] = 15.0
    sigma_spatial: float | tuple[float, ...] = 6.0
    unit: str = "voxel"
    kernel: Kernel = "gaussian"
    distance: Distance = "euclidean"
    fusion: Fusion = "product"
    gamma: float = 1e-5
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name, choices in (
            ("unit", ("voxel", "mm")),
            ("kernel", get_args(Kernel)),
            ("distance", get_args(Distance)),
            ("fusion", get_args(Fusion)),
        ):
            if getattr(self, name) not in choices:
                raise GlasError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("sigma_light", "sigma_shadow", "sigma_spatial"):
            values = per_axis(getattr(self, name), None, name)
            object.__setattr__(self, name, values if len(values) > 1 else values[0])
        if self.distance == "euclidean" and np.unique(self.sigma_spatial).size > 1:
            raise GlasError(
                f'sigma_spatial must be one number for distance="euclidean", got {self.sigma_spatial}; '
                'distance="squared" takes one an axis'
            )
        if not (isinstance(self.gamma, int | float) and 0 <= self.gamma < float("inf")):
            raise GlasError(f"gamma must be 0 or a positive number, got {self.gamma!r}")
        if self.batch_size is not None and (
            isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int) or self.batch_size < 1
        ):
            raise GlasError(f"batch_size must be a whole number of at least 1, got {self.batch_size!r}")


@dataclass(frozen=True, eq=False)
class Explanation:
    """What one volume's spots say about one class.

    Attributes
    ----------
    target
        Index of the explained class.
    probability
        ``P(y|I)`` of the intact volume.
    points
        ``(m, ndim)`` float64 voxel coordinates.
    light
        ``(m,)`` float64, ``f_l`` (Eq. 1).
    shadow
        ``(m,)`` float64, ``f_s`` (Eq. 2), its ``gamma`` included.
    drop
        ``(m,)`` float64, the signed ``P(y|I) - P(y|shadowed)``: negative where shading raised ``P``.
    score
        ``(m,)`` float64, ``f_l * f_s`` or the ablation asked for.
    saliency
        ``(*spatial)`` float32, unnormalised.
    segments
        The segments of an atlas search, else None.
    settings
        How it was made, ready for JSON.
    """

    target: int
    probability: float
    points: np.ndarray
    light: np.ndarray
    shadow: np.ndarray
    drop: np.ndarray
    score: np.ndarray
    saliency: np.ndarray
    segments: Segments | None
    settings: dict[str, Any]

    def __repr__(self) -> str:
        where = "segments" if self.segments is not None else "points"
        return (
            f"Explanation(target={self.target}, P={self.probability:.4f}, {len(self.points)} {where} "
            f"on {self.saliency.shape}, highest score {self.score.max():.4g})"
        )


class GLAS:
    """Gaussian light and shadow (Oh, Kim & Oh 2020, Eq. 1-3), for images and volumes alike.

    Parameters
    ----------
    predict
        Answers a batch ``(n, c, *spatial)`` float32 with probabilities ``(n, k)``: a `Predictor`, or any
        callable. The intensities given are the volume's own: normalisation belongs to ``predict``.
    sigma_light, sigma_shadow
        Standard deviation of the spots, one number or one an axis, in ``unit``.
    sigma_spatial
        Reach of a point in the map (Eq. 3), in ``unit``; segments do not use it.
    unit
        ``"voxel"``, or ``"mm"``: then `explain` needs ``spacing``, and distances are in mm too.
    kernel
        ``"gaussian"`` or ``"exponential"`` (``exp(-|x - mu| / sigma^2)``).
    distance
        ``D`` of Eq. 3: ``"euclidean"``, or ``"squared"``.
    fusion
        ``"product"``, or the ablations ``"light"`` and ``"shadow"``.
    gamma
        Added to the shadow score, so that it is never 0.
    background
        What a spot leaves or puts in place: 0 (darkness, the paper), a number, or a reference of shape
        ``(*spatial)`` or ``(c, *spatial)`` in the volume's own intensities.
    batch_size
        Inputs a forward; None chooses by the volume's size.
    progress
        True draws a plain bar on standard error; a callable is called with forwards done and in all.

    Raises
    ------
    GlasError
        A setting that is none of its choices.

    Examples
    --------
    >>> import torch
    >>> def mean(batch):                                 # "a bright image", as a probability
    ...     return batch.mean(dim=(1, 2, 3))[:, None]
    >>> image = torch.zeros(1, 8, 6)
    >>> image[0, 5, 1] = 1.0
    >>> e = GLAS(mean, sigma_light=1, sigma_shadow=1).explain(image, target=0, search=Grid((4, 3)))
    >>> e.points[e.score.argmax()]
    array([4.5, 0.5])
    """

    def __init__(
        self,
        predict: Predict,
        *,
        sigma_light: float | Sequence[float] = 10.0,
        sigma_shadow: float | Sequence[float] = 15.0,
        sigma_spatial: float | Sequence[float] = 6.0,
        unit: str = "voxel",
        kernel: Kernel = "gaussian",
        distance: Distance = "euclidean",
        fusion: Fusion = "product",
        gamma: float = 1e-5,
        background: Background = 0.0,
        batch_size: int | None = None,
        progress: Progress = False,
    ) -> None:
        if isinstance(predict, torch.nn.Module):
            raise GlasError(
                "a torch module does not say whether it answers with logits or probabilities: "
                'give Predictor(net, activation="softmax"), "sigmoid" or "none"'
            )
        if not callable(predict):
            raise GlasError(f"predict must be a Predictor or a callable, got {type(predict).__name__}")
        self.predict = predict
        self.settings = Settings(
            sigma_light=sigma_light,  # type: ignore[arg-type]
            sigma_shadow=sigma_shadow,  # type: ignore[arg-type]
            sigma_spatial=sigma_spatial,  # type: ignore[arg-type]
            unit=unit,
            kernel=kernel,
            distance=distance,
            fusion=fusion,
            gamma=gamma,
            batch_size=batch_size,
        )
        self.background = background
        self.progress = progress

    def explain(
        self,
        volume: np.ndarray | torch.Tensor,
        target: Target | Sequence[Target] = 1,
        search: Search | Sequence[Sequence[float]] = Grid(15),  # noqa: B008 (frozen)
        spacing: Sequence[float] | None = None,
    ) -> Explanation | tuple[Explanation, ...]:
        """Explain one volume.

        Parameters
        ----------
        volume
            ``(c, *spatial)`` of two or three spatial axes, intensities before normalisation.
        target
            Class index or name; a sequence of them is answered from the same ``2m + 1`` forwards.
        search
            Where to look: a `Grid`, ``(m, ndim)`` voxel coordinates, or `Segments` (an integer label
            volume of the spatial shape is taken as such).
        spacing
            Size of a voxel in mm, one an axis; needed for ``unit="mm"``.

        Returns
        -------
        One `Explanation`, or a tuple of them when ``target`` is a sequence.

        Raises
        ------
        GlasError
            Input that does not fit; the message says what was required and what came.
        """
        single = isinstance(target, str | int | float | np.generic) or target is None
        targets: list[Any] = [target] if single else list(target)  # type: ignore[arg-type]
        if not targets:
            raise GlasError("target must be a class index or name or some of them, got an empty sequence")
        settings = self.settings
        array = as_volume(volume)
        shape = tuple(array.shape[1:])
        if settings.unit == "mm" and spacing is None:
            raise GlasError('unit="mm" needs the spacing: the size of a voxel in mm, one an axis')
        voxel = None
        if settings.unit == "mm" and spacing is not None:
            voxel = per_axis(spacing, len(shape), "spacing")
            if not np.isfinite(voxel).all():
                raise GlasError(f"spacing must be finite, got {spacing!r}")
        light_sigma = per_axis(settings.sigma_light, len(shape), "sigma_light")
        shadow_sigma = per_axis(settings.sigma_shadow, len(shape), "sigma_shadow")
        per_axis(settings.sigma_spatial, len(shape), "sigma_spatial")
        points, segments = resolve(search, shape)
        device = torch.device(getattr(self.predict, "device", "cpu"))
        fit = getattr(self.predict, "fit", None)
        predict: Predict = self.predict if fit is None else fit(array)
        classes: Sequence[str] | None = getattr(self.predict, "classes", None)

        with torch.inference_mode():
            moved = array.to(device)
            perturbations = Perturbations(
                moved,
                as_reference(self.background, array).to(device),
                spots(points, shape, light_sigma, settings.kernel, spacing=voxel, device=device),
                spots(points, shape, shadow_sigma, settings.kernel, spacing=voxel, device=device),
                settings.batch_size or _batch_size(array.numel(), device),
            )
            columns: list[int] = [score.class_index(t, classes, None) for t in targets]

            def check(n_classes: int) -> None:
                columns[:] = [score.class_index(t, classes, n_classes) for t in targets]

            with _ticker(self.progress) as tick:
                intact, light, shaded = score.collect(predict, perturbations, check, tick)
        record = asdict(settings) | {
            "batch_size": perturbations.batch_size,
            "spacing": None if voxel is None else list(voxel),
            "forwards": len(perturbations),
            "device": device.type,
        }

        # Eq. 1 and 2 for all classes at once, (m, targets), and one pass over the weights of Eq. 3
        drop = intact[columns] - shaded[:, columns]
        lit, shadow = light[:, columns], np.abs(drop) + settings.gamma
        scores = score.fuse(lit, shadow, settings.fusion)
        if segments is None:
            drawn = self.spread(points, scores.T, shape, voxel)
        else:
            drawn = segments.paint(scores.T)
        explanations = tuple(
            Explanation(
                target=column,
                probability=float(intact[column]),
                points=points,
                light=lit[:, i].copy(),
                shadow=shadow[:, i].copy(),
                drop=drop[:, i].copy(),
                score=scores[:, i].copy(),
                saliency=drawn[i],
                segments=segments,
                settings=record,
            )
            for i, column in enumerate(columns)
        )
        return explanations[0] if single else explanations

    def spread(
        self,
        points: np.ndarray,
        values: np.ndarray,
        shape: Sequence[int],
        spacing: Sequence[float] | None = None,
    ) -> np.ndarray:
        """Eq. 3 with this explainer's settings: values ``(k, m)`` of points to ``k`` maps ``(k, *shape)``."""
        settings = self.settings
        sigma = per_axis(settings.sigma_spatial, len(shape), "sigma_spatial")
        voxel = spacing if settings.unit == "mm" else None
        return saliency.spread(points, values, shape, sigma, settings.distance, spacing=voxel)


def as_volume(volume: np.ndarray | torch.Tensor) -> torch.Tensor:
    """The volume as float32 on the CPU."""
    array = _float32(volume)
    if array is None:
        raise GlasError(f"a volume must be an array of numbers (c, *spatial), got {type(volume).__name__}")
    if array.ndim not in (3, 4) or array.numel() == 0:
        raise GlasError(f"a volume must be (c, *spatial) with two or three spatial axes, got {tuple(array.shape)}")
    if not torch.isfinite(array).all():
        raise GlasError(f"a volume must hold finite numbers, got NaN or infinity in one of {tuple(array.shape)}")
    return array.contiguous()


def as_reference(background: Background, volume: torch.Tensor) -> torch.Tensor:
    """The background as a float32 volume of the given one's shape.

    Raises
    ------
    GlasError
        Not finite, or a shape that is neither ``(*spatial)`` nor ``(c, *spatial)``.
    """
    reference = _float32(background)
    if reference is None:
        raise GlasError(f"background must be a number or an image, got {type(background).__name__}")
    if reference.ndim and tuple(reference.shape) not in (tuple(volume.shape), tuple(volume.shape[1:])):
        raise GlasError(f"background must be a number or of shape {tuple(volume.shape)}, got {tuple(reference.shape)}")
    if not torch.isfinite(reference).all():
        raise GlasError("background must hold finite numbers, got NaN or infinity")
    return reference.expand(volume.shape).contiguous()


def _float32(values: object) -> torch.Tensor | None:
    """A number or array as a float32 tensor on the CPU; None when it holds no real numbers.

    NumPy converts first: torch takes neither foreign byte order, nor negative strides, nor wide unsigned integers.
    """
    if isinstance(values, torch.Tensor):
        return None if values.is_complex() else values.detach().to(device="cpu", dtype=torch.float32)
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            return None
        return torch.from_numpy(np.array(array, dtype=np.float32))
    except (TypeError, ValueError):
        return None


@contextmanager
def _ticker(progress: Progress) -> Iterator[Callable[[int, int], None]]:
    """What is called after every batch; True draws a bar without any library."""
    if callable(progress):
        yield progress
        return
    if not progress:
        yield lambda done, total: None
        return

    def draw(done: int, total: int) -> None:
        filled = 30 * done // total
        sys.stderr.write(f"\r[{'=' * filled}{' ' * (30 - filled)}] {done}/{total} forwards")
        sys.stderr.flush()

    try:
        yield draw
    finally:
        sys.stderr.write("\n")
