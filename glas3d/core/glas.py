"""GLAS: light and shade a volume, evaluate the model, and draw the map (Eq. 1 to 3).

`GLAS.explain` reads in this order: inputs are checked (`_check`), masks are made (`_light_and_shadow`), the model is
evaluated (`_evaluate`), and its outputs become scores and maps (`_score`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch

from glas3d.core import saliency, score
from glas3d.core.accelerate.recompute import evaluate_changed_windows
from glas3d.core.affine import transformed_once
from glas3d.core.axes import per_axis
from glas3d.core.covariates import Covariates, CovariateScores, WithEmptyMasks
from glas3d.core.cover import Cover, overlaps, reached
from glas3d.core.explanation import COMPUTATION_SETTINGS, Explanation
from glas3d.core.gaussian import Masks, gaussian_masks
from glas3d.core.independence import Probe
from glas3d.core.link import are_exclusive, has_logits, log_odds_model, probability_of, with_resolved_link
from glas3d.core.model import HasState, Predict, State, classes_of
from glas3d.core.modules import EvalMode, modules_in, refuse_without_values
from glas3d.core.perturb import LightAndShadow, Perturbations
from glas3d.core.score import Target
from glas3d.core.search import Grid, Search, Segments, resolve_search
from glas3d.core.settings import Settings
from glas3d.core.shapes import Ellipsoids, SoftSegments
from glas3d.core.volume import Background, as_reference, as_volume
from glas3d.display import ShownInNotebooks, Summary
from glas3d.errors import GlasError
from glas3d.options import accepts, parse
from glas3d.progress import Progress, reported

T = TypeVar("T")

# Values in a batch by default. On a CPU small batches keep a network's activations in cache, and in memory that the
# allocator does not return between forward passes (measured: 2 to 4 scans of 48 x 56 x 48 are twice as fast as 32).
_BATCH_VALUES = {"cpu": 2**19, "cuda": 2**24}
_SMALLEST_BATCH, _LARGEST_BATCH = 2, 64
# Bytes that a network's activations may take for one value of an input. An estimate: a batch that is still too large
# is halved.
_MEMORY_A_VALUE = 256


def default_batch_size(values: int, device: torch.device) -> int:
    """Return how many inputs of so many values (channels times voxels) one forward pass takes by default."""
    fitting = _BATCH_VALUES.get(device.type, _BATCH_VALUES["cuda"]) // values
    if device.type == "cuda" and torch.cuda.is_available():  # a study may be planned on another machine than it runs
        fitting = min(fitting, torch.cuda.mem_get_info(device)[0] // (_MEMORY_A_VALUE * values))
    return max(_SMALLEST_BATCH, min(_LARGEST_BATCH, fitting))


@accepts(Settings)
class GLAS(ShownInNotebooks):
    """Gaussian light and shadow (Oh, Kim & Oh 2020, Eq. 1-3), for images and volumes alike.

    Parameters
    ----------
    predict
        The model, a `Predictor` or any callable: returns probabilities ``(n, k)`` for a batch ``(n, c, *spatial)``
        float32. The batch holds the volume's own intensities: normalisation belongs to the model.
    background
        What replaces the volume outside of light and inside of shadow: 0 (darkness, the paper), a number, or a
        reference of shape ``(*spatial)`` or ``(c, *spatial)`` in the volume's own intensities.
    progress
        True draws one line on standard error, or in a notebook in the output of the cell; a callable is called with
        the model evaluations done and in all.
    evidence
        Evaluate the model on the background too, so that explanations have evidence and density whatever the fusion of
        light and shadow; ``fusion="mean"`` always does.
    **options
        The settings of `glas3d.core.settings.Settings`.

    Raises
    ------
    GlasError
        A model that is not callable or is a bare torch module, or a setting outside its choices or range.

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
        evidence: bool = False,
        **options: Any,
    ) -> None:
        if isinstance(predict, torch.nn.Module):
            raise GlasError(
                "a torch module does not say whether it returns logits or probabilities: "
                'give Predictor(net, activation="softmax"), "sigmoid" or "none"'
            )
        if not callable(predict):
            raise GlasError(f"predict must be a Predictor or a callable, got {type(predict).__name__}")
        self.predict = predict
        self.settings: Settings
        (self.settings,) = parse(options, Settings, caller="GLAS")
        self.background = background
        self.progress = progress
        self.evidence = evidence

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self._shown_settings().items())
        return f"GLAS({_name_of(self.predict)}, {settings})"

    def _summary(self) -> Summary:
        return Summary("GLAS: Gaussian light and shadow", {"model": _name_of(self.predict)} | self._shown_settings())

    def _shown_settings(self) -> dict[str, Any]:
        """Return the settings that everyone looks for, and those that are not the default."""
        settings, defaults = asdict(self.settings), asdict(Settings())
        shown = ("sigma_light", "sigma_shadow", "unit", "kernel", "fusion", "link")
        settings = {name: value for name, value in settings.items() if name in shown or value != defaults[name]}
        is_number = isinstance(self.background, int | float)
        return settings | {"background": self.background if is_number else "an image"}

    def replace(self, **changes: Any) -> GLAS:
        """Return the same explainer with some of its settings, or its model, changed."""
        kept = asdict(self.settings) | {name: getattr(self, name) for name in ("background", "progress", "evidence")}
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
            Class index or name, or a sequence of them: all are explained from the same model evaluations: ``2m + 1``,
            one more with evidence, or ``m + 1`` for light or shadow alone.
        search
            Where to search: a `Grid`, ``(m, ndim)`` voxel coordinates, or `Segments` (an integer array of the spatial
            shape is read as the labels of segments).
        spacing
            Size of a voxel in mm, one number for each axis; needed for ``unit="mm"``.
        mask
            ``(*spatial)`` booleans: search only where it is true.
        covariates
            Covariates of the participant, ranked next to the points: the model is then called with
            ``(batch, covariates (n, q))``.

        Returns
        -------
        One `Explanation`, or a tuple of them when ``target`` is a sequence.

        Raises
        ------
        GlasError
            An input that does not fit; the message names what was required and what was given.
        """
        targets, single = score.targets_of(target)

        def explain(glas: GLAS) -> tuple[Explanation, ...]:
            return glas._explain(volume, targets, search, spacing, mask, covariates)

        explanations = self.with_link(explain)
        return explanations[0] if single else explanations

    def with_link(self, explain: Callable[[GLAS], T]) -> T:
        """Explain by a function of this explainer whose link is resolved: ``"auto"`` becomes one of the other two.

        Several explanations that are joined are made inside of one function, so that all have the same link.

        Parameters
        ----------
        explain
            Is called with the explainer; once more where it turns out that the model has no log-odds.
        """
        link = self.settings.link
        return with_resolved_link(link, lambda own: explain(self if own == link else self.replace(link=own)))

    def _explain(
        self,
        volume: np.ndarray | torch.Tensor,
        targets: Sequence[Target],
        search: Search | Sequence[Sequence[float]],
        spacing: Sequence[float] | None,
        mask: np.ndarray | None,
        covariates: Covariates | None,
    ) -> tuple[Explanation, ...]:
        """Explain all targets with a link that is resolved."""
        task = self._check(volume, targets, search, spacing, mask, covariates)
        # not inference mode: what a module keeps of an evaluation could never be trained with
        with torch.inference_mode(False), torch.no_grad():
            inputs = self._light_and_shadow(task)
            outputs, record = self._evaluate(task, inputs)
            covers = self._covers(task, inputs)
        return self._score(task, outputs, covers, record)

    def recorded_settings(self, spacing: Sequence[float] | None = None) -> dict[str, Any]:
        """Return the settings as an explanation records them, without how its probabilities were computed.

        Parameters
        ----------
        spacing
            Size of a voxel in mm, one number for each axis; used with ``unit="mm"`` only.
        """
        settings = {k: v for k, v in asdict(self.settings).items() if k not in COMPUTATION_SETTINGS}
        if settings["link"] == "auto":
            if has_logits(self.predict):
                settings["link"] = "logit"
            else:  # known when the model was evaluated
                del settings["link"]
        voxel = None if spacing is None else self._spacing(spacing, len(spacing))
        return settings | {"spacing": None if voxel is None else list(voxel)}

    def spread(
        self,
        points: np.ndarray,
        values: np.ndarray,
        shape: Sequence[int],
        spacing: Sequence[float] | None = None,
    ) -> np.ndarray:
        """Spread the values of points over maps with this explainer's settings (Eq. 3).

        Parameters
        ----------
        points
            ``(m, ndim)`` voxel coordinates.
        values
            ``(k, m)``, one row for each map.
        shape
            Voxels on each axis.
        spacing
            Size of a voxel in mm, one number for each axis; used with ``unit="mm"`` only.

        Returns
        -------
        ``(k, *shape)`` float32.
        """
        settings = self.settings
        sigma = per_axis(settings.sigma_spatial, len(shape), "sigma_spatial")
        voxel = spacing if settings.unit == "mm" else None
        return saliency.spread(points, values, shape, sigma, settings.distance, spacing=voxel)

    def covers(
        self,
        volume: np.ndarray | torch.Tensor,
        search: Search | Sequence[Sequence[float]],
        spacing: Sequence[float] | None = None,
        *,
        mask: np.ndarray | None = None,
    ) -> Mapping[str, Cover]:
        """Return what the masks of each end cover, for the inputs of `explain`; the model is not evaluated."""
        task = self._check(volume, [0], search, spacing, mask, None)
        return self._covers(task, self._light_and_shadow(task))

    def reached(
        self,
        volume: np.ndarray | torch.Tensor,
        search: Search | Sequence[Sequence[float]],
        within: np.ndarray,
        spacing: Sequence[float] | None = None,
        *,
        mask: np.ndarray | None = None,
    ) -> float:
        """Return which share of some voxels the masks reach; the model is not evaluated.

        Parameters
        ----------
        volume, search, spacing, mask
            As for `explain`.
        within
            ``(*spatial)`` booleans, at least one of them True.

        Returns
        -------
        The share of voxels at which all masks add up to a tenth or more, of the end whose masks reach less.
        """
        task = self._check(volume, [0], search, spacing, mask, None)
        inputs = self._light_and_shadow(task)
        ends = {id(masks): masks for masks in (inputs.light, inputs.shadow) if masks is not None}
        return min(reached(masks, within, task.device) for masks in ends.values())

    def overlaps(
        self, volume: np.ndarray | torch.Tensor, segments: Segments, spacing: Sequence[float] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the share of each segment (column) that the mask of each (row) covers, for light and for shadow."""
        task = self._check(volume, [0], segments, spacing, None, None)
        inputs = self._light_and_shadow(task)
        ends = {"light": inputs.light, "shadow": inputs.shadow}
        return {end: overlaps(masks, segments, task.device) for end, masks in ends.items() if masks is not None}

    def _check(
        self,
        volume: np.ndarray | torch.Tensor,
        targets: Sequence[Target],
        search: Search | Sequence[Sequence[float]],
        spacing: Sequence[float] | None,
        mask: np.ndarray | None,
        covariates: Covariates | None,
    ) -> _Task:
        """Check the inputs of an explanation and resolve them; the model is not evaluated."""
        settings = self.settings
        if not targets:
            raise GlasError("target must be a class index or name or some of them, got an empty sequence")
        array = as_volume(volume)
        ndim = array.ndim - 1
        for name in ("sigma_light", "sigma_shadow", "sigma_spatial"):
            per_axis(getattr(settings, name), ndim, name)
        if settings.channel is not None and settings.channel >= len(array):
            raise GlasError(f"channel must be one of the volume's {len(array)}, counted from 0, got {settings.channel}")
        if covariates is not None and not isinstance(covariates, Covariates):
            raise GlasError(f"covariates must be Covariates.of(values, reference), got {type(covariates).__name__}")
        voxel = self._spacing(spacing, ndim)
        points, segments = resolve_search(search, array.shape[1:], mask)
        predict, device = score.bind(self.predict, array)
        if settings.link == "logit":
            predict = log_odds_model(predict)
        classes = classes_of(self.predict)
        task = _Task(array, targets, points, segments, mask, voxel, covariates, predict, device, classes)
        task.columns(None)  # names that the model does not have
        return task

    def _spacing(self, spacing: Sequence[float] | None, ndim: int) -> tuple[float, ...] | None:
        """Return the size of a voxel in mm on each axis; None where distances are in voxels."""
        if self.settings.unit != "mm":
            return None
        if spacing is None:
            raise GlasError('unit="mm" needs the spacing: the size of a voxel in mm, one for each axis')
        voxel = per_axis(spacing, ndim, "spacing")
        if not np.isfinite(voxel).all():
            raise GlasError(f"spacing must be finite, got {spacing!r}")
        return voxel

    def _light_and_shadow(self, task: _Task) -> LightAndShadow:
        """Make the masks, on the model's device next to the volume and its background."""
        settings = self.settings
        light = self._masks(task, settings.sigma_light) if settings.evaluates_light else None
        same = light is not None and settings.sigma_light == settings.sigma_shadow
        shadow = light if same else self._masks(task, settings.sigma_shadow)
        return LightAndShadow(
            task.volume.to(task.device),
            as_reference(self.background, task.volume).to(task.device),
            light=light,
            shadow=shadow if settings.evaluates_shadow else None,
            channel=settings.channel,
            bare=self.evaluates_background,
        )

    @property
    def evaluates_background(self) -> bool:
        """Whether the background alone is evaluated."""
        return self.has_evidence or (self.settings.fusion == "light" and self.settings.link == "logit")

    @property
    def has_evidence(self) -> bool:
        """Whether both ends and the background are evaluated, which evidence needs."""
        settings = self.settings
        both = settings.evaluates_light and settings.evaluates_shadow
        return both and (self.evidence or settings.fusion == "mean")

    def _covers(self, task: _Task, inputs: LightAndShadow) -> dict[str, Cover]:
        """Return what the masks of each end cover, where evidence or density is made."""
        covers: dict[str, Cover] = {}
        if not (self.has_evidence or self.settings.density):
            return covers
        searched = task.searched
        for name, masks in (("light", inputs.light), ("shadow", inputs.shadow)):
            if "light" in covers and masks is inputs.light:
                covers[name] = covers["light"]
            elif masks is not None:
                own = masks.first if isinstance(masks, WithEmptyMasks) else masks
                covers[name] = Cover.of(own, task.shape, searched, task.device)
        return covers

    def _masks(self, task: _Task, sigma: float | tuple[float, ...]) -> Masks:
        """Return the points' masks of the chosen shape, and an empty one for each covariate."""
        kernel, shape, segments = self.settings.kernel, task.shape, task.segments
        each = per_axis(sigma, len(shape), "sigma")
        masks: Masks
        if kernel == "gaussian" or kernel == "exponential":
            masks = gaussian_masks(task.points, shape, each, kernel, spacing=task.spacing, device=task.device)
        elif segments is None:
            raise GlasError(f'kernel="{kernel}" takes its shape from segments: search an atlas, not points')
        elif kernel == "ellipsoid":
            masks = Ellipsoids.of(segments, each, spacing=task.spacing, device=task.device)
        else:
            masks = SoftSegments(segments, each, spacing=task.spacing, device=task.device)
        return masks if task.covariates is None else WithEmptyMasks(masks, len(task.covariates.names))

    def _evaluate(self, task: _Task, inputs: LightAndShadow) -> tuple[score.Outputs, dict[str, Any]]:
        """Evaluate the model on all inputs; also return the record of how that was done."""
        settings = self.settings
        size = self._batch_size(task.volume.numel(), task.device)
        score.with_engine(task.predict, settings.engine, 1)  # refuse an engine before the model is evaluated
        recomputation: dict[str, Any] = {}
        modules = modules_in(task.predict)
        refuse_without_values(modules)
        with EvalMode(modules) as evaluation, reported(self.progress) as progress:
            with evaluation.watching():
                probe = Probe.of(
                    task.predict,
                    inputs,
                    task.points,
                    size,
                    check=task.check_classes,
                    covariates=task.covariates_of,
                    state=self._state(),
                )
            if probe.one_by_one:
                size = 1
            predict = task.predict
            if settings.cut is None:  # recomputing follows the transform itself
                predict, inputs = transformed_once(predict, inputs, probe.numbers)
            perturbations = Perturbations(inputs, size)
            n_batches = math.ceil(len(perturbations) / perturbations.batch_size)
            predict = score.with_engine(predict, settings.engine, n_batches)

            def check_engine(predict: Predict, batch_size: int, output: torch.Tensor) -> bool:
                return probe.check_engine(predict, inputs, batch_size, output)

            if settings.cut is None:
                outputs = score.evaluate_all(
                    predict, perturbations, task.check_classes, progress, task.covariates_of, check_engine
                )
            else:
                outputs, how = evaluate_changed_windows(
                    predict,
                    perturbations,
                    task.check_classes,
                    progress,
                    task.covariates_of,
                    check_engine,
                    cut=settings.cut,
                    always=settings.cut_always,
                    batch_size=(lambda values: 1)
                    if probe.one_by_one
                    else partial(self._batch_size, device=task.device),
                )
                recomputation = {"recomputed": asdict(how)}
        record = {
            "batch_size": perturbations.batch_size,
            "spacing": None if task.spacing is None else list(task.spacing),
            "evaluations": len(perturbations),
            "device": task.device.type,
            **({"one_by_one": probe.one_by_one} if probe.one_by_one else {}),
            **score.engine_record(predict),
            **recomputation,
        }
        if settings.link == "logit":
            rows = np.vstack([outputs.intact, outputs.light, outputs.shaded])
            record["exclusive_classes"] = are_exclusive(rows[~np.isnan(rows).any(axis=1)])
        return outputs, asdict(settings) | record

    def _state(self) -> State | None:
        """Return what decides the model's outputs, log-odds or not; None where it cannot be known."""
        state = self.predict.state() if isinstance(self.predict, HasState) else None
        return None if state is None else replace(state, key=(state.key, self.settings.link))

    def _batch_size(self, values: int, device: torch.device) -> int:
        return self.settings.batch_size or default_batch_size(values, device)

    def _score(
        self, task: _Task, outputs: score.Outputs, covers: Mapping[str, Cover], record: dict[str, Any]
    ) -> tuple[Explanation, ...]:
        """Make scores of the outputs (Eq. 1 and 2) and maps of the scores (Eq. 3), for all targets at once."""
        settings, m = self.settings, len(task.points)
        columns = task.columns(len(outputs.intact))
        intact, bare = outputs.intact[columns], outputs.bare[columns]
        light = outputs.light[:, columns]  # (points and covariates, targets), as drop, shadow and all scores
        drop = intact - outputs.shaded[:, columns]
        shadow = np.abs(drop) + settings.gamma
        fuse = partial(score.fuse, light=light, drop=drop, bare=bare, link=settings.link, gamma=settings.gamma)
        sums: dict[str, Any] = {}
        for end, cover in covers.items():
            of_covariates = np.full(len(light) - m, np.nan)  # they have no voxels
            sums[f"{end}_sum"] = np.concatenate([cover.sums, of_covariates])[:, None]
        evidence = fuse("mean") if self.has_evidence else None
        density = fuse(settings.fusion, **sums) if self.has_evidence else None
        scores = fuse(settings.fusion, **(sums if settings.density else {}))
        if task.segments is None:
            maps = self.spread(task.points, scores[:m].T, task.shape, task.spacing)
        else:
            maps = task.segments.paint(scores[:m].T)
        return tuple(
            Explanation(
                target=column,
                probability=float(probability_of(intact[i], settings.link)),
                points=task.points,
                light=light[:m, i].copy(),
                shadow=shadow[:m, i].copy(),
                drop=drop[:m, i].copy(),
                score=scores[:m, i].copy(),
                saliency=maps[i],
                segments=task.segments,
                settings=record,
                covariates=None
                if task.covariates is None
                else CovariateScores(
                    task.covariates.names,
                    light=light[m:, i].copy(),
                    shadow=shadow[m:, i].copy(),
                    drop=drop[m:, i].copy(),
                    score=scores[m:, i].copy(),
                    evidence=None if evidence is None else evidence[m:, i].copy(),
                ),
                outputs=probability_of(outputs.intact, settings.link),
                output=float(intact[i]),
                effect=float(intact[i] - bare[i]),
                evidence=None if evidence is None else evidence[:m, i].copy(),
                density=None if density is None else density[:m, i].copy(),
                covers=covers,
                class_name=None if task.classes is None else str(task.classes[column]),
            )
            for i, column in enumerate(columns)
        )


