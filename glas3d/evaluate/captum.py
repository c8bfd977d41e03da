"""GLAS as one of Captum's attributions, for its metrics and everything else that takes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from glas3d.core.glas import GLAS
from glas3d.core.search import Grid, Search
from glas3d.errors import GlasError
from glas3d.evaluate.batch_maps import Targets, as_predictor, saliency_maps
from glas3d.predict import Predictor
from glas3d.predict.interface import Activation, FittedTransform, Transform

try:
    from captum.attr import Attribution
    from captum.log import log_usage
except ImportError as error:
    raise GlasError(f'GLASAttribution needs captum ({error}): pip install "glas3d[captum]"') from None


class GLASAttribution(Attribution):  # type: ignore[misc]  # captum has no types
    """GLAS (Eq. 1-3) as one of Captum's attributions.

    Parameters
    ----------
    model
        A `Predictor`; or a torch module or callable, whose ``activation`` must then be stated. It becomes
        ``forward_func``, a `Predictor`, so ``forward_func`` returns probabilities.
    activation
        What turns the outputs of a module or callable into probabilities: ``"softmax"``, ``"sigmoid"`` (one logit
        becomes two columns), or ``"none"``. It is never guessed.
    transform
        The normalisation of a module's or callable's inputs, applied after the masks; see `Predictor`.
    device
        Where the model is evaluated. None: where the module is.
    **settings
        Settings of `GLAS`: ``sigma_light``, ``background``, ...

    Raises
    ------
    GlasError
        No activation is stated, or `GLAS` refuses a setting.

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
        """Return the name that Captum's figures show."""
        return "GLAS"

    @log_usage()  # type: ignore[untyped-decorator]  # captum's NoiseTunnel calls what it wraps
    def attribute(
        self,
        inputs: torch.Tensor | tuple[torch.Tensor, ...],
        target: Targets,
        search: Search | Sequence[Sequence[float]] = Grid(15),  # noqa: B008 (frozen)
        spacing: Sequence[float] | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Return the saliency map of every input, unnormalised.

        Parameters
        ----------
        inputs
            ``(n, c, *spatial)`` with two or three spatial axes, before normalisation; or a tuple of one such tensor.
        target
            One class index or name for all inputs, or a list or tensor of one for each input.
        search, spacing
            See `GLAS.explain`; the same for all inputs.

        Returns
        -------
        A tensor shaped like ``inputs``, on their device; a tuple of it if ``inputs`` is a tuple. Every channel of an
        input holds the same map, because all channels are lit and shaded together.

        Raises
        ------
        GlasError
            There are several input tensors, or `GLAS.explain` refuses something.
        """
        tensors = inputs if isinstance(inputs, tuple) else (inputs,)
        if len(tensors) != 1 or not isinstance(tensors[0], torch.Tensor):
            types = ", ".join(type(tensor).__name__ for tensor in tensors)
            raise GlasError(f"inputs must be one tensor (n, c, *spatial), got {len(tensors)}: {types}")
        batch = tensors[0]
        maps = saliency_maps(self.glas, batch, target, search, spacing).unsqueeze(1)
        dtype = batch.dtype if batch.dtype.is_floating_point else torch.float32
        attributions = maps.to(device=batch.device, dtype=dtype).expand(batch.shape).clone()
        return (attributions,) if isinstance(inputs, tuple) else attributions
