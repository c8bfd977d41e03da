"""The explanation of one volume for one class, and the difference of two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from glas3d.core import saliency
from glas3d.core.account import Account, effect_in_log_odds
from glas3d.core.axes import per_axis
from glas3d.core.covariates import CovariateScores
from glas3d.core.cover import Cover
from glas3d.core.link import log_odds_against, probability_of
from glas3d.core.score import fuse
from glas3d.core.search import Segments
from glas3d.counts import counted
from glas3d.display import ShownInNotebooks, Summary, shown_output
from glas3d.errors import GlasError

# Of an explanation's settings, those that say how its probabilities were computed, and not which they are: two
# explanations may differ in these and still be compared.
COMPUTATION_SETTINGS = (
    "batch_size",
    "one_by_one",
    "device",
    "engine",
    "engine_version",
    "engine_threads",
    "engine_notes",
    "evaluations",
    "recomputed",
    "exclusive_classes",
)


@dataclass(frozen=True, eq=False)
class Explanation(ShownInNotebooks):
    """Light, shadow and score of every point of one volume for one class, and the map made of the scores.

    The *output* is the probability of the class, or with ``link="logit"`` its log-odds.

    Attributes
    ----------
    target
        Index of the explained class.
    probability
        ``P(y|I)`` of the intact volume, whatever the link.
    points
        ``(m, ndim)`` float64 voxel coordinates.
    light
        ``(m,)`` float64, ``f_l``, the output under light (Eq. 1); NaN where light is not evaluated.
    shadow
        ``(m,)`` float64, ``f_s`` (Eq. 2), its ``gamma`` included; NaN where shadow is not evaluated.
    drop
        ``(m,)`` float64, the signed output of the intact volume minus that under shadow: negative where shading raised
        it.
    score
        ``(m,)`` float64, ``f_l * f_s``, or what ``fusion``, ``link`` and ``density`` chose.
    saliency
        ``(*spatial)`` float32, unnormalised.
    segments
        The segments of an atlas search, else None.
    settings
        The settings it was made with and how it was computed, ready for JSON.
    covariates
        The same scores for the covariates, when the model takes some.
    outputs
        ``(k,)`` float64, the model's outputs for all classes of the intact volume; None: not known.
    output
        Output of the intact volume.
    effect
        How far that is above the output of the background alone; NaN where this is not known.
    evidence
        ``(m,)`` float64, ``(light - output of the background + drop) / 2``, signed: the mean of what a point
        contributes when it comes first and when it comes last. None where not both ends and the background were
        evaluated.
    density
        ``(m,)`` float64, the score made of ends that are each divided by the sum of their mask over voxels; None as
        for evidence.
    covers
        What the masks of ``"light"`` and of ``"shadow"`` cover; empty where that is not known, or not the same for all
        points.
    class_name
        Name of the explained class; None: the model names no classes.
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
    covariates: CovariateScores | None = None
    outputs: np.ndarray | None = None
    output: float = float("nan")
    effect: float = float("nan")
    evidence: np.ndarray | None = None
    density: np.ndarray | None = None
    covers: Mapping[str, Cover] = field(default_factory=dict)
    class_name: str | None = None

    @property
    def direction(self) -> np.ndarray:
        """``(m,)``, what says by its sign whether a point is for the class; NaN where light alone was evaluated.

        That is its evidence where the score is made of it, else its drop.
        """
        return self.evidence if self.evidence is not None and self.settings.get("fusion") == "mean" else self.drop

    @property
    def effect_log_odds(self) -> float:
        """The effect in log-odds, whatever the link; infinite for outputs that are no probabilities."""
        return effect_in_log_odds(self.output, self.effect, self.settings.get("link", "probability"))

    @property
    def bare(self) -> float:
        """The output for the background alone; NaN where it was not evaluated."""
        return self.output - self.effect

    @property
    def background_probability(self) -> float:
        """``P(y|B)``, the probability of the class for the background alone; NaN where it was not evaluated."""
        return float(probability_of(self.bare, self.settings.get("link", "probability")))

    @property
    def account(self) -> Account | None:
        """How much of the effect the evidence accounts for; None where there is no evidence, or not one effect."""
        if self.evidence is None or np.isnan(self.effect):
            return None
        of_covariates = None if self.covariates is None else self.covariates.evidence
        evidence = self.evidence if of_covariates is None else np.concatenate([self.evidence, of_covariates])
        partition = len(self.covers) == 2 and all(cover.is_partition for cover in self.covers.values())
        return Account(evidence, self.effect, self.effect_log_odds, partition)

    @property
    def accounted(self) -> float:
        """The sum of all evidence over the effect; NaN where that says nothing (see `Account`)."""
        return float("nan") if self.account is None else self.account.accounted

    @property
    def largest(self) -> float:
        """The largest share of the effect that one point or covariate has as evidence; NaN as for ``accounted``."""
        return float("nan") if self.account is None else self.account.largest

    def __repr__(self) -> str:
        return f"Explanation({self._outcome}, {self._search} on {self.saliency.shape}, {self._highest})"

    @property
    def _outcome(self) -> str:
        name = self.class_name or f"class {self.target}"
        if "against" in self.settings:
            first, _, other = name.partition(" against ")
            return shown_output(first, self.probability, other, digits=4)
        return shown_output(name, self.probability, digits=4)

    @property
    def _search(self) -> str:
        return f"{len(self.points)} {'points' if self.segments is None else 'segments'}"

    @property
    def _highest(self) -> str:
        first = int(self.score.argmax())
        voxel = ", ".join(f"{v:.1f}" for v in self.points[first])
        which = "" if self.segments is None else f" of segment {self.segments.index[first]}"
        return f"highest score {self.score[first]:.4g}{which} at voxel ({voxel})"

    def _summary(self) -> Summary:
        first = int(self.score.argmax())
        facts: dict[str, object] = {
            "output": self._outcome,
            "search": f"{self._search} on {' x '.join(map(str, self.saliency.shape))}",
            "highest": self._highest,
            "drop there": "n/a" if np.isnan(self.drop[first]) else f"{self.drop[first]:+z.4g}",
        }
        if self.account is not None and not np.isnan(self.accounted):
            facts["accounted for"] = f"{self.accounted:z.0%} of the effect"
        return Summary("Explanation", facts)


