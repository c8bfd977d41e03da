"""GLAS: light and shade a volume, ask the model, draw the map (docs/method.md)."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from glas3d.core import saliency, score
from glas3d.core.axes import per_axis
from glas3d.core.covariates import Covariates, CovariateScores, WithCovariates
from glas3d.core.explanation import Explanation
from glas3d.core.gaussian import Masks, gaussian_masks
from glas3d.core.model import Predict, classes_of
from glas3d.core.perturb import Perturbations
from glas3d.core.recompute import WindowedPerturbations, evaluate_changed_windows
from glas3d.core.score import Target
from glas3d.core.search import Grid, Search, Segments, resolve_search
from glas3d.core.settings import Settings
from glas3d.core.shapes import Ellipsoids, SoftSegments
from glas3d.core.volume import Background, as_reference, as_volume
from glas3d.errors import GlasError
from glas3d.options import accepts, parse

Progress = bool | Callable[[int, int], None]

# Values a batch by default. On a CPU small batches keep a network's activations in cache and in memory that the
# allocator does not give back between forwards (measured: 2 to 4 scans of 48 x 56 x 48 are twice as fast as 32).
_BATCH_VALUES = {"cpu": 2**19, "cuda": 2**24}
_SMALLEST_BATCH, _LARGEST_BATCH = 2, 64
# Bytes that a value of an input may come to in a network's activations: a batch that is too large after all is halved.
_MEMORY_A_VALUE = 256


def default_batch_size(values: int, device: torch.device) -> int:
    """Inputs a forward for volumes of so many values (channels times voxels)."""
    fitting = _BATCH_VALUES.get(device.type, _BATCH_VALUES["cuda"]) // values
    if device.type == "cuda" and torch.cuda.is_available():  # a study may be planned where its workers are not
        fitting = min(fitting, torch.cuda.mem_get_info(device)[0] // (_MEMORY_A_VALUE * values))
    return max(_SMALLEST_BATCH, min(_LARGEST_BATCH, fitting))


@accepts(Settings)
class GLAS:
    """Gaussian light and shadow (Oh, Kim & Oh 2020, Eq. 1-3), for images and volumes alike.

    Parameters
    ----------
    predict
        Answers a batch ``(n, c, *spatial)`` float32 with probabilities ``(n, k)``: a `Predictor`, or any
        callable. The intensities given are the volume's own: normalisation belongs to ``predict``.
    background
        What a mask leaves or puts in place: 0 (darkness, the paper), a number, or a reference of shape
        ``(*spatial)`` or ``(c, *spatial)`` in the volume's own intensities.
    progress
        True draws a plain bar on standard error; a callable is called with the model evaluations done and in all.
    **options
        The settings of `glas3d.core.settings.Settings`.

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
        background: Background = 0.0,
        progress: Progress = False,
        **options: Any,
    ) -> None:
        if isinstance(predict, torch.nn.Module):
            raise GlasError(
                "a torch module does not say whether it answers with logits or probabilities: "
                'give Predictor(net, activation="softmax"), "sigmoid" or "none"'
            )
        if not callable(predict):
            raise GlasError(f"predict must be a Predictor or a callable, got {type(predict).__name__}")
        self.predict = predict
        self.settings: Settings
        (self.settings,) = parse(options, Settings, caller="GLAS")
        self.background = background
        self.progress = progress

    def replace(self, **changes: Any) -> GLAS:
        """The same explainer with some of its settings changed."""
        kept = asdict(self.settings) | {"background": self.background, "progress": self.progress}
        return GLAS(changes.pop("predict", self.predict), **(kept | changes))

    def explain(
        self,
        volume: np.ndarray | torch.Tensor,
        target: Target | Sequence[Target] = 1,
        search: Search | Sequence[Sequence[float]] = Grid(15),  # noqa: B008 (frozen)
        spacing: Sequence[float] | None = None,
        *,
        mask: np.ndarray | None = None,
        covariates: Covariates | None = None,
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
        mask
            Booleans of the spatial shape: look only where it is true.
        covariates
            Numbers beside the volume: ``predict`` is then asked with ``(batch, covariates (n, q))``, and they are
            ranked beside the points.

        Returns
        -------
        One `Explanation`, or a tuple of them when ``target`` is a sequence.

        Raises
        ------
        GlasError
            Input that does not fit; the message says what was required and what came.
        """
        targets, single = score.targets_of(target)
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
        points, segments = resolve_search(search, shape, mask)
        predict, device = score.bind(self.predict, array)
        classes = classes_of(self.predict)

        if settings.channel is not None and settings.channel >= len(array):
            raise GlasError(f"channel must be one of the volume's {len(array)}, counted from 0, got {settings.channel}")
        beside = None
        if covariates is not None:
            if not isinstance(covariates, Covariates):
                raise GlasError(f"covariates must be Covariates.of(values, reference), got {type(covariates).__name__}")
            given = covariates

            def beside(numbers: list[int], size: int) -> torch.Tensor:
                rows = given.rows(numbers, size, len(points))
                return torch.as_tensor(rows, dtype=torch.float32, device=device)

        with torch.inference_mode():
            moved = array.to(device)
            light_masks, shadow_masks = (
                self._masks(points, segments, shape, sigma, voxel, device, covariates)
                for sigma in (light_sigma, shadow_sigma)
            )
            background = as_reference(self.background, array).to(device)

            def fitting(values: int) -> int:
                return settings.batch_size or default_batch_size(values, device)

            perturbations = Perturbations(
                moved, background, light_masks, shadow_masks, fitting(array.numel()), settings.channel
            )
            columns: list[int] = [score.class_index(t, classes, None) for t in targets]

            def check(n_classes: int) -> None:
                columns[:] = [score.class_index(t, classes, n_classes) for t in targets]

            batches = math.ceil(len(perturbations) / perturbations.batch_size)
            predict = score.with_engine(predict, settings.engine, batches)
            with _ticker(self.progress) as tick:
                if settings.cut is None:
                    answers, how = score.evaluate_all(predict, perturbations, check, tick, beside), None
                else:
                    changes = WindowedPerturbations(
                        moved, background, light_masks, shadow_masks, settings.cut, fitting, settings.channel
                    )
                    answers, how = evaluate_changed_windows(
                        predict, perturbations, changes, check, tick, beside, always=settings.cut_always
                    )
            intact, light, shaded = answers
        record = asdict(settings) | {
            "batch_size": perturbations.batch_size,
            "spacing": None if voxel is None else list(voxel),
            "evaluations": len(perturbations),
            "device": device.type,
            **score.engine_record(predict),
        }
        if how is not None:
            record["recomputed"] = asdict(how)

        # Eq. 1 and 2 for all classes at once, (m, targets), and one pass over the weights of Eq. 3
        drop = intact[columns] - shaded[:, columns]
        lit, shadow = light[:, columns], np.abs(drop) + settings.gamma
        scores = score.fuse(lit, shadow, settings.fusion)
        m = len(points)
        if segments is None:
            drawn = self.spread(points, scores[:m].T, shape, voxel)
        else:
            drawn = segments.paint(scores[:m].T)
        explanations = tuple(
            Explanation(
                target=column,
                probability=float(intact[column]),
                points=points,
                light=lit[:m, i].copy(),
                shadow=shadow[:m, i].copy(),
                drop=drop[:m, i].copy(),
                score=scores[:m, i].copy(),
                saliency=drawn[i],
                segments=segments,
                settings=record,
                covariates=None
                if covariates is None
                else CovariateScores(covariates.names, *(v[m:, i].copy() for v in (lit, shadow, drop, scores))),
            )
            for i, column in enumerate(columns)
        )
        return explanations[0] if single else explanations

    def _masks(
        self,
        points: np.ndarray,
        segments: Segments | None,
        shape: Sequence[int],
        sigma: Sequence[float],
        spacing: Sequence[float] | None,
        device: torch.device,
        covariates: Covariates | None,
    ) -> Masks:
        """The spots of the chosen shape, and an empty one for each covariate."""
        kernel = self.settings.kernel
        made: Masks
        if kernel == "gaussian" or kernel == "exponential":
            made = gaussian_masks(points, shape, sigma, kernel, spacing=spacing, device=device)
        elif segments is None:
            raise GlasError(f'kernel="{kernel}" takes its shape from segments: search an atlas, not points')
        elif kernel == "ellipsoid":
            made = Ellipsoids.of(segments, sigma, spacing=spacing, device=device)
        else:
            made = SoftSegments(segments, sigma, spacing=spacing, device=device)
        return made if covariates is None else WithCovariates(made, len(covariates.names))

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
