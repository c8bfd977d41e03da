"""GLAS as one of Captum's attributions, for its metrics and everything else that takes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from glas3d.core.glas import GLAS
from glas3d.core.search import Grid, Search
from glas3d.errors import GlasError
from glas3d.evaluate.batch import Targets, as_predictor, maps
from glas3d.predict.predictor import Activation, FittedTransform, Predictor, Transform

try:
    from captum.attr import Attribution
    from captum.log import log_usage
except ImportError as error:
    raise GlasError(f'GLASAttribution needs captum ({error}): pip install "glas3d[captum]"') from None


class GLASAttribution(Attribution):  # type: ignore[misc]  # captum has no types
    """GLAS (Eq. 1-3) behind Captum's interface.

    Parameters
    ----------
    model
        A `Predictor`; or a torch module or callable, whose ``activation`` is then stated here. It becomes
        ``forward_func``, a `Predictor`, so it answers with probabilities.
    activation
        What turns the answers of a module or callable into probabilities: ``"softmax"``, ``"sigmoid"`` (one
        logit becomes two columns), or ``"none"``. Nothing is guessed.
    transform
        Normalisation of a module's or callable's inputs, applied after the masks; see `Predictor`.
    device
        None: where the module is.
    **settings
        Of `GLAS`: ``sigma_light``, ``background``, ...

    Raises
    ------
    GlasError
        No activation was stated, or a setting that is none of its choices.

    Examples
    --------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    >>> glas = GLASAttribution(net, activation="softmax", sigma_light=2, sigma_shadow=3)
    >>> glas.attribute(torch.ones(5, 1, 6, 8), target=[0, 1, 1, 0, 1], search=Grid(3)).shape
    torch.Size([5, 1, 6, 8])
    """

    def __init__(
        self,
        model: Predictor | nn.Module | Callable[[torch.Tensor], Any],
        activation: Activation | None = None,
        *,
        transform: Transform | FittedTransform | None = None,
        device: str | torch.device | None = None,
        **settings: Any,
    ) -> None:
        predict = as_predictor(model, activation, transform, device)
        super().__init__(predict)
        self.glas = GLAS(predict, **settings)

    @classmethod
    def get_name(cls) -> str:
        """As captum's figures call it."""
        return "GLAS"

    @log_usage()  # type: ignore[untyped-decorator]  # captum's NoiseTunnel calls what it wraps
    def attribute(
        self,
        inputs: torch.Tensor | tuple[torch.Tensor, ...],
        target: Targets,
        search: Search | Sequence[Sequence[float]] = Grid(15),  # noqa: B008 (frozen)
        spacing: Sequence[float] | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """The saliency map of every input, unnormalised.

        Parameters
        ----------
        inputs
            ``(n, c, *spatial)`` of two or three spatial axes, before normalisation; or a tuple of one such tensor.
        target
            One class index or name for all inputs, or a list or tensor of one an input.
        search, spacing
            See `GLAS.explain`; the same for all inputs.

        Returns
        -------
        Shaped like ``inputs``, on their device, and a tuple if they were one; every channel of an input holds the
        same map, since all channels are lit and shaded together.

        Raises
        ------
        GlasError
            Several input tensors, or what `GLAS.explain` refuses.
        """
        several = inputs if isinstance(inputs, tuple) else (inputs,)
        if len(several) != 1 or not isinstance(several[0], torch.Tensor):
            came = ", ".join(type(one).__name__ for one in several)
            raise GlasError(f"inputs must be one tensor (n, c, *spatial), got {len(several)}: {came}")
        batch = several[0]
        drawn = maps(self.glas, batch, target, search, spacing).unsqueeze(1)
        kind = batch.dtype if batch.dtype.is_floating_point else torch.float32
        attributions = drawn.to(device=batch.device, dtype=kind).expand(batch.shape).clone()
        return (attributions,) if isinstance(inputs, tuple) else attributions