def draw_scores(explanation: Explanation, score: np.ndarray) -> np.ndarray:
    """Return the map of other scores ``(m,)`` of an explanation's points, made as its own map was.

    Returns
    -------
    ``(*spatial)`` float32, unnormalised.
    """
    if explanation.segments is not None:
        return explanation.segments.paint(score)
    shape, settings = explanation.saliency.shape, explanation.settings
    sigma = per_axis(settings["sigma_spatial"], len(shape), "sigma_spatial")
    maps = saliency.spread(
        explanation.points, score[None], shape, sigma, settings["distance"], spacing=settings["spacing"]
    )
    drawn: np.ndarray = maps[0]
    return drawn


def class_and_points(explanation: Explanation) -> str:
    """Return the class of an explanation and its points, for messages."""
    name = explanation.class_name or f"class {explanation.target}"
    first, last = (", ".join(f"{v:.1f}" for v in explanation.points[i]) for i in (0, -1))
    return f"{name} at {counted(len(explanation.points), 'point')} from voxel ({first}) to ({last})"


def class_difference(explanation: Explanation, other: Explanation) -> Explanation:
    """Return the evidence for one class over another: the difference of two explanations of the same evaluations.

    Light, drop and probability are those of ``P(a) - P(b)``, shadow is the size of the drop; score and saliency are the
    differences of the two classes' own, positive where the evidence is for the first. With ``link="logit"`` the output
    is the log-odds of the first class against the second, and the scores are made of it; shadow alone keeps its sign.

    Parameters
    ----------
    explanation, other
        Explanations of the two classes, from one call of `GLAS.explain`.

    Raises
    ------
    GlasError
        The two have different points, or only one has covariates.
    """
    if not np.array_equal(explanation.points, other.points):
        raise GlasError(
            "a difference of two classes needs the same points for both, "
            f"got {class_and_points(explanation)} and {class_and_points(other)}"
        )
    if (explanation.covariates is None) != (other.covariates is None):
        raise GlasError("a difference of two classes needs covariates for both or none, got them for one")
    pair = _Pair(explanation, other)
    light, drop = pair.ends(explanation, other)
    covariates = None
    if explanation.covariates is not None and other.covariates is not None:
        a, b = explanation.covariates, other.covariates
        own_light, own_drop = pair.ends(a, b)
        covariates = CovariateScores(
            a.names,
            own_light,
            np.abs(own_drop),
            own_drop,
            pair.score(a, b, own_light, own_drop),
            None if a.evidence is None else fuse("mean", own_light, own_drop, pair.bare),
        )
    score = pair.score(explanation, other, light, drop)
    density = None
    if explanation.density is not None and other.density is not None:
        density = pair.score(explanation, other, light, drop, density=True)
    return replace(
        explanation,
        probability=explanation.probability - other.probability,
        light=light,
        shadow=np.abs(drop),
        drop=drop,
        score=score,
        saliency=draw_scores(explanation, score) if pair.of_log_odds else explanation.saliency - other.saliency,
        settings=explanation.settings | {"against": other.target},
        class_name=" against ".join(each.class_name or f"class {each.target}" for each in (explanation, other)),
        covariates=covariates,
        output=pair.intact,
        effect=pair.intact - pair.bare,
        evidence=None if explanation.evidence is None else fuse("mean", light, drop, pair.bare),
        density=density,
    )


