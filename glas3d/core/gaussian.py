"""Gaussian masks, which light or shade a volume (the ``G(x; mu, sigma)`` of Eq. 1 and 2).

A mask is made from one term for each axis, so that two and three axes are one code and a batch of masks costs one
broadcast: the Gaussian multiplies its terms (it is separable), the exponential adds them up to a squared distance
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch

from glas3d.errors import GlasError

# Factors below this become zero: a small sigma would otherwise fill the volume with denormal numbers,
# which slow every forward pass two- to threefold and change no result.
NEGLIGIBLE_FACTOR = 1e-10
# Values that are held at a time where masks are added up (4 MiB of float32).
_AT_A_TIME = 2**20
# The exponential has no factors; only what would be denormal in float32 becomes zero.
_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


class Masks(Protocol):
    """The masks of many points, made a few at a time."""

    def __len__(self) -> int:
        """Return the number of points."""
        ...

    def masks(self, start: int, out: torch.Tensor) -> torch.Tensor:
        """Write the masks of points ``start, start + 1, ...`` into ``out``, ``(b, *spatial)`` float32."""
        ...


@runtime_checkable
class AddedMasks(Protocol):
    """Masks that can be added up without making each in full."""

    def added(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the sum of each mask over voxels ``(m,)`` float64, and that of all masks ``(*spatial)`` float32.

        None where there is no shorter way.
        """
        ...


@runtime_checkable
class BoxedMasks(Protocol):
    """Masks that are each 0 outside of a box."""

    def write(self, number: int, out: torch.Tensor) -> tuple[slice, ...]:
        """Write the mask of a point into a volume of zeros ``(*spatial)``, and return the box that holds it."""
        ...


@runtime_checkable
class SeparableMasks(Protocol):
    """Masks that may be products of one factor for each axis."""

    def factors(self) -> tuple[torch.Tensor, ...] | None:
        """Return the factors, for each axis ``(m, n_axis)`` float32; points beyond the ``m`` have empty masks.

        None where these masks are no such products.
        """
        ...


