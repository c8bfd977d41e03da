"""The ways of asking: plainly, coarse to fine, again and again, against a class, over scales, references or channels.

Each gives one `Answer` a target: the explanation that stands for it, and the explanations that one was made from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from glas3d.core.explanation import Explanation, contrast
from glas3d.core.glas import GLAS, Progress
from glas3d.core.reference import consensus, references
from glas3d.core.refine import CoarseToFine
from glas3d.core.rglas import RGLAS, RecursiveExplanation
from glas3d.core.scale import adaptive, ladder
from glas3d.core.score import Target
from glas3d.errors import GlasError


@dataclass(frozen=True, eq=False)
class Answer:
    """What was found for one target.

    Attributes
    ----------
    explanation
        Of the one question, or fused from the parts.
    fused
        Enters the files' names, such as ``"recursive"``; empty for one plain question.
    parts
        What it was fused from, by a label that enters the files' names.
    columns
        ``(m,)`` each: what the table says beside its own columns.
    recursion
        Every round, when it was asked again and again.
    against
        The class it is contrasted with.
    """

    explanation: Explanation
    fused: str = ""
    parts: Mapping[str, Explanation] = field(default_factory=dict)
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    recursion: RecursiveExplanation | None = None
    against: int | None = None


@dataclass(frozen=True, eq=False)
class Question:
    """A volume and where to look: everything about a question but how it is asked."""

    volume: np.ndarray
    targets: list[Target]
    search: Any
    spacing: Sequence[float]
    mask: np.ndarray | None = None
    covariates: Any = None

    @property
    def single(self) -> Any:
        """Its target; of several all of them, which whoever follows one refuses."""
        return self.targets[0] if len(self.targets) == 1 else self.targets

    def put(self, glas: GLAS) -> list[Explanation]:
        """Ask once, for every target."""
        found = glas.explain(
            self.volume, self.targets, self.search, self.spacing, mask=self.mask, covariates=self.covariates
        )
        assert isinstance(found, tuple)
        return list(found)


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a question is asked: in one of these ways, or plainly; see `glas3d.explain.explain_img`."""

    versus: Target | None = None
    recursive: bool | Mapping[str, Any] = False
    scales: Sequence[float] | None = None
    refine: float | Mapping[str, Any] | None = None
    channels: str = "together"
    several_backgrounds: bool = False

    @property
    def refinement(self) -> Mapping[str, Any]:
        """Settings of `CoarseToFine`."""
        return self.refine if isinstance(self.refine, Mapping) else {"budget": self.refine}

    @property
    def asked(self) -> list[str]:
        """The ways that were asked for."""
        ways = {
            "versus": self.versus is not None,
            "recursive": self.recursive is not False,
            "scales": self.scales is not None,
            "refine": self.refine is not None,
            "several backgrounds": self.several_backgrounds,
            'channels="each"': self.channels == "each",
        }
        return [name for name, wanted in ways.items() if wanted]

    def check(self, what: str, *, single: bool) -> None:
        """Refuse several ways at once.

        Parameters
        ----------
        what
            Is asked about: ``"a scan"``.
        single
            Whether one target was given.
        """
        if self.channels not in ("together", "each"):
            raise GlasError(f'channels must be "together" or "each", got {self.channels!r}')
        if len(self.asked) > 1:
            raise GlasError(f"{what} is asked in one way at a time, got {' and '.join(self.asked)}")
        if self.versus is not None and not single:
            raise GlasError("versus sets one class against another: give one target")

    def ask(
        self, glas: GLAS, question: Question, backgrounds: Mapping[str, Any], channels: Sequence[str]
    ) -> list[Answer]:
        """The answers, one a target.

        Parameters
        ----------
        backgrounds
            By name, where there are several.
        channels
            Their names.
        """
        if self.versus is not None:
            both = replace(question, targets=[*question.targets, self.versus])
            return against(glas, both, [str(target) for target in both.targets])
        if self.recursive is not False:
            return recursively(glas, question, {} if self.recursive is True else dict(self.recursive))
        if self.channels == "each":
            return channel_by_channel(glas, question, channels)
        if self.scales is not None:
            return over_scales(glas, question, self.scales)
        if self.refine is not None:
            return coarse_to_fine(glas, question, self.refinement)
        if self.several_backgrounds:
            return by_reference(glas, question, backgrounds)
        return plainly(glas, question)