class _Pair:
    """The outputs of one class over another, on the scale of the link.

    Attributes
    ----------
    intact, bare
        Output of the intact volume, and of the background alone.
    of_log_odds
        Whether they are log-odds of the first class against the second; else differences of probabilities.
    """

    def __init__(self, first: Explanation, second: Explanation) -> None:
        self._first, self._second = first, second
        self._settings = first.settings
        self.of_log_odds = self._settings.get("link", "probability") == "logit"
        self.intact = float(self._over(first.output, second.output))
        self.bare = float(self._over(first.bare, second.bare))

    def _over(self, first: Any, second: Any) -> Any:
        if not self.of_log_odds:
            return first - second
        return log_odds_against(first, second, exclusive=self._settings["exclusive_classes"])

    def ends(
        self, first: Explanation | CovariateScores, second: Explanation | CovariateScores
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return light and drop of points or of covariates."""
        light = self._over(first.light, second.light)
        if not self.of_log_odds:
            return light, first.drop - second.drop
        shaded = self._over(self._first.output - first.drop, self._second.output - second.drop)
        return light, self.intact - shaded

    def score(
        self,
        first: Explanation | CovariateScores,
        second: Explanation | CovariateScores,
        light: np.ndarray,
        drop: np.ndarray,
        *,
        density: bool | None = None,
    ) -> np.ndarray:
        """Return the score of points or of covariates: of log-odds made anew, else the difference of the scores."""
        if not self.of_log_odds:
            name = "density" if density else "score"
            return np.asarray(getattr(first, name) - getattr(second, name))
        fusion = self._settings["fusion"]
        sums: dict[str, Any] = {}
        if density or (density is None and self._settings["density"]):
            no_mask = np.full(len(light), np.nan)  # covariates have none
            covers = self._first.covers if isinstance(first, Explanation) else {}
            sums = {f"{end}_sum": covers[end].sums if end in covers else no_mask for end in ("light", "shadow")}
        if fusion == "shadow":
            return np.asarray(drop / sums.get("shadow_sum", 1.0))
        return fuse(fusion, light, drop, self.bare, link="logit", **sums)