@dataclass(frozen=True)
class GaussianMasks:
    """The masks of ``m`` points, kept as one term for each axis.

    Attributes
    ----------
    terms
        For each axis one tensor ``(m, n_axis)``, float32.
    kernel
        The kernel that the terms belong to.
    """

    terms: tuple[torch.Tensor, ...]
    kernel: Literal["gaussian", "exponential"]

    def __len__(self) -> int:
        return self.terms[0].shape[0]

    def masks(self, start: int, out: torch.Tensor) -> torch.Tensor:
        """Write the masks of points ``start, start + 1, ...`` into ``out`` and return it.

        Parameters
        ----------
        start
            Index of the first point.
        out
            Buffer of shape ``(b, *spatial)``, float32; overwritten.
        """
        stop = start + out.shape[0]
        broadcast = []
        for axis, term in enumerate(self.terms):
            shape = [stop - start] + [1] * len(self.terms)
            shape[axis + 1] = term.shape[1]
            broadcast.append(term[start:stop].view(shape))
        combine = torch.mul if self.kernel == "gaussian" else torch.add
        partial = broadcast[0]
        for term in broadcast[1:-1]:
            partial = combine(partial, term)
        combine(partial, broadcast[-1], out=out)
        if self.kernel == "exponential":
            out.sqrt_().neg_().exp_()
            out.masked_fill_(out < _SMALLEST_NORMAL, 0.0)
        return out

    def factors(self) -> tuple[torch.Tensor, ...] | None:
        """Return the terms of Gaussians, which are separable (see `SeparableMasks`)."""
        return self.terms if self.kernel == "gaussian" else None

    def added(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the sums of Gaussians, which are separable (see `AddedMasks`)."""
        if self.kernel != "gaussian":
            return None
        terms = [term.cpu() if term.is_mps else term for term in self.terms]  # Apple's MPS has no float64
        sums = torch.stack([term.sum(dim=1, dtype=torch.float64) for term in terms]).prod(dim=0)
        *planes, last = self.terms
        shape = [term.shape[1] for term in self.terms]
        total = torch.zeros(shape, device=last.device).view(-1, shape[-1])
        count = max(1, _AT_A_TIME // len(total))
        for start in range(0, len(self), count):
            some = slice(start, start + count)
            plane = planes[0][some]
            for term in planes[1:]:
                plane = (plane[:, :, None] * term[some, None, :]).flatten(1)
            total.addmm_(plane.T, last[some])
        return sums, total.view(shape)

    def slab(self, along: slice) -> GaussianMasks:
        """Return the masks on a part of the first axis."""
        first, *others = self.terms
        return GaussianMasks((first[:, along], *others), self.kernel)

    def within(self, rows: np.ndarray, corner: np.ndarray, size: Sequence[int]) -> torch.Tensor:
        """Return the masks of some points inside boxes.

        Parameters
        ----------
        rows
            ``(b,)`` indices of the points.
        corner
            ``(b, ndim)`` first corner of each point's box.
        size
            Voxels of every box on each axis.

        Returns
        -------
        ``(b, *size)`` float32.
        """
        terms = []
        for axis, (term, n) in enumerate(zip(self.terms, size, strict=True)):
            voxel = torch.as_tensor(corner[:, axis, None] + np.arange(n), device=term.device)
            terms.append(term[torch.as_tensor(rows, device=term.device)].gather(1, voxel))
        out = torch.empty((len(rows), *size), dtype=terms[0].dtype, device=terms[0].device)
        return GaussianMasks(tuple(terms), self.kernel).masks(0, out)

    def reach(self, least: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the box outside of which each mask is at most ``least``.

        Returns
        -------
        First corners ``(m, ndim)``, one voxel beyond the last corners, and the largest value that any mask has outside
        of its box.
        """
        low, high, beyond = [], [], 0.0
        for axis in range(len(self.terms)):
            # the mask along this axis, where it is largest on the other axes
            others = [term for a, term in enumerate(self.terms) if a != axis]
            if self.kernel == "gaussian":
                along = self.terms[axis] * torch.stack([t.amax(dim=1) for t in others]).prod(dim=0)[:, None]
            else:
                nearest = torch.stack([t.amin(dim=1) for t in others]).sum(dim=0)[:, None]
                along = (self.terms[axis] + nearest).sqrt().neg().exp()
                along = along.masked_fill(along < _SMALLEST_NORMAL, 0.0)
            inside = along > least
            some = inside.any(dim=1)
            low.append(torch.where(some, inside.int().argmax(dim=1), 0))
            high.append(torch.where(some, inside.shape[1] - inside.flip(1).int().argmax(dim=1), 0))
            beyond = max(beyond, float(along.masked_fill(inside, 0.0).max()))
        corners = (torch.stack(ends, dim=1).cpu().numpy() for ends in (low, high))
        first, last = corners
        return first, last, beyond


def gaussian_masks(
    points: np.ndarray,
    shape: Sequence[int],
    sigma: Sequence[float],
    kernel: Literal["gaussian", "exponential"] = "gaussian",
    *,
    spacing: Sequence[float] | None = None,
    device: torch.device | str = "cpu",
) -> GaussianMasks:
    """Return masks with peak 1 at each point.

    Gaussian: ``exp(-|x - mu|^2 / (2 sigma^2))``, ``sigma`` may differ between axes.
    Exponential: ``exp(-|x - mu| / sigma^2)``, one ``sigma`` for all axes (the kernel of Eq. 3).

    Parameters
    ----------
    points
        ``(m, ndim)`` voxel coordinates, float64.
    shape
        Voxels on each axis.
    sigma
        One value for each axis, in units of ``spacing`` (voxels when ``spacing`` is None).
    kernel
        ``"gaussian"`` or ``"exponential"``.
    spacing
        Size of a voxel on each axis; None means 1.
    device
        Where the masks are made.

    Raises
    ------
    GlasError
        Sigmas that differ, for the exponential kernel.
    """
    scale = [1.0] * len(shape) if spacing is None else [float(s) for s in spacing]
    if kernel == "exponential" and len(set(sigma)) > 1:
        raise GlasError(
            f"the exponential kernel takes one sigma for all axes, got {tuple(sigma)}; "
            'use kernel="gaussian" for one sigma for each axis'
        )
    # Coordinates are float64 until the term is made: in half precision not all voxels of a 300-voxel axis differ.
    points = np.asarray(points, dtype=np.float64)
    terms = []
    for axis, n in enumerate(shape):
        distance = (np.arange(n, dtype=np.float64)[None, :] - points[:, axis, None]) * scale[axis]
        with np.errstate(over="ignore", under="ignore"):
            if kernel == "gaussian":
                term = np.exp(-0.5 * (distance / sigma[axis]) ** 2)
                term[term < NEGLIGIBLE_FACTOR] = 0.0
            else:
                # squared distance over sigma^4, whose root is |x - mu| / sigma^2
                term = np.minimum((distance / sigma[axis] / sigma[axis]) ** 2, 1e30)
        terms.append(torch.as_tensor(term, dtype=torch.float32, device=device))
    return GaussianMasks(tuple(terms), kernel)