def _name_of(predict: Predict) -> str:
    """Return what a model is called: a function by its name, anything else by its representation."""
    return str(getattr(predict, "__name__", None) or repr(predict))


@dataclass(frozen=True, eq=False)
class _Task:
    """One volume and all that is needed to explain it, checked and resolved.

    Attributes
    ----------
    volume
        ``(c, *spatial)`` float32 on the CPU.
    targets
        Classes to explain, as they were given.
    points, segments
        The ``m`` points of the search, and its segments when it has some.
    mask
        ``(*spatial)``, true where to search; None: everywhere.
    spacing
        Size of a voxel in mm on each axis, when distances are in mm.
    covariates
        Ranked next to the points, when there are any.
    predict, device, classes
        The model bound to the volume, its device, and its class names when it has some.
    """

    volume: torch.Tensor
    targets: Sequence[Target]
    points: np.ndarray
    segments: Segments | None
    mask: np.ndarray | None
    spacing: tuple[float, ...] | None
    covariates: Covariates | None
    predict: Predict
    device: torch.device
    classes: Sequence[str] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels on each axis."""
        return tuple(self.volume.shape[1:])

    @property
    def searched(self) -> np.ndarray | None:
        """``(*spatial)`` booleans, the voxels that are searched; None: all."""
        if self.segments is not None:
            return np.isin(self.segments.labels, self.segments.index)
        return None if self.mask is None else np.asarray(self.mask, dtype=bool)

    @property
    def covariates_of(self) -> score.CovariatesOf | None:
        """What gives the covariates of a batch."""
        return None if self.covariates is None else partial(self.covariates.rows, points=len(self.points))

    def columns(self, n_classes: int | None) -> list[int]:
        """Return the output column of each target; ``n_classes`` is None until the model was evaluated."""
        return [score.class_index(target, self.classes, n_classes) for target in self.targets]

    def check_classes(self, n_classes: int) -> None:
        """Refuse targets beyond the model's outputs."""
        self.columns(n_classes)
