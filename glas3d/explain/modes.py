"""The modes of an explanation: plain, versus, recursive, per channel, scales, refined, several references.

`resolve_mode` chooses one from the options, once, for scans, images and studies alike. A mode gives one `ModeResult`
for each target: the explanation that stands for it, and the explanations it was made from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from glas3d.core.accelerate.refine import CoarseToFine
from glas3d.core.explanation import Explanation, class_difference
from glas3d.core.glas import GLAS
from glas3d.core.model import classes_of
from glas3d.core.reference import consensus, references
from glas3d.core.rglas import RGLAS, RecursiveExplanation
from glas3d.core.scale import fuse_scales, ladder
from glas3d.core.score import Target, class_index
from glas3d.core.search import resolve_search
from glas3d.core.settings import RecursionSettings
from glas3d.errors import GlasError
from glas3d.explain.options import ExplainOptions, ImageOptions, Overlap
from glas3d.explain.overlap import corrected
from glas3d.progress import Progress


@dataclass(frozen=True, eq=False)
class Task:
    """The volume to explain, its targets and where to search: all but the settings and the mode.

    Attributes
    ----------
    volume
        ``(c, *spatial)``, intensities before normalisation.
    targets
        Classes to explain, each an index or a name.
    search, spacing, mask, covariates
        As `GLAS.explain` takes them.
    backgrounds
        References by their names; a single reference has the empty name.
    channels
        Names of the channels.
    """

    volume: np.ndarray
    targets: list[Target]
    search: Any
    spacing: Sequence[float]
    mask: np.ndarray | None = None
    covariates: Any = None
    backgrounds: Mapping[str, Any] = field(default_factory=dict)
    channels: Sequence[str] = ()

    @property
    def target(self) -> Any:
        """The target, if there is one, else the list of all; modes that take one target refuse the list."""
        return self.targets[0] if len(self.targets) == 1 else self.targets

    def explain(self, glas: GLAS) -> list[Explanation]:
        """Return one explanation for each target, all from the same model evaluations."""
        explanations = glas.explain(
            self.volume, self.targets, self.search, self.spacing, mask=self.mask, covariates=self.covariates
        )
        assert isinstance(explanations, tuple)
        return list(explanations)


@dataclass(frozen=True, eq=False)
class ModeResult:
    """The result of a mode for one target.

    Attributes
    ----------
    explanation
        The explanation of the plain mode, or the explanation fused from the parts.
    fused
        Label for file names that tells how it was fused, such as ``"recursive"``; empty for the plain mode.
    parts
        The explanations it was fused from, by a label for file names.
    columns
        Further columns of the table, each ``(m,)``.
    recursion
        Every round, in the recursive mode.
    against
        Index of the class that the target is compared with.
    by_background
        The explanation with each background, by its name, of which it is the consensus; None: it is none.
    """

    explanation: Explanation
    fused: str = ""
    parts: Mapping[str, Explanation] = field(default_factory=dict)
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    recursion: RecursiveExplanation | None = None
    against: int | None = None
    by_background: Mapping[str, Explanation] | None = None


class Mode(ABC):
    """A way to evaluate the model and to join the results.

    Attributes
    ----------
    name
        The mode in messages, named by the option that chooses it.
    fused
        Label for file names that tells how the result is fused; empty where it is not.
    against
        The class that the target is compared with; None: with none.
    """

    name: ClassVar[str]
    fused: str = ""
    against: Target | None = None

    def recorded_settings(self, glas: GLAS) -> dict[str, Any]:
        """Return the settings that results of this mode record besides those of the explainer, or in their place."""
        return {}

    def check(self, glas: GLAS) -> None:  # noqa: B027 (most modes have nothing to check)
        """Refuse settings of the mode before the model is evaluated.

        Raises
        ------
        GlasError
            A setting outside its range.
        """

    @abstractmethod
    def evaluate(self, glas: GLAS, task: Task) -> list[ModeResult]:
        """Evaluate the model, and return one result for each target."""


class Plain(Mode):
    """The plain mode: each target by itself."""

    name = "no mode"

    def evaluate(self, glas: GLAS, task: Task) -> list[ModeResult]:
        """Evaluate the model once for all targets."""
        return [ModeResult(explanation) for explanation in task.explain(glas)]


@dataclass(frozen=True)
class Versus(Mode):
    """The mode of ``versus``: the evidence for the target over another class."""

    against: Target
    name = "versus"

    @property
    def fused(self) -> str:  # type: ignore[override]
        """``versus`` and the other class."""
        return f"versus{self.against}"

    def recorded_settings(self, glas: GLAS) -> dict[str, Any]:
        """Return the index of the other class."""
        return {"against": class_index(self.against, classes_of(glas.predict), None, "versus")}

    def evaluate(self, glas: GLAS, task: Task) -> list[ModeResult]:
        """Evaluate the model for both classes, and return their difference."""
        targets = [*task.targets, self.against]
        classes = classes_of(glas.predict)
        n_classes = None if classes is None else len(classes)
        other = class_index(self.against, classes, n_classes, "versus")
        if class_index(targets[0], classes, n_classes) == other:
            name = self.against if classes is None else classes[other]
            raise GlasError(f"versus must be another class than the target, got {name} for both")
        explanation, opponent = replace(task, targets=targets).explain(glas)
        parts = {str(target): part for target, part in zip(targets, (explanation, opponent), strict=True)}
        difference = class_difference(explanation, opponent)
        return [ModeResult(difference, self.fused, parts, against=opponent.target)]


@dataclass(frozen=True)
class Recursive(Mode):
    """The mode of ``recursive``, Algorithm 1.

    Saliency and score are those of all rounds fused; light, shadow and drop are those of the first round.
    """

    settings: Mapping[str, Any]
    name = "recursive"
    fused = "recursive"

    def recorded_settings(self, glas: GLAS) -> dict[str, Any]:
        """Return the settings of the recursion."""
        return {"recursion": asdict(RecursionSettings(**self.settings))}

    def check(self, glas: GLAS) -> None:
        """Refuse settings of `RGLAS` that are outside their range."""
        RGLAS(glas, **self.settings)

    def evaluate(self, glas: GLAS, task: Task) -> list[ModeResult]:
        """Explain, mask out and explain again."""
        recursion = RGLAS(glas, **self.settings).explain(
            task.volume, task.target, task.search, task.spacing, mask=task.mask
        )
        first = recursion.rounds[0].explanation
        settings = first.settings | self.recorded_settings(glas)
        fused = replace(first, score=recursion.values, saliency=recursion.saliency, settings=settings)
        return [ModeResult(fused, self.fused, recursion=recursion)]


@dataclass(frozen=True)
class Refined(Mode):
    """The mode of ``refine``: a share of the points is evaluated, the others are estimated."""

    settings: Mapping[str, Any]
    name = "refine"
    fused = "refined"

    def recorded_settings(self, glas: GLAS) -> dict[str, Any]:
        """Return the share of points that is evaluated, and when to end sooner."""
        refinement = CoarseToFine(glas, **self.settings)
        return {"coarse_to_fine": {"budget": refinement.budget, "tolerance": refinement.tolerance}}

    def check(self, glas: GLAS) -> None:
        """Refuse settings of `CoarseToFine` that are outside their range."""
        CoarseToFine(glas, **self.settings)

    def evaluate(self, glas: GLAS, task: Task) -> list[ModeResult]:
        """Evaluate the model where the score is large or may be."""
        refinement = CoarseToFine(glas, **self.settings).explain(
            task.volume, task.target, task.search, task.spacing, mask=task.mask
        )
        columns: dict[str, np.ndarray] = {"evaluated": refinement.evaluated.astype(np.int8)}
        if refinement.deviation is not None:
            columns["score_error"] = refinement.deviation
        if refinement.together is not None:
            columns["together"] = refinement.together
        return [ModeResult(refinement.explanation, self.fused, columns=columns)]


@dataclass(frozen=True)
class Scales(Mode):
    """The mode of ``scales``: several sigmas, joined by the scale that explains each point best."""

    factors: Sequence[float]
    name = "scales"
    fused = "scales"

    def recorded_settings(self, glas: GLAS) -> dict[str, Any]:
        """Return the scales, and the sigmas of each."""
        explainers = dict(sorted(ladder(glas, self.factors).items()))
        sigmas = {
            name: [getattr(each.settings, name) for each in explainers.values()]
            for name in ("sigma_light", "sigma_shadow")
        }
        return {"scales": list(explainers), **sigmas}

    def check(self, glas: GLAS) -> None:
        """Refuse factors that are not positive and different."""
        ladder(glas, self.factors)

    def evaluate(self, glas: GLAS, task: Task) -> list[ModeResult]:
        """Explain with each scale; the table keeps each point's own scale."""
        by_factor = _explain_each(ladder(glas, self.factors), task)
        results = []
        for i in range(len(task.targets)):
            fused = fuse_scales({factor: explanations[i] for factor, explanations in by_factor.items()})
            parts = {f"scale{factor:g}".replace(".", "p"): part for factor, part in fused.explanations.items()}
            results.append(ModeResult(fused.explanation, self.fused, parts, {"scale": fused.scale}))
        return results