def plainly(glas: GLAS, question: Question) -> list[Answer]:
    """Each target on its own."""
    return [Answer(one) for one in question.put(glas)]


def recursively(glas: GLAS, question: Question, settings: Mapping[str, Any]) -> list[Answer]:
    """`RGLAS`: saliency and score are those of all rounds fused, light, shadow and drop the first round's."""
    found = RGLAS(glas, **settings).explain(
        question.volume, question.single, question.search, question.spacing, mask=question.mask
    )
    first = replace(found.rounds[0].explanation, score=found.values, saliency=found.saliency)
    return [Answer(first, "recursive", recursion=found)]


def coarse_to_fine(glas: GLAS, question: Question, settings: Mapping[str, Any]) -> list[Answer]:
    """`CoarseToFine`: which points were asked, and how far off the others may be, stays in the table."""
    found = CoarseToFine(glas, **settings).explain(
        question.volume, question.single, question.search, question.spacing, mask=question.mask
    )
    columns = {"asked": found.asked.astype(np.int8), "score_error": found.deviation}
    return [Answer(found.explanation, "refined", columns=columns)]


def against(glas: GLAS, question: Question, names: Sequence[str]) -> list[Answer]:
    """What speaks for the first target over the second."""
    one, other = question.put(glas)
    parts = dict(zip(names, (one, other), strict=True))
    return [Answer(contrast(one, other), f"versus{names[1]}", parts, against=other.target)]


def channel_by_channel(glas: GLAS, question: Question, names: Sequence[str]) -> list[Answer]:
    """All channels together, and each of them alone."""
    if len(names) != len(question.volume) or len(names) < 2:
        raise GlasError(f"channels one by one need two or more, got {len(question.volume)}")
    each = _each({None: glas} | {name: glas.replace(channel=i) for i, name in enumerate(names)}, question)
    together = each.pop(None)
    return [Answer(one, parts={name: found[i] for name, found in each.items()}) for i, one in enumerate(together)]


def by_reference(glas: GLAS, question: Question, backgrounds: Mapping[str, Any]) -> list[Answer]:
    """What several references agree on; the signed drop under each of them, and their agreement, stay in the table."""
    each = _each(references(glas, backgrounds), question)
    found = []
    for i in range(len(question.targets)):
        parts = {name: explanations[i] for name, explanations in each.items()}
        agreed = consensus(parts)
        columns = {"sign": agreed.sign, "agreement": agreed.agreement}
        columns |= {f"drop_{name}": row for name, row in zip(agreed.names, agreed.drop, strict=True)}
        found.append(Answer(agreed.explanation, "consensus", parts, columns))
    return found


def over_scales(glas: GLAS, question: Question, scales: Sequence[float]) -> list[Answer]:
    """All scales together; each point's own scale stays in the table."""
    each = _each(ladder(glas, scales), question)
    found = []
    for i in range(len(question.targets)):
        fused = adaptive({factor: explanations[i] for factor, explanations in each.items()})
        parts = {f"scale{factor:g}".replace(".", "p"): one for factor, one in fused.explanations.items()}
        found.append(Answer(fused.explanation, "scales", parts, {"scale": fused.scale}))
    return found


def _each(glases: Mapping[Any, GLAS], question: Question) -> dict[Any, list[Explanation]]:
    """Ask with each, their progress counted as one."""
    found = {}
    for number, (name, glas) in enumerate(glases.items()):
        found[name] = question.put(glas.replace(progress=_part(glas.progress, number, len(glases))))
    return found


def _part(progress: Progress, number: int, parts: int) -> Progress:
    if not callable(progress):
        return progress
    tick = progress
    return lambda done, total: tick(number * total + done, parts * total)
