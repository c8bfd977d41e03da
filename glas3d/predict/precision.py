"""Networks whose weights are of another floating type than float32, such as half or double precision."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from glas3d.predict.device import tensors_of
from glas3d.predict.interface import Network


class OwnPrecision(nn.Module):
    """A network that is given its inputs in the floating type of its weights.

    Parameters
    ----------
    net
        The network.
    dtype
        The floating type of its weights.
    """

    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.net, self.dtype = net, dtype
        self.train(net.training)

    def forward(self, batch: torch.Tensor, *covariates: torch.Tensor) -> Any:
        """Return what the network returns for a batch ``(n, c, *spatial)`` and covariates ``(n, q)``."""
        return self.net(batch.to(self.dtype), *(values.to(self.dtype) for values in covariates))


def in_own_precision(net: Network) -> Network:
    """Return a network that takes float32: itself, or with inputs converted where all its weights are of another type.

    A network of several floating types converts its inputs itself, or cannot be evaluated.
    """
    if not isinstance(net, nn.Module):
        return net
    kinds = {tensor.dtype for tensor in tensors_of(net) if tensor.is_floating_point()}
    return OwnPrecision(net, kinds.pop()) if len(kinds) == 1 and torch.float32 not in kinds else net
