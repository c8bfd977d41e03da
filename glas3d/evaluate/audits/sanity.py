"""Audit: does an explanation depend on what the network has learnt, or would any network have given it?

Cascading randomisation of Adebayo et al. 2018 (arXiv 1810.03292): the layers of the network are initialised anew, from
the last to the first, and the explanation of each of these networks is compared with that of the trained one. What
counts as similar is more than unrelated maps reach, as in Arun et al. 2021 (doi:10.1148/ryai.2021200267): the null is
of pairs of maps of which one has its values permuted among the regions.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr, t
from torch import nn

from glas3d.errors import GlasWarning
from glas3d.evaluate.audits.audit import Audit, Number
from glas3d.evaluate.audits.audited_scan import AuditedScan
from glas3d.evaluate.rivals.rival import seeded
from glas3d.predict import Predictor

NULL_PERCENTILE = 99.0
"""The percentile of similarities of unrelated maps that the mean similarity to random networks may reach."""

_PAIRS = 1000
_MOST_STAGES = 6  # networks of the cascade that are explained, the fully randomised ones not counted


def audit_scan(scan: AuditedScan) -> Audit:
    """Return the audit of the explainers of the options on one scan."""
    predict = scan.subject.request.glas.predict
    if not isinstance(predict, Predictor) or not isinstance(predict.net, nn.Module) or not layers_of(predict.net):
        return scan.audit("sanity", "n/a", "No verdict: layers are randomised in a torch network, this model is none.")
    networks = [randomised(predict, layers, scan.options.seed) for layers in _cascade(predict.net)]
    entirely = [randomised(predict, None, scan.options.seed + i) for i in range(1, scan.options.randomised + 1)]
    passed: list[str] = []
    failed: list[str] = []
    numbers: list[Number] = []
    for name in scan.options.methods:
        trained = explained(scan, name, predict)
        cascade = [similarity(trained, explained(scan, name, network)) for network in networks]
        final = [similarity(trained, explained(scan, name, network)) for network in entirely]
        allowed = null_similarity(trained, scan.options.seed)
        mean, least = float(np.mean(final)), lower_bound(final)
        (failed if least > allowed else passed).append(
            f"{name} (mean similarity {mean:z.2f}, at least {least:z.2f} with 95 % confidence, {allowed:z.2f} allowed)"
        )
        numbers += [
            Number(
                f"{name}_similarity", mean, "rho", f"mean over {len(final)} networks with no layer as it was trained"
            ),
            Number(f"{name}_lower_bound", least, "rho", "of the mean, one-sided at 95 %, over random networks"),
            Number(f"{name}_allowed", allowed, "rho", f"{NULL_PERCENTILE:g}th percentile of {_PAIRS} unrelated pairs"),
            *(
                Number(f"{name}_stage_{i}", rho, "rho", f"similarity after stage {i} of {len(cascade)} of the cascade")
                for i, rho in enumerate(cascade, start=1)
            ),
        ]
    if failed:
        statement = (
            "Maps of networks with random weights are more like this map than unrelated maps are: "
            f"{', '.join(failed)}. It shows the scan more than the model."
        )
        return scan.audit("sanity", "fail", statement, numbers)
    statement = (
        "Maps of networks with random weights are not reliably more like this map than unrelated maps are: "
        f"{', '.join(passed)}."
    )
    return scan.audit("sanity", "pass", statement, numbers)


def explained(scan: AuditedScan, name: str, predict: Predictor) -> np.ndarray:
    """Return the values of the regions ``(m,)`` by an explainer of the options; 0 for a region without a value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GlasWarning)  # of networks that know nothing: flat maps, other predictions
        values = scan.attributed(name, predict)
    return np.nan_to_num(np.asarray(values, dtype=np.float64))


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation of the values of regions, with their signs; 0 where one is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a, b).statistic)


def lower_bound(similarities: Sequence[float]) -> float:
    """Return the lower end of a one-sided 95 % interval of the mean over networks (Student's t)."""
    n = len(similarities)
    error = float(np.std(similarities, ddof=1)) / np.sqrt(n)
    return float(np.mean(similarities) - t.ppf(0.95, n - 1) * error)


def null_similarity(values: np.ndarray, seed: int) -> float:
    """Return the 99th percentile of similarities of a map and the same map with its values permuted."""
    rng = np.random.default_rng(seed)
    null = [similarity(values, rng.permutation(values)) for _ in range(_PAIRS)]
    return float(np.percentile(null, NULL_PERCENTILE))


def layers_of(net: nn.Module) -> list[nn.Module]:
    """Return the modules that have parameters of their own, in the order in which they were registered."""
    return [module for module in net.modules() if any(True for _ in module.parameters(recurse=False))]


def _cascade(net: nn.Module) -> Iterator[int]:
    """Yield how many layers, counted from the last, are randomised at each stage of the cascade."""
    n = len(layers_of(net))
    yield from sorted({round(float(k)) for k in np.linspace(1, n, min(n, _MOST_STAGES))})


def randomised(predict: Predictor, layers: int | None, seed: int) -> Predictor:
    """Return a predictor whose network has its last layers initialised anew.

    Parameters
    ----------
    predict
        The trained model, which is left as it is.
    layers
        How many layers, counted from the last; None: all.
    seed
        Of the new weights.
    """
    net = copy.deepcopy(predict.net)
    every = layers_of(net)  # type: ignore[arg-type]
    with torch.no_grad(), seeded(seed, torch.device("cpu")):
        for layer in every if layers is None else every[-layers:]:
            initialise(layer)
    return predict.with_net(net)


def initialise(layer: nn.Module) -> None:
    """Give a layer new weights: as torch initialises it, else normal ones of the same deviation around 0."""
    reset: Callable[[], Any] | None = getattr(layer, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for parameter in layer.parameters(recurse=False):
        size = parameter.float().square().mean().sqrt()
        parameter.copy_(torch.randn(parameter.shape, dtype=torch.float32).to(parameter) * size.to(parameter))
