"""The link: whether scores are made of probabilities or of log-odds (documentation: "Log-odds").

It lies between a model's output and the scores. A model of log-odds is a model like any other, one whose columns are
the log-odds of each class against all others: batches, engines, recomputing and their checks treat it alike, and `P` is
the sigmoid of its output. In float32 a probability of 1 - 1e-8 is 1 and hides what a mask changes; log-odds do not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from glas3d.core.model import HasActivation, HasLogits, NoLogOdds, Predict, classes_of
from glas3d.errors import GlasWarning

T = TypeVar("T")

# Probabilities of exclusive classes add up to 1 within this.
_SUM_TO_ONE = 1e-3


def _in_float64(values: torch.Tensor) -> torch.Tensor:
    """Return values in float64, on the CPU where they are on Apple's MPS, which has no float64."""
    return values.to("cpu" if values.is_mps else values.device, torch.float64)


def log_odds(outputs: torch.Tensor, activation: str) -> torch.Tensor:
    """Return the log-odds of each class against all others, with finite gradients.

    Parameters
    ----------
    outputs
        ``(n, k)``, what a model returns.
    activation
        What turns the outputs into probabilities: ``"softmax"``, ``"sigmoid"``, or ``"none"`` where they are
        probabilities.

    Returns
    -------
    ``(n, k)`` float64; of one logit ``z`` of a sigmoid ``(n, 2)``, ``-z`` and ``z``.

    Raises
    ------
    NoLogOdds
        See `log_odds_of_probabilities`.

    Examples
    --------
    >>> log_odds(torch.tensor([[0.0, 2.0]]), "softmax").round(decimals=4).tolist()
    [[-2.0, 2.0]]
    >>> log_odds(torch.tensor([[0.25, 0.75]]), "none").exp().round(decimals=4).tolist()
    [[0.3333, 3.0]]
    """
    if activation == "none":
        return log_odds_of_probabilities(outputs)
    if activation == "softmax":
        return log_odds_of_logits(outputs)
    z = _in_float64(outputs)
    return torch.cat([-z, z], dim=1) if z.shape[1] == 1 else z


def log_odds_of_logits(logits: torch.Tensor) -> torch.Tensor:
    """Return the log-odds of each of two or more exclusive classes: ``z_y - logsumexp(z of the others)``.

    Parameters
    ----------
    logits
        ``(n, k)``, or the logarithms of probabilities.

    Returns
    -------
    ``(n, k)`` float64, exact also where one class is all but certain.

    Examples
    --------
    >>> log_odds_of_logits(torch.tensor([[40.0, 0.0, 0.0]])).round(decimals=4)
    tensor([[ 39.3069, -40.0000, -40.0000]], dtype=torch.float64)
    """
    z = _in_float64(logits)
    log_p = z - z.logsumexp(dim=1, keepdim=True)
    # of the likeliest class 1 - p would be lost to rounding, and its gradient: its opponents are added up without it
    top = z.argmax(dim=1, keepdim=True)
    odds = log_p - torch.log1p(-log_p.scatter(1, top, -1.0).exp())
    others = z.scatter(1, top, -torch.inf).logsumexp(dim=1, keepdim=True)
    return odds.scatter(1, top, z.gather(1, top) - others)


def log_odds_of_probabilities(probabilities: torch.Tensor) -> torch.Tensor:
    """Return the log-odds of each class from probabilities ``(n, k)``, in float64.

    Raises
    ------
    NoLogOdds
        Outputs that are no probabilities: a single column must be in [0, 1], several must add up to 1. Or one that is
        0 or 1, whose log-odds are not finite.
    """
    p = _in_float64(probabilities)
    if p.shape[1] == 1:
        if not bool(((p >= 0) & (p <= 1)).all()):
            raise NoLogOdds(f"log-odds need a probability from 0 to 1, the model's output is {_outside(p):.4g}")
        odds = p.log() - torch.log1p(-p)
    else:
        total = p.sum(dim=1)
        if not bool((p >= 0).all() & ((total - 1).abs() <= _SUM_TO_ONE).all()):
            worst = total[(total - 1).abs().argmax()] if bool((p >= 0).all()) else p.min()
            raise NoLogOdds(
                "log-odds need probabilities of all classes, which add up to 1; the model's outputs "
                + (f"add up to {float(worst):.4g}" if bool((p >= 0).all()) else f"go down to {float(worst):.4g}")
                + ': if they are logits, its activation must be "softmax" or "sigmoid"'
            )
        odds = log_odds_of_logits(p.log())
    if not torch.isfinite(odds).all():
        raise NoLogOdds(
            "log-odds of a probability of 0 or 1 are not finite, and this model gives no logits: give a Predictor of "
            "the network itself with its activation"
        )
    return odds