class EachChannel(Mode):
    """The mode of ``channels="each"``: all channels together, and each of them alone."""

    name = 'channels="each"'

    def evaluate(self, glas: GLAS, task: Task) -> list[ModeResult]:
        """Explain with all channels masked, then with each channel masked alone."""
        names = task.channels
        if len(names) != len(task.volume) or len(names) < 2:
            raise GlasError(f"channels one by one need two or more, got {len(task.volume)}")
        by_channel = _explain_each({None: glas} | {name: glas.replace(channel=i) for i, name in enumerate(names)}, task)
        together = by_channel.pop(None)
        return [
            ModeResult(explanation, parts={name: channel[i] for name, channel in by_channel.items()})
            for i, explanation in enumerate(together)
        ]


class References(Mode):
    """The mode of several backgrounds: several references, and what they agree on."""

    name = "several backgrounds"
    fused = "consensus"

    def evaluate(self, glas: GLAS, task: Task) -> list[ModeResult]:
        """Explain with each reference; the table keeps the signed drop under each, and how many agree on its sign."""
        explainers, first = references(glas, task.backgrounds), _first_equal(task.backgrounds)
        evaluated = _explain_each({name: explainers[name] for name in dict.fromkeys(first.values())}, task)
        by_reference = {name: evaluated[first[name]] for name in explainers}
        results = []
        for i in range(len(task.targets)):
            parts = {name: explanations[i] for name, explanations in by_reference.items()}
            agreed = consensus(parts)
            columns = {"sign": agreed.sign, "agreement": agreed.agreement}
            columns |= {f"drop_{name}": row for name, row in zip(agreed.names, agreed.drop, strict=True)}
            results.append(ModeResult(agreed.explanation, self.fused, parts, columns, by_background=parts))
        return results


@dataclass(frozen=True)
class WithoutOverlap(Mode):
    """The mode of ``overlap``: evidence of the regions, from that of masks which overlap them."""

    overlap: Overlap
    name = "overlap"

    def recorded_settings(self, glas: GLAS) -> dict[str, Any]:
        """Return the kind of regression."""
        return {"overlap": self.overlap}

    def check(self, glas: GLAS) -> None:
        """Refuse scores that are not evidence."""
        if glas.settings.fusion != "mean":
            raise GlasError(
                f'overlap is undone in the evidence of regions: give fusion="mean", got {glas.settings.fusion}'
            )

    def evaluate(self, glas: GLAS, task: Task) -> list[ModeResult]:
        """Evaluate the model as in the plain mode, and regress evidence on what the masks cover."""
        self.check(glas)
        _, segments = resolve_search(task.search, task.volume.shape[1:], task.mask)
        if segments is None:
            raise GlasError("overlap is undone between regions: search an atlas, not points")
        covered = glas.overlaps(task.volume, segments, task.spacing)
        return [ModeResult(corrected(each, covered, self.overlap)) for each in task.explain(glas)]


def resolve_mode(options: ExplainOptions | ImageOptions, *, what: str, single: bool, covariates: bool = False) -> Mode:
    """Choose the mode that the options name, or the plain one.

    Parameters
    ----------
    options
        The options, which choose at most one mode.
    what
        The input as error messages name it, such as ``"a scan"``.
    single
        Whether there is one target.
    covariates
        Whether the model takes covariates, which the plain mode alone can rank.

    Raises
    ------
    GlasError
        Several modes, or a mode that cannot be used with several targets or with covariates.
    """
    recursive, refine = options.recursive, options.refine
    chosen: list[Mode] = []
    if options.versus is not None:
        chosen.append(Versus(options.versus))
    if recursive is not False:
        chosen.append(Recursive({} if recursive is True else dict(recursive)))
    if options.scales is not None:
        chosen.append(Scales(options.scales))
    if refine is not None:
        chosen.append(Refined(refine if isinstance(refine, Mapping) else {"budget": refine}))
    if options.several_backgrounds:
        chosen.append(References())
    if options.channels == "each":
        chosen.append(EachChannel())
    if options.overlap is not None:
        chosen.append(WithoutOverlap(options.overlap))
    if len(chosen) > 1:
        names = " and ".join(mode.name for mode in chosen)
        raise GlasError(f"{what} is explained in one mode at a time, got {names}")
    mode = chosen[0] if chosen else Plain()
    if isinstance(mode, Versus) and not single:
        raise GlasError("versus sets one class against another: give one target")
    if covariates and chosen:
        raise GlasError(f"covariates are ranked in the plain mode only, got {mode.name} too")
    return mode


def _first_equal(backgrounds: Mapping[str, Any]) -> dict[str, str]:
    """Return the name of the first background that is equal to each, so that equal ones are evaluated once."""
    return {
        name: next(first for first, other in backgrounds.items() if _is_same(other, value))
        for name, value in backgrounds.items()
    }


def _is_same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and np.array_equal(one, other))


def _explain_each(explainers: Mapping[Any, GLAS], task: Task) -> dict[Any, list[Explanation]]:
    """Explain with each explainer, and count their progress as one."""
    explanations = {}
    for number, (name, glas) in enumerate(explainers.items()):
        progress = _share_of_progress(glas.progress, number, len(explainers))
        explanations[name] = task.explain(glas.replace(progress=progress))
    return explanations


def _share_of_progress(progress: Progress, number: int, parts: int) -> Progress:
    """Return the progress of one of several explanations, counted over all of them."""
    if not callable(progress):
        return progress
    report: Callable[[int, int], None] = progress
    return lambda done, total: report(number * total + done, parts * total)