def _outside(p: torch.Tensor) -> float:
    return float(p.min() if bool(p.min() < 0) else p.max())


class LogOddsOfProbabilities:
    """A model of log-odds that is made of a model of probabilities which offers no logits.

    Parameters
    ----------
    predict
        The model, bound to a volume.
    """

    def __init__(self, predict: Predict) -> None:
        self.predict = predict
        self.classes = classes_of(predict)

    def __call__(self, *inputs: torch.Tensor) -> Any:
        """Return the log-odds ``(n, k)`` of a batch."""
        output = self.predict(*inputs)
        p = output.detach() if isinstance(output, torch.Tensor) else torch.as_tensor(np.asarray(output))
        if p.ndim > 2 or p.ndim == 0 or not torch.isfinite(p).all():
            return output  # refused where outputs are checked
        return log_odds_of_probabilities(p.unsqueeze(1) if p.ndim == 1 else p)


def log_odds_model(predict: Predict) -> Predict:
    """Return a model whose outputs are the log-odds of another model: from its logits, else from its probabilities.

    Raises
    ------
    NoLogOdds
        The model has none, such as one with a readout; when evaluated: what `log_odds_of_probabilities` refuses.
    """
    return predict.log_odds() if isinstance(predict, HasLogits) else LogOddsOfProbabilities(predict)


def has_logits(predict: Predict) -> bool:
    """Return whether a model has log-odds whatever its inputs, because it has logits; else its outputs decide."""
    try:
        return (
            isinstance(predict, HasLogits)
            and isinstance(predict, HasActivation)
            and (predict.activation != "none" and bool(predict.log_odds()))
        )
    except NoLogOdds:
        return False


def probability_of(output: np.ndarray | float, link: str) -> np.ndarray:
    """Return the probability of an output on the scale of a link, which is itself for ``"probability"``."""
    values = np.asarray(output, dtype=np.float64)
    # the sigmoid, of a value whose exponential cannot overflow
    return values if link == "probability" else np.exp(-np.logaddexp(0.0, -values))


def are_exclusive(log_odds: np.ndarray) -> bool:
    """Return whether the classes exclude each other: the probabilities of all rows ``(n, k)`` add up to 1."""
    total = probability_of(log_odds, "logit").sum(axis=1)
    return bool((np.abs(total - 1) <= _SUM_TO_ONE).all())


def log_odds_against(log_odds: np.ndarray, other: np.ndarray, *, exclusive: bool) -> np.ndarray:
    """Return the log-odds of one class against a second, from those of each against all others.

    Of exclusive classes that is ``log P(y) - log P(u)``, of a softmax the difference of two logits; of classes that are
    independent the difference of their log-odds.
    """
    if not exclusive:
        return np.asarray(log_odds - other)
    with np.errstate(invalid="ignore"):  # NaN, where an end was not evaluated
        return np.asarray(np.logaddexp(0.0, -other) - np.logaddexp(0.0, -log_odds))


def with_resolved_link(link: str, explain: Callable[[str], T]) -> T:
    """Explain with log-odds where the model has them, if the link is ``"auto"``; else with the link that was given.

    Parameters
    ----------
    link
        ``"probability"``, ``"logit"`` or ``"auto"``.
    explain
        Explains with one of the first two.

    Warns
    -----
    GlasWarning
        ``"auto"`` found no log-odds, so that scores are made of the model's own output.
    """
    if link != "auto":
        return explain(link)
    try:
        return explain("logit")
    except NoLogOdds as why:
        warnings.warn(f"scores are made of the model's own output: {why}", GlasWarning, stacklevel=4)
    return explain("probability")
